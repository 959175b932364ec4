//! `export`: a small Prometheus exporter for signs that no other exporter shows. Each scrape asks the host anew through the same
//! probes that the engine uses; nothing is kept between scrapes.

mod page;
mod signs;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use signs::{Config, Unread};

use super::{exec::Exec, probe, root::Root};

/// Connections served at once: a few Prometheus replicas and a curious person. More are turned away, so that a host never
/// drowns in questions about itself.
const CONNECTIONS_LIMIT: usize = 8;
/// A request head that is longer is no scrape.
const HEAD_LIMIT_BYTES: usize = 8 * 1024;
/// For reading the request and for writing the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until it is stopped.
///
/// # Errors
/// The configuration cannot be read or the address cannot be listened on.
pub fn serve(root: &Root, config: &str) -> Result<(), String> {
    let config = read_config(Path::new(config))?;
    // Parsed here: looking a name up would bring the C library's resolver into a static program.
    let address: SocketAddr = config.listen.parse().map_err(|_| {
        format!(
            "expected ADDRESS:PORT to listen on, found {:?}",
            config.listen
        )
    })?;
    let listener = TcpListener::bind(address)
        .map_err(|error| format!("expected to listen on {}, found: {error}", config.listen))?;
    let (root, config) = (Arc::new(root.clone()), Arc::new(config));
    let told = Arc::new(Mutex::default());
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        // A connection that broke before it was accepted concerns nobody else.
        let Ok(stream) = stream else { continue };
        if busy.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_LIMIT {
            busy.fetch_sub(1, Ordering::SeqCst);
            let _ = answer(&stream, "503 Service Unavailable", "too many connections\n");
            continue;
        }
        let (root, config, busy) = (root.clone(), config.clone(), busy.clone());
        let told = told.clone();
        thread::spawn(move || {
            // The client went away: there is nobody left to tell.
            let _ = handle(&stream, &root, &config, &told);
            busy.fetch_sub(1, Ordering::SeqCst);
            if is_replaced() {
                // systemd starts the unit again, with the program that took the place of this one.
                std::process::exit(0);
            }
        });
    }
    Ok(())
}

/// Whether the path that this program was started by leads to another program now.
fn is_replaced() -> bool {
    let started_by = std::env::args_os().next();
    let now = started_by.and_then(|path| fs::canonicalize(path).ok());
    match (now, std::env::current_exe()) {
        (Some(now), Ok(own)) => now != own,
        _ => false,
    }
}

fn read_config(path: &Path) -> Result<Config, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{shown}: {error}"))
}

/// What cannot be read goes to the log, once for each new reason.
fn tell(told: &Mutex<Unread>, unread: Unread) {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    for (sign, why) in &unread {
        if told.get(sign) != Some(why) {
            eprintln!("the sign {sign} cannot be read: {why}");
        }
    }
    *told = unread;
}

fn handle(
    mut stream: &TcpStream,
    root: &Root,
    config: &Config,
    told: &Mutex<Unread>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&buffer[..count]),
        }
        if head.len() > HEAD_LIMIT_BYTES {
            return answer(stream, "431 Request Header Fields Too Large", "");
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match line {
        line if line.starts_with(b"GET /metrics ") || line.starts_with(b"GET /metrics?") => {
            let exec = Exec::new(root.clone());
            let answers = probe::all(root, &exec, &signs::questions(config));
            let (page, unread) = signs::page(config, &answers);
            tell(told, unread);
            answer(stream, "200 OK", &page)
        }
        line if line.starts_with(b"GET ") => answer(stream, "404 Not Found", "see /metrics\n"),
        _ => answer(stream, "405 Method Not Allowed", ""),
    }
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}
