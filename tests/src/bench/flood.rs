//! A storm of alerts against a running bot on one processor: alerts made durable a second, and what people wait for
//! while very many alerts are open. One host of a lab answers `status`; nothing is repaired.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use comfy_table::Table;
use serde::Serialize;
use serde_json::json;

use super::spread::Spread;
use super::webhook::{self, Sender};
use super::{Figures, Run};
use crate::scenario::{self, Changes, Installation, capture, with_packages};
use crate::{Lab, LabOptions, Progress, wait};

const ADDRESS: &str = "10.77.0.1:9480";
/// Where silences are made.
const ALERTMANAGER: &str = "http://10.77.0.11:9093";
const TOKEN: &str = "bench-token";
/// Open alerts while people ask.
const OPEN: u64 = 20_000;
/// Questions of each kind.
const QUESTIONS: usize = 100;
/// The longest answer that people should wait for, in milliseconds.
const ANSWER_AIM: f64 = 50.0;
/// Durable alerts a second.
const INGEST_AIM: f64 = 10_000.0;
/// From the last alert to a bot that has worked through all of them: a development build on a busy disk needs minutes.
const CALM_LIMIT: Duration = Duration::from_secs(600);

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
    #[serde(flatten)]
    took: Spread,
}

pub(super) fn run(run: &Run, seconds: u32) -> anyhow::Result<Flood> {
    let options = LabOptions {
        name: run.lab.name().clone(),
        hosts: 1,
        layer: Some(with_packages(&run.progress)?),
    };
    let lab = Lab::up(&options, &run.progress)?;
    let installation = install(&lab, run)?;
    let phase = run.progress.phase("deploy memcached and Alertmanager");
    installation.deploy_alone("site")?;
    phase.done();
    let bot = Bot::start(run, installation)?;
    let progress = run.progress.clone();
    // Senders are inside the lab's namespace, as the bot is.
    lab.inside(|| measure(&bot, run.build, seconds, &progress))?
}

fn measure(
    bot: &Bot,
    build: &'static str,
    seconds: u32,
    progress: &Progress,
) -> anyhow::Result<Flood> {
    leave_the_first_processor()?;
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
            .push(ingest(bot, &next, alerts_a_webhook, connections, length)?);
        phase.done();
    }
    let sent = next.load(Ordering::Relaxed);
    ensure!(sent > OPEN, "expected more than {OPEN} alerts, sent {sent}");
    let phase = progress.phase(&format!("end all but {OPEN} of {sent} alerts"));
    resolve(OPEN..sent)?;
    bot.calms_down()?;
    phase.done();
    for words in [
        &["status"][..],
        &["alerts"],
        &["incidents"],
        &["why", "INCIDENT"],
        &["ack", "INCIDENT"],
        &["silence", "INCIDENT", "1h", "benchmark"],
    ] {
        let phase = progress.phase(&format!("{QUESTIONS} times `{}`", words.join(" ")));
        flood.questions.push(bot.ask_often(words)?);
        phase.done();
    }
    flood.resident_kib_after = bot.resident_kib()?;
    Ok(flood)
}

/// This thread and what it begins: the first processor is the bot's.
fn leave_the_first_processor() -> anyhow::Result<()> {
    let mut others = rustix::thread::sched_getaffinity(None).context("read the processors")?;
    others.unset(0);
    ensure!(
        others.count() > 0,
        "expected a second processor for who sends and asks"
    );
    rustix::thread::sched_setaffinity(None, &others).context("leave the first processor")
}

/// The demo's site, of which only memcached and Alertmanager are left, and its alerts from whoever has the token.
fn install(lab: &Lab, run: &Run) -> anyhow::Result<Installation> {
    let source =
        json!({"alertmanager": [{"name": "am", "url": ALERTMANAGER, "token": {"file": "token"}}]});
    let changes = Changes {
        services: ["memcached", "alertmanager"].map(str::to_owned).into(),
        // What is measured is what the bot bears, not what it lets one source send.
        config: [
            ("sources".to_owned(), source),
            ("limits".to_owned(), json!({"webhooks_per_second": 100_000})),
        ]
        .into(),
        ..Changes::default()
    };
    let folder = lab.folder().join("flood");
    let installation = scenario::install(lab, run.program.clone(), &folder, &changes)?;
    let path = folder.join("token");
    fs::write(&path, TOKEN).with_context(|| format!("write {}", path.display()))?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(installation)
}

/// The bot on the first processor alone; whoever measures has the others.
struct Bot {
    running: scenario::Bot,
    program: PathBuf,
    installation: Installation,
}

impl Bot {
    fn start(run: &Run, installation: Installation) -> anyhow::Result<Bot> {
        Ok(Bot {
            running: scenario::Bot::start_on_one_processor(&installation)?,
            program: run.program.path().to_owned(),
            installation,
        })
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.installation.config())
            .args(words)
            .arg("--json");
        Ok(capture(&mut command)?)
    }

    fn answer(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.ask(words)?;
        serde_json::from_str(&text).with_context(|| format!("expected JSON, found {text}"))
    }

    /// Waits until as many alerts fire as should, and every one of them is in an incident.
    fn calms_down(&self) -> anyhow::Result<()> {
        let look = || {
            let alerts = self.answer(&["status"]).map_err(|e| format!("{e:#}"))?;
            match alerts["data"]["firing"].as_u64() {
                Some(OPEN) => {}
                found => return Err(format!("{found:?} alerts fire, expected {OPEN}")),
            }
            match pending() {
                Ok(0) => Ok(()),
                found => Err(format!("{found:?} alerts wait for the healer")),
            }
        };
        Ok(wait::until("a calm bot", CALM_LIMIT, look)?)
    }

    /// As a person at a terminal meets it: a process for every question. INCIDENT: another one each time. The first question,
    /// which may open the session to the host, is not counted.
    fn ask_often(&self, words: &[&str]) -> anyhow::Result<Question> {
        let answer = self.answer(&["incidents"])?;
        let incidents = answer["data"]["incidents"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ensure!(!incidents.is_empty(), "expected open incidents, found none");
        let mut took = Vec::with_capacity(QUESTIONS);
        for number in 0..=QUESTIONS {
            let incident = incidents[number % incidents.len()]["id"]
                .as_str()
                .unwrap_or_default();
            let words: Vec<&str> = words
                .iter()
                .map(|word| if *word == "INCIDENT" { incident } else { word })
                .collect();
            let start = Instant::now();
            self.ask(&words)?;
            if number > 0 {
                took.push(start.elapsed());
            }
        }
        Ok(Question {
            words: words.join(" "),
            took: Spread::of(&took),
        })
    }

    fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|kib| kib.parse().ok())
            .context("the bot has no memory")
    }

    /// Processor time so far.
    fn busy(&self) -> anyhow::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.running.id()))?;
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

/// Stored alerts that the healer has yet to hear of, by the bot's own figures.
fn pending() -> Result<u64, String> {
    let page = webhook::get(ADDRESS, "/metrics").map_err(|e| format!("{e:#}"))?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("nightshift_alerts_pending "));
    let count = line.and_then(|number| number.parse::<f64>().ok());
    count.map(|count| count as u64).ok_or(page)
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
            let mut sender = Sender::connect(ADDRESS, TOKEN)?;
            while start.elapsed() < length {
                let first = next.fetch_add(alerts_a_webhook, Ordering::Relaxed);
                let body = alerts(first..first + alerts_a_webhook, true);
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

fn resolve(numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut sender = Sender::connect(ADDRESS, TOKEN)?;
    let mut first = numbers.start;
    while first < numbers.end {
        let last = (first + 500).min(numbers.end);
        let body = alerts(first..last, false);
        while !sender.send(&body)? {
            std::thread::sleep(Duration::from_millis(50));
        }
        first = last;
    }
    Ok(())
}

/// One alert and a webhook without alerts, of alerts that have ended and that fire. All others are made from their texts: whoever
/// sends must be quicker than the bot, also in a development build.
static TEMPLATES: LazyLock<[(String, String); 2]> = LazyLock::new(|| [false, true].map(template));

fn template(firing: bool) -> (String, String) {
    let ends = (!firing).then_some("2026-01-01T01:00:00Z");
    let labels = json!({
        "alertname": "@NAME@", "severity": "warning", "job": "node", "instance": "@INSTANCE@", "device": "@DEVICE@",
    });
    let annotations = json!({
        "summary": "The disk will be full in four hours", "description": "Only 3.1% are left on @DEVICE@.",
    });
    let starts = "2026-01-01T00:00:00Z";
    let alert = webhook::alert(labels, annotations, "@FINGERPRINT@", starts, ends);
    (alert.to_string(), webhook::body(&[], firing))
}

/// A hundred names, so that there are very many alerts of each.
fn alerts(numbers: std::ops::Range<u64>, firing: bool) -> String {
    let (alert, body) = &TEMPLATES[usize::from(firing)];
    let one = |number: u64| {
        let (rack, host) = (number / 250 % 250, number % 250);
        alert
            .replace("@NAME@", &format!("Flood{}", number % 100))
            .replace("@INSTANCE@", &format!("10.0.{rack}.{host}:9100"))
            .replace("@DEVICE@", &format!("sd{number}"))
            .replace("@FINGERPRINT@", &format!("{number:016x}"))
    };
    let all: Vec<String> = numbers.map(one).collect();
    body.replacen(
        "\"alerts\":[]",
        &format!("\"alerts\":[{}]", all.join(",")),
        1,
    )
}

impl Figures for Flood {
    fn table(&self) -> String {
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
                format!("{:.1}", row.took.p50_ms),
                format!("{:.1}", row.took.p99_ms),
            ]);
        }
        let met = |met: bool| if met { "met    " } else { "NOT met" };
        let best = self.ingest.iter().map(|row| row.a_second);
        let best = best.fold(0.0, f64::max);
        let mut aims = format!(
            "aim {}  {INGEST_AIM} durable alerts a second in batches: {best:.0}\n",
            met(best >= INGEST_AIM)
        );
        for row in &self.questions {
            let Spread { p50_ms, p99_ms } = row.took;
            aims.push_str(&format!(
                "aim {}  `{}` within {ANSWER_AIM} ms: p50 {p50_ms:.1}, p99 {p99_ms:.1}\n",
                met(p99_ms <= ANSWER_AIM),
                row.words
            ));
        }
        format!(
            "flood: {} build on one processor\n{ingest}\n{questions}\n{aims}memory: {} MiB before, {} MiB after",
            self.build,
            self.resident_kib_before / 1024,
            self.resident_kib_after / 1024
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_of_a_webhook_is_its_own() {
        let body: serde_json::Value = serde_json::from_str(&alerts(7..9, true)).unwrap();
        let all = body["alerts"].as_array().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1]["labels"]["alertname"], "Flood8");
        assert_eq!(all[1]["labels"]["device"], "sd8");
        assert_eq!(all[1]["fingerprint"], "0000000000000008");
        assert!(!body.to_string().contains('@'));
    }
}
