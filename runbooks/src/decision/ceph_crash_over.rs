//! CEPH-11: a daemon crashed once, what came of it is over, and only the report is left, which keeps the cluster's health yellow for two
//! weeks. That one report is archived. What CEPH-1 counts crashes by are the files on the hosts, and they stay.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::ceph::{CLUSTER, CRASHES, Cluster, Crash, NEW_CRASHES, PGS},
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{all_osds_there, cluster, crashed_within, full_quorum, only_in, pgs, undisturbed},
    table::{Entry, Role, elsewhere, refuse},
};

const FACT: &str = "the set of new reports of crashes";
/// Checks of Ceph that are about it.
const CHECKS: [&str; 2] = ["RECENT_CRASH", "RECENT_MGR_MODULE_CRASH"];

pub static DECISION: Entry = Entry {
    name: "ceph.crash_over",
    doc: "exactly one report of a crash is new and some time old, its daemon did not crash again within a day, and Ceph reports nothing else",
    roles: &[Role::always("reporter")],
    parameters: &["crash"],
    evidence: &[CLUSTER, PGS, NEW_CRASHES, CRASHES],
    settings: &["confirm", "over", "crash_window"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let words = |new: Vec<Crash>| {
        let ids: BTreeSet<String> = new.into_iter().map(|crash| crash.id).collect();
        (FACT, ids.into_iter().collect::<Vec<_>>().join(", "))
    };
    new(input).map(words).into_iter().collect()
}

/// What the active manager answers to every member; the longest list counts.
fn new(input: &Input<'_>) -> Result<Vec<Crash>, Verdict> {
    let all: BTreeMap<HostName, Vec<Crash>> = input.of_all(NEW_CRASHES)?;
    all.into_values()
        .max_by_key(Vec::len)
        .ok_or_else(|| refuse("expected the reports of crashes; found none"))
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    if !CHECKS
        .iter()
        .any(|check| cluster.checks.contains_key(*check))
    {
        return Err(elsewhere("Ceph reports no crash"));
    }
    full_quorum(&cluster)?;
    undisturbed(&cluster)?;
    all_osds_there(&cluster)?;
    nothing_else(&cluster)?;
    only_in(&pgs(input)?, &["active", "clean", "scrubbing", "deep"])?;
    let crash = the_only_one(input)?;
    crashed_once(input, &crash)?;
    if crashed_within(&crash, input.now, input.seconds("over")?)? {
        return Err(input.hold(format!(
            "{} crashed at {}: whether it is over is seen later",
            crash.daemon, crash.at
        )));
    }
    input.steadily(FACT, "confirm")?;
    let reporter = input.members.first().cloned();
    let why = format!(
        "{} crashed once, at {}; all is well since then, and its report is kept",
        crash.daemon, crash.at
    );
    Ok(Act {
        parameters: BTreeMap::from([("crash".to_owned(), crash.id)]),
        ..Act::on([("reporter", reporter.into_iter().collect())], why)
    })
}

fn nothing_else(cluster: &Cluster) -> Result<(), Verdict> {
    let mut others = cluster
        .checks
        .iter()
        .filter(|(name, _)| !CHECKS.contains(&name.as_str()));
    match others.next() {
        None => Ok(()),
        Some((name, check)) => Err(refuse(format!(
            "what is behind it may not be over: {name}: {}",
            check.message
        ))),
    }
}

fn the_only_one(input: &Input<'_>) -> Result<Crash, Verdict> {
    let new = new(input)?;
    let [crash] = &new[..] else {
        let daemons: BTreeSet<&str> = new.iter().map(|crash| crash.daemon.as_str()).collect();
        return Err(refuse(format!(
            "expected one report of a crash; found {} of {}",
            new.len(),
            daemons.into_iter().collect::<Vec<_>>().join(", ")
        )));
    };
    // `2026-11-26T05:10:08.076744Z_` and a UUID.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_:.-".contains(letter);
    match crash.id.starts_with("20") && crash.id.chars().all(plain) {
        true => Ok(crash.clone()),
        false => Err(refuse(format!(
            "expected the name of a report; found {:?}",
            crash.id
        ))),
    }
}

/// Counted by the files on the hosts: archived reports count, too.
fn crashed_once(input: &Input<'_>, crash: &Crash) -> Result<(), Verdict> {
    let kept: BTreeMap<HostName, Vec<Crash>> = input.of_all(CRASHES)?;
    let window = input.seconds("crash_window")?;
    let mut count = 0_u32;
    for one in kept
        .values()
        .flatten()
        .filter(|one| one.daemon == crash.daemon)
    {
        if crashed_within(one, input.now, window)? {
            count += 1;
        }
    }
    match count <= 1 {
        true => Ok(()),
        false => Err(refuse(format!(
            "{} crashed {count} times within {} h: its reports are needed",
            crash.daemon,
            window.as_hours()
        ))),
    }
}

#[cfg(test)]
#[path = "ceph_crash_over_tests.rs"]
mod tests;
