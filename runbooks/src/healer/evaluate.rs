//! One look at one incident: evidence, verdicts, gates, decision. Changes nothing but the records.

use std::{collections::BTreeMap, sync::Arc};

use deploy_engine::{
    model::{HostName, ServiceName},
    probe::{self, Ask, Reading, Readings},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    HealSettings, Ports,
    case::{Case, Firing, note_monitoring},
    gatekeeper::{About, Gatekeeper, hosts_of},
    sighting::{answers, sight, units_of},
};
use crate::{
    budget::Spent,
    compile::compile,
    decide::{Choice, Decision, HealPlan, Opinion, Permission, choose, conclude, plan},
    decision::{self, Input, Steady, Verdict},
    format::{Lock, Runbook, RunbookId},
    gate::{Answer, Phase, WorldFacts, evaluate},
    incident::{Incident, IncidentId, waits_for},
    library::{Library, settings},
    topology::Topology,
    trust,
};

/// Rounds of evidence: the first, and one for what only it shows to be needed.
const ROUNDS: usize = 2;
/// While a host is down: when to look again whether it explains the incident.
const HOST_DOWN_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// Readings kept with a decision, in bytes of JSON each: whole for all but very long lists, so that it can be decided again
/// (`replay`), and there is one such record an incident.
const READING_KEPT_BYTES: usize = 64 * 1024;

/// For `!why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub incident: IncidentId,
    pub at: Timestamp,
    pub opinions: Vec<Opinion>,
    /// Empty when it did not come to the gates.
    pub gates: Vec<Answer>,
    pub decision: Decision,
    /// What was read, very long answers shortened.
    pub readings: Readings,
    /// What the gates looked at; none when it did not come to them.
    #[serde(default)]
    pub world: Option<Box<WorldFacts>>,
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
    began_at: Timestamp,
    approved: Option<&'a str>,
    runbooks: Vec<Runbook>,
    readings: Readings,
    steady: BTreeMap<RunbookId, Steady>,
    world: Option<Box<WorldFacts>>,
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
            began_at: self.ports().clock.now(),
            approved,
            runbooks: Vec::new(),
            readings: Readings::default(),
            steady: incident.steady.clone(),
            world: None,
        };
        let mut under = None;
        let (opinions, gates, decision) = match self.prepare(&mut look) {
            Err(decision) => (Vec::new(), Vec::new(), decision),
            Ok(()) => {
                let (keeper, alerts) = (self.keeper.clone(), Firing::of(incident).names);
                let hosts = self.asks(&look).into_iter().map(|ask| ask.host).collect();
                // Not waited for: a monitoring that hangs must not keep back what hosts say.
                let now = look.began_at;
                tokio::spawn(async move { keeper.ask_ahead(&alerts, &hosts, now).await });
                let opinions = self.opinions(&mut look).await;
                let asked = answers(&look.readings);
                match waits_for(incident, self.topology(), &asked, down) {
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
                        let (gates, decision) = self.decide(&mut look, &opinions).await;
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
            world: look.world,
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

    /// What the decisions of all runbooks rest on.
    fn asks(&self, look: &Look<'_>) -> Vec<Ask> {
        let runbooks = look.runbooks.iter();
        runbooks
            .flat_map(|runbook| asks_of(runbook, look.incident, self.topology()))
            .collect()
    }

    /// What each runbook says; those that need more are asked once more with it.
    async fn opinions(&self, look: &mut Look<'_>) -> Vec<Opinion> {
        let mut asks = self.asks(look);
        let mut opinions = Vec::new();
        for _ in 0..ROUNDS {
            let now = self.ports().clock.now();
            let readings = self.ports().evidence.gather(&asks, now).await;
            for (probe, of) in readings.by_probe {
                look.readings.by_probe.entry(probe).or_default().extend(of);
            }
            // From what was known before this look: a fact that rests on what only the second round brings is told then.
            look.steady = look
                .runbooks
                .iter()
                .map(|runbook| self.steady(runbook, look))
                .collect();
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
            .incident
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

    async fn decide(&self, look: &mut Look<'_>, opinions: &[Opinion]) -> (Vec<Answer>, Decision) {
        let (id, act) = match choose(opinions.to_vec()) {
            Choice::Decided(decision) => return (Vec::new(), decision),
            Choice::Act(id, act) => (id, act),
        };
        let runbook = look.runbooks.iter().find(|runbook| runbook.runbook == id);
        let Some(runbook) = runbook.cloned() else {
            return (Vec::new(), refuse(format!("there is no runbook {id}")));
        };
        let compiled = compile(&runbook, &act, self.topology());
        let now = self.ports().clock.now();
        let plan = match plan(&runbook, &act, compiled, &look.incident.domain, now) {
            Ok(plan) => HealPlan {
                // Of the file: a site's times for its proof do not make it another runbook.
                version: self
                    .library
                    .get(&id)
                    .map(trust::version)
                    .unwrap_or_default(),
                ..plan
            },
            Err(decision) => return (Vec::new(), decision),
        };
        let (answers, ledger) = match self.gates(look, &runbook, &plan).await {
            Ok(answered) => answered,
            Err(why) => return (Vec::new(), refuse(why)),
        };
        let permission = match self.permission(&runbook, &plan, &ledger).await {
            Ok(permission) => permission,
            Err(why) => return (answers, refuse(why)),
        };
        let decision = conclude(plan, &answers, permission, look.approved);
        (answers, decision)
    }

    /// How far the runbook is trusted with the hosts of this plan.
    async fn permission(
        &self,
        runbook: &Runbook,
        plan: &HealPlan,
        ledger: &[Spent],
    ) -> Result<Permission, String> {
        let (records, settings) = (&self.ports().records, self.settings());
        let id = &runbook.runbook;
        let known = tokio::try_join!(records.grants(id), records.drilled(id));
        let (grants, drilled) = known.map_err(|error| error.to_string())?;
        let groups: Vec<_> = hosts_of(&plan.steps)
            .iter()
            .map(|host| {
                self.topology()
                    .groups
                    .get(host)
                    .cloned()
                    .unwrap_or_default()
            })
            .collect();
        let record = trust::Record::of(id, &plan.version, ledger, drilled.as_ref());
        Ok(Permission {
            class: runbook.class,
            mode: trust::effective(settings.configured_mode(id), &grants, &groups),
            opted_in: settings.opted_in(runbook),
            earned: settings.unearned || record.earned().is_ok(),
        })
    }

    async fn gates(
        &self,
        look: &mut Look<'_>,
        runbook: &Runbook,
        plan: &HealPlan,
    ) -> Result<(Vec<Answer>, Vec<Spent>), String> {
        let hosts = hosts_of(&plan.steps);
        let firing = Firing::of(look.incident);
        let about = About {
            hosts: &hosts,
            labels: &firing.labels,
            own_job: None,
            pulse_since: look.began_at,
        };
        let now = self.ports().clock.now();
        let (world, metric, overridden) = tokio::join!(
            self.keeper.read(&about, now),
            self.keeper.metric(&firing.names, &firing.labels),
            self.keeper.overridden(&look.incident.id.0, None)
        );
        let ledger = world
            .ledger
            .clone()
            .map_err(|why| format!("the budget is unknown: {why}"))?;
        let sighting = sight(&look.readings, &units_of(&plan.steps));
        self.ports().vitals.set(|vitals| {
            let scope = plan.scope.clone();
            vitals.sightings.insert(scope, sighting.clone());
        });
        let case = Case {
            runbook,
            roles: &plan.roles,
            steps: &plan.steps,
            scope: &plan.scope,
            targets: plan.targets.clone(),
            own_job: None,
            unproven: look.incident.unproven.clone(),
            overridden,
        };
        let input = case.input(
            &self.keeper,
            Phase::Starting,
            world,
            metric,
            sighting,
            &ledger,
        );
        look.world = Some(Box::new(input.world()));
        let answers = evaluate(&input);
        note_monitoring(self.ports(), &answers, now);
        drop(input);
        Ok((answers, ledger))
    }
}

fn refuse(why: String) -> Decision {
    Decision::Refuse {
        why,
        evidence: Vec::new(),
    }
}

/// Its probes, of the members of its service (of a host: of the hosts that the alerts name), and the units that its steps name,
/// for the gates' sake: did a person switch them off? A probe of a service that this site does not have is not asked.
pub(super) fn asks_of(runbook: &Runbook, incident: &Incident, topology: &Topology) -> Vec<Ask> {
    let members = topology.members(&runbook.service).unwrap_or_default();
    let about: Vec<HostName> = match runbook.lock {
        Lock::Service => members,
        Lock::Host => members
            .into_iter()
            .filter(|host| incident.subjects.contains(host))
            .collect(),
    };
    let mut asks = Vec::new();
    for name in runbook.evidence.iter().cloned().chain(units(runbook)) {
        let service = probe::find(&name).and_then(|probe| probe.service());
        if service.is_some_and(|service| !topology.is_deployed(service)) {
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

/// The units that its commands name as they stand; one that a decision finds is in what the decision read.
fn units(runbook: &Runbook) -> impl Iterator<Item = String> {
    let words = runbook.steps.iter().flat_map(|step| &step.run).flatten();
    words
        .filter(|word| word.ends_with(".service"))
        .map(|name| probe::host::unit_probe(name))
}

/// The plan of a decision that has one.
pub(super) fn plan_of(decision: &Decision) -> Option<&HealPlan> {
    match decision {
        Decision::Act { plan, .. } | Decision::Ask { plan, .. } | Decision::Shadow { plan, .. } => {
            Some(plan)
        }
        Decision::Hold { .. } | Decision::Refuse { .. } | Decision::TellOnly { .. } => None,
    }
}

fn more(opinion: &Opinion) -> Vec<Ask> {
    match &opinion.verdict {
        Verdict::More { asks, .. } => asks.clone(),
        _ => Vec::new(),
    }
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
    let open = open.filter(|one| one.is_open());
    let down = |one: &Incident| {
        let id = one.id.clone();
        one.hosts_down()
            .into_iter()
            .map(move |host| (host, id.clone()))
    };
    open.flat_map(down).collect()
}
