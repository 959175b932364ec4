//! Reads what the gates look at, before a repair and before each of its steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use collectors::{alertmanager::Silence, watchdog};
use deploy_engine::{
    job::{Action, Job, JobId, JobKind, JobState, Step, StepEnd},
    model::HostName,
    runner::{GateVerdict, StepGate},
    transport::Observe,
};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{HealSettings, Ports, ports::state};
use crate::{
    budget::{LEDGER_SPAN, Spent},
    compile::facts,
    decision::Roles,
    format::Runbook,
    gate::{
        BlastFacts, BudgetFacts, EvidenceFacts, Gate, GateInput, HeldLock, LockFacts, MetricPath,
        MonitoringFacts, Overridden, PeopleFacts, Phase, PlanFacts, evaluate, together,
    },
    library::Library,
    topology::Topology,
};

/// One source may take so long; the runner's gate has ten seconds in all, and the sources are asked side by side.
const SOURCE_LIMIT: Duration = Duration::from_secs(4);

/// Reads for gates.
#[derive(Clone)]
pub(super) struct Gatekeeper {
    pub ports: Ports,
    pub settings: Arc<HealSettings>,
    pub topology: Arc<Topology>,
}

/// Everything of the world that gates look at, but for the evidence of the decision.
pub(super) struct World {
    pub people: PeopleFacts,
    pub monitoring: MonitoringFacts,
    pub held: Result<Vec<HeldLock>, String>,
    pub ledger: Result<Vec<Spent>, String>,
    pub clock_off_seconds: Result<f64, String>,
}

/// Whom it is about.
pub(super) struct About<'a> {
    pub hosts: &'a BTreeSet<HostName>,
    /// Label sets of the incident's alerts.
    pub labels: &'a [BTreeMap<String, String>],
    pub own_job: Option<&'a JobId>,
}

async fn limited<T>(what: &str, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(SOURCE_LIMIT, ask).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "{what} did not answer within {} s",
            SOURCE_LIMIT.as_secs()
        )),
    }
}

impl Gatekeeper {
    pub async fn read(&self, about: &About<'_>, now: Timestamp) -> World {
        let records = &self.ports.records;
        let (halt, silences, markers, jobs, ledger, targets) = tokio::join!(
            async { records.halt().await },
            limited("Alertmanager", self.ports.silences.silences()),
            self.markers(about.hosts),
            limited("the journal", self.other_jobs(about.own_job)),
            async {
                records
                    .ledger(now.saturating_sub(LEDGER_SPAN).unwrap_or(Timestamp::MIN))
                    .await
            },
            limited("Prometheus", self.ports.metrics.targets()),
        );
        let (deploys, held) = match jobs {
            Ok((deploys, held)) => (Ok(deploys), Ok(held)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        let fresh = self
            .settings
            .watchdog_seconds
            .map_or(watchdog::FRESH, |seconds| {
                SignedDuration::from_secs(i64::from(seconds))
            });
        let (markers, clock_off_seconds) = markers;
        World {
            people: PeopleFacts {
                // Records that cannot be read may hold a halt.
                halt: halt.unwrap_or_else(|error| {
                    Some(crate::gate::Halt {
                        by: "nobody known".to_owned(),
                        at: now,
                        why: error.to_string(),
                    })
                }),
                silences: silences.map(|silences| self.covering(&silences, about, now)),
                markers,
                deploys,
            },
            monitoring: MonitoringFacts {
                watchdog: watchdog::judge(self.ports.vitals.get().watchdog_seen, now, fresh),
                targets,
            },
            held,
            ledger: ledger.map_err(|error| error.to_string()),
            clock_off_seconds,
        }
    }

    /// Records that cannot be read override nothing.
    pub async fn overridden(&self, incident: &str, job: Option<&str>) -> Option<Overridden> {
        let now = self.ports.clock.now();
        let found = self.ports.records.overridden(incident, job, now).await;
        found
            .inspect_err(|error| tracing::warn!(%error, "overrides cannot be read; all gates hold"))
            .ok()
            .flatten()
    }

    /// Maintenance markers, and how far the hosts' clocks are from ours.
    async fn markers(
        &self,
        hosts: &BTreeSet<HostName>,
    ) -> (
        BTreeMap<HostName, Result<Option<String>, String>>,
        Result<f64, String>,
    ) {
        let asked = join_all(hosts.iter().map(|host| async move {
            let before = self.ports.clock.now();
            let ask = Observe {
                facts: true,
                ..Observe::default()
            };
            let answer = limited(host.as_str(), async {
                self.ports
                    .hosts
                    .observe(host, ask)
                    .await
                    .map_err(|error| error.to_string())
            });
            let facts = answer.await.and_then(|observed| {
                observed
                    .facts
                    .ok_or_else(|| format!("{host} left out its facts"))
            });
            (host.clone(), before, self.ports.clock.now(), facts)
        }));
        let (mut markers, mut off) = (BTreeMap::new(), Ok(0.0_f64));
        for (host, before, after, facts) in asked.await {
            let seconds = |at: Timestamp| at.as_microsecond() as f64 / 1e6;
            match facts {
                Ok(facts) => {
                    let apart = (seconds(before) - facts.clock_seconds)
                        .max(facts.clock_seconds - seconds(after))
                        .max(0.0);
                    off = off.map(|most: f64| most.max(apart));
                    markers.insert(host, Ok(facts.maintenance_marker));
                }
                Err(why) => {
                    off = Err(why.clone());
                    markers.insert(host, Err(why));
                }
            }
        }
        (markers, off)
    }

    /// Unfinished jobs of others: deploys, and repairs with their scopes.
    async fn other_jobs(
        &self,
        own: Option<&JobId>,
    ) -> Result<(Vec<String>, Vec<HeldLock>), String> {
        let (mut deploys, mut held) = (Vec::new(), Vec::new());
        for id in self
            .ports
            .journal
            .unfinished()
            .await
            .map_err(|error| error.to_string())?
        {
            if Some(&id) == own {
                continue;
            }
            let state = state(&*self.ports.journal, &id).await?;
            let Some(job) = state
                .as_ref()
                .and_then(JobState::job)
                .filter(|job| job.finished.is_none())
            else {
                continue;
            };
            match job.kind {
                JobKind::Deploy { .. } => deploys.push(format!("job {id} ({})", job.title)),
                JobKind::Heal { .. } => held.push(HeldLock {
                    scope: job.scope.clone(),
                    job: id.to_string(),
                    hosts: hosts_of(&job.steps),
                }),
            }
        }
        Ok((deploys, held))
    }

    fn covering(
        &self,
        silences: &[Silence],
        about: &About<'_>,
        now: Timestamp,
    ) -> Vec<(String, Timestamp)> {
        let covers_host = |silence: &Silence| {
            about.hosts.iter().any(|host| {
                let address = self.topology.hosts.get(host).map_or("", String::as_str);
                silence.covers_host(&[host.as_str(), address], now)
            })
        };
        silences
            .iter()
            .filter(|silence| {
                about
                    .labels
                    .iter()
                    .any(|labels| silence.covers(labels, now))
                    || covers_host(silence)
            })
            .map(|silence| {
                (
                    format!("by {}: {}", silence.created_by, silence.comment),
                    silence.ends_at,
                )
            })
            .collect()
    }

    /// What the alerts' rules say in Prometheus.
    pub async fn metric(&self, alerts: &BTreeSet<String>) -> Result<Vec<MetricPath>, String> {
        let rules = limited("Prometheus", self.ports.metrics.rules()).await?;
        Ok(rules
            .into_iter()
            .filter(|rule| alerts.contains(&rule.name))
            .map(|rule| MetricPath {
                alert: rule.name,
                firing: rule.firing,
                last_evaluation: rule.last_evaluation,
                interval: rule.interval,
                error: rule.error,
            })
            .collect())
    }
}

/// Hosts that steps act on.
pub(super) fn hosts_of(steps: &[Step]) -> BTreeSet<HostName> {
    let host = |step: &Step| match &step.action {
        Action::Host { host, .. } => Some(host.clone()),
        _ => None,
    };
    steps.iter().filter_map(host).collect()
}

/// Members that a repair is about, for the blast radius.
pub(super) fn affected(runbook: &Runbook, roles: &Roles) -> BTreeSet<HostName> {
    runbook
        .affects
        .iter()
        .filter_map(|role| roles.get(role))
        .flatten()
        .cloned()
        .collect()
}

/// What the gates ask about the steps.
pub(super) fn plan_facts<'a>(
    steps: &[Step],
    service: &'a deploy_engine::model::ServiceName,
    roles: &'a Roles,
    topology: &Topology,
    settings: &'a HealSettings,
    unproven: Vec<String>,
) -> PlanFacts<'a> {
    PlanFacts {
        service,
        roles,
        hosts: hosts_of(steps),
        site: topology.hosts.keys().cloned().collect(),
        first_snapshot: facts::first_snapshot(steps),
        first_act: steps.iter().position(facts::acts),
        unguarded: facts::unguarded(steps),
        proof: facts::ends_with_proof(steps),
        unproven,
        bot_needs: &settings.bot_needs,
    }
}

/// Other failure domains with an open incident of the same runbook.
pub(super) fn same_elsewhere(ports: &Ports, runbook: &Runbook, scope: &str) -> Vec<String> {
    let open = ports.vitals.get().open;
    let other =
        |(own, runbooks): &&(String, Vec<_>)| own != scope && runbooks.contains(&runbook.runbook);
    open.iter()
        .filter(other)
        .map(|(scope, _)| scope.clone())
        .collect()
}

/// The gate that the runner asks before each step. Repairs are re-judged in full before whatever changes something; a deploy, and
/// whatever only looks, stops for a halt.
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
        let JobKind::Heal { runbook, incident } = &job.kind else {
            return GateVerdict::Pass;
        };
        let runbook_id = crate::format::RunbookId(runbook.clone());
        let Some(runbook) = self.library.get(&runbook_id) else {
            return GateVerdict::Refuse {
                why: format!("there is no runbook {runbook_id} any more"),
            };
        };
        let steps = &job.steps[..];
        let hosts = hosts_of(steps);
        let labels = self.labels(incident).await;
        let world = self
            .keeper
            .read(
                &About {
                    hosts: &hosts,
                    labels: &labels,
                    own_job: Some(id),
                },
                now,
            )
            .await;
        let ledger = match &world.ledger {
            Ok(ledger) => ledger.as_slice(),
            Err(why) => {
                return GateVerdict::Hold {
                    until: None,
                    why: format!("the budget is unknown: {why}"),
                };
            }
        };
        let acted = steps
            .iter()
            .zip(&job.runs)
            .any(|(step, run)| facts::acts(step) && run.attempts > 0);
        let snapshots = steps
            .iter()
            .zip(&job.runs)
            .filter(|(step, _)| matches!(step.action, Action::Snapshot { .. }));
        let snapshot_done = snapshots.clone().count() > 0
            && snapshots
                .clone()
                .all(|(_, run)| matches!(run.end(), Some(StepEnd::Done { .. })));
        // The roles were checked when the job was made; from here on the hosts of its steps are what counts.
        let roles: Roles = [("hosts".to_owned(), hosts.iter().cloned().collect())].into();
        let members = self
            .keeper
            .topology
            .members(&runbook.service)
            .map_or(0, |members| members.len());
        let input = GateInput {
            now,
            phase: Phase::Step {
                decided_at: job.created_at,
                acted,
                acts: facts::acts(step),
                snapshot_done,
            },
            limits: &self.keeper.settings.gates,
            evidence: EvidenceFacts {
                metric: Ok(Vec::new()),
                direct: Vec::new(),
                clock_off_seconds: world.clock_off_seconds.clone(),
            },
            monitoring: world.monitoring.clone(),
            people: world.people.clone(),
            locks: LockFacts {
                scope: job.scope.clone(),
                held: world.held.clone(),
            },
            blast: BlastFacts {
                // The members that are broken were counted when it was decided; now only what else is going on counts.
                radius: crate::format::Blast::Cluster,
                members,
                affected: hosts.clone(),
                away: BTreeSet::new(),
                same_elsewhere: same_elsewhere(&self.keeper.ports, runbook, &job.scope),
            },
            budget: BudgetFacts {
                budget: &runbook.budget,
                ledger,
                runbook: &runbook_id,
                targets: hosts
                    .iter()
                    .map(|host| format!("host:{host}"))
                    .chain([job.scope.clone()])
                    .collect(),
                own_job: Some(id.to_string()),
            },
            storm: self.keeper.ports.vitals.get().storm,
            plan: plan_facts(
                steps,
                &runbook.service,
                &roles,
                &self.keeper.topology,
                &self.keeper.settings,
                Vec::new(),
            ),
            overridden: self.keeper.overridden(incident, Some(&id.0)).await,
        };
        verdict(together(&evaluate(&input)), acted)
    }

    async fn labels(&self, incident: &str) -> Vec<BTreeMap<String, String>> {
        let open = self
            .keeper
            .ports
            .records
            .open_incidents()
            .await
            .unwrap_or_default();
        let own = open.into_iter().find(|one| one.id.0 == incident);
        own.map_or_else(Vec::new, |one| {
            one.alerts.into_values().map(|alert| alert.labels).collect()
        })
    }
}

/// Once something was changed, stopping for good half-way is worse than waiting until the doubt is gone: then a refusal holds.
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
            Some(job) if matches!(job.kind, JobKind::Heal { .. }) && facts::acts(step) => {
                self.repair_step(id, job, step, now).await
            }
            Some(_) => GateVerdict::Pass,
        }
    }

    async fn before_undo(&self, _: &JobId, _: &JobState, _: &Step, _: Timestamp) -> GateVerdict {
        self.halted().await.unwrap_or(GateVerdict::Pass)
    }
}
