//! CEPH-6: one monitor is stopped, the others have a quorum. It is started once, with the store that it has. The map of monitors is
//! never touched, and no store is ever made anew: the last good one may be this one.

use std::collections::BTreeMap;

use deploy_engine::probe::{
    ceph::CLUSTER,
    host::{FILESYSTEM, UNITS},
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{cluster, may_be_started, undisturbed},
    input::majority,
    table::{Entry, Role, elsewhere, refuse},
};

const DATA: &str = "/var/lib/ceph/mon";
const FACT: &str = "the set of monitors that are not in the quorum";

pub static DECISION: Entry = Entry {
    name: "ceph.monitor_down",
    doc: "exactly one monitor is not in the quorum, its unit is down for good, its disk has room, clocks agree, and nobody has set a flag",
    roles: &[Role::always("down")],
    parameters: &["unit"],
    evidence: &[CLUSTER, UNITS, FILESYSTEM],
    settings: &["confirm", "min_free_percent"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let words = |cluster: deploy_engine::probe::ceph::Cluster| {
        let missing = cluster.without_quorum().into_iter().cloned();
        (FACT, missing.collect::<Vec<_>>().join(", "))
    };
    cluster(input).map(words).into_iter().collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    let missing: Vec<&String> = cluster.without_quorum().into_iter().collect();
    let name = match &missing[..] {
        [] => return Err(elsewhere("every monitor is in the quorum")),
        [one] => *one,
        several => {
            return Err(refuse(format!(
                "{} monitors are not in the quorum: not a single one's fault",
                several.len()
            )));
        }
    };
    if cluster.quorum.len() < majority(cluster.monitors.len()) {
        return Err(refuse("the monitors have no quorum"));
    }
    undisturbed(&cluster)?;
    if let Some(skew) = cluster.checks.get("MON_CLOCK_SKEW") {
        return Err(refuse(format!("{}: CEPH-7", skew.message)));
    }
    let host = input
        .members
        .iter()
        .find(|host| host.as_str() == name.as_str())
        .cloned()
        .ok_or_else(|| {
            refuse(format!(
                "the monitor {name} is on no member of {}",
                input.service
            ))
        })?;
    let unit = format!("ceph-mon@{host}.service");
    may_be_started(input, &host, &unit)?;
    has_room(input, &host)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "the monitor of {host} is down and its unit will not come back by itself; {} others have a quorum",
        cluster.quorum.len()
    );
    Ok(Act {
        parameters: BTreeMap::from([("unit".to_owned(), unit)]),
        ..Act::on([("down", vec![host])], why)
    })
}

fn has_room(input: &Input<'_>, host: &deploy_engine::model::HostName) -> Result<(), Verdict> {
    let filesystem = input.filesystem(host, DATA)?;
    let wanted = input.number("min_free_percent")?;
    let free = filesystem.free_bytes as f64 * 100.0 / (filesystem.size_bytes.max(1)) as f64;
    if free >= wanted {
        return Ok(());
    }
    Err(refuse(format!(
        "{host}: expected at least {wanted} % free for {DATA}; found {free:.0} %: CEPH-13"
    )))
}

#[cfg(test)]
#[path = "ceph_monitor_down_tests.rs"]
mod tests;
