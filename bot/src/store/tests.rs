//! What is so only of the embedded store, and the suite of both on it.

use async_trait::async_trait;
use deploy_engine::job::{JobEvent, JobId, JobKind, Journal};

use super::{
    FILE_NAME, Store, StoreError,
    conformance::{self, Place, at},
    db::{Lock, values},
};

async fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

struct Dir(tempfile::TempDir);

#[async_trait]
impl Place for Dir {
    async fn open(&self) -> Store {
        Store::open(self.0.path()).await.unwrap()
    }

    async fn open_as(&self, replica: &str) -> Store {
        let mut store = self.open().await;
        store.replica = replica.into();
        store
    }

    async fn another(&self) -> Box<dyn Place> {
        fresh()
    }
}

fn fresh() -> Box<dyn Place> {
    Box::new(Dir(tempfile::tempdir().unwrap()))
}

conformance::each!(fresh);

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

#[tokio::test]
async fn a_store_that_cannot_be_used_says_why() {
    // A file where the directory should be.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, "").unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");

    // Not a database.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), "x".repeat(8_192)).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    // A page in the middle was overwritten.
    let (dir, store) = open().await;
    for n in 0..200 {
        let id = job(&format!("j{n}"));
        store
            .create(&id, at(n), &created("site:demo"))
            .await
            .unwrap();
    }
    store.close().await;
    let file = dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    // Made by a newer version.
    let (dir, store) = open().await;
    let newer = "UPDATE _sqlx_migrations SET version = 99 WHERE version = 2";
    store.db.write("ageing", newer, values![]).await.unwrap();
    store.close().await;
    let error = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Version { .. }), "{error}");
}

/// As SQLite does by itself when the disk is full.
#[tokio::test]
async fn a_transaction_that_the_database_took_back_by_itself_is_not_the_last() {
    let (_dir, store) = open().await;
    let mut tx = store.db.begin("testing", Lock::Rows).await.unwrap();
    tx.run("testing", "ROLLBACK", values![]).await.unwrap();
    tx.commit("testing").await.unwrap_err();
    store.put("test", "key", "value").await.unwrap();
    let found = store.get("test", "key").await.unwrap();
    assert_eq!(found.as_deref(), Some("value"));
    let mut tx = store.db.begin("testing", Lock::Rows).await.unwrap();
    tx.run("testing", "DELETE FROM kv", values![])
        .await
        .unwrap();
    tx.commit("testing").await.unwrap();
    assert_eq!(store.get("test", "key").await.unwrap(), None);
}
