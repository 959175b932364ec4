//! A storm of alerts against a running bot on one processor: alerts made durable a second, and what people wait for
//! while very many alerts are open. Needs no hosts: nothing is repaired in a storm.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use comfy_table::Table;
use serde::Serialize;
use serde_json::json;

use crate::scenario::{Program, capture};
use crate::{Progress, wait};

const ADDRESS: &str = "127.0.0.1:19190";
const TOKEN: &str = "bench-token";
/// Open alerts while people ask.
const OPEN: u64 = 20_000;
/// Questions of each kind.
const QUESTIONS: usize = 100;
const START_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What one run found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Flood {
    build: &'static str,
    /// What → its figures.
    ingest: Vec<Ingest>,
    questions: Vec<Question>,
    open_alerts: u64,
    resident_kib_before: u64,
    resident_kib_after: u64,
}

#[derive(Debug, Serialize)]
struct Ingest {
    alerts_a_webhook: u64,
    connections: usize,
    alerts: u64,
    seconds: f64,
    a_second: f64,
    put_off: u64,
    /// Of the bot's one processor.
    busy: f64,
}

#[derive(Debug, Serialize)]
struct Question {
    words: String,
    p50_ms: f64,
    p99_ms: f64,
}

pub(super) fn run(
    program: &Program,
    build: &'static str,
    seconds: u32,
    progress: &Progress,
) -> anyhow::Result<Flood> {
    let folder = tempfile::tempdir().context("make a folder for the bot")?;
    write_files(folder.path())?;
    let bot = Bot::start(program, folder.path())?;
    let mut flood = Flood {
        build,
        open_alerts: OPEN,
        resident_kib_before: bot.resident_kib()?,
        ..Flood::default()
    };
    // Every case tells of alerts that nobody has told of before.
    let next = AtomicU64::new(0);
    for (alerts_a_webhook, connections) in [(1, 64), (20, 16), (200, 4)] {
        let title = format!("{alerts_a_webhook} alerts a webhook, {connections} connections");
        let phase = progress.phase(&title);
        let length = Duration::from_secs(u64::from(seconds));
        flood
            .ingest
            .push(ingest(&bot, &next, alerts_a_webhook, connections, length)?);
        phase.done();
    }
    let sent = next.load(Ordering::Relaxed);
    let phase = progress.phase(&format!("end all but {OPEN} of {sent} alerts"));
    resolve(OPEN..sent)?;
    phase.done();
    for words in [
        &["status"][..],
        &["alerts"],
        &["incidents"],
        &["ack", "INCIDENT"],
    ] {
        let phase = progress.phase(&format!("{QUESTIONS} times `{}`", words.join(" ")));
        flood.questions.push(bot.ask_often(words)?);
        phase.done();
    }
    flood.resident_kib_after = bot.resident_kib()?;
    Ok(flood)
}

fn write_files(folder: &Path) -> anyhow::Result<()> {
    let site = "site: flood\nssh: {user: root, identity: key, known_hosts: known_hosts}\n\
                hosts:\n  h1: {address: 127.0.0.1}\nservices:\n  memcached: {on: h1}\n";
    let config = json!({
        "site": "site.yaml", "state_dir": "state", "listen": ADDRESS,
        "sources": {"alertmanager": [{"name": "am", "token": {"file": "token"}}]},
    });
    for (name, text) in [
        ("site.yaml", site.to_owned()),
        ("nightshift.yaml", config.to_string()),
        ("token", TOKEN.to_owned()),
        ("key", String::new()),
        ("known_hosts", String::new()),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The bot on the first processor alone; whoever measures has the others.
struct Bot {
    child: Child,
    program: PathBuf,
    config: PathBuf,
}

impl Bot {
    fn start(program: &Program, folder: &Path) -> anyhow::Result<Bot> {
        let config = folder.join("nightshift.yaml");
        let log = fs::File::create(folder.join("bot.log"))?;
        let child = Command::new("taskset")
            .args(["--cpu-list", "0"])
            .arg(program.path())
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the bot")?;
        let bot = Bot {
            child,
            program: program.path().to_owned(),
            config,
        };
        let answered = wait::until("the bot's first answer", START_LIMIT, || {
            bot.ask(&["whoami"]).map_err(|error| format!("{error:#}"))
        });
        let log = folder.join("bot.log");
        answered.with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        Ok(bot)
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(words)
            .arg("--json");
        Ok(capture(&mut command)?)
    }

    /// As a person at a terminal meets it: a process for every question. INCIDENT: another one each time.
    fn ask_often(&self, words: &[&str]) -> anyhow::Result<Question> {
        let answer: serde_json::Value = serde_json::from_str(&self.ask(&["incidents"])?)?;
        let incidents = answer["data"]["incidents"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ensure!(!incidents.is_empty(), "expected open incidents, found none");
        let mut took = Vec::with_capacity(QUESTIONS);
        for number in 0..QUESTIONS {
            let incident = incidents[number % incidents.len()]["id"]
                .as_str()
                .unwrap_or_default();
            let words: Vec<&str> = words
                .iter()
                .map(|word| if *word == "INCIDENT" { incident } else { word })
                .collect();
            let start = Instant::now();
            self.ask(&words)?;
            took.push(start.elapsed());
        }
        took.sort();
        let at = |share: usize| {
            took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1000.0
        };
        Ok(Question {
            words: words.join(" "),
            p50_ms: at(50),
            p99_ms: at(99),
        })
    }

    fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|kib| kib.parse().ok())
            .context("the bot has no memory")
    }

    /// Processor time so far.
    fn busy(&self) -> anyhow::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = text.rsplit_once(')').context("stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
        };
        let ticks = ticks(11).zip(ticks(12)).context("stat")?;
        // A clock tick is 10 ms on Linux, whatever the kernel's own timer does.
        Ok(Duration::from_millis((ticks.0 + ticks.1) * 10))
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ingest(
    bot: &Bot,
    next: &AtomicU64,
    alerts_a_webhook: u64,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Ingest> {
    let (stored, put_off) = (AtomicU64::new(0), AtomicU64::new(0));
    let (start, busy) = (Instant::now(), bot.busy()?);
    std::thread::scope(|scope| {
        let send = || -> anyhow::Result<()> {
            let mut sender = Sender::connect()?;
            while start.elapsed() < length {
                let first = next.fetch_add(alerts_a_webhook, Ordering::Relaxed);
                let body = webhook(first..first + alerts_a_webhook, "firing");
                while !sender.send(&body)? {
                    put_off.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
                stored.fetch_add(alerts_a_webhook, Ordering::Relaxed);
            }
            Ok(())
        };
        let senders: Vec<_> = (0..connections).map(|_| scope.spawn(send)).collect();
        for sender in senders {
            sender
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a sender panicked")))?;
        }
        anyhow::Ok(())
    })?;
    let took = start.elapsed().as_secs_f64();
    let alerts = stored.load(Ordering::Relaxed);
    Ok(Ingest {
        alerts_a_webhook,
        connections,
        alerts,
        seconds: took,
        a_second: alerts as f64 / took,
        put_off: put_off.load(Ordering::Relaxed),
        busy: (bot.busy()? - busy).as_secs_f64() / took,
    })
}

fn resolve(alerts: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut sender = Sender::connect()?;
    let mut first = alerts.start;
    while first < alerts.end {
        let last = (first + 500).min(alerts.end);
        let body = webhook(first..last, "resolved");
        while !sender.send(&body)? {
            std::thread::sleep(Duration::from_millis(50));
        }
        first = last;
    }
    Ok(())
}

/// As Alertmanager sends it. A hundred names, so that there are very many alerts of each.
fn webhook(alerts: std::ops::Range<u64>, status: &str) -> String {
    let ends = if status == "firing" {
        "0001-01-01T00:00:00Z"
    } else {
        "2026-01-01T01:00:00Z"
    };
    let alerts: Vec<_> = alerts
        .map(|number| {
            json!({
                "status": status,
                "labels": {
                    "alertname": format!("Flood{}", number % 100), "severity": "warning", "instance": format!("10.0.{}.{}:9100", number / 250 % 250, number % 250),
                    "job": "node", "device": format!("sd{number}"),
                },
                "annotations": {"summary": "The disk will be full in four hours", "description": format!("Only 3.1% are left on sd{number}.")},
                "startsAt": "2026-01-01T00:00:00Z", "endsAt": ends,
                "generatorURL": "http://prometheus.example.org/graph?g0.expr=x", "fingerprint": format!("{number:016x}"),
            })
        })
        .collect();
    let body = json!({
        "receiver": "nightshift", "status": status, "alerts": alerts, "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager.example.org", "version": "4", "groupKey": "{}", "truncatedAlerts": 0,
    });
    body.to_string()
}

/// One kept connection.
struct Sender(TcpStream);

impl Sender {
    fn connect() -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(ADDRESS).context("reach the bot")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Sender(stream))
    }

    /// True: durable. False: the bot asks to come again.
    fn send(&mut self, body: &str) -> anyhow::Result<bool> {
        let head = format!(
            "POST /v1/alertmanager HTTP/1.1\r\nHost: bot\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let answer = self.answer()?;
        match answer.get(9..12) {
            Some("200") => Ok(true),
            Some("503") => Ok(false),
            _ => anyhow::bail!("expected 200 or 503, found: {answer}"),
        }
    }

    /// One whole answer: the bot gives every one a length, and a line's end at its end.
    fn answer(&mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        loop {
            let mut part = [0; 1024];
            let read = self.0.read(&mut part)?;
            ensure!(read > 0, "the bot closed the connection");
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer);
            if text
                .split_once("\r\n\r\n")
                .is_some_and(|(_, body)| body.ends_with('\n'))
            {
                return Ok(text.into_owned());
            }
        }
    }
}

impl Flood {
    pub(super) fn table(&self) -> String {
        let mut ingest = Table::new();
        ingest.set_header([
            "alerts a webhook",
            "connections",
            "alerts",
            "durable a second",
            "put off",
            "processor busy",
        ]);
        for row in &self.ingest {
            ingest.add_row([
                row.alerts_a_webhook.to_string(),
                row.connections.to_string(),
                row.alerts.to_string(),
                format!("{:.0}", row.a_second),
                row.put_off.to_string(),
                format!("{:.0} %", row.busy * 100.0),
            ]);
        }
        let mut questions = Table::new();
        questions.set_header([
            format!("with {} open alerts", self.open_alerts),
            "p50 ms".to_owned(),
            "p99 ms".to_owned(),
        ]);
        for row in &self.questions {
            questions.add_row([
                row.words.clone(),
                format!("{:.1}", row.p50_ms),
                format!("{:.1}", row.p99_ms),
            ]);
        }
        format!(
            "flood: {} build on one processor\n{ingest}\n{questions}\nmemory: {} MiB before, {} MiB after",
            self.build,
            self.resident_kib_before / 1024,
            self.resident_kib_after / 1024
        )
    }
}
