//! Who sees whom: the cluster as every member's own command line tells it.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::rabbitmq::{
        CLUSTER_STATUS, ClusterStatus, ClusterView, PEER_PORTS, PEERS_TCP, PeerPort, node_name,
    },
};

use super::{Input, Verdict, input::names, table::refuse};

/// What the members say.
pub struct Views {
    pub running: BTreeMap<HostName, ClusterView>,
    /// Members that are known not to run a broker, with what their command line said.
    pub stopped: BTreeMap<HostName, String>,
}

/// Every member's view; one that is unknown refuses.
pub fn views(input: &Input<'_>) -> Result<Views, Verdict> {
    let mut views = Views {
        running: BTreeMap::new(),
        stopped: BTreeMap::new(),
    };
    for (host, status) in input.of_all::<ClusterStatus>(CLUSTER_STATUS)? {
        match status {
            ClusterStatus::Running(view) => views.running.insert(host, view).map(drop),
            ClusterStatus::NotRunning { error } => views.stopped.insert(host, error).map(drop),
        };
    }
    Ok(views)
}

impl Views {
    /// `from` sees `to` running and nobody reports that the two were partitioned.
    fn sees(&self, from: &HostName, to: &HostName) -> bool {
        let (a, b) = (node_name(from), node_name(to));
        let view = &self.running[from];
        let flagged = |from: &String, to: &String| {
            self.running
                .values()
                .any(|view| view.partitions.get(from).is_some_and(|of| of.contains(to)))
        };
        view.running_nodes.contains(&b) && !flagged(&a, &b) && !flagged(&b, &a)
    }

    /// Groups of running members that see each other both ways, largest first. `Err`: a group in which not everybody sees
    /// everybody (a partial partition).
    pub fn components(&self) -> Result<Vec<Vec<HostName>>, String> {
        let mut left: BTreeSet<&HostName> = self.running.keys().collect();
        let mut components: Vec<Vec<HostName>> = Vec::new();
        while let Some(first) = left.pop_first() {
            let mut component = vec![first.clone()];
            let mut at = 0;
            while at < component.len() {
                let one = component[at].clone();
                let mutual = |other: &&HostName| self.sees(&one, other) && self.sees(other, &one);
                let more: Vec<&HostName> = left.iter().copied().filter(mutual).collect();
                for host in more {
                    left.remove(host);
                    component.push(host.clone());
                }
                at += 1;
            }
            component.sort();
            for one in &component {
                if let Some(other) = component
                    .iter()
                    .find(|other| *other != one && !self.sees(one, other))
                {
                    return Err(format!(
                        "{one} does not see {other}, but others see both: a partial partition"
                    ));
                }
            }
            components.push(component);
        }
        components.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Ok(components)
    }

    pub fn reports_partition(&self) -> bool {
        self.running
            .values()
            .any(|view| view.partitions.values().any(|of| !of.is_empty()))
    }

    /// One version everywhere, with the metadata store that partition strategies belong to.
    pub fn one_old_version(&self) -> Result<String, Verdict> {
        let versions: BTreeSet<&String> = self
            .running
            .values()
            .flat_map(|view| view.versions.values())
            .collect();
        let [version] = versions.iter().collect::<Vec<_>>()[..] else {
            return Err(refuse(format!(
                "expected one version of RabbitMQ on all nodes (no rolling upgrade); found {versions:?}"
            )));
        };
        match version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok())
        {
            Some(3) => Ok((*version).clone()),
            _ => Err(refuse(format!(
                "version {version} may keep its metadata in Khepri, where a partition heals by itself and no node may be restarted"
            ))),
        }
    }

    /// No resource alarm and no node in maintenance.
    pub fn undisturbed(&self) -> Result<(), Verdict> {
        for (host, view) in &self.running {
            if let Some(alarm) = view.alarms.first() {
                return Err(refuse(format!("{host} reports a resource alarm: {alarm}")));
            }
            let in_maintenance =
                |(_, status): &(&String, &String)| !status.starts_with("not under");
            if let Some((node, status)) = view.maintenance_status.iter().find(in_maintenance) {
                return Err(refuse(format!("{node} is {status}")));
            }
        }
        Ok(())
    }
}

/// Pairs of members between which a port of the cluster cannot be reached.
pub fn cut(input: &Input<'_>) -> Result<Vec<String>, Verdict> {
    let mut cut = Vec::new();
    for from in input.members {
        let answers: Vec<PeerPort> = input.known(PEERS_TCP, from)?;
        for to in input.members.iter().filter(|to| *to != from) {
            let Some(address) = input.topology.hosts.get(to) else {
                return Err(refuse(format!("{to} has no address on this site")));
            };
            for port in PEER_PORTS {
                let answer = answers
                    .iter()
                    .find(|one| one.address == *address && one.port == port);
                match answer {
                    Some(answer) if answer.open => {}
                    Some(_) => cut.push(format!("{from} → {to}:{port}")),
                    None => {
                        return Err(refuse(format!(
                            "{from} was not asked whether it reaches {to}:{port}"
                        )));
                    }
                }
            }
        }
    }
    Ok(cut)
}

/// Text for reasons and facts: `ctl1, ctl2 | ctl3`.
pub fn shown(components: &[Vec<HostName>]) -> String {
    components.iter().map(names).collect::<Vec<_>>().join(" | ")
}
