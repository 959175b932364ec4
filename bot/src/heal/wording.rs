//! What is said of incidents and decisions. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use runbooks::{
    decide::Decision,
    incident::{Incident, State},
    storm::Storm,
};

use super::Listed;
use crate::{
    store::{AuditEntry, Repair, RepairOutcome},
    wording::{Cell, Message, Severity, Table, Tone, ago, duration},
};

/// Alerts named in the message of an incident.
const ALERTS_SHOWN: usize = 8;
/// Names of services whose alerts an incident explains.
const SERVICES_SHOWN: usize = 6;

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
    if !incident.comes_and_goes.is_empty() {
        let names: Vec<&str> = incident.comes_and_goes.iter().map(String::as_str).collect();
        let shown = names.len().min(ALERTS_SHOWN);
        message = message.line(format!("comes and goes: {}", names[..shown].join(", ")));
    }
    let services = incident.explained_services().into_iter();
    let services = services.map(ToString::to_string).collect();
    if let Some(words) = explained(incident.explained.len(), &services) {
        let names = incident
            .explained
            .values()
            .map(|one| one.claim.name.as_str());
        let names: BTreeSet<&str> = names.collect();
        let shown: Vec<&str> = names.iter().copied().take(ALERTS_SHOWN).collect();
        let more = if names.len() > shown.len() {
            ", …"
        } else {
            ""
        };
        message = message.line(format!("{words} ({}{more})", shown.join(", ")));
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

/// For example `explains 38 alerts of 2 services: keystone, nova`.
fn explained(alerts: usize, services: &BTreeSet<String>) -> Option<String> {
    let what = match alerts {
        0 => return None,
        1 => "1 alert".to_owned(),
        alerts => format!("{alerts} alerts"),
    };
    let shown: Vec<&str> = services
        .iter()
        .map(String::as_str)
        .take(SERVICES_SHOWN)
        .collect();
    let more = match services.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = shown.join(", ");
    Some(match services.len() {
        0 => format!("explains {what}"),
        1 => format!("explains {what} of {shown}"),
        count => format!("explains {what} of {count} services: {shown}{more}"),
    })
}

/// Open incidents, one line each.
pub fn incidents_table(incidents: &[Listed], now: Timestamp) -> Table {
    let mut table = Table::new(&["incident", "about", "since", "state", "alerts"]);
    for Listed { incident, counts } in incidents {
        let (severity, words) = standing(&incident.state, now);
        let tone = match severity {
            Severity::Good => Tone::Good,
            Severity::Bad => Tone::Bad,
            Severity::Info => Tone::Plain,
            Severity::Working | Severity::Attention | Severity::Refused => Tone::Warn,
        };
        let mut alerts: Vec<String> = counts.names_firing.iter().cloned().collect();
        let explains = explained(counts.alerts_explained, &counts.services_explained);
        alerts.extend(explains.map(|words| format!("({words})")));
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
