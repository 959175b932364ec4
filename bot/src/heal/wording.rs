//! What is said of incidents and decisions. Pure.

use jiff::Timestamp;
use runbooks::{
    decide::Decision,
    incident::{Incident, State},
    storm::Storm,
};

use crate::{
    store::{AuditEntry, Repair, RepairOutcome},
    wording::{Cell, Message, Severity, Table, Tone, ago, duration},
};

/// Alerts named in the message of an incident.
const ALERTS_SHOWN: usize = 8;

/// How an incident stands: how bad, and in a few words.
fn standing(state: &State, now: Timestamp) -> (Severity, String) {
    match state {
        State::Open => (Severity::Working, "looking at it".to_owned()),
        State::Holding { until, why } => {
            let left = until.duration_since(now);
            let left = if left.is_positive() {
                format!("for {}", duration(left))
            } else {
                "a moment".to_owned()
            };
            (Severity::Working, format!("waiting {left}: {why}"))
        }
        State::Asking { why, .. } => (Severity::Attention, format!("may I? {why}")),
        State::Approved { by, .. } => (
            Severity::Working,
            format!("approved by {by}; looking once more"),
        ),
        State::Acting { .. } => (Severity::Working, "repairing".to_owned()),
        State::Proving { .. } => (
            Severity::Working,
            "repaired; watching whether it holds".to_owned(),
        ),
        State::Healed { .. } => (Severity::Good, "healed and proven".to_owned()),
        State::Shadow { would, .. } => (
            Severity::Attention,
            format!("would repair (shadow): {would}"),
        ),
        State::Refused { why, .. } => (Severity::Refused, format!("not repaired: {why}")),
        State::TellOnly { why } => (Severity::Attention, format!("for people: {why}")),
        State::Unproven { why, .. } => (Severity::Bad, format!("the repair was not proven: {why}")),
        State::Resolved { how } => (Severity::Good, format!("over: {how}")),
    }
}

/// The one message of an incident.
pub fn incident_message(incident: &Incident, now: Timestamp) -> Message {
    let (severity, words) = standing(&incident.state, now);
    let mut message = Message::new(severity, format!("{}: {words}", incident.domain));
    let firing = incident.firing();
    if !firing.is_empty() {
        let mut names: Vec<&str> = firing.iter().copied().take(ALERTS_SHOWN).collect();
        if firing.len() > names.len() {
            names.push("…");
        }
        let count = match incident.firing_count() {
            count if count > names.len() => format!(" ({count} fire)"),
            _ => String::new(),
        };
        message = message.line(format!("alerts: {}{count}", names.join(", ")));
    }
    if !incident.subjects.is_empty() {
        let hosts: Vec<&str> = incident.subjects.iter().map(|host| host.as_str()).collect();
        message = message.line(format!("about: {}", hosts.join(", ")));
    }
    if let Some(cause) = &incident.under {
        message = message.line(format!("explained by incident {cause}"));
    }
    let job = incident
        .state
        .job()
        .map(|job| format!(", job {job}"))
        .unwrap_or_default();
    let opened = ago(incident.opened_at, now);
    message.toned(
        format!("incident {} since {opened}{job}", incident.id),
        Tone::Dim,
    )
}

/// Open incidents, one line each.
pub fn incidents_table(incidents: &[Incident], now: Timestamp) -> Table {
    let mut table = Table::new(&["incident", "about", "since", "state", "alerts"]);
    for incident in incidents {
        let (severity, words) = standing(&incident.state, now);
        let tone = match severity {
            Severity::Good => Tone::Good,
            Severity::Bad => Tone::Bad,
            Severity::Info => Tone::Plain,
            Severity::Working | Severity::Attention | Severity::Refused => Tone::Warn,
        };
        let alerts: Vec<&str> = incident.firing().into_iter().collect();
        table.row([
            incident.id.to_string().into(),
            incident.domain.to_string().into(),
            ago(incident.opened_at, now).into(),
            Cell::new(words, tone),
            alerts.join(" ").into(),
        ]);
    }
    table
}

/// Decisions about an incident, oldest first.
pub fn history_table(entries: &[AuditEntry], now: Timestamp) -> Table {
    let mut table = Table::new(&["decided", "what"]);
    for entry in entries {
        let decision = serde_json::from_value::<Decision>(entry.body["decision"].clone());
        let (words, tone) = match &decision {
            Ok(decision) => (decision_words(decision), decision_tone(decision)),
            Err(_) => ("in words of another version".to_owned(), Tone::Dim),
        };
        table.row([ago(entry.at, now).into(), Cell::new(words, tone)]);
    }
    table
}

pub(super) fn decision_tone(decision: &Decision) -> Tone {
    match decision {
        Decision::Act { .. } => Tone::Good,
        Decision::Refuse { .. } => Tone::Bad,
        Decision::Ask { .. } | Decision::Hold { .. } => Tone::Warn,
        Decision::Shadow { .. } | Decision::TellOnly { .. } => Tone::Plain,
    }
}

/// Repairs that were tried, oldest first.
pub fn repairs_table(repairs: &[Repair], now: Timestamp) -> Table {
    let mut table = Table::new(&["repair", "runbook", "by", "started", "took", "outcome"]);
    for repair in repairs {
        let took = repair
            .ended_at
            .map(|at| duration(at.duration_since(repair.at)));
        let (word, tone) = match repair.outcome {
            None => ("running", Tone::Warn),
            Some(RepairOutcome::Verified) => ("proven", Tone::Good),
            Some(RepairOutcome::Unverified) => ("not proven", Tone::Bad),
            Some(RepairOutcome::Refused) => ("refused", Tone::Warn),
            Some(RepairOutcome::Cancelled) => ("cancelled", Tone::Warn),
        };
        table.row([
            repair.job.clone().into(),
            repair.runbook.clone().into(),
            repair.by.clone().into(),
            ago(repair.at, now).into(),
            took.unwrap_or_default().into(),
            Cell::new(word, tone),
        ]);
    }
    table
}

pub(super) fn decision_words(decision: &Decision) -> String {
    match decision {
        Decision::Act { plan, why } => format!("act ({}): {why}", plan.title),
        Decision::Ask { plan, why } => format!("ask ({}): {why}", plan.title),
        Decision::Shadow { plan, why } => format!("shadow ({}): {why}", plan.title),
        Decision::Hold { why, .. } => format!("wait: {why}"),
        Decision::Refuse { why, evidence } if evidence.is_empty() => format!("refuse: {why}"),
        Decision::Refuse { why, evidence } => format!("refuse: {why} ({})", evidence.join("; ")),
        Decision::TellOnly { why } => format!("tell only: {why}"),
    }
}

pub(super) fn storm_message(storm: &Storm) -> Message {
    match storm {
        Storm::Calm => Message::new(Severity::Good, "The storm is over: repairs may go on"),
        Storm::Raging { since } => {
            Message::new(Severity::Bad, "Storm: nothing is repaired automatically")
                .line(format!("since {since:.0}"))
        }
        Storm::CoolingDown { quiet_since, .. } => Message::new(
            Severity::Attention,
            "The storm cools down: still nothing is repaired automatically",
        )
        .line(format!("quiet since {quiet_since:.0}")),
    }
}
