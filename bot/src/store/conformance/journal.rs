//! Jobs and leases.

use deploy_engine::job::{
    JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Lease, LeaseError,
};

use super::{Place, at};
use crate::store::{Store, db::values};

fn job(id: &str) -> JobId {
    JobId(id.to_owned())
}

fn created(scope: &str) -> JobEvent {
    JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d1".into(),
        },
        title: "deploy site".into(),
        requested_by: "alice".into(),
        scope: scope.into(),
        steps: vec![],
    }
}

fn leased(token: u64) -> JobEvent {
    JobEvent::Leased {
        holder: "bot1".into(),
        token,
    }
}

fn finished() -> JobEvent {
    JobEvent::Finished {
        result: JobResult::Succeeded,
    }
}

pub async fn events_come_back_in_order_after_the_store_was_opened_again(place: &dyn Place) {
    let store = place.open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    store.append(&id, 1, at(1), &leased(7)).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), std::slice::from_ref(&id));
    store.close().await;

    let store = place.open().await;
    store.append(&id, 2, at(2), &finished()).await.unwrap();
    let expected = vec![
        (at(0), created("site:demo")),
        (at(1), leased(7)),
        (at(2), finished()),
    ];
    assert_eq!(store.load(&id).await.unwrap(), expected);
    assert_eq!(store.unfinished().await.unwrap(), []);
    let summary = store.job(&id).await.unwrap().unwrap();
    assert_eq!(summary.result, Some(JobResult::Succeeded));
    assert_eq!(summary.finished_at, Some(at(2)));
}

pub async fn an_append_at_another_length_is_a_conflict(place: &dyn Place) {
    let store = place.open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    let again = store.create(&id, at(0), &created("site:demo")).await;
    assert!(matches!(again, Err(JournalError::Exists(_))), "{again:?}");
    store.append(&id, 1, at(1), &leased(7)).await.unwrap();
    let late = store.append(&id, 1, at(2), &finished()).await;
    let conflict = matches!(
        late,
        Err(JournalError::Conflict {
            expected: 1,
            found: 2,
            ..
        })
    );
    assert!(conflict, "{late:?}");
    let unknown = store.append(&job("j9"), 0, at(0), &finished()).await;
    assert!(
        matches!(unknown, Err(JournalError::Unknown(_))),
        "{unknown:?}"
    );
    let unknown = store.load(&job("j9")).await;
    assert!(
        matches!(unknown, Err(JournalError::Unknown(_))),
        "{unknown:?}"
    );
}

pub async fn of_many_writers_at_one_length_exactly_one_wins(place: &dyn Place) {
    let store = place.open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    let writers = (0..20).map(|token| {
        let (store, id) = (store.clone(), id.clone());
        tokio::spawn(async move { store.append(&id, 1, at(1), &leased(token)).await.is_ok() })
    });
    let won = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    assert_eq!(
        won.into_iter().filter(|won| *won.as_ref().unwrap()).count(),
        1
    );
}

async fn acquire(store: &Store, scope: &str, id: &str, now: i64) -> Result<Lease, LeaseError> {
    store.acquire(scope, "bot1", &job(id), at(now)).await
}

pub async fn a_lease_ends_with_its_job_and_tokens_grow_for_ever(place: &dyn Place) {
    let store = place.open().await;
    for id in ["j1", "j2", "j3"] {
        store
            .create(&job(id), at(0), &created("site:demo"))
            .await
            .unwrap();
    }
    let first = acquire(&store, "site:demo", "j1", 1).await.unwrap();
    // A day later nobody has renewed it: it is still not handed over, but the error says so.
    let other = acquire(&store, "site:demo", "j2", 86_400).await;
    assert!(
        matches!(other, Err(LeaseError::Held { expired: true, .. })),
        "{other:?}"
    );
    // A repair waits for the deploy, too.
    let repair = acquire(&store, "domain:mariadb", "j3", 2).await;
    assert!(
        matches!(repair, Err(LeaseError::Held { expired: false, .. })),
        "{repair:?}"
    );

    // The same job takes it again: the old holder has lost it.
    let second = acquire(&store, "site:demo", "j1", 3).await.unwrap();
    assert!(second.token > first.token);
    let lost = store.renew(&first, at(4)).await;
    assert!(matches!(lost, Err(LeaseError::Lost { .. })), "{lost:?}");
    store.renew(&second, at(4)).await.unwrap();
    assert_eq!(store.leases().await.unwrap()[0].renewed_at, at(4));

    // Its end frees it, even if nobody came to release it.
    store
        .append(&job("j1"), 1, at(5), &finished())
        .await
        .unwrap();
    assert_eq!(store.leases().await.unwrap(), []);
    let third = acquire(&store, "site:demo", "j2", 6).await.unwrap();
    assert!(third.token > second.token);
    store.release(&third).await.unwrap();
    store.close().await;

    let store = place.open().await;
    let fourth = acquire(&store, "site:demo", "j2", -1_000).await.unwrap();
    assert_eq!(
        fourth.token,
        third.token + 1,
        "even when the clock was set back"
    );
}

pub async fn repairs_of_two_domains_do_not_exclude_each_other_but_a_deploy_does(place: &dyn Place) {
    let store = place.open().await;
    for id in ["j1", "j2", "j3"] {
        store.create(&job(id), at(0), &created("x")).await.unwrap();
    }
    acquire(&store, "domain:mariadb", "j1", 1).await.unwrap();
    acquire(&store, "domain:rabbitmq", "j2", 1).await.unwrap();
    for whole_or_part in ["site:demo", "batch:demo:7"] {
        let deploy = acquire(&store, whole_or_part, "j3", 1).await;
        assert!(matches!(deploy, Err(LeaseError::Held { .. })), "{deploy:?}");
    }
    for done in ["j1", "j2"] {
        store
            .append(&job(done), 1, at(2), &finished())
            .await
            .unwrap();
    }
    // A batch that outlived its job keeps repairs back as well, and not its own job or other batches.
    for id in ["j4", "j5", "j6"] {
        store.create(&job(id), at(3), &created("x")).await.unwrap();
    }
    acquire(&store, "batch:demo:7", "j3", 4).await.unwrap();
    let repair = acquire(&store, "domain:mariadb", "j4", 4).await;
    assert!(matches!(repair, Err(LeaseError::Held { .. })), "{repair:?}");
    acquire(&store, "site:demo", "j5", 4).await.unwrap();
    acquire(&store, "batch:demo:8", "j6", 4).await.unwrap();
}

pub async fn an_event_that_cannot_be_read_is_named(place: &dyn Place) {
    let store = place.open().await;
    let id = job("j1");
    store
        .create(&id, at(0), &created("site:demo"))
        .await
        .unwrap();
    let spoil = "UPDATE job_events SET event = '{}'";
    store.db.write("spoiling", spoil, values![]).await.unwrap();
    let error = store.load(&id).await.unwrap_err();
    assert!(
        matches!(error, JournalError::Corrupt { position: 0, .. }),
        "{error}"
    );
}
