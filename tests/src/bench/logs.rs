//! A million lines in a real store of logs: a bot finds each planted line exactly once although it is killed twice, and how fast lines
//! are looked through and shown. Needs no hosts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use comfy_table::Table;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Figures;
use super::spread::Spread;
use crate::opensearch::{OpenSearch, VERSION};
use crate::scenario::{Program, workspace};
use crate::{Progress, wait};

/// Lines of one bulk request.
const BULK: u64 = 5_000;
/// One line in so many is planted: it has a signature, and a name of its own.
const PLANTED_EVERY: u64 = 5_000;
/// One line in so many is written late, by its own time.
const LATE_EVERY: u64 = 100;
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// The server's heap.
const HEAP_MIB: u32 = 1_024;
const INDEX: &str = "flog-bench";
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const START_LIMIT: Duration = Duration::from_secs(60);
/// From the last line to a bot that has read all.
const FOUND_LIMIT: Duration = Duration::from_secs(300);
/// Questions through the bot.
const QUESTIONS: usize = 50;
/// Lines a second that the bot should look through.
const AIM: f64 = 10_000.0;
const OTHERS: [&str; 6] = [
    "haproxy",
    "sshd",
    "cron",
    "nova-compute",
    "mariadb",
    "rabbitmq",
];

/// What one run found.
#[derive(Debug, Serialize)]
pub(super) struct Logs {
    build: &'static str,
    server: &'static str,
    lines: u64,
    indexing_seconds: f64,
    planted: u64,
    found_once: u64,
    /// Names of planted lines that were found otherwise, and how often.
    wrong: BTreeMap<String, u64>,
    kills: u32,
    /// From the last line to the last planted one in the bot's store.
    found_after_seconds: f64,
    store: Store,
    questions: Spread,
    questions_through_bot: Spread,
}

/// What `runbooks/examples/log_store.rs` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Store {
    questions_ms: Vec<f64>,
    filtered: Looked,
    all: Looked,
}

#[derive(Debug, Serialize, Deserialize)]
struct Looked {
    lines: u64,
    matched: u64,
    seconds: f64,
    looks_ms: Vec<f64>,
    idle_look_ms: f64,
}

pub(super) fn run(
    build: &'static str,
    lines: u64,
    program: &Program,
    progress: &Progress,
) -> anyhow::Result<Logs> {
    let phase = progress.phase("build what reads");
    let reader = reader(build)?;
    phase.done();
    let phase = progress.phase("start OpenSearch");
    let node = OpenSearch::with_heap(HEAP_MIB)?;
    create_index(&node)?;
    phase.done();
    let folder = tempfile::tempdir().context("make a folder for the bot")?;
    let mut bot = Bot::start(program, folder.path(), &node)?;
    let phase = progress.phase(&format!("write {lines} lines, and kill the bot twice"));
    let begun = Instant::now();
    let mut planted = 0;
    for bulk in 0..lines.div_ceil(BULK) {
        let first = bulk * BULK;
        planted += write(&node, first..(first + BULK).min(lines))?;
        let third = lines / 3 / BULK;
        if bulk == third || bulk == 2 * third {
            bot = bot.killed_and_started(program, folder.path(), &node)?;
        }
    }
    let indexing_seconds = begun.elapsed().as_secs_f64();
    phase.done();
    let phase = progress.phase("wait until the bot has found them");
    let (counts, found_after_seconds) = bot.found(planted)?;
    phase.done();
    let phase = progress.phase(&format!("{QUESTIONS} times `logs` through the bot"));
    let questions_through_bot = bot.questions()?;
    phase.done();
    drop(bot);
    let phase = progress.phase("look through all lines, and ask as people do");
    let store = look(&reader, &node)?;
    phase.done();
    let millis = |ms: &f64| Duration::from_secs_f64(ms / 1000.0);
    let questions: Vec<Duration> = store.questions_ms.iter().map(millis).collect();
    let mut wrong = counts;
    for line in (0..lines).filter(|line| line % PLANTED_EVERY == 0) {
        wrong.entry(name(line)).or_insert(0);
    }
    let all = wrong.len() as u64;
    wrong.retain(|_, count| *count != 1);
    let found_once = all - wrong.len() as u64;
    Ok(Logs {
        build,
        server: VERSION,
        lines,
        indexing_seconds,
        planted,
        found_once,
        wrong,
        kills: 2,
        found_after_seconds,
        questions: Spread::of(&questions),
        store,
        questions_through_bot,
    })
}

/// The name of a planted line.
fn name(line: u64) -> String {
    format!("j{line}")
}

fn reader(build: &str) -> anyhow::Result<PathBuf> {
    let release = (build == "release").then_some("--release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--package", "runbooks", "--example", "log_store"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(release)
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(
        output.status.success(),
        "cargo ended with {}",
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let mut built = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let ours = line["target"]["name"] == "log_store";
        line["executable"]
            .as_str()
            .filter(|_| ours)
            .map(PathBuf::from)
    });
    built
        .next_back()
        .context("expected cargo to say what it built")
}

fn look(reader: &Path, node: &OpenSearch) -> anyhow::Result<Store> {
    let output = Command::new(reader)
        .args([&node.url(), INDEX])
        .stderr(Stdio::inherit())
        .output()
        .context("start the reader")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "the reader ended with {}",
        output.status
    );
    serde_json::from_str(&text).with_context(|| format!("expected JSON, found {text}"))
}

/// As Kolla's fluentd leaves it to the server: mapped by what comes.
fn create_index(node: &OpenSearch) -> anyhow::Result<()> {
    let settings = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0}});
    ask(node, "PUT", &format!("/{INDEX}"), &settings.to_string()).map(drop)
}

/// Writes lines; how many of them are planted.
fn write(node: &OpenSearch, lines: std::ops::Range<u64>) -> anyhow::Result<u64> {
    let (mut body, mut planted) = (String::new(), 0);
    let now = Timestamp::now();
    for line in lines {
        let late = line % LATE_EVERY == 7;
        let at = if late { now - LATE } else { now };
        let program = OTHERS[(line % OTHERS.len() as u64) as usize];
        let host = format!("cmp{}", line % 40);
        let text = format!(
            "line {line}: instance claimed on node, request req-{line:08x} took the lock in 0.{} s",
            line % 997
        );
        let (program, host, text) = match line % PLANTED_EVERY {
            0 => {
                planted += 1;
                let text = format!(
                    "WSREP: Member 1.0 ({}) requested state transfer from '*any*'. Selected 0.0 (ctl1)(SYNCED) as donor.",
                    name(line)
                );
                ("mariadb", "ctl1".to_owned(), text)
            }
            _ => (program, host, text),
        };
        let document = json!({
            "@timestamp": at.to_string(), "Hostname": host, "programname": program, "log_level": "INFO", "Payload": text,
        });
        body.push_str("{\"index\":{}}\n");
        body.push_str(&document.to_string());
        body.push('\n');
    }
    let answer = ask(node, "POST", &format!("/{INDEX}/_bulk"), &body)?;
    ensure!(
        answer["errors"] == false,
        "the store refused lines: {answer}"
    );
    Ok(planted)
}

/// One exchange on a connection of its own.
fn ask(node: &OpenSearch, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
    let address = format!("127.0.0.1:{}", node.port());
    let mut stream = TcpStream::connect(&address).with_context(|| format!("reach {address}"))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    let (_, answer) = text.split_once("\r\n\r\n").context("expected an answer")?;
    if !status.contains(" 200 ") {
        bail!("{method} {path}: {} {answer}", status.trim());
    }
    serde_json::from_str(answer).with_context(|| format!("expected JSON, found {answer}"))
}

/// A bot that knows nothing but the store.
struct Bot {
    child: Child,
    program: PathBuf,
    config: PathBuf,
}

impl Drop for Bot {
    fn drop(&mut self) {
        // Both fail only when it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bot {
    fn start(program: &Program, folder: &Path, node: &OpenSearch) -> anyhow::Result<Bot> {
        let config = folder.join("nightshift.yaml");
        let site = "site: bench\nssh: {port: 1}\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\nservices: {}\n";
        fs::write(folder.join("site.yaml"), site).context("write the site")?;
        let store =
            json!({"name": "logs", "urls": [node.url()], "index": [INDEX], "every_seconds": 2});
        let text = json!({
            "site": "site.yaml", "state_dir": "state", "listen": "127.0.0.1:0", "sources": {"elasticsearch": [store]},
        });
        fs::write(&config, text.to_string()).context("write the configuration")?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .context("open the bot's log")?;
        let child = Command::new(program.path())
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start the bot")?;
        let bot = Bot {
            child,
            program: program.path().to_owned(),
            config,
        };
        let looked = || match bot.ask(&["status"]) {
            Ok(answer) if answer["data"]["logs"][0]["looked_at"].is_string() => Ok(()),
            Ok(answer) => Err(format!("it has not looked yet: {}", answer["data"]["logs"])),
            Err(error) => Err(format!("{error:#}")),
        };
        wait::until("a bot that has looked", START_LIMIT, looked)?;
        Ok(bot)
    }

    /// In the middle of whatever it does.
    fn killed_and_started(
        self,
        program: &Program,
        folder: &Path,
        node: &OpenSearch,
    ) -> anyhow::Result<Bot> {
        drop(self);
        Bot::start(program, folder, node)
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .arg("--json")
            .args(words)
            .output()
            .context("ask the bot")?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| {
            let told = String::from_utf8_lossy(&output.stderr);
            format!("expected JSON, found {text}{told}")
        })
    }

    /// Name → how often it was found.
    fn counts(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let answer = self.ask(&["alerts"])?;
        let readings = answer["data"]["readings"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let one = |reading: Value| {
            let name = reading["labels"]["about"].as_str()?.to_owned();
            Some((name, reading["count"].as_u64()?))
        };
        Ok(readings.into_iter().filter_map(one).collect())
    }

    /// Waits until all are found, and then until the bot has looked at everything once more.
    fn found(&self, planted: u64) -> anyhow::Result<(BTreeMap<String, u64>, f64)> {
        let begun = Instant::now();
        let all = || {
            let counts = self.counts().map_err(|error| format!("{error:#}"))?;
            match counts.values().sum::<u64>() {
                found if found >= planted => Ok(()),
                found => Err(format!("{found} of {planted} are found")),
            }
        };
        // What is missing is told by the figures.
        let waited = wait::until("all planted lines", FOUND_LIMIT, all);
        let seconds = begun.elapsed().as_secs_f64();
        if let Err(error) = waited {
            eprintln!("{error}");
        }
        let lines = |bot: &Bot| -> Result<u64, String> {
            let status = bot.ask(&["status"]).map_err(|error| format!("{error:#}"))?;
            status["data"]["logs"][0]["looks"]
                .as_u64()
                .ok_or_else(|| "no looks".to_owned())
        };
        let before = lines(self).map_err(anyhow::Error::msg)?;
        let more = || match lines(self)? {
            now if now >= before + 3 => Ok(()),
            now => Err(format!("{now} looks")),
        };
        wait::until("three more looks", START_LIMIT, more)?;
        Ok((self.counts()?, seconds))
    }

    fn questions(&self) -> anyhow::Result<Spread> {
        let mut took = Vec::with_capacity(QUESTIONS);
        for turn in 0..QUESTIONS {
            let begun = Instant::now();
            let answer = match turn % 2 {
                0 => self.ask(&["logs", "ctl1", "1h"])?,
                _ => self.ask(&["logs", "ctl1", "1h", "state", "transfer"])?,
            };
            took.push(begun.elapsed());
            ensure!(answer["ok"] == true, "expected lines, found {answer}");
        }
        Ok(Spread::of(&took))
    }
}

impl Figures for Logs {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.set_header([
            "what",
            "lines",
            "s",
            "lines a second",
            "a look with nothing new, ms",
        ]);
        for (what, looked) in [
            ("by program", &self.store.filtered),
            ("all lines", &self.store.all),
        ] {
            table.add_row([
                what.to_owned(),
                looked.lines.to_string(),
                format!("{:.1}", looked.seconds),
                format!("{:.0}", looked.lines as f64 / looked.seconds),
                format!("{:.0}", looked.idle_look_ms),
            ]);
        }
        let rate = self.store.all.lines as f64 / self.store.all.seconds;
        let met = |is: bool| if is { "met    " } else { "NOT met" };
        format!(
            "logs: {} build, OpenSearch {}, {} lines written in {:.0} s\n{table}\n\
             questions of 40 lines: {:.0} ms, of a hundred the slowest {:.0} ms; as a command {:.0} ms and {:.0} ms\n\
             aim {}  each of {} planted lines found exactly once over {} kills: {} were, the last {:.1} s after it was written{}\n\
             aim {}  at least {AIM} lines a second looked through: {rate:.0}",
            self.build,
            self.server,
            self.lines,
            self.indexing_seconds,
            self.questions.p50_ms,
            self.questions.p99_ms,
            self.questions_through_bot.p50_ms,
            self.questions_through_bot.p99_ms,
            met(self.wrong.is_empty() && self.found_once == self.planted),
            self.planted,
            self.kills,
            self.found_once,
            self.found_after_seconds,
            if self.wrong.is_empty() {
                String::new()
            } else {
                format!("; wrong: {:?}", self.wrong)
            },
            met(rate >= AIM),
        )
    }
}
