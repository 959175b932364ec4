//! Where the lab keeps its files: one store per machine (bases, layers, keys, package cache), one
//! folder per lab in it. `down` removes the folder; the store is a cache.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::names::{Host, LabName};

/// Environment variable that moves the store.
pub const STORE_VARIABLE: &str = "NIGHTSHIFT_LAB_DIR";
const DEFAULT_STORE: &str = "/var/cache/nightshift-lab";

/// The machine-wide store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store named by `NIGHTSHIFT_LAB_DIR`, else `/var/cache/nightshift-lab`.
    pub fn from_environment() -> Store {
        let root = std::env::var_os(STORE_VARIABLE).filter(|v| !v.is_empty());
        root.map_or_else(|| Store::at(DEFAULT_STORE), Store::at)
    }

    /// The store in this folder.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into() }
    }

    /// A short name of a store that is not the machine's usual one.
    pub(crate) fn mark(&self) -> Option<String> {
        if self.root == Path::new(DEFAULT_STORE) {
            return None;
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        Some(
            digest
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub(crate) fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
    pub(crate) fn package_cache(&self) -> PathBuf {
        self.root.join("packages")
    }
    pub(crate) fn labs(&self) -> PathBuf {
        self.root.join("labs")
    }
    /// Lock file `name`; outside of the labs' folders, so that a folder can be removed under its lock.
    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }
    pub(crate) fn lab(&self, name: &LabName) -> LabFolder {
        LabFolder {
            root: self.labs().join(name.as_str()),
        }
    }
}

/// The folder of one lab.
#[derive(Debug, Clone)]
pub(crate) struct LabFolder {
    root: PathBuf,
}

impl LabFolder {
    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn state(&self) -> PathBuf {
        self.root.join("lab.json")
    }
    pub fn faults(&self) -> PathBuf {
        self.root.join("faults.json")
    }
    pub fn known_hosts(&self) -> PathBuf {
        self.root.join("known_hosts")
    }
    pub fn ssh_config(&self) -> PathBuf {
        self.root.join("ssh_config")
    }
    pub fn host(&self, host: Host) -> HostFolder {
        HostFolder {
            root: self.root.join("hosts").join(host.name()),
        }
    }
}

/// The folder of one host.
#[derive(Debug, Clone)]
pub(crate) struct HostFolder {
    root: PathBuf,
}

impl HostFolder {
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The sparse ext4 image that holds all that the host wrote.
    pub fn disk(&self) -> PathBuf {
        self.root.join("disk.img")
    }
    /// Files that the lab gives to the host at its first start.
    pub fn seed(&self) -> PathBuf {
        self.root.join("seed")
    }
    pub fn console(&self) -> PathBuf {
        self.root.join("console.log")
    }
}
