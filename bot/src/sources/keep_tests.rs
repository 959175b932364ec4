use collectors::{
    Status,
    source::{Care, Covers, Reading},
};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn alert(fingerprint: &str, starts: i64) -> Alert {
    Alert {
        source: source(),
        fingerprint: fingerprint.into(),
        name: "X".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        status: collectors::Status::Firing,
        starts_at: at(starts),
        ends_at: None,
        generator_url: String::new(),
        received_at: at(starts),
    }
}

fn source() -> SourceName {
    SourceName("icinga2".into())
}

fn state(asked: i64, firing: Vec<Alert>, by: Option<&str>) -> Told {
    let handling = by.map(|by| Handling {
        acknowledged: Some(Care {
            id: "c".into(),
            by: by.into(),
            comment: String::new(),
            since: None,
            until: None,
        }),
        ..Handling::default()
    });
    Told::State(State {
        asked_at: at(asked),
        covers: Covers::Everything,
        handled: handling
            .map(|one| ("a".to_owned(), one))
            .into_iter()
            .collect(),
        firing,
        ended: BTreeMap::new(),
    })
}

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).await.unwrap();
    (folder, store)
}

async fn told(store: &Store, told: Told) -> Vec<(String, Change)> {
    let kept = keep(store, &source(), told, None, at(0)).await.unwrap();
    let batch = kept.batch.into_iter();
    batch
        .map(|(alert, change)| (alert.fingerprint, change))
        .collect()
}

#[tokio::test]
async fn what_is_missed_is_settled_once_also_after_the_store_was_opened_again() {
    let (folder, store) = store().await;
    let first = told(&store, state(10, vec![alert("a", 1), alert("b", 1)], None)).await;
    assert_eq!(
        first,
        [("a".into(), Change::New), ("b".into(), Change::New)]
    );
    store.close().await;
    let store = Store::open(folder.path()).await.unwrap();
    let second = || state(20, vec![alert("b", 1), alert("c", 15)], None);
    let expected = [
        ("c".to_owned(), Change::New),
        ("a".to_owned(), Change::Resolved),
    ];
    assert_eq!(told(&store, second()).await, expected);
    assert_eq!(told(&store, second()).await, [], "told again after a crash");
    let firing = store.firing_alerts(10).await.unwrap();
    let names: Vec<_> = firing
        .iter()
        .map(|row| row.key.fingerprint.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
}

#[tokio::test]
async fn alerts_of_other_sources_are_not_judged() {
    let (_folder, store) = store().await;
    let other = Alert {
        source: SourceName("other".into()),
        ..alert("a", 1)
    };
    let theirs = Told::Alerts(vec![other]);
    keep(&store, &SourceName("other".into()), theirs, None, at(0))
        .await
        .unwrap();
    assert_eq!(told(&store, state(10, vec![], None)).await, []);
    assert_eq!(store.count_firing().await.unwrap(), 1);
}

#[tokio::test]
async fn single_alerts_are_folded() {
    let (_folder, store) = store().await;
    let ended = Alert {
        status: Status::Resolved,
        ends_at: Some(at(5)),
        ..alert("a", 1)
    };
    let all = Told::Alerts(vec![alert("a", 1), alert("a", 1), ended, alert("a", 1)]);
    let changes: Vec<_> = told(&store, all)
        .await
        .into_iter()
        .map(|one| one.1)
        .collect();
    use Change::{New, Repeat, Resolved, Stale};
    assert_eq!(changes, [New, Repeat, Resolved, Stale]);
    assert_eq!(store.count_firing().await.unwrap(), 0);
}

#[tokio::test]
async fn who_handles_what_is_known_until_it_is_over() {
    let (_folder, store) = store().await;
    let changed = async |told| {
        let kept = keep(&store, &source(), told, None, at(0)).await.unwrap();
        let known = store.list(&handled_space("icinga2")).await.unwrap();
        (kept.handling, known.len())
    };
    let firing = || vec![alert("a", 1)];
    assert_eq!(changed(state(10, firing(), None)).await, (false, 0));
    assert_eq!(changed(state(11, firing(), Some("ann"))).await, (true, 1));
    assert_eq!(changed(state(12, firing(), Some("ann"))).await, (false, 1));
    assert_eq!(changed(state(13, firing(), Some("bob"))).await, (true, 1));
    assert_eq!(changed(state(14, firing(), None)).await, (true, 0));
    changed(state(15, firing(), Some("bob"))).await;
    assert_eq!(
        changed(state(16, vec![], None)).await,
        (true, 0),
        "it is over"
    );
}

fn reading(count: u64, last: i64) -> Reading {
    Reading {
        source: source(),
        key: "rabbitmq.partition@ctl1".into(),
        name: "rabbitmq.partition".into(),
        labels: BTreeMap::new(),
        count,
        first: at(last - 1),
        last: at(last),
        lag_millis: Some(count),
        samples: vec!["a line".into(); 4],
    }
}

/// The place and what was read before it are one: of two bots one goes on, and after a crash nothing is read twice.
#[tokio::test]
async fn readings_and_the_place_move_together() {
    let (_folder, store) = store().await;
    let read = async |count, from: Option<&str>, to: &str| {
        let progress = Progress {
            from: from.map(str::to_owned),
            to: to.to_owned(),
        };
        let told = Told::Readings(vec![reading(count, 10 + count as i64)]);
        keep(&store, &source(), told, Some(progress), at(0)).await
    };
    read(3, None, "p1").await.unwrap();
    assert_eq!(read(3, None, "p1").await, Err(NotKept::Moved));
    read(4, Some("p1"), "p2").await.unwrap();
    assert_eq!(
        store.cursor("icinga2").await.unwrap().as_deref(),
        Some("p2")
    );
    let known = store.list(&readings_space("icinga2")).await.unwrap();
    let sum: Reading = serde_json::from_str(&known[0].1).unwrap();
    assert_eq!((known.len(), sum.count, sum.lag_millis), (1, 7, Some(4)));
    assert_eq!((sum.first, sum.last), (at(12), at(14)));
    assert_eq!(sum.samples, ["a line"], "the same one is shown once");
}
