//! The whole way: alert → evidence → gates → decision → job on the engine's own runner → proof, against scripted hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use collectors::{
    Alert, Change, SourceName, Status,
    alertmanager::Silence,
    icinga2::Held,
    prometheus::{RuleState, ScrapeTarget},
};
use deploy_engine::{
    condition::{self, ConditionCall, Judgement},
    job::{JobEvent, JobId, JobKind, JobState, Journal, MemoryJournal, StepProgress},
    model::{HostName, Secs},
    probe::{Ask, Reading, Readings, memcached::Stats},
    runner::{Clock, Context, Evidence, JobObserver, Runner, SystemClock},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, ProbeResult, Progress, StepKey, StepStatus, Work},
};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{
    budget::{RepairOutcome, Spent},
    decision::testing::{host, unit},
    format::RunbookId,
    gate::Halt,
    incident::{Incident, IncidentId, State},
    library::Library,
    topology::{Deployed, Topology},
    trust::{Drilled, Grant, Mode},
};

/// Three caches; what each of them does, and what people and the monitoring say.
#[derive(Default)]
pub(crate) struct World(Mutex<WorldNow>);

/// Something that happens to the world.
type Twist = fn(&mut WorldNow);

#[derive(Default)]
pub(crate) struct WorldNow {
    pub down: BTreeSet<HostName>,
    pub unreachable: BTreeSet<HostName>,
    /// Starts fail.
    pub stuck: bool,
    /// Why the Alertmanager is not well.
    pub alertmanager_ill: Option<String>,
    /// Happens right after the gates have judged the named step for the first time.
    pub after: Option<(&'static str, Twist)>,
    pub judgements: Vec<StepJudgement>,
    pub drilled: Option<Drilled>,
    pub ran: Vec<String>,
    pub firing: bool,
    pub markers: BTreeMap<HostName, String>,
    pub silences: Vec<Silence>,
    /// What Icinga says; none: there is none.
    pub icinga: Option<Result<Vec<Held>, String>>,
    pub incidents: BTreeMap<IncidentId, Incident>,
    pub decisions: Vec<DecisionRecord>,
    pub ledger: Vec<Spent>,
    pub demoted: Option<Mode>,
    pub halt: Option<Halt>,
    pub alerts: Vec<Alert>,
    pub news: Vec<News>,
}

impl World {
    pub fn now<T>(&self, look: impl FnOnce(&mut WorldNow) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn reading(&self, ask: &Ask, at: Timestamp) -> Reading {
        self.now(|now| {
            let unknown = |why: &str| Reading::Unknown {
                why: why.to_owned(),
                at,
            };
            if now.unreachable.contains(&ask.host) {
                return unknown("no route to host");
            }
            let down = now.down.contains(&ask.host);
            let value = match ask.probe.as_str() {
                "host.unit/memcached.service" => {
                    serde_json::to_value(unit(if down { "failed" } else { "active" }))
                }
                "memcached.stats" if down => return unknown("connection refused"),
                "memcached.stats" => serde_json::to_value(Stats {
                    version: "1.6.18".into(),
                    uptime_seconds: 9_000,
                    curr_connections: 1,
                    max_connections: 1_024,
                    bytes: 0,
                    limit_maxbytes: 64,
                    evictions: 0,
                }),
                other => return unknown(&format!("nobody asked {other} here")),
            };
            Reading::Known {
                value: value.unwrap(),
                at,
            }
        })
    }
}

#[async_trait]
impl Evidence for World {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let mut readings = Readings::default();
        for ask in asks {
            readings.insert(&ask.probe, ask.host.clone(), self.reading(ask, now));
        }
        readings
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings) {
        let condition = condition::find(&call.name).unwrap();
        let readings = self.gather(&condition.asks(call), now).await;
        (condition.judge(call, &readings), readings)
    }
}

#[async_trait]
impl Hosts for World {
    async fn observe(&self, host: &HostName, ask: Observe) -> Result<Observed, HostError> {
        self.now(|now| {
            if now.unreachable.contains(host) {
                return Err(HostError::TimedOut {
                    host: host.clone(),
                    what: "an answer".into(),
                    limit_seconds: 1,
                });
            }
            let pulse = ProbeResult::Pulse {
                clock_micros: Timestamp::now().as_microsecond(),
                maintenance_marker: now.markers.get(host).cloned(),
            };
            let answer = |name: String| (name, pulse.clone());
            Ok(Observed {
                probes: ask.probes.into_keys().map(answer).collect(),
                ..Observed::default()
            })
        })
    }

    async fn start(
        &self,
        host: &HostName,
        _: StepKey,
        _: Fence,
        work: Work,
        _: Secs,
        _: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let Work::Run { command } = work else {
            panic!("{work:?}")
        };
        self.now(|now| {
            now.ran.push(format!("{host}: {}", command.argv.join(" ")));
            if !now.stuck && command.argv.iter().any(|word| word == "start") {
                now.down.remove(host);
            }
        });
        if self.now(|now| now.stuck) {
            let what = "exit status 1".to_owned();
            return Ok(Outcome::Failed {
                at: None,
                what,
                output: None,
            });
        }
        Ok(Outcome::Done {
            changed: vec![],
            output: None,
        })
    }

    async fn ask(&self, _: &HostName, _: &StepKey) -> Result<StepStatus, HostError> {
        Ok(StepStatus::NeverStarted)
    }

    async fn cancel(&self, _: &HostName, _: &StepKey, _: &Fence) -> Result<(), HostError> {
        Ok(())
    }

    async fn forget(&self, _: &HostName, _: &JobId, _: &Fence) -> Result<(), HostError> {
        Ok(())
    }
}

#[async_trait]
impl Records for World {
    /// In pages of one.
    async fn firing_alerts(
        &self,
        last: Option<&(SourceName, String)>,
    ) -> Result<Vec<Alert>, RecordError> {
        let next = self.now(|now| {
            let firing = now.alerts.iter().filter(|one| one.status == Status::Firing);
            let left = firing.filter(|one| last.is_none_or(|last| one.key() > *last));
            left.min_by_key(|one| one.key()).cloned()
        });
        Ok(next.into_iter().collect())
    }

    async fn open_incidents(&self) -> Result<Vec<Incident>, RecordError> {
        Ok(self.now(|now| {
            now.incidents
                .values()
                .filter(|one| one.is_open())
                .cloned()
                .collect()
        }))
    }

    async fn put_incident(&self, incident: &Incident) -> Result<(), RecordError> {
        self.now(|now| now.incidents.insert(incident.id.clone(), incident.clone()));
        Ok(())
    }

    async fn put_decision(&self, decision: &DecisionRecord) -> Result<(), RecordError> {
        self.now(|now| now.decisions.push(decision.clone()));
        Ok(())
    }

    async fn ledger(&self, since: Timestamp) -> Result<Vec<Spent>, RecordError> {
        Ok(self.now(|now| {
            now.ledger
                .iter()
                .filter(|one| one.at >= since)
                .cloned()
                .collect()
        }))
    }

    async fn charge(&self, spent: &Spent) -> Result<(), RecordError> {
        self.now(|now| now.ledger.push(spent.clone()));
        Ok(())
    }

    async fn settle(
        &self,
        job: &str,
        outcome: RepairOutcome,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        self.now(|now| {
            for one in now.ledger.iter_mut().filter(|one| one.job == job) {
                (one.outcome, one.ended_at) = (Some(outcome), Some(at));
            }
        });
        Ok(())
    }

    async fn decision(&self, incident: &IncidentId) -> Result<Option<DecisionRecord>, RecordError> {
        let of = |one: &&DecisionRecord| one.incident == *incident;
        Ok(self.now(|now| now.decisions.iter().rev().find(of).cloned()))
    }

    async fn put_judgement(&self, judgement: &StepJudgement) -> Result<(), RecordError> {
        self.now(|now| {
            now.judgements.push(judgement.clone());
            let due = |(step, _): &mut (&str, fn(&mut WorldNow))| judgement.step.contains(*step);
            if let Some((_, change)) = now.after.take_if(due) {
                change(now);
            }
        });
        Ok(())
    }

    async fn grants(&self, _: &RunbookId) -> Result<Vec<Grant>, RecordError> {
        let demoted = self.now(|now| now.demoted);
        Ok(demoted
            .map(|mode| Grant { class: None, mode })
            .into_iter()
            .collect())
    }

    async fn drilled(&self, _: &RunbookId) -> Result<Option<Drilled>, RecordError> {
        Ok(self.now(|now| now.drilled.clone()))
    }

    async fn demote(
        &self,
        _: &RunbookId,
        to: Mode,
        _: &str,
        _: Timestamp,
    ) -> Result<(), RecordError> {
        self.now(|now| now.demoted = Some(to));
        Ok(())
    }

    async fn halt(&self) -> Result<Option<Halt>, RecordError> {
        Ok(self.now(|now| now.halt.clone()))
    }
}

#[async_trait]
impl Metrics for World {
    async fn rules(&self) -> Result<Vec<RuleState>, String> {
        Ok(vec![RuleState {
            name: "MemcachedDown".into(),
            query: "nightshift_memcached_up == 0".into(),
            firing: self.now(|now| now.firing),
            last_evaluation: Timestamp::now(),
            interval: SignedDuration::from_secs(15),
            error: None,
        }])
    }

    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
        let target = |n: usize| ScrapeTarget {
            labels: [("host".to_owned(), format!("h{}", n % 3 + 1))].into(),
            up: Some(n > 0),
            last_scrape: Timestamp::now(),
            interval: SignedDuration::from_secs(15),
        };
        Ok((0..21).map(target).collect())
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl Silences for World {
    async fn silences(&self) -> Result<Vec<Silence>, String> {
        Ok(self.now(|now| now.silences.clone()))
    }

    async fn well(&self) -> Result<(), String> {
        match self.now(|now| now.alertmanager_ill.clone()) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    async fn held(&self) -> Option<Result<Vec<Held>, String>> {
        self.now(|now| now.icinga.clone())
    }
}

impl Tell for World {
    fn tell(&self, news: News) {
        self.now(|now| now.news.push(news));
    }
}

/// Tells the healer when a proof starts, as the bot does.
struct Watch(std::sync::OnceLock<HealerHandle>);

impl JobObserver for Watch {
    fn event(&self, id: &JobId, state: &JobState, event: &JobEvent) {
        let (Some(job), JobEvent::StepStarted { step, .. }, Some(handle)) =
            (state.job(), event, self.0.get())
        else {
            return;
        };
        if let JobKind::Heal { incident, .. } = &job.kind
            && job.steps.last().is_some_and(|last| last.id == *step)
        {
            handle.proof_started(incident, id);
        }
    }

    fn progress(&self, _: StepProgress) {}
}

pub(crate) struct Stage {
    pub world: Arc<World>,
    pub journal: Arc<MemoryJournal>,
    pub handle: HealerHandle,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), String>>,
}

pub(crate) fn settings(mode: Mode) -> HealSettings {
    let quick = [
        ("confirm", "0s"),
        ("quiet", "1s"),
        ("settle", "1s"),
        ("deadline", "3s"),
    ];
    let quick = quick
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into();
    HealSettings {
        mode,
        settings: [(RunbookId("MEM-1".into()), quick)].into(),
        // Earning it is a test of its own.
        unearned: true,
        ..HealSettings::default()
    }
}

fn start(world: Arc<World>, journal: Arc<MemoryJournal>, mode: Mode) -> Stage {
    let library = Library::embedded().unwrap();
    start_with(world, journal, settings(mode), library)
}

pub(crate) fn three_caches() -> Arc<Topology> {
    three_members("memcached")
}

/// Three hosts that are all members of the only service.
pub(super) fn three_members(service: &str) -> Arc<Topology> {
    let members = vec![host("h1"), host("h2"), host("h3")];
    Arc::new(Topology {
        site: "test".into(),
        hosts: members
            .iter()
            .enumerate()
            .map(|(n, host)| (host.clone(), format!("10.0.0.{}", n + 1)))
            .collect(),
        services: [(
            service.parse().unwrap(),
            Deployed {
                members,
                settings: BTreeMap::new(),
            },
        )]
        .into(),
        ..Topology::default()
    })
}

pub(super) fn start_with(
    world: Arc<World>,
    journal: Arc<MemoryJournal>,
    settings: HealSettings,
    library: Library,
) -> Stage {
    start_on(three_caches(), world, journal, settings, library)
}

pub(super) fn start_on(
    topology: Arc<Topology>,
    world: Arc<World>,
    journal: Arc<MemoryJournal>,
    settings: HealSettings,
    library: Library,
) -> Stage {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ports = Ports {
        records: world.clone(),
        evidence: world.clone(),
        hosts: world.clone(),
        journal: journal.clone(),
        metrics: world.clone(),
        silences: world.clone(),
        tell: world.clone(),
        clock: clock.clone(),
        vitals: Arc::default(),
    };
    let settings = Arc::new(settings);
    let library = Arc::new(library);
    let gate = Arc::new(HealGate::new(
        ports.clone(),
        settings.clone(),
        topology.clone(),
        library.clone(),
    ));
    let watch = Arc::new(Watch(std::sync::OnceLock::new()));
    let runner = Arc::new(Runner::new(Context {
        journal: journal.clone(),
        hosts: world.clone(),
        evidence: world.clone(),
        gate,
        observer: watch.clone(),
        clock,
        holder: "test".into(),
    }));
    let jobs = Arc::new(EngineJobs {
        journal: journal.clone(),
        runner,
    });
    let (healer, handle) = Healer::new(ports, jobs, settings, topology, library);
    let _ = watch.0.set(handle.clone());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(healer.run(stopped));
    Stage {
        world,
        journal,
        handle,
        stop: Some(stop),
        task,
    }
}

pub(super) fn alert(name: &str, labels: &[(&str, &str)], status: Status) -> Alert {
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let now = Timestamp::now();
    Alert {
        source: SourceName("am".into()),
        fingerprint: collectors::fingerprint(&labels),
        name: name.into(),
        labels,
        annotations: BTreeMap::new(),
        status,
        starts_at: now,
        ends_at: (status == Status::Resolved).then_some(now),
        generator_url: String::new(),
        received_at: now,
    }
}

impl Stage {
    pub fn new(mode: Mode) -> Self {
        start(Arc::default(), Arc::default(), mode)
    }

    pub async fn watchdog(&self) {
        let alert = alert("Watchdog", &[("alertname", "Watchdog")], Status::Firing);
        self.handle
            .heard(vec![(alert, Change::Repeat)])
            .await
            .unwrap();
    }

    /// The cache on `name` dies and the monitoring notices.
    pub async fn break_cache(&self, name: &str) {
        self.world.now(|now| {
            now.down.insert(host(name));
            now.firing = true;
        });
        self.hear(name, Status::Firing, Change::New).await;
    }

    pub async fn hear(&self, name: &str, status: Status, change: Change) {
        let labels = [
            ("alertname", "MemcachedDown"),
            ("instance", &*format!("{name}:9808")),
        ];
        let alert = alert("MemcachedDown", &labels, status);
        self.world.now(|now| {
            now.alerts
                .retain(|known| known.fingerprint != alert.fingerprint);
            now.alerts.push(alert.clone());
        });
        self.handle.heard(vec![(alert, change)]).await.unwrap();
    }

    /// Waits for the only incident to be in a state.
    pub async fn until(&self, state: &str) -> Incident {
        for _ in 0..300 {
            let found = self.world.now(|now| {
                now.incidents
                    .values()
                    .find(|one| one.state.name() == state)
                    .cloned()
            });
            if let Some(incident) = found {
                return incident;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.world.now(|now| {
            let states: Vec<_> = now.incidents.values().map(|one| &one.state).collect();
            let decisions: Vec<_> = now.decisions.iter().map(|one| one.decision.why()).collect();
            panic!(
                "expected {state}; found {states:?}; decided {decisions:?}; news {:?}",
                now.news.len()
            );
        })
    }

    pub fn ran(&self) -> Vec<String> {
        self.world.now(|now| now.ran.clone())
    }

    pub async fn stop(mut self) -> (Arc<World>, Arc<MemoryJournal>) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
        (self.world, self.journal)
    }
}

#[tokio::test]
async fn an_alert_becomes_a_proven_repair() {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("proving").await;
    let healed = stage.until("healed").await;
    assert_eq!(stage.ran(), ["h3: systemctl start memcached.service"]);
    stage.hear("h3", Status::Resolved, Change::Resolved).await;
    let resolved = stage.until("resolved").await;
    assert_eq!(resolved.id, healed.id);
    assert!(matches!(&resolved.state, State::Resolved { how } if how.contains("proven")));
    stage.world.now(|now| {
        assert_eq!(now.ledger.len(), 1);
        assert_eq!(now.ledger[0].outcome, Some(RepairOutcome::Verified));
        assert_eq!(now.decisions.last().unwrap().gates.len(), 13);
        let job = resolved.state.job();
        assert!(
            job.is_none()
                && now
                    .news
                    .iter()
                    .all(|one| !matches!(one, News::Trouble { .. })),
            "{:?}",
            now.news
        );
    });
    assert!(stage.journal.unfinished().await.unwrap().is_empty());
}

/// Why it is not repaired, and that nothing was run; then the reason goes and it is.
async fn held_back(prepare: fn(&mut WorldNow), state: &str, part: &str, mend: fn(&mut WorldNow)) {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    stage.world.now(prepare);
    stage.break_cache("h3").await;
    let incident = stage.until(state).await;
    let why = match &incident.state {
        State::Holding { why, .. } | State::Refused { why, .. } => why.clone(),
        other => panic!("{other:?}"),
    };
    assert!(why.contains(part), "expected {part:?} in {why:?}");
    assert_eq!(stage.ran(), Vec::<String>::new());
    stage.world.now(mend);
    stage.handle.look(incident.id).await.unwrap();
    stage.until("healed").await;
}

#[tokio::test]
async fn halted() {
    let halt = |now: &mut WorldNow| {
        now.halt = Some(Halt {
            by: "ann".into(),
            at: Timestamp::now(),
            why: String::new(),
        })
    };
    held_back(halt, "holding", "G4: halt: by ann", |now| now.halt = None).await;
}

#[tokio::test]
async fn in_maintenance() {
    let mark = |now: &mut WorldNow| drop(now.markers.insert(host("h3"), "kernel".into()));
    held_back(
        mark,
        "holding",
        "maintenance marker: h3 is marked: kernel",
        |now| now.markers.clear(),
    )
    .await;
}

#[tokio::test]
async fn silenced() {
    let silence = |now: &mut WorldNow| {
        let text = r#"{"id": "1", "status": {"state": "active"}, "createdBy": "bob", "comment": "moving", "startsAt": "2020-01-01T00:00:00Z",
            "endsAt": "2099-01-01T00:00:00Z", "matchers": [{"name": "alertname", "value": "Memcached.*", "isRegex": true}]}"#;
        now.silences.push(serde_json::from_str(text).unwrap());
    };
    held_back(silence, "holding", "silence: by bob: moving", |now| {
        now.silences.clear()
    })
    .await;
}

#[tokio::test]
async fn a_member_that_cannot_be_asked() {
    let lose = |now: &mut WorldNow| now.unreachable.extend([host("h2")]);
    held_back(lose, "refused", "unknown is not down", |now| {
        now.unreachable.clear()
    })
    .await;
}

#[tokio::test]
async fn two_at_once() {
    let both = |now: &mut WorldNow| now.down.extend([host("h2")]);
    held_back(both, "refused", "h2, h3 of 3 are down", |now| {
        now.down.retain(|one| *one != host("h2"))
    })
    .await;
}

#[tokio::test]
async fn without_a_watchdog_nothing_is_done() {
    let stage = Stage::new(Mode::Auto);
    stage.break_cache("h3").await;
    let incident = stage.until("holding").await;
    assert!(
        matches!(&incident.state, State::Holding { why, .. } if why.contains("G3: the Watchdog alert was never seen"))
    );
    stage.watchdog().await;
    stage.handle.look(incident.id).await.unwrap();
    stage.until("healed").await;
}

#[tokio::test]
async fn while_a_deploy_runs() {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    let created = JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d".into(),
        },
        title: "deploy site".into(),
        requested_by: "ann".into(),
        scope: "site:test".into(),
        steps: vec![],
    };
    stage
        .journal
        .create(&JobId("d1".into()), Timestamp::now(), &created)
        .await
        .unwrap();
    stage.break_cache("h3").await;
    let incident = stage.until("holding").await;
    assert!(
        matches!(&incident.state, State::Holding { why, .. } if why.contains("deploy: job d1 (deploy site) is not finished"))
    );
    assert_eq!(stage.ran(), Vec::<String>::new());
}

/// It comes up, and goes down again while the proof is held.
#[tokio::test]
async fn a_repair_that_does_not_prove_itself_pages_loses_trust_and_is_not_tried_again() {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("proving").await;
    stage.world.now(|now| now.down.extend([host("h3")]));
    let unproven = stage.until("unproven").await;
    assert_eq!(unproven.unproven.len(), 1);
    stage.world.now(|now| {
        assert_eq!(now.ledger[0].outcome, Some(RepairOutcome::Unverified));
        assert_eq!(now.demoted, Some(Mode::Ask));
        let paged = |one: &News| matches!(one, News::Incident { incident, page: true } if incident.state.name() == "unproven");
        assert!(now.news.iter().any(paged));
    });
    stage.hear("h3", Status::Firing, Change::Refiring).await;
    stage.handle.look(unproven.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.until("unproven").await;
    assert_eq!(stage.ran(), ["h3: systemctl start memcached.service"]);
}

/// A start that fails: nothing is proven either.
#[tokio::test]
async fn a_command_that_fails_pages() {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    stage.world.now(|now| now.stuck = true);
    stage.break_cache("h3").await;
    let unproven = stage.until("unproven").await;
    assert!(
        matches!(&unproven.state, State::Unproven { why, .. } if why.contains("start memcached on h3"))
    );
}

#[tokio::test]
async fn asking_approving_and_denying() {
    let stage = Stage::new(Mode::Ask);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let asking = stage.until("asking").await;
    let State::Asking { digest, .. } = &asking.state else {
        unreachable!()
    };
    let wrong = stage
        .handle
        .approve(asking.id.clone(), "d0".into(), "ann".into())
        .await;
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("it is of another plan")
    );
    assert_eq!(stage.ran(), Vec::<String>::new());
    stage
        .handle
        .approve(asking.id.clone(), digest.clone(), "ann".into())
        .await
        .unwrap();
    stage.until("healed").await;
    assert_eq!(stage.world.now(|now| now.ledger[0].by.clone()), "ann");

    let stage = Stage::new(Mode::Ask);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let asking = stage.until("asking").await;
    stage.handle.deny(asking.id, "ann".into()).await.unwrap();
    let denied = stage.until("refused").await;
    assert_eq!(
        denied.state,
        State::Refused {
            why: "denied by ann".into(),
            again: None,
            looks: 0
        }
    );
}

#[tokio::test]
async fn shadow_decides_and_does_nothing() {
    let stage = Stage::new(Mode::Shadow);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let shadow = stage.until("shadow").await;
    assert!(
        matches!(&shadow.state, State::Shadow { would, .. } if would == "MEM-1: memcached down (h3)")
    );
    assert_eq!(stage.ran(), Vec::<String>::new());
}

#[tokio::test]
async fn alerts_that_nothing_is_done_about() {
    let stage = Stage::new(Mode::Auto);
    let odd = alert(
        "SomethingElse",
        &[("alertname", "SomethingElse"), ("instance", "$(reboot)")],
        Status::Firing,
    );
    stage.handle.heard(vec![(odd, Change::New)]).await.unwrap();
    let told = stage.until("tell_only").await;
    assert!(
        matches!(&told.state, State::TellOnly { why } if why == "no runbook is about SomethingElse")
    );
    // More of the same is no reason to look again.
    let more = (0..2 * crate::incident::ALERTS_KEPT).map(|number| {
        let number = number.to_string();
        let labels = [("alertname", "SomethingElse"), ("number", number.as_str())];
        (alert("SomethingElse", &labels, Status::Firing), Change::New)
    });
    stage.handle.heard(more.collect()).await.unwrap();
    let all = 1 + 2 * crate::incident::ALERTS_KEPT;
    for _ in 0..300 {
        if stage
            .world
            .now(|now| now.incidents[&told.id].known_alerts())
            == all
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let still = stage.world.now(|now| now.incidents[&told.id].clone());
    assert_eq!((still.known_alerts(), &still.state), (all, &told.state));
    assert_eq!(stage.world.now(|now| now.decisions.len()), 1);
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_repeats_nothing() {
    let stage = Stage::new(Mode::Ask);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let asking = stage.until("asking").await;
    let State::Asking { digest, .. } = asking.state.clone() else {
        unreachable!()
    };
    let (world, journal) = stage.stop().await;

    // The question is still there, the answer still counts.
    let stage = start(world, journal, Mode::Ask);
    stage.watchdog().await;
    stage
        .handle
        .approve(asking.id.clone(), digest, "ann".into())
        .await
        .unwrap();
    stage.until("proving").await;
    let (world, journal) = stage.stop().await;

    // Killed during the proof: the job is taken up, the start is not repeated, the incident goes on.
    let stage = start(world, journal, Mode::Ask);
    stage.watchdog().await;
    let healed = stage.until("healed").await;
    assert_eq!(healed.id, asking.id);
    assert_eq!(stage.ran(), ["h3: systemctl start memcached.service"]);
    assert_eq!(stage.world.now(|now| now.incidents.len()), 1);
    let (world, journal) = stage.stop().await;

    // The alert ended while nobody listened.
    world.now(|now| now.alerts.clear());
    let stage = start(world, journal, Mode::Ask);
    let resolved = stage.until("resolved").await;
    assert_eq!(resolved.id, asking.id);
}

#[tokio::test]
async fn a_charge_whose_job_was_never_made_does_not_block_for_ever() {
    let world: Arc<World> = Arc::default();
    world.now(|now| {
        now.ledger.push(Spent {
            job: "h0".into(),
            runbook: RunbookId("MEM-1".into()),
            targets: vec!["host:h3".into()],
            at: Timestamp::now(),
            by: "automation".into(),
            outcome: None,
            ended_at: None,
            version: None,
            cleared: None,
        });
    });
    let stage = start(world, Arc::default(), Mode::Auto);
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("healed").await;
    assert_eq!(
        stage.world.now(|now| now.ledger[0].outcome),
        Some(RepairOutcome::Refused)
    );
}
