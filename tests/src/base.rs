//! The cached root file system of all hosts: a plain Debian 12 server, built once per recipe.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::cgroup::Cgroups;
use crate::command;
use crate::error::{IoContext, LabError, Result};
use crate::lock::Lock;
use crate::mirror::{Mirror, SUITE};
use crate::names::LabName;
use crate::package_cache::HOSTS_PROXY;
use crate::paths::Store;
use crate::progress::Progress;

/// What a plain Debian server has, and Python for the benchmarks against tools that need it on the hosts.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,openssh-server,iproute2,iputils-ping,python3,\
    python3-apt,ca-certificates,nftables,curl,procps,sudo,netbase,kmod,udev,rsync,socat,cron,\
    logrotate,lsb-release,gnupg";
/// Units that make no sense in a host without own kernel, console or clock, or that would change packages by themselves.
const MASKED: [&str; 16] = [
    "systemd-udevd.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-udev-trigger.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-networkd-wait-online.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "dev-hugepages.mount",
    "getty.target",
    "console-getty.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
];
/// Files of the base. Packages are unpacked without fsync and documentation: hosts are thrown away.
const FILES: [(&str, &str); 6] = [
    (
        "etc/dpkg/dpkg.cfg.d/lab",
        "force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n\
         path-exclude=/usr/share/locale/*\n",
    ),
    (
        "etc/ssh/sshd_config.d/lab.conf",
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nUseDNS no\n",
    ),
    (
        "etc/systemd/journald.conf.d/lab.conf",
        "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n",
    ),
    ("etc/default/locale", "LANG=C.UTF-8\n"),
    ("etc/resolv.conf", "# No DNS in the lab: /etc/hosts only.\n"),
    ("etc/machine-id", ""),
];
/// Left by the build, wrong in a host: `policy-rc.d` would keep services of packages from starting.
const REMOVED: [&str; 5] = [
    "usr/sbin/policy-rc.d",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "var/lib/dbus/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
];
/// Cold cache on two busy cores was 76 s.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// Another lab that builds the same base at the same time.
const WAIT_LIMIT: Duration = Duration::from_secs(1300);

/// A finished base.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Hash of the recipe.
    pub key: String,
    pub root: PathBuf,
}

/// Finds the base of the present recipe in the store, or builds it; two labs at once build it once.
pub(crate) fn ensure(
    store: &Store,
    mirror: &Mirror,
    cache_url: &str,
    builder: (&Cgroups, &LabName),
    progress: &Progress,
) -> Result<Base> {
    let key = recipe_key(mirror);
    let base = Base {
        root: store.bases().join(&key),
        key,
    };
    if base.root.is_dir() {
        return Ok(base);
    }
    let lock = Lock::take(&store.lock(&format!("base-{}", base.key)), WAIT_LIMIT)?;
    if !base.root.is_dir() {
        build(store, mirror, cache_url, builder, progress, &base)?;
    }
    lock.remove()?;
    Ok(base)
}

fn build(
    store: &Store,
    mirror: &Mirror,
    cache_url: &str,
    builder: (&Cgroups, &LabName),
    progress: &Progress,
    base: &Base,
) -> Result<()> {
    let phase = progress.phase(&format!("build the base of the hosts ({})", base.key));
    let unfinished = unfinished(store, builder.1);
    remove_unfinished(store, builder.1)?;
    fs::create_dir_all(store.bases()).at("create", &store.bases())?;
    bootstrap(&unfinished, mirror, cache_url, builder)?;
    finish(&unfinished, mirror)?;
    fs::rename(&unfinished, &base.root).at("rename", &unfinished)?;
    phase.done();
    Ok(())
}

/// Group of a lab's base build inside the lab's group, so that `down` ends it too.
pub(crate) fn build_group(lab: &LabName) -> String {
    format!("{lab}/build")
}

/// Removes what a killed build of this lab left.
pub(crate) fn remove_unfinished(store: &Store, lab: &LabName) -> Result<()> {
    let folder = unfinished(store, lab);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", &folder),
    }
}

fn unfinished(store: &Store, lab: &LabName) -> PathBuf {
    store.bases().join(format!(".building-{lab}"))
}

pub(crate) fn recipe_key(mirror: &Mirror) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    add(SUITE);
    add(std::env::consts::ARCH);
    add(PACKAGES);
    add(&mirror.sources_list());
    add(&apt_conf(mirror));
    MASKED.iter().for_each(|unit| add(unit));
    FILES.iter().for_each(|(path, text)| {
        add(path);
        add(text);
    });
    REMOVED.iter().for_each(|path| add(path));
    let digest = hash.finalize();
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn apt_conf(mirror: &Mirror) -> String {
    format!(
        "Acquire::http::Proxy \"{HOSTS_PROXY}\";\n{}Acquire::Languages \"none\";\n\
         Acquire::GzipIndexes \"true\";\nAPT::Install-Recommends \"false\";\n\
         APT::Keep-Downloaded-Packages \"false\";\n",
        mirror.apt_options()
    )
}

fn bootstrap(
    root: &Path,
    mirror: &Mirror,
    cache_url: &str,
    (cgroups, lab): (&Cgroups, &LabName),
) -> Result<()> {
    let group = build_group(lab);
    cgroups.create(&group)?;
    let mut build = cgroups.inside(&group, "mmdebstrap");
    build
        .args(["--variant=minbase", "--mode=root", "--components=main"])
        // The indexes stay: hosts install without an update first.
        .args([
            "--skip=cleanup/apt/lists",
            "--aptopt=Acquire::GzipIndexes \"true\"",
        ])
        .arg("--aptopt=Acquire::Languages \"none\"")
        .args(
            mirror
                .apt_options()
                .lines()
                .map(|o| format!("--aptopt={o}")),
        )
        .arg(format!("--aptopt=Acquire::http::Proxy \"{cache_url}\""))
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=force-unsafe-io",
        ])
        .args(["--dpkgopt=path-exclude=/usr/share/man/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
        .arg(format!("--include={PACKAGES}"))
        .arg(SUITE)
        .arg(root);
    build.args(mirror.sources_list().lines());
    command::run(&mut build, BUILD_LIMIT).map(drop)
}

fn finish(root: &Path, mirror: &Mirror) -> Result<()> {
    let text = |path: &str, text: &str| -> Result<()> {
        let file = root.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        fs::write(&file, text).at("write", &file)
    };
    for path in REMOVED {
        let file = root.join(path);
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).at("remove", &file);
            }
            _ => {}
        }
    }
    remove_host_keys(&root.join("etc/ssh"))?;
    for (path, content) in FILES {
        text(path, content)?;
    }
    text("etc/apt/sources.list", &mirror.sources_list())?;
    text("etc/apt/apt.conf.d/00lab", &apt_conf(mirror))?;
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        symlink("/dev/null", &link).at("link", &link)?;
    }
    let sshd = root.join("etc/systemd/system/multi-user.target.wants/ssh.service");
    if sshd.symlink_metadata().is_err() {
        return Err(LabError::refused(
            "the base was built without an enabled ssh.service",
        ));
    }
    Ok(())
}

fn remove_host_keys(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        if path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("ssh_host_"))
        {
            fs::remove_file(&path).at("remove", &path)?;
        }
    }
    Ok(())
}
