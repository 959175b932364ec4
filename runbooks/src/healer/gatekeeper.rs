//! Reads what the gates look at in the world, before a repair and before each of its steps. Nothing is judged here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use collectors::{
    alertmanager::Silence,
    icinga2::{Held, HeldBy, Named},
    prometheus::{ScrapeTarget, TargetHealth},
    source::Reading,
    watchdog,
};
use deploy_engine::{
    job::{Action, JobId, JobKind, JobState, Step},
    model::HostName,
    transport::Observe,
    wire,
};
use futures::future::join_all;
use jiff::Timestamp;

use super::{
    HealSettings, Ports,
    ports::{Pulse, state},
};
use crate::{
    alerts::SCRAPED_LABELS,
    budget::{LEDGER_SPAN, Spent},
    gate::{
        HeldLock, MetricPath, MonitoringFacts, Overridden, Scrape,
        maintenance::{Form, Sign},
        sources::ICINGA,
    },
    topology::Topology,
};

/// One source may take so long; the runner's gate has ten seconds in all, and the sources are asked side by side.
const SOURCE_LIMIT: Duration = Duration::from_secs(4);

/// The name of the question to each host.
const PULSE: &str = "pulse";

/// Reads for gates.
#[derive(Clone)]
pub(super) struct Gatekeeper {
    pub ports: Ports,
    pub settings: Arc<HealSettings>,
    pub topology: Arc<Topology>,
}

/// Everything of the world that gates look at, but for the evidence of the decision.
pub(super) struct World {
    /// All forms but those that the readings tell.
    pub signs: BTreeMap<Form, Result<Vec<Sign>, String>>,
    pub monitoring: MonitoringFacts,
    pub scrapes: Result<BTreeMap<HostName, Scrape>, String>,
    pub held: Result<Vec<HeldLock>, String>,
    pub ledger: Result<Vec<Spent>, String>,
    pub clock_off_seconds: Result<f64, String>,
    /// Of logs.
    pub readings: Vec<Reading>,
}

/// Whom it is about.
pub(super) struct About<'a> {
    pub hosts: &'a BTreeSet<HostName>,
    /// Label sets of the incident's alerts.
    pub labels: &'a [BTreeMap<String, String>],
    pub own_job: Option<&'a JobId>,
    /// Hosts need not be asked again for their pulse that were asked since then.
    pub pulse_since: Timestamp,
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

fn halted(halt: Option<crate::gate::Halt>) -> Vec<Sign> {
    let sign = |halt: crate::gate::Halt| {
        let why = if halt.why.is_empty() {
            String::new()
        } else {
            format!(": {}", halt.why)
        };
        Sign::new(format!("by {} at {:.0}{why}", halt.by, halt.at))
    };
    halt.into_iter().map(sign).collect()
}

impl Gatekeeper {
    pub async fn read(&self, about: &About<'_>, now: Timestamp) -> World {
        let records = &self.ports.records;
        let since = now.saturating_sub(LEDGER_SPAN).unwrap_or(Timestamp::MIN);
        let (
            halt,
            silences,
            icinga,
            alertmanager,
            markers,
            jobs,
            ledger,
            targets,
            prometheus,
            readings,
        ) = tokio::join!(
            async { records.halt().await },
            limited("Alertmanager", self.ports.silences.silences()),
            self.icinga(about),
            limited("Alertmanager", self.ports.silences.well()),
            self.markers(about.hosts, about.pulse_since),
            limited("the journal", self.other_jobs(about.own_job)),
            async { records.ledger(since).await },
            limited("Prometheus", self.ports.metrics.targets()),
            limited("Prometheus", self.ports.metrics.ready()),
            self.readings(),
        );
        let (deploys, held) = match jobs {
            Ok((deploys, held)) => (Ok(deploys), Ok(held)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        let (markers, clock_off_seconds) = markers;
        let halt = halt.map_err(|error| error.to_string());
        let mut signs: BTreeMap<_, _> = [
            (Form::Halt, halt.map(halted)),
            (
                Form::Silence,
                silences.map(|silences| self.covering(&silences, about, now)),
            ),
            (Form::Marker, markers),
            (Form::Deploy, deploys),
        ]
        .into();
        signs.extend(icinga.map(|signs| (Form::Icinga, signs)));
        World {
            signs,
            monitoring: MonitoringFacts {
                watchdog: watchdog::judge(
                    self.ports.vitals.get().watchdog_seen,
                    now,
                    self.settings.watchdog_fresh(),
                ),
                targets: targets
                    .as_ref()
                    .map(|targets| TargetHealth::of(targets))
                    .map_err(Clone::clone),
                prometheus,
                alertmanager,
            },
            scrapes: targets.map(|targets| self.scrapes(&targets)),
            held,
            ledger: ledger.map_err(|error| error.to_string()),
            clock_off_seconds,
            readings,
        }
    }

    /// Those that cannot be read are none: no verdict rests on them.
    async fn readings(&self) -> Vec<Reading> {
        let read = self.ports.records.readings().await;
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "readings of logs are not shown to the gates");
            Vec::new()
        })
    }

    /// Asks the monitoring, and `hosts` for their pulse, before it is known that gates will ask: the answers are kept for a moment,
    /// and travel while hosts still answer what the decision rests on.
    pub async fn ask_ahead(
        &self,
        alerts: &BTreeSet<String>,
        hosts: &BTreeSet<HostName>,
        now: Timestamp,
    ) {
        let (metrics, silences) = (&self.ports.metrics, &self.ports.silences);
        let _ = tokio::join!(
            self.markers(hosts, now),
            limited("Alertmanager", silences.silences()),
            limited("Alertmanager", silences.well()),
            limited("Icinga", async { silences.held().await.transpose() }),
            limited("Prometheus", metrics.targets()),
            limited("Prometheus", metrics.ready()),
            self.metric(alerts, &[]),
        );
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

    /// The newest scrape of anything on each host.
    fn scrapes(&self, targets: &[ScrapeTarget]) -> BTreeMap<HostName, Scrape> {
        let mut newest: BTreeMap<HostName, Scrape> = BTreeMap::new();
        for target in targets {
            let mut named = SCRAPED_LABELS
                .iter()
                .filter_map(|label| self.topology.host_named(target.labels.get(*label)?));
            let Some(host) = named.next() else { continue };
            let scrape = Scrape {
                last: target.last_scrape,
                interval: target.interval,
            };
            let known = newest.entry(host.clone()).or_insert(scrape);
            if scrape.last > known.last {
                *known = scrape;
            }
        }
        newest
    }

    /// Maintenance markers, and how far the hosts' clocks are from ours.
    async fn markers(
        &self,
        hosts: &BTreeSet<HostName>,
        since: Timestamp,
    ) -> (Result<Vec<Sign>, String>, Result<f64, String>) {
        let asked = join_all(
            hosts
                .iter()
                .map(|host| async move { (host, self.pulse(host, since).await) }),
        );
        let (mut markers, mut off) = (Ok(Vec::new()), Ok(0.0_f64));
        for (host, pulse) in asked.await {
            match pulse {
                Ok(pulse) => {
                    let before = pulse.asked_at.duration_since(pulse.clock);
                    let apart = before.max(pulse.clock.duration_since(pulse.answered_at));
                    off = off.map(|most: f64| most.max(apart.as_secs_f64()));
                    let sign = pulse
                        .marker
                        .map(|marker| Sign::new(format!("{host} is marked: {marker}")));
                    if let Ok(markers) = &mut markers {
                        markers.extend(sign);
                    }
                }
                Err(why) => {
                    off = Err(why.clone());
                    markers = Err(why);
                }
            }
        }
        (markers, off)
    }

    /// The one that came meanwhile, if it was asked for since then.
    async fn pulse(&self, host: &HostName, since: Timestamp) -> Result<Pulse, String> {
        let asked_at = self.ports.clock.now();
        let kept = self.ports.vitals.get().pulses.remove(host);
        if let Some(kept) = kept.filter(|kept| (since..=asked_at).contains(&kept.asked_at)) {
            return Ok(kept);
        }
        let ask = Observe {
            probes: [(PULSE.to_owned(), wire::Probe::Pulse)].into(),
            ..Observe::default()
        };
        let mut observed = limited(host.as_str(), async {
            let observed = self.ports.hosts.observe(host, ask).await;
            observed.map_err(|error| error.to_string())
        })
        .await?;
        let (clock, marker) = pulse(host, observed.probes.remove(PULSE))?;
        let pulse = Pulse {
            asked_at,
            answered_at: self.ports.clock.now(),
            clock,
            marker,
        };
        self.ports.vitals.set(|vitals| {
            vitals.pulses.insert(host.clone(), pulse.clone());
        });
        Ok(pulse)
    }

    /// Unfinished jobs of others: deploys, and repairs with their scopes.
    async fn other_jobs(&self, own: Option<&JobId>) -> Result<(Vec<Sign>, Vec<HeldLock>), String> {
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
                JobKind::Deploy { .. } | JobKind::Batch { .. } => {
                    deploys.push(Sign::new(format!(
                        "job {id} ({}) is not finished",
                        job.title
                    )));
                }
                JobKind::Heal { .. } => held.push(HeldLock {
                    scope: job.scope.clone(),
                    job: id.to_string(),
                    hosts: hosts_of(&job.steps),
                }),
            }
        }
        Ok((deploys, held))
    }

    fn covering(&self, silences: &[Silence], about: &About<'_>, now: Timestamp) -> Vec<Sign> {
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
            .map(|silence| Sign {
                what: format!("by {}: {}", silence.created_by, silence.comment),
                until: Some(silence.ends_at),
            })
            .collect()
    }

    /// What people said in Icinga; none: there is none to be asked.
    async fn icinga(&self, about: &About<'_>) -> Option<Result<Vec<Sign>, String>> {
        let asked = async { self.ports.silences.held().await.transpose() };
        let held = limited("Icinga", asked).await.transpose()?;
        Some(held.map(|held| {
            let about_it = held.iter().filter(|one| self.concerns(one, about));
            about_it.map(sign_of).collect()
        }))
    }

    /// A downtime of a host, or of anything on it, says that somebody works there. An acknowledgement says it of the host or of the
    /// check that it is about, which may be acknowledged for months.
    fn concerns(&self, held: &Held, about: &About<'_>) -> bool {
        let host = self.topology.host_named(&held.what.host);
        if !host.is_some_and(|host| about.hosts.contains(host)) {
            return false;
        }
        let (Some(service), HeldBy::Acknowledgement) = (&held.what.service, held.by) else {
            return true;
        };
        let is_of = |labels: &BTreeMap<String, String>| {
            labels.get("host") == Some(&held.what.host)
                && labels.get("icinga_service") == Some(service)
        };
        about.labels.iter().any(is_of)
    }

    /// What the alerts' rules say in Prometheus, and their checks in Icinga. `labels`: of the alerts; they name the checks.
    pub async fn metric(
        &self,
        alerts: &BTreeSet<String>,
        labels: &[BTreeMap<String, String>],
    ) -> Result<Vec<MetricPath>, String> {
        let named: BTreeSet<Named> = labels.iter().filter_map(check_of).collect();
        let checks = async {
            match named.is_empty() {
                true => Ok(Vec::new()),
                false => limited("Icinga", self.ports.metrics.checks(&named)).await,
            }
        };
        let rules = limited("Prometheus", self.ports.metrics.rules());
        let (rules, checks) = tokio::join!(rules, checks);
        let rules = rules?
            .into_iter()
            .filter(|rule| alerts.contains(&rule.name));
        let rules = rules.map(|rule| MetricPath {
            alert: rule.name,
            query: rule.query,
            firing: rule.firing,
            last_evaluation: rule.last_evaluation,
            interval: rule.interval,
            error: rule.error,
        });
        let checks = checks?.into_iter().map(|check| MetricPath {
            alert: check.what.full(),
            query: format!("{ICINGA}{}", check.command),
            firing: check.firing,
            last_evaluation: check.last_check,
            interval: check.interval,
            error: None,
        });
        Ok(rules.chain(checks).collect())
    }
}

/// The check that an alert of Icinga is about.
fn check_of(labels: &BTreeMap<String, String>) -> Option<Named> {
    labels.get("check_command")?;
    Some(Named {
        host: labels.get("host")?.clone(),
        service: labels.get("icinga_service").cloned(),
    })
}

fn sign_of(held: &Held) -> Sign {
    let kind = match held.by {
        HeldBy::Downtime => "downtime",
        HeldBy::Acknowledgement => "acknowledgement",
    };
    let (what, care) = (held.what.full(), &held.care);
    Sign {
        what: format!("{kind} of {what} by {}: {}", care.by, care.comment),
        until: care.until,
    }
}

/// What a host says of itself in passing: its clock, and whether somebody works on it.
fn pulse(
    host: &HostName,
    answer: Option<wire::ProbeResult>,
) -> Result<(Timestamp, Option<String>), String> {
    match answer {
        Some(wire::ProbeResult::Pulse {
            clock_micros,
            maintenance_marker,
        }) => Timestamp::from_microsecond(clock_micros)
            .map(|clock| (clock, maintenance_marker))
            .map_err(|error| format!("{host}: the time {clock_micros}: {error}")),
        Some(wire::ProbeResult::Failed { why }) => Err(format!("{host}: {why}")),
        _ => Err(format!("{host} left out its pulse")),
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
