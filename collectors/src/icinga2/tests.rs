use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::{rig::Icinga, *};
use crate::{
    Change,
    source::{
        conformance::{Life, Rig, conformance},
        testing::{Fault, Memory, PACE as FAST},
    },
};

conformance!(Icinga::start);

async fn told(ear: &Memory, what: &str, count: usize) {
    ear.until(what, |kept| kept.changes.len() == count).await;
}

#[tokio::test]
async fn a_soft_state_is_not_an_alert_yet_and_ends_none() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    icinga.problem("ctl1", Some("a"), 2, false);
    ear.until_it_worked_again().await;
    assert_eq!(ear.kept().changes, []);
    icinga.problem("ctl1", Some("a"), 2, true);
    told(&ear, "it is hard", 1).await;
    icinga.problem("ctl1", Some("a"), 1, false);
    ear.until_it_worked_again().await;
    assert_eq!(ear.kept().changes.len(), 1, "not over");
    icinga.problem("ctl1", Some("a"), 0, true);
    told(&ear, "it is over", 2).await;
    life.end().await;
}

/// Icinga lost its state: its checks have no result yet.
#[tokio::test]
async fn a_check_without_a_result_ends_nothing() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    icinga.problem("ctl1", Some("a"), 2, true);
    told(&ear, "a", 1).await;
    icinga.change(|world| {
        let object = world.objects.get_mut("ctl1!a").unwrap();
        object["last_check_result"] = json!(null);
        object["state"] = json!(3.0);
    });
    ear.until_it_worked_again().await;
    assert_eq!(ear.kept().changes.len(), 1);
    icinga.change(|world| world.objects.clear());
    told(&ear, "there is no such object any more", 2).await;
    assert_eq!(ear.kept().changes[1].0.ends_at, None);
    life.end().await;
}

#[tokio::test]
async fn an_icinga_that_cannot_show_everything_ends_nothing() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    icinga.problem("ctl1", Some("a"), 2, true);
    told(&ear, "a", 1).await;
    type Hide = fn(&mut rig::World);
    let hide: [(Hide, &str); 2] = [
        (
            |world| world.hidden = 7,
            "the 7 problems that it counts, found none",
        ),
        (
            |world| world.no_hosts = true,
            "expected an Icinga that has hosts",
        ),
    ];
    for (hide, why) in hide {
        icinga.change(|world| {
            world.objects.clear();
            (world.hidden, world.no_hosts) = (0, false);
            hide(world);
        });
        ear.until(why, |kept| kept.fails.iter().any(|one| one.contains(why)))
            .await;
    }
    assert_eq!(ear.kept().changes.len(), 1);
    life.end().await;
}

/// The stream says nothing for a while (it is deaf, or it is cut), and much changes: what is read again shows it once.
#[tokio::test]
async fn what_a_deaf_stream_missed_is_read_once() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    ear.until_it_worked_again().await;
    icinga.mute.store(true, SeqCst);
    for index in 0..300 {
        icinga.problem("ctl1", Some(&format!("s{index}")), 2, true);
    }
    told(&ear, "all are told", 300).await;
    icinga.mute.store(false, SeqCst);
    icinga.server.cut();
    ear.until_it_worked_again().await;
    let kept = ear.kept();
    let new = kept
        .changes
        .iter()
        .filter(|(_, change)| *change == Change::New);
    assert_eq!((new.count(), kept.changes.len()), (300, 300));
    life.end().await;
}

/// Between two whole readings the stream alone tells.
#[tokio::test]
async fn the_stream_tells_at_once() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let slow = Pace {
        every: Duration::from_secs(3_600),
        ..FAST
    };
    let source = Arc::new(Icinga2::new(icinga.client(), slow));
    let life = Life::of(source, &ear);
    ear.until("it follows", |kept| kept.works == 1).await;
    icinga.problem("ctl1", None, 1, true);
    told(&ear, "the host is down", 1).await;
    let down = ear.kept().changes[0].0.clone();
    assert_eq!(
        (down.name.as_str(), down.labels["host"].as_str()),
        ("HostDown", "ctl1")
    );
    icinga.problem("ctl1", None, 0, true);
    told(&ear, "the host is up", 2).await;
    assert!(ear.kept().changes[1].0.ends_at.is_some(), "it says when");
    icinga.problem("ctl1", Some("gone"), 2, true);
    told(&ear, "a problem", 3).await;
    icinga.change(|world| drop(world.objects.remove("ctl1!gone")));
    let deleted =
        json!({"type": "ObjectDeleted", "object_type": "Service", "object_name": "ctl1!gone"});
    icinga.event(deleted);
    told(&ear, "its object was deleted", 4).await;
    life.end().await;
}

#[tokio::test]
async fn who_acknowledges_there_is_told_and_the_end_of_it() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    icinga.problem("ctl1", Some("a"), 2, true);
    told(&ear, "a", 1).await;
    let what = Named {
        host: "ctl1".to_owned(),
        service: Some("a".to_owned()),
    };
    let signed = actions::Signed {
        author: "ann".to_owned(),
        comment: "I am at it".to_owned(),
    };
    let (client, now) = (icinga.client(), Timestamp::now());
    let order = actions::Order::Acknowledge { until: None };
    client.order(&what, &order, &signed, now).await.unwrap();
    let by = |kept: &crate::source::testing::Kept| {
        let handling = kept.handled.get(&what.fingerprint())?;
        Some(handling.acknowledged.as_ref()?.by.clone())
    };
    ear.until("ann has it", |kept| by(kept).as_deref() == Some("ann"))
        .await;
    let order = actions::Order::RemoveAcknowledgement;
    client.order(&what, &order, &signed, now).await.unwrap();
    ear.until("nobody has it", |kept| by(kept).is_none()).await;
    assert_eq!(ear.kept().changes.len(), 1, "it fires all the while");
    life.end().await;
}

#[tokio::test]
async fn the_other_master_is_followed_when_one_is_away() {
    let (one, other) = (Icinga::start().await, Icinga::start().await);
    one.server.fault(Some(Fault::Down));
    other.problem("ctl1", Some("a"), 2, true);
    let masters = [one.connection(), other.connection()];
    let client = Icinga2Client::new(SourceName("icinga2".into()), &masters).unwrap();
    let ear = Arc::new(Memory::default());
    let life = Life::of(Arc::new(Icinga2::new(client.clone(), FAST)), &ear);
    told(&ear, "the other tells it", 1).await;
    assert_eq!(client.held().await, Ok(vec![]));
    other.server.fault(Some(Fault::HalfJson));
    assert!(client.held().await.is_err(), "unknown, not none");
    life.end().await;
}

#[tokio::test]
async fn checks_are_evidence_with_their_age() {
    let icinga = Icinga::start().await;
    icinga.problem("ctl1", Some("a"), 2, true);
    icinga.problem("ctl1", Some("soft"), 2, false);
    icinga.problem("ctl1", None, 0, true);
    let names = ["ctl1", "ctl1!a", "ctl1!soft", "ctl1!gone"];
    let of = names.map(Named::of_full).into();
    let checks = icinga.client().checks(&of).await.unwrap();
    let seen: Vec<_> = checks
        .iter()
        .map(|one| (one.what.full(), one.firing))
        .collect();
    let expected = [("ctl1", false), ("ctl1!a", true), ("ctl1!soft", false)];
    assert_eq!(
        seen,
        expected.map(|(name, firing)| (name.to_owned(), firing))
    );
    let age = Timestamp::now().duration_since(checks[0].last_check);
    assert!(age < SignedDuration::from_secs(30) && checks[0].interval.as_secs() == 60);
    icinga.server.fault(Some(Fault::HalfJson));
    assert!(
        icinga.client().checks(&of).await.is_err(),
        "unknown, not none"
    );
}

#[tokio::test]
async fn a_clock_that_is_hours_off_is_named_and_alerts_are_told_all_the_same() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    icinga.change(|world| world.clock_ahead = -7_200);
    icinga.problem("ctl1", Some("a"), 2, true);
    let life = Life::of(icinga.source(), &ear);
    ear.until("it is named", |kept| {
        let words = "expected its clock to be right, found it -72";
        kept.fails.iter().any(|why| why.contains(words))
    })
    .await;
    assert_eq!(ear.kept().changes.len(), 1);
    assert_eq!(ear.kept().works, 0, "it is not well");
    life.end().await;
}

#[tokio::test]
async fn a_line_without_an_end_is_refused() {
    let (icinga, ear) = (Icinga::start().await, Arc::new(Memory::default()));
    let life = Life::of(icinga.source(), &ear);
    ear.until_it_worked_again().await;
    icinga.event(json!("x".repeat(2 * 1024 * 1024)));
    ear.until("it is refused", |kept| kept.fails.len() == 1)
        .await;
    ear.until_it_worked_again().await;
    life.end().await;
}
