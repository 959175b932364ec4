//! One look at one incident: evidence, verdicts, gates, decision. Changes nothing but the records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use collectors::Status;
use deploy_engine::{
    model::{HostName, ServiceName},
    probe::{self, Ask, Reading, Readings},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    HealSettings, Ports,
    gatekeeper::{About, Gatekeeper, affected, plan_facts, same_elsewhere},
};
use crate::{
    compile::compile,
    decide::{Choice, Decision, HealPlan, Opinion, Permission, choose, conclude, plan},
    decision::{self, Act, Input, Steady, Verdict},
    format::{Lock, Runbook, RunbookId},
    gate::{
        Answer, BlastFacts, BudgetFacts, Direct, EvidenceFacts, GateInput, LockFacts, Phase,
        evaluate,
    },
    incident::{Domain, Incident, IncidentId, waits_for},
    library::{Library, settings},
    topology::Topology,
};

/// Rounds of evidence: the first, and one for what only it shows to be needed.
const ROUNDS: usize = 2;
/// While a host is down: when to look again whether it explains the incident.
const HOST_DOWN_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// Readings kept with a decision, in bytes of JSON each: enough to see why, not a copy of the site.
const READING_KEPT_BYTES: usize = 4 * 1024;

/// For `!why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub incident: IncidentId,
    pub at: Timestamp,
    pub opinions: Vec<Opinion>,
    /// Empty when it did not come to the gates.
    pub gates: Vec<Answer>,
    pub decision: Decision,
    /// What was read, long answers shortened.
    pub readings: Readings,
}

/// What one look came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    pub record: DecisionRecord,
    pub steady: BTreeMap<RunbookId, Steady>,
    pub under: Option<IncidentId>,
}

#[derive(Clone)]
pub(super) struct Evaluator {
    pub keeper: Gatekeeper,
    pub library: Arc<Library>,
}

struct Look<'a> {
    incident: &'a Incident,
    approved: Option<&'a str>,
    runbooks: Vec<Runbook>,
    readings: Readings,
    steady: BTreeMap<RunbookId, Steady>,
}

impl Evaluator {
    fn ports(&self) -> &Ports {
        &self.keeper.ports
    }

    fn settings(&self) -> &HealSettings {
        &self.keeper.settings
    }

    fn topology(&self) -> &Topology {
        &self.keeper.topology
    }

    /// `down`: hosts that other incidents say are down. `approved`: the digest that a person approved.
    pub async fn look(
        &self,
        incident: &Incident,
        down: &[(HostName, IncidentId)],
        approved: Option<&str>,
    ) -> Evaluated {
        let mut look = Look {
            incident,
            approved,
            runbooks: Vec::new(),
            readings: Readings::default(),
            steady: incident.steady.clone(),
        };
        let mut under = None;
        let (opinions, gates, decision) = match self.prepare(&mut look) {
            Err(decision) => (Vec::new(), Vec::new(), decision),
            Ok(()) => {
                let opinions = self.opinions(&mut look).await;
                let unreachable = unreachable(&look.readings);
                match waits_for(incident, self.topology(), &unreachable, down) {
                    Some((host, cause)) => {
                        under = Some(cause.clone());
                        let until = self
                            .ports()
                            .clock
                            .now()
                            .saturating_add(HOST_DOWN_AGAIN)
                            .unwrap_or(Timestamp::MAX);
                        let why = format!("{host} is down (incident {cause}): that comes first");
                        (opinions, Vec::new(), Decision::Hold { until, why })
                    }
                    None => {
                        let (gates, decision) = self.decide(&look, &opinions, &unreachable).await;
                        (opinions, gates, decision)
                    }
                }
            }
        };
        let at = self.ports().clock.now();
        let readings = shortened(look.readings);
        let record = DecisionRecord {
            incident: incident.id.clone(),
            at,
            opinions,
            gates,
            decision,
            readings,
        };
        Evaluated {
            record,
            steady: look.steady,
            under,
        }
    }

    /// The runbooks as this site wants them.
    fn prepare(&self, look: &mut Look<'_>) -> Result<(), Decision> {
        if let Some(why) = &look.incident.tell_only {
            return Err(Decision::TellOnly { why: why.clone() });
        }
        for id in &look.incident.runbooks {
            let refuse = |why: String| Decision::Refuse {
                why,
                evidence: Vec::new(),
            };
            let runbook = self
                .library
                .get(id)
                .ok_or_else(|| refuse(format!("there is no runbook {id} any more")))?;
            look.runbooks
                .push(self.settings().adapted(runbook).map_err(refuse)?);
        }
        Ok(())
    }

    /// What each runbook says; those that need more are asked once more with it.
    async fn opinions(&self, look: &mut Look<'_>) -> Vec<Opinion> {
        let mut asks: Vec<Ask> = look
            .runbooks
            .iter()
            .flat_map(|runbook| self.asks(runbook, look.incident))
            .collect();
        let mut opinions = Vec::new();
        for round in 1..=ROUNDS {
            let now = self.ports().clock.now();
            let readings = self.ports().evidence.gather(&asks, now).await;
            for (probe, of) in readings.by_probe {
                look.readings.by_probe.entry(probe).or_default().extend(of);
            }
            if round == 1 {
                look.steady = look
                    .runbooks
                    .iter()
                    .map(|runbook| self.steady(runbook, look))
                    .collect();
            }
            opinions = look
                .runbooks
                .iter()
                .map(|runbook| self.opinion(runbook, look))
                .collect();
            asks = opinions.iter().flat_map(more).collect();
            if asks.is_empty() {
                break;
            }
        }
        opinions
    }

    /// Its probes, of the members of its service (of a host: of the hosts that the alerts name). A probe of a service that this
    /// site does not have is not asked.
    fn asks(&self, runbook: &Runbook, incident: &Incident) -> Vec<Ask> {
        let members = self
            .topology()
            .members(&runbook.service)
            .unwrap_or_default();
        let about: Vec<HostName> = match runbook.lock {
            Lock::Service => members,
            Lock::Host => members
                .into_iter()
                .filter(|host| incident.subjects.contains(host))
                .collect(),
        };
        let mut asks = Vec::new();
        for name in &runbook.evidence {
            let service = probe::find(name).and_then(|probe| probe.service());
            if service.is_some_and(|service| !self.topology().is_deployed(service)) {
                continue;
            }
            let service: Option<ServiceName> = service.and_then(|service| service.parse().ok());
            asks.extend(about.iter().map(|host| Ask {
                probe: name.clone(),
                host: host.clone(),
                service: service.clone(),
            }));
        }
        asks
    }

    fn with_input<T>(
        &self,
        runbook: &Runbook,
        look: &Look<'_>,
        steady: &Steady,
        tell: impl FnOnce(&Input<'_>) -> T,
    ) -> T {
        let members = self
            .topology()
            .members(&runbook.service)
            .unwrap_or_default();
        let subjects: Vec<HostName> = look.incident.subjects.iter().cloned().collect();
        let settings = settings(runbook, &self.settings().overrides(&runbook.runbook));
        tell(&Input {
            now: self.ports().clock.now(),
            topology: self.topology(),
            service: &runbook.service,
            members: &members,
            subjects: &subjects,
            settings: &settings,
            readings: &look.readings,
            steady,
        })
    }

    fn steady(&self, runbook: &Runbook, look: &Look<'_>) -> (RunbookId, Steady) {
        let before = look
            .steady
            .get(&runbook.runbook)
            .cloned()
            .unwrap_or_default();
        let facts = decision::find(&runbook.decide)
            .map(|entry| self.with_input(runbook, look, &before, |input| (entry.facts)(input)))
            .unwrap_or_default();
        (
            runbook.runbook.clone(),
            before.look(&facts, self.ports().clock.now()),
        )
    }

    fn opinion(&self, runbook: &Runbook, look: &Look<'_>) -> Opinion {
        let steady = look
            .steady
            .get(&runbook.runbook)
            .cloned()
            .unwrap_or_default();
        let verdict = match decision::find(&runbook.decide) {
            Some(entry) => self.with_input(runbook, look, &steady, |input| entry.decide(input)),
            None => Verdict::Refuse {
                why: format!("there is no decision {}", runbook.decide),
                evidence: Vec::new(),
            },
        };
        Opinion {
            runbook: runbook.runbook.clone(),
            verdict,
        }
    }

    async fn decide(
        &self,
        look: &Look<'_>,
        opinions: &[Opinion],
        unreachable: &BTreeSet<HostName>,
    ) -> (Vec<Answer>, Decision) {
        let (id, act) = match choose(opinions.to_vec()) {
            Choice::Decided(decision) => return (Vec::new(), decision),
            Choice::Act(id, act) => (id, act),
        };
        let Some(runbook) = look.runbooks.iter().find(|runbook| runbook.runbook == id) else {
            return (
                Vec::new(),
                Decision::Refuse {
                    why: format!("there is no runbook {id}"),
                    evidence: Vec::new(),
                },
            );
        };
        let compiled = compile(runbook, &act, self.topology());
        let plan = match plan(
            runbook,
            &act,
            compiled,
            &look.incident.domain,
            self.ports().clock.now(),
        ) {
            Ok(plan) => plan,
            Err(decision) => return (Vec::new(), decision),
        };
        let answers = match self.gates(look, runbook, &act, &plan, unreachable).await {
            Ok(answers) => answers,
            Err(decision) => return (Vec::new(), decision),
        };
        let permission = match self.permission(runbook).await {
            Ok(permission) => permission,
            Err(decision) => return (answers, decision),
        };
        let decision = conclude(plan, &answers, permission, look.approved);
        (answers, decision)
    }

    async fn permission(&self, runbook: &Runbook) -> Result<Permission, Decision> {
        let granted = self.ports().records.mode(&runbook.runbook).await;
        let granted = granted.map_err(|error| Decision::Refuse {
            why: error.to_string(),
            evidence: Vec::new(),
        })?;
        Ok(Permission {
            class: runbook.class,
            mode: granted.unwrap_or_else(|| self.settings().configured_mode(&runbook.runbook)),
            opted_in: self.settings().opted_in(runbook),
        })
    }

    async fn gates(
        &self,
        look: &Look<'_>,
        runbook: &Runbook,
        act: &Act,
        plan: &HealPlan,
        unreachable: &BTreeSet<HostName>,
    ) -> Result<Vec<Answer>, Decision> {
        let firing = look
            .incident
            .alerts
            .values()
            .filter(|alert| alert.status == Status::Firing);
        let labels: Vec<_> = firing.clone().map(|alert| alert.labels.clone()).collect();
        let names: BTreeSet<String> = firing.map(|alert| alert.name.clone()).collect();
        let plan_facts = plan_facts(
            &plan.steps,
            &runbook.service,
            &act.roles,
            self.topology(),
            self.settings(),
            look.incident.unproven.clone(),
        );
        let about = About {
            hosts: &plan_facts.hosts,
            labels: &labels,
            own_job: None,
        };
        let (world, metric) = tokio::join!(
            self.keeper.read(&about, self.ports().clock.now()),
            self.keeper.metric(&names)
        );
        let ledger = world.ledger.map_err(|why| Decision::Refuse {
            why: format!("the budget is unknown: {why}"),
            evidence: Vec::new(),
        })?;
        let members = self
            .topology()
            .members(&runbook.service)
            .unwrap_or_default();
        let affected = affected(runbook, &act.roles);
        let away = unreachable
            .iter()
            .filter(|host| members.contains(host))
            .cloned()
            .collect();
        let input = GateInput {
            now: self.ports().clock.now(),
            phase: Phase::Starting,
            limits: &self.settings().gates,
            evidence: EvidenceFacts {
                metric,
                direct: direct(&look.readings),
                clock_off_seconds: world.clock_off_seconds,
            },
            monitoring: world.monitoring,
            people: world.people,
            locks: LockFacts {
                scope: plan.scope.clone(),
                held: world.held,
            },
            blast: BlastFacts {
                radius: runbook.blast,
                members: members.len(),
                affected,
                away,
                same_elsewhere: same_elsewhere(self.ports(), runbook, &plan.scope),
            },
            budget: BudgetFacts {
                budget: &runbook.budget,
                ledger: &ledger,
                runbook: &runbook.runbook,
                targets: plan.targets.clone(),
                own_job: None,
            },
            storm: self.ports().vitals.get().storm,
            plan: plan_facts,
            overridden: self.keeper.overridden(&look.incident.id.0, None).await,
        };
        Ok(evaluate(&input))
    }
}

fn more(opinion: &Opinion) -> Vec<Ask> {
    match &opinion.verdict {
        Verdict::More { asks, .. } => asks.clone(),
        _ => Vec::new(),
    }
}

fn direct(readings: &Readings) -> Vec<Direct> {
    let of_probe = |(probe, of): (&String, &BTreeMap<HostName, Reading>)| {
        let one = |(host, reading): (&HostName, &Reading)| {
            let (known, at) = match reading {
                Reading::Known { at, .. } => (true, *at),
                Reading::Unknown { at, .. } => (false, *at),
            };
            Direct {
                probe: probe.clone(),
                host: host.clone(),
                at,
                known,
            }
        };
        of.iter().map(one).collect::<Vec<_>>()
    };
    readings.by_probe.iter().flat_map(of_probe).collect()
}

/// Hosts none of whose probes was answered.
fn unreachable(readings: &Readings) -> BTreeSet<HostName> {
    let mut answered: BTreeMap<&HostName, bool> = BTreeMap::new();
    for (host, reading) in readings.by_probe.values().flatten() {
        *answered.entry(host).or_default() |= matches!(reading, Reading::Known { .. });
    }
    answered
        .into_iter()
        .filter(|(_, answered)| !answered)
        .map(|(host, _)| host.clone())
        .collect()
}

fn shortened(mut readings: Readings) -> Readings {
    for reading in readings
        .by_probe
        .values_mut()
        .flat_map(BTreeMap::values_mut)
    {
        if let Reading::Known { value, .. } = reading {
            let text = value.to_string();
            if text.len() > READING_KEPT_BYTES {
                let start: String = text.chars().take(READING_KEPT_BYTES).collect();
                *value =
                    serde_json::Value::String(format!("{start}… ({} bytes in all)", text.len()));
            }
        }
    }
    readings
}

/// The hosts that open incidents say are down.
pub(super) fn hosts_down<'a>(
    open: impl Iterator<Item = &'a Incident>,
) -> Vec<(HostName, IncidentId)> {
    let down = |incident: &Incident| {
        let is_down = incident.alerts.values().any(|alert| {
            alert.status == Status::Firing
                && crate::matching::HOST_DOWN_ALERTS.contains(&alert.name.as_str())
        });
        match &incident.domain {
            Domain::Host(host) if is_down && incident.is_open() => {
                Some((host.clone(), incident.id.clone()))
            }
            _ => None,
        }
    };
    open.filter_map(down).collect()
}
