//! GAL-5: no server runs anywhere. The member with the highest position that its data proves starts a new component; the
//! others join one after another. Every member must be readable: the one that is not may have the newest commits.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::galera::{
        BOOTSTRAP_ENVIRONMENT, BOOTSTRAP_FILE, BOOTSTRAP_LEFTOVERS, GRASTATE, GVWSTATE, Grastate,
        Gvwstate, PROCESSES, RECOVERED, Recovered, SST_MARKER, STATUS, ZERO_UUID,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    galera_node_down::{UNIT_STATE, is_down, nothing_left_over, split},
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

pub static DECISION: Entry = Entry {
    name: "galera.cluster_crash",
    doc: "no server runs on any member, every member can be read, all hold the same cluster's state, and the position that \
          each one's data proves is known",
    roles: &[
        Role::sometimes("together"),
        Role::sometimes("chosen"),
        Role::sometimes("others"),
    ],
    parameters: &[],
    evidence: &[
        STATUS,
        PROCESSES,
        GRASTATE,
        GVWSTATE,
        SST_MARKER,
        BOOTSTRAP_LEFTOVERS,
        BOOTSTRAP_ENVIRONMENT,
        BOOTSTRAP_FILE,
        UNIT_STATE,
    ],
    settings: &["observe"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let Ok(states) = input.of_all::<Grastate>(GRASTATE) else {
        return Facts::new();
    };
    let Ok(split) = split(input) else {
        return Facts::new();
    };
    let positions: Vec<String> = states
        .iter()
        .map(|(host, state)| format!("{host} {state:?}"))
        .collect();
    Facts::from([(
        "the crash of the whole cluster",
        format!(
            "{} / {}",
            positions.join(", "),
            names(split.answering.keys())
        ),
    )])
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let split = split(input)?;
    if !split.answering.is_empty() {
        return Err(elsewhere(format!(
            "{} answer",
            names(split.answering.keys())
        )));
    }
    for host in input.members {
        is_down(input, host)?;
        nothing_left_over(input, host)?;
    }
    let states = input.of_all::<Grastate>(GRASTATE)?;
    let uuid = one_state(&states)?;
    let views = input.of_all::<Gvwstate>(GVWSTATE)?;
    input.steadily("the crash of the whole cluster", "observe")?;
    if remembers_all(&views, input.members.len()) {
        return Ok(Act::on(
            [("together", input.members.to_vec())],
            "every member remembers the last component with all members: started together they form it again".to_owned(),
        ));
    }
    let why = "no server runs: every member's data is asked for its position";
    input.was_asked(RECOVERED, input.members, why)?;
    let positions = input.of_all::<Recovered>(RECOVERED)?;
    choose(&states, &positions, &uuid)
}

/// All state files are there and of the same cluster. Returns its identity.
fn one_state(states: &BTreeMap<HostName, Grastate>) -> Result<String, Verdict> {
    let mut uuids = BTreeSet::new();
    for (host, state) in states {
        match state {
            Grastate::Missing => {
                return Err(refuse(format!(
                    "{host} has no state file: it never was a member, or its data is gone"
                )));
            }
            Grastate::Present { uuid, .. } if uuid == ZERO_UUID => {
                return Err(refuse(format!(
                    "{host} has a state without identity ({ZERO_UUID}): its data cannot be trusted"
                )));
            }
            Grastate::Present { uuid, .. } => uuids.insert(uuid.as_str()),
        };
    }
    match uuids.iter().collect::<Vec<_>>()[..] {
        [one] => Ok((*one).to_owned()),
        _ => Err(refuse(format!(
            "the members hold states of different clusters: {uuids:?}"
        ))),
    }
}

/// `pc.recovery` forms the component again only if every member remembers the one that all were in.
fn remembers_all(views: &BTreeMap<HostName, Gvwstate>, members: usize) -> bool {
    views.values().all(
        |view| matches!(view, Gvwstate::Present { members: all, .. } if *all as usize == members),
    )
}

fn choose(
    states: &BTreeMap<HostName, Grastate>,
    positions: &BTreeMap<HostName, Recovered>,
    uuid: &str,
) -> Result<Act, Verdict> {
    let shown: Vec<String> = positions
        .iter()
        .map(|(host, at)| format!("{host} {}:{}", at.uuid, at.seqno))
        .collect();
    let flawed = |why: String| Verdict::Refuse {
        why,
        evidence: shown.clone(),
    };
    for (host, at) in positions {
        if at.uuid != uuid {
            return Err(flawed(format!(
                "{host}: its data proves {}, its state file says {uuid}",
                at.uuid
            )));
        }
        if at.seqno < 0 {
            return Err(flawed(format!(
                "{host}: its data proves no position ({})",
                at.seqno
            )));
        }
    }
    let highest = positions.values().map(|at| at.seqno).max().unwrap_or(-1);
    let marked: Vec<&HostName> = states
        .iter()
        .filter(|(_, state)| {
            matches!(
                state,
                Grastate::Present {
                    safe_to_bootstrap: true,
                    ..
                }
            )
        })
        .map(|(host, _)| host)
        .collect();
    let chosen = match marked[..] {
        [] => positions
            .iter()
            .find(|(_, at)| at.seqno == highest)
            .map(|(host, _)| host.clone()),
        [one] if positions.get(one).is_some_and(|at| at.seqno == highest) => Some(one.clone()),
        [one] => {
            return Err(flawed(format!(
                "{one} is marked safe_to_bootstrap, but it is not the most advanced ({highest} is the highest position)"
            )));
        }
        _ => {
            return Err(flawed(format!(
                "{} are all marked safe_to_bootstrap",
                names(marked)
            )));
        }
    };
    let Some(chosen) = chosen else {
        return Err(flawed("no member has a position".to_owned()));
    };
    let others = positions
        .keys()
        .filter(|host| **host != chosen)
        .cloned()
        .collect();
    let why = format!(
        "no server runs anywhere; positions proven by the data: {}; {chosen} has the highest. (Commits of the last second \
         before a power loss are not on disk where innodb_flush_log_at_trx_commit is not 1.)",
        shown.join(", ")
    );
    Ok(Act::on([("chosen", vec![chosen]), ("others", others)], why))
}

#[cfg(test)]
#[path = "galera_cluster_crash_tests.rs"]
mod tests;
