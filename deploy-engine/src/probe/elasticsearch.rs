//! Elasticsearch and OpenSearch, asked over their HTTP API. Both word what is asked here alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ProbeContext,
    table::{self, Entry, LIST_LIMIT_BYTES, OUTPUT_LIMIT_BYTES},
};
use crate::wire::{self, ProbeResult};

pub const HEALTH: &str = "elasticsearch.health";
pub const NODES: &str = "elasticsearch.nodes";
pub const ALLOCATION: &str = "elasticsearch.allocation";
pub const INDICES: &str = "elasticsearch.indices";
pub const BLOCKS: &str = "elasticsearch.blocks";
pub const WATERMARKS: &str = "elasticsearch.watermarks";
pub const FRESH: &str = "elasticsearch.fresh";

pub const PORT: u16 = 9200;
pub const DATA: &str = "/var/lib/elasticsearch";
/// A node without a master waits this long for one before it says so; our own patience is longer.
const MASTER_TIMEOUT: &str = "master_timeout=3s";
const TIMEOUT_MS: u32 = 10_000;
const FIND_SECONDS: u32 = 10;

pub static PROBES: &[Entry] = &[
    Entry {
        name: HEALTH,
        service: Some("elasticsearch"),
        request: |context| {
            let path = format!("/_cluster/health?{MASTER_TIMEOUT}");
            get(context, path, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_health(result)),
    },
    Entry {
        name: NODES,
        service: Some("elasticsearch"),
        request: |context| {
            let columns = "name,ip,version,heap.percent,disk.used_percent";
            let path = format!("/_cat/nodes?format=json&h={columns}&{MASTER_TIMEOUT}");
            get(context, path, LIST_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_nodes(result)),
    },
    Entry {
        name: ALLOCATION,
        service: Some("elasticsearch"),
        // It takes no time-out of its own.
        request: |context| {
            let path = "/_cluster/allocation/explain".to_owned();
            get(context, path, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_allocation(result)),
    },
    Entry {
        name: INDICES,
        service: Some("elasticsearch"),
        request: |context| {
            let columns = "index,health&expand_wildcards=all";
            let path = format!("/_cat/indices?format=json&h={columns}&{MASTER_TIMEOUT}");
            get(context, path, LIST_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_indices(result)),
    },
    Entry {
        name: BLOCKS,
        service: Some("elasticsearch"),
        request: |context| {
            let how = "flat_settings=true&expand_wildcards=all";
            let path = format!("/_all/_settings/index.blocks.*?{how}&{MASTER_TIMEOUT}");
            get(context, path, LIST_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_blocks(result)),
    },
    Entry {
        name: WATERMARKS,
        service: Some("elasticsearch"),
        request: |context| {
            let parts = "*.cluster.routing.allocation.disk,*.cluster.blocks";
            let path = format!(
                "/_cluster/settings?include_defaults=true&filter_path={parts}&{MASTER_TIMEOUT}"
            );
            get(context, path, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_watermarks(result)),
    },
    Entry {
        name: FRESH,
        service: Some("elasticsearch"),
        // Where a node keeps what it knows of its cluster; written before it takes part in one.
        request: |_| {
            table::command(
                &["find", DATA, "-maxdepth", "3", "-name", "_state"],
                FIND_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_fresh(result)),
    },
];

fn get(context: &ProbeContext<'_>, path: String, limit_bytes: u32) -> wire::Probe {
    wire::Probe::Http {
        address: context.address.to_owned(),
        port: context.port("port", PORT),
        path,
        user: None,
        password: None,
        timeout_ms: TIMEOUT_MS,
        limit_bytes,
    }
}

/// The worst of all shards, in the cluster's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Green,
    /// A copy of some shard is missing.
    Yellow,
    /// A shard is missing: some data cannot be read or written.
    Red,
}

/// [`HEALTH`], as one node tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cluster", rename_all = "snake_case")]
pub enum Health {
    /// The node runs and knows no master: it is in no cluster that can decide anything.
    NoMaster,
    Formed(Shards),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shards {
    pub status: Status,
    pub number_of_nodes: usize,
    pub active_shards: u64,
    pub relocating_shards: u64,
    pub initializing_shards: u64,
    pub unassigned_shards: u64,
    /// Of the unassigned ones: held back for a while, in case their node comes back.
    pub delayed_unassigned_shards: u64,
}

pub fn parse_health(result: &ProbeResult) -> Result<Health, String> {
    match table::answered(result)? {
        (200, body) => table::json(body).map(Health::Formed),
        (503, body) if is_masterless(body) => Ok(Health::NoMaster),
        (status, body) => Err(refused(status, body)),
    }
}

/// Elasticsearch and OpenSearch name the same thing differently.
fn is_masterless(body: &str) -> bool {
    body.contains("master_not_discovered_exception")
        || body.contains("cluster_manager_not_discovered_exception")
}

/// One node of [`NODES`], as the cluster sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub ip: String,
    pub version: String,
    pub heap_percent: Option<f64>,
    pub disk_used_percent: Option<f64>,
}

#[derive(Deserialize)]
struct CatNode {
    name: String,
    ip: String,
    version: String,
    #[serde(rename = "heap.percent")]
    heap_percent: Option<String>,
    #[serde(rename = "disk.used_percent")]
    disk_used_percent: Option<String>,
}

/// Sorted by name; empty when the node knows no master.
pub fn parse_nodes(result: &ProbeResult) -> Result<Vec<Node>, String> {
    let body = match table::answered(result)? {
        (200, body) => body,
        (503, body) if is_masterless(body) => return Ok(Vec::new()),
        (status, body) => return Err(refused(status, body)),
    };
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let nodes: Vec<CatNode> = table::json(body)?;
    let mut nodes: Vec<Node> = nodes
        .into_iter()
        .map(|node| Node {
            name: node.name,
            ip: node.ip,
            version: node.version,
            heap_percent: number(node.heap_percent),
            disk_used_percent: number(node.disk_used_percent),
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// [`ALLOCATION`]: why the first unassigned shard is not assigned; `None` when all are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unassigned {
    pub index: String,
    pub shard: u64,
    pub primary: bool,
    /// For example `NODE_LEFT`, `ALLOCATION_FAILED`, `INDEX_CREATED`.
    pub reason: String,
    pub failed_attempts: u64,
    /// For example `no`, `throttled`, `awaiting_info`, `allocation_delayed`, `no_valid_shard_copy`.
    pub can_allocate: String,
    /// The cluster's sentence.
    pub explanation: String,
}

#[derive(Deserialize)]
struct Explained {
    index: String,
    shard: u64,
    primary: bool,
    unassigned_info: Info,
    can_allocate: String,
    #[serde(default)]
    allocate_explanation: String,
}

#[derive(Deserialize)]
struct Info {
    reason: String,
    #[serde(default)]
    failed_allocation_attempts: u64,
}

pub fn parse_allocation(result: &ProbeResult) -> Result<Option<Unassigned>, String> {
    match table::answered(result)? {
        (200, body) => {
            let found: Explained = table::json(body)?;
            Ok(Some(Unassigned {
                index: found.index,
                shard: found.shard,
                primary: found.primary,
                reason: found.unassigned_info.reason,
                failed_attempts: found.unassigned_info.failed_allocation_attempts,
                can_allocate: found.can_allocate,
                explanation: found.allocate_explanation,
            }))
        }
        (400, body) if body.contains("unable to find any unassigned shards") => Ok(None),
        (status, body) => Err(refused(status, body)),
    }
}

/// One of [`INDICES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    #[serde(rename = "index")]
    pub name: String,
    /// `None`: closed, in a version that does not look after closed indices.
    pub health: Option<Status>,
}

/// Those that miss a shard, the worst first, then by name.
pub fn parse_indices(result: &ProbeResult) -> Result<Vec<Index>, String> {
    let mut indices: Vec<Index> = match table::answered(result)? {
        (200, body) => table::json(body)?,
        (status, body) => return Err(refused(status, body)),
    };
    indices.retain(|index| index.health > Some(Status::Green));
    indices.sort_by(|a, b| (b.health, &a.name).cmp(&(a.health, &b.name)));
    Ok(indices)
}

#[derive(Deserialize)]
struct IndexSettings {
    settings: BTreeMap<String, Value>,
}

/// [`BLOCKS`]: index → what it does not take, for example `read_only_allow_delete`. Indices without a block are not there.
pub fn parse_blocks(result: &ProbeResult) -> Result<BTreeMap<String, Vec<String>>, String> {
    let indices: BTreeMap<String, IndexSettings> = match table::answered(result)? {
        (200, body) => table::json(body)?,
        (status, body) => return Err(refused(status, body)),
    };
    let blocked = |index: IndexSettings| -> Vec<String> {
        let set = index
            .settings
            .into_iter()
            .filter(|(_, value)| is_true(value));
        set.map(|(name, _)| name.trim_start_matches("index.blocks.").to_owned())
            .collect()
    };
    Ok(indices
        .into_iter()
        .map(|(name, index)| (name, blocked(index)))
        .filter(|(_, blocks)| !blocks.is_empty())
        .collect())
}

fn is_true(value: &Value) -> bool {
    value == "true" || value == &Value::Bool(true)
}

/// [`WATERMARKS`]: how full a disk may be, as set: percent (`85%`), a part (`0.85`), or room that is left (`500mb`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// Without it disks are not looked at.
    pub enabled: bool,
    /// Above it a node gets no more shards.
    pub low: String,
    /// Above it shards leave the node.
    pub high: String,
    /// Above it all indices of the node are read-only.
    pub flood_stage: String,
    /// Blocks of the whole cluster, for example `create_index`.
    pub blocked: Vec<String>,
}

impl Watermarks {
    /// All are shares, which can be compared with what a node says of its disk.
    pub fn are_shares(&self) -> bool {
        let all = [&self.low, &self.high, &self.flood_stage];
        all.iter().all(|mark| percent(mark).is_some())
    }

    /// The highest that a disk is at or above, with its name. `None`: below all that are a share of the disk.
    pub fn passed(&self, used_percent: f64) -> Option<(&'static str, &str)> {
        let of = [
            ("flood-stage", self.flood_stage.as_str()),
            ("high", self.high.as_str()),
            ("low", self.low.as_str()),
        ];
        let passed = |mark: &str| percent(mark).is_some_and(|mark| used_percent >= mark);
        of.into_iter()
            .find(|(_, mark)| self.enabled && passed(mark))
    }
}

/// Of a watermark that is a share of the disk.
fn percent(mark: &str) -> Option<f64> {
    match mark.strip_suffix('%') {
        Some(number) => number.trim().parse().ok(),
        None => mark.parse::<f64>().ok().map(|part| part * 100.0),
    }
}

pub fn parse_watermarks(result: &ProbeResult) -> Result<Watermarks, String> {
    let all: Value = match table::answered(result)? {
        (200, body) => table::json(body)?,
        (status, body) => return Err(refused(status, body)),
    };
    // What was set by hand counts before what is the program's own.
    let set = |path: &str| {
        let layers = ["transient", "persistent", "defaults"];
        let values = layers.map(|layer| all.pointer(&format!("/{layer}/cluster/{path}")));
        let text = values.into_iter().flatten().find_map(Value::as_str);
        text.map(str::to_owned)
    };
    let disk = |name: &str| {
        set(&format!("routing/allocation/disk/{name}"))
            .ok_or_else(|| format!("expected the setting {name} of disks; it is not there"))
    };
    let blocks = ["create_index", "read_only", "read_only_allow_delete"];
    let is_set = |name: &&str| set(&format!("blocks/{name}")).is_some_and(|value| value == "true");
    Ok(Watermarks {
        enabled: disk("threshold_enabled")? == "true",
        low: disk("watermark/low")?,
        high: disk("watermark/high")?,
        flood_stage: disk("watermark/flood_stage")?,
        blocked: blocks
            .iter()
            .filter(|name| is_set(name))
            .map(|name| (*name).to_owned())
            .collect(),
    })
}

/// [`FRESH`]: no node ever started with this data.
pub fn parse_fresh(result: &ProbeResult) -> Result<bool, String> {
    match table::ended(result)? {
        (0, output) => Ok(output.stdout.trim().is_empty()),
        (1, output) if output.stderr.contains("No such file or directory") => Ok(true),
        (code, output) => Err(format!(
            "expected a search in {DATA}; found exit status {code}: {}",
            table::last_line(&output.stderr)
        )),
    }
}

/// The API's own reason, without the pages around it.
fn refused(status: u16, body: &str) -> String {
    let parsed: Result<serde_json::Value, String> = table::json(body);
    let reason = parsed.ok().and_then(|value| {
        let reason = value.pointer("/error/reason")?.as_str()?;
        Some(reason.to_owned())
    });
    let reason = reason.unwrap_or_else(|| table::last_line(body).chars().take(200).collect());
    format!("expected HTTP status 200; found {status}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed, http};

    #[test]
    fn health() {
        let parse = |status, body| parse_health(&http(status, body));
        let yellow = parse(
            200,
            include_str!("captured/elasticsearch-health-yellow.json"),
        );
        let Ok(Health::Formed(shards)) = yellow else {
            panic!("{yellow:?}");
        };
        assert_eq!(
            (
                shards.status,
                shards.number_of_nodes,
                shards.unassigned_shards
            ),
            (Status::Yellow, 1, 1)
        );
        let green = parse(
            200,
            include_str!("captured/elasticsearch-health-green.json"),
        );
        assert!(matches!(
            green,
            Ok(Health::Formed(Shards {
                status: Status::Green,
                ..
            }))
        ));
        let masterless = include_str!("captured/elasticsearch-health-no-master.json");
        assert_eq!(parse(503, masterless), Ok(Health::NoMaster));
        let older = masterless.replace("cluster_manager_", "master_");
        assert_eq!(parse(503, &older), Ok(Health::NoMaster));
        // Another server, another program, another colour: unknown, never a cluster.
        for (status, body) in [
            (503, "<html>upstream is down</html>"),
            (401, "{}"),
            (200, "{}"),
            (200, r#"{"status":"purple","number_of_nodes":1}"#),
        ] {
            assert!(parse(status, body).is_err(), "{status} {body}");
        }
        assert!(parse_health(&failed()).is_err());
    }

    #[test]
    fn nodes() {
        let body = include_str!("captured/elasticsearch-nodes.json");
        let nodes = parse_nodes(&http(200, body)).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!(
            (nodes[0].name.as_str(), nodes[0].ip.as_str()),
            ("n1", "127.0.0.1")
        );
        assert!(nodes[0].heap_percent.is_some() && nodes[0].disk_used_percent.is_some());
        let masterless = include_str!("captured/elasticsearch-health-no-master.json");
        assert_eq!(parse_nodes(&http(503, masterless)), Ok(vec![]));
        assert!(parse_nodes(&http(200, "[{}]")).is_err());
    }

    #[test]
    fn allocation() {
        let body = include_str!("captured/elasticsearch-allocation.json");
        let found = parse_allocation(&http(200, body)).unwrap().unwrap();
        assert_eq!(found.can_allocate, "no");
        assert!(!found.primary && !found.explanation.is_empty());
        let none = include_str!("captured/elasticsearch-allocation-none.json");
        assert_eq!(parse_allocation(&http(400, none)), Ok(None));
        let other =
            r#"{"error":{"reason":"request contains unrecognized parameter"},"status":400}"#;
        let why = parse_allocation(&http(400, other)).unwrap_err();
        assert!(why.contains("unrecognized parameter"), "{why}");
    }

    #[test]
    fn indices_that_miss_shards() {
        let body = include_str!("captured/elasticsearch-indices.json");
        let found = parse_indices(&http(200, body)).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|of| (of.name.as_str(), of.health))
            .collect();
        assert_eq!(
            found,
            [
                ("flog-2026.11.25", Some(Status::Red)),
                ("flog-2026.11.24", Some(Status::Yellow))
            ]
        );
        assert_eq!(
            parse_indices(&http(200, r#"[{"index":"a","health":null}]"#)),
            Ok(vec![])
        );
        assert!(parse_indices(&http(200, r#"[{"index":"a","health":"purple"}]"#)).is_err());
        assert!(parse_indices(&http(200, "{}")).is_err());
        assert!(parse_indices(&http(503, "")).is_err());
    }

    #[test]
    fn blocks_of_indices() {
        let body = include_str!("captured/elasticsearch-blocks.json");
        let found = parse_blocks(&http(200, body)).unwrap();
        assert_eq!(found["flog-2026.11.24"], ["read_only_allow_delete"]);
        let off = body.replace("\"true\"", "\"false\"");
        assert_eq!(parse_blocks(&http(200, &off)), Ok(BTreeMap::new()));
        assert_eq!(parse_blocks(&http(200, "{}")), Ok(BTreeMap::new()));
        assert!(parse_blocks(&http(404, "{}")).is_err());
        assert!(parse_blocks(&http(200, "[]")).is_err());
    }

    #[test]
    fn watermarks_set_by_hand_count_first() {
        let body = include_str!("captured/elasticsearch-watermarks-blocked.json");
        let found = parse_watermarks(&http(200, body)).unwrap();
        assert_eq!(
            (
                found.low.as_str(),
                found.high.as_str(),
                found.flood_stage.as_str()
            ),
            ("70%", "91%", "95%")
        );
        assert!(found.enabled);
        assert_eq!(found.blocked, ["create_index"]);
        assert!(parse_watermarks(&http(200, "{}")).is_err());
        for (used, passed) in [
            (69.9, None),
            (70.0, Some("low")),
            (93.0, Some("high")),
            (95.5, Some("flood-stage")),
        ] {
            assert_eq!(found.passed(used).map(|(name, _)| name), passed, "{used}");
        }
        let other = |low: &str, enabled| Watermarks {
            low: low.to_owned(),
            enabled,
            ..found.clone()
        };
        assert_eq!(other("0.6", true).passed(65.0), Some(("low", "0.6")));
        // Room that is left says nothing of a share; and nobody looks where it is switched off.
        assert_eq!(other("500mb", true).passed(89.0), None);
        assert!(found.are_shares() && !other("500mb", true).are_shares());
        assert_eq!(other("70%", false).passed(99.0), None);
    }

    #[test]
    fn fresh() {
        assert_eq!(parse_fresh(&exited(0, "", "")), Ok(true));
        let there = "/var/lib/elasticsearch/nodes/0/_state\n";
        assert_eq!(parse_fresh(&exited(0, there, "")), Ok(false));
        let absent = "find: \u{2018}/var/lib/elasticsearch\u{2019}: No such file or directory\n";
        assert_eq!(parse_fresh(&exited(1, "", absent)), Ok(true));
        let closed = "find: \u{2018}/var/lib/elasticsearch\u{2019}: Permission denied\n";
        assert!(parse_fresh(&exited(1, "", closed)).is_err());
    }
}
