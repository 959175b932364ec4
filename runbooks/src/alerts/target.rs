//! What an alert names: hosts and services of this site, by the rule of its metric. A label is compared, never interpreted.

use std::collections::BTreeSet;

use collectors::Alert;
use deploy_engine::model::{HostName, ServiceName};

use super::{KnownTarget, Mapping, ServiceBy, Target};
use crate::topology::{Topology, host_and_port};

/// Labels of what is scraped, in the vocabularies of common exporters and scrape configurations.
pub const SCRAPED_LABELS: [&str; 7] = [
    "host",
    "hostname",
    "instance",
    "exported_instance",
    "exported_host",
    "node",
    "nodename",
];
/// Labels whose value may be a host in any rule: for people to look at, never to act on.
const CANDIDATE_LABELS: [&str; 6] = [
    "agent_host",
    "target",
    "name",
    "server",
    "exported_hostname",
    "rabbitmq_node",
];
const PROXY_LABELS: [&str; 4] = ["proxy", "backend", "exported_proxy", "frontend"];
const UNIT_LABELS: [&str; 3] = ["name", "unit", "systemd_unit"];
const URL_LABELS: [&str; 4] = ["exported_instance", "instance", "target", "url"];

/// What an alert names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub hosts: BTreeSet<HostName>,
    /// Labels that should name a host of this site and do not, with their values.
    pub strangers: Vec<(String, String)>,
    /// The service of this site whose symptom it is.
    pub service: Option<ServiceName>,
}

/// Pure.
pub fn named(mapping: &Mapping, topology: &Topology, alert: &Alert) -> Named {
    let mut named = Named::default();
    let label = |name: &str| alert.labels.get(name).filter(|value| !value.is_empty());
    let mut all = |names: &[&str]| {
        for name in names {
            let Some(value) = label(name) else { continue };
            match topology.host_named(value) {
                Some(host) => drop(named.hosts.insert(host.clone())),
                None => named.strangers.push(((*name).to_owned(), value.clone())),
            }
        }
    };
    match &mapping.target {
        Target::Absent | Target::Known(KnownTarget::None | KnownTarget::Exporter) => {}
        Target::Known(KnownTarget::Instance) => all(&SCRAPED_LABELS),
        Target::Known(KnownTarget::Host) => all(&[present(alert, "host")]),
        Target::Known(KnownTarget::Hostname) => all(&[present(alert, "hostname")]),
        Target::Known(KnownTarget::AgentHost) => all(&[present(alert, "agent_host")]),
        Target::Known(KnownTarget::ElasticsearchNode) => all(&["host", "name"]),
        Target::Labels { labels } => {
            let first = labels.iter().find(|name| label(name).is_some());
            all(&first.map(String::as_str).into_iter().collect::<Vec<_>>());
        }
        Target::Known(KnownTarget::ErlangNode) => {
            let node = label("rabbitmq_node").or_else(|| label("exported_node"));
            if let Some(node) = node {
                let host = node
                    .rsplit_once('@')
                    .map_or(node.as_str(), |(_, host)| host);
                match topology.host_named(host) {
                    Some(host) => drop(named.hosts.insert(host.clone())),
                    None => named
                        .strangers
                        .push(("rabbitmq_node".to_owned(), node.clone())),
                }
            }
        }
        Target::Known(KnownTarget::Url) => {
            if let Some(probed) = URL_LABELS.iter().find_map(|name| label(name)) {
                let (host, port) = address_of(probed);
                named.hosts.extend(topology.host_named(host).cloned());
                named.service = port
                    .and_then(|port| topology.service_at(host, port))
                    .cloned();
            }
        }
    }
    // Of Elasticsearch's two labels one is enough: a node's name is anybody's choice.
    if mapping.target == Target::Known(KnownTarget::ElasticsearchNode) && !named.hosts.is_empty() {
        named.strangers.clear();
    }
    let by = mapping
        .service_by
        .and_then(|by| service_by(by, topology, alert));
    let fixed = mapping.service.as_ref();
    let fixed = fixed.filter(|service| topology.services.contains_key(*service));
    named.service = named.service.or(by).or_else(|| fixed.cloned());
    named
}

/// The label itself, or what scraping made of it when the target has a label of that name, too.
fn present<'l>(alert: &Alert, label: &'l str) -> &'l str {
    let exported = match label {
        "host" => "exported_host",
        "hostname" => "exported_hostname",
        _ => "exported_agent_host",
    };
    match alert
        .labels
        .get(exported)
        .is_some_and(|value| !value.is_empty())
    {
        true => exported,
        false => label,
    }
}

fn service_by(by: ServiceBy, topology: &Topology, alert: &Alert) -> Option<ServiceName> {
    let of = |names: &[&str], find: &dyn Fn(&str) -> Option<ServiceName>| {
        names.iter().find_map(|name| find(alert.labels.get(*name)?))
    };
    match by {
        ServiceBy::Job => of(&["job"], &|job| topology.scrape_jobs.get(job).cloned()),
        ServiceBy::Proxy => of(&PROXY_LABELS, &|proxy| topology.front_end(proxy).cloned()),
        ServiceBy::Unit => of(&UNIT_LABELS, &|unit| topology.units.get(unit).cloned()),
    }
}

/// `https://10.0.0.1:5000/v3`, `10.0.0.1:5000` → the host and the port. Pure.
fn address_of(url: &str) -> (&str, Option<u16>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = host_and_port(authority);
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    (host, port.or(usual))
}

/// Hosts that any label names, for people: "it may be about …". Nothing is done on the strength of it.
pub fn candidates(topology: &Topology, alert: &Alert) -> BTreeSet<HostName> {
    let labels = SCRAPED_LABELS.iter().chain(&CANDIDATE_LABELS);
    let values = labels.filter_map(|label| alert.labels.get(*label));
    let found = values.filter_map(|value| {
        let value = value
            .rsplit_once('@')
            .map_or(value.as_str(), |(_, host)| host);
        topology.host_named(address_of(value).0)
    });
    found.cloned().collect()
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
