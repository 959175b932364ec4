//! One host as a machine: power on, power cut, disk. What happens inside is the host's business.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cgroup::Cgroups;
use crate::command;
use crate::error::{IoContext, LabError, Result};
use crate::names::{Host, LabName};
use crate::netns;
use crate::paths::HostFolder;
use crate::wait;

/// Size of a host's disk in bytes, sparse on the machine: filling it fills the host, not the machine.
/// An all-in-one OpenStack wrote 2.2 GiB.
pub(crate) const DISK_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// From power on to sshd's banner: 2 s on an idle machine, more when six labs boot at once.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// From the start of the supervisor to its place in the host's control group.
const START_LIMIT: Duration = Duration::from_secs(15);
/// After the last process of a host the kernel still unmounts its disk.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
const SSH_PORT: u16 = 22;
const SUPERVISOR: &str = include_str!("host-run.sh");

/// A host together with what is needed to act on it from outside.
#[derive(Debug, Clone)]
pub(crate) struct Machine<'a> {
    pub lab: &'a LabName,
    pub host: Host,
    pub cgroups: &'a Cgroups,
    pub folder: HostFolder,
}

impl Machine<'_> {
    /// Control group of the host, relative.
    pub fn group(&self) -> String {
        format!("{}/{}", self.lab, self.host)
    }

    /// The version 2 folder that the host's systemd sees as its root.
    pub fn inner_group(&self) -> PathBuf {
        self.cgroups.v2(&self.group()).join("host/payload")
    }

    pub fn powered(&self) -> bool {
        self.cgroups.populated(&self.group())
    }

    /// Makes the disk, if there is none yet.
    pub fn ensure_disk(&self) -> Result<()> {
        let (disk, unfinished) = (self.folder.disk(), self.folder.root().join("disk.new"));
        if disk.exists() {
            return Ok(());
        }
        let file = File::create(&unfinished).at("create", &unfinished)?;
        file.set_len(DISK_BYTES).at("resize", &unfinished)?;
        let mut mkfs = Command::new("mkfs.ext4");
        // No reserved blocks: root runs most of what a full disk must hit. No journal: see the supervisor.
        mkfs.args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E"])
            .arg("lazy_itable_init=1,nodiscard")
            .arg(&unfinished);
        command::run(&mut mkfs, command::QUICK)?;
        fs::rename(&unfinished, &disk).at("rename", &unfinished)
    }

    /// Boots the host with these lower layers, the topmost first; does not wait for it.
    pub fn power_on(&self, layers: &[PathBuf]) -> Result<()> {
        let group = self.group();
        for part in ["supervisor", "host"] {
            self.cgroups.create(&format!("{group}/{part}"))?;
        }
        let lower: Vec<_> = layers.iter().map(|l| l.to_string_lossy()).collect();
        let mut command = Command::new("setsid");
        command
            .args(["--fork", "unshare", "--mount", "--propagation", "slave"])
            .args(["sh", "-c", SUPERVISOR, "lab-host"])
            .arg(self.folder.root())
            .arg(lower.join(":"))
            .arg(self.host.name())
            .arg(netns::path(&netns::host_netns(self.lab, self.host)))
            .args(self.cgroups.folders(&group));
        let console = self.folder.console();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&console)
            .at("open", &console)?;
        let errors = log.try_clone().at("open", &console)?;
        let status = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status()
            .doing("start the supervisor of a host")?;
        let what = format!("the supervisor of {}", self.host);
        wait::until(&what, START_LIMIT, || {
            if self.powered() {
                return Ok(());
            }
            Err(self.with_console(&format!("has no process (starter: {status})")))
        })
    }

    /// Kills all processes of the host at once and waits until its disk is released.
    pub fn power_cut(&self) -> Result<()> {
        self.cgroups.kill(&self.group())?;
        let disk = self.folder.disk();
        wait::until(
            &format!("the release of {}'s disk", self.host),
            RELEASE_LIMIT,
            || match loop_device_of(&disk) {
                Some(device) => Err(format!("{} is still attached", device.display())),
                None => Ok(()),
            },
        )
    }

    /// Process id of the supervisor, in whose mount namespace the disk is mounted.
    pub fn supervisor(&self) -> Result<u32> {
        let file = self
            .cgroups
            .v2(&self.group())
            .join("supervisor/cgroup.procs");
        let text = fs::read_to_string(&file).at("read", &file)?;
        let first = text.lines().next().and_then(|line| line.parse().ok());
        first.ok_or_else(|| LabError::refused(format!("{} has no supervisor", self.host)))
    }

    /// Freezes all of the host (or thaws it) and waits for the kernel's confirmation.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let folder = self.cgroups.v2(&self.group()).join("host");
        self.cgroups.freeze(&folder, frozen)
    }

    /// Whether sshd shows its banner within `limit`.
    pub fn sshd_answers_within(&self, limit: Duration) -> Result<bool> {
        let address = SocketAddr::from((self.host.address(), SSH_PORT));
        let answer = netns::inside(&netns::lab_netns(self.lab), || {
            wait::until("a banner", limit, || {
                banner(address).map_err(|e| e.to_string())
            })
        })?;
        match answer {
            Ok(()) => Ok(true),
            Err(LabError::Timeout { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Waits for the banner of the host's sshd.
    pub fn wait_for_sshd(&self) -> Result<()> {
        let address = SocketAddr::from((self.host.address(), SSH_PORT));
        let what = format!("sshd of {}", self.host);
        let result = netns::inside(&netns::lab_netns(self.lab), || {
            wait::until(&what, BOOT_LIMIT, || {
                let banner = banner(address).map_err(|e| format!("{address}: {e}"));
                match banner {
                    // A host that stopped by itself will never answer.
                    Err(_) if !self.powered() => Ok(false),
                    other => other.map(|()| true),
                }
            })
        })?;
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(LabError::refused(
                self.with_console("stopped during its boot"),
            )),
            Err(LabError::Timeout { what, waited, last }) => Err(LabError::Timeout {
                what,
                waited,
                last: self.with_console(&last),
            }),
            Err(other) => Err(other),
        }
    }

    fn with_console(&self, what: &str) -> String {
        let log = fs::read_to_string(self.folder.console()).unwrap_or_default();
        let lines: Vec<&str> = log.trim_end().lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("{} {what}; end of its console:\n{tail}", self.host)
    }
}

fn banner(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(CONNECT_LIMIT))?;
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    if &start != b"SSH-" {
        return Err(std::io::Error::other("no SSH banner"));
    }
    // Say who we are before leaving, else sshd logs a protocol error.
    stream.write_all(b"SSH-2.0-lab\r\n")
}

/// The loop device that holds `image`, if any.
pub(crate) fn loop_device_of(image: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir("/sys/block").ok()?;
    let mut devices = entries
        .filter_map(|e| e.ok())
        .filter(|e| e.file_name().to_string_lossy().starts_with("loop"));
    devices
        .find(|device| {
            let backing = device.path().join("loop/backing_file");
            fs::read_to_string(backing).is_ok_and(|file| Path::new(file.trim_end()) == image)
        })
        .map(|device| Path::new("/dev").join(device.file_name()))
}
