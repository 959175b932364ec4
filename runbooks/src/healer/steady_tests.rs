//! How long something has been so, over looks whose evidence comes in two rounds.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use deploy_engine::{
    condition::{ConditionCall, Judgement},
    job::MemoryJournal,
    probe::{
        Ask, Reading, Readings,
        ceph::{CLUSTER, Cluster, NO_MANAGER, PGS},
        host::UNITS,
    },
    runner::{Clock, Evidence},
};
use jiff::Timestamp;

use super::{
    Ports,
    evaluate::Evaluator,
    gatekeeper::Gatekeeper,
    testing::{World, settings, three_members},
};
use crate::{
    decision::{Verdict, testing::unit},
    format::RunbookId,
    incident::{Domain, Incident, IncidentId},
    library::Library,
    trust::Mode,
};

/// Goes on when it is told to.
struct Watch(AtomicI64);

#[async_trait]
impl Clock for Watch {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }

    async fn sleep(&self, _: Duration) {}
}

/// Three members of Ceph whose managers are all stopped, so that systemd no longer lists them unless asked by name.
struct NoManagers;

#[async_trait]
impl Evidence for NoManagers {
    async fn gather(&self, asks: &[Ask], at: Timestamp) -> Readings {
        let all: BTreeSet<String> = ["h1", "h2", "h3"].map(str::to_owned).into();
        let cluster = Cluster {
            monitors: all.clone(),
            quorum: all,
            epoch: 24,
            ..Cluster::default()
        };
        let mut readings = Readings::default();
        for ask in asks {
            let value = match ask.probe.as_str() {
                CLUSTER => serde_json::to_value(&cluster).ok(),
                UNITS => Some(serde_json::json!({})),
                PGS => None,
                by_name => {
                    let name = format!("host.unit/ceph-mgr@{}.service", ask.host);
                    assert_eq!(by_name, name);
                    serde_json::to_value(unit("failed")).ok()
                }
            };
            let why = NO_MANAGER.to_owned();
            let reading = match value {
                Some(value) => Reading::Known { value, at },
                None => Reading::Unknown { why, at },
            };
            readings.insert(&ask.probe, ask.host.clone(), reading);
        }
        readings
    }

    async fn judge(&self, _: &ConditionCall, _: Timestamp) -> (Judgement, Readings) {
        unreachable!("no job runs")
    }
}

fn evaluator(clock: Arc<Watch>) -> Evaluator {
    let world = Arc::new(World::default());
    let ports = Ports {
        records: world.clone(),
        evidence: Arc::new(NoManagers),
        hosts: world.clone(),
        journal: Arc::new(MemoryJournal::default()),
        metrics: world.clone(),
        silences: world.clone(),
        tell: world,
        clock,
        vitals: Arc::default(),
    };
    Evaluator {
        keeper: Gatekeeper {
            ports,
            settings: Arc::new(settings(Mode::Auto)),
            topology: three_members("ceph"),
        },
        library: Arc::new(Library::embedded().unwrap()),
    }
}

/// CEPH-8 waits 30 s with the same managers stopped; which are, is known only after systemd was asked by name.
#[tokio::test]
async fn a_fact_of_the_second_round_lasts_from_look_to_look() {
    let clock = Arc::new(Watch(AtomicI64::new(1_800_000_000)));
    let evaluator = evaluator(clock.clone());
    let mut incident = Incident::opened(
        IncidentId("i1".into()),
        Domain::Service("ceph".parse().unwrap()),
        clock.now(),
    );
    incident.runbooks.push(RunbookId("CEPH-8".into()));
    let mut verdicts = Vec::new();
    for _ in 0..3 {
        let looked = evaluator.look(&incident, &[], None).await;
        let verdict = looked.record.opinions[0].verdict.clone();
        if let Verdict::Hold { until, .. } = &verdict {
            clock.0.store(until.as_second(), Ordering::SeqCst);
        }
        verdicts.push(verdict);
        incident.steady = looked.steady;
    }
    let so_far = |verdict: &Verdict, seconds: &str| matches!(verdict, Verdict::Hold { why, .. } if why.ends_with(seconds));
    assert!(so_far(&verdicts[0], "so far 0 s"), "{verdicts:?}");
    assert!(so_far(&verdicts[1], "so far 15 s"), "{verdicts:?}");
    assert!(matches!(verdicts[2], Verdict::Act(_)), "{verdicts:?}");
}
