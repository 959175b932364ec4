//! ICI-2: Icinga makes its checks late. Nothing is done about it: what people need is to know which of its words are old.

use deploy_engine::{
    condition::icinga2::{LATE_PERCENT, too_many_late},
    probe::{
        Heard,
        icinga2::{LATE, Late, STATUS, Status},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, elsewhere},
};

pub static DECISION: Entry = Entry {
    name: "icinga2.late",
    doc: "never: it says how many checks are late and how late they begin, and that what Icinga says is old",
    roles: &[],
    parameters: &[],
    evidence: &[STATUS, LATE],
    settings: &[],
    facts: |_| Facts::new(),
    decide,
};

/// How long the daemons must run before a check can be late: two intervals, as long as they are on this site.
const INTERVALS: u64 = 2;
const USUAL_INTERVAL_SECONDS: u64 = 60;

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let statuses = input.of_all::<Heard<Status>>(STATUS)?;
    let lates = input.of_all::<Heard<Late>>(LATE)?;
    let (mut evidence, mut too_many, mut silent) = (Vec::new(), false, Vec::new());
    for (host, status) in &statuses {
        let (Heard::Answers(status), Some(Heard::Answers(late))) = (status, lates.get(host)) else {
            silent.push(host.clone());
            continue;
        };
        if status.uptime_seconds < settled_after(input) {
            return Err(input.hold(format!(
                "the daemon on {host} was started {:.0} s ago: its first checks are still to come",
                status.uptime_seconds
            )));
        }
        too_many |= too_many_late(late.count, status.services);
        evidence.push(words(host.as_str(), status, late));
    }
    if evidence.is_empty() {
        let why = format!(
            "Icinga on {} does not answer: its word counts for nothing until it does",
            names(&silent)
        );
        return Err(Verdict::Page { why, evidence });
    }
    if !too_many {
        return Err(elsewhere(evidence.join("; ")));
    }
    Err(Verdict::Page {
        why: format!(
            "more than {LATE_PERCENT} % of Icinga's checks are late: what it says that is older than {INTERVALS} intervals counts for nothing"
        ),
        evidence,
    })
}

/// What the interval of the site is; two of them after a start nothing can be late by waiting alone.
fn settled_after(input: &Input<'_>) -> f64 {
    let deployed = input.topology.services.get(input.service);
    let interval = deployed
        .and_then(|deployed| deployed.settings.get("check_interval"))
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(USUAL_INTERVAL_SECONDS);
    (INTERVALS * interval) as f64
}

fn words(host: &str, status: &Status, late: &Late) -> String {
    let some = match late.some.is_empty() {
        true => String::new(),
        false => format!(" ({})", late.some.join(", ")),
    };
    let off = if status.checks_enabled {
        ""
    } else {
        ", and checks are switched off"
    };
    format!(
        "{host}: {} of {} checks are late{some}; {:.0} checks in the last minute, begun {:.1} s late on average and {:.1} s at most{off}",
        late.count,
        status.services,
        status.active_service_checks_1min,
        status.avg_latency_seconds,
        status.max_latency_seconds
    )
}

#[cfg(test)]
#[path = "icinga2_late_tests.rs"]
mod tests;
