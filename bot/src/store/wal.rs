//! One wait for the disk for everything that was committed meanwhile.
//!
//! SQLite runs with `synchronous=NORMAL`: a commit is in the write-ahead log, in the order of commits, and not yet on the disk.
//! Whoever needs it there waits for one `fdatasync` of that file, which covers every commit before it; so a hundred writers
//! wait for the disk once, and a write that nobody acts on yet need not wait at all: what comes after it in the log
//! cannot be on the disk without it. SQLite itself syncs the log before it moves anything out of it (checkpoint).

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Mutex;

use super::StoreError;

/// The log of one store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wal(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Commits that somebody wants to be on the disk.
    asked: AtomicU64,
    /// One at a time, in the order in which they came.
    turn: Mutex<Turn>,
}

#[derive(Default)]
struct Turn {
    /// The newest of `asked` that is on the disk.
    durable: u64,
    /// After a failed sync the kernel may have dropped what it could not write, and the next one may succeed all the same:
    /// nothing is called durable any more until the bot starts again and reads what there is.
    failed: Option<String>,
}

impl Wal {
    /// `database`: the file that the log belongs to.
    pub fn of(database: &std::path::Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self(Arc::new(Inner {
            path: path.into(),
            asked: AtomicU64::new(0),
            turn: Mutex::default(),
        }))
    }

    /// Everything that was committed before this is on the disk when it returns.
    pub async fn durable(&self, doing: &'static str) -> Result<(), StoreError> {
        let own = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut turn = self.0.turn.lock().await;
        if let Some(found) = &turn.failed {
            let found = format!("the disk failed earlier ({found}); start the bot again");
            return Err(StoreError::Database { doing, found });
        }
        if turn.durable >= own {
            return Ok(());
        }
        // Whoever has asked by now had committed before.
        let covered = self.0.asked.load(Ordering::SeqCst);
        let inner = self.0.clone();
        let synced = tokio::task::spawn_blocking(move || inner.sync()).await;
        match synced.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                turn.durable = covered;
                Ok(())
            }
            Err(error) => {
                let found = format!("expected to sync {}: {error}", self.0.path.display());
                turn.failed = Some(found.clone());
                Err(StoreError::Database { doing, found })
            }
        }
    }
}

impl Inner {
    /// By its name: SQLite may have begun another file since.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_together_and_never_again_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("x.db");
        let wal = Wal::of(&database);
        std::fs::write(dir.path().join("x.db-wal"), "log").unwrap();
        let all = (0..100).map(|_| wal.durable("testing"));
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
        assert_eq!(wal.0.turn.lock().await.durable, 100);
        std::fs::remove_file(dir.path().join("x.db-wal")).unwrap();
        let first = wal.durable("testing").await.unwrap_err().to_string();
        assert!(first.contains("expected to sync"), "{first}");
        std::fs::write(dir.path().join("x.db-wal"), "log").unwrap();
        let later = wal.durable("testing").await.unwrap_err().to_string();
        assert!(later.contains("the disk failed earlier"), "{later}");
    }
}
