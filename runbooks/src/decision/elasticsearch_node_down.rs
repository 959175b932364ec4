//! ES-5: nodes are down and a majority of the masters stands. They are started. A red cluster is no hindrance: the shard that it
//! misses may be on the node that is down, and nothing else may be done about it (ES-1).

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        elasticsearch::{DATA, HEALTH, Health, Shards},
        host::FILESYSTEM,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::{majority, names},
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "elasticsearch.service";
const UNIT_STATE: &str = "host.unit/elasticsearch.service";

pub static DECISION: Entry = Entry {
    name: "elasticsearch.node_down",
    doc: "a node is down for good, a strict majority of the members is in one cluster, and its disk has room",
    roles: &[Role::always("down")],
    parameters: &[],
    evidence: &[HEALTH, UNIT_STATE, FILESYSTEM],
    settings: &["confirm", "min_free_percent"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    input
        .inactive(UNIT)
        .map(|down| ("the set of nodes that are down", names(&down)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let down = input.inactive(UNIT)?;
    if down.is_empty() {
        return Err(elsewhere("the unit is active on every member"));
    }
    let running: Vec<HostName> = input
        .members
        .iter()
        .filter(|host| !down.contains(host))
        .cloned()
        .collect();
    // One node alone has nobody to agree with.
    if input.members.len() > 1 {
        stands(input, &running)?;
    }
    for host in &down {
        input.is_startable(host, UNIT)?;
        did_not_give_up(input, host)?;
        has_room(input, host)?;
    }
    input.steadily("the set of nodes that are down", "confirm")?;
    let why = match running.is_empty() {
        true => format!(
            "{} is down and its unit will not come back by itself",
            names(&down)
        ),
        false => format!(
            "{} stand together; {} is down and its unit will not come back by itself",
            names(&running),
            names(&down)
        ),
    };
    Ok(Act::on([("down", down)], why))
}

/// All that run are in one cluster of just them, and they are a majority.
fn stands(input: &Input<'_>, running: &[HostName]) -> Result<(), Verdict> {
    let (count, members) = (running.len(), input.members.len());
    if count < majority(members) {
        return Err(refuse(format!(
            "{count} of {members} nodes run, expected at least {}: not a single node's fault",
            majority(members)
        )));
    }
    let mut views: BTreeMap<&HostName, Shards> = BTreeMap::new();
    for host in running {
        match input.known(HEALTH, host)? {
            Health::Formed(shards) => views.insert(host, shards),
            Health::NoMaster => {
                return Err(refuse(format!(
                    "{host} runs and knows no master: the cluster does not stand"
                )));
            }
        };
    }
    for (host, shards) in views {
        let counted = shards.number_of_nodes;
        if counted > count {
            return Err(input.hold(format!(
                "{host} still counts {counted} nodes in its cluster, and {count} run"
            )));
        }
        if counted < count {
            return Err(refuse(format!(
                "{host} counts {counted} nodes in its cluster, but {count} run: they do not see each other"
            )));
        }
    }
    Ok(())
}

/// What crashes again and again, or for lack of memory, is not mended by one more start.
fn did_not_give_up(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    match input.unit(host, UNIT)?.result.as_str() {
        result @ ("start-limit-hit" | "oom-kill") => Err(refuse(format!(
            "{UNIT} on {host} ended with {result}: one more start would not mend that"
        ))),
        _ => Ok(()),
    }
}

fn has_room(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    let filesystem = input.filesystem(host, DATA)?;
    let wanted = input.number("min_free_percent")?;
    let free = filesystem.free_bytes as f64 * 100.0 / (filesystem.size_bytes.max(1)) as f64;
    if free >= wanted {
        return Ok(());
    }
    Err(refuse(format!(
        "{host}: expected at least {wanted} % free for {DATA}; found {free:.0} %"
    )))
}

#[cfg(test)]
#[path = "elasticsearch_node_down_tests.rs"]
mod tests;
