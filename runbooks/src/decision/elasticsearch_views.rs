//! What the nodes of one cluster tell, for diagnoses: one node's view, and what people read besides. What is unknown is said.

use deploy_engine::{
    model::HostName,
    probe::elasticsearch::{HEALTH, Health, NODES, Node, Shards, Status, Unassigned, Watermarks},
};
use serde::de::DeserializeOwned;

use super::{Input, Verdict, table::page};

/// Names of indices that are told; the rest is a number.
const NAMED: usize = 10;

/// The cluster as that member tells it which sees the most nodes; all that is told besides is from the same one.
pub(super) struct View {
    pub by: HostName,
    pub shards: Shards,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl View {
    pub fn of(input: &Input<'_>) -> Result<Self, Verdict> {
        let (mut best, mut silent): (Option<(HostName, Shards)>, Vec<String>) = (None, Vec::new());
        for host in input.members {
            match input.readings.get(HEALTH, host) {
                Ok(Health::Formed(shards)) => {
                    let more = |(_, known): &(HostName, Shards)| {
                        shards.number_of_nodes > known.number_of_nodes
                    };
                    if best.as_ref().is_none_or(more) {
                        best = Some((host.clone(), shards));
                    }
                }
                Ok(Health::NoMaster) => silent.push(format!("{host} runs and knows no master")),
                Err(why) => silent.push(why),
            }
        }
        match best {
            Some((by, shards)) => Ok(Self {
                by,
                shards,
                unknown: silent,
            }),
            None => Err(page(
                "no node of Elasticsearch tells of a cluster: it may have no master",
                silent,
            )),
        }
    }

    /// Another answer of the same node.
    pub fn also<T: DeserializeOwned>(&mut self, input: &Input<'_>, probe: &str) -> Option<T> {
        match input.readings.get(probe, &self.by) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unknown.push(why);
                None
            }
        }
    }

    pub fn nodes(&mut self, input: &Input<'_>) -> Option<Vec<Node>> {
        self.also(input, NODES)
    }

    /// Members that are not in this cluster; none when that is not known.
    pub fn missing(&self, input: &Input<'_>, nodes: Option<&Vec<Node>>) -> Vec<HostName> {
        let Some(nodes) = nodes else {
            return Vec::new();
        };
        let there = |host: &HostName| nodes.iter().any(|node| node.name == host.as_str());
        let members = input.members.iter();
        members.filter(|host| !there(host)).cloned().collect()
    }

    /// For a command that a person may give.
    pub fn url(&self, input: &Input<'_>) -> String {
        let address = input.topology.hosts.get(&self.by);
        let address = address.map_or(self.by.as_str(), String::as_str);
        let settings = input.topology.services.get(input.service);
        let port = settings
            .and_then(|of| of.settings.get("port"))
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(deploy_engine::probe::elasticsearch::PORT.into());
        format!("http://{address}:{port}")
    }
}

pub(super) fn colour(status: Status) -> &'static str {
    match status {
        Status::Green => "green",
        Status::Yellow => "yellow",
        Status::Red => "red",
    }
}

pub(super) fn first_unassigned(found: &Unassigned) -> String {
    let kind = if found.primary { "primary" } else { "replica" };
    format!(
        "the first of them: {kind} of shard {} of {}: {} ({} failed attempts), allocation: {}; {}",
        found.shard,
        found.index,
        found.reason,
        found.failed_attempts,
        found.can_allocate,
        found.explanation
    )
}

/// A node's disk, and which watermark it is above.
pub(super) fn disk(node: &Node, marks: Option<&Watermarks>) -> String {
    let Some(used) = node.disk_used_percent else {
        return format!("{}: its disk is not known", node.name);
    };
    match marks.and_then(|marks| marks.passed(used)) {
        Some((name, mark)) => format!(
            "{}: disk {used:.0} % used, above the {name} watermark ({mark})",
            node.name
        ),
        None => format!("{}: disk {used:.0} % used", node.name),
    }
}

pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let named: Vec<&str> = names.take(NAMED).collect();
    match count.checked_sub(NAMED) {
        None | Some(0) => named.join(", "),
        Some(more) => format!("{} and {more} more", named.join(", ")),
    }
}
