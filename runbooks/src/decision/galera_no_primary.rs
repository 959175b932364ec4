//! GAL-4: servers run, but nowhere is a primary component. One of them is told to form it, only when every member is
//! accounted for: a member that nobody can ask may be the one that still serves.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::galera::{
        BOOTSTRAP_ENVIRONMENT, BOOTSTRAP_FILE, BOOTSTRAP_LEFTOVERS, ClusterStatus, GRASTATE,
        PROCESSES, RECOVERED, Recovered, SST_MARKER, STATUS, Wsrep, ZERO_UUID,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    galera_node_down::{UNIT_STATE, is_down, no_transfer, nothing_left_over, split},
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

pub static DECISION: Entry = Entry {
    name: "galera.no_primary",
    doc: "no member is in a primary component and that has not mended itself; every member either answers outside one, with \
          the same state, or is proven stopped and behind; the most advanced one is known",
    roles: &[
        Role::always("chosen"),
        Role::sometimes("others"),
        Role::sometimes("stopped"),
    ],
    parameters: &[],
    evidence: &[
        STATUS,
        PROCESSES,
        GRASTATE,
        SST_MARKER,
        BOOTSTRAP_LEFTOVERS,
        BOOTSTRAP_ENVIRONMENT,
        BOOTSTRAP_FILE,
        UNIT_STATE,
    ],
    settings: &["remerge"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let Ok(split) = split(input) else {
        return Facts::new();
    };
    let positions: Vec<String> = split
        .answering
        .iter()
        .map(|(host, one)| format!("{host} {:?} {}", one.cluster_status, one.last_committed))
        .collect();
    Facts::from([(
        "the loss of the primary component",
        format!("{} / {}", positions.join(", "), names(&split.silent)),
    )])
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let split = split(input)?;
    if split.answering.is_empty() {
        return Err(elsewhere("no member answers"));
    }
    let primary: Vec<&HostName> = with(&split.answering, |one| {
        one.cluster_status == ClusterStatus::Primary
    });
    if primary.len() == split.answering.len() {
        return Err(elsewhere(format!(
            "{} are in a primary component",
            names(primary)
        )));
    }
    if !primary.is_empty() {
        return Err(refuse(format!(
            "{} are in a primary component and others are not: a network problem, nothing to bootstrap",
            names(primary)
        )));
    }
    let uuid = one_state(&split.answering)?;
    see_each_other(input, &split.answering)?;
    for host in input.members {
        no_transfer(input, host)?;
    }
    for host in &split.silent {
        is_down(input, host)?;
        nothing_left_over(input, host)?;
    }
    input.steadily("the loss of the primary component", "remerge")?;
    let why = "the positions of the stopped members are needed";
    input.was_asked(RECOVERED, &split.silent, why)?;
    choose(input, split.answering, split.silent, &uuid)
}

fn with(answering: &BTreeMap<HostName, Wsrep>, is: impl Fn(&Wsrep) -> bool) -> Vec<&HostName> {
    answering
        .iter()
        .filter(|(_, one)| is(one))
        .map(|(host, _)| host)
        .collect()
}

/// All that answer hold the same cluster's state. Returns its identity.
fn one_state(answering: &BTreeMap<HostName, Wsrep>) -> Result<String, Verdict> {
    let states: BTreeSet<&String> = answering
        .values()
        .map(|one| &one.local_state_uuid)
        .collect();
    match states.iter().collect::<Vec<_>>()[..] {
        [one] if one.as_str() != ZERO_UUID && !one.is_empty() => Ok((*one).clone()),
        _ => Err(refuse(format!(
            "expected the same state on every member; found {states:?}"
        ))),
    }
}

/// Members that do not see each other would not come along.
fn see_each_other(input: &Input<'_>, answering: &BTreeMap<HostName, Wsrep>) -> Result<(), Verdict> {
    match answering
        .iter()
        .find(|(_, one)| one.cluster_size as usize != answering.len())
    {
        None => Ok(()),
        Some((host, one)) => Err(input.hold(format!(
            "{host} sees {} members, {} answer: the network between them is not whole",
            one.cluster_size,
            answering.len()
        ))),
    }
}

fn choose(
    input: &Input<'_>,
    answering: BTreeMap<HostName, Wsrep>,
    stopped: Vec<HostName>,
    uuid: &str,
) -> Result<Act, Verdict> {
    let position = |one: &Wsrep| one.last_committed;
    // The first of the highest in the order of names.
    let highest = answering.values().map(position).max().unwrap_or(-1);
    let Some(chosen) = answering
        .iter()
        .find(|(_, one)| position(one) == highest)
        .map(|(host, _)| host.clone())
    else {
        return Err(refuse("no member answers"));
    };
    if highest < 0 {
        return Err(refuse(format!(
            "{chosen} does not know its own position ({highest})"
        )));
    }
    for host in &stopped {
        let recovered: Recovered = input.known(RECOVERED, host)?;
        if recovered.uuid != uuid || recovered.seqno < 0 {
            return Err(refuse(format!(
                "{host} is stopped at {}:{}, the others are of {uuid}",
                recovered.uuid, recovered.seqno
            )));
        }
        if recovered.seqno > highest {
            return Err(refuse(format!(
                "{host} is stopped and ahead: it has {}, the best running member {chosen} has {highest}",
                recovered.seqno
            )));
        }
    }
    let others: Vec<HostName> = answering
        .into_keys()
        .filter(|host| *host != chosen)
        .collect();
    let why = format!(
        "no primary component; every member is accounted for; {chosen} has the highest position {highest}"
    );
    let roles = [
        ("chosen", vec![chosen]),
        ("others", others),
        ("stopped", stopped),
    ];
    Ok(Act::on(roles, why))
}

#[cfg(test)]
#[path = "galera_no_primary_tests.rs"]
mod tests;
