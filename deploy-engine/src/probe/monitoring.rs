//! Prometheus, Alertmanager and the exporters: do they answer that they are ready?

use super::table::{self, Entry};
use crate::wire::{self, ProbeResult};

pub const PROMETHEUS_READY: &str = "prometheus.ready";
pub const ALERTMANAGER_READY: &str = "alertmanager.ready";
pub const ALERTMANAGER_CLUSTER: &str = "alertmanager.cluster";
pub const NODE_EXPORTER: &str = "node_exporter.answers";
pub const MYSQLD_EXPORTER: &str = "mysqld_exporter.answers";
pub const SIGNS_EXPORTER: &str = "signs_exporter.answers";

/// A page of metrics; only its beginning is needed, but HTTP has no polite way to stop early.
const METRICS_LIMIT_BYTES: u32 = 4 * 1024 * 1024;

pub static PROBES: &[Entry] = &[
    Entry {
        name: PROMETHEUS_READY,
        service: Some("prometheus"),
        request: |context| table::http(context.address, context.port("port", 9090), "/-/ready"),
        parse: |result| table::value(parse_ready(result)),
    },
    Entry {
        name: ALERTMANAGER_READY,
        service: Some("alertmanager"),
        request: |context| table::http(context.address, context.port("port", 9093), "/-/ready"),
        parse: |result| table::value(parse_ready(result)),
    },
    Entry {
        name: ALERTMANAGER_CLUSTER,
        service: Some("alertmanager"),
        request: |context| {
            table::http(
                context.address,
                context.port("port", 9093),
                "/api/v2/status",
            )
        },
        parse: |result| table::value(parse_alertmanager_cluster(result)),
    },
    Entry {
        name: NODE_EXPORTER,
        service: Some("node_exporter"),
        request: |context| metrics(context.address, context.port("port", 9100)),
        parse: |result| table::value(parse_metrics(result)),
    },
    Entry {
        name: MYSQLD_EXPORTER,
        service: Some("mysqld_exporter"),
        request: |context| metrics(context.address, context.port("port", 9104)),
        parse: |result| table::value(parse_metrics(result)),
    },
    Entry {
        name: SIGNS_EXPORTER,
        service: Some("signs_exporter"),
        request: |context| metrics(context.address, context.port("port", 9808)),
        parse: |result| table::value(parse_metrics(result)),
    },
];

fn metrics(address: &str, port: u16) -> wire::Probe {
    wire::Probe::Http {
        address: address.to_owned(),
        port,
        path: "/metrics".to_owned(),
        user: None,
        password: None,
        timeout_ms: table::LOCAL_TIMEOUT_MS,
        limit_bytes: METRICS_LIMIT_BYTES,
    }
}

/// [`PROMETHEUS_READY`], [`ALERTMANAGER_READY`]: 200 ready, 503 starting.
pub fn parse_ready(result: &ProbeResult) -> Result<bool, String> {
    match table::answered(result)? {
        (200, _) => Ok(true),
        (503, _) => Ok(false),
        (other, _) => Err(format!("expected HTTP status 200 or 503; found {other}")),
    }
}

/// Members of Alertmanager's gossip, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AlertmanagerCluster {
    /// `ready`, `settling` or `disabled`.
    pub status: String,
    /// Addresses with port, itself included.
    pub peers: Vec<String>,
}

#[derive(serde::Deserialize)]
struct RawStatus {
    cluster: RawCluster,
}

#[derive(serde::Deserialize)]
struct RawCluster {
    status: String,
    #[serde(default)]
    peers: Vec<RawPeer>,
}

#[derive(serde::Deserialize)]
struct RawPeer {
    address: String,
}

pub fn parse_alertmanager_cluster(result: &ProbeResult) -> Result<AlertmanagerCluster, String> {
    let raw: RawStatus = table::json(table::answered_ok(result)?)?;
    let mut peers: Vec<String> = raw
        .cluster
        .peers
        .into_iter()
        .map(|peer| peer.address)
        .collect();
    peers.sort();
    Ok(AlertmanagerCluster {
        status: raw.cluster.status,
        peers,
    })
}

/// An exporter's page: how many samples it shows.
pub fn parse_metrics(result: &ProbeResult) -> Result<u64, String> {
    let samples = table::answered_ok(result)?
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count();
    if samples == 0 {
        return Err("expected metrics; found none".to_owned());
    }
    Ok(samples as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{failed, http};

    #[test]
    fn ready_starting_and_unknown_are_three_things() {
        assert_eq!(parse_ready(&http(200, "OK")), Ok(true));
        assert_eq!(parse_ready(&http(503, "Service Unavailable")), Ok(false));
        assert!(parse_ready(&http(404, "")).is_err());
        assert!(parse_ready(&failed()).is_err());
    }

    #[test]
    fn gossip_and_metrics() {
        let cluster = parse_alertmanager_cluster(&http(
            200,
            include_str!("captured/alertmanager-status.json"),
        ))
        .unwrap();
        assert_eq!((cluster.status.as_str(), cluster.peers.len()), ("ready", 3));
        assert_eq!(parse_metrics(&http(200, "# HELP a\na 1\n")), Ok(1));
        assert!(parse_metrics(&http(200, "")).is_err());
    }
}
