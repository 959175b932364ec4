//! Icinga 2: masters that share the checks of one zone.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Ask, Heard, Readings,
        icinga2::{self, Authority, Late, Status, Valid, Zones},
    },
};

/// What an endpoint has not been told yet may go back so far, in seconds: one heartbeat to notice that it is back, and the replay.
const LOG_LAG_SECONDS: f64 = 60.0;
/// More late checks than this, in percent, and what Icinga says is old (`RECOVERY` ICI-2).
pub const LATE_PERCENT: u64 = 5;

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "icinga2.running",
        doc: "the daemon answers on its API under its own name",
        asks: |call| table::ask_hosts(call, icinga2::STATUS),
        judge: |call, readings| all(call.hosts.iter().map(|host| runs(host, readings))),
    },
    Entry {
        name: "icinga2.connected",
        doc: "all masters run, each is connected to all others and has told them everything, and no host is checked twice or by nobody",
        asks: |call| {
            [icinga2::STATUS, icinga2::ZONES, icinga2::AUTHORITY]
                .into_iter()
                .flat_map(|probe| table::ask_members(call, probe))
                .collect()
        },
        judge: judge_connected,
    },
    Entry {
        name: "icinga2.may_restart",
        doc: "the configuration is valid, and another master runs and checks meanwhile, where there is another",
        asks: asks_may_restart,
        judge: judge_may_restart,
    },
    Entry {
        name: "icinga2.checks_on_time",
        doc: "hardly any check is late: what Icinga says is about now",
        asks: |call| {
            [icinga2::STATUS, icinga2::LATE]
                .into_iter()
                .flat_map(|probe| table::ask_hosts(call, probe))
                .collect()
        },
        judge: |call, readings| all(call.hosts.iter().map(|host| on_time(host, readings))),
    },
];

/// What the daemon says; its silence is not yet what is wanted, and what could not be asked is unknown.
fn said<T: DeserializeOwned>(
    host: &HostName,
    readings: &Readings,
    probe: &str,
) -> Result<T, Judgement> {
    match readings.get::<Heard<T>>(probe, host).map_err(unknown)? {
        Heard::Answers(said) => Ok(said),
        Heard::Silent { why } => Err(not_yet(format!("Icinga on {host} does not answer: {why}"))),
    }
}

fn runs(host: &HostName, readings: &Readings) -> Judgement {
    match said::<Status>(host, readings, icinga2::STATUS) {
        Err(judgement) => judgement,
        Ok(status) if status.node_name != host.as_str() => refuted(format!(
            "expected the endpoint {host}; found {}",
            status.node_name
        )),
        Ok(status) => holds(format!(
            "{host} runs {}, up {:.0} s",
            status.version, status.uptime_seconds
        )),
    }
}

fn judge_connected(call: &ConditionCall, readings: &Readings) -> Judgement {
    let running = all(call.members.iter().map(|member| runs(member, readings)));
    if !running.holds() {
        return running;
    }
    let connected = all(call
        .members
        .iter()
        .map(|member| sees_all(call, member, readings)));
    if !connected.holds() {
        return connected;
    }
    all([connected, shared(call, readings)])
}

fn sees_all(call: &ConditionCall, member: &HostName, readings: &Readings) -> Judgement {
    let zones: Zones = match said(member, readings, icinga2::ZONES) {
        Ok(zones) => zones,
        Err(judgement) => return judgement,
    };
    let missing = call.members.iter().find(|other| {
        *other != member && !zones.connected.iter().any(|name| name == other.as_str())
    });
    match missing {
        Some(other) => not_yet(format!("{member} is not connected to {other}")),
        None if zones.log_lag_seconds > LOG_LAG_SECONDS => not_yet(format!(
            "{member} has yet to tell {:.0} s of its log",
            zones.log_lag_seconds
        )),
        None => holds(format!(
            "{member} is connected to {}",
            zones.connected.join(", ")
        )),
    }
}

/// Is every host checked by exactly one master? Two that both check everything do not know of each other.
fn shared(call: &ConditionCall, readings: &Readings) -> Judgement {
    let mut checked = BTreeSet::new();
    let mut known = BTreeSet::new();
    for member in &call.members {
        let authority: Authority = match said(member, readings, icinga2::AUTHORITY) {
            Ok(authority) => authority,
            Err(judgement) => return judgement,
        };
        known.extend(authority.leaves);
        for host in authority.checks {
            known.insert(host.clone());
            if let Some(twice) = checked.replace(host) {
                return not_yet(format!("{twice} is checked by several masters at once"));
            }
        }
    }
    match known.difference(&checked).next() {
        Some(host) => not_yet(format!("{host} is checked by nobody")),
        None => holds(format!("{} hosts are shared out", checked.len())),
    }
}

fn asks_may_restart(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = table::ask_hosts(call, icinga2::CONFIG_CHECK);
    asks.extend(table::ask_members(call, icinga2::STATUS));
    asks
}

fn judge_may_restart(call: &ConditionCall, readings: &Readings) -> Judgement {
    let valid = all(call.hosts.iter().map(|host| {
        match readings.get::<Valid>(icinga2::CONFIG_CHECK, host) {
            Ok(check) if check.valid => holds(format!("the configuration of {host} is valid")),
            Ok(check) => refuted(format!("{host} would not start: {}", check.message)),
            Err(why) => unknown(why),
        }
    }));
    let others = others(call);
    if !valid.holds() || others.is_empty() {
        return valid;
    }
    let judged: Vec<Judgement> = others.iter().map(|other| checks(other, readings)).collect();
    match judged.iter().find(|judgement| judgement.holds()) {
        Some(one) => all([valid, one.clone()]),
        None => all(judged),
    }
}

fn checks(host: &HostName, readings: &Readings) -> Judgement {
    match said::<Status>(host, readings, icinga2::STATUS) {
        Err(judgement) => judgement,
        Ok(status) if !status.checks_enabled => {
            not_yet(format!("checks are switched off on {host}"))
        }
        Ok(_) => holds(format!("{host} checks meanwhile")),
    }
}

fn on_time(host: &HostName, readings: &Readings) -> Judgement {
    let (status, late): (Status, Late) = match (
        said(host, readings, icinga2::STATUS),
        said(host, readings, icinga2::LATE),
    ) {
        (Ok(status), Ok(late)) => (status, late),
        (Err(judgement), _) | (_, Err(judgement)) => return judgement,
    };
    let words = format!(
        "{} of {} checks are late on {host}",
        late.count, status.services
    );
    match too_many_late(late.count, status.services) {
        true => not_yet(words),
        false => holds(words),
    }
}

/// Without any check nothing is on time.
pub fn too_many_late(late: u64, services: u64) -> bool {
    services == 0 || late * 100 > services * LATE_PERCENT
}

#[cfg(test)]
#[path = "icinga2_tests.rs"]
mod tests;
