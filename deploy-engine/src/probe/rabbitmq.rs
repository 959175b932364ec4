//! RabbitMQ, asked through its management API on loopback (fast) and its own command line (survives a broken API, but hangs
//! during partitions, so it has a time limit).

use std::collections::BTreeMap;

use anstream::adapter::strip_str;
use serde::{Deserialize, Serialize};

use super::{
    ProbeContext, repeated,
    table::{self, Entry, LIST_LIMIT_BYTES, OUTPUT_LIMIT_BYTES},
};
use crate::wire::{self, ProbeResult, TcpTarget};

pub const CLUSTER_STATUS: &str = "rabbitmq.cluster_status";
pub const NODES: &str = "rabbitmq.nodes";
pub const OVERVIEW: &str = "rabbitmq.overview";
pub const PEERS_TCP: &str = "rabbitmq.peers_tcp";
pub const QUEUES: &str = "rabbitmq.queues";
pub const QUORUM_CRITICAL: &str = "rabbitmq.quorum_critical";
pub const ALARMS: &str = "rabbitmq.alarms";
pub const DEFINITIONS: &str = "rabbitmq.definitions";
pub const MEMBERSHIP: &str = "rabbitmq.membership";

/// Its port mapper, and the port that nodes talk to each other on.
pub const PEER_PORTS: [u16; 2] = [4369, 25672];
/// The user that the agent asks as; made from the service's secrets at the first start.
pub const API_USER: &str = "nightshift";
const API_SECRET: &str = "rabbitmq.api";
const API_PORT: u16 = 15672;
/// The command line gives up by itself first, and so says why.
const CLI_TIMEOUT_SECONDS: u32 = 25;
/// The API asks every node it knows; one that is cut off is waited for.
const API_TIMEOUT_MS: u32 = 10_000;
const PEER_TIMEOUT_MS: u32 = 2_000;

pub static PROBES: &[Entry] = &[
    Entry {
        name: CLUSTER_STATUS,
        service: Some("rabbitmq"),
        request: |_| {
            table::command(
                &[
                    "rabbitmqctl",
                    "--timeout",
                    "20",
                    "cluster_status",
                    "--formatter",
                    "json",
                ],
                CLI_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_cluster_status(result)),
    },
    Entry {
        name: NODES,
        service: Some("rabbitmq"),
        request: |context| {
            api(
                context,
                "/api/nodes?columns=name,running,partitions,mem_alarm,disk_free_alarm,uptime,being_drained",
            )
        },
        parse: |result| table::value(parse_nodes(result)),
    },
    Entry {
        name: OVERVIEW,
        service: Some("rabbitmq"),
        request: |context| {
            api(
                context,
                "/api/overview?columns=rabbitmq_version,erlang_version,cluster_name,node,listeners,object_totals",
            )
        },
        parse: |result| table::value(parse_overview(result)),
    },
    Entry {
        name: PEERS_TCP,
        service: Some("rabbitmq"),
        request: |context| wire::Probe::Tcp {
            targets: peer_targets(context),
            timeout_ms: PEER_TIMEOUT_MS,
        },
        parse: |result| table::value(parse_peers(result)),
    },
    Entry {
        name: QUEUES,
        service: Some("rabbitmq"),
        request: |context| {
            api(
                context,
                "/api/queues?columns=name,vhost,type,state,durable,exclusive,auto_delete,node,leader,members,online,\
                 slave_nodes,synchronised_slave_nodes,messages,policy",
            )
        },
        parse: |result| table::value(parse_queues(result)),
    },
    Entry {
        name: QUORUM_CRITICAL,
        service: Some("rabbitmq"),
        request: |context| api(context, "/api/health/checks/node-is-quorum-critical"),
        parse: |result| table::value(parse_quorum_critical(result)),
    },
    Entry {
        name: ALARMS,
        service: Some("rabbitmq"),
        request: |context| api(context, "/api/health/checks/alarms"),
        parse: |result| table::value(parse_alarms(result)),
    },
    Entry {
        name: DEFINITIONS,
        service: Some("rabbitmq"),
        request: |context| api(context, "/api/definitions"),
        parse: |result| table::value(parse_definitions(result)),
    },
    Entry {
        name: MEMBERSHIP,
        service: Some("rabbitmq"),
        request: membership_file,
        parse: |result| table::value(table::file(result).map(|content| content.is_some())),
    },
];

fn membership_file(context: &ProbeContext<'_>) -> wire::Probe {
    wire::Probe::File {
        path: format!(
            "/var/lib/rabbitmq/mnesia/{}/cluster_nodes.config",
            node_name(context.host)
        ),
        limit_bytes: OUTPUT_LIMIT_BYTES,
    }
}

fn api(context: &ProbeContext<'_>, path: &str) -> wire::Probe {
    wire::Probe::Http {
        address: "127.0.0.1".to_owned(),
        port: context.port("management_port", API_PORT),
        path: path.to_owned(),
        user: Some(API_USER.to_owned()),
        password: Some(wire::secret_reference(API_SECRET)),
        timeout_ms: API_TIMEOUT_MS,
        limit_bytes: LIST_LIMIT_BYTES,
    }
}

fn peer_targets(context: &ProbeContext<'_>) -> Vec<TcpTarget> {
    context
        .members
        .iter()
        .filter(|(host, _)| host != context.host)
        .flat_map(|(_, address)| {
            PEER_PORTS.map(|port| TcpTarget {
                address: address.clone(),
                port,
            })
        })
        .collect()
}

/// The name of the node on a host.
pub fn node_name(host: &crate::model::HostName) -> String {
    format!("rabbit@{host}")
}

/// [`CLUSTER_STATUS`]: what one node's command line says of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "node", rename_all = "snake_case")]
pub enum ClusterStatus {
    /// No broker runs on this host: its port mapper does not know it, or its application is stopped.
    NotRunning {
        error: String,
    },
    Running(ClusterView),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    pub cluster_name: String,
    /// Nodes that belong to the cluster, running or not.
    pub disk_nodes: Vec<String>,
    pub running_nodes: Vec<String>,
    /// Reporting node → nodes it was partitioned from.
    pub partitions: BTreeMap<String, Vec<String>>,
    /// Node → version of the broker, for nodes that run.
    pub versions: BTreeMap<String, String>,
    /// Node → for example `not under maintenance`.
    pub maintenance_status: BTreeMap<String, String>,
    /// One text an alarm.
    pub alarms: Vec<String>,
}

#[derive(Deserialize)]
struct RawClusterStatus {
    cluster_name: String,
    disk_nodes: Vec<String>,
    running_nodes: Vec<String>,
    partitions: BTreeMap<String, Vec<String>>,
    versions: BTreeMap<String, RawVersion>,
    #[serde(default)]
    maintenance_status: BTreeMap<String, String>,
    alarms: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawVersion {
    rabbitmq_version: String,
}

/// Texts of the command line that prove that no broker runs on this host. Others (a cookie that differs, a time-out) prove nothing.
const NOT_RUNNING: [&str; 3] = [
    "not running at all",
    "unable to connect to epmd",
    "this command requires the 'rabbit' app to be running",
];

pub fn parse_cluster_status(result: &ProbeResult) -> Result<ClusterStatus, String> {
    let (code, output) = table::ended(result)?;
    if code != 0 {
        let said = format!("{}\n{}", output.stdout, output.stderr);
        return match NOT_RUNNING.iter().find(|text| said.contains(**text)) {
            Some(text) => Ok(ClusterStatus::NotRunning {
                error: said
                    .lines()
                    .find(|line| line.contains(text))
                    .unwrap_or(text)
                    .trim_start_matches([' ', '*'])
                    .to_owned(),
            }),
            None => Err(format!(
                "expected the cluster's status; found exit status {code}: {}",
                table::last_line(&said)
            )),
        };
    }
    let raw: RawClusterStatus = table::json(&output.stdout)?;
    Ok(ClusterStatus::Running(ClusterView {
        cluster_name: raw.cluster_name,
        disk_nodes: sorted(raw.disk_nodes),
        running_nodes: sorted(raw.running_nodes),
        partitions: raw.partitions,
        versions: raw
            .versions
            .into_iter()
            .map(|(node, version)| (node, version.rabbitmq_version))
            .collect(),
        maintenance_status: plain(raw.maintenance_status),
        alarms: raw.alarms.iter().map(ToString::to_string).collect(),
    }))
}

/// RabbitMQ colours these words for a terminal, also in JSON; the JSON of 3.10 (Debian 12) has the digits of the escape (`001B`)
/// from back to front.
fn plain(status: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let coloured = status
        .into_iter()
        .map(|(node, words)| (node, words.replace("\u{b100}[", "\u{1b}[")));
    coloured
        .map(|(node, words)| (node, strip_str(&words).to_string()))
        .collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// [`NODES`]: how one node sees every node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub name: String,
    pub running: bool,
    /// Nodes it was partitioned from, as it says itself; empty for a node that is seen as down.
    #[serde(default)]
    pub partitions: Vec<String>,
    #[serde(default)]
    pub mem_alarm: bool,
    #[serde(default)]
    pub disk_free_alarm: bool,
    /// Milliseconds; absent for a node that is seen as down.
    #[serde(default)]
    pub uptime: Option<u64>,
    #[serde(default)]
    pub being_drained: bool,
}

pub fn parse_nodes(result: &ProbeResult) -> Result<Vec<NodeView>, String> {
    let nodes: Vec<NodeView> = table::json(table::answered_ok(result)?)?;
    if nodes.is_empty() {
        return Err("expected at least the node itself; found no node".to_owned());
    }
    Ok(nodes)
}

/// [`OVERVIEW`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub rabbitmq_version: String,
    pub erlang_version: String,
    pub cluster_name: String,
    pub node: String,
    pub listeners: Vec<Listener>,
    pub object_totals: ObjectTotals,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub node: String,
    /// For example `amqp`, `clustering`, `http/prometheus`.
    pub protocol: String,
    pub ip_address: String,
    pub port: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTotals {
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub channels: u64,
    #[serde(default)]
    pub consumers: u64,
    #[serde(default)]
    pub queues: u64,
}

pub fn parse_overview(result: &ProbeResult) -> Result<Overview, String> {
    table::json(table::answered_ok(result)?)
}

/// [`PEERS_TCP`]: one answer a target; empty for the only member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPort {
    pub address: String,
    pub port: u16,
    pub open: bool,
    pub error: Option<String>,
}

pub fn parse_peers(result: &ProbeResult) -> Result<Vec<PeerPort>, String> {
    match result {
        ProbeResult::Tcp { answers } => Ok(answers
            .iter()
            .map(|answer| PeerPort {
                address: answer.target.address.clone(),
                port: answer.target.port,
                open: answer.open,
                error: answer.error.clone(),
            })
            .collect()),
        other => Err(table::unexpected("answers of TCP targets", other)),
    }
}

/// [`QUEUES`]: one queue, as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    pub name: String,
    pub vhost: String,
    /// `classic`, `quorum` or `stream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For example `running`; absent while the queue's node is away.
    #[serde(default)]
    pub state: Option<String>,
    #[serde(default)]
    pub durable: bool,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub auto_delete: bool,
    /// Node of a classic queue, or leader of a replicated one.
    #[serde(default)]
    pub node: Option<String>,
    #[serde(default)]
    pub leader: Option<String>,
    /// Nodes with a replica (quorum, stream).
    #[serde(default)]
    pub members: Vec<String>,
    #[serde(default)]
    pub online: Vec<String>,
    /// Mirrors of a classic queue.
    #[serde(default)]
    pub slave_nodes: Vec<String>,
    #[serde(default)]
    pub synchronised_slave_nodes: Vec<String>,
    /// Absent while it is not known.
    #[serde(default)]
    pub messages: Option<u64>,
    #[serde(default)]
    pub policy: Option<String>,
}

impl Queue {
    /// Has replicas that agree by majority.
    pub fn is_quorum(&self) -> bool {
        self.kind == "quorum" || self.kind == "stream"
    }

    /// A classic queue that is mirrored over nodes.
    pub fn is_mirrored(&self) -> bool {
        self.kind == "classic"
            && !(self.slave_nodes.is_empty() && self.synchronised_slave_nodes.is_empty())
    }
}

/// RabbitMQ names the mirrors of a queue twice.
pub fn parse_queues(result: &ProbeResult) -> Result<Vec<Queue>, String> {
    repeated::json(table::answered_ok(result)?)
}

/// [`QUORUM_CRITICAL`]: whether some queue would lose its majority if this node stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumCritical {
    pub critical: bool,
    /// `queue in vhost` texts; a few at most are kept.
    pub queues: Vec<String>,
}

/// Names of queues that are kept: enough to know where to look.
const CRITICAL_QUEUES_KEPT: usize = 10;

#[derive(Deserialize)]
struct RawHealthCheck {
    status: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    queues: Vec<serde_json::Value>,
    #[serde(default)]
    alarms: Vec<serde_json::Value>,
}

/// A health check answers 200 when it passes and 503 when it fails; anything else is no answer.
fn health_check(result: &ProbeResult) -> Result<(bool, RawHealthCheck), String> {
    let (status, body) = table::answered(result)?;
    let check: RawHealthCheck = match status {
        200 | 503 => table::json(body)?,
        other => return Err(format!("expected HTTP status 200 or 503; found {other}")),
    };
    match (status, check.status.as_str()) {
        (200, "ok") => Ok((true, check)),
        (503, "failed") => Ok((false, check)),
        (status, text) => Err(format!(
            "expected 200 ok or 503 failed; found {status} {text:?}"
        )),
    }
}

pub fn parse_quorum_critical(result: &ProbeResult) -> Result<QuorumCritical, String> {
    let (passed, check) = health_check(result)?;
    let mut queues: Vec<String> = check
        .queues
        .iter()
        .take(CRITICAL_QUEUES_KEPT)
        .map(
            |queue| match queue.get("readable_name").and_then(|name| name.as_str()) {
                Some(name) => name.to_owned(),
                None => queue.to_string(),
            },
        )
        .collect();
    if !passed && queues.is_empty() {
        queues.extend(check.reason);
    }
    Ok(QuorumCritical {
        critical: !passed,
        queues,
    })
}

/// [`ALARMS`]: resource alarms in effect anywhere in the cluster, one text each.
pub fn parse_alarms(result: &ProbeResult) -> Result<Vec<String>, String> {
    let (passed, check) = health_check(result)?;
    let mut alarms: Vec<String> = check.alarms.iter().map(ToString::to_string).collect();
    if !passed && alarms.is_empty() {
        alarms.push(
            check
                .reason
                .unwrap_or_else(|| "an alarm is in effect".to_owned()),
        );
    }
    Ok(alarms)
}

/// [`DEFINITIONS`]: what the broker holds, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definitions {
    pub vhosts: Vec<String>,
    pub users: Vec<String>,
    pub policies: serde_json::Value,
    pub queues: u64,
    pub exchanges: u64,
    pub bindings: u64,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct RawDefinitions {
    vhosts: Vec<Named>,
    users: Vec<Named>,
    policies: serde_json::Value,
    queues: Vec<serde::de::IgnoredAny>,
    exchanges: Vec<serde::de::IgnoredAny>,
    bindings: Vec<serde::de::IgnoredAny>,
}

pub fn parse_definitions(result: &ProbeResult) -> Result<Definitions, String> {
    let raw: RawDefinitions = table::json(table::answered_ok(result)?)?;
    let names = |list: Vec<Named>| sorted(list.into_iter().map(|named| named.name).collect());
    Ok(Definitions {
        vhosts: names(raw.vhosts),
        users: names(raw.users),
        policies: raw.policies,
        queues: raw.queues.len() as u64,
        exchanges: raw.exchanges.len() as u64,
        bindings: raw.bindings.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed, http};

    fn view(captured: &str) -> Vec<(String, bool, usize)> {
        let nodes = parse_nodes(&http(200, captured)).unwrap();
        let short = |node: NodeView| {
            (
                node.name.replace("rabbit@", ""),
                node.running,
                node.partitions.len(),
            )
        };
        nodes.into_iter().map(short).collect()
    }

    fn expected(nodes: [(&str, bool, usize); 3]) -> Vec<(String, bool, usize)> {
        nodes
            .map(|(name, running, partitions)| (name.to_owned(), running, partitions))
            .to_vec()
    }

    #[test]
    fn nodes_before_during_and_after_a_partition() {
        let healthy = view(include_str!("captured/rabbitmq-nodes-healthy.json"));
        assert_eq!(
            healthy,
            expected([("ctl1", true, 0), ("ctl2", true, 0), ("ctl3", true, 0)])
        );
        let cut_off = view(include_str!("captured/rabbitmq-nodes-cut-off.json"));
        assert_eq!(
            cut_off,
            expected([("ctl1", false, 0), ("ctl2", false, 0), ("ctl3", true, 0)])
        );
        let after = view(include_str!(
            "captured/rabbitmq-nodes-partitioned-ctl3.json"
        ));
        assert_eq!(
            after,
            expected([("ctl1", false, 1), ("ctl2", false, 0), ("ctl3", true, 2)])
        );
        assert!(parse_nodes(&http(200, "[]")).is_err());
        assert!(parse_nodes(&http(401, "{}")).is_err());
        assert!(parse_nodes(&failed()).is_err());
    }

    #[test]
    fn cluster_status_of_the_command_line() {
        let running = |captured: &str| match parse_cluster_status(&exited(0, captured, "")) {
            Ok(ClusterStatus::Running(view)) => view,
            other => panic!("expected a running node, found {other:?}"),
        };
        let healthy = running(include_str!("captured/rabbitmq-cluster-status.json"));
        assert_eq!(
            healthy.running_nodes,
            ["rabbit@ctl1", "rabbit@ctl2", "rabbit@ctl3"]
        );
        assert!(healthy.partitions.is_empty() && healthy.alarms.is_empty());
        assert_eq!(healthy.versions["rabbit@ctl2"], "3.10.8");
        let split = running(include_str!(
            "captured/rabbitmq-cluster-status-partitioned.json"
        ));
        assert_eq!(split.partitions["rabbit@ctl1"], ["rabbit@ctl3"]);
        let captured = include_str!("captured/rabbitmq-cluster-status.json");
        for escape in ["\\u001b", "\\ub100"] {
            let drained = format!("{escape}[31munder maintenance{escape}[0m");
            let told = captured.replacen("not under maintenance", &drained, 1);
            let drained = running(&told);
            let words = drained.maintenance_status.values();
            assert_eq!(words.filter(|it| *it == "under maintenance").count(), 1);
        }
        let stopped = include_str!("captured/rabbitmq-cluster-status-stopped.txt");
        let stopped = parse_cluster_status(&exited(69, "", stopped));
        let error = "epmd reports: node 'rabbit' not running at all".to_owned();
        assert_eq!(stopped, Ok(ClusterStatus::NotRunning { error }));
        let cookie = "Error: unable to perform an operation on node 'rabbit@ctl3'.\n * Authentication failed (rejected by the remote node)";
        assert!(parse_cluster_status(&exited(69, "", cookie)).is_err());
    }

    #[test]
    fn queues_and_what_they_need() {
        let queues =
            parse_queues(&http(200, include_str!("captured/rabbitmq-queues.json"))).unwrap();
        let kinds: Vec<_> = queues
            .iter()
            .map(|q| (q.name.as_str(), q.is_quorum(), q.is_mirrored()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("c1", false, false),
                ("m1", false, true),
                ("q1", true, false)
            ]
        );
        assert_eq!(queues[2].online.len(), 3);
        let mirrored = r#"[{"name":"q","vhost":"/","type":"classic","slave_nodes":["rabbit@h2"],"slave_nodes":[]}]"#;
        let mirrored = parse_queues(&http(200, mirrored)).unwrap();
        assert!(mirrored[0].is_mirrored(), "whichever of the two says so");
        let critical = r#"{"status":"failed","reason":"...","queues":[{"readable_name":"queue 'q1' in vhost '/'"}]}"#;
        let critical = parse_quorum_critical(&http(503, critical)).unwrap();
        assert_eq!(
            (critical.critical, critical.queues),
            (true, vec!["queue 'q1' in vhost '/'".to_owned()])
        );
        assert!(
            !parse_quorum_critical(&http(200, r#"{"status":"ok"}"#))
                .unwrap()
                .critical
        );
        assert!(parse_quorum_critical(&http(200, r#"{"status":"failed"}"#)).is_err());
        assert!(parse_quorum_critical(&http(500, "")).is_err());
        assert_eq!(parse_alarms(&http(200, r#"{"status":"ok"}"#)), Ok(vec![]));
        assert_eq!(
            parse_alarms(&http(503, r#"{"status":"failed","reason":"disk"}"#)),
            Ok(vec!["disk".to_owned()])
        );
    }

    #[test]
    fn definitions_leave_passwords_behind() {
        let definitions = parse_definitions(&http(
            200,
            include_str!("captured/rabbitmq-definitions.json"),
        ))
        .unwrap();
        assert_eq!(definitions.users, ["nightshift"]);
        assert_eq!((definitions.queues, definitions.exchanges), (3, 0));
        assert!(
            !serde_json::to_string(&definitions)
                .unwrap()
                .contains("hash")
        );
        let overview =
            parse_overview(&http(200, include_str!("captured/rabbitmq-overview.json"))).unwrap();
        assert!(
            overview
                .listeners
                .iter()
                .any(|l| l.protocol == "amqp" && l.ip_address == "10.77.0.11")
        );
    }
}
