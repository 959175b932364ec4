//! One wait for the disk for everything that was committed meanwhile.
//!
//! SQLite runs with `synchronous=NORMAL`: a commit is in the write-ahead log, in the order of commits, and not yet on the disk.
//! Whoever needs it there waits for one `fdatasync` of that file, which covers every commit before it; so a hundred writers
//! wait for the disk once, and a write that nobody acts on yet need not wait at all: what comes after it in the log
//! cannot be on the disk without it. SQLite itself syncs the log before it moves anything out of it (checkpoint).

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        self, Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, watch};

use super::StoreError;

/// The log of one store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wal(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Commits that somebody wants to be on the disk.
    asked: AtomicU64,
    /// The newest of `asked` that is on the disk. One sync at a time, in the order in which they were asked for.
    durable: Mutex<u64>,
    /// Kept open from the first sync on: the kernel tells an error to whoever had the file open when it happened, and may have
    /// told it to SQLite already when somebody opens it later.
    log: sync::Mutex<Option<File>>,
    /// Why a sync failed. The kernel may have dropped what it could not write and marked it as clean, and the next sync would
    /// succeed all the same (<https://wiki.postgresql.org/wiki/Fsync_Errors>): nothing is called durable any more until the
    /// bot starts again and reads what there is.
    failed: watch::Sender<Option<String>>,
}

impl Wal {
    /// `database`: the file that the log belongs to.
    pub fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self(Arc::new(Inner {
            path: path.into(),
            asked: AtomicU64::new(0),
            durable: Mutex::default(),
            log: sync::Mutex::default(),
            failed: watch::Sender::default(),
        }))
    }

    /// Why the log cannot be written any more; does not return before.
    pub async fn until_failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        let found = failed.wait_for(Option::is_some).await;
        let found = found.map(|found| found.clone());
        match found {
            Ok(Some(found)) => found,
            // Its sender is as old as this.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Nothing is written after a failed sync, not even in order: whoever reads what was written and not synced would go on from it.
    pub fn usable(&self, doing: &'static str) -> Result<(), StoreError> {
        let usable = self.0.usable();
        usable.map_err(|found| StoreError::Database { doing, found })
    }

    /// Everything that was committed before this is on the disk when it returns.
    pub async fn durable(&self, doing: &'static str) -> Result<(), StoreError> {
        let own = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut durable = self.0.durable.lock().await;
        if *durable >= own {
            return Ok(());
        }
        // Whoever has asked by now had committed before.
        let covered = self.0.asked.load(Ordering::SeqCst);
        let inner = self.0.clone();
        let synced = tokio::task::spawn_blocking(move || inner.sync()).await;
        synced
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|found| StoreError::Database { doing, found })?;
        *durable = covered;
        Ok(())
    }
}

impl Inner {
    fn usable(&self) -> Result<(), String> {
        match &*self.failed.borrow() {
            None => Ok(()),
            Some(found) => Err(format!(
                "the disk failed earlier ({found}); start the bot again"
            )),
        }
    }

    /// A failure is kept here, and not by whoever waits for this: nobody may wait any more.
    fn sync(&self) -> Result<(), String> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.usable()?;
        let synced = current(&mut log, &self.path).and_then(File::sync_data);
        synced.map_err(|error| {
            let found = format!("expected to sync {}: {error}", self.path.display());
            self.failed.send_replace(Some(found.clone()));
            found
        })
    }
}

/// The file of this name: SQLite may have begun another one.
fn current<'f>(open: &'f mut Option<File>, path: &Path) -> io::Result<&'f File> {
    let named = std::fs::metadata(path)?;
    let is_named = |file: &File| {
        let found = file.metadata()?;
        io::Result::Ok((found.dev(), found.ino()) == (named.dev(), named.ino()))
    };
    let kept = match open.take() {
        Some(file) if is_named(&file)? => file,
        _ => File::open(path)?,
    };
    Ok(open.insert(kept))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

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
        assert_eq!(*wal.0.durable.lock().await, 100);
        assert_eq!(wal.until_failed().now_or_never(), None);
        wal.usable("testing").unwrap();
        std::fs::remove_file(dir.path().join("x.db-wal")).unwrap();
        let first = wal.durable("testing").await.unwrap_err().to_string();
        assert!(first.contains("expected to sync"), "{first}");
        assert!(wal.until_failed().await.contains("expected to sync"));
        std::fs::write(dir.path().join("x.db-wal"), "log").unwrap();
        let later = wal.durable("testing").await.unwrap_err().to_string();
        assert!(later.contains("the disk failed earlier"), "{later}");
        assert!(wal.usable("testing").is_err());
    }
}
