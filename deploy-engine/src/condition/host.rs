//! Units and filesystems of a host.

use std::collections::BTreeMap;

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Ask, Readings,
        host::{self, Filesystem, Unit},
    },
};

/// The setting of the call that names the unit.
pub const UNIT_SETTING: &str = "unit";

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "unit.active",
        doc: "the unit named by the call's setting `unit` is active",
        asks,
        judge: |call, readings| judge(call, readings, active),
    },
    Entry {
        name: "unit.failed",
        doc: "the unit named by the call's setting `unit` has failed and systemd does not try again",
        asks,
        judge: |call, readings| judge(call, readings, failed),
    },
    Entry {
        name: "unit.startable",
        doc: "the unit named by the call's setting `unit` is down for good, and nobody disabled or masked it",
        asks,
        judge: |call, readings| judge(call, readings, startable),
    },
    Entry {
        name: "filesystem.has_room",
        doc: "of the filesystem that holds the call's setting `path`, at least `percent` of its bytes are free",
        asks: |call| table::ask_hosts(call, host::FILESYSTEM),
        judge: |call, readings| room(call, readings, true),
    },
    Entry {
        name: "filesystem.is_short",
        doc: "of the filesystem that holds the call's setting `path`, less than `percent` of its bytes are free",
        asks: |call| table::ask_hosts(call, host::FILESYSTEM),
        judge: |call, readings| room(call, readings, false),
    },
];

/// Room on every host of the call; wanted, or its lack.
fn room(call: &ConditionCall, readings: &Readings, wanted: bool) -> Judgement {
    let path = call.settings.get("path").and_then(|value| value.as_str());
    let percent = call
        .settings
        .get("percent")
        .and_then(|value| value.as_u64());
    let (Some(path), Some(percent @ 1..=99)) = (path, percent) else {
        return unknown(format!(
            "{}: expected the settings path, and percent from 1 to 99; they are not there",
            call.name
        ));
    };
    all(call.hosts.iter().map(|on| {
        let mounted: Result<BTreeMap<String, Filesystem>, _> = readings.get(host::FILESYSTEM, on);
        let mounted = match mounted {
            Ok(mounted) => mounted,
            Err(why) => return unknown(why),
        };
        match host::filesystem_of(&mounted, path) {
            None => unknown(format!("{on}: no filesystem is known to hold {path}")),
            Some((mount, of)) if of.size_bytes == 0 => {
                unknown(format!("{on}: {mount} has no size"))
            }
            Some((mount, of)) => {
                let free = of.free_percent();
                let why = format!("{mount} on {on} has {free} % free");
                match (free >= percent) == wanted {
                    true => holds(why),
                    false => not_yet(why),
                }
            }
        }
    }))
}

fn unit_of(call: &ConditionCall) -> Option<&str> {
    let setting = call.settings.get(UNIT_SETTING);
    setting.and_then(|value| value.as_str())
}

fn asks(call: &ConditionCall) -> Vec<Ask> {
    let unit = unit_of(call).map(host::unit_probe);
    unit.map_or_else(Vec::new, |probe| table::ask_hosts(call, &probe))
}

fn judge(
    call: &ConditionCall,
    readings: &Readings,
    one: fn(&HostName, &str, &Unit) -> Judgement,
) -> Judgement {
    let Some(name) = unit_of(call) else {
        return unknown(format!(
            "{}: expected the setting {UNIT_SETTING}; it is not there",
            call.name
        ));
    };
    all(call
        .hosts
        .iter()
        .map(|host| match host::unit_in(readings, host, name) {
            Err(why) => unknown(why),
            Ok(unit) => one(host, name, &unit),
        }))
}

fn active(host: &HostName, name: &str, unit: &Unit) -> Judgement {
    if unit.is_active() {
        holds(format!("{name} on {host} is active ({})", unit.sub))
    } else {
        not_yet(format!(
            "{name} on {host} is {} ({}, {})",
            unit.active, unit.sub, unit.result
        ))
    }
}

fn failed(host: &HostName, name: &str, unit: &Unit) -> Judgement {
    if unit.active == "failed" {
        holds(format!("{name} on {host} has failed ({})", unit.result))
    } else {
        not_yet(format!(
            "{name} on {host} is {} ({})",
            unit.active, unit.sub
        ))
    }
}

fn startable(host: &HostName, name: &str, unit: &Unit) -> Judgement {
    if unit.load != "loaded" || matches!(unit.enabled.as_str(), "disabled" | "masked") {
        return refuted(format!(
            "{name} on {host} is {} and {}: somebody does not want it to run",
            unit.load, unit.enabled
        ));
    }
    match unit.active.as_str() {
        "failed" | "inactive" => holds(format!("{name} on {host} is down ({})", unit.result)),
        other => not_yet(format!("{name} on {host} is {other} ({})", unit.sub)),
    }
}
