//! The directory that stands for `/`.

use std::path::{Path, PathBuf};

/// Where the agent keeps what must survive it: spool, fences, unit records.
const STATE_DIR: &str = "/var/lib/nightshift";

/// Programs are looked up here and nowhere else, whatever the caller's environment says.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All paths of the host go through here, so that tests can work in a directory of their own.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Where the absolute `path` of the host really is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.at(STATE_DIR).join(name)
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// `PATH` of every program. Below another root, its `bin` comes first: tests put stand-ins there.
    pub fn search_path(&self) -> String {
        if self.0 == Path::new("/") {
            SEARCH_PATH.to_owned()
        } else {
            format!("{}:{SEARCH_PATH}", self.at("bin").display())
        }
    }
}
