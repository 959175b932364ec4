//! One bot a state directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

/// Held until dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct InstanceLock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Why the state directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("expected to be the only bot on {dir}, found another one running ({holder})")]
    Held { dir: String, holder: String },
    #[error("expected to lock {dir}, found: {found}")]
    Io { dir: String, found: std::io::Error },
}

impl InstanceLock {
    /// Takes the lock or says who has it. The directory must exist.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        let dir = state_dir.display().to_string();
        let io = |found| LockError::Io {
            dir: dir.clone(),
            found,
        };
        let path = state_dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim().to_owned();
                return Err(LockError::Held { dir, holder });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}", std::process::id()));
        written.map_err(io)?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bot_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(dir.path()).unwrap();
        let second = InstanceLock::take(dir.path()).unwrap_err().to_string();
        assert!(
            second.contains(&format!("process {}", std::process::id())),
            "{second}"
        );
        drop(first);
        InstanceLock::take(dir.path()).unwrap();
    }
}
