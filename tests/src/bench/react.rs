//! From a webhook to the command that runs on the host: memcached is down, the alert comes in, `systemctl start` begins.
//!
//! Ours is the built-in runbook MEM-1 with all gates and real evidence (Prometheus and Alertmanager of the site, the host
//! itself); only its waiting times are nothing, and its command notes when it began. The peer runs the same command at once.
//! Alertmanager waits with everything but the Watchdog, so that both sides hear of the alert from the benchmark alone.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use comfy_table::Table;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::rulebook::{self, Rulebook};
use super::spread::Spread;
use super::webhook::{self, Sender};
use super::{Figures, Run};
use crate::scenario::{Bot, Changes, Installation, install, with_packages, workspace};
use crate::{Lab, LabOptions, wait};

const HOST: &str = "ctl1";
const ADDRESS: &str = "10.77.0.1:9480";
const PROMETHEUS: &str = "10.77.0.11:9090";
const UNIT: &str = "memcached.service";
const COMMAND: &str = "/usr/local/sbin/react";
const OURS: &str = "nightshift";
const PEER: &str = "rulebook";
/// From a bot that listens to the first Watchdog: Alertmanager tries again ever more seldom while nobody does.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(120);
/// From a stopped unit to a rule that fires: two scrapes and an evaluation, a second each.
const FIRE_LIMIT: Duration = Duration::from_secs(30);
/// From the webhook to the command. A gate that holds makes us slow, not wrong.
const ACT_LIMIT: Duration = Duration::from_secs(60);
/// From the command to a closed incident: the proof holds for a second.
const PROOF_LIMIT: Duration = Duration::from_secs(60);
/// First rounds, which are not counted: connections are opened, caches filled.
const WARM_UP: u32 = 2;
/// As the bot does (`Pace::ASKED`), from its start on.
const LIST_EVERY: Duration = Duration::from_secs(30);
const LONGEST_ROUND: Duration = Duration::from_secs(11);
const AIM_MS: f64 = 20.0;
const AIM_TIMES: f64 = 45.0;

#[derive(Debug, Serialize)]
pub(super) struct React {
    build: &'static str,
    /// Of each round, in seconds: the webhook was sent → the command began.
    ours: Vec<Duration>,
    peer: Vec<Duration>,
    /// Where our time went.
    phases: Vec<Phases>,
}

/// Each since the one before.
#[derive(Debug, Clone, Copy, Serialize)]
struct Phases {
    /// The webhook is durable and has opened an incident.
    heard: Duration,
    /// Evidence, decision, gates, and a job in the journal.
    decided: Duration,
    /// Lease, gates again, and the intent of the snapshot.
    snapshot: Duration,
    /// The snapshot, gates again, guards, and the intent of the act.
    intent: Duration,
    /// The agent has recorded the step, and the command has begun.
    begun: Duration,
}

pub(super) fn run(run: &Run) -> anyhow::Result<React> {
    let options = LabOptions {
        name: run.lab.name().clone(),
        hosts: 1,
        layer: Some(with_packages(&run.progress)?),
    };
    rulebook::prepare(&run.progress)?;
    let lab = Lab::up(&options, &run.progress)?;
    lab.inside(|| inside(run, &lab))?
}

fn inside(run: &Run, lab: &Lab) -> anyhow::Result<React> {
    let phase = run.progress.phase("deploy memcached and its monitoring");
    let installation = site(lab, run)?;
    installation.deploy_alone("site")?;
    put_command(lab)?;
    phase.done();
    let bot = Bot::start(&installation)?;
    let started = Instant::now();
    let phase = run.progress.phase("start ansible-rulebook");
    let rulebook = Rulebook::start(lab)?;
    phase.done();
    let token = lab.ssh_ok(HOST, &["cat", "/etc/prometheus/alertmanager-webhook-token"])?;
    let mut stage = Stage {
        lab,
        installation: &installation,
        ours: Sender::connect(ADDRESS, token.trim())?,
        peer: Sender::connect(rulebook::ADDRESS, "")?,
        number: 0,
    };
    stage.watchdog_was_heard()?;
    // The bot closes connections on which nothing comes for long.
    stage.ours = Sender::connect(ADDRESS, token.trim())?;
    let mut react = React {
        build: run.build,
        ours: Vec::new(),
        peer: Vec::new(),
        phases: Vec::new(),
    };
    for round in 0..run.rounds + WARM_UP {
        run.go_on()?;
        between_the_lists(started);
        let title = format!("round {} of {}", round + 1, run.rounds + WARM_UP);
        let phase = run.progress.phase(&title);
        let (took, phases) = stage.by_nightshift().with_context(|| bot.log())?;
        let peer = stage.by_rulebook().with_context(|| rulebook.log())?;
        if round >= WARM_UP {
            react.ours.push(took);
            react.phases.push(phases);
            react.peer.push(peer);
        }
        phase.done();
    }
    bot.stop()?;
    Ok(react)
}

/// The bot reads Alertmanager's list too, and would know of the alert before it is told: a round begins and ends between two such reads.
fn between_the_lists(started: Instant) {
    let (every, round) = (LIST_EVERY.as_secs_f64(), LONGEST_ROUND.as_secs_f64());
    let since = started.elapsed().as_secs_f64() % every;
    if since + round > every {
        std::thread::sleep(Duration::from_secs_f64(every - since + 1.0));
    }
}

/// The demo's site on one host, of which only memcached and its monitoring are left.
fn site(lab: &Lab, run: &Run) -> anyhow::Result<Installation> {
    let settings = |values: &[(&str, u64)]| {
        let values = values.iter();
        values
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect()
    };
    let prometheus = settings(&[("scrape_interval", 1), ("alert_for", 1)]);
    // An hour: longer than the benchmark.
    let alertmanager = settings(&[("group_wait", 3600), ("watchdog_interval", 15)]);
    let automation = json!({
        "default": "auto", "unearned": true,
        "settings": {"MEM-1": {"confirm": "0s", "quiet": "1s", "settle": "1s"}},
    });
    let changes = Changes {
        services: [
            "memcached",
            "prometheus",
            "alertmanager",
            "node_exporter",
            "signs_exporter",
        ]
        .map(str::to_owned)
        .into(),
        on: [].into(),
        settings: [
            ("prometheus".to_owned(), prometheus),
            ("alertmanager".to_owned(), alertmanager),
        ]
        .into(),
        config: [("automation".to_owned(), automation)].into(),
    };
    let folder = lab.folder().join("react");
    let installation = install(lab, run.program.clone(), &folder, &changes)?;
    note_the_begin(&folder.join("runbooks/MEM-1.yaml"))?;
    Ok(installation)
}

/// MEM-1 as it is, but for the program of its one act.
fn note_the_begin(file: &std::path::Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut runbook: Value = serde_json::from_str(&text)?;
    let steps = runbook["steps"].as_array_mut().context("MEM-1 has steps")?;
    let acts: Vec<_> = steps
        .iter_mut()
        .filter(|step| step["run"].is_array())
        .collect();
    let [act] = acts
        .try_into()
        .map_err(|_| anyhow::anyhow!("expected one act in MEM-1"))?;
    ensure!(
        act["run"] == json!(["systemctl", "start", UNIT]),
        "MEM-1 does something else now: {}",
        act["run"]
    );
    act["run"] = json!([COMMAND, OURS]);
    fs::write(file, runbook.to_string()).with_context(|| format!("write {}", file.display()))
}

fn put_command(lab: &Lab) -> anyhow::Result<()> {
    let file = workspace().join("tests/bench/react/react.sh");
    let script = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let put = "printf %s \"$1\" > \"$2\" && chmod 0755 \"$2\"";
    lab.ssh_ok(HOST, &["sh", "-c", put, "put", &script, COMMAND])?;
    Ok(())
}

struct Stage<'a> {
    lab: &'a Lab,
    installation: &'a Installation,
    ours: Sender,
    peer: Sender,
    /// Of the alert: each is a new one.
    number: u64,
}

impl Stage<'_> {
    /// Gate G3 wants it; Alertmanager sends it every 15 s.
    fn watchdog_was_heard(&self) -> anyhow::Result<()> {
        wait::until("the Watchdog", WATCHDOG_LIMIT, || {
            let alerts = self.ask(&["alerts"]).map_err(|e| format!("{e:#}"))?;
            let firing = alerts["firing"].as_array().into_iter().flatten();
            let mut heard = firing.filter(|alert| alert["name"] == "Watchdog");
            heard.next().map(drop).ok_or_else(|| alerts.to_string())
        })?;
        Ok(())
    }

    fn by_nightshift(&mut self) -> anyhow::Result<(Duration, Phases)> {
        self.break_it()?;
        let number = self.number;
        let sent = Timestamp::now();
        ensure!(
            self.ours.send(&body(number, true))?,
            "the webhook was put off"
        );
        let begun = self.begun(OURS, sent)?;
        let incident = self.healed(sent)?;
        let phases = self.phases(&incident, sent, begun)?;
        ensure!(
            self.ours.send(&body(number, false))?,
            "the webhook was put off"
        );
        self.is_closed(&incident)?;
        Ok((between(sent, begun)?, phases))
    }

    fn by_rulebook(&mut self) -> anyhow::Result<Duration> {
        self.break_it()?;
        let sent = Timestamp::now();
        self.peer.send(&body(self.number, true))?;
        let begun = self.begun(PEER, sent)?;
        between(sent, begun)
    }

    /// Stops memcached and waits until Prometheus says so, by an evaluation that is newer.
    fn break_it(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        // What started it last may not be over.
        wait::until("memcached", PROOF_LIMIT, || {
            let state = self.lab.ssh(HOST, &["systemctl", "is-active", UNIT]);
            let state = state.map_err(|error| error.to_string())?.stdout;
            (state.trim() == "active").then_some(()).ok_or(state)
        })?;
        self.lab.ssh_ok(HOST, &["systemctl", "stop", UNIT])?;
        let stopped = Timestamp::now();
        wait::until("the alert in Prometheus", FIRE_LIMIT, || {
            fires_since(stopped).map_err(|error| format!("{error:#}"))
        })?;
        Ok(())
    }

    /// When the command began, as the host's clock says, which is this machine's.
    fn begun(&self, whose: &str, sent: Timestamp) -> anyhow::Result<Timestamp> {
        let file = format!("/run/react-{whose}");
        let found = wait::until("the command on the host", ACT_LIMIT, || {
            // Looking takes processor time from whoever is measured: seldom.
            std::thread::sleep(Duration::from_millis(250));
            let text = self.lab.ssh(HOST, &["tail", "-n", "1", &file]);
            let text = text.map_err(|error| error.to_string())?.stdout;
            let at = seconds(text.trim()).filter(|at| *at >= sent);
            at.ok_or_else(|| format!("last begun: {text}; {}", self.last_decision()))
        })?;
        Ok(found)
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut answer = self.installation.ask(words)?;
        Ok(answer["data"].take())
    }

    fn incident_since(&self, sent: Timestamp) -> anyhow::Result<Value> {
        let mut answer = self.ask(&["incidents"])?;
        let incidents = answer["incidents"].as_array_mut().context("no incidents")?;
        let found = incidents
            .iter_mut()
            .find(|one| time(&one["opened_at"]).is_ok_and(|at| at >= sent));
        Ok(found.context("no incident was opened")?.take())
    }

    fn last_decision(&self) -> String {
        let answer = self.ask(&["incidents"]).unwrap_or_default();
        format!("incidents: {}", answer["incidents"][0]["state"])
    }

    /// Its incident, once the repair is proven.
    fn healed(&self, sent: Timestamp) -> anyhow::Result<Value> {
        let found = wait::until("the proof", PROOF_LIMIT, || {
            let incident = self.incident_since(sent).map_err(|e| format!("{e:#}"))?;
            match incident["state"]["state"].as_str() {
                Some("healed" | "resolved") => Ok(incident),
                _ => Err(incident["state"].to_string()),
            }
        })?;
        Ok(found)
    }

    fn is_closed(&self, incident: &Value) -> anyhow::Result<()> {
        let id = incident["id"].as_str().unwrap_or_default();
        wait::until("the end of the incident", PROOF_LIMIT, || {
            let why = self.ask(&["why", id]).map_err(|e| format!("{e:#}"))?;
            match &why["incident"]["closed_at"] {
                Value::Null => Err(why["incident"]["state"].to_string()),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    fn phases(
        &self,
        incident: &Value,
        sent: Timestamp,
        begun: Timestamp,
    ) -> anyhow::Result<Phases> {
        let job = incident["jobs"][0].as_str().context("no job")?;
        let state = self.ask(&["job", job])?;
        let (steps, runs) = (&state["job"]["steps"], &state["job"]["runs"]);
        let steps = steps.as_array().context("a job has steps")?;
        let started = |action: &str| {
            let step = steps
                .iter()
                .position(|one| one["action"]["action"] == action);
            time(&runs[step.with_context(|| format!("no step {action}"))?]["started_at"])
        };
        let opened = time(&incident["opened_at"])?;
        let created = time(&state["job"]["created_at"])?;
        let (snapshot, act) = (started("snapshot")?, started("host")?);
        Ok(Phases {
            heard: between(sent, opened)?,
            decided: between(opened, created)?,
            snapshot: between(created, snapshot)?,
            intent: between(snapshot, act)?,
            begun: between(act, begun)?,
        })
    }
}

/// As Alertmanager sends it.
fn body(number: u64, firing: bool) -> String {
    let labels = json!({
        "alertname": "MemcachedDown", "service": "memcached", "severity": "critical", "host": HOST,
        "instance": "10.77.0.11:9808", "job": "signs", "round": number.to_string(),
    });
    let annotations = json!({"summary": "memcached does not answer"});
    let now = Timestamp::now().to_string();
    let ends = (!firing).then_some(now.as_str());
    let starts = "2026-01-01T00:00:00Z";
    let alert = webhook::alert(labels, annotations, &format!("{number:016x}"), starts, ends);
    webhook::body(&[alert], firing)
}

/// Prometheus' own word for the rule, by an evaluation after `since`.
fn fires_since(since: Timestamp) -> anyhow::Result<()> {
    let answer = webhook::get(PROMETHEUS, "/api/v1/rules?type=alert")?;
    let answer: Value = serde_json::from_str(&answer)?;
    let groups = answer["data"]["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    let mut rules = rules.flatten().filter(|one| one["name"] == "MemcachedDown");
    let rule = rules.next().context("no rule")?;
    ensure!(rule["state"] == "firing", "it is {}", rule["state"]);
    let evaluated = time(&rule["lastEvaluation"])?;
    ensure!(evaluated > since, "last evaluated at {evaluated}");
    Ok(())
}

fn time(value: &Value) -> anyhow::Result<Timestamp> {
    let text = value
        .as_str()
        .with_context(|| format!("expected a time, found {value}"))?;
    text.parse().with_context(|| format!("read {text}"))
}

/// `date +%s.%N`.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, rest) = text.split_once('.')?;
    Timestamp::new(whole.parse().ok()?, rest.parse().ok()?).ok()
}

fn between(from: Timestamp, to: Timestamp) -> anyhow::Result<Duration> {
    // The journal keeps microseconds.
    let from = from.min(to + jiff::SignedDuration::from_micros(1));
    Duration::try_from(to.duration_since(from)).with_context(|| format!("from {from} to {to}"))
}

/// One of the times.
type Phase = fn(&Phases) -> Duration;

impl Figures for React {
    fn table(&self) -> String {
        let (ours, peer) = (Spread::of(&self.ours), Spread::of(&self.peer));
        let mut table = Table::new();
        table.set_header(["webhook → command", "p50 ms", "p99 ms", "rounds"]);
        for (name, spread, count) in [
            ("nightshift".to_owned(), ours, self.ours.len()),
            (rulebook::version(), peer, self.peer.len()),
        ] {
            let [p50, p99] = [spread.p50_ms, spread.p99_ms].map(|ms| format!("{ms:.1}"));
            table.add_row([name, p50, p99, count.to_string()]);
        }
        let mut phases = Table::new();
        phases.set_header(["nightshift, each since the one before", "p50 ms", "p99 ms"]);
        let rows: [(&str, Phase); 5] = [
            ("webhook durable, incident opened", |one| one.heard),
            ("evidence, gates, job in the journal", |one| one.decided),
            ("lease, gates, intent of the snapshot", |one| one.snapshot),
            ("snapshot, gates, guards, intent", |one| one.intent),
            ("command begun on the host", |one| one.begun),
        ];
        for (name, of) in rows {
            let spread = Spread::of(&self.phases.iter().map(of).collect::<Vec<_>>());
            let [p50, p99] = [spread.p50_ms, spread.p99_ms].map(|ms| format!("{ms:.1}"));
            phases.add_row([name.to_owned(), p50, p99]);
        }
        let times = peer.p50_ms / ours.p50_ms;
        let met = |met: bool| if met { "met    " } else { "NOT met" };
        format!(
            "react: {} build\n{table}\n{phases}\naim {}  p50 within {AIM_MS} ms: {:.1}\naim {}  ansible-rulebook takes ≥ {AIM_TIMES} times as long: {times:.1}",
            self.build,
            met(ours.p50_ms <= AIM_MS),
            ours.p50_ms,
            met(times >= AIM_TIMES),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_date_says() {
        let at = seconds("1800000000.000000250").unwrap();
        assert_eq!(at.as_nanosecond(), 1_800_000_000_000_000_250);
        assert_eq!(seconds("soon"), None);
        assert!(
            between(at, at + jiff::SignedDuration::from_millis(3)).unwrap()
                < Duration::from_millis(4)
        );
    }
}
