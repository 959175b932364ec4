//! Prometheus, Alertmanager and the exporters: do they answer that they are ready?

use super::{
    Heard,
    haproxy::ConfigCheck,
    table::{self, Entry, OUTPUT_LIMIT_BYTES},
};
use crate::wire::{self, ProbeResult};

pub const PROMETHEUS_READY: &str = "prometheus.ready";
pub const PROMETHEUS_RULES: &str = "prometheus.rules";
pub const PROMETHEUS_RUNTIME: &str = "prometheus.runtime";
pub const PROMETHEUS_TARGETS: &str = "prometheus.targets";
pub const ALERTMANAGER_READY: &str = "alertmanager.ready";
pub const ALERTMANAGER_CLUSTER: &str = "alertmanager.cluster";
pub const ALERTMANAGER_CONFIG: &str = "alertmanager.config_check";
pub const NODE_EXPORTER: &str = "node_exporter.answers";
pub const MYSQLD_EXPORTER: &str = "mysqld_exporter.answers";
pub const SIGNS_EXPORTER: &str = "signs_exporter.answers";

/// A page of metrics; only its beginning is needed, but HTTP has no polite way to stop early.
const METRICS_LIMIT_BYTES: u32 = 4 * 1024 * 1024;
/// Each target is told in about a kilobyte.
const TARGETS_LIMIT_BYTES: u32 = 8 * 1024 * 1024;
const CONFIG_CHECK_TIMEOUT_SECONDS: u32 = 15;

pub static PROBES: &[Entry] = &[
    Entry {
        name: PROMETHEUS_READY,
        service: Some("prometheus"),
        request: |context| table::http(context.address, context.port("port", 9090), "/-/ready"),
        parse: |result| table::value(parse_ready(result)),
    },
    Entry {
        name: PROMETHEUS_RULES,
        service: Some("prometheus"),
        request: |context| {
            let port = context.port("port", 9090);
            long(context.address, port, "/api/v1/rules", METRICS_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_broken_rules(result)),
    },
    Entry {
        name: PROMETHEUS_RUNTIME,
        service: Some("prometheus"),
        request: |context| {
            let port = context.port("port", 9090);
            table::http(context.address, port, "/api/v1/status/runtimeinfo")
        },
        parse: |result| table::value(parse_runtime(result)),
    },
    Entry {
        name: PROMETHEUS_TARGETS,
        service: Some("prometheus"),
        request: |context| {
            let port = context.port("port", 9090);
            let path = "/api/v1/targets?state=active";
            long(context.address, port, path, TARGETS_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_targets(result)),
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
        name: ALERTMANAGER_CONFIG,
        service: Some("alertmanager"),
        request: |_| {
            table::command(
                &["amtool", "check-config", "/etc/prometheus/alertmanager.yml"],
                CONFIG_CHECK_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_alertmanager_config(result)),
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
    long(address, port, "/metrics", METRICS_LIMIT_BYTES)
}

fn long(address: &str, port: u16, path: &str, limit_bytes: u32) -> wire::Probe {
    wire::Probe::Http {
        address: address.to_owned(),
        port,
        path: path.to_owned(),
        user: None,
        password: None,
        timeout_ms: table::LOCAL_TIMEOUT_MS,
        limit_bytes,
    }
}

/// A rule that Prometheus cannot evaluate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BrokenRule {
    pub group: String,
    pub name: String,
    pub error: String,
}

#[derive(serde::Deserialize)]
struct Answered<T> {
    data: T,
}

#[derive(serde::Deserialize)]
struct RawGroups {
    groups: Vec<RawGroup>,
}

#[derive(serde::Deserialize)]
struct RawGroup {
    name: String,
    rules: Vec<RawRule>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    name: String,
    health: String,
    #[serde(default)]
    last_error: String,
}

/// [`PROMETHEUS_RULES`]: rules whose last evaluation failed. One that was not evaluated yet (`unknown`) is not among them.
pub fn parse_broken_rules(result: &ProbeResult) -> Result<Vec<BrokenRule>, String> {
    let answered: Answered<RawGroups> = table::json(table::answered_ok(result)?)?;
    let of_group = |group: RawGroup| {
        let broken = group.rules.into_iter().filter(|rule| rule.health == "err");
        broken
            .map(|rule| BrokenRule {
                group: group.name.clone(),
                name: rule.name,
                error: rule.last_error,
            })
            .collect::<Vec<_>>()
    };
    Ok(answered
        .data
        .groups
        .into_iter()
        .flat_map(of_group)
        .collect())
}

/// [`PROMETHEUS_RUNTIME`]: how Prometheus itself is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Runtime {
    /// The configuration on the disk is the one that runs.
    pub reload_config_success: bool,
    /// Damaged places found in its write-ahead log since it started.
    pub corruption_count: u64,
}

pub fn parse_runtime(result: &ProbeResult) -> Result<Runtime, String> {
    let answered: Answered<RawRuntime> = table::json(table::answered_ok(result)?)?;
    Ok(Runtime {
        reload_config_success: answered.data.reload_config_success,
        corruption_count: answered.data.corruption_count,
    })
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRuntime {
    reload_config_success: bool,
    corruption_count: u64,
}

/// [`PROMETHEUS_TARGETS`]: what one Prometheus scrapes. One that was not scraped yet is neither up nor down.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Targets {
    pub count: usize,
    /// The URLs that did not answer its last scrape.
    pub down: Vec<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTargets {
    active_targets: Vec<RawTarget>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTarget {
    scrape_url: String,
    health: String,
}

pub fn parse_targets(result: &ProbeResult) -> Result<Targets, String> {
    let answered: Answered<RawTargets> = table::json(table::answered_ok(result)?)?;
    let targets = answered.data.active_targets;
    let odd = targets
        .iter()
        .find(|one| !matches!(one.health.as_str(), "up" | "down" | "unknown"));
    if let Some(odd) = odd {
        let found = &odd.health;
        return Err(format!(
            "expected the health up, down or unknown; found {found:?}"
        ));
    }
    Ok(Targets {
        count: targets.len(),
        down: targets
            .into_iter()
            .filter(|one| one.health == "down")
            .map(|one| one.scrape_url)
            .collect(),
    })
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

/// A server of the host itself. That it could not be reached from there, or said nothing in time, is its silence; an answer that is
/// not understood is unknown.
fn heard<T>(
    result: &ProbeResult,
    read: fn(&ProbeResult) -> Result<T, String>,
) -> Result<Heard<T>, String> {
    match result {
        ProbeResult::Failed { why } => Ok(Heard::Silent {
            why: table::failed(why),
        }),
        answer => read(answer).map(Heard::Answers),
    }
}

/// [`ALERTMANAGER_CLUSTER`].
pub fn parse_alertmanager_cluster(
    result: &ProbeResult,
) -> Result<Heard<AlertmanagerCluster>, String> {
    heard(result, cluster)
}

fn cluster(result: &ProbeResult) -> Result<AlertmanagerCluster, String> {
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

/// [`ALERTMANAGER_CONFIG`]: `amtool` says of each file why it is wrong.
pub fn parse_alertmanager_config(result: &ProbeResult) -> Result<ConfigCheck, String> {
    let (code, output) = table::ended(result)?;
    let said = format!("{}\n{}", output.stdout, output.stderr);
    let why = said.lines().find_map(|line| line.split_once("FAILED: "));
    let why = why.map_or_else(|| table::last_line(&said), |(_, why)| why);
    Ok(ConfigCheck {
        valid: code == 0,
        message: why.trim().to_owned(),
    })
}

/// An exporter's page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Page {
    pub samples: u64,
}

/// `SERVICE.answers`.
pub fn parse_metrics(result: &ProbeResult) -> Result<Heard<Page>, String> {
    heard(result, page)
}

fn page(result: &ProbeResult) -> Result<Page, String> {
    let samples = table::answered_ok(result)?
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count();
    if samples == 0 {
        return Err("expected metrics; found none".to_owned());
    }
    Ok(Page {
        samples: samples as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed, http};

    #[test]
    fn ready_starting_and_unknown_are_three_things() {
        assert_eq!(parse_ready(&http(200, "OK")), Ok(true));
        assert_eq!(parse_ready(&http(503, "Service Unavailable")), Ok(false));
        assert!(parse_ready(&http(404, "")).is_err());
        assert!(parse_ready(&failed()).is_err());
    }

    #[test]
    fn broken_rules_and_a_failed_reload() {
        let rules = r#"{"status":"success","data":{"groups":[{"name":"g","file":"f","rules":[
            {"state":"inactive","name":"Good","query":"up","health":"ok","type":"alerting"},
            {"state":"unknown","name":"New","query":"up","health":"unknown","type":"alerting"},
            {"name":"Bad","query":"a/b","health":"err","lastError":"many-to-many","type":"recording"}]}]}}"#;
        let broken = parse_broken_rules(&http(200, rules)).unwrap();
        assert_eq!(broken.len(), 1);
        assert_eq!(
            (broken[0].name.as_str(), broken[0].error.as_str()),
            ("Bad", "many-to-many")
        );
        assert!(parse_broken_rules(&http(200, "{}")).is_err());
        let runtime = r#"{"status":"success","data":{"startTime":"2026-11-26T05:00:00Z","reloadConfigSuccess":false,
            "lastConfigTime":"2026-11-26T05:00:00Z","corruptionCount":1,"goroutineCount":40}}"#;
        let runtime = parse_runtime(&http(200, runtime)).unwrap();
        assert_eq!(
            runtime,
            Runtime {
                reload_config_success: false,
                corruption_count: 1
            }
        );
        assert!(parse_runtime(&failed()).is_err());
    }

    #[test]
    fn gossip_and_metrics() {
        let status = include_str!("captured/alertmanager-status.json");
        let Heard::Answers(cluster) = parse_alertmanager_cluster(&http(200, status)).unwrap()
        else {
            panic!("it answers")
        };
        assert_eq!((cluster.status.as_str(), cluster.peers.len()), ("ready", 3));
        let page = Heard::Answers(Page { samples: 1 });
        assert_eq!(parse_metrics(&http(200, "# HELP a\na 1\n")), Ok(page));
    }

    #[test]
    fn silence_is_known_and_a_wrong_answer_is_not_silence() {
        assert!(matches!(parse_metrics(&failed()), Ok(Heard::Silent { .. })));
        assert!(matches!(
            parse_alertmanager_cluster(&failed()),
            Ok(Heard::Silent { .. })
        ));
        for (status, body) in [(200, ""), (500, "a 1\n"), (404, "")] {
            assert!(parse_metrics(&http(status, body)).is_err(), "{status}");
        }
        assert!(parse_alertmanager_cluster(&http(200, "{}")).is_err());
        assert!(parse_metrics(&exited(0, "a 1\n", "")).is_err());
    }

    #[test]
    fn targets_that_are_down() {
        let target = |port: u16, health: &str| {
            format!(
                r#"{{"scrapeUrl":"http://10.0.0.1:{port}/metrics","health":"{health}","labels":{{}}}}"#
            )
        };
        let answer = |of: &[String]| {
            let body = format!(
                r#"{{"status":"success","data":{{"activeTargets":[{}],"droppedTargets":[]}}}}"#,
                of.join(",")
            );
            parse_targets(&http(200, &body))
        };
        let targets = answer(&[target(1, "up"), target(2, "down"), target(3, "unknown")]).unwrap();
        assert_eq!(targets.count, 3);
        assert_eq!(targets.down, ["http://10.0.0.1:2/metrics"]);
        assert!(answer(&[target(1, "well")]).is_err());
        assert!(parse_targets(&http(200, "{}")).is_err());
        assert!(parse_targets(&failed()).is_err());
    }

    /// As `amtool` 0.25 prints it.
    #[test]
    fn a_configuration_of_alertmanager() {
        let good = "Checking '/etc/prometheus/alertmanager.yml'  SUCCESS\nFound:\n - global config\n - route\n";
        assert!(
            parse_alertmanager_config(&exited(0, good, ""))
                .unwrap()
                .valid
        );
        let bad =
            "Checking '/etc/prometheus/alertmanager.yml'  FAILED: no route provided in config\n\n";
        let error = "amtool: error: failed to validate 1 file(s)\n";
        let check = parse_alertmanager_config(&exited(1, bad, error)).unwrap();
        assert!(!check.valid);
        assert_eq!(check.message, "no route provided in config");
        assert!(parse_alertmanager_config(&failed()).is_err());
    }
}
