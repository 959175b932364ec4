//! HAProxy, asked on its local socket, its monitor port, and by its own check of its configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::{self, Entry, LIST_LIMIT_BYTES, LOCAL_TIMEOUT_MS, OUTPUT_LIMIT_BYTES};
use crate::wire::{self, ProbeResult, SocketAddress};

pub const INFO: &str = "haproxy.info";
pub const SERVERS: &str = "haproxy.servers";
pub const MONITOR: &str = "haproxy.monitor";
pub const CONFIG_CHECK: &str = "haproxy.config_check";

const SOCKET: &str = "/run/haproxy/admin.sock";
const MONITOR_PORT: u16 = 61313;
const CONFIG_CHECK_TIMEOUT_SECONDS: u32 = 15;

pub static PROBES: &[Entry] = &[
    Entry {
        name: INFO,
        service: Some("haproxy"),
        request: |_| socket("show info\n", OUTPUT_LIMIT_BYTES),
        parse: |result| table::value(parse_info(result)),
    },
    Entry {
        name: SERVERS,
        service: Some("haproxy"),
        request: |_| socket("show stat\n", LIST_LIMIT_BYTES),
        parse: |result| table::value(parse_servers(result)),
    },
    Entry {
        name: MONITOR,
        service: Some("haproxy"),
        request: |context| {
            table::http(
                context.address,
                context.port("monitor_port", MONITOR_PORT),
                "/",
            )
        },
        parse: |result| table::value(table::answered(result).map(|(status, _)| status == 200)),
    },
    Entry {
        name: CONFIG_CHECK,
        service: Some("haproxy"),
        request: |_| {
            table::command(
                &["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"],
                CONFIG_CHECK_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_config_check(result)),
    },
];

fn socket(send: &str, limit_bytes: u32) -> wire::Probe {
    wire::Probe::Socket {
        to: SocketAddress::Unix {
            path: SOCKET.to_owned(),
        },
        send: send.to_owned(),
        timeout_ms: LOCAL_TIMEOUT_MS,
        limit_bytes,
    }
}

/// [`INFO`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub curr_conns: u64,
    /// It finishes what it has and takes nothing new.
    pub stopping: bool,
}

pub fn parse_info(result: &ProbeResult) -> Result<Info, String> {
    let fields: BTreeMap<&str, &str> = table::spoken(result)?
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    let text = |name: &str| {
        fields
            .get(name)
            .copied()
            .ok_or_else(|| format!("expected {name}; it is not in the answer"))
    };
    let number = |name: &str| {
        let value = text(name)?;
        value
            .parse::<u64>()
            .map_err(|_| format!("{name}: expected a number; found {value:?}"))
    };
    Ok(Info {
        version: text("Version")?.to_owned(),
        pid: u32::try_from(number("Pid")?).map_err(|_| "Pid: out of range".to_owned())?,
        uptime_seconds: number("Uptime_sec")?,
        curr_conns: number("CurrConns")?,
        stopping: number("Stopping")? != 0,
    })
}

/// [`SERVERS`]: one line of HAProxy's statistics about a server or a whole back end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub proxy: String,
    /// `BACKEND` and `FRONTEND` stand for the whole.
    pub server: String,
    /// For example `UP`, `DOWN`, `MAINT`, `no check`.
    pub status: String,
    /// For example `L4OK`; empty for a whole.
    pub check_status: String,
    /// Seconds since the last change of status.
    pub last_change_seconds: Option<u64>,
    /// Used only when the others are down.
    pub backup: bool,
}

/// The header of `show stat`, which names the columns.
const HEADER: &str = "# ";

pub fn parse_servers(result: &ProbeResult) -> Result<Vec<Server>, String> {
    let mut lines = table::spoken(result)?.lines();
    let header = lines
        .next()
        .and_then(|line| line.strip_prefix(HEADER))
        .ok_or("expected the header of the statistics; it is not there")?;
    let columns: Vec<&str> = header.split(',').collect();
    let column = |name: &str| {
        columns
            .iter()
            .position(|column| *column == name)
            .ok_or_else(|| format!("expected a column {name}; it is not there"))
    };
    let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
    let (check, change, backup) = (column("check_status")?, column("lastchg")?, column("bck")?);
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let field = |at: usize| {
                fields
                    .get(at)
                    .copied()
                    .ok_or_else(|| format!("expected {} columns; found {line:?}", columns.len()))
            };
            Ok(Server {
                proxy: field(proxy)?.to_owned(),
                server: field(server)?.to_owned(),
                status: field(status)?.to_owned(),
                check_status: field(check)?.to_owned(),
                last_change_seconds: field(change)?.parse().ok(),
                backup: field(backup)? == "1",
            })
        })
        .collect()
}

/// [`CONFIG_CHECK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigCheck {
    pub valid: bool,
    /// What the check says last, which is its reason when it fails.
    pub message: String,
}

pub fn parse_config_check(result: &ProbeResult) -> Result<ConfigCheck, String> {
    let (code, output) = table::ended(result)?;
    let said = format!("{}\n{}", output.stdout, output.stderr);
    Ok(ConfigCheck {
        valid: code == 0,
        message: table::last_line(&said).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed};

    fn spoken(answer: &str) -> ProbeResult {
        ProbeResult::Socket {
            answer: answer.to_owned(),
        }
    }

    #[test]
    fn info_and_servers() {
        let info = parse_info(&spoken(include_str!("captured/haproxy-info.txt"))).unwrap();
        assert!(info.version.starts_with("2.6."), "{info:?}");
        assert!(!info.stopping);
        let servers = parse_servers(&spoken(include_str!("captured/haproxy-stat.csv"))).unwrap();
        let mariadb: Vec<_> = servers
            .iter()
            .filter(|s| s.proxy == "mariadb" && s.server.starts_with("ctl"))
            .collect();
        let backups: Vec<bool> = mariadb.iter().map(|server| server.backup).collect();
        assert_eq!(backups, [false, true, true]);
        assert!(
            servers
                .iter()
                .any(|s| s.proxy == "mariadb" && s.server == "BACKEND")
        );
        assert!(parse_servers(&spoken("Unknown command\n")).is_err());
        assert!(parse_info(&spoken("")).is_err());
        assert!(parse_info(&failed()).is_err());
    }

    #[test]
    fn a_configuration_is_valid_or_says_why_not() {
        assert!(
            parse_config_check(&exited(0, "Configuration file is valid\n", ""))
                .unwrap()
                .valid
        );
        let broken = "[ALERT]    (1) : config : Error(s) found in configuration file : /etc/haproxy/haproxy.cfg\n[ALERT]    (1) : config : Fatal errors found in configuration.\n";
        let check = parse_config_check(&exited(1, "", broken)).unwrap();
        assert!(!check.valid && check.message.contains("Fatal errors"));
    }
}
