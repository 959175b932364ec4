//! CEPH-3: requests wait, all of them for one OSD, and nothing else explains it. That OSD is restarted once. Where requests wait for
//! several, the cause is a network, a disk or too much to do, and a restart would only add to it.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::{
        ceph::{CLUSTER, CRASHES, Check, Cluster, Crash, DEVICE_ERRORS, PGS},
        ceph_trouble::{BLOCKED, Blocked},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{
        all_osds_there, cluster, crashed_within, disk_is_sound, full_quorum, member_of, only_in,
        pgs, undisturbed, unit_of, units_are_known,
    },
    table::{Entry, Role, elsewhere, refuse},
};

const FACT: &str = "the set of OSDs that requests wait for";
const CHECK: &str = "SLOW_OPS";

pub static DECISION: Entry = Entry {
    name: "ceph.slow_osd",
    doc: "requests wait for long, all of them for one OSD that is up; its disk shows no error and it did not crash within a day, all OSDs are up and in, all \
          placement groups are active+clean, and nobody has set a flag",
    roles: &[Role::always("slow")],
    parameters: &["osd", "unit"],
    evidence: &[CLUSTER, PGS, BLOCKED, DEVICE_ERRORS, CRASHES],
    settings: &["confirm", "crash_window"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let words = |osds: Vec<Blocked>| (FACT, format!("{:?}", suspects(&osds)));
    blocked(input).map(words).into_iter().collect()
}

fn blocked(input: &Input<'_>) -> Result<Vec<Blocked>, Verdict> {
    let all: BTreeMap<HostName, Vec<Blocked>> = input.of_all(BLOCKED)?;
    Ok(all.into_values().flatten().collect())
}

/// OSDs that can be alone to blame: those that every waiting request waits for, where each waits for one only. Ceph does not say which
/// of its copies have answered; one that does not even answer on its own socket is the one, where it is among them.
fn suspects(osds: &[Blocked]) -> BTreeSet<u32> {
    let mut waits = osds.iter().flat_map(|one| &one.waits);
    let known: BTreeSet<u32> = osds.iter().map(|one| one.osd).collect();
    let common = match waits.clone().all(|wait| wait.silent == 1) {
        false => BTreeSet::new(),
        true => waits.by_ref().fold(known, |left, wait| &left & &wait.on),
    };
    let silent = osds.iter().filter(|one| !one.answers).map(|one| one.osd);
    let silent: BTreeSet<u32> = silent.collect();
    match silent.is_empty() {
        true => common,
        // A silent one that nobody waits for is something else.
        false if silent.is_subset(&common) => silent,
        false => BTreeSet::new(),
    }
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    let Some(check) = cluster.checks.get(CHECK) else {
        return Err(elsewhere("Ceph reports no slow request"));
    };
    full_quorum(&cluster)?;
    undisturbed(&cluster)?;
    all_osds_there(&cluster)?;
    only_of_osds(check)?;
    only_in(&pgs(input)?, &["active", "clean", "scrubbing", "deep"])?;
    let osd = the_only_one(input, &cluster)?;
    let host = member_of(input, &cluster, osd)?;
    disk_is_sound(input, &host)?;
    has_not_crashed(input, &host, osd)?;
    let unit = unit_of(osd);
    units_are_known(input, [(host.clone(), unit.clone())])?;
    if !input.unit(&host, &unit)?.is_active() {
        return Err(refuse(format!(
            "{unit} on {host} does not run, and the map has it up"
        )));
    }
    input.is_restartable(&host, &unit)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "{}; all of them wait for osd.{osd} on {host}",
        check.message
    );
    Ok(Act {
        parameters: BTreeMap::from([
            ("osd".to_owned(), osd.to_string()),
            ("unit".to_owned(), unit),
        ]),
        ..Act::on([("slow", vec![host])], why)
    })
}

fn only_of_osds(check: &Check) -> Result<(), Verdict> {
    match check.message.contains("mon.") || check.details.iter().any(|line| line.contains("mon.")) {
        true => Err(refuse(format!(
            "a monitor is slow itself: {}",
            check.message
        ))),
        false => Ok(()),
    }
}

fn the_only_one(input: &Input<'_>, cluster: &Cluster) -> Result<u32, Verdict> {
    let osds = blocked(input)?;
    if osds.iter().all(|one| one.answers && one.waits.is_empty()) {
        return Err(input.hold("no OSD says that a request of its waits any more"));
    }
    if osds.iter().all(|one| one.waits.is_empty()) {
        return Err(refuse(
            "OSDs do not answer, and no other one waits for them",
        ));
    }
    if let Some(one) = osds.iter().find(|one| one.more) {
        return Err(refuse(format!(
            "requests of osd.{} wait for very many",
            one.osd
        )));
    }
    let suspects: Vec<u32> = suspects(&osds).into_iter().collect();
    match suspects[..] {
        [osd] if cluster.osds.contains_key(&osd) => Ok(osd),
        [osd] => Err(refuse(format!("osd.{osd} is not in the map"))),
        [] => {
            let waited: BTreeSet<u32> = osds.iter().flat_map(Blocked::waits_for).collect();
            Err(refuse(format!(
                "requests wait for the OSDs {waited:?}: not a single one's fault"
            )))
        }
        _ => Err(refuse(format!(
            "which of the OSDs {suspects:?} requests wait for is not clear"
        ))),
    }
}

fn has_not_crashed(input: &Input<'_>, host: &HostName, osd: u32) -> Result<(), Verdict> {
    let crashes: Vec<Crash> = input.known(CRASHES, host)?;
    let window = input.seconds("crash_window")?;
    let own = format!("osd.{osd}");
    for crash in crashes.iter().filter(|crash| crash.daemon == own) {
        if crashed_within(crash, input.now, window)? {
            return Err(refuse(format!("{own} on {host} crashed at {}", crash.at)));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "ceph_slow_osd_tests.rs"]
mod tests;
