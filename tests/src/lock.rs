//! Locks between processes: `flock` on a file that its last holder may remove.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{IoContext, Result};
use crate::wait;

/// Held until dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock `path`, waiting at most `limit` for another holder.
    pub fn take(path: &Path, limit: Duration) -> Result<Lock> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        let what = format!("the lock {}", path.display());
        wait::until(&what, limit, || {
            try_take(path).map_err(|why| why.to_string())
        })
    }

    /// Removes the lock file and lets go; one who waits for it sees that and takes a new file.
    pub fn remove(self) -> Result<()> {
        let _ = &self.file;
        fs::remove_file(&self.path).at("remove", &self.path)
    }
}

fn try_take(path: &Path) -> std::io::Result<Lock> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| std::io::Error::other("another process holds it"))?;
    let same = fs::metadata(path).is_ok_and(|now| {
        file.metadata()
            .is_ok_and(|ours| (now.dev(), now.ino()) == (ours.dev(), ours.ino()))
    });
    if !same {
        return Err(std::io::Error::other("its file was just removed"));
    }
    Ok(Lock {
        file,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_no_file_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let first = Lock::take(&path, Duration::ZERO).unwrap();
        let second = Lock::take(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(second.contains("another process holds it"), "{second}");
        first.remove().unwrap();
        assert!(!path.exists());
        Lock::take(&path, Duration::ZERO).unwrap();
    }
}
