//! Hosts in memory that judge and apply resources as the agent does, drift included: a fake that can be wrong.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::super::*;
use crate::{
    job::Action,
    model::Model,
    wire::{
        CommandOutput, Exit, Facts, Observation, ProbeResult, Resource, State, TcpAnswer, Work,
    },
};

#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Everything but units, as it was applied.
    pub things: BTreeMap<ResourceId, Resource>,
    /// Running units with the files they were started with.
    pub running: BTreeMap<String, String>,
    pub down: bool,
    pub facts: Facts,
    pub probes: BTreeMap<String, ProbeResult>,
    /// Package → the files that it brings of its own.
    files_of: BTreeMap<ResourceId, BTreeSet<String>>,
    /// Unit → the packages that bring it.
    packages_of: BTreeMap<String, BTreeSet<ResourceId>>,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub machines: BTreeMap<HostName, Machine>,
}

/// The bot's time in all tests.
pub const NOW: &str = "2026-01-02T03:04:05Z";

impl Machine {
    fn new(address: &str, services: &[&ServiceName]) -> Self {
        let mut probes = BTreeMap::new();
        let output = CommandOutput {
            exit: Exit::Code(0),
            stdout: String::new(),
            stderr: String::new(),
            truncated: false,
            took_ms: 900,
        };
        probes.insert(
            "precheck repositories".to_owned(),
            ProbeResult::Command { output },
        );
        for service in services {
            let answers: Vec<TcpAnswer> = Vec::new();
            probes.insert(
                format!("precheck virtual address {service}"),
                ProbeResult::Tcp { answers },
            );
        }
        let now: jiff::Timestamp = NOW.parse().unwrap();
        Self {
            probes,
            facts: Facts {
                os_id: "debian".to_owned(),
                os_version: "12".to_owned(),
                clock_seconds: now.as_duration().as_secs_f64(),
                clock_synchronised: Some(true),
                addresses: [("eth0".to_owned(), vec![format!("{address}/24")])].into(),
                filesystems: [("/".to_owned(), (20 << 30, 40 << 30, 100_000))].into(),
                ..Facts::default()
            },
            ..Self::default()
        }
    }

    fn content(&self, path: &str) -> String {
        match self.things.get(&ResourceId(format!("file:{path}"))) {
            Some(Resource::File { content, mode, .. }) => format!("{mode} {content}"),
            _ => "missing".to_owned(),
        }
    }

    fn watched(&self, restart_on: &[String], reload_on: &[String]) -> String {
        let all = restart_on.iter().chain(reload_on);
        all.map(|path| self.content(path))
            .collect::<Vec<_>>()
            .join("|")
    }

    /// How much of what brings the unit is installed: systemd knows it only then.
    fn brought(&self, unit: &str) -> usize {
        let packages = self.packages_of.get(unit).into_iter().flatten();
        packages.filter(|id| self.things.contains_key(*id)).count()
    }

    fn look(&self, resource: &Resource, coming: &BTreeSet<String>) -> Observation {
        let id = resource.id();
        let (seen, diff) = match resource {
            Resource::Unit {
                name,
                running,
                restart_on,
                reload_on,
                ..
            } => {
                let now = self.running.get(name);
                let seen = format!("{now:?} {}", self.brought(name));
                let wanted = running.unwrap_or(now.is_some());
                let watched = self.watched(restart_on, reload_on);
                let stale = now.is_some_and(|with| *with != watched)
                    || restart_on
                        .iter()
                        .chain(reload_on)
                        .any(|path| coming.contains(path));
                let diff = match (now, wanted) {
                    (None, true) => vec![
                        format!("enable {name}"),
                        format!("start {name} (it is inactive)"),
                    ],
                    (Some(_), false) => vec![format!("stop {name}")],
                    (Some(_), true) if stale => vec![format!("restart {name}: a file changes")],
                    _ => vec![],
                };
                (seen, diff)
            }
            _ => {
                let found = self.things.get(&id);
                let same = match found {
                    Some(found) => found == resource,
                    None => absent(resource),
                };
                let diff = if same {
                    vec![]
                } else {
                    vec![format!("change {id}")]
                };
                (format!("{found:?}"), diff)
            }
        };
        let digest = Sha256::digest(seen.as_bytes());
        Observation {
            id,
            state: if diff.is_empty() {
                State::Same
            } else {
                State::WillChange { diff }
            },
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    pub fn observe(&self, resources: &[Resource]) -> BTreeMap<ResourceId, Observation> {
        let coming: BTreeSet<String> = resources
            .iter()
            .filter(|resource| {
                matches!(
                    self.look(resource, &BTreeSet::new()).state,
                    State::WillChange { .. }
                )
            })
            .filter_map(|resource| match resource {
                Resource::File { path, .. } => Some(path.clone()),
                _ => None,
            })
            .collect();
        let looked = resources
            .iter()
            .map(|resource| self.look(resource, &coming));
        looked
            .map(|observation| (observation.id.clone(), observation))
            .collect()
    }

    /// Applies as the agent does: drift is an error.
    pub fn apply(&mut self, work: &Work) -> Result<(), String> {
        let Work::Apply {
            resources,
            expected,
        } = work
        else {
            return Ok(());
        };
        let nothing = BTreeSet::new();
        for resource in resources {
            let seen = self.look(resource, &nothing);
            let as_planned = expected
                .get(&seen.id)
                .is_none_or(|digest| *digest == seen.digest);
            if !as_planned && seen.state != State::Same {
                return Err(format!("{} drifted", seen.id));
            }
            self.act(resource);
        }
        Ok(())
    }

    fn act(&mut self, resource: &Resource) {
        match resource {
            Resource::Unit {
                name,
                running: Some(true),
                restart_on,
                reload_on,
                ..
            } => {
                let watched = self.watched(restart_on, reload_on);
                self.running.insert(name.clone(), watched);
            }
            Resource::Unit { name, .. } => {
                self.running.remove(name);
            }
            _ if absent(resource) => {
                self.things.remove(&resource.id());
            }
            _ => {
                self.things.insert(resource.id(), resource.clone());
                if matches!(resource, Resource::Package { .. }) {
                    self.bring_default_files(&resource.id());
                }
            }
        }
    }

    /// A package brings configuration of its own.
    fn bring_default_files(&mut self, package: &ResourceId) {
        for path in self.files_of.get(package).into_iter().flatten() {
            let id = ResourceId(format!("file:{path}"));
            self.things.entry(id).or_insert_with(|| Resource::File {
                path: path.clone(),
                content: "from the package\n".to_owned(),
                mode: "0644".to_owned(),
                owner: "root".to_owned(),
                group: "root".to_owned(),
                validate: None,
                sensitive: false,
                absent: false,
            });
        }
    }
}

fn absent(resource: &Resource) -> bool {
    let value = serde_json::to_value(resource).unwrap();
    value["absent"] == true
}

impl World {
    pub fn new(model: &Model) -> Self {
        let services: Vec<&ServiceName> = model.services.keys().collect();
        let mut files_of: BTreeMap<ResourceId, BTreeSet<String>> = BTreeMap::new();
        let mut packages_of: BTreeMap<String, BTreeSet<ResourceId>> = BTreeMap::new();
        for (name, deployment) in &model.services {
            let resources = || model.rendered(name, &deployment.members[0]).iter();
            let packages = resources().filter_map(|entry| match &entry.resource {
                package @ Resource::Package { .. } => Some(package.id()),
                _ => None,
            });
            let packages: BTreeSet<ResourceId> = packages.collect();
            for entry in resources() {
                match &entry.resource {
                    Resource::File { path, .. } => packages.iter().for_each(|package| {
                        let files = files_of.entry(package.clone()).or_default();
                        files.insert(path.clone());
                    }),
                    Resource::Unit { name, .. } => {
                        let brings = packages_of.entry(name.clone()).or_default();
                        brings.extend(packages.iter().cloned());
                    }
                    _ => {}
                }
            }
        }
        let machine = |address: &str| Machine {
            files_of: files_of.clone(),
            packages_of: packages_of.clone(),
            ..Machine::new(address, &services)
        };
        let hosts = model.site.hosts.iter();
        Self {
            machines: hosts
                .map(|(host, spec)| (host.clone(), machine(&spec.address)))
                .collect(),
        }
    }

    pub fn machine(&mut self, host: &str) -> &mut Machine {
        self.machines
            .get_mut(&host.parse::<HostName>().unwrap())
            .unwrap()
    }

    pub fn observed(&self, model: &Model, goal: &Goal) -> SiteObserved {
        let now: jiff::Timestamp = NOW.parse().unwrap();
        let views = questions(model, goal)
            .unwrap()
            .into_iter()
            .map(|(host, ask)| {
                let machine = &self.machines[&host];
                let view = if machine.down {
                    HostView::Unreachable {
                        why: "no route to host".to_owned(),
                    }
                } else {
                    HostView::Seen(Box::new(HostSeen {
                        facts: machine.facts.clone(),
                        observations: machine.observe(&ask.resources),
                        probes: machine.probes.clone(),
                        asked_at: now,
                        answered_at: now,
                    }))
                };
                (host, view)
            });
        let hosts: BTreeMap<HostName, HostView> = views.collect();
        let readings = super::super::observed::readings(model, goal, &hosts, now);
        SiteObserved { hosts, readings }
    }

    /// Runs all steps in their order.
    pub fn run(&mut self, plan: &Plan) -> Result<(), String> {
        for step in &plan.steps {
            let Action::Host { host, work } = &step.action else {
                continue;
            };
            let machine = self.machines.get_mut(host).ok_or("no such host")?;
            machine
                .apply(work)
                .map_err(|why| format!("{}: {why}", step.title))?;
        }
        Ok(())
    }
}
