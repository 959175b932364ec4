//! One package cache (apt-cacher-ng) for all labs of this machine.
//!
//! It listens on loopback outside of the labs' namespaces. A relay on a unix socket leads into each
//! lab, where hosts find it at [`HOSTS_PROXY`]. Files stay as a cache; the processes end with the last lab.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cgroup::Cgroups;
use crate::command;
use crate::error::{IoContext, LabError, Result};
use crate::lock::Lock;
use crate::mirror::Mirror;
use crate::names::LabName;
use crate::paths::Store;
use crate::wait;

/// The cache as the hosts see it: the management address of their lab.
pub(crate) const HOSTS_PROXY: &str = "http://10.77.0.1:3142";
/// Socket in the cache's folder, used as a relative path: a socket's path may have 108 bytes only.
const SOCKET: &str = "relay";
/// The usual port of apt-cacher-ng, and how many are tried from there.
const FIRST_PORT: u16 = 3142;
const PORTS: u16 = 100;
/// Besides packages: artefacts of a Maven repository, which never change once they are published.
const ARTEFACTS: &str = r".*/maven2/.*\.(zip|jar|tar\.gz)$";
const START_LIMIT: Duration = Duration::from_secs(15);
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Control group of the store's cache; no lab can have this name. Another store on the same machine has
/// its own cache and must not end this one.
fn group(store: &Store) -> String {
    match store.mark() {
        None => "_packages".to_owned(),
        Some(mark) => format!("_packages-{mark}"),
    }
}

/// Registers `lab` as a user of the cache, starts the cache if needed, and gives its address on this machine.
pub(crate) fn join(
    store: &Store,
    cgroups: &Cgroups,
    mirror: &Mirror,
    lab: &LabName,
) -> Result<String> {
    let _lock = Lock::take(&store.lock("packages"), LOCK_LIMIT)?;
    let (folder, group) = (store.package_cache(), group(store));
    let users = folder.join("users");
    fs::create_dir_all(&users).at("create", &users)?;
    let user = users.join(lab.as_str());
    fs::write(&user, "").at("write", &user)?;
    let port_file = folder.join("port");
    if cgroups.populated(&group)
        && let Ok(port) = fs::read_to_string(&port_file)
        && answers(&port)
    {
        return Ok(format!("http://127.0.0.1:{port}"));
    }
    cgroups.kill(&group)?;
    let port = free_port()?.to_string();
    fs::write(&port_file, &port).at("write", &port_file)?;
    start(cgroups, &group, &folder, &port, mirror)?;
    Ok(format!("http://127.0.0.1:{port}"))
}

/// Takes `lab` off the list of users; the last one ends the cache's processes.
pub(crate) fn leave(store: &Store, cgroups: &Cgroups, lab: &LabName) -> Result<()> {
    let users = store.package_cache().join("users");
    if !users.is_dir() {
        return Ok(());
    }
    let lock = Lock::take(&store.lock("packages"), LOCK_LIMIT)?;
    let _ = fs::remove_file(users.join(lab.as_str()));
    if fs::read_dir(&users).at("read", &users)?.next().is_some() {
        return Ok(());
    }
    let group = group(store);
    cgroups.kill(&group)?;
    cgroups.remove(&group)?;
    let _ = fs::remove_file(store.package_cache().join(SOCKET));
    lock.remove()
}

/// Starts the relay of one lab: a listener in its namespace, in its control group.
pub(crate) fn relay(store: &Store, cgroups: &Cgroups, group: &str, netns: &Path) -> Result<()> {
    cgroups.create(group)?;
    cgroups.kill(group)?;
    let mut relay = cgroups.daemon(group, "nsenter");
    relay
        .current_dir(store.package_cache())
        .arg(format!("--net={}", netns.display()))
        .arg("socat")
        .arg("TCP-LISTEN:3142,bind=10.77.0.1,fork,reuseaddr,backlog=64")
        .arg(format!("UNIX-CONNECT:{SOCKET}"));
    spawn(relay)
}

fn start(cgroups: &Cgroups, group: &str, folder: &Path, port: &str, mirror: &Mirror) -> Result<()> {
    configure(folder, port, mirror)?;
    cgroups.create(group)?;
    let mut cache = cgroups.daemon(group, "apt-cacher-ng");
    cache.arg("-c").arg(folder.join("config"));
    spawn(cache)?;
    let _ = fs::remove_file(folder.join(SOCKET));
    let mut socket = cgroups.daemon(group, "socat");
    socket
        .current_dir(folder)
        .arg(format!("UNIX-LISTEN:{SOCKET},fork,backlog=64"))
        .arg(format!("TCP:127.0.0.1:{port}"));
    spawn(socket)?;
    wait::until("the package cache", START_LIMIT, || {
        if !answers(port) {
            return Err(format!("nothing answers on 127.0.0.1:{port}"));
        }
        if !folder.join(SOCKET).exists() {
            return Err("no relay socket yet".to_owned());
        }
        Ok(())
    })
}

/// Own configuration from the packaged one, without its remap lines: those answer 503 for mirrors they do not know.
fn configure(folder: &Path, port: &str, mirror: &Mirror) -> Result<()> {
    let config = folder.join("config");
    for part in ["cache", "log", "config"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).at("create", &part)?;
    }
    let mut copy = Command::new("cp");
    copy.args(["-r", "/etc/apt-cacher-ng/.", &config.to_string_lossy()]);
    command::run(&mut copy, command::QUICK)?;
    let _ = fs::remove_file(config.join("zz_debconf.conf"));
    let mut text = format!(
        "CacheDir: {0}/cache\nLogDir: {0}/log\nSupportDir: /usr/lib/apt-cacher-ng\nPort: {port}\n\
         BindAddress: 127.0.0.1\nReportPage: acng-report.html\nExThreshold: 4\nForeGround: 1\n\
         AllowUserPorts: 80 443\nPfilePatternEx: {ARTEFACTS}\n",
        folder.display()
    );
    if let Some(proxy) = &mirror.proxy {
        text.push_str(&format!("Proxy: {proxy}\n"));
    }
    let file = config.join("acng.conf");
    fs::write(&file, text).at("write", &file)
}

fn answers(port: &str) -> bool {
    port.parse()
        .is_ok_and(|port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
}

/// apt-cacher-ng cannot resolve ports of 32768 and above, so none of the kernel's choice.
fn free_port() -> Result<u16> {
    (FIRST_PORT..FIRST_PORT + PORTS)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .ok_or_else(|| {
            LabError::refused(format!(
                "no free port on 127.0.0.1 from {FIRST_PORT} on ({PORTS} tried) for the package cache"
            ))
        })
}

/// Starts a daemon command: its starter ends at once, its output goes nowhere (it keeps own logs).
pub(crate) fn spawn(mut command: Command) -> Result<()> {
    let shown = command::shown(&command);
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .doing(format!("start `{shown}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        argv: shown,
        how: format!("failed with {status}"),
        output: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_do_not_share_a_cache_process() {
        let (a, b) = (Store::at("/a"), Store::at("/b"));
        assert_ne!(group(&a), group(&b));
        assert_eq!(group(&a), group(&Store::at("/a")));
        assert!(group(&a).parse::<LabName>().is_err());
    }
}
