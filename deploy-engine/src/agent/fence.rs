//! Fencing: a host never starts a step for a holder that a newer one has replaced.

use std::{
    fs::{self, File},
    io,
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

/// Compares and records under a lock, so that two connections cannot pass each other.
pub fn admit(root: &Root, fence: &Fence) -> Result<Verdict, String> {
    super::resource::plain_name("fence", &fence.scope, ":.-")?;
    let dir = root.state("fence");
    durable::create_private_dir(&dir)?;
    let path = dir.join(&fence.scope);
    let lock = File::open(&dir)
        .map_err(|error| format!("expected to open {}, found: {error}", dir.display()))?;
    // Held for the few writes below only.
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| format!("expected the lock of {}, found: {error}", dir.display()))?;
    let seen = match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| format!("expected a number in {}, found {text:?}", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => {
            return Err(format!(
                "expected to read {}, found: {error}",
                path.display()
            ));
        }
    };
    if fence.token < seen {
        return Ok(Verdict::Refused { seen });
    }
    if fence.token > seen {
        durable::write(&path, fence.token.to_string().as_bytes())?;
    }
    Ok(Verdict::Admitted)
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
