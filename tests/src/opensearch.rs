//! A real OpenSearch node for tests, on loopback only: new and empty, run by an unprivileged user, gone when dropped.
//!
//! It is the server that the service `elasticsearch` deploys, from the same artefact. The artefact goes into the lab's store, once
//! per machine and version.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::geteuid;

use crate::{
    command::{QUICK, run},
    error::{IoContext, LabError, Result},
    lock::Lock,
    maven,
    paths::Store,
    wait,
};

/// The version that the bot is tested against.
pub const VERSION: &str = "2.19.6";
/// Its server, as its build publishes it.
pub const ARTEFACT: &str =
    "org/opensearch/distribution/integ-test-zip/opensearch/2.19.6/opensearch-2.19.6.zip";
pub const SHA256: &str = "71d6d8b1c637f3faecda0752b184b1cc526fc6eaad59ec1408c6327bb00b9293";
/// 60 MB over a slow line, and a Java runtime with a held dpkg lock.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
/// From the start to the first answer: 17 s on an idle machine of two cores.
const START_LIMIT: Duration = Duration::from_secs(180);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A busy node takes seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT_BYTES: u64 = 16 << 20;
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";
const PACKAGES: [&str; 2] = ["openjdk-17-jre-headless", "libarchive-tools"];
/// It refuses to run as root.
const USER: &str = "nobody";
const GROUP: &str = "nogroup";

/// A running node.
#[derive(Debug)]
pub struct OpenSearch {
    programs: PathBuf,
    folder: tempfile::TempDir,
    http_port: u16,
    transport_port: u16,
    heap_mib: u32,
    child: Option<Child>,
}

impl OpenSearch {
    /// Installs it if needed: for those who will start it where its registry is not reached.
    pub fn prepare() -> Result<()> {
        install(&Store::from_environment()).map(drop)
    }

    /// Installs it if needed and starts a new, empty node with a heap of 512 MiB.
    pub fn start() -> Result<OpenSearch> {
        Self::with_heap(512)
    }

    pub fn with_heap(heap_mib: u32) -> Result<OpenSearch> {
        let programs = install(&Store::from_environment())?;
        let folder = tempfile::tempdir().doing("create a folder for OpenSearch")?;
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(folder.path(), open).at("open", folder.path())?;
        let mut node = OpenSearch {
            programs,
            folder,
            http_port: free_port()?,
            transport_port: free_port()?,
            heap_mib,
            child: None,
        };
        node.configure()?;
        node.resume()?;
        Ok(node)
    }

    /// For example `http://127.0.0.1:9200`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    pub fn port(&self) -> u16 {
        self.http_port
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it, as a crash would. [`OpenSearch::resume`] brings it back with all it had stored.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it is dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`OpenSearch::kill`], at the same address, and waits until it takes requests.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("stdout.log");
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .at("open", &log)?;
        let errors = out.try_clone().doing("share OpenSearch's log")?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        self.child = Some(command.spawn().doing("start OpenSearch")?);
        wait::until("OpenSearch to answer", START_LIMIT, || self.look())
    }

    /// Java itself, without the scripts around it: one process, which ends with the test.
    fn command(&self) -> Command {
        let mut command;
        if geteuid().is_root() {
            command = Command::new("setpriv");
            command
                .arg(format!("--reuid={USER}"))
                .arg(format!("--regid={GROUP}"))
                .arg("--clear-groups")
                .arg("--pdeathsig=KILL")
                .arg(JAVA);
        } else {
            command = Command::new(JAVA);
        }
        let home = self.home();
        command
            .current_dir(&home)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .args([
                format!("-Xms{}m", self.heap_mib),
                format!("-Xmx{}m", self.heap_mib),
            ])
            .args([
                "-XX:+UseSerialGC",
                "-Djava.security.manager=allow",
                "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=\
                 org.opensearch.secure_sm.SecuredForkJoinWorkerThreadFactory",
            ])
            .arg(format!("-Djava.io.tmpdir={}", home.display()))
            .arg(format!(
                "-Dopensearch.path.home={}",
                self.programs.display()
            ))
            .arg(format!("-Dopensearch.path.conf={}", home.display()))
            .args(["-Dopensearch.distribution.type=zip", "-cp"])
            .arg(self.programs.join("lib/*"))
            .arg("org.opensearch.bootstrap.OpenSearch");
        command
    }

    fn look(&mut self) -> std::result::Result<(), String> {
        let child = self.child.as_mut();
        let ended = child.and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            return Err(format!("it ended with {status}: {}", self.log_tail()));
        }
        if answers(self.http_port) {
            Ok(())
        } else {
            Err(format!("no answer: {}", self.log_tail()))
        }
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn configure(&self) -> Result<()> {
        let home = self.home();
        fs::create_dir(&home).at("create", &home)?;
        let home_shown = home.display();
        let settings = format!(
            "cluster.name: lab\nnode.name: one\nnetwork.host: 127.0.0.1\nhttp.port: {}\ntransport.port: {}\n\
             discovery.type: single-node\npath.data: {home_shown}/data\npath.logs: {home_shown}/logs\n\
             cluster.routing.allocation.disk.threshold_enabled: false\n",
            self.http_port, self.transport_port
        );
        for (name, text) in [
            ("opensearch.yml", settings.as_str()),
            ("log4j2.properties", LOGGING),
        ] {
            let file = home.join(name);
            fs::write(&file, text).at("write", &file)?;
        }
        if geteuid().is_root() {
            let mut own = Command::new("chown");
            own.args(["-R", &format!("{USER}:{GROUP}")]).arg(&home);
            run(&mut own, QUICK)?;
        }
        Ok(())
    }

    /// The end of its log, for errors.
    pub fn log_tail(&self) -> String {
        let log = self.folder.path().join("stdout.log");
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        self.kill();
    }
}

const LOGGING: &str = "status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
";

fn install(store: &Store) -> Result<PathBuf> {
    let folder = store.root().join(format!("opensearch-{VERSION}"));
    let _lock = Lock::take(&store.lock("opensearch"), INSTALL_LIMIT)?;
    tools()?;
    if folder.exists() {
        return Ok(folder);
    }
    let zip = maven::fetch(store, ARTEFACT, SHA256)?;
    let unfinished = folder.with_extension("new");
    // What a killed run left half-way.
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).at("remove", &unfinished)?;
    }
    fs::create_dir(&unfinished).at("create", &unfinished)?;
    let mut unpack = Command::new("bsdtar");
    unpack
        .args(["-x", "--no-same-owner", "--strip-components=1", "-f"])
        .arg(&zip)
        .arg("-C")
        .arg(&unfinished);
    run(&mut unpack, INSTALL_LIMIT)?;
    // The server insists on reading this folder.
    let plugins = unfinished.join("plugins");
    fs::create_dir_all(&plugins).at("create", &plugins)?;
    let mut open = Command::new("chmod");
    run(open.args(["-R", "a+rX"]).arg(&unfinished), QUICK)?;
    fs::rename(&unfinished, &folder).at("rename", &unfinished)?;
    Ok(folder)
}

/// A Java runtime, and what unpacks.
fn tools() -> Result<()> {
    let bsdtar = Path::new("/usr/bin/bsdtar");
    let there = || Path::new(JAVA).exists() && bsdtar.exists();
    if there() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]);
    // A machine that cannot update may still install.
    let updated = run(&mut update, INSTALL_LIMIT);
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y"])
        .arg("--no-install-recommends")
        .args(PACKAGES);
    let installed = run(&mut install, INSTALL_LIMIT);
    if there() {
        return Ok(());
    }
    let why = installed
        .err()
        .or(updated.err())
        .map(|error| format!(": {error}"));
    Err(LabError::Missing(vec![format!(
        "packages {} for OpenSearch{}",
        PACKAGES.join(", "),
        why.unwrap_or_default()
    )]))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))
        .doing("find a free port for OpenSearch")?;
    let address = listener
        .local_addr()
        .doing("find a free port for OpenSearch")?;
    Ok(address.port())
}

/// A request to a node: status and body. The lab needs no HTTP client for more.
pub fn ask(
    address: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let send = || -> std::io::Result<String> {
        let to = SocketAddrV4::new(address, port);
        let mut stream = TcpStream::connect_timeout(&to.into(), CONNECT_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {to}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = send().doing(format!("ask {address}:{port} for {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok());
    match status {
        Some(status) => Ok((status, body.to_owned())),
        None => Err(LabError::refused(format!(
            "{address}:{port} answered {path} with no HTTP: {head:.80}"
        ))),
    }
}

/// Does it have a cluster that takes writes?
fn answers(port: u16) -> bool {
    let path = "/_cluster/health?wait_for_status=yellow&timeout=1s";
    ask(Ipv4Addr::LOCALHOST, port, "GET", path, "").is_ok_and(|(status, _)| status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(node: &OpenSearch, method: &str, path: &str, body: &str) -> String {
        super::ask(Ipv4Addr::LOCALHOST, node.port(), method, path, body)
            .unwrap()
            .1
    }

    #[test]
    fn a_node_comes_up_takes_documents_and_survives_a_crash() {
        let mut node = OpenSearch::start().unwrap();
        let made = ask(
            &node,
            "PUT",
            "/flog-x/_doc/1?refresh=true",
            r#"{"Payload":"a line"}"#,
        );
        assert!(made.contains(r#""result":"created""#), "{made}");
        node.kill();
        assert!(!answers(node.port()));
        node.resume().unwrap();
        wait::until("the document", Duration::from_secs(60), || {
            let found = ask(
                &node,
                "POST",
                "/flog-x/_search",
                r#"{"query":{"match":{"Payload":"line"}}}"#,
            );
            if found.contains(r#""_id":"1""#) {
                Ok(())
            } else {
                Err(found)
            }
        })
        .unwrap();
        let point = ask(
            &node,
            "POST",
            "/flog-*/_search/point_in_time?keep_alive=1m",
            "",
        );
        assert!(point.contains("pit_id"), "{point}");
    }
}
