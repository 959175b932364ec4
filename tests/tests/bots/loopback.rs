//! Hundreds of hosts behind one sshd: each address of the loopback range is a host, with an agent, a spool and a key of its own.
//!
//! The root file system is the base of the lab's hosts under a layer in memory, in mount and process namespaces of its own:
//! nothing of it is left when it is dropped. Needs root, and a lab that was up once on this machine.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use deploy_engine::{
    transport::{AGENT, Secrets, SshHosts, Target, agent_path},
    wire::STEP_SECRET,
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Arguments: base, folder of the test.
const SUPERVISOR: &str = r#"set -eu
base=$1 dir=$2
mount -t tmpfs -o mode=0755 tmpfs "$dir/memory"
mkdir "$dir/memory/upper" "$dir/memory/work"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/memory/upper,workdir=$dir/memory/work" "$dir/root"
mount -t proc proc "$dir/root/proc"
mount --rbind /dev "$dir/root/dev"
mount -t tmpfs -o mode=0755 tmpfs "$dir/root/run"
mkdir -p "$dir/root/run/sshd" "$dir/root/hosts" "$dir/root/var/lib/nightshift"
mount --bind "$dir/shared" "$dir/root/srv"
exec chroot "$dir/root" /usr/sbin/sshd -D -e -f /srv/sshd_config
"#;

/// What a login to an address gets: the state directory of that host, and the agent, which is the same for all.
const HOST: &str = r#"#!/bin/sh
set -eu
set -- $SSH_CONNECTION
mkdir -p "/hosts/$3/agent"
exec unshare --mount --propagation private sh -c '
    mount --bind "/hosts/$0" /var/lib/nightshift
    mount --bind /srv/agent /var/lib/nightshift/agent
    exec sh -c "$SSH_ORIGINAL_COMMAND"' "$3"
"#;

pub struct Loopback {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

struct StepSecret;

impl Secrets for StepSecret {
    fn reveal(&self, name: &str) -> Option<Arc<str>> {
        (name == STEP_SECRET).then(|| Arc::from("what the hosts' keys come from"))
    }

    fn all_values(&self) -> Vec<(String, Arc<str>)> {
        vec![]
    }
}

impl Loopback {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["memory", "root", "shared"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let port = free_port();
        prepare(folder.path(), port);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork"])
            .args(["--kill-child=KILL", "sh", "-c", SUPERVISOR, "loopback"])
            .arg(base())
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let loopback = Self {
            folder,
            port,
            child,
        };
        lab::wait::until("sshd", START_LIMIT, || {
            let reached = TcpStream::connect(("127.0.1.1", port));
            reached.map(drop).map_err(|error| {
                let log = fs::read_to_string(loopback.folder.path().join("log"));
                format!("{error}: {}", log.unwrap_or_default())
            })
        })
        .unwrap();
        loopback
    }

    /// A way to hosts of these names; host number 0 is at 127.0.1.1, number 250 at 127.0.2.1.
    pub fn hosts(&self, names: impl Iterator<Item = String>) -> Arc<SshHosts> {
        let target = |(number, name): (usize, String)| Target {
            host: name.parse().unwrap(),
            address: format!("127.0.{}.{}", 1 + number / 250, 1 + number % 250),
            port: self.port,
            user: "root".to_owned(),
            identity: Some(self.folder.path().join("id")),
            known_hosts: Some(self.folder.path().join("known_hosts")),
        };
        let targets = names.enumerate().map(target);
        Arc::new(SshHosts::of(targets, Arc::new(StepSecret)).unwrap())
    }

    /// A file that hosts know as `/srv/NAME`.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.folder.path().join("shared").join(name)
    }

    /// Lines of a shared file, sorted.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.shared(name)).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // With the first process of its namespace all others end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys, configuration and programs.
fn prepare(folder: &Path, port: u16) {
    let shared = folder.join("shared");
    for key in [folder.join("id"), shared.join("host_key")] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
    }
    fs::copy(folder.join("id.pub"), shared.join("authorized_keys")).unwrap();
    let public = fs::read_to_string(shared.join("host_key.pub")).unwrap();
    let known = format!("[127.0.*]:{port} {public}");
    fs::write(folder.join("known_hosts"), known).unwrap();
    let config = format!(
        "Port {port}\nListenAddress 0.0.0.0\nAllowUsers root@127.0.0.0/8\nHostKey /srv/host_key\n\
         AuthorizedKeysFile /srv/authorized_keys\nStrictModes no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\nMaxStartups 1000\nPidFile none\n\
         ForceCommand /srv/host\n"
    );
    fs::write(shared.join("sshd_config"), config).unwrap();
    program(&shared.join("host"), HOST.as_bytes());
    let path = PathBuf::from(agent_path());
    let version = path.parent().unwrap().file_name().unwrap();
    let agent = shared.join("agent").join(version);
    fs::create_dir_all(&agent).unwrap();
    program(&agent.join(path.file_name().unwrap()), AGENT);
}

fn program(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The root file system of the lab's hosts.
fn base() -> PathBuf {
    let bases = lab::Store::from_environment().root().join("bases");
    let found = fs::read_dir(&bases).into_iter().flatten().flatten();
    let mut found = found.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && path.join("usr/sbin/sshd").exists()
    });
    found.next().unwrap_or_else(|| {
        panic!(
            "expected a root file system of lab hosts in {}, found none: `nightshift-lab up` makes it",
            bases.display()
        )
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
