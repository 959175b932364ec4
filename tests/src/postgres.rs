//! A PostgreSQL of a test's own: a new, empty cluster on loopback, run by an unprivileged user, gone when dropped.
//!
//! The programs come from Debian's package. The cluster that the package would make and start itself is not wanted.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    command::{QUICK, run},
    error::{IoContext, LabError, Result},
    lock::Lock,
    paths::Store,
    wait,
};

/// 50 MB over a slow line, with a held dpkg lock.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
/// `initdb` takes 2 s on an idle machine, and flushes its files.
const INIT_LIMIT: Duration = Duration::from_secs(120);
/// From the start to the first answer: under a second on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// After SIGQUIT it ends at once, without writing anything.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Where Debian keeps the programs of each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// The user that Debian's package makes; PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// Who connects, with a password over TCP.
pub const ROLE: &str = "nightshift";
/// PostgreSQL's usual number.
const CONNECTIONS: u32 = 100;

/// A running cluster.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    password: String,
    child: Option<Child>,
}

impl Postgres {
    /// Installs PostgreSQL if needed and starts a new, empty cluster.
    pub fn start() -> Result<Postgres> {
        let programs = programs()?;
        let folder = tempfile::tempdir().doing("create a folder for PostgreSQL")?;
        // Others may pass through to the socket and the data, which are closed to them by themselves.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(folder.path(), open).at("open", folder.path())?;
        let mut postgres = Postgres {
            programs,
            folder,
            port: free_port()?,
            password: uuid(),
            child: None,
        };
        postgres.initialise()?;
        postgres.resume()?;
        Ok(postgres)
    }

    /// An address without the password, for example `postgres://nightshift@127.0.0.1:5432/one`.
    pub fn url(&self, database: &str) -> String {
        self.url_through(self.port, database)
    }

    /// The same through another port of loopback.
    pub fn url_through(&self, port: u16, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{port}/{database}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// Makes a new, empty database.
    pub fn database(&self, name: &str) -> Result<()> {
        let mut create = Command::new(self.programs.join("createdb"));
        create
            .env("PGPASSWORD", &self.password)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", ROLE, name]);
        run(&mut create, QUICK).map(drop)
    }

    /// Ends it at once, as a crash of its machine would. [`Postgres::resume`] brings it back with what was committed.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal(&child, Signal::QUIT);
        let ended = wait::until("the end of PostgreSQL", STOP_LIMIT, || {
            match child.try_wait() {
                Ok(None) => Err("it runs".to_owned()),
                _ => Ok(()),
            }
        });
        if ended.is_err() {
            // Both fail only when it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`Postgres::kill`], at the same address.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.log();
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .at("open", &log)?;
        let errors = out.try_clone().doing("share PostgreSQL's log")?;
        let mut command = unprivileged(&self.programs.join("postgres"));
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", &format!("max_connections={CONNECTIONS}")])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors);
        self.child = Some(command.spawn().doing("start PostgreSQL")?);
        wait::until("PostgreSQL to answer", START_LIMIT, || self.look())
    }

    fn look(&mut self) -> std::result::Result<(), String> {
        let child = self.child.as_mut();
        let ended = child.and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            return Err(format!("it ended with {status}: {}", self.log_tail()));
        }
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        run(&mut ready, QUICK).map(drop).map_err(|e| e.to_string())
    }

    fn initialise(&self) -> Result<()> {
        let home = self.home();
        fs::create_dir(&home).at("create", &home)?;
        let password = self.folder.path().join("password");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&password)
            .at("create", &password)?;
        use std::io::Write;
        file.write_all(self.password.as_bytes())
            .at("write", &password)?;
        if geteuid().is_root() {
            let mut own = Command::new("chown");
            run(own.arg(USER).arg(&home).arg(&password), QUICK)?;
        }
        let mut init = unprivileged(&self.programs.join("initdb"));
        init.arg("-D")
            .arg(self.data())
            .args(["-U", ROLE, "-E", "UTF8", "--locale=C.UTF-8"])
            .args(["--auth=scram-sha-256", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()));
        run(&mut init, INIT_LIMIT).map(drop)
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The end of its log, for errors.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only when it is dead already.
        let _ = kill_process(pid, signal);
    }
}

/// The program as a user that is not root, in this very process.
fn unprivileged(program: &Path) -> Command {
    let mut command;
    if geteuid().is_root() {
        command = Command::new("setpriv");
        command
            .arg(format!("--reuid={USER}"))
            .arg(format!("--regid={USER}"))
            .arg("--clear-groups")
            // A test that is killed drops nothing; its cluster must not outlive it.
            .arg("--pdeathsig=QUIT")
            .arg(program);
    } else {
        command = Command::new(program);
    }
    // A folder that it may enter, whatever the test's own is.
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    command
}

/// The folder with the newest version's programs.
fn programs() -> Result<PathBuf> {
    let _lock = Lock::take(&Store::from_environment().lock("postgresql"), INSTALL_LIMIT)?;
    if let Some(found) = installed() {
        return Ok(found);
    }
    let outcome = install();
    installed().ok_or_else(|| {
        let why = outcome.err().map(|error| format!(": {error}"));
        let why = why.unwrap_or_default();
        LabError::Missing(vec![format!("PostgreSQL (package postgresql-15){why}")])
    })
}

fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir(PROGRAMS).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let programs = path.join("bin");
        programs
            .join("initdb")
            .exists()
            .then_some((version, programs))
    });
    versions.max().map(|(_, programs)| programs)
}

fn install() -> Result<()> {
    // The package's own cluster would take the usual port.
    let config = Path::new("/etc/postgresql-common/createcluster.conf");
    if !config.exists() {
        let folder = Path::new("/etc/postgresql-common");
        fs::create_dir_all(folder).at("create", folder)?;
        fs::write(config, "create_main_cluster = false\n").at("write", config)?;
    }
    let mut update = Command::new("apt-get");
    update.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]);
    // A machine that cannot update may still install.
    let updated = run(&mut update, INSTALL_LIMIT);
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y"])
        .args(["-o", "DPkg::Options::=--force-confold"])
        .args(["--no-install-recommends", "postgresql-15"]);
    match (run(&mut install, INSTALL_LIMIT), updated) {
        (Err(_), Err(update)) => Err(update),
        (installed, _) => installed.map(drop),
    }
}

fn free_port() -> Result<u16> {
    let find = || -> std::io::Result<u16> {
        let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        Ok(listener.local_addr()?.port())
    };
    find().doing("find a free port for PostgreSQL")
}

/// Nobody can guess it, and it needs no quoting.
fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_up_takes_databases_and_survives_a_crash() {
        let mut postgres = Postgres::start().unwrap();
        postgres.database("one").unwrap();
        postgres.kill();
        assert!(postgres.database("two").is_err());
        postgres.resume().unwrap();
        let again = postgres.database("one").unwrap_err().to_string();
        assert!(again.contains("already exists"), "{again}");
    }
}
