//! Prometheus, Alertmanager and exporters.

use std::collections::BTreeSet;

use super::{
    ConditionCall, Judgement,
    host::UNIT_SETTING,
    table::{self, Entry, all, holds, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Ask, Heard, Readings,
        haproxy::ConfigCheck,
        host,
        monitoring::{self, ALERTMANAGER_CLUSTER, AlertmanagerCluster, Page},
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
            asks.extend(table::ask_hosts(call, ALERTMANAGER_CLUSTER));
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
        asks: |call| table::ask_members(call, ALERTMANAGER_CLUSTER),
        judge: judge_alertmanager_cluster,
    },
    Entry {
        name: "alertmanager.may_restart",
        doc: "its configuration is valid, and another member serves meanwhile",
        asks: |call| {
            let mut asks = table::ask_hosts(call, monitoring::ALERTMANAGER_CONFIG);
            asks.extend(table::ask_members(call, ALERTMANAGER_CLUSTER));
            asks
        },
        judge: judge_may_restart,
    },
    Entry {
        name: "exporter.may_restart",
        doc: "the exporter does not answer, and its unit (the call's setting `unit`) is wanted and neither starts nor stops",
        asks: asks_exporter_may_restart,
        judge: |call, readings| {
            let one = |on| exporter_may_restart(call, on, readings);
            all(call.hosts.iter().map(one))
        },
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
        asks: |call| table::ask_hosts(call, &answers(call)),
        judge,
    }
}

/// The probe of an exporter, by the name of its service.
fn answers(call: &ConditionCall) -> String {
    format!("{}.answers", call.service)
}

fn exports(call: &ConditionCall, readings: &Readings, probe: &str) -> Judgement {
    all(call
        .hosts
        .iter()
        .map(|host| match readings.get::<Heard<Page>>(probe, host) {
            Ok(Heard::Answers(page)) => holds(format!("{host} serves {} samples", page.samples)),
            Ok(Heard::Silent { why }) => not_yet(format!("{host} serves nothing: {why}")),
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

fn asks_exporter_may_restart(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = table::ask_hosts(call, &answers(call));
    if let Some(unit) = call
        .settings
        .get(UNIT_SETTING)
        .and_then(|unit| unit.as_str())
    {
        asks.extend(table::ask_hosts(call, &host::unit_probe(unit)));
    }
    asks
}

fn exporter_may_restart(call: &ConditionCall, on: &HostName, readings: &Readings) -> Judgement {
    let Some(name) = call
        .settings
        .get(UNIT_SETTING)
        .and_then(|unit| unit.as_str())
    else {
        return unknown(format!(
            "{}: expected the setting {UNIT_SETTING}; it is not there",
            call.name
        ));
    };
    let unit = match host::unit_in(readings, on, name) {
        Ok(unit) => unit,
        Err(why) => return unknown(why),
    };
    if unit.load != "loaded" || matches!(unit.enabled.as_str(), "disabled" | "masked") {
        return refuted(format!(
            "{name} on {on} is {} and {}: somebody does not want it to run",
            unit.load, unit.enabled
        ));
    }
    if unit.is_changing() {
        return not_yet(format!("{name} on {on} is {} ({})", unit.active, unit.sub));
    }
    match readings.get::<Heard<Page>>(&answers(call), on) {
        Ok(Heard::Silent { why }) => holds(format!("{name} on {on} is {}: {why}", unit.active)),
        Ok(Heard::Answers(_)) => not_yet(format!("{name} on {on} answers")),
        Err(why) => unknown(why),
    }
}

/// What a member of Alertmanager says of its gossip.
fn gossip(host: &HostName, readings: &Readings) -> Result<AlertmanagerCluster, Judgement> {
    match readings
        .get::<Heard<AlertmanagerCluster>>(ALERTMANAGER_CLUSTER, host)
        .map_err(unknown)?
    {
        Heard::Answers(cluster) if cluster.status == "settling" => {
            Err(not_yet(format!("the gossip of {host} settles")))
        }
        Heard::Answers(cluster) => Ok(cluster),
        Heard::Silent { why } => Err(not_yet(format!(
            "Alertmanager on {host} does not answer: {why}"
        ))),
    }
}

fn settled(host: &HostName, readings: &Readings) -> Judgement {
    match gossip(host, readings) {
        Ok(cluster) => holds(format!("the gossip of {host} is {}", cluster.status)),
        Err(judgement) => judgement,
    }
}

fn judge_may_restart(call: &ConditionCall, readings: &Readings) -> Judgement {
    let valid = all(call.hosts.iter().map(|host| {
        match readings.get::<ConfigCheck>(monitoring::ALERTMANAGER_CONFIG, host) {
            Ok(check) if check.valid => holds(format!("the configuration of {host} is valid")),
            Ok(check) => refuted(format!("{host} would not start: {}", check.message)),
            Err(why) => unknown(why),
        }
    }));
    if !valid.holds() {
        return valid;
    }
    let judged: Vec<Judgement> = others(call)
        .into_iter()
        .map(|other| settled(other, readings))
        .collect();
    match judged.iter().find(|judgement| judgement.holds()) {
        Some(one) => all([valid, one.clone()]),
        None if judged.is_empty() => refuted("there is no other member that serves meanwhile"),
        None => all(judged),
    }
}

fn judge_alertmanager_cluster(call: &ConditionCall, readings: &Readings) -> Judgement {
    let mut views = BTreeSet::new();
    for member in &call.members {
        match gossip(member, readings) {
            Err(judgement) => return judgement,
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

#[cfg(test)]
#[path = "monitoring_tests.rs"]
mod tests;
