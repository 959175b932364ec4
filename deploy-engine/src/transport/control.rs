//! A private directory for the sockets of the SSH client, removed with its owner.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// `TEMP/nightshift-ssh-PID-RANDOM`. Short: the path of a socket has at most 107 bytes.
const PREFIX: &str = "nightshift-ssh-";

#[derive(Debug)]
pub struct ControlDir(PathBuf);

impl ControlDir {
    /// Also takes away what killed processes left behind.
    pub fn create() -> io::Result<Self> {
        let base = std::env::temp_dir();
        remove_left_over(&base);
        let name = format!(
            "{PREFIX}{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let path = base.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ControlDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Directories of processes that no longer live. One of another user's cannot be removed, which is as it should be.
fn remove_left_over(base: &Path) {
    for entry in fs::read_dir(base)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            name.strip_prefix(PREFIX)?
                .split('-')
                .next()?
                .parse::<u32>()
                .ok()
        });
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_over_directories_go_and_living_ones_stay() {
        let base = tempfile::tempdir().unwrap();
        let dead = base.path().join(format!("{PREFIX}4194999-00000000"));
        let own = base
            .path()
            .join(format!("{PREFIX}{}-00000000", std::process::id()));
        let other = base.path().join("else");
        for dir in [&dead, &own, &other] {
            fs::create_dir(dir).unwrap();
        }
        remove_left_over(base.path());
        assert!(!dead.exists() && own.exists() && other.exists());
    }
}
