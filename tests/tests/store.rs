//! The store on PostgreSQL: every case that the embedded store keeps to, and what is so only of a server.
//! Needs root on Debian to install PostgreSQL, and fails without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use bot::{
    config::Secret,
    store::{
        Folded, PostgresStore, Store,
        conformance::{CASES, Place},
    },
};
use deploy_engine::job::{JobEvent, JobId, JobKind, Journal, LeaseError};
use futures::FutureExt;
use jiff::Timestamp;
use lab::postgres::Postgres;

/// A database of its own in a cluster that goes with the last of them.
struct Database {
    postgres: Arc<Postgres>,
    name: String,
}

fn fresh(postgres: &Arc<Postgres>) -> Database {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("place{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    postgres.database(&name).unwrap();
    Database {
        postgres: postgres.clone(),
        name,
    }
}

fn alone() -> Database {
    fresh(&Arc::new(Postgres::start().unwrap()))
}

impl Database {
    fn store(&self) -> PostgresStore {
        PostgresStore {
            url: self.postgres.url(&self.name),
            password: Some(Secret::new(self.postgres.password())),
        }
    }
}

#[async_trait]
impl Place for Database {
    async fn open(&self) -> Store {
        Store::open_shared(&self.store(), "").await.unwrap()
    }

    async fn open_as(&self, replica: &str) -> Store {
        Store::open_shared(&self.store(), replica).await.unwrap()
    }

    async fn another(&self) -> Box<dyn Place> {
        Box::new(fresh(&self.postgres))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_holds_on_postgresql() {
    let postgres = Arc::new(Postgres::start().unwrap());
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let place = fresh(&postgres);
        let ended = std::panic::AssertUnwindSafe(case(&place))
            .catch_unwind()
            .await;
        println!("{name}: {}", if ended.is_ok() { "ok" } else { "FAILED" });
        if ended.is_err() {
            failed.push(name);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:?}",
        failed.len(),
        CASES.len()
    );
}

#[tokio::test]
async fn bots_that_start_at_the_same_moment_make_the_tables_once() {
    let place = Arc::new(alone());
    let opening = (0..5).map(|number| {
        let place = place.clone();
        tokio::spawn(async move { place.open_as(&format!("bot{number}")).await })
    });
    for opened in futures::future::join_all(opening.collect::<Vec<_>>()).await {
        assert_eq!(opened.unwrap().count_firing().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let place = alone();
    let wrong = PostgresStore {
        password: Some(Secret::new("hush-hush")),
        ..place.store()
    };
    let error = Store::open_shared(&wrong, "bot1").await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("hush-hush"), "{text}");
    let store = place.open().await;
    assert!(!format!("{store:?}").contains(place.postgres.password()));
}

#[tokio::test]
async fn a_lease_is_for_the_bot_that_drives_the_job() {
    let place = alone();
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    let (job, at) = (JobId("j1".into()), Timestamp::now());
    let created = JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d1".into(),
        },
        title: "deploy".into(),
        requested_by: "alice".into(),
        scope: "site:demo".into(),
        steps: vec![],
    };
    one.create(&job, at, &created).await.unwrap();
    let lease = async |store: &Store| store.acquire("site:demo", "bot", &job, at).await;
    assert!(matches!(lease(&two).await, Err(LeaseError::Lost { .. })));
    let first = lease(&one).await.unwrap();
    assert_eq!(
        two.take_jobs("bot1", 9).await.unwrap(),
        std::slice::from_ref(&job)
    );
    let second = lease(&two).await.unwrap();
    assert!(second.token > first.token);
    // The first was away meanwhile, and wants to go on.
    assert!(matches!(lease(&one).await, Err(LeaseError::Lost { .. })));
    assert_eq!(one.leases().await.unwrap()[0].lease, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_whose_connections_are_all_at_work_still_says_that_it_lives() {
    let place = alone();
    let busy = place.open_as("bot1").await;
    let nothing = || Folded {
        changed: vec![],
        parcel: None,
        answer: (),
    };
    // One holds the lock on alerts until it is told; many want it.
    let (entered, inside) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel();
    let holding = busy.clone();
    // On a thread of its own: it blocks it.
    let holder = tokio::task::spawn_blocking(move || {
        let hold = move |_| {
            entered.send(()).unwrap();
            released.recv().unwrap();
            nothing()
        };
        tokio::runtime::Handle::current().block_on(holding.fold_alerts(&[], hold))
    });
    inside.await.unwrap();
    let many = (0..40).map(|_| busy.fold_alerts(&[], |_| nothing()));
    let mut many = std::pin::pin!(futures::future::join_all(many));
    assert!(futures::poll!(&mut many).is_pending());
    let vital = busy.vital();
    let beat = vital.beat("host", Timestamp::now());
    let said = tokio::time::timeout(std::time::Duration::from_secs(2), beat).await;
    release.send(()).unwrap();
    said.unwrap().unwrap();
    holder.await.unwrap().unwrap();
    // They had to wait for their turn, and the database was there all the time.
    assert!(many.await.into_iter().all(|folded| folded.is_ok()));
    assert_eq!(busy.troubles(), 0);
}

#[tokio::test]
async fn what_one_bot_leaves_wakes_another() {
    let place = alone();
    let (one, two) = (place.open_as("bot1").await, place.open_as("bot2").await);
    let mut woken = two.woken();
    let limit = std::time::Duration::from_secs(30);
    // The listener may still be on its way; whoever waits polls as well.
    let heard = async {
        loop {
            one.leave().await.unwrap();
            let next = tokio::time::timeout(std::time::Duration::from_millis(200), woken.changed());
            if next.await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(limit, heard).await.unwrap();
}
