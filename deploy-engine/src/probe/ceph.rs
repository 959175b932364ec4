//! Ceph: what the monitors say (the maps), what the active manager says (placement groups), and what each daemon and host says of
//! itself. The monitors' word about a manager may be minutes old; whether one is there is proven by its own answer alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::table::{self, Entry, LIST_LIMIT_BYTES, OUTPUT_LIMIT_BYTES};
use crate::wire::{self, CommandOutput, ProbeResult, SocketAddress};

/// The monitors' maps: the same from whatever host they are asked.
pub const CLUSTER: &str = "ceph.cluster";
/// From the active manager.
pub const PGS: &str = "ceph.pgs";
/// Crashes of the host's daemons within a week, by the reports that they left on its disk.
pub const CRASHES: &str = "ceph.crashes";
/// Crashes that nobody has archived, from the active manager.
pub const NEW_CRASHES: &str = "ceph.new_crashes";
/// May the OSDs of this host be stopped? From the active manager.
pub const OK_TO_STOP: &str = "ceph.ok_to_stop";
/// The host's own monitor, by its socket.
pub const MONITOR: &str = "ceph.monitor";
/// The host's own OSDs, each by its socket.
pub const OSDS: &str = "ceph.osds";
/// What the host's disk holds of Ceph.
pub const KEPT: &str = "ceph.kept";
/// What the host's kernel says of failing disks.
pub const DEVICE_ERRORS: &str = "ceph.device_errors";

/// Asks monitors, the manager and OSDs; what it is for and how it ends is said at its top.
const ASK: &str = include_str!("ceph_ask.py");

/// Reaching the monitors, 3 s at most, and their answers. Less than gates wait for all answers of a host (7 s): silence here must not
/// make the host itself unknown.
const MONITORS_SECONDS: u32 = 6;
/// Reaching the monitors, and 3 s for a manager: one that does not answer in this time is not there.
const MANAGER_SECONDS: u32 = 6;
/// How the program ends when no manager answered (`ETIMEDOUT`).
const SILENT: i32 = 110;
/// At most 2 s for each OSD of the host.
const OSDS_SECONDS: u32 = 60;
/// Reading a day of kernel messages.
const KERNEL_SECONDS: u32 = 20;

/// What monitors are asked, all at once.
const QUESTIONS: [&str; 5] = [
    r#"{"prefix": "quorum_status"}"#,
    r#"{"prefix": "osd dump"}"#,
    r#"{"prefix": "osd tree"}"#,
    r#"{"prefix": "health", "detail": "detail"}"#,
    r#"{"prefix": "versions"}"#,
];

/// What kernels say of a disk that fails. Lower case: the search then ignores case.
const DEVICE_PATTERN: &str =
    "medium error|i/o error|unrecovered read error|uncorrectable|critical target error|media error";

pub static PROBES: &[Entry] = &[
    Entry {
        name: CLUSTER,
        service: Some("ceph"),
        request: |_| ask("monitors", &QUESTIONS, MONITORS_SECONDS),
        parse: |result| table::value(parse_cluster(result)),
    },
    Entry {
        name: PGS,
        service: Some("ceph"),
        request: |_| ask("manager", &[r#"{"prefix": "pg stat"}"#], MANAGER_SECONDS),
        parse: |result| table::value(manager(result).and_then(parse_pgs)),
    },
    Entry {
        name: CRASHES,
        service: Some("ceph"),
        request: |_| {
            let argv = [
                "find",
                "/var/lib/ceph/crash",
                "-mindepth",
                "1",
                "-maxdepth",
                "3",
                "-name",
                "meta",
                "-mtime",
                "-8",
                "-exec",
                "cat",
                "{}",
                ";",
            ];
            table::command(&argv, KERNEL_SECONDS, LIST_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_crashes(result)),
    },
    Entry {
        name: NEW_CRASHES,
        service: Some("ceph"),
        request: |_| {
            ask(
                "manager",
                &[r#"{"prefix": "crash ls-new"}"#],
                MANAGER_SECONDS,
            )
        },
        parse: |result| table::value(manager(result).and_then(parse_new_crashes)),
    },
    Entry {
        name: OK_TO_STOP,
        service: Some("ceph"),
        request: |context| ask("ok-to-stop", &[context.host.as_str()], MANAGER_SECONDS),
        parse: |result| table::value(parse_ok_to_stop(result)),
    },
    Entry {
        name: MONITOR,
        service: Some("ceph"),
        request: |context| wire::Probe::Socket {
            to: SocketAddress::Unix {
                path: format!("/var/run/ceph/ceph-mon.{}.asok", context.host),
            },
            send: "{\"prefix\": \"mon_status\"}\n".to_owned(),
            timeout_ms: table::LOCAL_TIMEOUT_MS,
            limit_bytes: OUTPUT_LIMIT_BYTES,
        },
        parse: |result| table::value(parse_monitor(result)),
    },
    Entry {
        name: OSDS,
        service: Some("ceph"),
        request: |_| ask("osds", &[], OSDS_SECONDS),
        parse: |result| table::value(parse_osds(result)),
    },
    Entry {
        name: KEPT,
        service: Some("ceph"),
        request: |_| {
            let argv = [
                "find",
                "/var/lib/ceph",
                "-maxdepth",
                "3",
                "-name",
                "whoami",
                "-o",
                "-name",
                "store.db",
            ];
            table::command(&argv, MONITORS_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_kept(result)),
    },
    Entry {
        name: DEVICE_ERRORS,
        service: Some("ceph"),
        request: |_| {
            let pattern = format!("--grep={DEVICE_PATTERN}");
            let argv = [
                "journalctl",
                "_TRANSPORT=kernel",
                "--since=-24h",
                "--output=cat",
                "--no-pager",
                "--quiet",
                "--lines=20",
                &pattern,
            ];
            table::command(&argv, KERNEL_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_device_errors(result)),
    },
];

pub(super) fn ask(to: &str, words: &[&str], seconds: u32) -> wire::Probe {
    let argv = [&["python3", "-I", "-c", ASK, to], words].concat();
    table::command(&argv, seconds, LIST_LIMIT_BYTES)
}

/// [`CLUSTER`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub monitors: BTreeSet<String>,
    pub quorum: BTreeSet<String>,
    /// Of the OSD map: the higher, the newer.
    pub epoch: u64,
    pub osds: BTreeMap<u32, Osd>,
    /// What somebody has switched off or held, in Ceph's words: `noout`, or `noup of ctl3`.
    pub flags: BTreeSet<String>,
    pub checks: BTreeMap<String, Check>,
    /// Kind of daemon → version → how many run it.
    pub versions: BTreeMap<String, BTreeMap<String, u32>>,
    pub pools: Vec<Pool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Osd {
    /// The host bucket that holds it in the CRUSH map; none: it is not placed.
    pub host: Option<String>,
    pub up: bool,
    #[serde(rename = "in")]
    pub is_in: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `HEALTH_WARN` or `HEALTH_ERR`.
    pub severity: String,
    pub message: String,
    pub muted: bool,
    pub details: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// What the names of its placement groups begin with.
    pub number: u32,
    pub name: String,
    pub size: u32,
    pub min_size: u32,
    pub erasure: bool,
}

impl Cluster {
    /// OSDs that the map says are down, whether in or out.
    pub fn down(&self) -> BTreeSet<u32> {
        let down = self.osds.iter().filter(|(_, osd)| !osd.up);
        down.map(|(id, _)| *id).collect()
    }

    pub fn osds_on<'a>(&'a self, host: &'a str) -> impl Iterator<Item = (u32, &'a Osd)> {
        let here = self.osds.iter();
        here.filter(move |(_, osd)| osd.host.as_deref() == Some(host))
            .map(|(id, osd)| (*id, osd))
    }

    pub fn without_quorum(&self) -> BTreeSet<&String> {
        self.monitors.difference(&self.quorum).collect()
    }
}

/// Flags that every cluster has; any other one was set by somebody.
const USUAL_FLAGS: [&str; 4] = [
    "sortbitwise",
    "recovery_deletes",
    "purged_snapdirs",
    "pglog_hardlimit",
];
/// States of a single OSD by which somebody holds it.
const HELD: [&str; 5] = ["noup", "nodown", "noin", "noout", "stop"];

#[derive(Deserialize)]
struct RawQuorum {
    quorum_names: BTreeSet<String>,
    monmap: RawMonmap,
}

#[derive(Deserialize)]
struct RawMonmap {
    mons: Vec<RawName>,
}

#[derive(Deserialize)]
struct RawName {
    name: String,
}

#[derive(Deserialize)]
struct RawDump {
    epoch: u64,
    flags_set: BTreeSet<String>,
    pools: Vec<RawPool>,
    osds: Vec<RawOsd>,
    crush_node_flags: BTreeMap<String, Vec<String>>,
    device_class_flags: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct RawPool {
    pool: u32,
    pool_name: String,
    size: u32,
    min_size: u32,
    r#type: u8,
}

#[derive(Deserialize)]
struct RawOsd {
    osd: u32,
    up: u8,
    #[serde(rename = "in")]
    is_in: u8,
    state: Vec<String>,
}

#[derive(Deserialize)]
struct RawTree {
    nodes: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawNode {
    name: String,
    r#type: String,
    #[serde(default)]
    children: Vec<i64>,
}

#[derive(Deserialize)]
struct RawHealth {
    checks: BTreeMap<String, RawCheck>,
}

#[derive(Deserialize)]
struct RawCheck {
    severity: String,
    summary: RawMessage,
    #[serde(default)]
    muted: bool,
    #[serde(default)]
    detail: Vec<RawMessage>,
}

#[derive(Deserialize)]
struct RawMessage {
    message: String,
}

/// Replicated pools have this type, erasure-coded ones another.
const REPLICATED: u8 = 1;

pub fn parse_cluster(result: &ProbeResult) -> Result<Cluster, String> {
    let text = table::succeeded(result)?;
    let answers = documents(text)?;
    let [quorum, dump, tree, health, versions] = <[Value; QUESTIONS.len()]>::try_from(answers)
        .map_err(|answers| {
            format!(
                "expected {} answers from the monitors; found {}",
                QUESTIONS.len(),
                answers.len()
            )
        })?;
    let quorum: RawQuorum = typed("quorum_status", quorum)?;
    let dump: RawDump = typed("osd dump", dump)?;
    let tree: RawTree = typed("osd tree", tree)?;
    let health: RawHealth = typed("health detail", health)?;
    let mut versions: BTreeMap<String, BTreeMap<String, u32>> = typed("versions", versions)?;
    versions.remove("overall");
    versions.retain(|_, of| !of.is_empty());
    let hosts = hosts_of(&tree);
    Ok(Cluster {
        monitors: quorum.monmap.mons.into_iter().map(|mon| mon.name).collect(),
        quorum: quorum.quorum_names,
        epoch: dump.epoch,
        flags: flags(&dump),
        osds: dump
            .osds
            .iter()
            .map(|osd| {
                let one = Osd {
                    host: hosts.get(&i64::from(osd.osd)).cloned(),
                    up: osd.up == 1,
                    is_in: osd.is_in == 1,
                };
                (osd.osd, one)
            })
            .collect(),
        checks: health.checks.into_iter().map(check).collect(),
        versions,
        pools: dump.pools.into_iter().map(pool).collect(),
    })
}

pub(super) fn typed<T: serde::de::DeserializeOwned>(of: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{of}: expected another shape: {error}"))
}

/// JSON documents one after another.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    serde_json::Deserializer::from_str(text)
        .into_iter::<Value>()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("expected JSON: {error}"))
}

fn hosts_of(tree: &RawTree) -> BTreeMap<i64, String> {
    let hosts = tree.nodes.iter().filter(|node| node.r#type == "host");
    hosts
        .flat_map(|host| host.children.iter().map(|osd| (*osd, host.name.clone())))
        .collect()
}

fn flags(dump: &RawDump) -> BTreeSet<String> {
    let whole = dump.flags_set.iter();
    let mut flags: BTreeSet<String> = whole
        .filter(|flag| !USUAL_FLAGS.contains(&flag.as_str()))
        .cloned()
        .collect();
    for (of, set) in dump.crush_node_flags.iter().chain(&dump.device_class_flags) {
        flags.extend(set.iter().map(|flag| format!("{flag} of {of}")));
    }
    for osd in &dump.osds {
        let held = osd
            .state
            .iter()
            .filter(|state| HELD.contains(&state.as_str()));
        flags.extend(held.map(|flag| format!("{flag} of osd.{}", osd.osd)));
    }
    flags
}

fn check((name, raw): (String, RawCheck)) -> (String, Check) {
    let check = Check {
        severity: raw.severity,
        message: raw.summary.message,
        muted: raw.muted,
        details: raw.detail.into_iter().map(|one| one.message).collect(),
    };
    (name, check)
}

fn pool(raw: RawPool) -> Pool {
    Pool {
        number: raw.pool,
        name: raw.pool_name,
        size: raw.size,
        min_size: raw.min_size,
        erasure: raw.r#type != REPLICATED,
    }
}

/// An answer of the active manager. Its silence is worth a name; a program that did not come to an end says nothing of it.
pub(super) fn manager(result: &ProbeResult) -> Result<&str, String> {
    match table::ended(result)? {
        (SILENT, _) => Err(NO_MANAGER.to_owned()),
        _ => table::succeeded(result),
    }
}

/// Why nothing is known that only the active manager knows.
pub const NO_MANAGER: &str = "no active manager answers";

/// [`PGS`]: how many placement groups are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pgs {
    pub total: u64,
    /// `active+clean` → how many.
    pub states: BTreeMap<String, u64>,
}

impl Pgs {
    /// States that have a part which is not among `parts`.
    pub fn other_than(&self, parts: &[&str]) -> Vec<String> {
        let other = |state: &&String| state.split('+').any(|part| !parts.contains(&part));
        self.states.keys().filter(other).cloned().collect()
    }

    /// Every one is active and clean; checking the copies disturbs nobody.
    pub fn are_clean(&self) -> bool {
        let clean = |state: &String| {
            ["active", "clean"]
                .iter()
                .all(|part| state.split('+').any(|one| one == *part))
        };
        self.total > 0
            && self
                .other_than(&["active", "clean", "scrubbing", "deep"])
                .is_empty()
            && self.states.keys().all(clean)
    }

    pub fn words(&self) -> String {
        let each = self.states.iter();
        let list: Vec<String> = each
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        match list.is_empty() {
            true => "no placement groups".to_owned(),
            false => list.join(", "),
        }
    }
}

#[derive(Deserialize)]
struct RawPgStat {
    pg_ready: bool,
    pg_summary: RawPgSummary,
}

#[derive(Deserialize)]
struct RawPgSummary {
    num_pg_by_state: Vec<RawPgState>,
    num_pgs: u64,
}

#[derive(Deserialize)]
struct RawPgState {
    name: String,
    num: u64,
}

fn parse_pgs(text: &str) -> Result<Pgs, String> {
    let raw: RawPgStat = table::json(text)?;
    if !raw.pg_ready {
        return Err("the active manager has not heard of all placement groups yet".to_owned());
    }
    let states = raw.pg_summary.num_pg_by_state.into_iter();
    Ok(Pgs {
        total: raw.pg_summary.num_pgs,
        states: states.map(|state| (state.name, state.num)).collect(),
    })
}

/// [`CRASHES`], [`NEW_CRASHES`]: one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    #[serde(rename(deserialize = "crash_id"), alias = "id")]
    pub id: String,
    /// For example `osd.3`.
    #[serde(rename(deserialize = "entity_name"), alias = "daemon")]
    pub daemon: String,
    #[serde(rename(deserialize = "timestamp"), alias = "at")]
    pub at: String,
    /// Where it was, as Ceph writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<Value>,
}

pub fn parse_crashes(result: &ProbeResult) -> Result<Vec<Crash>, String> {
    let all = documents(table::succeeded(result)?)?;
    all.into_iter().map(|one| typed("meta", one)).collect()
}

fn parse_new_crashes(text: &str) -> Result<Vec<Crash>, String> {
    table::json(text)
}

#[derive(Deserialize)]
struct RawOkToStop {
    ok_to_stop: bool,
}

/// Ceph says no with this exit status, and answers all the same.
const BUSY: i32 = 16;

/// [`OK_TO_STOP`].
pub fn parse_ok_to_stop(result: &ProbeResult) -> Result<bool, String> {
    manager_may_say_no(result).and_then(|output| {
        let raw: RawOkToStop = table::json(output.stdout.trim())?;
        Ok(raw.ok_to_stop)
    })
}

fn manager_may_say_no(result: &ProbeResult) -> Result<&CommandOutput, String> {
    match table::ended(result)? {
        (SILENT, _) => Err(NO_MANAGER.to_owned()),
        (0 | BUSY, output) => Ok(output),
        (code, output) => Err(format!(
            "expected exit status 0 or {BUSY}; found {code}: {}",
            table::last_line(&output.stderr)
        )),
    }
}

/// [`MONITOR`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// `leader`, `peon`, `probing`, `electing`, `synchronizing`.
    pub state: String,
}

impl Monitor {
    pub fn is_in_quorum(&self) -> bool {
        matches!(self.state.as_str(), "leader" | "peon")
    }
}

pub fn parse_monitor(result: &ProbeResult) -> Result<Monitor, String> {
    let answer = table::spoken(result)?;
    // Four bytes with the length of what follows.
    let body = answer.find('{').map(|start| &answer[start..]);
    let body = body.ok_or("expected the monitor's state; found no JSON")?;
    table::json(body)
}

#[derive(Deserialize)]
struct RawOsdStatus {
    whoami: u32,
    state: String,
}

/// [`OSDS`]: number → state (`active`, `booting`, `preboot`, …). One that does not answer is not among them.
pub fn parse_osds(result: &ProbeResult) -> Result<BTreeMap<u32, String>, String> {
    let all = documents(table::succeeded(result)?)?;
    all.into_iter()
        .map(|one| {
            let status: RawOsdStatus = typed("status", one)?;
            Ok((status.whoami, status.state))
        })
        .collect()
}

/// [`KEPT`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// There is the store of a monitor.
    pub monitor: bool,
    pub osds: BTreeSet<u32>,
}

pub fn parse_kept(result: &ProbeResult) -> Result<Kept, String> {
    let (code, output) = table::ended(result)?;
    if code != 0 {
        // A host that never had Ceph has no such folder.
        return match output.stderr.contains("/var/lib/ceph")
            && output.stderr.contains("No such file")
            && output.stdout.is_empty()
        {
            true => Ok(Kept::default()),
            false => Err(table::last_line(&output.stderr).to_owned()),
        };
    }
    let mut kept = Kept::default();
    for line in output.stdout.lines() {
        if line.starts_with("/var/lib/ceph/mon/") {
            kept.monitor = true;
        } else if let Some(osd) = line.strip_prefix("/var/lib/ceph/osd/") {
            let number = osd
                .split('/')
                .next()
                .and_then(|name| name.rsplit('-').next());
            let number = number.and_then(|text| text.parse().ok());
            kept.osds.insert(
                number.ok_or_else(|| format!("expected the folder of an OSD; found {line}"))?,
            );
        }
    }
    Ok(kept)
}

/// [`DEVICE_ERRORS`]: lines of the last 24 hours. The search ends with 1 when nothing is found.
pub fn parse_device_errors(result: &ProbeResult) -> Result<Vec<String>, String> {
    match table::ended(result)? {
        (0, output) => Ok(output.stdout.lines().map(str::to_owned).collect()),
        (1, output) if output.stdout.is_empty() && output.stderr.is_empty() => Ok(Vec::new()),
        (code, output) => Err(format!(
            "expected exit status 0 or 1; found {code}: {}",
            table::last_line(&output.stderr)
        )),
    }
}

#[cfg(test)]
#[path = "ceph_tests.rs"]
mod tests;
