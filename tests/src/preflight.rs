//! Can this machine run a lab? Names everything that is missing at once; installs what apt can give.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cgroup::Cgroups;
use crate::command;
use crate::error::{LabError, Result};
use crate::progress::Progress;

/// Programs that the lab runs, with the Debian package of each.
const TOOLS: [(&str, &str); 12] = [
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("apt-cacher-ng", "apt-cacher-ng"),
    ("nft", "nftables"),
    ("socat", "socat"),
    ("ip", "iproute2"),
    ("ssh", "openssh-client"),
    ("mkfs.ext4", "e2fsprogs"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("tar", "tar"),
    ("modprobe", "kmod"),
];
/// A slow mirror, a held dpkg lock and a cold cache together.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);

/// What the lab knows about the machine after the checks.
#[derive(Debug)]
pub(crate) struct Machine {
    pub codename: String,
    pub cgroups: Cgroups,
}

/// Checks the machine and installs missing tools.
///
/// # Errors
/// [`LabError::Missing`] with everything that is missing; nothing was changed then.
pub(crate) fn prepare(progress: &Progress) -> Result<Machine> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        let uid = rustix::process::geteuid().as_raw();
        missing.push(format!(
            "root rights (found user id {uid}): run it with sudo"
        ));
    }
    let system = field(&release, "ID");
    if system != Some("debian") {
        missing.push(format!(
            "Debian (found `{}`): tools and hosts come from Debian's archive",
            system.unwrap_or("unknown")
        ));
    }
    let cgroups = Cgroups::find();
    if let Err(LabError::Missing(more)) = &cgroups {
        missing.extend(more.clone());
    }
    missing.extend(kernel_gaps());
    if !missing.is_empty() {
        return Err(LabError::Missing(missing));
    }
    install(progress)?;
    Ok(Machine {
        codename: field(&release, "VERSION_CODENAME")
            .unwrap_or_default()
            .to_owned(),
        cgroups: cgroups?,
    })
}

/// Abilities of kernel and container that no package can give.
fn kernel_gaps() -> Vec<String> {
    let mut gaps = Vec::new();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in ["overlay", "ext4"] {
        let builtin = filesystems
            .lines()
            .any(|l| l.trim_start_matches("nodev").trim() == name);
        if !builtin && !module_loads(name) {
            gaps.push(format!("the file system `{name}` in this kernel"));
        }
    }
    if !Path::new("/dev/loop-control").exists() && !module_loads("loop") {
        gaps.push("loop devices (/dev/loop-control)".to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if rustix::process::geteuid().is_root() {
        // Bit numbers from linux/capability.h.
        for (bit, name) in [
            (12, "CAP_NET_ADMIN"),
            (21, "CAP_SYS_ADMIN"),
            (27, "CAP_MKNOD"),
        ] {
            if capabilities & (1 << bit) == 0 {
                gaps.push(format!("the capability {name} (a container without it?)"));
            }
        }
    }
    gaps
}

fn module_loads(name: &str) -> bool {
    rustix::process::geteuid().is_root()
        && command::run(Command::new("modprobe").arg(name), command::QUICK).is_ok()
}

/// The value of a field of `os-release`.
fn field<'a>(release: &'a str, name: &str) -> Option<&'a str> {
    release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}

fn installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

fn install(progress: &Progress) -> Result<()> {
    let mut packages: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let phase = progress.phase(&format!("apt-get install {}", packages.join(" ")));
    let quiet = Path::new("/run/systemd/system").exists() && packages.contains(&"apt-cacher-ng");
    if quiet {
        systemctl("mask")?;
    }
    let mut update = Command::new("apt-get");
    update.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]);
    let mut install = Command::new("apt-get");
    install
        // In runlevel 1 no service of a package is started by a machine without systemd.
        .envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y"])
        .arg("--no-install-recommends")
        .args(&packages);
    // Fresh machines have old or no indexes; a machine that cannot update may still install.
    let updated = command::run(&mut update, INSTALL_LIMIT);
    let result = command::run(&mut install, INSTALL_LIMIT);
    if quiet {
        systemctl("unmask")?;
        systemctl("disable")?;
    }
    match (result, updated) {
        (Err(_), Err(update)) => Err(update),
        (result, _) => result.map(|_| phase.done()),
    }
}

/// The packaged service must not run: the lab starts its own cache.
fn systemctl(verb: &str) -> Result<()> {
    let mut command = Command::new("systemctl");
    command.args([verb, "--quiet", "apt-cacher-ng.service"]);
    command::run(&mut command, command::QUICK).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_os_release() {
        let text = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(field(text, "ID"), Some("debian"));
        assert_eq!(field(text, "VERSION_CODENAME"), Some("bookworm"));
        assert_eq!(field(text, "VERSION"), None);
    }
}
