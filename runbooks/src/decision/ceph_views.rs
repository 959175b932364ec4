//! What decisions about Ceph have in common: the monitors' newest map, the manager's own answer, and what forbids every repair.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::{
        ceph::{CLUSTER, Cluster, Crash, DEVICE_ERRORS, NO_MANAGER, PGS, Pgs},
        host::unit_probe,
    },
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Input, Verdict,
    table::{elsewhere, refuse},
};

/// What placement groups are called while copies are missing and nothing is moved yet, or being looked at.
pub(super) const SHORT_OF_COPIES: [&str; 6] = [
    "active",
    "clean",
    "undersized",
    "degraded",
    "scrubbing",
    "deep",
];

/// The newest map of all members. Every member must have one: a host that cannot be asked is no host whose daemon is down.
pub(super) fn cluster(input: &Input<'_>) -> Result<Cluster, Verdict> {
    let all: BTreeMap<HostName, Cluster> = input.of_all(CLUSTER)?;
    all.into_values()
        .max_by_key(|cluster| cluster.epoch)
        .ok_or_else(|| refuse("expected the monitors' map; found none"))
}

/// What the active manager answers to every member. Its metrics, and what the monitors remember of it, are no proof that there
/// is one. That none answers is another runbook's situation, which comes first.
pub(super) fn pgs(input: &Input<'_>) -> Result<Pgs, Verdict> {
    let silent = |host: &&HostName| {
        let reading = input.readings.get::<Pgs>(PGS, host);
        reading.is_err_and(|why| why.contains(NO_MANAGER))
    };
    if input.members.iter().filter(silent).count() == input.members.len() {
        return Err(elsewhere(format!("{NO_MANAGER}: CEPH-8 comes first")));
    }
    let all: BTreeMap<HostName, Pgs> = input.of_all(PGS)?;
    let worst = all.into_values().max_by_key(|pgs| !pgs.are_clean());
    worst.ok_or_else(|| refuse("expected the placement groups; found none"))
}

/// Nothing is repaired while somebody holds a part of the cluster, upgrades it, or it is full.
pub(super) fn undisturbed(cluster: &Cluster) -> Result<(), Verdict> {
    if let Some(flag) = cluster.flags.first() {
        return Err(refuse(format!("somebody has set the flag {flag}")));
    }
    one_version(cluster)?;
    for check in ["OSD_FULL", "OSD_BACKFILLFULL", "POOL_FULL"] {
        if let Some(found) = cluster.checks.get(check) {
            return Err(refuse(format!("{check}: {}", found.message)));
        }
    }
    Ok(())
}

/// Unequal versions mean that somebody upgrades, daemon by daemon (gate G4).
fn one_version(cluster: &Cluster) -> Result<(), Verdict> {
    let versions: BTreeSet<&String> = cluster.versions.values().flat_map(BTreeMap::keys).collect();
    match versions.len() {
        1 => Ok(()),
        _ => Err(refuse(format!(
            "expected one version of all daemons; found {versions:?}: an upgrade is under way"
        ))),
    }
}

pub(super) fn full_quorum(cluster: &Cluster) -> Result<(), Verdict> {
    let missing = cluster.without_quorum();
    match missing.is_empty() && !cluster.quorum.is_empty() {
        true => Ok(()),
        false => Err(refuse(format!(
            "expected all monitors in the quorum; missing: {}",
            missing.into_iter().cloned().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The member that is called as the CRUSH map calls the OSD's host.
pub(super) fn member_of(
    input: &Input<'_>,
    cluster: &Cluster,
    osd: u32,
) -> Result<HostName, Verdict> {
    let bucket = cluster.osds.get(&osd).and_then(|osd| osd.host.as_deref());
    let Some(bucket) = bucket else {
        return Err(refuse(format!("osd.{osd} has no host in the CRUSH map")));
    };
    let member = input.members.iter().find(|host| host.as_str() == bucket);
    member.cloned().ok_or_else(|| {
        refuse(format!(
            "osd.{osd} is on {bucket}, which is no member of {}",
            input.service
        ))
    })
}

pub(super) fn unit_of(osd: u32) -> String {
    format!("ceph-osd@{osd}.service")
}

/// systemd's own word about these units. A list of all units leaves out those that somebody disabled: they are asked for by name.
pub(super) fn units_are_known(
    input: &Input<'_>,
    units: impl IntoIterator<Item = (HostName, String)>,
) -> Result<(), Verdict> {
    let asked = |probe: &str, host: &HostName| {
        let of = input.readings.by_probe.get(probe);
        of.is_some_and(|of| of.contains_key(host))
    };
    let asks: Vec<_> = units
        .into_iter()
        .map(|(host, unit)| (unit_probe(&unit), host))
        .filter(|(probe, host)| !asked(probe, host))
        .map(|(probe, host)| input.ask(&probe, &host))
        .collect();
    match asks.is_empty() {
        true => Ok(()),
        false => Err(Verdict::More {
            asks,
            why: "systemd was not asked about the daemon itself yet".to_owned(),
        }),
    }
}

/// The unit may be started by the bot: it is down for good, nobody wants that, and systemd did not give up on it. What crashes
/// again and again is not mended by one more start, whatever left no report.
pub(super) fn may_be_started(
    input: &Input<'_>,
    host: &HostName,
    unit: &str,
) -> Result<(), Verdict> {
    units_are_known(input, [(host.clone(), unit.to_owned())])?;
    input.is_startable(host, unit)?;
    match input.unit(host, unit)?.result.as_str() {
        "start-limit-hit" => Err(refuse(format!(
            "{unit} on {host} crashed again and again until systemd gave up"
        ))),
        "oom-kill" => Err(refuse(format!(
            "{unit} on {host} was killed for lack of memory"
        ))),
        _ => Ok(()),
    }
}

/// Whatever the kernel says of any disk of the host: which one it is about is for people to find out.
pub(super) fn disk_is_sound(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    let errors: Vec<String> = input.known(DEVICE_ERRORS, host)?;
    match errors.last() {
        None => Ok(()),
        Some(line) => Err(Verdict::Refuse {
            why: format!("the kernel of {host} reported a failing disk within a day: CEPH-14"),
            evidence: vec![line.clone()],
        }),
    }
}

/// Was it in the last `window`?
pub(super) fn crashed_within(
    crash: &Crash,
    now: Timestamp,
    window: SignedDuration,
) -> Result<bool, Verdict> {
    let at: Timestamp = crash.at.parse().map_err(|_| {
        refuse(format!(
            "expected the time of a crash; found {:?}",
            crash.at
        ))
    })?;
    Ok(now.duration_since(at) <= window)
}

/// Every OSD is up and in: data is changed only where all of it is at hand.
pub(super) fn all_osds_there(cluster: &Cluster) -> Result<(), Verdict> {
    let away = cluster.osds.iter().find(|(_, osd)| !(osd.up && osd.is_in));
    match (away, cluster.osds.is_empty()) {
        (Some((id, _)), _) => Err(refuse(format!("osd.{id} is not up and in"))),
        (None, true) => Err(refuse("expected OSDs in the map; found none")),
        (None, false) => Ok(()),
    }
}

/// No data moves and none is missing: every placement group is active and clean, and else in states made of these parts only.
pub(super) fn only_in(groups: &Pgs, parts: &[&str]) -> Result<(), Verdict> {
    let whole = |state: &String| {
        let has = |part: &str| state.split('+').any(|one| one == part);
        has("active") && has("clean")
    };
    let at_rest = groups.total > 0 && groups.states.keys().all(whole);
    match at_rest && groups.other_than(parts).is_empty() {
        true => Ok(()),
        false => Err(refuse(format!(
            "expected all placement groups to be at rest; found {}",
            groups.words()
        ))),
    }
}
