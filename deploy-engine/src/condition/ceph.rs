//! Ceph: the monitors have a quorum, a manager answers, every OSD says itself that it is active, and every placement group is
//! active and clean. A daemon's process alone proves nothing, and neither does what the monitors remember of a manager.

use std::collections::BTreeMap;

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, majority, not_yet, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Ask, Readings,
        ceph::{self, Cluster, Monitor, Pgs},
    },
};

/// The setting of the call that names an OSD by its number.
pub const OSD_SETTING: &str = "osd";
/// The service's setting that lists OSDs on their way out.
const LEAVING_SETTING: &str = "leaving";

/// Members that are asked what the whole cluster is like: the answer is everybody's, and two may be away.
const ASKED: usize = 3;

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "ceph.member_healthy",
        doc: "the host's monitor is in the quorum, its OSDs are up and say that they are active, a manager answers, and all placement groups are active+clean",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_hosts(call, ceph::OSDS));
            asks
        },
        judge: |call, readings| {
            all([clean(call, readings)].into_iter().chain(
                call.hosts
                    .iter()
                    .map(|host| member_healthy(call, host, readings)),
            ))
        },
    },
    Entry {
        name: "ceph.healthy",
        doc: "all monitors are in the quorum, a manager answers, all OSDs are up and in and say that they are active, and all placement groups are active+clean",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_hosts(call, ceph::OSDS));
            asks
        },
        judge: judge_healthy,
    },
    Entry {
        name: "ceph.may_stop",
        doc: "without the host the monitors keep their quorum, Ceph says that its OSDs may stop, every OSD of the cluster says that it is active, and all placement groups are active+clean",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_members(call, ceph::OSDS));
            asks.extend(table::ask_hosts(call, ceph::OK_TO_STOP));
            asks
        },
        judge: judge_may_stop,
    },
    Entry {
        name: "ceph.may_start_osd",
        doc: "the OSD of the setting `osd` is down, all OSDs that are down are on this host, all monitors are in the quorum, a manager answers, and nobody has set a flag",
        asks: about_cluster,
        judge: judge_may_start_osd,
    },
    Entry {
        name: "ceph.osd_active",
        doc: "the OSD of the setting `osd` is up and says that it is active",
        asks: |call| {
            let mut asks = about_cluster(call);
            asks.extend(table::ask_hosts(call, ceph::OSDS));
            asks
        },
        judge: judge_osd_active,
    },
    Entry {
        name: "ceph.in_quorum",
        doc: "the host's monitor says itself that it is in the quorum",
        asks: |call| table::ask_hosts(call, ceph::MONITOR),
        judge: |call, readings| all(call.hosts.iter().map(|host| in_quorum(host, readings))),
    },
    Entry {
        name: "ceph.quorum_without",
        doc: "without these hosts the monitors have a quorum",
        asks: |call| asked(call, ceph::CLUSTER),
        judge: |call, readings| match cluster(call, readings) {
            Err(why) => unknown(why),
            Ok(cluster) => quorum_stays(&cluster, &call.hosts),
        },
    },
    Entry {
        name: "ceph.manager_answers",
        doc: "the monitors have a quorum and an active manager answers",
        asks: about_cluster,
        judge: |call, readings| match (cluster(call, readings), pgs(call, readings)) {
            (Err(why), _) | (_, Err(why)) => not_yet(why),
            (Ok(_), Ok(pgs)) => holds(format!("an active manager answers: {}", pgs.words())),
        },
    },
    Entry {
        name: "ceph.has_quorum",
        doc: "the monitors have a quorum",
        asks: |call| asked(call, ceph::CLUSTER),
        judge: |call, readings| match cluster(call, readings) {
            Err(why) => unknown(why),
            Ok(cluster) => holds(format!("{} are in the quorum", list(&cluster.quorum))),
        },
    },
];

pub(super) fn asked(call: &ConditionCall, probe: &str) -> Vec<Ask> {
    let mut asks = table::ask_members(call, probe);
    asks.truncate(ASKED);
    asks
}

pub(super) fn about_cluster(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = asked(call, ceph::CLUSTER);
    asks.extend(asked(call, ceph::PGS));
    asks
}

/// The newest map that any of the asked members got from the monitors.
pub(super) fn cluster(call: &ConditionCall, readings: &Readings) -> Result<Cluster, String> {
    let mut why = "nobody was asked".to_owned();
    let mut newest: Option<Cluster> = None;
    for host in call.members.iter().take(ASKED) {
        match readings.get::<Cluster>(ceph::CLUSTER, host) {
            Err(error) => why = error,
            Ok(one) if newest.as_ref().is_none_or(|known| one.epoch > known.epoch) => {
                newest = Some(one)
            }
            Ok(_) => {}
        }
    }
    newest.ok_or(why)
}

/// What the active manager answered to one of them. Where answers differ, the one that is further from clean counts.
pub(super) fn pgs(call: &ConditionCall, readings: &Readings) -> Result<Pgs, String> {
    let mut why = "nobody was asked".to_owned();
    let mut worst: Option<Pgs> = None;
    for host in call.members.iter().take(ASKED) {
        match readings.get::<Pgs>(ceph::PGS, host) {
            Err(error) => why = error,
            Ok(one) if worst.is_none() || !one.are_clean() => worst = Some(one),
            Ok(_) => {}
        }
    }
    worst.ok_or(why)
}

pub(super) fn clean(call: &ConditionCall, readings: &Readings) -> Judgement {
    match pgs(call, readings) {
        Err(why) => unknown(why),
        Ok(pgs) if pgs.are_clean() => holds(pgs.words()),
        Ok(pgs) => not_yet(format!("placement groups: {}", pgs.words())),
    }
}

pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names
        .into_iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn member_healthy(call: &ConditionCall, host: &HostName, readings: &Readings) -> Judgement {
    let cluster = match cluster(call, readings) {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    if cluster.monitors.contains(host.as_str()) && !cluster.quorum.contains(host.as_str()) {
        return not_yet(format!("the monitor of {host} is not in the quorum"));
    }
    osds_active(call, &cluster, host, readings)
}

/// OSDs that the site is giving up: they may be down.
fn leaving(call: &ConditionCall) -> Vec<u32> {
    let list = call.settings.get(LEAVING_SETTING);
    let numbers = list
        .and_then(|value| value.as_array())
        .into_iter()
        .flatten();
    numbers
        .filter_map(|number| number.as_str()?.parse().ok())
        .collect()
}

/// Every OSD that the map has on the host is up, and says itself that it is active.
fn osds_active(
    call: &ConditionCall,
    cluster: &Cluster,
    host: &HostName,
    readings: &Readings,
) -> Judgement {
    let states: BTreeMap<u32, String> = match readings.get(ceph::OSDS, host) {
        Ok(states) => states,
        Err(why) => return unknown(why),
    };
    let mut judgements = vec![holds(format!("{host} answers"))];
    // One that was just made has no place in the map until it has started: it may be this host's.
    if let Some((id, _)) = cluster.osds.iter().find(|(_, osd)| osd.host.is_none()) {
        judgements.push(not_yet(format!("osd.{id} has no place in the map")));
    }
    let leaving = leaving(call);
    let here = cluster.osds_on(host.as_str());
    for (id, osd) in here.filter(|(id, osd)| osd.is_in || !leaving.contains(id)) {
        judgements.push(match states.get(&id).map(String::as_str) {
            _ if !osd.up => not_yet(format!("osd.{id} on {host} is down")),
            Some("active") => holds(format!("osd.{id} is active")),
            Some(other) => not_yet(format!("osd.{id} on {host} says that it is {other}")),
            None => not_yet(format!("osd.{id} on {host} does not answer")),
        });
    }
    all(judgements)
}

pub(super) fn judge_healthy(call: &ConditionCall, readings: &Readings) -> Judgement {
    let cluster = match cluster(call, readings) {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    let missing = cluster.without_quorum();
    let quorum = match missing.is_empty() {
        true => holds("all monitors are in the quorum"),
        false => not_yet(format!("{} not in the quorum", list(missing))),
    };
    let out = cluster
        .osds
        .iter()
        .filter(|(_, osd)| !(osd.up && osd.is_in));
    let out: Vec<String> = out.map(|(id, _)| format!("osd.{id}")).collect();
    let osds = match out.is_empty() {
        true => holds(format!("all {} OSDs are up and in", cluster.osds.len())),
        false => not_yet(format!("{} not up and in", out.join(", "))),
    };
    let hosts = call
        .hosts
        .iter()
        .map(|host| osds_active(call, &cluster, host, readings));
    all([quorum, osds, clean(call, readings)]
        .into_iter()
        .chain(hosts))
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    let cluster = match cluster(call, readings) {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    let mut judgements = vec![clean(call, readings)];
    judgements.extend(
        call.members
            .iter()
            .map(|host| osds_active(call, &cluster, host, readings)),
    );
    // The only member is interrupted whatever is done.
    if call.members.len() > 1 {
        judgements.push(quorum_stays(&cluster, &call.hosts));
        judgements.extend(call.hosts.iter().map(|host| ok_to_stop(host, readings)));
    }
    if call.hosts.len() > 1 {
        judgements.push(refuted(
            "one host after another: OSDs of two may hold the same data",
        ));
    }
    all(judgements)
}

fn quorum_stays(cluster: &Cluster, stopped: &[HostName]) -> Judgement {
    let left = cluster
        .quorum
        .iter()
        .filter(|name| !stopped.iter().any(|host| host.as_str() == name.as_str()))
        .count();
    let wanted = majority(cluster.monitors.len());
    match left >= wanted {
        true => holds(format!("{left} monitors are left")),
        false if cluster.without_quorum().is_empty() => refuted(format!(
            "{left} monitors would be left, a quorum needs {wanted}"
        )),
        false => not_yet(format!(
            "{left} monitors would be left, a quorum needs {wanted}"
        )),
    }
}

pub(super) fn ok_to_stop(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<bool>(ceph::OK_TO_STOP, host) {
        Err(why) => unknown(why),
        Ok(true) => holds(format!("Ceph says that the OSDs of {host} may stop")),
        Ok(false) => not_yet(format!("Ceph says that the OSDs of {host} may not stop")),
    }
}

pub(super) fn osd_of(call: &ConditionCall) -> Result<u32, Judgement> {
    let setting = call.settings.get(OSD_SETTING);
    let number = setting.and_then(|value| value.as_str()?.parse().ok());
    number.ok_or_else(|| {
        unknown(format!(
            "{}: expected the number of an OSD in the setting {OSD_SETTING}",
            call.name
        ))
    })
}

fn judge_may_start_osd(call: &ConditionCall, readings: &Readings) -> Judgement {
    let id = match osd_of(call) {
        Ok(id) => id,
        Err(judgement) => return judgement,
    };
    let cluster = match (cluster(call, readings), pgs(call, readings)) {
        (Ok(cluster), Ok(_)) => cluster,
        (Err(why), _) | (_, Err(why)) => return unknown(why),
    };
    if let Some(flag) = cluster.flags.first() {
        return refuted(format!("somebody has set the flag {flag}"));
    }
    if !cluster.without_quorum().is_empty() {
        return refuted(format!(
            "{} not in the quorum",
            list(cluster.without_quorum())
        ));
    }
    let elsewhere = |down: &u32| {
        let host = cluster.osds.get(down).and_then(|osd| osd.host.as_deref());
        !call.hosts.iter().any(|own| Some(own.as_str()) == host)
    };
    if let Some(other) = cluster.down().into_iter().find(elsewhere) {
        return refuted(format!("osd.{other} is down on another host"));
    }
    match cluster.osds.get(&id) {
        None => refuted(format!("there is no osd.{id} in the map")),
        Some(osd) if osd.up => not_yet(format!("osd.{id} is up")),
        Some(_) => holds(format!("osd.{id} is down, and all else is as it should be")),
    }
}

fn judge_osd_active(call: &ConditionCall, readings: &Readings) -> Judgement {
    let id = match osd_of(call) {
        Ok(id) => id,
        Err(judgement) => return judgement,
    };
    let cluster = match cluster(call, readings) {
        Ok(cluster) => cluster,
        Err(why) => return unknown(why),
    };
    let up = match cluster.osds.get(&id) {
        None => refuted(format!("there is no osd.{id} in the map")),
        Some(osd) if osd.up => holds(format!("osd.{id} is up")),
        Some(_) => not_yet(format!("osd.{id} is down")),
    };
    let active = call.hosts.iter().map(|host| {
        match readings.get::<BTreeMap<u32, String>>(ceph::OSDS, host) {
            Err(why) => unknown(why),
            Ok(states) => match states.get(&id).map(String::as_str) {
                Some("active") => holds(format!("osd.{id} says that it is active")),
                Some(other) => not_yet(format!("osd.{id} says that it is {other}")),
                None => not_yet(format!("osd.{id} does not answer")),
            },
        }
    });
    all([up].into_iter().chain(active))
}

fn in_quorum(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<Monitor>(ceph::MONITOR, host) {
        Err(why) => unknown(why),
        Ok(monitor) if monitor.is_in_quorum() => holds(format!(
            "the monitor of {host} is in the quorum ({})",
            monitor.state
        )),
        Ok(monitor) => not_yet(format!("the monitor of {host} is {}", monitor.state)),
    }
}

#[cfg(test)]
#[path = "ceph_tests.rs"]
mod tests;
