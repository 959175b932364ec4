//! MariaDB, alone or as a Galera cluster, asked through its local socket, its files and its processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::{self, Entry, OUTPUT_LIMIT_BYTES};
use crate::wire::{self, ProbeResult};

pub const STATUS: &str = "galera.status";
pub const GRASTATE: &str = "galera.grastate";
pub const GVWSTATE: &str = "galera.gvwstate";
pub const RECOVERED: &str = "galera.recovered";
pub const PROCESSES: &str = "galera.processes";
pub const SST_MARKER: &str = "galera.sst_marker";
pub const BOOTSTRAP_LEFTOVERS: &str = "galera.bootstrap_leftovers";
pub const BOOTSTRAP_ENVIRONMENT: &str = "galera.bootstrap_environment";
pub const BOOTSTRAP_FILE: &str = "galera.bootstrap_file";
pub const DATABASES: &str = "galera.databases";
pub const DATA_SIZE: &str = "galera.data_size";

const DATA: &str = "/var/lib/mysql";
/// `galera_new_cluster` puts the server's option here and takes it away when it ends; killed in between, it stays.
const NEW_CLUSTER_FILE: &str = "/run/mariadb-wsrep-new-cluster";
/// Longer than the client's own connect timeout, so that the client gets to say what is wrong.
const QUERY_TIMEOUT_SECONDS: u32 = 10;
/// Reading the sizes of a few hundred thousand tables' files.
const SIZE_TIMEOUT_SECONDS: u32 = 60;
/// Recovery replays InnoDB's log: minutes on a large database that crashed.
const RECOVER_TIMEOUT_SECONDS: u32 = 300;
/// `SHOW` works on a node outside the primary component, where `SELECT` is refused.
const STATUS_QUERY: &str = "SHOW GLOBAL STATUS WHERE Variable_name LIKE 'wsrep%' OR Variable_name = 'Uptime'; \
     SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'wsrep_on')";

pub static PROBES: &[Entry] = &[
    Entry {
        name: STATUS,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &[
                    "mariadb",
                    "--batch",
                    "--skip-column-names",
                    "--connect-timeout=5",
                    "--execute",
                    STATUS_QUERY,
                ],
                QUERY_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_status(result)),
    },
    Entry {
        name: GRASTATE,
        service: Some("mariadb"),
        request: |_| state_file("grastate.dat"),
        parse: |result| table::value(parse_grastate(result)),
    },
    Entry {
        name: GVWSTATE,
        service: Some("mariadb"),
        request: |_| state_file("gvwstate.dat"),
        parse: |result| table::value(parse_gvwstate(result)),
    },
    Entry {
        name: RECOVERED,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &["galera_recovery"],
                RECOVER_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_recovered(result)),
    },
    Entry {
        name: PROCESSES,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &["ps", "-eo", "pid=,etimes=,comm=,args=", "-ww"],
                QUERY_TIMEOUT_SECONDS,
                table::LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_processes(result)),
    },
    Entry {
        name: SST_MARKER,
        service: Some("mariadb"),
        request: |_| state_file("sst_in_progress"),
        parse: |result| table::value(table::file(result).map(|content| content.is_some())),
    },
    Entry {
        name: BOOTSTRAP_LEFTOVERS,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &["my_print_defaults", "--mysqld"],
                QUERY_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_bootstrap_options(result)),
    },
    Entry {
        name: BOOTSTRAP_ENVIRONMENT,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &["systemctl", "show-environment"],
                QUERY_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_bootstrap_environment(result)),
    },
    Entry {
        name: BOOTSTRAP_FILE,
        service: Some("mariadb"),
        request: |_| wire::Probe::File {
            path: NEW_CLUSTER_FILE.to_owned(),
            limit_bytes: OUTPUT_LIMIT_BYTES,
        },
        parse: |result| table::value(parse_bootstrap_file(result)),
    },
    Entry {
        name: DATABASES,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &[
                    "find",
                    DATA,
                    "-mindepth",
                    "1",
                    "-maxdepth",
                    "1",
                    "-type",
                    "d",
                    "-printf",
                    "%f\\n",
                ],
                QUERY_TIMEOUT_SECONDS,
                table::LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_databases(result)),
    },
    Entry {
        name: DATA_SIZE,
        service: Some("mariadb"),
        request: |_| {
            table::command(
                &["du", "--summarize", "--block-size=1", DATA],
                SIZE_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_data_size(result)),
    },
];

fn state_file(name: &str) -> wire::Probe {
    wire::Probe::File {
        path: format!("{DATA}/{name}"),
        limit_bytes: OUTPUT_LIMIT_BYTES,
    }
}

/// [`STATUS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "server", rename_all = "snake_case")]
pub enum Status {
    /// Nothing listens on the server's socket: it is not running, or not that far yet.
    NotAnswering {
        error: String,
    },
    Answering(Server),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub version: String,
    pub uptime_seconds: u64,
    /// `None` when the server runs without replication (`wsrep_on=OFF`).
    pub wsrep: Option<Wsrep>,
}

/// The node's own view of its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wsrep {
    pub cluster_status: ClusterStatus,
    pub local_state: LocalState,
    pub ready: bool,
    pub connected: bool,
    /// Members of the component that this node is in, itself included.
    pub cluster_size: u32,
    pub cluster_state_uuid: String,
    pub local_state_uuid: String,
    /// Grows with every change of membership; equal on all members of one component. `u64::MAX` outside a component.
    pub cluster_conf_id: u64,
    /// -1 when unknown to the node.
    pub last_committed: i64,
    pub recv_queue: u64,
    /// Share of time that replication was paused since the last status reset, 0 to 1.
    pub flow_control_paused: f64,
    pub desync_count: u32,
    pub incoming_addresses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterStatus {
    Primary,
    NonPrimary,
    Disconnected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalState {
    /// Outside a primary component.
    Undefined,
    Joining,
    /// Donor of a state transfer, or desynced by hand.
    Donor,
    Joined,
    Synced,
    /// The node voted inconsistent, or the transfer failed.
    Error,
}

/// Client errors that mean that nothing listens on the socket (2002: no socket file or refused).
const NOT_LISTENING: &str = "ERROR 2002 (HY000)";

pub fn parse_status(result: &ProbeResult) -> Result<Status, String> {
    if let ProbeResult::Command { output } = result
        && output.exit == wire::Exit::NotFound
    {
        return Ok(Status::NotAnswering {
            error: "the client is not installed".to_owned(),
        });
    }
    let (code, output) = table::ended(result)?;
    if code != 0 {
        let error = table::last_line(&output.stderr).to_owned();
        return if error.starts_with(NOT_LISTENING) {
            Ok(Status::NotAnswering { error })
        } else {
            Err(format!(
                "expected the status; found exit status {code}: {error}"
            ))
        };
    }
    let fields = Fields::tabbed(&output.stdout);
    let wsrep = match fields.text("wsrep_on")? {
        "ON" => Some(parse_wsrep(&fields)?),
        "OFF" => None,
        other => return Err(format!("wsrep_on: expected ON or OFF; found {other:?}")),
    };
    Ok(Status::Answering(Server {
        version: fields.text("version")?.to_owned(),
        uptime_seconds: fields.number("Uptime")?,
        wsrep,
    }))
}

fn parse_wsrep(fields: &Fields<'_>) -> Result<Wsrep, String> {
    Ok(Wsrep {
        cluster_status: match fields.text("wsrep_cluster_status")? {
            "Primary" => ClusterStatus::Primary,
            "non-Primary" => ClusterStatus::NonPrimary,
            "Disconnected" => ClusterStatus::Disconnected,
            other => return Err(format!("wsrep_cluster_status: unknown value {other:?}")),
        },
        local_state: match fields.number::<u8>("wsrep_local_state")? {
            0 => LocalState::Undefined,
            1 => LocalState::Joining,
            2 => LocalState::Donor,
            3 => LocalState::Joined,
            4 => LocalState::Synced,
            _ => LocalState::Error,
        },
        ready: fields.on("wsrep_ready")?,
        connected: fields.on("wsrep_connected")?,
        cluster_size: fields.number("wsrep_cluster_size")?,
        cluster_state_uuid: fields.text("wsrep_cluster_state_uuid")?.to_owned(),
        local_state_uuid: fields.text("wsrep_local_state_uuid")?.to_owned(),
        cluster_conf_id: fields.number("wsrep_cluster_conf_id")?,
        last_committed: fields.number("wsrep_last_committed")?,
        recv_queue: fields.number("wsrep_local_recv_queue")?,
        flow_control_paused: fields.number("wsrep_flow_control_paused")?,
        desync_count: fields.number("wsrep_desync_count")?,
        incoming_addresses: fields
            .text("wsrep_incoming_addresses")?
            .split(',')
            .filter(|address| !address.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

/// `name<separator>value` lines.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn tabbed(text: &'a str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once('\t'))
                .collect(),
        )
    }

    fn coloned(text: &'a str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.trim(), value.trim()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.0
            .get(name)
            .copied()
            .ok_or_else(|| format!("expected {name}; it is not in the answer"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|_| format!("{name}: expected a number; found {text:?}"))
    }

    fn on(&self, name: &str) -> Result<bool, String> {
        match self.text(name)? {
            "ON" => Ok(true),
            "OFF" => Ok(false),
            other => Err(format!("{name}: expected ON or OFF; found {other:?}")),
        }
    }
}

/// The identity of a state that never was in a cluster.
pub const ZERO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// [`GRASTATE`]: what the node last wrote about its place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grastate", rename_all = "snake_case")]
pub enum Grastate {
    /// Never started as a member of a cluster, or its data was removed.
    Missing,
    Present {
        uuid: String,
        /// -1: the node did not stop cleanly; its position must be recovered.
        seqno: i64,
        safe_to_bootstrap: bool,
    },
}

pub fn parse_grastate(result: &ProbeResult) -> Result<Grastate, String> {
    let Some(text) = table::file(result)? else {
        return Ok(Grastate::Missing);
    };
    let fields = Fields::coloned(text);
    Ok(Grastate::Present {
        uuid: checked_uuid(fields.text("uuid")?)?.to_owned(),
        seqno: fields.number("seqno")?,
        safe_to_bootstrap: match fields.text("safe_to_bootstrap")? {
            "0" => false,
            "1" => true,
            other => {
                return Err(format!(
                    "safe_to_bootstrap: expected 0 or 1; found {other:?}"
                ));
            }
        },
    })
}

/// [`GVWSTATE`]: the last primary component that this node was in, kept while it runs; with it on all members the
/// component forms again by itself (`pc.recovery`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gvwstate", rename_all = "snake_case")]
pub enum Gvwstate {
    Missing,
    Present { my_uuid: String, members: u32 },
}

pub fn parse_gvwstate(result: &ProbeResult) -> Result<Gvwstate, String> {
    let Some(text) = table::file(result)? else {
        return Ok(Gvwstate::Missing);
    };
    let fields = Fields::coloned(text);
    let members = text
        .lines()
        .filter(|line| line.starts_with("member:"))
        .count();
    Ok(Gvwstate::Present {
        my_uuid: checked_uuid(fields.text("my_uuid")?)?.to_owned(),
        members: u32::try_from(members).map_err(|_| "too many members".to_owned())?,
    })
}

/// [`RECOVERED`]: the position that the data itself proves. Ask only while no server runs on the host: it starts the
/// server's recovery, which takes the data's locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    pub uuid: String,
    pub seqno: i64,
}

pub fn parse_recovered(result: &ProbeResult) -> Result<Recovered, String> {
    let stdout = table::succeeded(result)?;
    let position = stdout
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--wsrep_start_position="))
        .ok_or_else(|| {
            format!(
                "expected --wsrep_start_position=UUID:SEQNO; found {:?}",
                stdout.trim()
            )
        })?;
    // A position may carry the domain and server id after a comma.
    let position = position
        .split_once(',')
        .map_or(position, |(galera, _)| galera);
    let (uuid, seqno) = position
        .split_once(':')
        .ok_or_else(|| format!("expected UUID:SEQNO; found {position:?}"))?;
    Ok(Recovered {
        uuid: checked_uuid(uuid)?.to_owned(),
        seqno: seqno
            .parse()
            .map_err(|_| format!("seqno: expected a number; found {seqno:?}"))?,
    })
}

fn checked_uuid(text: &str) -> Result<&str, String> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if hex && groups == [8, 4, 4, 4, 12] {
        Ok(text)
    } else {
        Err(format!("expected a UUID; found {text:?}"))
    }
}

/// [`PROCESSES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub servers: Vec<ServerProcess>,
    /// Programs of a state transfer, a backup or an installation that run now: not the moment to touch the data.
    pub transfers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProcess {
    pub pid: u32,
    pub running_seconds: u64,
    /// Started to form a new cluster.
    pub new_cluster: bool,
    /// Started only to learn its position.
    pub recovering: bool,
}

/// The kernel cuts names of processes at 15 bytes; these are compared as it shows them.
const TRANSFER_NAMES: [&str; 7] = [
    "wsrep_sst_rsync",
    "wsrep_sst_maria",
    "wsrep_sst_mysql",
    "wsrep_sst_backu",
    "mariabackup",
    "mariadb-backup",
    "mbstream",
];

pub fn parse_processes(result: &ProbeResult) -> Result<Processes, String> {
    let mut found = Processes::default();
    for line in table::succeeded(result)?.lines() {
        let mut words = line.split_whitespace();
        let (Some(pid), Some(seconds), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!(
                "expected PID SECONDS NAME ARGUMENTS; found {line:?}"
            ));
        };
        if TRANSFER_NAMES.contains(&name) {
            found.transfers.push(name.to_owned());
        }
        if name == "mariadbd" || name == "mysqld" {
            let options: Vec<String> = words.map(|word| word.replace('_', "-")).collect();
            let has = |option: &str| options.iter().any(|word| word == option);
            // The package's installation lets the server write its first tables and end.
            if has("--bootstrap") {
                found.transfers.push(format!("{name} --bootstrap"));
                continue;
            }
            let number = |text: &str| {
                text.parse::<u64>()
                    .map_err(|_| format!("expected a number; found {text:?}"))
            };
            found.servers.push(ServerProcess {
                pid: u32::try_from(number(pid)?).map_err(|_| format!("not a PID: {pid}"))?,
                running_seconds: number(seconds)?,
                new_cluster: has("--wsrep-new-cluster"),
                recovering: has("--wsrep-recover"),
            });
        }
    }
    Ok(found)
}

/// [`BOOTSTRAP_LEFTOVERS`], [`BOOTSTRAP_ENVIRONMENT`] and [`BOOTSTRAP_FILE`]: what would make the next ordinary start form a new cluster.
/// Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapLeftovers {
    pub found: Vec<String>,
}

pub fn parse_bootstrap_options(result: &ProbeResult) -> Result<BootstrapLeftovers, String> {
    let found = table::succeeded(result)?
        .lines()
        .filter_map(|line| {
            let (option, value) = line.trim().split_once('=').unwrap_or((line.trim(), ""));
            match option.trim_start_matches('-').replace('_', "-").as_str() {
                "wsrep-new-cluster" => Some("wsrep_new_cluster is set".to_owned()),
                // No other member named: the node would form a cluster of its own.
                "wsrep-cluster-address" if value.trim_end_matches('/') == "gcomm:" => {
                    Some("wsrep_cluster_address names no member".to_owned())
                }
                "wsrep-provider-options" if value.to_ascii_lowercase().contains("pc.bootstrap") => {
                    Some("wsrep_provider_options has pc.bootstrap".to_owned())
                }
                _ => None,
            }
        })
        .collect();
    Ok(BootstrapLeftovers { found })
}

pub fn parse_bootstrap_environment(result: &ProbeResult) -> Result<BootstrapLeftovers, String> {
    let found = table::succeeded(result)?
        .lines()
        .filter(|line| {
            line.starts_with("_WSREP_NEW_CLUSTER=") || line.starts_with("BOOTSTRAP_ARGS=")
        })
        .filter(|line| !line.ends_with('='))
        .map(|line| format!("systemd's environment has {line}"))
        .collect();
    Ok(BootstrapLeftovers { found })
}

/// [`DATA_SIZE`], in bytes: what a full state transfer from this member would bring.
pub fn parse_data_size(result: &ProbeResult) -> Result<u64, String> {
    let stdout = table::succeeded(result)?;
    let bytes = stdout.split_whitespace().next().unwrap_or_default();
    bytes
        .parse()
        .map_err(|_| format!("expected BYTES PATH; found {:?}", stdout.trim()))
}

pub fn parse_bootstrap_file(result: &ProbeResult) -> Result<BootstrapLeftovers, String> {
    let found = table::file(result)?
        .filter(|content| !content.trim().is_empty())
        .map(|content| format!("{NEW_CLUSTER_FILE} has {}", content.trim()));
    Ok(BootstrapLeftovers {
        found: found.into_iter().collect(),
    })
}

/// Directories of the data that the server makes for itself.
const OWN_DIRECTORIES: [&str; 5] = ["mysql", "performance_schema", "sys", "lost+found", ".sst"];

/// [`DATABASES`]: databases that somebody made, by their directories; works while no server runs.
pub fn parse_databases(result: &ProbeResult) -> Result<Vec<String>, String> {
    let (code, output) = table::ended(result)?;
    if code != 0 && output.stderr.contains("No such file or directory") {
        return Ok(Vec::new());
    }
    let mut databases: Vec<String> = table::succeeded(result)?
        .lines()
        .filter(|name| !OWN_DIRECTORIES.contains(name) && !name.starts_with('#'))
        .map(str::to_owned)
        .collect();
    databases.sort();
    Ok(databases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::{exited, failed, file};

    fn wsrep(captured: &str) -> Wsrep {
        match parse_status(&exited(0, captured, "")) {
            Ok(Status::Answering(Server {
                wsrep: Some(wsrep), ..
            })) => wsrep,
            other => panic!("expected a member of a cluster, found {other:?}"),
        }
    }

    #[test]
    fn a_synced_member_and_one_that_was_cut_off() {
        let synced = wsrep(include_str!("captured/galera-status-synced.tsv"));
        assert_eq!(synced.cluster_status, ClusterStatus::Primary);
        assert_eq!(synced.local_state, LocalState::Synced);
        assert_eq!(
            (
                synced.cluster_size,
                synced.last_committed,
                synced.cluster_conf_id
            ),
            (3, 67, 67)
        );
        assert_eq!(synced.incoming_addresses.len(), 3);
        let cut_off = wsrep(include_str!("captured/galera-status-non-primary.tsv"));
        assert_eq!(cut_off.cluster_status, ClusterStatus::NonPrimary);
        assert_eq!(cut_off.local_state, LocalState::Undefined);
        assert!(!cut_off.ready);
        assert_eq!(cut_off.cluster_conf_id, u64::MAX);
        assert_eq!(cut_off.cluster_state_uuid, synced.cluster_state_uuid);
    }

    #[test]
    fn a_server_that_is_down_is_known_to_be_down_and_everything_else_is_unknown() {
        let down = "ERROR 2002 (HY000): Can't connect to local server through socket '/run/mysqld/mysqld.sock' (2)";
        let status = parse_status(&exited(1, "", down));
        assert_eq!(
            status,
            Ok(Status::NotAnswering {
                error: down.to_owned()
            })
        );
        assert!(parse_status(&exited(1, "", "ERROR 1040 (08004): Too many connections")).is_err());
        assert!(parse_status(&exited(0, "Uptime\t5\n", "")).is_err());
        assert_eq!(
            parse_status(&failed()),
            Err("connection refused".to_owned())
        );
    }

    #[test]
    fn states_on_disk() {
        let running = parse_grastate(&file(Some(include_str!("captured/grastate-running.dat"))));
        let uuid = "a1ae27c3-e6b3-11f1-a8b1-bb7731a0226d".to_owned();
        let present = |seqno, safe_to_bootstrap| Grastate::Present {
            uuid: uuid.clone(),
            seqno,
            safe_to_bootstrap,
        };
        assert_eq!(running, Ok(present(-1, false)));
        let stopped = parse_grastate(&file(Some(include_str!("captured/grastate-stopped.dat"))));
        assert_eq!(stopped, Ok(present(69, false)));
        assert_eq!(parse_grastate(&file(None)), Ok(Grastate::Missing));
        assert!(parse_grastate(&file(Some("uuid: x\nseqno: 1\nsafe_to_bootstrap: 1\n"))).is_err());
        assert!(parse_grastate(&file(Some(""))).is_err());
        let view = parse_gvwstate(&file(Some(include_str!("captured/gvwstate.dat"))));
        assert!(
            matches!(view, Ok(Gvwstate::Present { members: 3, .. })),
            "{view:?}"
        );
        let recovered =
            parse_recovered(&exited(0, include_str!("captured/galera-recovery.txt"), ""));
        assert_eq!(
            recovered,
            Ok(Recovered {
                uuid: uuid.clone(),
                seqno: 69
            })
        );
        assert!(parse_recovered(&exited(0, "\n", "")).is_err());
        assert!(parse_recovered(&exited(1, "", "Unable to lock ./ibdata1")).is_err());
    }

    #[test]
    fn processes_and_transfers() {
        let running =
            parse_processes(&exited(0, include_str!("captured/ps-galera.txt"), "")).unwrap();
        assert_eq!(running.servers.len(), 1);
        assert!(running.servers[0].new_cluster, "it founded the cluster");
        assert!(running.transfers.is_empty());
        let joining = "  7  3 mariadbd /usr/sbin/mariadbd\n  8  2 wsrep_sst_rsync /bin/bash /usr/bin/wsrep_sst_rsync --role joiner\n";
        let joining = parse_processes(&exited(0, joining, "")).unwrap();
        assert_eq!(joining.transfers, ["wsrep_sst_rsync"]);
        let recovering = parse_processes(&exited(
            0,
            "9 1 mariadbd /usr/sbin/mariadbd --wsrep_recover\n",
            "",
        ))
        .unwrap();
        assert!(recovering.servers[0].recovering);
        let installing =
            "9 1 mariadbd /usr/sbin/mariadbd --datadir=/var/lib/mysql --bootstrap --skip-grant\n";
        let installing = parse_processes(&exited(0, installing, "")).unwrap();
        assert_eq!(
            (installing.servers.len(), installing.transfers.len()),
            (0, 1)
        );
    }

    #[test]
    fn leftovers_of_a_bootstrap() {
        let clean = parse_bootstrap_options(&exited(
            0,
            include_str!("captured/my_print_defaults.txt"),
            "",
        ));
        assert_eq!(clean, Ok(BootstrapLeftovers::default()));
        for option in [
            "--wsrep_cluster_address=gcomm://",
            "--wsrep-new-cluster",
            "--wsrep_provider_options=gcache.size=1;pc.bootstrap=1",
        ] {
            let found = parse_bootstrap_options(&exited(0, option, ""))
                .unwrap()
                .found;
            assert_eq!(found.len(), 1, "{option}");
        }
        let clean = parse_bootstrap_environment(&exited(
            0,
            include_str!("captured/show-environment.txt"),
            "",
        ));
        assert_eq!(clean, Ok(BootstrapLeftovers::default()));
        let left =
            parse_bootstrap_environment(&exited(0, "_WSREP_NEW_CLUSTER=--wsrep-new-cluster\n", ""))
                .unwrap();
        assert_eq!(left.found.len(), 1);
        assert!(parse_bootstrap_file(&file(None)).unwrap().found.is_empty());
        assert_eq!(
            parse_bootstrap_file(&file(Some("_WSREP_NEW_CLUSTER='--wsrep-new-cluster'\n")))
                .unwrap()
                .found
                .len(),
            1
        );
    }

    #[test]
    fn databases_that_somebody_made() {
        let found = parse_databases(&exited(
            0,
            "mysql\nkeystone\nsys\n#innodb_redo\nperformance_schema\n",
            "",
        ));
        assert_eq!(found, Ok(vec!["keystone".to_owned()]));
        let missing = "find: '/var/lib/mysql': No such file or directory";
        assert_eq!(parse_databases(&exited(1, "", missing)), Ok(vec![]));
        assert!(
            parse_databases(&exited(1, "", "find: '/var/lib/mysql': Permission denied")).is_err()
        );
    }
}
