//! What the bot says about a drill, read through its command line: incidents, decisions, jobs.

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;

use super::file::{Decision, Drill};
use crate::scenario::Installation;

/// How far a drill has come, with the bot's own times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Arrival of the first expected alert.
    pub alert: Option<Timestamp>,
    /// The expected decision, and its reason.
    pub decision: Option<(Timestamp, String)>,
    /// The last decision of any kind, for messages.
    pub last: Option<String>,
    /// Jobs of the incidents, the latest last.
    pub jobs: Vec<String>,
    pub first_step: Option<Timestamp>,
    pub proven: Option<Timestamp>,
    /// A repair that did not succeed.
    pub failed: Option<String>,
}

/// Looks at everything that happened since `since`.
pub fn look(installation: &Installation, drill: &Drill, since: Timestamp) -> anyhow::Result<Seen> {
    let answer = installation.ask(&["incidents"])?;
    let incidents = answer["data"]["incidents"]
        .as_array()
        .with_context(|| format!("no list `incidents` in {answer}"))?;
    let mut seen = Seen::default();
    for incident in incidents {
        let alert = first_alert(incident, &drill.expect.alerts, since);
        // An incident of what was prepared may be open already, and take in the alert of what is broken now.
        let about = opened_at(incident).is_some_and(|at| at >= since) || alert.is_some();
        if !about || !names_runbook(incident, &drill.runbook) {
            continue;
        }
        seen.alert = seen.alert.into_iter().chain(alert).min();
        let id = incident["id"].as_str().context("an incident without id")?;
        let why = installation.ask(&["why", id])?;
        note_decisions(&mut seen, &why["data"], drill, since);
        note_repairs(&mut seen, &why["data"]);
        note_state(&mut seen, &incident["state"]);
    }
    for job in seen.jobs.clone() {
        let state = installation.ask(&["job", &job])?;
        seen.first_step = seen
            .first_step
            .into_iter()
            .chain(first_step(&state["data"]))
            .min();
    }
    Ok(seen)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn opened_at(incident: &Value) -> Option<Timestamp> {
    time(&incident["opened_at"])
}

fn names_runbook(incident: &Value, runbook: &str) -> bool {
    let runbooks = incident["runbooks"].as_array();
    runbooks.is_some_and(|all| all.iter().any(|one| one == runbook))
}

/// When the first of these alerts came in.
fn first_alert(incident: &Value, names: &[String], since: Timestamp) -> Option<Timestamp> {
    let opened = opened_at(incident);
    let alerts = incident["alerts"].as_object()?.values();
    alerts
        .filter(|alert| names.iter().any(|name| alert["name"] == name.as_str()))
        .filter(|alert| opened.is_some_and(|at| at >= since) || alert["status"] == "firing")
        .filter_map(|alert| time(&alert["received_at"]))
        .filter(|at| *at >= since)
        .min()
}

fn note_decisions(seen: &mut Seen, why: &Value, drill: &Drill, since: Timestamp) {
    let decisions = why["decisions"].as_array().map_or(&[][..], Vec::as_slice);
    // The history has the same answer once; that it still stands is in the last decision.
    for record in decisions.iter().chain([&why["decision"]]) {
        let decision = &record["decision"];
        let reason = decision["why"].as_str().unwrap_or_default();
        let Some(at) = time(&record["at"]).filter(|at| *at >= since) else {
            continue;
        };
        let kind = decision["decision"].as_str().unwrap_or_default();
        seen.last = Some(format!("{kind}: {reason}"));
        let expected = &drill.expect;
        let because = expected
            .because
            .as_ref()
            .is_none_or(|part| reason.contains(part.as_str()));
        if seen.decision.is_none() && kind == word(expected.decision) && because {
            seen.decision = Some((at, reason.to_owned()));
        }
    }
}

fn note_repairs(seen: &mut Seen, why: &Value) {
    for repair in why["repairs"].as_array().into_iter().flatten() {
        seen.jobs
            .extend(repair["job"].as_str().map(ToOwned::to_owned));
        if repair["outcome"] == "verified" {
            seen.proven = time(&repair["ended_at"]);
        }
    }
}

fn note_state(seen: &mut Seen, state: &Value) {
    if state["state"] == "unproven" {
        let why = state["why"].as_str().unwrap_or("it is not proven");
        seen.failed = Some(why.to_owned());
    }
}

/// When the first step that changes something began: readings taken before are not yet the repair.
fn first_step(job: &Value) -> Option<Timestamp> {
    let (steps, runs) = (
        job["job"]["steps"].as_array()?,
        job["job"]["runs"].as_array()?,
    );
    let acts = steps
        .iter()
        .zip(runs)
        .filter(|(step, _)| step["effect"] != "observe");
    acts.filter_map(|(_, run)| time(&run["started_at"])).min()
}

/// As the bot spells it.
fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Act => "act",
        Decision::Ask => "ask",
        Decision::Shadow => "shadow",
        Decision::Hold => "hold",
        Decision::Refuse => "refuse",
        Decision::TellOnly => "tell_only",
    }
}
