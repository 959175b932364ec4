//! Several bots, or several tasks of one, at the same moment.

use std::collections::BTreeSet;

use deploy_engine::job::{JobEvent, JobId, JobKind, JobResult, Journal};
use futures::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use super::{Place, at, whole_chain};
use crate::store::{
    AlertKey, AlertRow, Approval, ApprovalState, AuditEntry, DecideError, Folded, MessageKey,
    Store, StoreError, Urgency, Vote, Voted, inbox::INBOX_MAX,
};

/// Enough to meet, few enough for the connections of one store.
const MANY: usize = 20;

/// All at once, as tasks of their own.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..MANY).map(|number| tokio::spawn(make(number))).collect();
    let ended = join_all(tasks).await;
    ended.into_iter().map(Result::unwrap).collect()
}

fn counter() -> AlertKey {
    AlertKey {
        source: "am".into(),
        fingerprint: "counter".into(),
    }
}

fn count_up(known: Option<&AlertRow>) -> AlertRow {
    let before = known.map_or(0, count_of);
    AlertRow {
        key: counter(),
        name: "Counter".into(),
        firing: true,
        starts_at: at(0),
        updated_at: at(0),
        body: json!({ "count": before + 1 }).to_string(),
    }
}

fn count_of(row: &AlertRow) -> u64 {
    let body: serde_json::Value = serde_json::from_str(&row.body).unwrap();
    body["count"].as_u64().unwrap()
}

pub async fn what_a_fold_saw_is_still_true_when_it_is_written(place: &dyn Place) {
    let stores = [place.open_as("bot1").await, place.open_as("bot2").await];
    at_once(|number| {
        let store = stores[number % 2].clone();
        async move {
            let keys = [counter()];
            let folded = store.fold_alerts(&keys, |known| Folded {
                changed: vec![count_up(known.get(&counter()))],
                parcel: None,
                answer: (),
            });
            folded.await.unwrap();
        }
    })
    .await;
    let row = stores[0].alert(&counter()).await.unwrap().unwrap();
    assert_eq!(count_of(&row), MANY as u64, "an update was lost");
}

fn request() -> Approval {
    Approval {
        id: "a1".into(),
        digest: "d1".into(),
        requested_by: "alice".into(),
        created_at: at(0),
        expires_at: at(0) + SignedDuration::from_mins(10),
        state: ApprovalState::Pending,
        decided_by: None,
        decided_at: None,
        body: json!({}),
    }
}

pub async fn of_many_decisions_exactly_one_counts(place: &dyn Place) {
    let stores = [place.open_as("bot1").await, place.open_as("bot2").await];
    stores[0].request_approval(&request()).await.unwrap();
    let decided = at_once(|number| {
        let store = stores[number % 2].clone();
        async move { store.decide("a1", true, &format!("p{number}"), at(1)).await }
    })
    .await;
    assert_eq!(decided.iter().filter(|one| one.is_ok()).count(), 1);
    for lost in decided.into_iter().filter_map(Result::err) {
        assert!(matches!(lost, DecideError::Decided { .. }), "{lost:?}");
    }
    let used = at_once(|number| {
        let store = stores[number % 2].clone();
        async move { store.use_approval("a1", "d1", at(2)).await.is_ok() }
    })
    .await;
    assert_eq!(used.into_iter().filter(|used| *used).count(), 1);
}

pub async fn of_many_votes_each_counts_once_and_the_last_one_decides(place: &dyn Place) {
    let stores = [place.open_as("bot1").await, place.open_as("bot2").await];
    stores[0].request_approval(&request()).await.unwrap();
    let people = MANY / 2;
    // Everybody votes twice, once through each bot.
    let voted = at_once(|number| {
        let store = stores[number % 2].clone();
        let vote = Vote {
            person: format!("p{}", number / 2),
            who: format!("unix:p{number}"),
            at: at(1),
        };
        async move {
            let needed = u32::try_from(people).unwrap();
            store.vote("a1", &vote, needed, at(1)).await
        }
    })
    .await;
    let approved = voted.iter().filter_map(|one| match one {
        Ok(Voted::Approved { votes, .. }) => Some(votes.len()),
        _ => None,
    });
    assert_eq!(approved.collect::<Vec<_>>(), [people]);
    assert_eq!(voted.iter().filter(|one| one.is_ok()).count(), people);
    let kept = stores[1].approval("a1").await.unwrap().unwrap();
    assert_eq!(kept.state, ApprovalState::Approved);
}

pub async fn what_many_bots_do_is_one_chain(place: &dyn Place) {
    let stores = [place.open_as("bot1").await, place.open_as("bot2").await];
    at_once(|number| {
        let store = stores[number % 2].clone();
        async move {
            let entry = AuditEntry {
                at: at(0),
                who: format!("bot{number}"),
                action: "halt".into(),
                target: "nul\0".into(),
                body: json!({ "number": number }),
            };
            store.audit(&entry).await.unwrap();
            create(&store, &format!("j{number}"), 0).await;
        }
    })
    .await;
    assert_eq!(whole_chain(&stores[0]).await, 2 * MANY as i64);
}

async fn create(store: &Store, id: &str, second: i64) {
    let created = JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d1".into(),
        },
        title: "deploy site".into(),
        requested_by: "alice".into(),
        scope: "site:demo".into(),
        steps: vec![],
    };
    store
        .create(&JobId(id.to_owned()), at(second), &created)
        .await
        .unwrap();
}

pub async fn tokens_of_many_takers_are_all_different(place: &dyn Place) {
    // Two lives of the bot that drives the job: no other may.
    let stores = [place.open_as("bot1").await, place.open_as("bot1").await];
    create(&stores[0], "j1", 0).await;
    let tokens = at_once(|number| {
        let store = stores[number % 2].clone();
        async move {
            let (job, holder) = (JobId("j1".into()), format!("bot{number}"));
            let lease = store.acquire("site:demo", &holder, &job, at(1)).await;
            lease.unwrap().token
        }
    })
    .await;
    let different: BTreeSet<u64> = tokens.iter().copied().collect();
    assert_eq!(different.len(), MANY, "{tokens:?}");
    // Whoever got the highest has it; every other has lost it.
    let newest = stores[0].leases().await.unwrap().remove(0).lease.token;
    assert_eq!(Some(&newest), different.last());
}

pub async fn of_many_bots_exactly_one_takes_the_lead(place: &dyn Place) {
    let mut stores = Vec::new();
    for number in 0..4 {
        stores.push(place.open_as(&format!("bot{number}")).await);
    }
    assert_eq!(stores[0].leadership().await.unwrap(), None);
    for round in 1..=3 {
        let seen = stores[0].leadership().await.unwrap();
        let won = at_once(|number| {
            let (store, seen) = (stores[number % 4].clone(), seen.clone());
            async move { store.lead(seen.as_ref()).await.unwrap() }
        })
        .await;
        let won: Vec<i64> = won.into_iter().flatten().collect();
        assert_eq!(won, [round], "the token grows by one with each leader");
    }
}

pub async fn a_leader_that_was_replaced_learns_it(place: &dyn Place) {
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    let first = one.lead(None).await.unwrap().unwrap();
    assert!(one.keep_leading(first).await.unwrap());
    let seen = two.leadership().await.unwrap().unwrap();
    assert_eq!(seen.holder, "bot1");
    // It beat meanwhile, so what was seen is not so any more.
    assert!(one.keep_leading(first).await.unwrap());
    assert_eq!(two.lead(Some(&seen)).await.unwrap(), None);
    let seen = two.leadership().await.unwrap().unwrap();
    let second = two.lead(Some(&seen)).await.unwrap().unwrap();
    assert!(second > first);
    assert!(!one.keep_leading(first).await.unwrap());
    assert!(two.keep_leading(second).await.unwrap());
    // One that goes frees the lead at once.
    two.beat("host2", at(1)).await.unwrap();
    two.leave().await.unwrap();
    assert_eq!(one.leadership().await.unwrap().unwrap().holder, "");
    assert_eq!(one.replicas().await.unwrap(), []);
}

pub async fn two_bots_take_different_jobs(place: &dyn Place) {
    let dead = place.open_as("dead").await;
    for number in 0..40 {
        create(&dead, &format!("j{number:02}"), number).await;
    }
    assert_eq!(dead.drivers().await.unwrap(), ["dead"]);
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    let taken = at_once(|number| {
        let store = if number % 2 == 0 { &one } else { &two }.clone();
        async move { store.take_jobs("dead", 2).await.unwrap() }
    })
    .await;
    let mut taken: Vec<JobId> = taken.into_iter().flatten().collect();
    let many = taken.len();
    taken.sort_by(|a, b| a.0.cmp(&b.0));
    taken.dedup();
    assert_eq!(taken.len(), many, "a job was taken twice");
    // What was passed over because another was just taking it is still there.
    while !one.take_jobs("dead", 40).await.unwrap().is_empty() {}
    let own = one.own_jobs().await.unwrap().len() + two.own_jobs().await.unwrap().len();
    assert_eq!(own, 40);
    let driver = one.driver(&JobId("j00".into())).await.unwrap().unwrap();
    assert!(["bot1", "bot2"].contains(&driver.as_str()), "{driver}");
}

async fn create_batch(store: &Store, number: usize, model: &str) {
    let created = JobEvent::Created {
        kind: JobKind::Batch {
            of: JobId("j1".into()),
            model: model.to_owned(),
        },
        title: "16 hosts".into(),
        requested_by: "alice".into(),
        scope: format!("batch:demo:{number}"),
        steps: vec![],
    };
    let id = JobId(format!("j1x{number:02}"));
    store.create(&id, at(1), &created).await.unwrap();
}

pub async fn batches_are_for_any_bot_and_come_back_from_those_that_go(place: &dyn Place) {
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    create(&one, "j1", 0).await;
    for number in 0..40 {
        create_batch(&one, number, if number < 30 { "m" } else { "n" }).await;
    }
    // They are no jobs of their own to whoever looks, and nobody's yet.
    assert_eq!(one.jobs(true, 99).await.unwrap().len(), 1);
    assert_eq!(two.take_jobs("", 99).await.unwrap(), []);
    assert_eq!(two.take_batches(Some("other"), 99).await.unwrap(), []);
    let taken = at_once(|number| {
        let store = if number % 2 == 0 { &one } else { &two }.clone();
        async move { store.take_batches(Some("m"), 1).await.unwrap() }
    })
    .await;
    let mut taken: Vec<JobId> = taken.into_iter().flatten().collect();
    let many = taken.len();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), many, "a batch was taken twice");
    while !two.take_batches(Some("m"), 7).await.unwrap().is_empty() {}
    // What only another may drive is for whoever takes any.
    assert_eq!(one.take_batches(None, 99).await.unwrap().len(), 10);
    let own = async |store: &Store| store.own_batches().await.unwrap().len();
    let (of_one, of_two) = (own(&one).await, own(&two).await);
    assert_eq!(of_one + of_two, 40);
    assert!(of_one >= 10 && of_two > 0);

    // A cancel reaches its driver, and who asked first stays.
    let asked = two.own_batches().await.unwrap()[0].id.clone();
    for by in ["its job", "somebody else"] {
        one.ask_to_cancel(&asked, by).await.unwrap();
    }
    let wanted = two.own_batches().await.unwrap();
    assert_eq!(wanted[0].cancel_by.as_deref(), Some("its job"));
    assert!(wanted[1..].iter().all(|batch| batch.cancel_by.is_none()));

    // Nobody is gone: nothing comes back. Then one is, and later the other leaves.
    one.beat("host1", at(2)).await.unwrap();
    two.beat("host2", at(2)).await.unwrap();
    assert_eq!(one.free_batches().await.unwrap(), []);
    one.forget_replica("bot2").await.unwrap();
    assert_eq!(one.free_batches().await.unwrap().len(), of_two);
    assert_eq!((own(&one).await, own(&two).await), (of_one, 0));
    one.leave().await.unwrap();
    assert_eq!(two.take_batches(None, 99).await.unwrap().len(), 40);

    // Of a finished one only how it ended is known.
    let finished = JobEvent::Finished {
        result: JobResult::Succeeded,
    };
    assert_eq!(two.result(&asked).await.unwrap(), None);
    two.append(&asked, 1, at(3), &finished).await.unwrap();
    assert_eq!(
        two.result(&asked).await.unwrap(),
        Some(JobResult::Succeeded)
    );
    assert_eq!(own(&two).await, 39);
    let job = JobId("j1".into());
    assert_eq!(two.batches_of(&job).await.unwrap().len(), 40);
}

pub async fn a_message_is_sent_by_one_bot(place: &dyn Place) {
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    let key = MessageKey {
        room: "matrix:!ops".into(),
        subject: "incident:i1".into(),
    };
    one.say(&key, 1, &json!("down"), at(0)).await.unwrap();
    let next = async |store: &Store, second| {
        let order = Urgency::Severity;
        store
            .pending_messages("matrix", order, at(second), 1)
            .await
            .unwrap()
            .pop()
    };
    let message = next(&two, 0).await.unwrap();
    assert!(one.claim_message(&message, at(0), at(60)).await.unwrap());
    assert!(!two.claim_message(&message, at(1), at(61)).await.unwrap());
    assert_eq!(next(&two, 1).await, None, "another bot is sending it");
    assert!(next(&one, 1).await.is_some());
    // Newer words meanwhile do not give it to another.
    one.say(&key, 1, &json!("still down"), at(2)).await.unwrap();
    assert_eq!(next(&two, 3).await, None);
    one.message_sent(&key, 1, "$event").await.unwrap();
    let message = next(&two, 4).await.unwrap();
    assert_eq!(message.event.as_deref(), Some("$event"), "it is edited");
    // A bot that died while it was sending holds it for a while only.
    assert!(one.claim_message(&message, at(4), at(64)).await.unwrap());
    assert!(two.claim_message(&message, at(64), at(124)).await.unwrap());
}

pub async fn a_parcel_is_there_with_its_alerts_and_bounded(place: &dyn Place) {
    let store = place.open_as("bot1").await;
    let fold = async |count: u64| {
        store
            .fold_alerts(&[counter()], |known| Folded {
                changed: vec![count_up(known.get(&counter()))],
                parcel: Some((at(0), json!({ "count": count }))),
                answer: (),
            })
            .await
    };
    for count in 0..INBOX_MAX.unsigned_abs() {
        fold(count).await.unwrap();
    }
    let full = fold(0).await.unwrap_err();
    assert!(matches!(full, StoreError::Behind { .. }), "{full}");
    let row = store.alert(&counter()).await.unwrap().unwrap();
    assert_eq!(
        count_of(&row),
        INBOX_MAX.unsigned_abs(),
        "of what is refused nothing is kept"
    );
    let parcels = store.inbox(2).await.unwrap();
    assert_eq!(
        (&parcels[0].body["count"], &parcels[1].body["count"]),
        (&json!(0), &json!(1))
    );
    // A leader that was replaced takes nothing away from the next one.
    place.open_as("bot2").await.lead(None).await.unwrap();
    assert!(!store.inbox_heard(parcels[1].id).await.unwrap());
    let seen = store.leadership().await.unwrap();
    store.lead(seen.as_ref()).await.unwrap().unwrap();
    assert!(store.inbox_heard(parcels[1].id).await.unwrap());
    assert_eq!(store.inbox(1).await.unwrap()[0].body["count"], 2);
    fold(0).await.unwrap();
}
