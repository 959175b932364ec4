//! Prometheus, Alertmanager and exporters.

use std::collections::BTreeSet;

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings,
        monitoring::{self, AlertmanagerCluster},
    },
};

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "prometheus.healthy",
        doc: "Prometheus has loaded its data and serves",
        asks: |call| table::ask_hosts(call, monitoring::PROMETHEUS_READY),
        judge: |call, readings| ready(call, readings, monitoring::PROMETHEUS_READY),
    },
    Entry {
        name: "alertmanager.healthy",
        doc: "Alertmanager serves and its gossip has settled",
        asks: |call| {
            let mut asks = table::ask_hosts(call, monitoring::ALERTMANAGER_READY);
            asks.extend(table::ask_hosts(call, monitoring::ALERTMANAGER_CLUSTER));
            asks
        },
        judge: |call, readings| {
            let settled = call.hosts.iter().map(|host| settled(host, readings));
            all([ready(call, readings, monitoring::ALERTMANAGER_READY)]
                .into_iter()
                .chain(settled))
        },
    },
    Entry {
        name: "alertmanager.cluster_healthy",
        doc: "all members serve and see each other",
        asks: |call| table::ask_members(call, monitoring::ALERTMANAGER_CLUSTER),
        judge: judge_alertmanager_cluster,
    },
    exporter("node_exporter.healthy", |call, readings| {
        exports(call, readings, monitoring::NODE_EXPORTER)
    }),
    exporter("mysqld_exporter.healthy", |call, readings| {
        exports(call, readings, monitoring::MYSQLD_EXPORTER)
    }),
    exporter("signs_exporter.healthy", |call, readings| {
        exports(call, readings, monitoring::SIGNS_EXPORTER)
    }),
];

/// `<service>.healthy` asks `<service>.answers`.
const fn exporter(name: &'static str, judge: fn(&ConditionCall, &Readings) -> Judgement) -> Entry {
    Entry {
        name,
        doc: "the exporter serves metrics",
        asks: |call| table::ask_hosts(call, &format!("{}.answers", call.service)),
        judge,
    }
}

fn exports(call: &ConditionCall, readings: &Readings, probe: &str) -> Judgement {
    all(call
        .hosts
        .iter()
        .map(|host| match readings.get::<u64>(probe, host) {
            Ok(samples) => holds(format!("{host} serves {samples} samples")),
            Err(why) => unknown(why),
        }))
}

fn ready(call: &ConditionCall, readings: &Readings, probe: &str) -> Judgement {
    all(call
        .hosts
        .iter()
        .map(|host| match readings.get::<bool>(probe, host) {
            Ok(true) => holds(format!("{host} is ready")),
            Ok(false) => not_yet(format!("{host} is starting")),
            Err(why) => unknown(why),
        }))
}

fn settled(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<AlertmanagerCluster>(monitoring::ALERTMANAGER_CLUSTER, host) {
        Ok(cluster) if cluster.status == "settling" => {
            not_yet(format!("the gossip of {host} settles"))
        }
        Ok(cluster) => holds(format!("the gossip of {host} is {}", cluster.status)),
        Err(why) => unknown(why),
    }
}

fn judge_alertmanager_cluster(call: &ConditionCall, readings: &Readings) -> Judgement {
    let mut views = BTreeSet::new();
    for member in &call.members {
        match readings.get::<AlertmanagerCluster>(monitoring::ALERTMANAGER_CLUSTER, member) {
            Err(why) => return unknown(why),
            Ok(cluster) if cluster.status == "settling" => {
                return not_yet(format!("the gossip of {member} settles"));
            }
            Ok(cluster) => views.insert(cluster.peers),
        };
    }
    match views.first() {
        _ if call.members.len() == 1 => holds(format!("{} serves alone", call.members[0])),
        Some(peers) if views.len() == 1 && peers.len() == call.members.len() => {
            holds(format!("all {} members see each other", peers.len()))
        }
        _ => not_yet("the members see different peers"),
    }
}
