//! Ceph: data whose copies differ, requests that wait too long, and reports of crashes.

use super::{
    ConditionCall, Judgement,
    ceph::{about_cluster, asked, clean, cluster, judge_healthy, list, ok_to_stop, osd_of, pgs},
    table::{self, Entry, all, holds, not_yet, refuted, unknown},
};
use crate::probe::{
    Ask, Readings,
    ceph::{self, Cluster, Crash},
    ceph_trouble::{DAMAGE, Damage},
};

/// The setting of the call that names a placement group.
pub const GROUP_SETTING: &str = "group";
/// The setting of the call that names the report of a crash.
pub const CRASH_SETTING: &str = "crash";

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "ceph.may_repair_group",
        doc: "the placement group of the setting `group` is damaged and at rest, all OSDs are up and in, no data moves, and nobody has set a flag",
        asks: about_damage,
        judge: |call, readings| match damaged(call, readings) {
            Err(judgement) => judgement,
            Ok(None) => not_yet("the placement group is not damaged"),
            Ok(Some(_)) => at_rest(call, readings),
        },
    },
    Entry {
        name: "ceph.group_consistent",
        doc: "all copies in the placement group of the setting `group` agree, and nothing repairs it",
        asks: about_damage,
        judge: |call, readings| match damaged(call, readings) {
            Err(judgement) => judgement,
            Ok(Some(state)) => not_yet(format!("it is {state}")),
            Ok(None) => all([holds("its copies agree"), clean(call, readings)]),
        },
    },
    Entry {
        name: "ceph.may_restart_osd",
        doc: "the OSD of the setting `osd` is up, Ceph says that the host's OSDs may stop, all placement groups are active+clean, all monitors are in the quorum, and nobody has set a flag",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_hosts(call, ceph::OK_TO_STOP));
            asks
        },
        judge: judge_may_restart_osd,
    },
    Entry {
        name: "ceph.quick",
        doc: "the cluster is healthy, and no request waits for long",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_hosts(call, ceph::OSDS));
            asks
        },
        judge: |call, readings| {
            let slow = match cluster(call, readings) {
                Err(why) => unknown(why),
                Ok(cluster) => match cluster.checks.get("SLOW_OPS") {
                    Some(check) => not_yet(check.message.clone()),
                    None => holds("no request waits for long"),
                },
            };
            all([judge_healthy(call, readings), slow])
        },
    },
    Entry {
        name: "ceph.crash_is_new",
        doc: "the report of the setting `crash` is there and not archived",
        asks: |call| asked(call, ceph::NEW_CRASHES),
        judge: |call, readings| match is_new(call, readings) {
            Err(judgement) => judgement,
            Ok(true) => holds("the report is not archived"),
            Ok(false) => not_yet("the report is archived"),
        },
    },
    Entry {
        name: "ceph.crash_archived",
        doc: "the report of the setting `crash` is archived",
        asks: |call| asked(call, ceph::NEW_CRASHES),
        judge: |call, readings| match is_new(call, readings) {
            Err(judgement) => judgement,
            Ok(true) => not_yet("the report is not archived"),
            Ok(false) => holds("the report is archived"),
        },
    },
    Entry {
        name: "ceph.no_crash_reported",
        doc: "every report of a crash is archived, and the cluster is healthy",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(asked(call, ceph::NEW_CRASHES));
            asks.extend(table::ask_hosts(call, ceph::OSDS));
            asks
        },
        judge: |call, readings| {
            let reports = match new_crashes(call, readings) {
                Err(why) => unknown(why),
                Ok(new) => match new.first() {
                    Some(one) => not_yet(format!("{} crashed at {}", one.daemon, one.at)),
                    None => holds("no report of a crash is new"),
                },
            };
            all([judge_healthy(call, readings), reports])
        },
    },
];

fn about_damage(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = about_cluster(call);
    asks.extend(table::ask_hosts(call, DAMAGE));
    asks
}

fn setting<'a>(call: &'a ConditionCall, name: &str) -> Result<&'a str, Judgement> {
    let value = call.settings.get(name).and_then(|value| value.as_str());
    value.ok_or_else(|| unknown(format!("{}: expected the setting {name}", call.name)))
}

/// The state of the setting's placement group where it is damaged. With more of them than are shown that is not known.
fn damaged(call: &ConditionCall, readings: &Readings) -> Result<Option<String>, Judgement> {
    let wanted = setting(call, GROUP_SETTING)?;
    let mut found = None;
    for host in &call.hosts {
        let damage: Damage = readings.get(DAMAGE, host).map_err(unknown)?;
        let group = damage.groups.iter().find(|group| group.group == wanted);
        if group.is_none() && damage.count > damage.groups.len() {
            return Err(unknown(format!(
                "{} placement groups are damaged",
                damage.count
            )));
        }
        found = found.or(group.map(|group| group.state.clone()));
    }
    match call.hosts.is_empty() {
        true => Err(unknown("nobody was asked")),
        false => Ok(found),
    }
}

/// No flag, all monitors, all OSDs: what every change of data asks for.
fn complete(cluster: &Cluster) -> Judgement {
    if let Some(flag) = cluster.flags.first() {
        return refuted(format!("somebody has set the flag {flag}"));
    }
    if !cluster.without_quorum().is_empty() {
        let missing = list(cluster.without_quorum());
        return refuted(format!("{missing} not in the quorum"));
    }
    let away = cluster.osds.iter().find(|(_, osd)| !(osd.up && osd.is_in));
    match away {
        Some((id, _)) => refuted(format!("osd.{id} is not up and in")),
        None if cluster.osds.is_empty() => unknown("the map has no OSD"),
        None => holds(format!("all {} OSDs are up and in", cluster.osds.len())),
    }
}

fn at_rest(call: &ConditionCall, readings: &Readings) -> Judgement {
    let (cluster, pgs) = match (cluster(call, readings), pgs(call, readings)) {
        (Ok(cluster), Ok(pgs)) => (cluster, pgs),
        (Err(why), _) | (_, Err(why)) => return unknown(why),
    };
    let moving = pgs.other_than(&["active", "clean", "inconsistent", "scrubbing", "deep"]);
    let rest = match moving.first() {
        Some(state) => not_yet(format!("placement groups are {state}")),
        None if pgs.total == 0 => unknown("no placement group is known"),
        None => holds(pgs.words()),
    };
    all([complete(&cluster), rest])
}

fn judge_may_restart_osd(call: &ConditionCall, readings: &Readings) -> Judgement {
    let id = match osd_of(call) {
        Ok(id) => id,
        Err(judgement) => return judgement,
    };
    let cluster = match cluster(call, readings) {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    let known = match cluster.osds.contains_key(&id) {
        true => holds(format!("osd.{id} is in the map")),
        false => refuted(format!("there is no osd.{id} in the map")),
    };
    let may = call.hosts.iter().map(|host| ok_to_stop(host, readings));
    all([known, complete(&cluster), clean(call, readings)]
        .into_iter()
        .chain(may))
}

/// What the active manager answers to one of those that are asked.
fn new_crashes(call: &ConditionCall, readings: &Readings) -> Result<Vec<Crash>, String> {
    let mut why = "nobody was asked".to_owned();
    for ask in asked(call, ceph::NEW_CRASHES) {
        match readings.get::<Vec<Crash>>(ceph::NEW_CRASHES, &ask.host) {
            Ok(new) => return Ok(new),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn is_new(call: &ConditionCall, readings: &Readings) -> Result<bool, Judgement> {
    let id = setting(call, CRASH_SETTING)?;
    let new = new_crashes(call, readings).map_err(unknown)?;
    Ok(new.iter().any(|crash| crash.id == id))
}

#[cfg(test)]
#[path = "ceph_trouble_tests.rs"]
mod tests;
