//! The bot's own figures, as Prometheus reads them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use collectors::{
    SourceName,
    elasticsearch::{Reach, Reached},
};
use jiff::Timestamp;

use super::Pending;
use crate::store::Store;

/// The shortest time between two lines of the log about webhooks that were put off, in seconds.
const SHED_LOG_SECONDS: i64 = 10;

/// Counters since the start.
#[derive(Default)]
pub struct Figures {
    refused: AtomicU64,
    /// When a webhook last came without a token of a configured source.
    unauthorised: Mutex<Option<Timestamp>>,
    truncated: AtomicU64,
    shed: AtomicU64,
    /// When that was last said in the log, in seconds since the epoch.
    shed_logged: AtomicI64,
    called: AtomicU64,
    calls_failed: AtomicU64,
    commits: AtomicU64,
    committed: AtomicU64,
    sources: Mutex<BTreeMap<SourceName, Source>>,
    /// Set by the healer's loop at every turn: a bot that answers HTTP but decides nothing shows here.
    heartbeat: Mutex<Option<Timestamp>>,
    started: Mutex<Option<Timestamp>>,
    /// How far stores of logs were read.
    logs: Mutex<Vec<(SourceName, Arc<Reach>)>>,
}

#[derive(Clone, Copy, Default)]
struct Source {
    webhooks: u64,
    alerts: u64,
    last: Option<Timestamp>,
}

impl Figures {
    pub fn started(&self, now: Timestamp) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// From now on the figures of these stores of logs are shown, too.
    pub fn watch_logs(&self, logs: Vec<(SourceName, Arc<Reach>)>) {
        *self.logs.lock().unwrap_or_else(PoisonError::into_inner) = logs;
    }

    pub fn beat(&self, now: Timestamp) {
        *self
            .heartbeat
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// When the healer last turned.
    pub fn last_beat(&self) -> Option<Timestamp> {
        *self
            .heartbeat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The dead man's switch was called.
    pub fn switch_called(&self, reached: bool) {
        let count = if reached {
            &self.called
        } else {
            &self.calls_failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn webhook_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// There was no room for it. True when that is to be said in the log.
    pub fn webhook_shed(&self) -> bool {
        self.shed.fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now().as_second();
        let last = self.shed_logged.load(Ordering::Relaxed);
        now - last >= SHED_LOG_SECONDS
            && self
                .shed_logged
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// So many webhooks shared one commit.
    pub fn committed(&self, webhooks: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.committed.fetch_add(webhooks as u64, Ordering::Relaxed);
    }

    /// It came without a token of a configured source.
    pub fn webhook_unauthorised(&self, now: Timestamp) {
        self.webhook_refused();
        let mut last = self
            .unauthorised
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(now);
    }

    pub fn last_unauthorised(&self) -> Option<Timestamp> {
        *self
            .unauthorised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn webhook_taken(
        &self,
        source: &SourceName,
        alerts: usize,
        truncated: u64,
        now: Timestamp,
    ) {
        self.truncated.fetch_add(truncated, Ordering::Relaxed);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = sources.entry(source.clone()).or_default();
        entry.webhooks += 1;
        entry.alerts += alerts as u64;
        entry.last = Some(now);
    }

    /// A source sent to another bot, which left it in the store.
    pub fn heard_elsewhere(&self, source: &SourceName, at: Timestamp) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = sources.entry(source.clone()).or_default();
        entry.last = entry.last.max(Some(at));
    }

    /// When a source's last webhook came.
    pub fn last_webhook(&self, source: &SourceName) -> Option<Timestamp> {
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(source)?
            .last
    }

    /// The exposition format, version 0.0.4. Figures that the store does not give are left out, and the scrape says so.
    pub async fn render(&self, store: &Store, pending: &Pending, now: Timestamp) -> String {
        let mut text = String::new();
        let readable = store.count_firing().await;
        if store.is_shared() {
            let leader = store.leadership().await.ok().flatten();
            let leads = leader.is_some_and(|leader| leader.holder == store.replica());
            metric(
                &mut text,
                "nightshift_leads",
                "gauge",
                "Whether it is this bot that acts; of several exactly one should.",
                f64::from(u8::from(leads)),
            );
        }
        let jobs = store.jobs(true, u32::MAX).await;
        let incidents = store.count_open_incidents().await;
        metric(
            &mut text,
            "nightshift_store_readable",
            "gauge",
            "Whether the store answers.",
            f64::from(u8::from(readable.is_ok())),
        );
        if let Ok(firing) = readable {
            metric(
                &mut text,
                "nightshift_alerts_firing",
                "gauge",
                "Alerts that fire, as stored.",
                firing as f64,
            );
        }
        if let Ok(jobs) = jobs {
            metric(
                &mut text,
                "nightshift_jobs_open",
                "gauge",
                "Jobs that have not finished.",
                jobs.len() as f64,
            );
        }
        if let Ok(incidents) = incidents {
            metric(
                &mut text,
                "nightshift_incidents_open",
                "gauge",
                "Incidents that are open.",
                incidents as f64,
            );
        }
        let seconds = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
        if let Some(at) = *self.started.lock().unwrap_or_else(PoisonError::into_inner) {
            metric(
                &mut text,
                "nightshift_start_time_seconds",
                "gauge",
                "When the bot started.",
                seconds(at),
            );
        }
        if let Some(at) = self.last_beat() {
            metric(
                &mut text,
                "nightshift_heartbeat_timestamp_seconds",
                "gauge",
                "When the healer last turned; alert when it is old.",
                seconds(at),
            );
        }
        metric(
            &mut text,
            "nightshift_clock_seconds",
            "gauge",
            "The bot's clock.",
            seconds(now),
        );
        metric(
            &mut text,
            "nightshift_webhooks_refused_total",
            "counter",
            "Webhooks without a right token or body.",
            self.refused.load(Ordering::Relaxed) as f64,
        );
        metric(
            &mut text,
            "nightshift_alerts_truncated_total",
            "counter",
            "Alerts that senders left out of webhooks.",
            self.truncated.load(Ordering::Relaxed) as f64,
        );
        let counters = [
            (
                "nightshift_webhooks_shed_total",
                "Webhooks that were put off because there was no room; their senders come again.",
                self.shed.load(Ordering::Relaxed),
            ),
            (
                "nightshift_alerts_merged_total",
                "Changes of alerts that a newer one replaced before the healer looked.",
                pending.merged(),
            ),
            (
                "nightshift_heartbeats_total",
                "Calls that reached the dead man's switch.",
                self.called.load(Ordering::Relaxed),
            ),
            (
                "nightshift_heartbeats_failed_total",
                "Calls that did not reach it.",
                self.calls_failed.load(Ordering::Relaxed),
            ),
            (
                "nightshift_alert_commits_total",
                "Writes to the disk that made webhooks durable.",
                self.commits.load(Ordering::Relaxed),
            ),
            (
                "nightshift_alert_commit_webhooks_total",
                "Webhooks in them.",
                self.committed.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in counters {
            metric(&mut text, name, "counter", help, value as f64);
        }
        metric(
            &mut text,
            "nightshift_alerts_pending",
            "gauge",
            "Stored alerts that the healer has not looked at yet.",
            pending.count() as f64,
        );
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        labelled(
            &mut text,
            "nightshift_webhooks_total",
            "counter",
            "Webhooks stored.",
            sources.iter().map(|(n, s)| (n, s.webhooks as f64)),
        );
        labelled(
            &mut text,
            "nightshift_alerts_received_total",
            "counter",
            "Alerts in them.",
            sources.iter().map(|(n, s)| (n, s.alerts as f64)),
        );
        labelled(
            &mut text,
            "nightshift_source_last_webhook_timestamp_seconds",
            "gauge",
            "When a source last sent.",
            sources
                .iter()
                .filter_map(|(n, s)| Some((n, seconds(s.last?)))),
        );
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs_figures(&mut text, &logs);
        text
    }
}

fn logs_figures(text: &mut String, logs: &[(SourceName, Arc<Reach>)]) {
    type Of = fn(&Reached) -> Option<f64>;
    let figures: [(&str, &str, &str, Of); 5] = [
        (
            "nightshift_log_lines_total",
            "counter",
            "Lines of logs that were read.",
            |reached| Some(reached.lines as f64),
        ),
        (
            "nightshift_log_matches_total",
            "counter",
            "Lines with a signature.",
            |reached| Some(reached.matched as f64),
        ),
        (
            "nightshift_log_lines_too_large_total",
            "counter",
            "Lines that were too large to be read.",
            |reached| Some(reached.too_large as f64),
        ),
        (
            "nightshift_log_lag_seconds",
            "gauge",
            "How old the newest line of a store was at the last look.",
            |reached| reached.lag.map(|lag| lag.as_secs_f64()),
        ),
        (
            "nightshift_log_last_look_timestamp_seconds",
            "gauge",
            "When a store of logs was last read.",
            |reached| Some(reached.looked_at?.as_millisecond() as f64 / 1000.0),
        ),
    ];
    if logs.is_empty() {
        return;
    }
    for (name, kind, help, of) in figures {
        let values = logs
            .iter()
            .filter_map(|(source, reach)| Some((source, of(&reach.get())?)));
        labelled(text, name, kind, help, values);
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}

fn labelled<'a>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl Iterator<Item = (&'a SourceName, f64)>,
) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (source, value) in values {
        // The configuration allows only names that need no quoting.
        let _ = writeln!(text, "{name}{{source=\"{source}\"}} {value}");
    }
}
