use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::source::{
    conformance::{Life, Rig, conformance},
    testing::{ANSWER_WITHIN, Asked, Memory, PACE, Reply, Server},
};

/// What an Alertmanager knows.
#[derive(Default)]
struct World {
    firing: BTreeMap<String, Timestamp>,
    silences: Vec<Value>,
    /// In seconds.
    up: i64,
    no_watchdog: bool,
}

impl World {
    fn alerts(&self) -> Value {
        let watchdog = (!self.no_watchdog).then(|| listed("Watchdog", Timestamp::UNIX_EPOCH, &[]));
        let ids: Vec<&str> = self
            .silences
            .iter()
            .filter_map(|s| s["id"].as_str())
            .collect();
        let firing = self
            .firing
            .iter()
            .map(|(name, since)| listed(name, *since, &ids));
        firing.chain(watchdog).collect()
    }
}

fn listed(name: &str, since: Timestamp, silenced: &[&str]) -> Value {
    json!({
        "labels": {"alertname": name, "severity": "critical"}, "annotations": {}, "startsAt": since,
        "endsAt": "2099-01-01T00:00:00Z", "updatedAt": since, "fingerprint": "00000000000000aa",
        "status": {"state": "active", "silencedBy": silenced, "inhibitedBy": []},
    })
}

struct Alertmanager {
    world: Arc<Mutex<World>>,
    server: Server,
}

impl Alertmanager {
    async fn start() -> Self {
        let world = World {
            up: 3_600,
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let of = world.clone();
        let server = Server::start(move |asked: &Asked| {
            let world = of.lock().unwrap();
            assert_eq!(asked.method, "GET", "it only reads");
            Reply::Json(match asked.path.as_str() {
                "/api/v2/alerts" => world.alerts(),
                "/api/v2/silences" => world.silences.clone().into(),
                "/api/v2/status" => json!({
                    "cluster": {"status": "ready"}, "versionInfo": {"version": "0.25.0"},
                    "uptime": Timestamp::now() - SignedDuration::from_secs(world.up),
                }),
                _ => return Reply::Status(404, json!("no such path")),
            })
        });
        Self {
            world,
            server: server.await,
        }
    }

    fn connection(&self) -> Connection {
        Connection {
            answer_within: ANSWER_WITHIN,
            ..Connection::plain(self.server.url())
        }
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }
}

#[async_trait]
impl Rig for Alertmanager {
    fn server(&self) -> &Server {
        &self.server
    }

    fn source(&self) -> Arc<dyn Source> {
        reconcile(&[self])
    }

    async fn begins(&self, thing: &str) {
        self.change(|world| {
            world.firing.insert(thing.to_owned(), Timestamp::now());
        });
    }

    async fn ends(&self, thing: &str) -> bool {
        self.change(|world| {
            world.firing.remove(thing);
        });
        true
    }
}

fn reconcile(members: &[&Alertmanager]) -> Arc<dyn Source> {
    let members: Vec<_> = members.iter().map(|one| one.connection()).collect();
    Arc::new(Reconcile::new(SourceName("am".into()), &members, PACE).unwrap())
}

conformance!(Alertmanager::start);

/// What ends an alert that is no longer listed, and what does not.
async fn ends_by_absence(change: impl FnOnce(&mut World)) -> bool {
    let (rig, ear) = (Alertmanager::start().await, Arc::new(Memory::default()));
    let life = Life::of(rig.source(), &ear);
    rig.begins("a").await;
    ear.until("a is told", |kept| kept.changes.len() == 1).await;
    rig.change(|world| {
        world.firing.clear();
        change(world);
    });
    ear.until_it_worked_again().await;
    life.end().await;
    ear.kept().changes.len() == 2
}

#[tokio::test]
async fn an_end_is_believed_of_a_complete_list_alone() {
    assert!(ends_by_absence(|_| ()).await);
    assert!(
        !ends_by_absence(|world| world.up = 299).await,
        "just started"
    );
    assert!(ends_by_absence(|world| world.up = 305).await);
    let deaf = ends_by_absence(|world| world.no_watchdog = true).await;
    assert!(!deaf, "Prometheus does not reach it");
}

#[tokio::test]
async fn a_pair_tells_once_and_only_both_say_that_it_is_over() {
    let (one, other) = (Alertmanager::start().await, Alertmanager::start().await);
    let ear = Arc::new(Memory::default());
    let life = Life::of(reconcile(&[&one, &other]), &ear);
    let since = Timestamp::now();
    for member in [&one, &other] {
        member.change(|world| {
            world.firing.insert("a".to_owned(), since);
        });
    }
    ear.until("a is told", |kept| kept.changes.len() == 1).await;
    one.ends("a").await;
    ear.until_it_worked_again().await;
    assert_eq!(ear.kept().changes.len(), 1, "the other still lists it");
    other
        .server
        .fault(Some(crate::source::testing::Fault::Down));
    other.ends("a").await;
    ear.until("one is down", |kept| kept.fails.len() > 2).await;
    assert_eq!(ear.kept().changes.len(), 1, "the other cannot be asked");
    one.begins("b").await;
    ear.until("one is heard alone", |kept| kept.changes.len() == 2)
        .await;
    other.server.fault(None);
    ear.until("both say so", |kept| kept.changes.len() == 3)
        .await;
    assert_eq!(ear.kept().changes[2].0.name, "a");
    life.end().await;
}

#[tokio::test]
async fn a_silence_made_there_is_told_and_its_end() {
    let (rig, ear) = (Alertmanager::start().await, Arc::new(Memory::default()));
    let life = Life::of(rig.source(), &ear);
    rig.begins("a").await;
    rig.change(|world| {
        world.silences.push(json!({
            "id": "ab-1", "status": {"state": "active"}, "createdBy": "ann", "comment": "I am at it",
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z", "matchers": [],
        }));
    });
    ear.until("the silence is told", |kept| kept.handled.len() == 1)
        .await;
    let handling = ear.kept().handled.into_values().next().unwrap();
    assert_eq!(handling.acknowledged, None);
    let care = &handling.silences[0];
    assert_eq!((care.by.as_str(), care.id.as_str()), ("ann", "ab-1"));
    rig.change(|world| world.silences.clear());
    ear.until("its end is told", |kept| kept.handled.is_empty())
        .await;
    life.end().await;
}

#[tokio::test]
async fn a_clock_that_is_hours_off_is_named_and_alerts_are_told_all_the_same() {
    let (rig, ear) = (Alertmanager::start().await, Arc::new(Memory::default()));
    rig.server.set_clock_ahead(7_200);
    rig.begins("a").await;
    let life = Life::of(rig.source(), &ear);
    ear.until("it is named", |kept| {
        let says = |why: &String| {
            why.contains("expected its clock to be right, found it 7200 s ahead")
                || why.contains("found it 7199 s ahead")
        };
        kept.fails.iter().any(says)
    })
    .await;
    let kept = ear.kept();
    assert_eq!((kept.changes.len(), kept.works), (1, 0));
    life.end().await;
}

#[test]
fn alerts_as_alertmanager_0_25_lists_them() {
    let answer = Answer {
        asked: "GET http://am/api/v2/alerts".to_owned(),
        body: include_bytes!("../testdata/alertmanager-alerts.json").to_vec(),
    };
    let now = Timestamp::UNIX_EPOCH;
    let alerts = read_alerts(&answer, &SourceName("am".into()), now).unwrap();
    let seen: Vec<_> = alerts
        .iter()
        .map(|(alert, silenced)| {
            (
                alert.name.as_str(),
                alert.fingerprint.as_str(),
                silenced.len(),
            )
        })
        .collect();
    let expected = [
        ("TargetDown", "136642542b7f5e3e", 1),
        ("Watchdog", "448881ef475b9b26", 0),
    ];
    assert_eq!(seen, expected);
    let odd = Answer {
        body: br#"[{"labels": {"alertname": 7}, "startsAt": "2026-01-01T00:00:00Z"}]"#.to_vec(),
        ..answer
    };
    let error = read_alerts(&odd, &SourceName("am".into()), now).unwrap_err();
    let expected = "expected a text at `[0].labels.alertname`, found 7";
    assert!(error.to_string().ends_with(expected), "{error}");
}
