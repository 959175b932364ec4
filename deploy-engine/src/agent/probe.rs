//! Questions to the host that change nothing. A probe that could not be made says so; it never guesses.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    collect,
    exec::{Exec, failure},
    facts, http,
    resource::{plain_path, unit},
    root::Root,
};
use crate::wire::{Exit, Probe, ProbeResult, SocketAddress, TcpAnswer, TcpTarget};

/// Probes that run at once. Most wait for an answer, so more than there are CPUs.
const THREADS: usize = 16;
/// TCP targets tried at once by one probe.
const TCP_THREADS: usize = 32;
/// `getent ahostsv4` ends with this when there is no such name.
const GETENT_NOT_FOUND: i32 = 2;

/// All probes at once; the answers under the names of the questions.
pub fn all(
    root: &Root,
    exec: &Exec,
    probes: &BTreeMap<String, Probe>,
) -> BTreeMap<String, ProbeResult> {
    let list: Vec<(&String, &Probe)> = probes.iter().collect();
    let results = in_parallel(&list, THREADS, |(_, probe)| one(root, exec, probe));
    collect::map(list.iter().map(|(name, _)| (*name).clone()).zip(results))
}

/// Applies `f` to every item on at most `limit` threads, and keeps their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], limit: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let results: Mutex<BTreeMap<usize, R>> = Mutex::default();
    let lock = || results.lock().unwrap_or_else(|e| e.into_inner());
    each_index(items.len(), limit, &|index| {
        let result = f(&items[index]);
        lock().insert(index, result);
    });
    std::mem::take(&mut *lock()).into_values().collect()
}

/// Calls `f` once with every number below `count`. Not generic: threads are the costly part of the program's size.
fn each_index(count: usize, limit: usize, f: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let take = || {
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < count) {
            f(index);
        }
    };
    thread::scope(|scope| {
        for _ in 1..count.min(limit) {
            scope.spawn(take);
        }
        take();
    });
}

fn one(root: &Root, exec: &Exec, probe: &Probe) -> ProbeResult {
    let result = match probe {
        Probe::Command { command } => exec
            .run(command)
            .map(|output| ProbeResult::Command { output }),
        Probe::Http { .. } => http_get(exec, probe),
        Probe::Tcp {
            targets,
            timeout_ms,
        } => Ok(ProbeResult::Tcp {
            answers: in_parallel(targets, TCP_THREADS, |target| {
                connect(exec, target, millis(*timeout_ms))
            }),
        }),
        Probe::Socket {
            to,
            send,
            timeout_ms,
            limit_bytes,
        } => socket(root, exec, to, send, millis(*timeout_ms), *limit_bytes),
        Probe::File { path, limit_bytes } => file(root, path, *limit_bytes),
        Probe::Pulse => pulse(root),
        Probe::Units { names } => units(exec, names),
        Probe::Resolve { names, timeout_ms } => resolve_all(exec, names, millis(*timeout_ms)),
    };
    result.unwrap_or_else(|why| ProbeResult::Failed { why })
}

fn millis(count: u32) -> Duration {
    // Zero would mean "no limit" to the socket calls.
    Duration::from_millis(u64::from(count).max(1))
}

fn http_get(exec: &Exec, probe: &Probe) -> Result<ProbeResult, String> {
    let Probe::Http {
        address,
        port,
        path,
        user,
        password,
        timeout_ms,
        limit_bytes,
    } = probe
    else {
        return Err("not an HTTP probe".to_owned());
    };
    let timeout = millis(*timeout_ms);
    let response = http::send(&http::Request {
        method: "GET",
        address: numeric(exec, address, timeout)?,
        port: *port,
        path,
        login: user
            .as_deref()
            .map(|user| (user, password.as_deref().unwrap_or_default())),
        body: None,
        timeout,
        limit_bytes: *limit_bytes as usize,
    })
    .map_err(|error| format!("http://{address}:{port}{path}: {error}"))?;
    Ok(ProbeResult::Http {
        status: response.status,
        body: String::from_utf8_lossy(&response.body).into_owned(),
    })
}

/// An address as it stands, or the first one that the host's resolver has for a name.
fn numeric(exec: &Exec, address: &str, timeout: Duration) -> Result<IpAddr, String> {
    if let Ok(numeric) = address.parse() {
        return Ok(numeric);
    }
    if address == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let found = resolve(exec, address, timeout)?;
    let first = found.first().and_then(|text| text.parse().ok());
    first.ok_or_else(|| format!("expected {address} to resolve on this host, found no address"))
}

/// A static program must not use the name-service switch; `getent` is part of every glibc system and does.
fn resolve(exec: &Exec, name: &str, timeout: Duration) -> Result<Vec<String>, String> {
    super::resource::plain_name("host", name, ".-")?;
    let argv = ["getent", "ahostsv4", name];
    let output = exec.helper(&argv, timeout.max(Duration::from_secs(1)))?;
    match output.exit {
        Exit::Code(0) => Ok(parse_ahosts(&output.stdout)),
        Exit::Code(GETENT_NOT_FOUND) => Ok(vec![]),
        _ => Err(failure(&argv, &output)),
    }
}

/// One line an address and socket type; each address once.
fn parse_ahosts(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for address in text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        if !found.iter().any(|known| known == address) {
            found.push(address.to_owned());
        }
    }
    found
}

fn resolve_all(exec: &Exec, names: &[String], timeout: Duration) -> Result<ProbeResult, String> {
    let found = in_parallel(names, THREADS, |name| resolve(exec, name, timeout));
    let mut addresses = BTreeMap::new();
    for (name, found) in names.iter().zip(found) {
        addresses.insert(name.clone(), found?);
    }
    Ok(ProbeResult::Resolve { addresses })
}

fn connect(exec: &Exec, target: &TcpTarget, timeout: Duration) -> TcpAnswer {
    let result = numeric(exec, &target.address, timeout).and_then(|address| {
        TcpStream::connect_timeout(&SocketAddr::new(address, target.port), timeout)
            .map_err(|e| reason(&e))
    });
    TcpAnswer {
        target: target.clone(),
        open: result.is_ok(),
        error: result.err(),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// A stream whose reads and writes end in time.
trait Timed: Read + Write {
    fn limit(&self, left: Duration) -> io::Result<()>;
}

impl Timed for UnixStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Timed for TcpStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

fn socket(
    root: &Root,
    exec: &Exec,
    to: &SocketAddress,
    send: &str,
    timeout: Duration,
    limit: u32,
) -> Result<ProbeResult, String> {
    let (place, stream): (String, Box<dyn Timed>) = match to {
        SocketAddress::Unix { path } => {
            plain_path(path)?;
            let stream = UnixStream::connect(root.at(path))
                .map_err(|e| format!("{path}: {}", reason(&e)))?;
            (path.clone(), Box::new(stream))
        }
        SocketAddress::Tcp { address, port } => {
            let place = format!("{address}:{port}");
            let numeric = SocketAddr::new(numeric(exec, address, timeout)?, *port);
            let stream = TcpStream::connect_timeout(&numeric, timeout)
                .map_err(|e| format!("{place}: {}", reason(&e)))?;
            (place, Box::new(stream))
        }
    };
    let answer = exchange(stream, send, timeout, limit as usize)
        .map_err(|e| format!("{place}: {}", reason(&e)))?;
    Ok(ProbeResult::Socket { answer })
}

/// Sends, then reads to the end, at most `limit` bytes, within `timeout` in all.
fn exchange(
    mut stream: Box<dyn Timed>,
    send: &str,
    timeout: Duration,
    limit: usize,
) -> io::Result<String> {
    let deadline = Instant::now() + timeout;
    stream.limit(timeout)?;
    stream.write_all(send.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 8192];
    while answer.len() < limit {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.limit(left)?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    answer.truncate(limit);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn file(root: &Root, path: &str, limit: u32) -> Result<ProbeResult, String> {
    plain_path(path)?;
    let mut content = Vec::new();
    let fail = |error: io::Error| format!("expected to read {path}, found: {error}");
    match File::open(root.at(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(ProbeResult::File { content: None })
        }
        Err(error) => Err(fail(error)),
        Ok(file) => {
            if !file.metadata().map_err(fail)?.is_file() {
                return Err(format!("expected a file at {path}, found something else"));
            }
            file.take(limit.into())
                .read_to_end(&mut content)
                .map_err(fail)?;
            Ok(ProbeResult::File {
                content: Some(String::from_utf8_lossy(&content).into_owned()),
            })
        }
    }
}

fn pulse(root: &Root) -> Result<ProbeResult, String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.map_err(|_| "the clock is before 1970".to_owned())?;
    Ok(ProbeResult::Pulse {
        clock_micros: i64::try_from(micros.as_micros()).map_err(|error| error.to_string())?,
        maintenance_marker: facts::maintenance_marker(root),
    })
}

fn units(exec: &Exec, names: &[String]) -> Result<ProbeResult, String> {
    names.iter().try_for_each(|name| unit::check_name(name))?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let properties = unit::show(exec, &names)?;
    match names.iter().find(|name| !properties.contains_key(**name)) {
        Some(name) => Err(format!("systemd said nothing about {name}")),
        None => Ok(ProbeResult::Units { properties }),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;
    use crate::wire::Command;

    fn ask(root: &Root, probe: Probe) -> ProbeResult {
        one(root, &Exec::new(root.clone()), &probe)
    }

    #[test]
    fn tcp_tells_open_from_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().port();
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let target = |port| TcpTarget {
            address: "127.0.0.1".into(),
            port,
        };
        let targets = vec![target(open), target(closed)];
        let ProbeResult::Tcp { answers } = ask(
            &Root::new("/"),
            Probe::Tcp {
                targets,
                timeout_ms: 500,
            },
        ) else {
            panic!("expected answers");
        };
        assert!(answers[0].open && answers[0].error.is_none());
        assert!(!answers[1].open && answers[1].error.as_deref() == Some("refused"));
    }

    #[test]
    fn a_socket_answers_or_the_probe_failed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 9];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(b"Version: 2.6").unwrap();
            question
        });
        let probe = |path: &str| Probe::Socket {
            to: SocketAddress::Unix { path: path.into() },
            send: "show info".into(),
            timeout_ms: 2000,
            limit_bytes: 7,
        };
        assert_eq!(
            ask(&root, probe("/s")),
            ProbeResult::Socket {
                answer: "Version".into()
            }
        );
        assert_eq!(&server.join().unwrap(), b"show info");
        assert!(matches!(
            ask(&root, probe("/none")),
            ProbeResult::Failed { .. }
        ));
    }

    #[test]
    fn files_are_absent_cut_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::write(dir.path().join("a"), "0123456789").unwrap();
        let probe = |path: &str| Probe::File {
            path: path.into(),
            limit_bytes: 4,
        };
        assert_eq!(
            ask(&root, probe("/a")),
            ProbeResult::File {
                content: Some("0123".into())
            }
        );
        assert_eq!(ask(&root, probe("/b")), ProbeResult::File { content: None });
        assert!(matches!(
            ask(&root, probe("/../a")),
            ProbeResult::Failed { .. }
        ));
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(matches!(
            ask(&root, probe("/d")),
            ProbeResult::Failed { .. }
        ));
    }

    #[test]
    fn probes_run_at_once_and_keep_their_names() {
        let command = |seconds: &str| Probe::Command {
            command: Command {
                argv: vec!["sleep".into(), seconds.into()],
                env: Default::default(),
                stdin: None,
                user: None,
                timeout_seconds: 5,
                output_limit_bytes: 10,
            },
        };
        let probes: BTreeMap<String, Probe> =
            (0..8).map(|n| (n.to_string(), command("0.3"))).collect();
        let root = Root::new("/");
        let began = Instant::now();
        let results = all(&root, &Exec::new(root.clone()), &probes);
        assert!(
            began.elapsed() < Duration::from_millis(1500),
            "{:?}",
            began.elapsed()
        );
        assert!(results.keys().eq(probes.keys()));
    }

    #[test]
    fn names_resolve_through_the_host() {
        let names = vec!["localhost".to_owned()];
        let found = ask(
            &Root::new("/"),
            Probe::Resolve {
                names,
                timeout_ms: 2000,
            },
        );
        let ProbeResult::Resolve { addresses } = found else {
            panic!("{found:?}")
        };
        assert_eq!(addresses["localhost"], ["127.0.0.1"]);
        let names = vec!["-h".to_owned()];
        assert!(matches!(
            ask(
                &Root::new("/"),
                Probe::Resolve {
                    names,
                    timeout_ms: 1
                }
            ),
            ProbeResult::Failed { .. }
        ));
        assert_eq!(
            parse_ahosts("10.0.0.1 STREAM h\n10.0.0.1 DGRAM\n10.0.0.2 STREAM\n"),
            ["10.0.0.1", "10.0.0.2"]
        );
    }
}
