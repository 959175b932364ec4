//! The lab: up, down, status, and the way into it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::{self, Base};
use crate::cgroup::Cgroups;
use crate::command::{Output, failure};
use crate::error::{IoContext, LabError, Result};
use crate::fault::ActiveFault;
use crate::layer::{self, Layer};
use crate::lock::Lock;
use crate::machine::Machine;
use crate::mirror::Mirror;
use crate::names::{Host, LabName};
use crate::paths::{LabFolder, Store};
use crate::progress::Progress;
use crate::state::{self, LabState};
use crate::{java, keys, netns, network, package_cache, preflight, ssh};

/// A command on a host that names no limit of its own.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// Another `up` or `down` of the same lab, which may build a base.
const LOCK_LIMIT: Duration = Duration::from_secs(1500);
/// Login after the banner; a busy machine needs seconds for the keys.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// For the units of a layer: MariaDB and RabbitMQ together start in 8 s on a busy machine.
const SETTLE_SECONDS: &str = "60";

/// What `up` shall make.
#[derive(Debug, Clone)]
pub struct LabOptions {
    pub name: LabName,
    /// Number of hosts, from `ctl1`.
    pub hosts: u8,
    /// Saved layer below the hosts' disks.
    pub layer: Option<String>,
}

/// A lab on this machine, up or not.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) name: LabName,
    pub(crate) store: Store,
    pub(crate) folder: LabFolder,
}

/// What is known of one host from outside.
#[derive(Debug, Clone)]
pub struct HostStatus {
    pub host: Host,
    pub address: Ipv4Addr,
    /// Whether any process of it lives.
    pub powered: bool,
}

impl Lab {
    /// The handle of a lab by name; touches nothing.
    pub fn named(name: LabName) -> Lab {
        let store = Store::from_environment();
        let folder = store.lab(&name);
        Lab {
            name,
            store,
            folder,
        }
    }

    /// Brings up the lab, or what is missing of it, and waits until every host takes a login over SSH.
    ///
    /// # Errors
    /// [`LabError::Missing`] if this machine cannot run a lab; [`LabError::Refused`] for another layer
    /// than the running lab's; else what failed. What was made stays for `up` to go on or `down` to remove.
    pub fn up(options: &LabOptions, progress: &Progress) -> Result<Lab> {
        let hosts: Vec<Host> = (1..=options.hosts).filter_map(Host::new).collect();
        if hosts.len() != usize::from(options.hosts) || hosts.is_empty() {
            return Err(LabError::refused(format!(
                "{} hosts: expected 1 to {}",
                options.hosts,
                crate::names::MAX_HOSTS
            )));
        }
        let machine = preflight::prepare(progress)?;
        let lab = Lab::named(options.name.clone());
        let _lock = lab.lock()?;
        fs::create_dir_all(lab.folder.root()).at("create", lab.folder.root())?;
        let mirror = Mirror::of_this_machine(&machine.codename)?;
        let phase = progress.phase("package cache and network");
        let cache = package_cache::join(&lab.store, &machine.cgroups, &mirror, &lab.name)?;
        lab.ensure_network(&machine.cgroups)?;
        phase.done();
        let builder = (&machine.cgroups, &lab.name);
        let base = base::ensure(&lab.store, &mirror, &cache, builder, progress)?;
        let state = lab.planned(&base, options, &hosts)?;
        lab.start_hosts(&machine.cgroups, &state, progress)?;
        Ok(lab)
    }

    fn ensure_network(&self, cgroups: &Cgroups) -> Result<()> {
        network::ensure_lab(&self.name)?;
        let netns = netns::path(&netns::lab_netns(&self.name));
        let group = format!("{}/relay", self.name);
        if cgroups.populated(&group) {
            return Ok(());
        }
        package_cache::relay(&self.store, cgroups, &group, &netns)
    }

    /// The state with the wanted hosts in it, checked against what runs.
    fn planned(&self, base: &Base, options: &LabOptions, hosts: &[Host]) -> Result<LabState> {
        let layers = match &options.layer {
            Some(name) => Layer::load(&self.store, name)?.stack(&base.key)?,
            None => Vec::new(),
        };
        let mut state = self.state()?.unwrap_or_else(|| LabState {
            created: Timestamp::now(),
            base: base.key.clone(),
            layers: layers.clone(),
            hosts: Vec::new(),
        });
        if options.layer.is_some() && state.layers != layers {
            return Err(LabError::refused(format!(
                "lab `{}` runs with the layers {:?}, not {layers:?}: take it down first",
                self.name, state.layers
            )));
        }
        state.hosts.extend(hosts);
        state.hosts.sort();
        state.hosts.dedup();
        Ok(state)
    }

    fn start_hosts(&self, cgroups: &Cgroups, state: &LabState, progress: &Progress) -> Result<()> {
        let user_key = keys::ensure_identity(&self.store)?;
        for &host in &state.hosts {
            let seed = self.folder.host(host).seed();
            if !seed.exists() {
                let unfinished = seed.with_extension("new");
                let _ = fs::remove_dir_all(&unfinished);
                keys::write_seed(&unfinished, host, &user_key)?;
                java::write_seed(&self.store, &unfinished)?;
                fs::rename(&unfinished, &seed).at("rename", &unfinished)?;
            }
        }
        keys::write_client_files(&self.store, &self.folder, &state.hosts)?;
        state::write(&self.folder.state(), state)?;
        let layers = self.lower_layers(state);
        let faults = self.faults()?;
        std::thread::scope(|scope| {
            let threads: Vec<_> = state
                .hosts
                .iter()
                .filter(|&host| !self.is_silenced(*host, &faults, progress))
                .map(|&host| {
                    let layers = &layers;
                    scope.spawn(move || {
                        let phase = progress.phase(&format!("{host} ({})", host.address()));
                        self.start_host(cgroups, host, layers)?;
                        self.let_settle(host)?;
                        phase.done();
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    /// Logins work before the last units are started; a caller should find them running. A unit that
    /// hangs is the host's business and no error here.
    fn let_settle(&self, host: Host) -> Result<()> {
        let wait = [
            "timeout",
            SETTLE_SECONDS,
            "systemctl",
            "is-system-running",
            "--wait",
        ];
        self.ssh(&host.name(), &wait).map(drop)
    }

    /// `up` does not mend: a host that a fault keeps silent stays so.
    fn is_silenced(&self, host: Host, faults: &[ActiveFault], progress: &Progress) -> bool {
        let by = faults.iter().find(|f| f.fault.silences() == Some(host));
        if let Some(active) = by {
            progress.say(&format!(
                "{host} stays as it is: fault {} `{}`",
                active.id, active.fault
            ));
        }
        by.is_some()
    }

    /// Boots a host that was cut off its power, and waits for it.
    pub(crate) fn power_return(&self, cgroups: &Cgroups, host: Host) -> Result<()> {
        let state = self
            .state()?
            .ok_or_else(|| LabError::refused("the lab is not up"))?;
        self.start_host(cgroups, host, &self.lower_layers(&state))
    }

    fn start_host(&self, cgroups: &Cgroups, host: Host, layers: &[PathBuf]) -> Result<()> {
        let machine = self.machine(cgroups, host);
        network::ensure_host(&self.name, host)?;
        machine.ensure_disk()?;
        if !machine.powered() {
            machine.power_on(layers)?;
        }
        machine.wait_for_sshd()?;
        let output = self.ssh_limited(&host.name(), &["true"], b"", LOGIN_LIMIT)?;
        if output.status.success() {
            return Ok(());
        }
        Err(failure(
            &ssh::client(&self.name, &self.folder, host),
            &output,
        ))
    }

    /// Takes the lab down and removes all of it; a lab that is half up, crashed or not there is fine.
    pub fn down(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::Missing(vec![
                "root rights: run it with sudo".to_owned(),
            ]));
        }
        let lock = self.lock()?;
        let cgroups = Cgroups::find()?;
        let hosts: Vec<Host> = Host::all()
            .filter(|&host| self.folder.host(host).root().exists())
            .collect();
        cgroups.kill(self.name.as_str())?;
        for host in hosts {
            self.machine(&cgroups, host).power_cut()?;
        }
        cgroups.remove(self.name.as_str())?;
        network::remove(&self.name)?;
        base::remove_unfinished(&self.store, &self.name)?;
        layer::remove_unfinished(&self.store, &self.name)?;
        package_cache::leave(&self.store, &cgroups, &self.name)?;
        cgroups.remove(self.name.as_str())?;
        match fs::remove_dir_all(self.folder.root()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at("remove", self.folder.root())?,
        }
        lock.remove()
    }

    /// The lab's hosts as they are now; empty if the lab is not up.
    pub fn status(&self) -> Result<Vec<HostStatus>> {
        let Some(state) = self.state()? else {
            return Ok(Vec::new());
        };
        let cgroups = Cgroups::find()?;
        Ok(state
            .hosts
            .iter()
            .map(|&host| HostStatus {
                host,
                address: host.address(),
                powered: self.machine(&cgroups, host).powered(),
            })
            .collect())
    }

    /// Names of the hosts; empty if the lab is not up.
    pub fn hosts(&self) -> Result<Vec<Host>> {
        Ok(self.state()?.map(|state| state.hosts).unwrap_or_default())
    }

    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// Private key that every host takes for root.
    pub fn identity(&self) -> PathBuf {
        keys::identity(&self.store)
    }

    /// The hosts' keys, by name and address, as the lab made them.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.known_hosts()
    }

    /// Client configuration with all of it: `ssh -F FILE ctl1` (from inside the lab's namespace).
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.ssh_config()
    }

    /// The lab's own folder, for logs and state of what runs in it; removed by [`Lab::down`].
    pub fn folder(&self) -> PathBuf {
        self.folder.root().to_owned()
    }

    /// `program` as a command inside the lab's namespace, where the hosts are reachable.
    pub fn command(&self, program: &str) -> Result<Command> {
        netns::require(&self.name).map(|netns| netns::command(&netns, program))
    }

    /// Moves the calling thread into the lab's namespace for good; see [`crate::in_lab`] for tests.
    pub fn enter(&self) -> Result<()> {
        netns::enter(&netns::require(&self.name)?)
    }

    /// Runs `work` on a new thread inside the lab's namespace. Threads and programs that it starts, such
    /// as those of an async runtime built in it, are inside too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        netns::inside(&netns::require(&self.name)?, work)
    }

    /// An interactive `ssh` to the host.
    pub fn ssh_command(&self, host: &str) -> Result<Command> {
        netns::require(&self.name)?;
        Ok(ssh::client(
            &self.name,
            &self.folder,
            self.known_host(host)?,
        ))
    }

    /// Runs `argv` on the host (words arrive unchanged); a non-zero exit is no error. 5 minutes at most.
    pub fn ssh(&self, host: &str, argv: &[&str]) -> Result<Output> {
        self.ssh_limited(host, argv, b"", COMMAND_LIMIT)
    }

    /// As [`Lab::ssh`], with standard input and an own time limit.
    pub fn ssh_limited(
        &self,
        host: &str,
        argv: &[&str],
        input: &[u8],
        limit: Duration,
    ) -> Result<Output> {
        let host = self.known_host(host)?;
        ssh::run(&self.name, &self.folder, host, argv, input, limit)
    }

    /// As [`Lab::ssh`], for its standard output; a non-zero exit is an error with the output in it.
    pub fn ssh_ok(&self, host: &str, argv: &[&str]) -> Result<String> {
        self.ssh_ok_limited(host, argv, COMMAND_LIMIT)
    }

    /// As [`Lab::ssh_ok`], with an own time limit.
    pub fn ssh_ok_limited(&self, host: &str, argv: &[&str], limit: Duration) -> Result<String> {
        let output = self.ssh_limited(host, argv, b"", limit)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let mut shown = Command::new("ssh");
        shown.arg(host).args(argv);
        Err(failure(&shown, &output))
    }

    pub(crate) fn known_host(&self, name: &str) -> Result<Host> {
        let host: Host = name.parse()?;
        let hosts = self.hosts()?;
        if hosts.contains(&host) {
            return Ok(host);
        }
        let has: Vec<String> = hosts.iter().map(|h| h.name()).collect();
        Err(LabError::refused(format!(
            "lab `{}` has no host `{name}`; it has: {}",
            self.name,
            if has.is_empty() {
                "none (not up)".to_owned()
            } else {
                has.join(", ")
            }
        )))
    }

    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::take(&self.store.lock(&format!("lab-{}", self.name)), LOCK_LIMIT)
    }

    pub(crate) fn state(&self) -> Result<Option<LabState>> {
        state::read(&self.folder.state())
    }

    pub(crate) fn machine<'a>(&'a self, cgroups: &'a Cgroups, host: Host) -> Machine<'a> {
        Machine {
            lab: &self.name,
            host,
            cgroups,
            folder: self.folder.host(host),
        }
    }

    /// Folders below the hosts' disks, the topmost first.
    pub(crate) fn lower_layers(&self, state: &LabState) -> Vec<PathBuf> {
        let layers = state.layers.iter().map(|l| layer::root(&self.store, l));
        layers
            .chain([self.store.bases().join(&state.base)])
            .collect()
    }
}
