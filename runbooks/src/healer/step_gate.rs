//! The gate that the runner asks before each step of a repair: all thirteen again, with the world as it is now.
//!
//! Until something was changed, whatever is against it stops the repair. Once something was changed, stopping for good half-way is
//! worse than waiting until the doubt is gone: then a refusal holds, and steps that only look go on, for the proof is what
//! tells whether it is mended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use deploy_engine::{
    job::{Action, Job, JobId, JobKind, JobState, Step, StepEnd},
    probe::{self, Ask, Readings},
    runner::{Evidence, GateVerdict, StepGate},
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    HealSettings, Ports,
    case::{Case, Firing, note_monitoring},
    evaluate::{asks_of, plan_of},
    gatekeeper::{About, Gatekeeper, hosts_of},
    sighting::{Sighting, sight, units_of},
};
use crate::{
    compile::facts,
    decide::HealPlan,
    format::RunbookId,
    gate::{Answer, Gate, Phase, evaluate, together},
    incident::{Incident, IncidentId},
    library::Library,
    topology::Topology,
};

/// Hosts have so long to answer for themselves; the runner's gate has ten seconds in all.
const HOSTS_LIMIT: Duration = Duration::from_secs(7);
/// How old a host's pulse may be before a step that only looks: as old as the monitoring's answers. An act is preceded by a new one.
const LOOK_PULSE_AGE: SignedDuration = SignedDuration::from_secs(1);
/// What a half-repaired service says of itself is taken in if it comes soon: command lines of brokers take seconds, and the
/// step's own guards ask it all the same.
const SERVICE_LIMIT: Duration = Duration::from_secs(3);

/// What the gates said before one step, for `why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepJudgement {
    pub job: String,
    pub step: String,
    pub at: Timestamp,
    pub gates: Vec<Answer>,
}

/// Repairs are judged before every step; a deploy stops for a halt only.
pub struct HealGate {
    keeper: Gatekeeper,
    library: Arc<Library>,
}

impl HealGate {
    pub fn new(
        ports: Ports,
        settings: Arc<HealSettings>,
        topology: Arc<Topology>,
        library: Arc<Library>,
    ) -> Self {
        Self {
            keeper: Gatekeeper {
                ports,
                settings,
                topology,
            },
            library,
        }
    }

    async fn halted(&self) -> Option<GateVerdict> {
        let why = match self.keeper.ports.records.halt().await {
            Ok(None) => return None,
            Ok(Some(halt)) => format!("halted by {} at {:.0}", halt.by, halt.at),
            Err(error) => format!("it is unknown whether somebody halted: {error}"),
        };
        Some(GateVerdict::Hold { until: None, why })
    }

    async fn repair_step(&self, id: &JobId, job: &Job, step: &Step, now: Timestamp) -> GateVerdict {
        let acted = acted(job);
        if acted && !facts::acts(step) {
            return GateVerdict::Pass;
        }
        let answers = match self.answers(id, job, step, now, acted).await {
            Ok(answers) => answers,
            Err(why) => return verdict(Gate::refuse(why), acted),
        };
        note_monitoring(&self.keeper.ports, &answers, now);
        let gate = together(&answers);
        let judgement = StepJudgement {
            job: id.to_string(),
            step: step.title.clone(),
            at: now,
            gates: answers,
        };
        match self.keeper.ports.records.put_judgement(&judgement).await {
            Ok(()) => verdict(gate, acted),
            Err(error) => GateVerdict::Hold {
                until: None,
                why: format!("what the gates say cannot be recorded: {error}"),
            },
        }
    }

    async fn answers(
        &self,
        id: &JobId,
        job: &Job,
        step: &Step,
        now: Timestamp,
        acted: bool,
    ) -> Result<Vec<Answer>, String> {
        let JobKind::Heal { runbook, incident } = &job.kind else {
            return Err("it is no repair".to_owned());
        };
        let runbook_id = RunbookId(runbook.clone());
        let runbook = self
            .library
            .get(&runbook_id)
            .ok_or_else(|| format!("there is no runbook {runbook_id} any more"))?;
        let (incident, plan, overridden) = tokio::join!(
            self.incident(incident),
            self.plan(incident, job),
            self.keeper.overridden(incident, Some(&id.0))
        );
        let (incident, plan) = (incident?, plan?);
        let steps = &job.steps[..];
        let hosts = hosts_of(steps);
        let firing = Firing::of(&incident);
        let about = About {
            hosts: &hosts,
            labels: &firing.labels,
            own_job: Some(id),
            pulse_since: match facts::acts(step) {
                true => now,
                // A step that only looks does nothing to whoever works there.
                false => now.saturating_sub(LOOK_PULSE_AGE).unwrap_or(now),
            },
        };
        let asks = asks_of(runbook, &incident, &self.keeper.topology);
        let (world, metric, sighting) = tokio::join!(
            self.keeper.read(&about, now),
            self.keeper.metric(&firing.names, &firing.labels),
            self.sighting(job, &asks, acted)
        );
        let ledger = world
            .ledger
            .clone()
            .map_err(|why| format!("the budget is unknown: {why}"))?;
        let phase = Phase::Step {
            decided_at: job.created_at,
            acted,
            acts: facts::acts(step),
            snapshot_done: snapshot_done(job),
        };
        let case = Case {
            runbook,
            roles: &plan.roles,
            steps,
            scope: &job.scope,
            targets: plan.targets.clone(),
            own_job: Some(id),
            unproven: incident.unproven.clone(),
            overridden,
        };
        let input = case.input(&self.keeper, phase, world, metric, sighting, &ledger);
        Ok(evaluate(&input))
    }

    async fn incident(&self, id: &str) -> Result<Incident, String> {
        let records = &self.keeper.ports.records;
        let open = records.open_incident(&IncidentId(id.to_owned())).await;
        open.map_err(|error| error.to_string())?
            .ok_or_else(|| format!("incident {id} is not open any more"))
    }

    /// The plan that the job was made from: it names the roles that its steps do not.
    async fn plan(&self, incident: &str, job: &Job) -> Result<HealPlan, String> {
        let id = IncidentId(incident.to_owned());
        let decision = self.keeper.ports.records.decision(&id).await;
        decision
            .map_err(|error| error.to_string())?
            .and_then(|record| plan_of(&record.decision).cloned())
            .filter(|plan| *plan.steps == *job.steps)
            .ok_or_else(|| "the decision that this job was made from is not on record".to_owned())
    }

    /// What hosts say for themselves: what the decision rests on as long as it is fresh and nothing was changed, else anew.
    async fn sighting(&self, job: &Job, asks: &[Ask], acted: bool) -> Sighting {
        let ports = &self.keeper.ports;
        let now = ports.clock.now();
        let limit = self.keeper.settings.gates.direct_age_seconds;
        let known = ports.vitals.get().sightings.remove(&job.scope);
        let fresh = known.filter(|known| {
            let young = |at: Timestamp| (0..=limit).contains(&now.duration_since(at).as_secs());
            !acted && !known.direct.is_empty() && known.direct.iter().all(|one| young(one.at))
        });
        if let Some(sighting) = fresh {
            return sighting;
        }
        let readings = answered(&*ports.evidence, asks, now).await;
        sight(&readings, &units_of(&job.steps))
    }
}

/// What hosts say, and what their services say if it comes soon. Each question to a service stands alone: one that is not answered
/// while it is half repaired must not take the others' answers along.
async fn answered(evidence: &dyn Evidence, asks: &[Ask], now: Timestamp) -> Readings {
    let gathered = async |asks: &[Ask], limit: Duration| {
        let gather = evidence.gather(asks, now);
        tokio::time::timeout(limit, gather).await.ok()
    };
    let (hosts, service): (Vec<Ask>, Vec<Ask>) = asks.iter().cloned().partition(is_of_host);
    let mut by_probe: BTreeMap<&str, Vec<Ask>> = BTreeMap::new();
    for ask in &service {
        by_probe.entry(&ask.probe).or_default().push(ask.clone());
    }
    let each = by_probe.values();
    let (hosts, service) = tokio::join!(
        gathered(&hosts, HOSTS_LIMIT),
        join_all(each.map(|asks| gathered(asks, SERVICE_LIMIT)))
    );
    let mut readings = hosts.unwrap_or_else(|| unanswered(asks, now));
    for (probe, of) in service.into_iter().flatten().flat_map(|one| one.by_probe) {
        readings.by_probe.entry(probe).or_default().extend(of);
    }
    readings
}

fn is_of_host(ask: &Ask) -> bool {
    probe::find(&ask.probe).is_some_and(|probe| probe.service().is_none())
}

fn unanswered(asks: &[Ask], at: Timestamp) -> Readings {
    let mut readings = Readings::default();
    for ask in asks {
        let why = format!("no answer within {} s", HOSTS_LIMIT.as_secs());
        let reading = deploy_engine::probe::Reading::Unknown { why, at };
        readings.insert(&ask.probe, ask.host.clone(), reading);
    }
    readings
}

fn acted(job: &Job) -> bool {
    let mut steps = job.steps.iter().zip(&job.runs);
    steps.any(|(step, run)| facts::acts(step) && run.attempts > 0)
}

fn snapshot_done(job: &Job) -> bool {
    let snapshots = job.steps.iter().zip(&job.runs);
    let mut snapshots = snapshots
        .filter(|(step, _)| matches!(step.action, Action::Snapshot { .. }))
        .map(|(_, run)| matches!(run.end(), Some(StepEnd::Done { .. })))
        .peekable();
    snapshots.peek().is_some() && snapshots.all(|done| done)
}

fn verdict(gate: Gate, acted: bool) -> GateVerdict {
    match gate {
        Gate::Pass { .. } => GateVerdict::Pass,
        Gate::Hold { until, why } => GateVerdict::Hold {
            until: Some(until),
            why,
        },
        Gate::Refuse { why, .. } if acted => GateVerdict::Hold { until: None, why },
        Gate::Refuse { why, .. } => GateVerdict::Refuse { why },
    }
}

#[async_trait]
impl StepGate for HealGate {
    async fn before(&self, id: &JobId, job: &JobState, step: &Step, now: Timestamp) -> GateVerdict {
        if let Some(halted) = self.halted().await {
            return halted;
        }
        match job.job() {
            None => GateVerdict::Refuse {
                why: format!("job {id} was never created"),
            },
            Some(job) if matches!(job.kind, JobKind::Heal { .. }) => {
                self.repair_step(id, job, step, now).await
            }
            Some(_) => GateVerdict::Pass,
        }
    }

    async fn before_undo(&self, _: &JobId, _: &JobState, _: &Step, _: Timestamp) -> GateVerdict {
        self.halted().await.unwrap_or(GateVerdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use deploy_engine::{
        condition::{ConditionCall, Judgement},
        probe::Reading,
    };

    use super::*;
    use crate::decision::testing::host;

    /// Answers at once, but what only a manager of Ceph knows takes longer than a gate waits.
    struct NoManager;

    #[async_trait]
    impl Evidence for NoManager {
        async fn gather(&self, asks: &[Ask], at: Timestamp) -> Readings {
            if asks.iter().any(|ask| ask.probe == "ceph.pgs") {
                tokio::time::sleep(SERVICE_LIMIT * 2).await;
            }
            let mut readings = Readings::default();
            for ask in asks {
                let value = serde_json::json!({"flags": []});
                readings.insert(&ask.probe, ask.host.clone(), Reading::Known { value, at });
            }
            readings
        }

        async fn judge(&self, _: &ConditionCall, _: Timestamp) -> (Judgement, Readings) {
            unreachable!("gates ask no condition")
        }
    }

    #[tokio::test]
    async fn a_question_that_is_not_answered_takes_no_other_answer_along() {
        let probes = ["ceph.cluster", "ceph.pgs", "host.units"];
        let asks = probes.map(|probe| Ask {
            probe: probe.to_owned(),
            host: host("h1"),
            service: None,
        });
        let readings = answered(&NoManager, &asks, Timestamp::now()).await;
        let known: Vec<&str> = readings.by_probe.keys().map(String::as_str).collect();
        assert_eq!(known, ["ceph.cluster", "host.units"]);
    }
}
