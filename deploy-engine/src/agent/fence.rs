//! Fencing: a host never starts a step for a holder that a newer one has replaced.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{durable, root::Root};
use crate::wire::Fence;

/// What the host says to a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Recorded, durably.
    Admitted,
    /// A higher token has been here.
    Refused { seen: u64 },
}

/// A token that is about to be recorded: nobody passes meanwhile.
pub enum Entering {
    Higher {
        _lock: File,
        temporary: PathBuf,
        path: PathBuf,
    },
    /// It is there already; whoever wrote it may have ended before it was on the disk.
    Known {
        path: PathBuf,
    },
    Refused {
        seen: u64,
    },
}

/// Compares under a lock, so that two connections cannot pass each other, and writes down what [`Entering::record`] will record.
pub fn enter(root: &Root, fence: &Fence) -> Result<Entering, String> {
    let path = path_of(root, fence)?;
    let dir = root.state("fence");
    durable::create_private_dir(&dir)?;
    let lock = File::open(&dir)
        .map_err(|error| format!("expected to open {}, found: {error}", dir.display()))?;
    // Held for the few writes until it is recorded.
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| format!("expected the lock of {}, found: {error}", dir.display()))?;
    let seen = newest(&path)?;
    if fence.token < seen {
        return Ok(Entering::Refused { seen });
    }
    if fence.token == seen {
        return Ok(Entering::Known { path });
    }
    let temporary = durable::write_beside(&path, fence.token.to_string().as_bytes());
    Ok(Entering::Higher {
        _lock: lock,
        temporary: temporary.map_err(|error| not_written(&path, &error))?,
        path,
    })
}

impl Entering {
    /// Nothing is recorded.
    pub fn give_up(self) {
        if let Self::Higher { temporary, .. } = self {
            let _ = fs::remove_file(temporary);
        }
    }

    /// On the disk when it returns.
    pub fn record(self) -> Result<Verdict, String> {
        let (path, recorded) = match self {
            Self::Refused { seen } => return Ok(Verdict::Refused { seen }),
            Self::Known { path } => {
                let synced = durable::sync_dir_of(&path);
                (path, synced)
            }
            Self::Higher {
                _lock,
                temporary,
                path,
            } => {
                let renamed = durable::rename_into_place(&temporary, &path);
                (path, renamed)
            }
        };
        match recorded {
            Ok(()) => Ok(Verdict::Admitted),
            Err(error) => Err(not_written(&path, &error)),
        }
    }
}

/// Compares and records.
pub fn admit(root: &Root, fence: &Fence) -> Result<Verdict, String> {
    enter(root, fence)?.record()
}

/// Compares alone: whoever acts on it enters afterwards.
pub fn check(root: &Root, fence: &Fence) -> Result<Option<u64>, String> {
    let seen = newest(&path_of(root, fence)?)?;
    Ok((fence.token < seen).then_some(seen))
}

fn path_of(root: &Root, fence: &Fence) -> Result<PathBuf, String> {
    super::resource::plain_name("fence", &fence.scope, ":.-")?;
    Ok(root.state("fence").join(&fence.scope))
}

/// The highest token that has been here; 0: none.
fn newest(path: &Path) -> Result<u64, String> {
    match fs::read_to_string(path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| format!("expected a number in {}, found {text:?}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(format!(
            "expected to read {}, found: {error}",
            path.display()
        )),
    }
}

fn not_written(path: &Path, error: &io::Error) -> String {
    format!("expected to write {}, found: {error}", path.display())
}

/// Refuses the holder's token from now on; its job is over. A newer holder is left alone.
pub fn close(root: &Root, fence: &Fence) -> Result<(), String> {
    let next = Fence {
        scope: fence.scope.clone(),
        token: fence.token.saturating_add(1),
    };
    admit(root, &next).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_only_grow_per_scope() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let fence = |scope: &str, token| {
            admit(
                &root,
                &Fence {
                    scope: scope.into(),
                    token,
                },
            )
        };
        assert_eq!(fence("site:demo", 5), Ok(Verdict::Admitted));
        assert_eq!(fence("site:demo", 5), Ok(Verdict::Admitted));
        assert_eq!(fence("site:demo", 4), Ok(Verdict::Refused { seen: 5 }));
        assert_eq!(fence("domain:rabbitmq", 1), Ok(Verdict::Admitted));
        assert_eq!(fence("site:demo", 6), Ok(Verdict::Admitted));
        assert_eq!(fence("site:demo", 5), Ok(Verdict::Refused { seen: 6 }));
        let six = Fence {
            scope: "site:demo".into(),
            token: 6,
        };
        close(&Root::new(dir.path()), &six).unwrap();
        assert_eq!(fence("site:demo", 6), Ok(Verdict::Refused { seen: 7 }));
        assert_eq!(fence("site:demo", 9), Ok(Verdict::Admitted));
        close(&Root::new(dir.path()), &six).unwrap();
        assert_eq!(fence("site:demo", 9), Ok(Verdict::Admitted));
        for bad in ["../x", "", "a/b", ".hidden"] {
            assert!(fence(bad, 1).is_err(), "{bad}");
        }
        std::fs::write(
            dir.path().join("var/lib/nightshift/fence/site:demo"),
            "garbage",
        )
        .unwrap();
        assert!(fence("site:demo", 9).is_err());
    }
}
