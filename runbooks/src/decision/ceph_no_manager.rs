//! CEPH-8: no manager answers, or one that should stand by is stopped. One is started. Data can be used meanwhile, but nobody sees
//! what becomes of it, so all other repairs of Ceph wait for this one.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        ceph::{CLUSTER, NO_MANAGER, PGS, Pgs},
        host::UNITS,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    ceph_views::{cluster, may_be_started, units_are_known},
    input::{majority, names},
    table::{Entry, Role, elsewhere, refuse},
};

const FACT: &str = "the set of managers that are stopped";

pub static DECISION: Entry = Entry {
    name: "ceph.no_manager",
    doc: "the monitors have a quorum and a manager's unit is down for good; where no manager answers at all, none of them runs and hangs",
    roles: &[Role::always("down")],
    parameters: &["unit"],
    evidence: &[CLUSTER, PGS, UNITS],
    settings: &["confirm"],
    facts,
    decide,
};

/// Members that run a manager: those with a monitor.
fn managers(input: &Input<'_>) -> Result<Vec<HostName>, Verdict> {
    let monitors = cluster(input)?.monitors;
    let members = input.members.iter();
    let managers: Vec<HostName> = members
        .filter(|host| monitors.contains(host.as_str()))
        .cloned()
        .collect();
    match managers.is_empty() {
        true => Err(refuse("expected members with a manager; found none")),
        false => Ok(managers),
    }
}

fn unit_of(host: &HostName) -> String {
    format!("ceph-mgr@{host}.service")
}

fn stopped(input: &Input<'_>) -> Result<Vec<HostName>, Verdict> {
    let managers = managers(input)?;
    let units = managers.iter().map(|host| (host.clone(), unit_of(host)));
    units_are_known(input, units)?;
    let mut stopped = Vec::new();
    for host in managers {
        if !input.unit(&host, &unit_of(&host))?.is_active() {
            stopped.push(host);
        }
    }
    Ok(stopped)
}

fn facts(input: &Input<'_>) -> Facts {
    let words = |hosts: Vec<HostName>| (FACT, names(&hosts));
    stopped(input).map(words).into_iter().collect()
}

/// Does one answer? Silence of all of them is known; any other failure to ask is not.
fn answers(input: &Input<'_>) -> Result<bool, Verdict> {
    let mut silent = 0;
    for host in input.members {
        match input.readings.get::<Pgs>(PGS, host) {
            Ok(_) => return Ok(true),
            Err(why) if why.contains(NO_MANAGER) => silent += 1,
            Err(why) => return Err(refuse(format!("unknown is not down: {why}"))),
        }
    }
    match silent == input.members.len() {
        true => Ok(false),
        false => Err(refuse("not every member was asked")),
    }
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let cluster = cluster(input)?;
    if cluster.quorum.len() < majority(cluster.monitors.len()) {
        return Err(refuse("the monitors have no quorum"));
    }
    let (managers, stopped) = (managers(input)?, stopped(input)?);
    let answers = answers(input)?;
    let Some(host) = stopped.first().cloned() else {
        return Err(match answers {
            true => elsewhere("every manager runs and one answers"),
            false => refuse(format!(
                "the managers of {} run, and none answers: one hangs, or its module fails",
                names(&managers)
            )),
        });
    };
    if !answers && stopped.len() < managers.len() {
        return Err(input.hold("a manager runs and does not answer yet: it may be taking over"));
    }
    let unit = unit_of(&host);
    may_be_started(input, &host, &unit)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "the manager of {host} is down and its unit will not come back by itself; {}",
        match answers {
            true => "another one answers",
            false => "none answers",
        }
    );
    Ok(Act {
        parameters: BTreeMap::from([("unit".to_owned(), unit)]),
        ..Act::on([("down", vec![host])], why)
    })
}

#[cfg(test)]
#[path = "ceph_no_manager_tests.rs"]
mod tests;
