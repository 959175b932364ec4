//! Icinga 2, asked on its API as the site's own user, with the certificates of its cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Heard, ProbeContext,
    table::{self, Entry, LIST_LIMIT_BYTES, OUTPUT_LIMIT_BYTES},
};
use crate::wire::{self, ProbeResult, TcpTarget, secret_reference};

pub const STATUS: &str = "icinga2.status";
pub const ZONES: &str = "icinga2.zones";
pub const AUTHORITY: &str = "icinga2.authority";
pub const LATE: &str = "icinga2.late";
pub const CERTIFICATE: &str = "icinga2.certificate";
pub const CONFIG_CHECK: &str = "icinga2.config_check";
pub const PEERS_TCP: &str = "icinga2.peers_tcp";

/// The API user of the bot and of the agent; the service's template gives it its rights.
pub const API_USER: &str = "nightshift";
const API_SECRET: &str = "icinga2.nightshift";
const PORT: u16 = 5665;
const CERTIFICATES: &str = "/var/lib/icinga2/certs";

/// curl gives up by itself first, and so says why.
const CURL_SECONDS: &str = "8";
const CURL_TIMEOUT_SECONDS: u32 = 12;
const VERIFY_TIMEOUT_SECONDS: u32 = 10;
/// It loads the whole configuration: a second for some thousand objects.
const CONFIG_CHECK_TIMEOUT_SECONDS: u32 = 60;
const PEER_TIMEOUT_MS: u32 = 2_000;

/// A check is late when it was last made more than two of its intervals ago (Icinga's documentation, "Late Check Results").
const LATE_FILTER: &str = r#"{"filter":"service.enable_active_checks && service.last_check < get_time() - 2 * service.check_interval","attrs":["last_check"]}"#;
/// Names of late checks that are kept; the rest is a number.
const LATE_NAMED: usize = 10;

pub static PROBES: &[Entry] = &[
    Entry {
        name: STATUS,
        service: Some("icinga2"),
        request: |context| api(context, "/v1/status", None, OUTPUT_LIMIT_BYTES),
        parse: |result| table::value(heard(result, read_status)),
    },
    Entry {
        name: ZONES,
        service: Some("icinga2"),
        request: |context| api(context, "/v1/status/ApiListener", None, OUTPUT_LIMIT_BYTES),
        parse: |result| table::value(heard(result, read_zones)),
    },
    Entry {
        name: AUTHORITY,
        service: Some("icinga2"),
        request: |context| {
            api(
                context,
                "/v1/objects/hosts?attrs=paused",
                None,
                LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(heard(result, read_authority)),
    },
    Entry {
        name: LATE,
        service: Some("icinga2"),
        request: |context| {
            api(
                context,
                "/v1/objects/services",
                Some(LATE_FILTER),
                LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(heard(result, read_late)),
    },
    Entry {
        name: CERTIFICATE,
        service: Some("icinga2"),
        request: verify_certificate,
        parse: |result| table::value(parse_certificate(result)),
    },
    Entry {
        name: CONFIG_CHECK,
        service: Some("icinga2"),
        request: |_| {
            table::command(
                &["icinga2", "daemon", "--validate"],
                CONFIG_CHECK_TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_config_check(result)),
    },
    Entry {
        name: PEERS_TCP,
        service: Some("icinga2"),
        request: |context| wire::Probe::Tcp {
            targets: peers(context),
            timeout_ms: PEER_TIMEOUT_MS,
        },
        parse: |result| table::value(parse_peers(result)),
    },
];

/// One question to the daemon of this very host. The password comes on standard input, never in an argument. With a filter it is
/// still a question: the API wants it sent as a `POST` that stands for a `GET`.
fn api(
    context: &ProbeContext<'_>,
    path: &str,
    filter: Option<&str>,
    limit_bytes: u32,
) -> wire::Probe {
    let (host, port) = (context.host, context.port("port", PORT));
    let authority = format!("{CERTIFICATES}/ca.crt");
    let resolve = format!("{host}:{port}:{}", context.address);
    let url = format!("https://{host}:{port}{path}");
    let mut argv = vec![
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        CURL_SECONDS,
        "--config",
        "-",
        "--cacert",
        &authority,
        "--resolve",
        &resolve,
    ];
    if let Some(filter) = filter {
        argv.extend(["--header", "Accept: application/json"]);
        argv.extend(["--header", "X-HTTP-Method-Override: GET", "--data", filter]);
    }
    argv.push(&url);
    let mut probe = table::command(&argv, CURL_TIMEOUT_SECONDS, limit_bytes);
    if let wire::Probe::Command { command } = &mut probe {
        let password = secret_reference(API_SECRET);
        command.stdin = Some(format!("user = \"{API_USER}:{password}\"\n"));
    }
    probe
}

/// Does the host's own certificate hold now, under its name, for the cluster's authority?
fn verify_certificate(context: &ProbeContext<'_>) -> wire::Probe {
    let authority = format!("{CERTIFICATES}/ca.crt");
    let certificate = format!("{CERTIFICATES}/{}.crt", context.host);
    table::command(
        &[
            "openssl",
            "verify",
            "-CAfile",
            &authority,
            "-purpose",
            "sslserver",
            "-verify_hostname",
            context.host.as_str(),
            &certificate,
        ],
        VERIFY_TIMEOUT_SECONDS,
        OUTPUT_LIMIT_BYTES,
    )
}

fn peers(context: &ProbeContext<'_>) -> Vec<TcpTarget> {
    let others = context
        .members
        .iter()
        .filter(|(host, _)| host != context.host);
    let target = |(_, address): &(_, String)| TcpTarget {
        address: address.clone(),
        port: context.port("port", PORT),
    };
    others.map(target).collect()
}

/// Exit codes of curl that mean: refused, no answer in time, closed without an answer.
const SILENT: [i32; 3] = [7, 28, 52];

/// Pure. A wrong certificate, a refused login and an answer that is not understood are no silence: they are unknown.
fn heard<T>(result: &ProbeResult, read: fn(&str) -> Result<T, String>) -> Result<Heard<T>, String> {
    let (code, output) = table::ended(result)?;
    let why = || table::last_line(&output.stderr).to_owned();
    match code {
        0 => read(&output.stdout).map(Heard::Answers),
        code if SILENT.contains(&code) => Ok(Heard::Silent { why: why() }),
        code => Err(format!("curl ended with {code}: {}", why())),
    }
}

/// Every answer of the API is a list of results.
#[derive(Deserialize)]
struct Results<T> {
    results: Vec<T>,
}

fn results<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    let read: Results<T> = serde_json::from_str(text)
        .map_err(|error| format!("expected a list of results: {error}"))?;
    Ok(read.results)
}

#[derive(Deserialize)]
struct Section {
    name: String,
    status: serde_json::Value,
}

/// The part of one section of the status that is needed.
fn section<T: DeserializeOwned>(sections: &[Section], name: &str, at: &str) -> Result<T, String> {
    let found = sections.iter().find(|section| section.name == name);
    let part = found.and_then(|section| section.status.pointer(at));
    let part = part.ok_or_else(|| format!("expected {at} of {name}; it is not in the answer"))?;
    T::deserialize(part).map_err(|error| format!("{name}: {error}"))
}

/// [`STATUS`]. Rates and latencies over the last minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node_name: String,
    pub version: String,
    pub uptime_seconds: f64,
    /// Checks of services that this daemon knows, made by whichever master.
    pub services: u64,
    pub active_service_checks_1min: f64,
    /// The longest time by which a check began later than planned.
    pub max_latency_seconds: f64,
    pub avg_latency_seconds: f64,
    /// Somebody may have switched checks off for the whole site.
    pub checks_enabled: bool,
}

fn read_status(text: &str) -> Result<Status, String> {
    #[derive(Deserialize)]
    struct App {
        node_name: String,
        version: String,
        enable_host_checks: bool,
        enable_service_checks: bool,
    }
    #[derive(Deserialize)]
    struct Cib {
        uptime: f64,
        active_service_checks_1min: f64,
        max_latency: f64,
        avg_latency: f64,
        num_services_ok: u64,
        num_services_warning: u64,
        num_services_critical: u64,
        num_services_unknown: u64,
        num_services_pending: u64,
    }
    let sections = results::<Section>(text)?;
    let app: App = section(&sections, "IcingaApplication", "/icingaapplication/app")?;
    let cib: Cib = section(&sections, "CIB", "")?;
    let states = [
        cib.num_services_ok,
        cib.num_services_warning,
        cib.num_services_critical,
        cib.num_services_unknown,
        cib.num_services_pending,
    ];
    Ok(Status {
        node_name: app.node_name,
        version: app.version,
        uptime_seconds: cib.uptime,
        services: states.iter().sum(),
        active_service_checks_1min: cib.active_service_checks_1min,
        max_latency_seconds: cib.max_latency,
        avg_latency_seconds: cib.avg_latency,
        checks_enabled: app.enable_host_checks && app.enable_service_checks,
    })
}

/// [`ZONES`]: the cluster as one endpoint sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zones {
    pub identity: String,
    pub connected: Vec<String>,
    pub not_connected: Vec<String>,
    /// Zones without any connection.
    pub zones_lost: Vec<String>,
    /// How far what an endpoint has not been told yet goes back; none that is told everything counts.
    pub log_lag_seconds: f64,
}

fn read_zones(text: &str) -> Result<Zones, String> {
    #[derive(Deserialize)]
    struct Api {
        identity: String,
        conn_endpoints: Vec<String>,
        not_conn_endpoints: Vec<String>,
        zones: BTreeMap<String, Zone>,
    }
    #[derive(Deserialize)]
    struct Zone {
        client_log_lag: f64,
        connected: bool,
    }
    let api: Api = section(&results(text)?, "ApiListener", "/api")?;
    let lost = api.zones.iter().filter(|(_, zone)| !zone.connected);
    let mut zones = Zones {
        identity: api.identity,
        connected: api.conn_endpoints,
        not_connected: api.not_conn_endpoints,
        zones_lost: lost.map(|(name, _)| name.clone()).collect(),
        log_lag_seconds: api
            .zones
            .values()
            .map(|zone| zone.client_log_lag)
            .fold(0.0, f64::max),
    };
    zones.connected.sort();
    zones.not_connected.sort();
    Ok(zones)
}

/// [`AUTHORITY`]: the hosts that this endpoint checks, and those that it leaves to others (`paused`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    pub checks: Vec<String>,
    pub leaves: Vec<String>,
}

fn read_authority(text: &str) -> Result<Authority, String> {
    #[derive(Deserialize)]
    struct Object {
        name: String,
        attrs: Attributes,
    }
    #[derive(Deserialize)]
    struct Attributes {
        paused: bool,
    }
    let (leaves, checks): (Vec<Object>, Vec<Object>) = results::<Object>(text)?
        .into_iter()
        .partition(|object| object.attrs.paused);
    let names = |objects: Vec<Object>| {
        let mut names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
        names.sort();
        names
    };
    Ok(Authority {
        checks: names(checks),
        leaves: names(leaves),
    })
}

/// [`LATE`]: checks of services that were not made for two of their intervals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    pub count: u64,
    /// Some of them, as `HOST!SERVICE`.
    pub some: Vec<String>,
}

fn read_late(text: &str) -> Result<Late, String> {
    #[derive(Deserialize)]
    struct Object {
        name: String,
    }
    let mut names: Vec<String> = results::<Object>(text)?
        .into_iter()
        .map(|object| object.name)
        .collect();
    names.sort();
    let count = names.len() as u64;
    names.truncate(LATE_NAMED);
    Ok(Late { count, some: names })
}

/// [`CERTIFICATE`], [`CONFIG_CHECK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Valid {
    pub valid: bool,
    /// Why it is not.
    pub message: String,
}

fn parse_certificate(result: &ProbeResult) -> Result<Valid, String> {
    let (code, output) = table::ended(result)?;
    let reason = output
        .stderr
        .lines()
        .find(|line| line.starts_with("error "));
    Ok(Valid {
        valid: code == 0,
        message: match code {
            0 => String::new(),
            _ => reason
                .unwrap_or_else(|| table::last_line(&output.stderr))
                .to_owned(),
        },
    })
}

/// It says what is wrong on standard output, and dies of some errors instead of ending with 1.
fn parse_config_check(result: &ProbeResult) -> Result<Valid, String> {
    let (code, output) = table::ended(result)?;
    let reason = output
        .stdout
        .lines()
        .find_map(|line| line.split_once("critical/"));
    Ok(Valid {
        valid: code == 0,
        message: match (code, reason) {
            (0, _) => String::new(),
            (_, Some((_, reason))) => reason.to_owned(),
            (_, None) => table::last_line(&output.stdout).to_owned(),
        },
    })
}

/// [`PEERS_TCP`]: can other members be reached on the cluster's port?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    pub open: u64,
    /// Address of a member → why not.
    pub closed: BTreeMap<String, String>,
}

/// Somebody is there, and nothing listens: the way is open.
pub const REFUSED: &str = "refused";

fn parse_peers(result: &ProbeResult) -> Result<Peers, String> {
    let ProbeResult::Tcp { answers } = result else {
        return Err(table::unexpected("TCP answers", result));
    };
    let (open, closed): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.open);
    let closed = closed.iter().map(|answer| {
        let why = answer.error.as_deref().unwrap_or("not open");
        (answer.target.address.clone(), why.to_owned())
    });
    Ok(Peers {
        open: open.len() as u64,
        closed: closed.collect(),
    })
}

#[cfg(test)]
#[path = "icinga2_tests.rs"]
mod tests;
