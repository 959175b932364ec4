//! Saved layers: what a host's package manager wrote, put below the disks of later hosts, so that they
//! come up with packages installed. What belongs to one host or to a configured service is left out: the
//! hosts look as right after `apt-get install`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::command;
use crate::error::{IoContext, LabError, Result};
use crate::lab::Lab;
use crate::lock::Lock;
use crate::machine::Machine;
use crate::names::{Host, LabName};
use crate::paths::Store;
use crate::state::{self, LabState};

/// Removed: identity of the host, of its users, of the lab, and what is made anew anyway.
const REMOVED: [&str; 13] = [
    "etc/machine-id",
    "etc/hostname",
    "etc/hosts",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/nightshift",
    "root",
    "run",
    "tmp",
    "var/tmp",
    "var/lib/nightshift",
    "var/lib/systemd",
    "var/lib/dbus/machine-id",
];
/// Emptied, but the folder with its owner stays: state that the service makes anew at its first start.
const EMPTIED: [&str; 5] = [
    "var/cache/apt/archives",
    "var/lib/prometheus/alertmanager",
    "var/lib/prometheus/metrics2",
    "var/lib/rabbitmq",
    DATABASES,
];
/// MariaDB's state is made by its package, not by its service: emptied, then made as the package does.
const DATABASES: &str = "var/lib/mysql";
/// Folder whose files go and whose folders (made by packages, with their owners) stay.
const LOGS: &str = "var/log";
const MAX_NAME: usize = 40;
/// 2 GiB from a loop device to a busy disk.
const COPY_LIMIT: Duration = Duration::from_secs(300);
const LOCK_LIMIT: Duration = Duration::from_secs(600);
/// Arguments: folder of a host that is off, target.
const COPY_FROM_DISK: &str = r#"
set -eu
mkdir -p "$1/disk"
mount -t ext4 -o loop,ro "$1/disk.img" "$1/disk"
exec cp -a "$1/disk/upper/." "$2"
"#;
/// Arguments: the new layer, the layers below, a folder for the work. As the package's `postinst` does it.
const MAKE_DATABASES: &str = r#"
set -eu
mkdir -p "$3/work" "$3/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1,workdir=$3/work" "$3/root"
mount --bind /dev "$3/root/dev"
mount -t tmpfs tmpfs "$3/root/tmp"
exec chroot "$3/root" mariadb-install-db --no-defaults --user=mysql --datadir=/var/lib/mysql --skip-test-db
"#;

/// A saved layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub name: String,
    /// Key of the base on which it was saved; it fits on no other.
    pub base: String,
    /// Layers below it, the topmost first.
    pub below: Vec<String>,
    pub saved: Timestamp,
}

impl Layer {
    /// Reads a saved layer.
    pub(crate) fn load(store: &Store, name: &str) -> Result<Layer> {
        check_name(name)?;
        let file = store.layers().join(name).join("layer.json");
        state::read(&file)?.ok_or_else(|| {
            let known: Vec<String> = list(store)
                .map(|layers| layers.into_iter().map(|l| l.name).collect())
                .unwrap_or_default();
            LabError::refused(format!(
                "no layer `{name}`; saved are: {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ))
        })
    }

    /// The layer and those below it, if it fits on `base`.
    pub(crate) fn stack(self, base: &str) -> Result<Vec<String>> {
        if self.base != base {
            return Err(LabError::refused(format!(
                "layer `{}` was saved on base {}, and the hosts' base is now {base}: save it again",
                self.name, self.base
            )));
        }
        Ok([vec![self.name], self.below].concat())
    }
}

/// Folder of a layer's files.
pub(crate) fn root(store: &Store, name: &str) -> PathBuf {
    store.layers().join(name).join("root")
}

/// All saved layers, by name.
pub fn list(store: &Store) -> Result<Vec<Layer>> {
    let folder = store.layers();
    let mut layers = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let file = entry.at("read", &folder)?.path().join("layer.json");
            layers.extend(state::read::<Layer>(&file)?);
        }
    }
    layers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(layers)
}

/// Removes what a killed save of this lab left.
pub(crate) fn remove_unfinished(store: &Store, lab: &LabName) -> Result<()> {
    remove_tree(&unfinished(store, lab))
}

impl Lab {
    /// Saves what `host` has above its lower layers as the layer `name`, in place of an older one that no
    /// lab uses. A running host stands still meanwhile.
    pub fn save_layer(&self, name: &str, host: &str) -> Result<Layer> {
        check_name(name)?;
        let _lock = self.lock()?;
        let host = self.known_host(host)?;
        let state = self
            .state()?
            .ok_or_else(|| LabError::refused("the lab is not up"))?;
        let lock = Lock::take(&self.store.lock("layers"), LOCK_LIMIT)?;
        refuse_if_used(&self.store, name)?;
        let cgroups = Cgroups::find()?;
        let folder = unfinished(&self.store, &self.name);
        remove_tree(&folder)?;
        let root = folder.join("root");
        fs::create_dir_all(&root).at("create", &root)?;
        self.copy(&cgroups, host, &root)?;
        clean(&root)?;
        self.make_databases(&cgroups, &state, &folder)?;
        let layer = Layer {
            name: name.to_owned(),
            base: state.base,
            below: state.layers,
            saved: Timestamp::now(),
        };
        state::write(&folder.join("layer.json"), &layer)?;
        let target = self.store.layers().join(name);
        remove_tree(&target)?;
        fs::rename(&folder, &target).at("rename", &folder)?;
        self.cgroups_done(&cgroups)?;
        lock.remove()?;
        Ok(layer)
    }

    fn copy(&self, cgroups: &Cgroups, host: Host, root: &Path) -> Result<()> {
        let machine = self.machine(cgroups, host);
        if !machine.powered() {
            let mut copy = self.program(cgroups, "unshare")?;
            copy.args([
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                COPY_FROM_DISK,
                "lab-copy",
            ])
            .arg(machine.folder.root())
            .arg(root);
            return command::run(&mut copy, COPY_LIMIT).map(drop);
        }
        let supervisor = machine.supervisor()?;
        let mut copy = self.program(cgroups, "nsenter")?;
        copy.arg(format!("--mount=/proc/{supervisor}/ns/mnt"))
            .args(["cp", "-a"])
            .arg(machine.folder.root().join("disk/upper/."))
            .arg(root);
        frozen(&machine, || command::run(&mut copy, COPY_LIMIT).map(drop))
    }

    fn make_databases(&self, cgroups: &Cgroups, state: &LabState, folder: &Path) -> Result<()> {
        let root = folder.join("root");
        if !root.join(DATABASES).is_dir() {
            return Ok(());
        }
        let lower: Vec<_> = self.lower_layers(state);
        let lower: Vec<_> = lower.iter().map(|l| l.to_string_lossy()).collect();
        let work = folder.join("databases");
        let mut make = self.program(cgroups, "unshare")?;
        make.args([
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            MAKE_DATABASES,
            "lab-databases",
        ])
        .arg(&root)
        .arg(lower.join(":"))
        .arg(&work);
        command::run(&mut make, COPY_LIMIT)?;
        remove_tree(&work)?;
        remove_tree(&root.join("var/lib/mysql/test"))
    }

    /// A program in the lab's control group, so that `down` ends it too.
    fn program(&self, cgroups: &Cgroups, program: &str) -> Result<Command> {
        let group = format!("{}/save", self.name);
        cgroups.create(&group)?;
        Ok(cgroups.inside(&group, program))
    }

    fn cgroups_done(&self, cgroups: &Cgroups) -> Result<()> {
        cgroups.remove(&format!("{}/save", self.name))
    }
}

/// Removes a layer that no lab uses.
pub fn remove(store: &Store, name: &str) -> Result<()> {
    let lock = Lock::take(&store.lock("layers"), LOCK_LIMIT)?;
    Layer::load(store, name)?;
    refuse_if_used(store, name)?;
    remove_tree(&store.layers().join(name))?;
    lock.remove()
}

/// Copies from a host that stands still, so that the copy is of one moment.
fn frozen(machine: &Machine, work: impl FnOnce() -> Result<()>) -> Result<()> {
    machine.freeze(true)?;
    let result = work();
    machine.freeze(false)?;
    result
}

fn unfinished(store: &Store, lab: &LabName) -> PathBuf {
    store.layers().join(format!(".saving-{lab}"))
}

/// Another layer may lie on this one, and a lab may use it: changing it would change them.
fn refuse_if_used(store: &Store, name: &str) -> Result<()> {
    if let Some(layer) = list(store)?
        .iter()
        .find(|l| l.below.iter().any(|b| b == name))
    {
        return Err(LabError::refused(format!(
            "layer `{name}` lies below the layer `{}`",
            layer.name
        )));
    }
    let labs = store.labs();
    for entry in fs::read_dir(&labs).at("read", &labs)? {
        let folder = entry.at("read", &labs)?.path();
        let state: Option<LabState> = state::read(&folder.join("lab.json"))?;
        if state.is_some_and(|s| s.layers.iter().any(|l| l == name)) {
            return Err(LabError::refused(format!(
                "layer `{name}` is used by the lab in {}",
                folder.display()
            )));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
        return Err(LabError::refused(format!(
            "layer `{name}`: expected 1 to {MAX_NAME} lower-case letters, digits and dashes"
        )));
    }
    Ok(())
}

/// Leaves packages and their configuration, and nothing of this host's life.
fn clean(root: &Path) -> Result<()> {
    for path in REMOVED {
        remove_tree(&root.join(path))?;
    }
    for path in EMPTIED {
        let folder = root.join(path);
        if !is_folder(&folder) {
            continue;
        }
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let path = entry.at("read", &folder)?.path();
            // The package's own mark of its version, read at upgrades.
            if path.extension().is_none_or(|e| e != "flag") {
                remove_tree(&path)?;
            }
        }
    }
    remove_files(&root.join(LOGS))
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir())
}

fn remove_tree(path: &Path) -> Result<()> {
    let result = if is_folder(path) {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", path),
    }
}

fn remove_files(folder: &Path) -> Result<()> {
    if !is_folder(folder) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        if is_folder(&path) {
            remove_files(&path)?;
        } else {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_keeps_packages_and_forgets_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |path: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        };
        let kept = [
            "usr/bin/memcached",
            "etc/memcached.conf",
            "var/lib/dpkg/status",
        ];
        let gone = [
            "etc/machine-id",
            "etc/ssh/ssh_host_ed25519_key",
            "root/.ssh/authorized_keys",
            "var/lib/rabbitmq/.erlang.cookie",
            "var/lib/rabbitmq/mnesia/a/b",
            "var/lib/mysql/grastate.dat",
            "var/log/rabbitmq/log",
            "var/lib/nightshift/spool",
        ];
        kept.iter().chain(&gone).for_each(|path| put(path));
        put("var/lib/mysql/debian-10.11.flag");
        clean(root).unwrap();
        for path in kept {
            assert!(root.join(path).exists(), "{path} is lost");
        }
        for path in gone {
            assert!(!root.join(path).exists(), "{path} is left");
        }
        for path in [
            "var/lib/rabbitmq",
            "var/log/rabbitmq",
            "var/lib/mysql/debian-10.11.flag",
        ] {
            assert!(root.join(path).exists(), "{path} is lost");
        }
    }

    #[test]
    fn a_layer_fits_on_its_base_only() {
        let layer = Layer {
            name: "rabbit".to_owned(),
            base: "aaa".to_owned(),
            below: vec!["tools".to_owned()],
            saved: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(layer.clone().stack("aaa").unwrap(), ["rabbit", "tools"]);
        let error = layer.stack("bbb").unwrap_err().to_string();
        assert!(error.contains("saved on base aaa"), "{error}");
    }
}
