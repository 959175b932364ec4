//! A real Matrix homeserver (Synapse) for tests and the demo, on loopback only.
//!
//! Synapse comes from PyPI into a virtual environment in the lab's store, once per machine and version. A homeserver started
//! inside a lab's namespace is only seen there.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    command::{QUICK, run},
    error::{IoContext, LabError, Result},
    lock::Lock,
    paths::Store,
    wait,
};

/// The version that the bot is tested against.
pub const VERSION: &str = "1.163.2";
/// 240 MB over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
/// From no database to answering: 4 s on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Its name in Matrix identifiers.
pub const SERVER_NAME: &str = "lab.test";

/// How the homeserver limits senders.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// `rc_message`: messages a second, and at once.
    pub per_second: f64,
    pub burst: u32,
}

impl Limits {
    /// None that a test would meet.
    pub const NONE: Limits = Limits {
        per_second: 10_000.0,
        burst: 10_000,
    };
    /// What Synapse does unless it is configured otherwise.
    pub const DEFAULT: Limits = Limits {
        per_second: 0.2,
        burst: 10,
    };
}

/// A homeserver; stopped when dropped, and everything it wrote removed.
#[derive(Debug)]
pub struct Synapse {
    venv: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Synapse {
    /// Installs Synapse if needed: for those who will start it where its registry is not reached.
    pub fn prepare() -> Result<()> {
        install(&Store::from_environment()).map(drop)
    }

    /// Installs Synapse if needed and starts a new, empty homeserver.
    pub fn start(limits: Limits) -> Result<Synapse> {
        let venv = install(&Store::from_environment())?;
        let folder = tempfile::tempdir().doing("create a folder for Synapse")?;
        let port = free_port()?;
        configure(&venv, folder.path(), port, limits)?;
        let mut synapse = Synapse {
            venv,
            folder,
            port,
            child: None,
        };
        synapse.resume()?;
        Ok(synapse)
    }

    /// For example `http://127.0.0.1:8008`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it, as a crash would. [`Synapse::resume`] brings it back with all it had stored.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`Synapse::kill`], at the same address.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("stdout.log");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .at("open", &log)?;
        let errors = log.try_clone().doing("share Synapse's log")?;
        let child = Command::new(self.venv.join("bin/python"))
            .args([
                "-m",
                "synapse.app.homeserver",
                "-c",
                "homeserver.yaml",
                "-c",
                "lab.yaml",
            ])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .doing("start Synapse")?;
        self.child = Some(child);
        wait::until("Synapse to answer", START_LIMIT, || self.look())
    }

    fn look(&mut self) -> std::result::Result<(), String> {
        let ended = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            return Err(format!("it ended with {status}: {}", self.log_tail()));
        }
        match answers(self.port) {
            true => Ok(()),
            false => Err(format!("no answer on {}", self.url())),
        }
    }

    /// The end of its log, for errors.
    pub fn log_tail(&self) -> String {
        let text = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let text = format!("{}{}", text("stdout.log"), text("homeserver.log"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Creates an account and returns its identifier, for example `@ann:lab.test`.
    pub fn register(&self, user: &str, password: &str) -> Result<String> {
        let mut command = Command::new(self.venv.join("bin/register_new_matrix_user"));
        command
            .current_dir(self.folder.path())
            .args([
                "--no-admin",
                "--config",
                "lab.yaml",
                "--user",
                user,
                "--password",
                password,
            ])
            .arg(self.url());
        run(&mut command, QUICK)?;
        Ok(format!("@{user}:{SERVER_NAME}"))
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The virtual environment with Synapse in it.
fn install(store: &Store) -> Result<PathBuf> {
    let venv = store.root().join(format!("synapse-{VERSION}"));
    let _lock = Lock::take(&store.lock("synapse"), INSTALL_LIMIT)?;
    let done = venv.join("complete");
    if done.exists() {
        return Ok(venv);
    }
    // What a killed run left half-way.
    if venv.exists() {
        fs::remove_dir_all(&venv).at("remove", &venv)?;
    }
    let python = python()?;
    run(
        Command::new(python).arg("-m").arg("venv").arg(&venv),
        QUICK * 4,
    )?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .arg(format!("matrix-synapse=={VERSION}"));
    run(&mut pip, INSTALL_LIMIT)?;
    fs::write(&done, VERSION).at("write", &done)?;
    Ok(venv)
}

/// A Python that can make virtual environments; Debian's has that in a package of its own.
fn python() -> Result<&'static str> {
    let has_venv = || {
        let mut command = Command::new("python3");
        run(command.args(["-c", "import venv, ensurepip"]), QUICK).is_ok()
    };
    if has_venv() {
        return Ok("python3");
    }
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "--yes",
        "--quiet",
        "--no-install-recommends",
        "python3-venv",
    ]);
    let installed = run(&mut apt, INSTALL_LIMIT);
    if has_venv() {
        return Ok("python3");
    }
    let why = installed
        .err()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    Err(LabError::Missing(vec![format!(
        "python3 with venv, for Synapse (package python3-venv){why}"
    )]))
}

fn configure(venv: &Path, folder: &Path, port: u16, limits: Limits) -> Result<()> {
    let mut generate = Command::new(venv.join("bin/python"));
    generate
        .current_dir(folder)
        .args([
            "-m",
            "synapse.app.homeserver",
            "--generate-config",
            "--report-stats=no",
        ])
        .args([
            "--server-name",
            SERVER_NAME,
            "--config-path",
            "homeserver.yaml",
        ]);
    run(&mut generate, QUICK)?;
    let overlay = folder.join("lab.yaml");
    fs::write(&overlay, overlay_text(port, limits)).at("write", &overlay)
}

/// Read after the generated configuration and wins over it: loopback only, no federation, no limits but the wanted one.
fn overlay_text(port: u16, limits: Limits) -> String {
    let many = "{per_second: 10000, burst_count: 10000}";
    format!(
        "listeners:
  - {{port: {port}, bind_addresses: ['127.0.0.1'], type: http, tls: false, resources: [{{names: [client]}}]}}
registration_shared_secret: lab
bcrypt_rounds: 4
trusted_key_servers: []
federation_domain_whitelist: []
presence: {{enabled: false}}
rc_message: {{per_second: {per_second}, burst_count: {burst}}}
rc_registration: {many}
rc_joins: {{local: {many}, remote: {many}}}
rc_joins_per_room: {many}
rc_invites: {{per_room: {many}, per_user: {many}, per_issuer: {many}}}
rc_login: {{address: {many}, account: {many}, failed_attempts: {many}}}
",
        per_second = limits.per_second,
        burst = limits.burst,
    )
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
        .doing("find a free port for Synapse")?;
    let address = listener
        .local_addr()
        .doing("find a free port for Synapse")?;
    Ok(address.port())
}

/// Does it answer the client API? A plain request: the lab needs no HTTP client for more.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(
            b"GET /_matrix/client/versions HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )?;
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head)?;
        Ok(head.starts_with(b"HTTP/1.") && head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_homeserver_comes_up_takes_accounts_and_survives_a_crash() {
        let mut synapse = Synapse::start(Limits::NONE).unwrap();
        assert_eq!(synapse.register("ann", "secret").unwrap(), "@ann:lab.test");
        synapse.kill();
        assert!(!answers(synapse.port));
        synapse.resume().unwrap();
        let again = synapse.register("ann", "secret").unwrap_err().to_string();
        assert!(again.contains("taken"), "{again}");
    }
}
