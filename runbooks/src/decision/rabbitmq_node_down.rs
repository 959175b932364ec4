//! RMQ-2: nodes are down, a majority runs and agrees. They are started once, as they are.

use deploy_engine::{
    model::HostName,
    probe::{
        host::FILESYSTEM,
        rabbitmq::{CLUSTER_STATUS, node_name},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::{majority, names},
    rabbitmq_partition::agrees,
    rabbitmq_views::{Views, views},
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "rabbitmq-server.service";
const UNIT_STATE: &str = "host.unit/rabbitmq-server.service";
const DATA: &str = "/var/lib/rabbitmq";

pub static DECISION: Entry = Entry {
    name: "rabbitmq.node_down",
    doc: "a node is down for good, a strict majority of the others runs, agrees and still counts it as a member, and its disk has room",
    roles: &[Role::always("down"), Role::always("running")],
    parameters: &[],
    evidence: &[CLUSTER_STATUS, UNIT_STATE, FILESYSTEM],
    settings: &["confirm", "min_free_percent"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    views(input)
        .map(|views| {
            (
                "the set of nodes that are down",
                names(views.stopped.keys()),
            )
        })
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let views = views(input)?;
    if views.stopped.is_empty() {
        return Err(elsewhere("every node runs"));
    }
    let (running, members) = (views.running.len(), input.members.len());
    if running < majority(members) {
        return Err(refuse(format!(
            "{running} of {members} nodes run, expected at least {}: not a single node's fault",
            majority(members)
        )));
    }
    agrees(&views)?;
    views.undisturbed()?;
    one_version(&views)?;
    for host in views.stopped.keys() {
        still_a_member(&views, host)?;
        input.is_startable(host, UNIT)?;
        has_room(input, host)?;
    }
    input.steadily("the set of nodes that are down", "confirm")?;
    let down: Vec<HostName> = views.stopped.keys().cloned().collect();
    let why = format!(
        "{} run and agree; {} is down and its unit will not come back by itself",
        names(views.running.keys()),
        names(&down)
    );
    let running = views.running.into_keys().collect();
    Ok(Act::on([("down", down), ("running", running)], why))
}

/// Unequal versions mean that somebody upgrades, node by node (gate G4).
fn one_version(views: &Views) -> Result<(), Verdict> {
    let versions: std::collections::BTreeSet<&String> = views
        .running
        .values()
        .flat_map(|view| view.versions.values())
        .collect();
    if versions.len() == 1 {
        return Ok(());
    }
    Err(refuse(format!(
        "expected one version on all running nodes; found {versions:?}: an upgrade is under way"
    )))
}

/// A node that was reset or renamed would not come back as itself.
fn still_a_member(views: &Views, host: &HostName) -> Result<(), Verdict> {
    let node = node_name(host);
    match views
        .running
        .iter()
        .find(|(_, view)| !view.disk_nodes.contains(&node))
    {
        None => Ok(()),
        Some((by, _)) => Err(refuse(format!(
            "{by} does not count {node} as a member: it was reset or renamed"
        ))),
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
#[path = "rabbitmq_node_down_tests.rs"]
mod tests;
