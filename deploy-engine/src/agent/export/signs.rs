//! Which questions a scrape asks, and the metrics that the answers make. Pure.
//!
//! A sign that could not be read is absent, and `nightshift_sign_read` says so: no rule may take silence for health.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::page::Page;
use crate::impstats;
use crate::wire::{Command, Probe, ProbeResult, SocketAddress};

/// What this host has that is worth watching.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `ADDRESS:PORT` to listen on.
    pub listen: String,
    #[serde(default)]
    pub rabbitmq: Option<RabbitmqApi>,
    #[serde(default)]
    pub memcached: Option<Endpoint>,
    /// The address that may be on this host or on another.
    #[serde(default)]
    pub virtual_address: Option<String>,
    /// rsyslog runs here and writes its statistics.
    #[serde(default)]
    pub rsyslog: bool,
    /// systemd units.
    #[serde(default)]
    pub units: Vec<String>,
}

/// RabbitMQ's management API on loopback.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqApi {
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for RabbitmqApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "RabbitmqApi {{ port: {}, user: {:?}, .. }}",
            self.port, self.user
        )
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub address: String,
    pub port: u16,
}

/// Prometheus gives up after ten seconds by default; every question is over well before.
const TIMEOUT_MS: u32 = 4_000;
const TIMEOUT_SECONDS: u32 = 4;
const LIMIT_BYTES: u32 = 1024 * 1024;

const RABBITMQ: &str = "rabbitmq";
const MEMCACHED: &str = "memcached";
const VIRTUAL_ADDRESS: &str = "virtual_address";
const RSYSLOG: &str = "rsyslog";
const UNITS: &str = "units";

pub fn questions(config: &Config) -> BTreeMap<String, Probe> {
    let mut questions = BTreeMap::new();
    if let Some(api) = &config.rabbitmq {
        let probe = Probe::Http {
            address: "127.0.0.1".to_owned(),
            port: api.port,
            path: "/api/nodes?columns=name,running,partitions".to_owned(),
            user: Some(api.user.clone()),
            password: Some(api.password.clone()),
            timeout_ms: TIMEOUT_MS,
            limit_bytes: LIMIT_BYTES,
        };
        questions.insert(RABBITMQ.to_owned(), probe);
    }
    if let Some(Endpoint { address, port }) = config.memcached.clone() {
        let probe = Probe::Socket {
            to: SocketAddress::Tcp { address, port },
            send: "stats\r\nquit\r\n".to_owned(),
            timeout_ms: TIMEOUT_MS,
            limit_bytes: LIMIT_BYTES,
        };
        questions.insert(MEMCACHED.to_owned(), probe);
    }
    if let Some(address) = &config.virtual_address {
        let argv = ["ip", "-json", "address", "show", "to", address];
        let command = Command {
            argv: argv.map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            stdin: None,
            user: None,
            timeout_seconds: TIMEOUT_SECONDS,
            output_limit_bytes: LIMIT_BYTES,
        };
        questions.insert(VIRTUAL_ADDRESS.to_owned(), Probe::Command { command });
    }
    if config.rsyslog {
        let command = Command {
            argv: impstats::SHOW.map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            stdin: None,
            user: None,
            timeout_seconds: TIMEOUT_SECONDS,
            output_limit_bytes: LIMIT_BYTES,
        };
        questions.insert(RSYSLOG.to_owned(), Probe::Command { command });
    }
    if !config.units.is_empty() {
        let names = config.units.clone();
        questions.insert(UNITS.to_owned(), Probe::Units { names });
    }
    questions
}

/// Signs that could not be read, and why.
pub type Unread = BTreeMap<&'static str, String>;

/// The page that the answers make.
pub fn page(config: &Config, answers: &BTreeMap<String, ProbeResult>) -> (String, Unread) {
    let mut page = Page::default();
    let (mut read, mut unread): (Vec<(&str, bool)>, _) = (Vec::new(), Unread::new());
    let mut sign = |name: &'static str, shown: Result<(), String>| {
        read.push((name, shown.is_ok()));
        if let Err(why) = shown {
            unread.insert(name, why);
        }
    };
    if let Some(answer) = answers.get(RABBITMQ) {
        sign(RABBITMQ, rabbitmq(&mut page, answer));
    }
    if let Some(answer) = answers.get(MEMCACHED) {
        sign(MEMCACHED, memcached(&mut page, answer));
    }
    if let (Some(answer), Some(address)) = (answers.get(VIRTUAL_ADDRESS), &config.virtual_address) {
        sign(VIRTUAL_ADDRESS, virtual_address(&mut page, answer, address));
    }
    if let Some(answer) = answers.get(RSYSLOG) {
        sign(RSYSLOG, rsyslog_queue(&mut page, answer));
    }
    if let Some(answer) = answers.get(UNITS) {
        sign(UNITS, units(&mut page, answer));
    }
    let labels: Vec<[(&str, &str); 1]> = read.iter().map(|(name, _)| [("sign", *name)]).collect();
    let samples: Vec<(&[(&str, &str)], f64)> = labels
        .iter()
        .zip(&read)
        .map(|(labels, (_, ok))| (labels.as_slice(), number(*ok)))
        .collect();
    page.gauge(
        "nightshift_sign_read",
        "Whether the sign could be read.",
        &samples,
    );
    (page.into_text(), unread)
}

fn number(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[derive(Deserialize)]
struct Node {
    name: String,
    running: bool,
    #[serde(default)]
    partitions: Vec<String>,
}

/// This node's view of its cluster. Rules compare the views of all nodes.
fn rabbitmq(page: &mut Page, answer: &ProbeResult) -> Result<(), String> {
    let nodes = match answer {
        ProbeResult::Http { status: 200, body } => {
            serde_json::from_str::<Vec<Node>>(body).map_err(|error| error.to_string())
        }
        other => Err(format!("expected the list of nodes, found {other:?}")),
    };
    let up = number(nodes.is_ok());
    page.gauge(
        "nightshift_rabbitmq_up",
        "Whether the node's API answers on loopback.",
        &[(&[], up)],
    );
    let nodes = nodes?;
    let labels: Vec<[(&str, &str); 1]> = nodes
        .iter()
        .map(|node| [("node", node.name.as_str())])
        .collect();
    let running: Vec<(&[(&str, &str)], f64)> = labels
        .iter()
        .zip(&nodes)
        .map(|(labels, node)| (labels.as_slice(), number(node.running)))
        .collect();
    page.gauge(
        "nightshift_rabbitmq_node_running",
        "Whether this node sees the named node running.",
        &running,
    );
    let partitioned = nodes
        .iter()
        .filter(|node| !node.partitions.is_empty())
        .count();
    page.gauge(
        "nightshift_rabbitmq_partitions",
        "Nodes that report a partition, as this node sees it.",
        &[(&[], partitioned as f64)],
    );
    Ok(())
}

/// Name in memcached's statistics, metric, help.
const MEMCACHED_STATS: [(&str, &str, &str); 5] = [
    (
        "uptime",
        "nightshift_memcached_uptime_seconds",
        "Time since the server started.",
    ),
    (
        "curr_connections",
        "nightshift_memcached_connections",
        "Open connections.",
    ),
    (
        "max_connections",
        "nightshift_memcached_connections_limit",
        "Connections that it takes at most.",
    ),
    ("bytes", "nightshift_memcached_bytes", "Bytes in items."),
    (
        "evictions",
        "nightshift_memcached_evictions",
        "Items dropped before their time.",
    ),
];

fn memcached(page: &mut Page, answer: &ProbeResult) -> Result<(), String> {
    let stats: Option<BTreeMap<&str, &str>> = match answer {
        ProbeResult::Socket { answer } if answer.contains("STAT uptime ") => Some(
            answer
                .lines()
                .filter_map(|line| line.trim_end().strip_prefix("STAT ")?.split_once(' '))
                .collect(),
        ),
        _ => None,
    };
    page.gauge(
        "nightshift_memcached_up",
        "Whether the server answers.",
        &[(&[], number(stats.is_some()))],
    );
    let stats = stats.ok_or_else(|| format!("expected statistics, found {answer:?}"))?;
    for (name, metric, help) in MEMCACHED_STATS {
        let value = stats.get(name).and_then(|text| text.parse::<f64>().ok());
        if let Some(value) = value {
            page.gauge(metric, help, &[(&[], value)]);
        }
    }
    Ok(())
}

fn virtual_address(page: &mut Page, answer: &ProbeResult, address: &str) -> Result<(), String> {
    let interfaces: Vec<serde_json::Value> = match answer {
        ProbeResult::Command { output } if output.ok() && !output.truncated => {
            serde_json::from_str(&output.stdout).map_err(|error| error.to_string())?
        }
        other => return Err(format!("expected interfaces, found {other:?}")),
    };
    // `ip` leaves an empty object for interfaces that have no matching address.
    let holds = interfaces.iter().any(|interface| {
        interface["addr_info"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|info| info["local"] == address)
    });
    let labels = [("address", address)];
    page.gauge(
        "nightshift_vip_holder",
        "Whether the virtual address is on this host.",
        &[(&labels, number(holds))],
    );
    Ok(())
}

fn rsyslog_queue(page: &mut Page, answer: &ProbeResult) -> Result<(), String> {
    let queue = match answer {
        ProbeResult::Command { output } if output.ok() && !output.truncated => {
            impstats::parse(&output.stdout)?
        }
        other => return Err(format!("expected statistics, found {other:?}")),
    };
    for (metric, help, lines) in [
        (
            "nightshift_rsyslog_queue_lines",
            "Lines that wait, in memory and on the disk.",
            queue.size,
        ),
        (
            "nightshift_rsyslog_delivered_lines",
            "Lines that a server took since rsyslog was started.",
            queue.delivered,
        ),
        (
            "nightshift_rsyslog_discarded_lines",
            "Lines that were lost since rsyslog was started, because a queue stayed full.",
            queue.discarded,
        ),
    ] {
        page.gauge(metric, help, &[(&[], lines as f64)]);
    }
    Ok(())
}

fn units(page: &mut Page, answer: &ProbeResult) -> Result<(), String> {
    let ProbeResult::Units { properties } = answer else {
        return Err(format!("expected units, found {answer:?}"));
    };
    let state = |unit: &str| {
        properties
            .get(unit)
            .and_then(|p| p.get("ActiveState"))
            .map(String::as_str)
    };
    let labels: Vec<[(&str, &str); 1]> = properties
        .keys()
        .map(|unit| [("unit", unit.as_str())])
        .collect();
    for (metric, help, wanted) in [
        (
            "nightshift_unit_active",
            "Whether the unit is active.",
            "active",
        ),
        (
            "nightshift_unit_failed",
            "Whether the unit has failed.",
            "failed",
        ),
    ] {
        let samples: Vec<(&[(&str, &str)], f64)> = labels
            .iter()
            .filter_map(|labels| Some((labels.as_slice(), number(state(labels[0].1)? == wanted))))
            .collect();
        page.gauge(metric, help, &samples);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CommandOutput, Exit};

    fn config() -> Config {
        serde_json::from_str(
            r#"{"listen": "127.0.0.1:0", "rabbitmq": {"port": 15672, "user": "u", "password": "hush"},
                "memcached": {"address": "10.77.0.11", "port": 11211}, "virtual_address": "10.77.0.100",
                "rsyslog": true, "units": ["mariadb.service"]}"#,
        )
        .expect("a configuration")
    }

    fn command(stdout: &str) -> ProbeResult {
        ProbeResult::Command {
            output: CommandOutput {
                exit: Exit::Code(0),
                stdout: stdout.to_owned(),
                stderr: String::new(),
                truncated: false,
                took_ms: 3,
            },
        }
    }

    #[test]
    fn a_healthy_host_shows_all_signs() {
        let unit: BTreeMap<_, _> = [("ActiveState".to_owned(), "failed".to_owned())].into();
        let answers = BTreeMap::from([
            (
                RABBITMQ.to_owned(),
                ProbeResult::Http {
                    status: 200,
                    body: r#"[{"name":"rabbit@ctl1","running":true,"partitions":["rabbit@ctl3"]},
                              {"name":"rabbit@ctl3","running":false}]"#
                        .to_owned(),
                },
            ),
            (
                MEMCACHED.to_owned(),
                ProbeResult::Socket {
                    answer: "STAT uptime 7\r\nSTAT curr_connections 2\r\nEND\r\n".to_owned(),
                },
            ),
            (
                VIRTUAL_ADDRESS.to_owned(),
                command(r#"[{},{"ifname":"eth0","addr_info":[{"local":"10.77.0.100"}]}]"#),
            ),
            (
                RSYSLOG.to_owned(),
                command(include_str!(
                    "../../probe/captured/rsyslog-statistics-no-server.txt"
                )),
            ),
            (
                UNITS.to_owned(),
                ProbeResult::Units {
                    properties: [("mariadb.service".to_owned(), unit)].into(),
                },
            ),
        ]);
        let (page, _) = page(&config(), &answers);
        for line in [
            "nightshift_rabbitmq_up 1",
            "nightshift_rabbitmq_node_running{node=\"rabbit@ctl1\"} 1",
            "nightshift_rabbitmq_node_running{node=\"rabbit@ctl3\"} 0",
            "nightshift_rabbitmq_partitions 1",
            "nightshift_memcached_up 1",
            "nightshift_memcached_uptime_seconds 7",
            "nightshift_vip_holder{address=\"10.77.0.100\"} 1",
            "nightshift_rsyslog_queue_lines 3000",
            "nightshift_rsyslog_delivered_lines 2899",
            "nightshift_rsyslog_discarded_lines 0",
            "nightshift_unit_active{unit=\"mariadb.service\"} 0",
            "nightshift_unit_failed{unit=\"mariadb.service\"} 1",
            "nightshift_sign_read{sign=\"units\"} 1",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in\n{page}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_said_so() {
        let failed = || ProbeResult::Failed {
            why: "timed out".to_owned(),
        };
        let answers = questions(&config())
            .into_keys()
            .map(|name| (name, failed()))
            .collect();
        let (page, _) = page(&config(), &answers);
        for line in [
            "nightshift_rabbitmq_up 0",
            "nightshift_memcached_up 0",
            "nightshift_sign_read{sign=\"virtual_address\"} 0",
            "nightshift_sign_read{sign=\"rsyslog\"} 0",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in\n{page}"
            );
        }
        for metric in [
            "nightshift_vip_holder",
            "nightshift_rsyslog",
            "nightshift_rabbitmq_partitions",
            "nightshift_unit_active",
        ] {
            assert!(!page.contains(metric), "{metric} must be absent in\n{page}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", config()).contains("hush"));
    }
}
