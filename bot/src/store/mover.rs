//! Moves what was committed out of the log and into the database (a checkpoint), beside the one writer. SQLite by itself lets the commit that
//! fills the log do so, in the writer's turn, and everybody behind it waits.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{sync::Notify, task::AbortHandle};

/// Commits between two moves. SQLite's own measure is 1,000 pages in the log; how many a commit writes is not known here.
const COMMITS: u64 = 100;

/// Pages of 4 KiB in the log (64 MiB) from which on a commit moves them itself. A log begins anew when all of it has been moved and nobody
/// writes meanwhile, which in a storm is never so beside the writer: without this it would grow as long as the storm lasts.
pub(super) const LOG_PAGES_MAX: &str = "16384";

/// Counts commits, and has them moved. Ends with the last clone.
#[derive(Clone)]
pub(super) struct Mover(Arc<Inner>);

struct Inner {
    commits: AtomicU64,
    wanted: Arc<Notify>,
    task: AbortHandle,
}

impl Mover {
    /// With a connection of its own.
    pub async fn start(options: &SqliteConnectOptions, path: &Path) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        let wanted = Arc::new(Notify::new());
        let task = tokio::spawn(keep_moving(connection, wanted.clone(), path.to_owned()));
        Ok(Self(Arc::new(Inner {
            commits: AtomicU64::new(0),
            wanted,
            task: task.abort_handle(),
        })))
    }

    /// A commit is in the log. Wanted twice while a move is under way is wanted once.
    pub fn committed(&self) {
        let before = self.0.commits.fetch_add(1, Ordering::Relaxed);
        if (before + 1).is_multiple_of(COMMITS) {
            self.0.wanted.notify_one();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A move that fails is tried again with the next one: what is in the log is read from there until then. A log that cannot be
/// synced is met by whoever waits for it (`wal`).
async fn keep_moving(mut connection: SqliteConnection, wanted: Arc<Notify>, path: PathBuf) {
    loop {
        wanted.notified().await;
        // Passive: it waits for nobody and lets nobody wait.
        let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&mut connection)
            .await;
        match moved {
            Ok(_) => {}
            Err(sqlx::Error::WorkerCrashed) => return,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the store's log is not moved yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sqlite;

    /// A log that is not moved is longer after every commit.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_begins_anew_when_it_has_been_moved() {
        let dir = tempfile::tempdir().unwrap();
        let db = sqlite::open(dir.path()).await.unwrap();
        let log = dir.path().join(format!("{}-wal", sqlite::FILE_NAME));
        let mut lengths = Vec::new();
        for _ in 0..30 {
            for _ in 0..super::COMMITS {
                let sql = "INSERT OR REPLACE INTO kv (space, key, value) VALUES ('a', 'b', 'c')";
                db.write_in_order("testing", sql, vec![]).await.unwrap();
            }
            // The gap between two changes of people.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let length = std::fs::metadata(&log).unwrap().len();
            if lengths.last() == Some(&length) {
                return;
            }
            lengths.push(length);
        }
        panic!("the log grew all the time: {lengths:?}");
    }
}
