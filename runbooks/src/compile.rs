//! A recipe, roles and the site become the steps of a job. Pure; nothing is left to choose afterwards.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    condition::{self, Condition, ConditionCall},
    job::{Action, CheckMode, Effect, Step, StepId},
    model::{HostName, Secs, ServiceName},
    probe::{self, Ask},
    wire::{Command, Work},
};
use serde_json::Value;

use crate::{
    decision::{self, Act, Roles},
    format::{GuardSpec, MEMBERS, ProofSpec, Runbook, StepSpec, placeholder},
    never,
    topology::Topology,
};

/// Of each output stream of a command, kept in the journal.
const OUTPUT_LIMIT_BYTES: u32 = 64 * 1024;
/// What a check may take beyond its deadline: the last look that was begun before it.
const CHECK_GRACE_SECONDS: u32 = 60;
/// Readings of all members.
const SNAPSHOT_TIMEOUT: Secs = Secs(120);

/// What became of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    pub steps: Vec<Step>,
    /// Hosts that steps act on.
    pub hosts: BTreeSet<HostName>,
}

/// Why a recipe could not be compiled for this site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{runbook}: {why}")]
pub struct CompileError {
    pub runbook: String,
    pub why: String,
}

/// Steps in the order of the recipe, each needing all of the one before; commands on several hosts need nothing of one another
/// unless `each`. Guarded ones are still run one at a time (`runner::flight`): none may wait for another.
///
/// # Errors
/// Names what the site or the decision does not have. Nothing is ever left out silently but steps on optional roles.
pub fn compile(
    runbook: &Runbook,
    act: &Act,
    topology: &Topology,
) -> Result<Compiled, CompileError> {
    let fail = |why: String| CompileError {
        runbook: runbook.runbook.to_string(),
        why,
    };
    let members = topology.members(&runbook.service).ok_or_else(|| {
        fail(format!(
            "{} is not deployed on {}",
            runbook.service, topology.site
        ))
    })?;
    let mut compiler = Compiler {
        runbook,
        roles: &act.roles,
        parameters: &act.parameters,
        topology,
        members,
        steps: Vec::new(),
        needs: Vec::new(),
        hosts: BTreeSet::new(),
    };
    for spec in &runbook.steps {
        compiler.step(spec).map_err(fail)?;
    }
    let proof = runbook.proof.as_ref();
    let proof = proof.ok_or_else(|| fail("it has no proof".to_owned()))?;
    compiler.proof(proof).map_err(fail)?;
    if compiler.hosts.is_empty() {
        return Err(fail("no step acts on any host".to_owned()));
    }
    Ok(Compiled {
        steps: compiler.steps,
        hosts: compiler.hosts,
    })
}

struct Compiler<'a> {
    runbook: &'a Runbook,
    roles: &'a Roles,
    parameters: &'a BTreeMap<String, String>,
    topology: &'a Topology,
    members: Vec<HostName>,
    steps: Vec<Step>,
    /// What the next step needs.
    needs: Vec<StepId>,
    hosts: BTreeSet<HostName>,
}

impl Compiler<'_> {
    fn step(&mut self, spec: &StepSpec) -> Result<(), String> {
        if let Some(probes) = &spec.snapshot {
            return self.snapshot(probes);
        }
        let role = spec.on.as_deref().unwrap_or(MEMBERS);
        let Some(hosts) = self.hosts_of(role) else {
            return self.left_out(role);
        };
        if let Some(seconds) = spec.wait {
            let action = Action::Wait {
                seconds: seconds.0,
                why: spec.title.clone(),
            };
            let timeout = Secs(seconds.0.0 + CHECK_GRACE_SECONDS);
            let step = self.bare(spec.title.clone(), action, Effect::Observe, timeout);
            self.barrier(vec![step]);
            return Ok(());
        }
        if spec.each {
            for host in hosts {
                self.group(spec, std::slice::from_ref(&host))?;
            }
            return Ok(());
        }
        self.group(spec, &hosts)
    }

    /// Only a role that the decision declares optional may be absent.
    fn left_out(&self, role: &str) -> Result<(), String> {
        let declared = decision::find(&self.runbook.decide)
            .and_then(|entry| entry.roles.iter().find(|known| known.name == role));
        match declared {
            Some(known) if known.optional => Ok(()),
            _ => Err(format!("the decision gives no hosts for {role}")),
        }
    }

    /// Commands on these hosts side by side, then one check of all of them.
    fn group(&mut self, spec: &StepSpec, hosts: &[HostName]) -> Result<(), String> {
        if let Some(argv) = &spec.run {
            let steps: Result<Vec<Step>, String> = hosts
                .iter()
                .map(|host| self.command(spec, argv, host))
                .collect();
            self.hosts.extend(hosts.iter().cloned());
            self.barrier(steps?);
        }
        if let (Some(name), Some(within)) = (&spec.then, spec.within) {
            let condition = self.call(name, hosts, &spec.with)?;
            let title = format!("wait for {name} on {}", listed(hosts));
            let mode = CheckMode::Within { deadline: within.0 };
            let timeout = Secs(within.0.0 + CHECK_GRACE_SECONDS);
            let step = self.bare(
                title,
                Action::Check { condition, mode },
                Effect::Observe,
                timeout,
            );
            self.barrier(vec![step]);
        }
        Ok(())
    }

    fn snapshot(&mut self, probes: &[String]) -> Result<(), String> {
        let about: BTreeSet<&HostName> = if self.runbook.lock == crate::format::Lock::Host {
            self.roles.values().flatten().collect()
        } else {
            self.members.iter().collect()
        };
        let mut asks = Vec::new();
        for name in probes {
            let known = probe::find(name).ok_or_else(|| format!("there is no probe {name}"))?;
            let service = known.service().map(str::parse::<ServiceName>).transpose()?;
            asks.extend(about.iter().map(|host| Ask {
                probe: name.clone(),
                host: (*host).clone(),
                service: service.clone(),
            }));
        }
        let step = self.bare(
            "record the state before".to_owned(),
            Action::Snapshot { asks },
            Effect::Observe,
            SNAPSHOT_TIMEOUT,
        );
        self.barrier(vec![step]);
        Ok(())
    }

    fn command(&self, spec: &StepSpec, argv: &[String], host: &HostName) -> Result<Step, String> {
        let timeout = spec.timeout.ok_or("a command without a timeout")?.0;
        let before = spec
            .guard
            .iter()
            .chain(spec.guards.iter().map(|guard| &guard.condition));
        self.never(argv, before.map(String::as_str))?;
        if let Some(undo) = &spec.undo {
            self.never(undo, std::iter::empty())?;
        }
        let action = |argv: &[String]| -> Result<Action, String> {
            let command = Command {
                argv: self.filled(argv)?,
                env: BTreeMap::new(),
                stdin: None,
                user: None,
                timeout_seconds: timeout.0,
                output_limit_bytes: OUTPUT_LIMIT_BYTES,
            };
            Ok(Action::Host {
                host: host.clone(),
                work: Work::Run { command },
            })
        };
        let title = format!("{} on {host}", spec.title);
        let effect = spec.effect.ok_or("a command without an effect")?;
        let own = std::slice::from_ref(host);
        let mut guards = Vec::new();
        if let Some(name) = &spec.guard {
            guards.push(self.call(name, own, &spec.with)?);
        }
        for GuardSpec { condition, on } in &spec.guards {
            let hosts = self
                .hosts_of(on)
                .ok_or_else(|| format!("the guard {condition} is about {on}, which nobody is"))?;
            guards.push(self.call(condition, &hosts, &spec.with)?);
        }
        let unless = spec
            .unless
            .as_ref()
            .map(|name| self.call(name, own, &spec.with))
            .transpose()?;
        let undo = spec.undo.as_deref().map(action).transpose()?;
        let step = self.bare(
            title,
            action(argv)?,
            effect,
            Secs(timeout.0 + CHECK_GRACE_SECONDS),
        );
        Ok(Step {
            guards,
            unless,
            undo,
            ..step
        })
    }

    /// Held through the whole settle time, read from the raw state.
    fn proof(&mut self, proof: &ProofSpec) -> Result<(), String> {
        let on = proof.on.as_deref().unwrap_or(MEMBERS);
        let hosts = self
            .hosts_of(on)
            .ok_or_else(|| format!("the proof is about {on}, which nobody is"))?;
        let condition = self.call(&proof.condition, &hosts, &proof.with)?;
        let mode = CheckMode::Settled {
            settle: proof.settle.0,
            deadline: proof.deadline.0,
        };
        let title = format!("prove {} for {}", proof.condition, proof.settle.0);
        let timeout = Secs(proof.deadline.0.0 + CHECK_GRACE_SECONDS);
        let step = self.bare(
            title,
            Action::Check { condition, mode },
            Effect::Observe,
            timeout,
        );
        self.barrier(vec![step]);
        Ok(())
    }

    fn hosts_of(&self, role: &str) -> Option<Vec<HostName>> {
        match role {
            MEMBERS => Some(self.members.clone()),
            name => self.roles.get(name).cloned(),
        }
    }

    /// A condition about hosts, in the words of the service whose probes it asks.
    fn call(
        &self,
        name: &str,
        hosts: &[HostName],
        with: &BTreeMap<String, Value>,
    ) -> Result<ConditionCall, String> {
        let known = condition::find(name).ok_or_else(|| format!("there is no condition {name}"))?;
        let mut settings = BTreeMap::new();
        for (key, value) in with {
            let value = match value.as_str().and_then(placeholder) {
                Some(parameter) => Value::String(self.parameter(parameter)?.to_owned()),
                None => value.clone(),
            };
            settings.insert(key.clone(), value);
        }
        let call = ConditionCall {
            name: name.to_owned(),
            service: self.runbook.service.clone(),
            hosts: hosts.to_vec(),
            members: self.members.clone(),
            settings,
        };
        addressed(call, known, self.topology)
    }

    /// The library was checked when it was loaded; this is of the very words that would be run, parameters filled in.
    fn never<'g>(
        &self,
        argv: &[String],
        guards: impl Iterator<Item = &'g str> + Clone,
    ) -> Result<(), String> {
        match never::refusal(&self.filled(argv)?, &self.runbook.decide, guards) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    fn filled(&self, argv: &[String]) -> Result<Vec<String>, String> {
        argv.iter()
            .map(|word| match placeholder(word) {
                Some(name) => self.parameter(name).map(str::to_owned),
                None => Ok(word.clone()),
            })
            .collect()
    }

    fn parameter(&self, name: &str) -> Result<&str, String> {
        self.parameters
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| format!("the decision gives no {name}"))
    }

    fn bare(&self, title: String, action: Action, effect: Effect, timeout: Secs) -> Step {
        Step {
            id: StepId(0),
            title,
            service: Some(self.runbook.service.clone()),
            action,
            effect,
            needs: self.needs.clone(),
            timeout,
            guards: Vec::new(),
            unless: None,
            undo: None,
        }
    }

    /// Adds steps that run side by side; the next one needs all of them.
    fn barrier(&mut self, steps: Vec<Step>) {
        let mut ids = Vec::new();
        for step in steps {
            let id = StepId(self.steps.len() as u32);
            ids.push(id);
            self.steps.push(Step { id, ..step });
        }
        self.needs = ids;
    }
}

/// The call in the words of the service whose probes it asks, which may be another one than that of the runbook.
///
/// # Errors
/// That service is not deployed, or not on these hosts.
pub(crate) fn addressed(
    mut call: ConditionCall,
    condition: &dyn Condition,
    topology: &Topology,
) -> Result<ConditionCall, String> {
    let asked = condition.asks(&call);
    let own = asked
        .iter()
        .find_map(|ask| probe::find(&ask.probe).and_then(|probe| probe.service()));
    if let Some(service) = own {
        call.service = service.parse()?;
        let name = &call.name;
        call.members = topology
            .members(&call.service)
            .ok_or_else(|| format!("{name} is about {service}, which is not deployed"))?;
    }
    match call.hosts.iter().find(|host| !call.members.contains(host)) {
        Some(stranger) => Err(format!(
            "{}: {stranger} is not a member of {}",
            call.name, call.service
        )),
        None => Ok(call),
    }
}

fn listed(hosts: &[HostName]) -> String {
    hosts
        .iter()
        .map(HostName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the gates ask about steps.
pub mod facts {
    use super::{Action, CheckMode, Effect, Step};

    /// Does it change something?
    pub fn acts(step: &Step) -> bool {
        matches!(step.action, Action::Host { .. }) && step.effect != Effect::Observe
    }

    pub fn first_snapshot(steps: &[Step]) -> Option<usize> {
        steps
            .iter()
            .position(|step| matches!(step.action, Action::Snapshot { .. }))
    }

    pub fn unguarded(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .filter(|step| acts(step) && step.guards.is_empty())
            .map(|step| step.title.clone())
            .collect()
    }

    /// The last step is a proof held for a time, and every other step is needed for it, directly or not.
    pub fn ends_with_proof(steps: &[Step]) -> bool {
        let Some(last) = steps.last() else {
            return false;
        };
        let settled = matches!(&last.action, Action::Check { mode: CheckMode::Settled { settle, .. }, .. } if settle.0 > 0);
        let mut needed = vec![false; steps.len()];
        let mut open = vec![last.id];
        while let Some(id) = open.pop() {
            if let Some(seen) = needed.get_mut(id.0 as usize).filter(|seen| !**seen) {
                *seen = true;
                open.extend(&steps[id.0 as usize].needs);
            }
        }
        settled && needed.iter().all(|seen| *seen)
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
