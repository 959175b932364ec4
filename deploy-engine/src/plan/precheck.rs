//! What must be so before anything is changed. Each check has a name, a verdict with its reason, and a remedy.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{HostSeen, SiteObserved, member::MemberView};
use crate::{
    model::{
        HostName, Model, PortUse, ServiceName,
        setting::{parse_prefix, same_network},
    },
    wire::{Command, Probe, ProbeResult, TcpTarget},
};

/// A host's clock may differ this much from the bot's, in seconds: certificates, tokens and logs bear it, clusters too.
const CLOCK_TOLERANCE_SECONDS: f64 = 1.0;
/// Downloads of a whole controller; where packages are kept until they are installed.
const PACKAGE_CACHE: (&str, u64) = ("/var/cache/apt", 500 * 1024 * 1024);
/// For files, the agent and its spool, and what else a change writes; less is as good as full.
const ROOM: [(&str, u64); 2] = [
    ("/etc", 16 * 1024 * 1024),
    ("/var/lib/nightshift", 16 * 1024 * 1024),
];
/// Names resolve from a file or a near server.
const RESOLVE_TIMEOUT_MS: u32 = 3000;
/// Somebody on the same network answers a connection within milliseconds.
const VIRTUAL_ADDRESS_TIMEOUT_MS: u32 = 700;
/// The release files of all package sources over a slow line.
const REPOSITORIES_SECONDS: u32 = 30;
/// Lines of a failed command's output that a person needs.
const OUTPUT_LINES: usize = 4;
/// The kernel cuts the names of processes.
const PROCESS_NAME_BYTES: usize = 15;

const REPOSITORIES: &str = "precheck repositories";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precheck {
    /// For example `ports`.
    pub name: String,
    pub host: HostName,
    /// `None`: about the host.
    pub service: Option<ServiceName>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    /// Worth knowing, no reason to refuse.
    Warn {
        why: String,
    },
    Fail {
        why: String,
        remedy: String,
    },
    /// It could not be learned, so it refuses.
    Unknown {
        why: String,
        remedy: String,
    },
}

impl Precheck {
    /// Reason and remedy when it refuses.
    pub fn failure(&self) -> Option<(String, String)> {
        match &self.verdict {
            Verdict::Pass | Verdict::Warn { .. } => None,
            Verdict::Fail { why, remedy } | Verdict::Unknown { why, remedy } => {
                Some((format!("{}: {why}", self.name), remedy.clone()))
            }
        }
    }
}

fn fail(why: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict::Fail {
        why: why.into(),
        remedy: remedy.into(),
    }
}

fn unknown(why: impl Into<String>) -> Verdict {
    Verdict::Unknown {
        why: why.into(),
        remedy: "find out on the host, then plan again".to_owned(),
    }
}

/// What a service's prechecks ask of a member.
pub fn questions(model: &Model, service: &ServiceName, host: &HostName) -> BTreeMap<String, Probe> {
    let mut questions = BTreeMap::new();
    let Some(deployment) = model.services.get(service) else {
        return questions;
    };
    if deployment.spec.resolves_members {
        let names = deployment.members.iter().map(HostName::to_string).collect();
        let probe = Probe::Resolve {
            names,
            timeout_ms: RESOLVE_TIMEOUT_MS,
        };
        questions.insert(names_key(service), probe);
    }
    let address = model.member(service, host).and_then(|m| m.virtual_address);
    if let Some((address, _)) = address {
        // Whatever answers on any port, even with a refusal, has the address.
        let target = TcpTarget {
            address: address.to_string(),
            port: 22,
        };
        let probe = Probe::Tcp {
            targets: vec![target],
            timeout_ms: VIRTUAL_ADDRESS_TIMEOUT_MS,
        };
        questions.insert(address_key(service), probe);
    }
    questions
}

fn names_key(service: &ServiceName) -> String {
    format!("precheck names {service}")
}

fn address_key(service: &ServiceName) -> String {
    format!("precheck virtual address {service}")
}

/// Fetches the release file of every package source into a folder of its own, so nothing that apt uses is changed.
pub fn repository_questions() -> BTreeMap<String, Probe> {
    const OPTIONS: [&str; 10] = [
        "Dir::State=/run",
        "Dir::State::Lists=nightshift-repository-check",
        "Acquire::IndexTargets::deb::Packages::DefaultEnabled=false",
        "Acquire::IndexTargets::deb::Translations::DefaultEnabled=false",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        "Acquire::Languages=none",
        "Acquire::Retries=0",
        "Acquire::http::Timeout=10",
        "Acquire::https::Timeout=10",
        "APT::Update::Error-Mode=any",
    ];
    let mut argv: Vec<String> = ["apt-get", "-q", "update"].map(str::to_owned).to_vec();
    for option in OPTIONS {
        argv.extend(["-o".to_owned(), option.to_owned()]);
    }
    let command = Command {
        argv,
        env: BTreeMap::new(),
        stdin: None,
        user: None,
        timeout_seconds: REPOSITORIES_SECONDS,
        output_limit_bytes: 16 * 1024,
    };
    [(REPOSITORIES.to_owned(), Probe::Command { command })].into()
}

/// Checks of a host that is about to be changed.
pub fn host(host: &HostName, seen: &HostSeen) -> Vec<Precheck> {
    let mut checks = vec![hands_off(host, seen)];
    let mut add = |name: &str, verdict| {
        checks.push(Precheck {
            name: name.to_owned(),
            host: host.clone(),
            service: None,
            verdict,
        });
    };
    add("clock", clock(seen));
    let synchronised = match seen.facts.clock_synchronised {
        Some(true) => Verdict::Pass,
        Some(false) => Verdict::Warn {
            why: "its clock is right but nothing keeps it synchronised".to_owned(),
        },
        None => Verdict::Warn {
            why: "whether something keeps its clock synchronised is unknown".to_owned(),
        },
    };
    add("time synchronisation", synchronised);
    for (path, need) in ROOM {
        add("disk", free(seen, path, need));
    }
    checks
}

/// A person asked for hands off this host.
pub fn hands_off(host: &HostName, seen: &HostSeen) -> Precheck {
    let verdict = match &seen.facts.maintenance_marker {
        None => match seen.facts.unknown.get("maintenance_marker") {
            Some(why) => unknown(format!("whether it is under maintenance is unknown: {why}")),
            None => Verdict::Pass,
        },
        Some(text) => {
            let says = if text.is_empty() {
                "no reason given"
            } else {
                text
            };
            let remedy = "remove /etc/nightshift/maintenance there when the work is done";
            fail(format!("it is under maintenance ({says})"), remedy)
        }
    };
    Precheck {
        name: "maintenance".to_owned(),
        host: host.clone(),
        service: None,
        verdict,
    }
}

/// The host's clock must lie between the bot's when it asked and when it had the answer.
fn clock(seen: &HostSeen) -> Verdict {
    if let Some(why) = seen.facts.unknown.get("clock_seconds") {
        return unknown(format!("its clock is unknown: {why}"));
    }
    let seconds = |at: jiff::Timestamp| at.as_duration().as_secs_f64();
    let (asked, answered) = (seconds(seen.asked_at), seconds(seen.answered_at));
    let clock = seen.facts.clock_seconds;
    let off = (asked - clock).max(clock - answered);
    if off <= CLOCK_TOLERANCE_SECONDS {
        Verdict::Pass
    } else {
        let why = format!(
            "its clock is {off:.1} s off the bot's, expected at most {CLOCK_TOLERANCE_SECONDS} s"
        );
        fail(
            why,
            "synchronise the clocks of both, for example with chrony",
        )
    }
}

/// Checks of one member of a service that is about to be changed.
pub fn member(
    model: &Model,
    observed: &SiteObserved,
    service: &ServiceName,
    host: &HostName,
    view: &MemberView,
) -> Vec<Precheck> {
    let (Some(deployment), Some(member), Ok(seen)) = (
        model.services.get(service),
        model.member(service, host),
        observed.seen(host),
    ) else {
        return Vec::new();
    };
    let mut checks = Vec::new();
    let mut add = |name: &str, verdict| {
        checks.push(Precheck {
            name: name.to_owned(),
            host: host.clone(),
            service: Some(service.clone()),
            verdict,
        });
    };
    add("system", system(&deployment.spec.systems, seen));
    if deployment.spec.resolves_members {
        add("names", names(model, service, seen));
    }
    for port in &member.ports {
        add("ports", port_free(port, &member.process, seen));
    }
    if let Some((address, _)) = member.virtual_address {
        add(
            "virtual address",
            virtual_address(observed, service, &deployment.members, seen, address),
        );
    }
    if view.installs() {
        add("repositories", repositories(seen));
        let (path, bytes) = PACKAGE_CACHE;
        add("disk", free(seen, path, bytes));
        if let Some(data) = &member.data {
            add("disk", free(seen, &data.path, data.need_free_bytes));
        }
    }
    checks
}

fn system(systems: &[String], seen: &HostSeen) -> Verdict {
    let found = format!("{} {}", seen.facts.os_id, seen.facts.os_version);
    if systems.contains(&found) {
        return Verdict::Pass;
    }
    if seen.facts.os_id.is_empty() {
        return unknown("its operating system is unknown");
    }
    let why = format!("expected {}, found {found}", systems.join(" or "));
    fail(why, "place the service on another host")
}

fn names(model: &Model, service: &ServiceName, seen: &HostSeen) -> Verdict {
    let resolved = match seen.probes.get(&names_key(service)) {
        Some(ProbeResult::Resolve { addresses }) => addresses,
        Some(ProbeResult::Failed { why }) => {
            return unknown(format!("names cannot be resolved: {why}"));
        }
        _ => return unknown("names were not resolved"),
    };
    for host in model.members(service) {
        let wanted = model.address(host);
        let found = resolved.get(host.as_str()).map_or(&[][..], Vec::as_slice);
        if found != [wanted] {
            let found = match found {
                [] => "nothing".to_owned(),
                list => list.join(", "),
            };
            let why = format!("expected the name {host} to mean {wanted}, found {found}");
            return fail(why, "put it into /etc/hosts or DNS, with no other address");
        }
    }
    Verdict::Pass
}

fn port_free(port: &PortUse, process: &[String], seen: &HostSeen) -> Verdict {
    if let Some(why) = seen.facts.unknown.get("listening") {
        return unknown(format!("who listens is unknown: {why}"));
    }
    let listeners = seen.facts.listening.get(&port.port);
    let holder = listeners.into_iter().flatten().find(|listener| {
        let (address, name) = listener.split_once(' ').unwrap_or((listener, ""));
        overlaps(port.address.as_deref(), address) && !own(name, process)
    });
    match holder {
        None => Verdict::Pass,
        Some(holder) => {
            let why = format!("port {} is held by {holder}", port.port);
            fail(why, "stop that program, or give the service another port")
        }
    }
}

fn overlaps(wanted: Option<&str>, held: &str) -> bool {
    let any = |address: &str| matches!(address, "0.0.0.0" | "::" | "*" | "");
    match wanted {
        None => true,
        Some(wanted) => any(wanted) || any(held) || wanted == held,
    }
}

/// Names of processes are cut by the kernel, so only their beginnings can be compared.
fn own(name: &str, process: &[String]) -> bool {
    let cut = |name: &str| name.bytes().take(PROCESS_NAME_BYTES).collect::<Vec<u8>>();
    !name.is_empty() && process.iter().any(|own| cut(own) == cut(name))
}

fn virtual_address(
    observed: &SiteObserved,
    service: &ServiceName,
    members: &[HostName],
    seen: &HostSeen,
    address: IpAddr,
) -> Verdict {
    if let Some(why) = seen.facts.unknown.get("addresses") {
        return unknown(format!("its addresses are unknown: {why}"));
    }
    let networks = seen.facts.addresses.values().flatten();
    let inside = networks
        .filter_map(|text| parse_prefix(text))
        .filter(|(own, _)| *own != address)
        .any(|(own, length)| same_network(own, length, address));
    if !inside {
        let why = format!("{address} lies in no network of this host");
        return fail(why, "choose an address of the members' network");
    }
    let holds = |host: &HostName| {
        observed.seen(host).is_ok_and(|seen| {
            let mut all = seen.facts.addresses.values().flatten();
            all.any(|text| parse_prefix(text).is_some_and(|(own, _)| own == address))
        })
    };
    if members.iter().any(holds) {
        return Verdict::Pass;
    }
    if let Some(other) = observed.hosts.keys().find(|host| holds(host)) {
        let why = format!("{address} belongs to {other}, which is no member");
        return fail(why, "choose an address that nobody has");
    }
    match seen.probes.get(&address_key(service)) {
        Some(ProbeResult::Tcp { answers }) => {
            let answered = answers
                .iter()
                .any(|a| a.open || a.error.as_deref().is_some_and(|e| e.contains("refused")));
            if answered {
                let why = format!("something that is no member answers at {address}");
                return fail(why, "choose an address that nobody has");
            }
            Verdict::Pass
        }
        Some(ProbeResult::Failed { why }) => unknown(format!("{address} cannot be tried: {why}")),
        _ => unknown(format!("{address} was not tried")),
    }
}

fn repositories(seen: &HostSeen) -> Verdict {
    match seen.probes.get(REPOSITORIES) {
        Some(ProbeResult::Command { output }) if output.ok() => Verdict::Pass,
        Some(ProbeResult::Command { output }) => {
            let text = format!("{}\n{}", output.stdout, output.stderr);
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("E:") || line.starts_with("Err:"))
                .take(OUTPUT_LINES)
                .collect();
            let why = format!(
                "the package sources cannot be reached: {}",
                lines.join(" | ")
            );
            fail(why, "mend the sources or the way to them, then plan again")
        }
        Some(ProbeResult::Failed { why }) => {
            unknown(format!("the package sources were not tried: {why}"))
        }
        _ => unknown("the package sources were not tried"),
    }
}

fn free(seen: &HostSeen, path: &str, need: u64) -> Verdict {
    if let Some(why) = seen.facts.unknown.get("filesystems") {
        return unknown(format!("free space is unknown: {why}"));
    }
    let holds = |mount: &str| {
        mount == "/"
            || path == mount
            || path.starts_with(&format!("{}/", mount.trim_end_matches('/')))
    };
    let found = seen
        .facts
        .filesystems
        .iter()
        .filter(|(mount, _)| holds(mount))
        .max_by_key(|(mount, _)| mount.len());
    let Some((mount, (bytes, _, _))) = found else {
        return unknown(format!("no file system is known for {path}"));
    };
    if *bytes >= need {
        return Verdict::Pass;
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let why = format!(
        "expected {} MiB free for {path}, found {} MiB on {mount}",
        mib(need),
        mib(*bytes)
    );
    fail(why, "free some space")
}
