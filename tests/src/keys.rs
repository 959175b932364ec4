//! SSH keys: one user key for all labs, one host key per host made by the lab, so that host keys are
//! known before the first connection and checked strictly.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::{IoContext, Result};
use crate::lock::Lock;
use crate::names::Host;
use crate::paths::{LabFolder, Store};

const HOST_KEY: &str = "etc/ssh/ssh_host_ed25519_key";

/// Path of the private user key.
pub(crate) fn identity(store: &Store) -> PathBuf {
    store.keys().join("id_ed25519")
}

/// Makes the user key if the store has none; gives its public half.
pub(crate) fn ensure_identity(store: &Store) -> Result<String> {
    let key = identity(store);
    let public = key.with_extension("pub");
    let lock = Lock::take(&store.lock("keys"), Duration::from_secs(30))?;
    if !public.exists() {
        private_folder(&store.keys())?;
        // Left half by a killed run: without the public file nobody has used it.
        let _ = fs::remove_file(&key);
        generate(&key, "nightshift-lab")?;
    }
    lock.remove()?;
    fs::read_to_string(&public).at("read", &public)
}

/// Writes what a host gets at its first start: name, hosts, machine id, its host key, the user key.
pub(crate) fn write_seed(seed: &Path, host: Host, user_key: &str) -> Result<()> {
    let ssh = seed.join("etc/ssh");
    fs::create_dir_all(&ssh).at("create", &ssh)?;
    put(&seed.join("etc/hostname"), &format!("{host}\n"))?;
    put(&seed.join("etc/hosts"), &hosts_file())?;
    put(&seed.join("etc/machine-id"), &format!("{}\n", random_id()?))?;
    generate(&seed.join(HOST_KEY), &host.name())?;
    private_folder(&seed.join("root"))?;
    private_folder(&seed.join("root/.ssh"))?;
    put(&seed.join("root/.ssh/authorized_keys"), user_key)
}

/// Writes `known_hosts` and `ssh_config` of the lab for these hosts.
pub(crate) fn write_client_files(store: &Store, lab: &LabFolder, hosts: &[Host]) -> Result<()> {
    let mut known = String::new();
    let mut config = String::new();
    for &host in hosts {
        let public = lab.host(host).seed().join(HOST_KEY).with_extension("pub");
        let key = fs::read_to_string(&public).at("read", &public)?;
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        known.push_str(&format!("{host},{} {}\n", host.address(), key.join(" ")));
        config.push_str(&format!("Host {host}\n  HostName {}\n", host.address()));
    }
    config.push_str(&format!(
        "Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n  \
         UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
         ConnectTimeout 5\n  ServerAliveInterval 5\n  ServerAliveCountMax 3\n  LogLevel ERROR\n",
        identity(store).display(),
        lab.known_hosts().display()
    ));
    put(&lab.known_hosts(), &known)?;
    put(&lab.ssh_config(), &config)
}

/// `/etc/hosts` of every host: all that a lab can have, so that hosts added later are known to the first.
fn hosts_file() -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    for host in Host::all() {
        text.push_str(&format!("{} {host}\n", host.address()));
    }
    text
}

fn random_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let uuid = fs::read_to_string(path).at("read", path)?;
    Ok(uuid.trim().replace('-', ""))
}

fn generate(key: &Path, comment: &str) -> Result<()> {
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(key);
    command::run(&mut keygen, command::QUICK).map(drop)
}

fn private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("create", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).at("protect", path)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).at("write", path)
}
