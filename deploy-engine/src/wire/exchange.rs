//! Requests to the agent and what comes back.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Command, CommandOutput, HostKey, Resource, ResourceId};

/// `JOB.STEP.ATTEMPT`: under this name the agent remembers a step in its spool, so it is never done twice.
/// Letters, digits, `-` and `.` only; the agent refuses anything else (it becomes a file name).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepKey(pub String);

impl StepKey {
    /// Of what takes a step back: its attempt is written `u1`.
    pub fn is_undo(&self) -> bool {
        let attempt = self.0.rsplit('.').next();
        attempt.is_some_and(|attempt| attempt.starts_with('u'))
    }
}

impl fmt::Display for StepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whoever holds the lease on `scope` (for example `site:demo`) has the growing `token`; a host refuses a lower one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub scope: String,
    pub token: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Hello {
        protocol: u32,
    },
    /// From now on the host obeys whoever signs with this key. A host that has another key refuses. This and `hello` are all
    /// that needs no signature.
    Enrol {
        key: HostKey,
    },
    /// Changes nothing. Everything the engine wants to know of a host, in one exchange.
    Observe {
        #[serde(default)]
        facts: bool,
        #[serde(default)]
        resources: Vec<Resource>,
        #[serde(default)]
        probes: BTreeMap<String, Probe>,
    },
    /// Do this once, durably: recorded in the spool before it starts; it outlives the connection. Events follow until `Finished`.
    /// A key that is already known is attached to instead (its stored outcome, or its events to come).
    Start {
        key: StepKey,
        fence: Fence,
        work: Work,
        timeout_seconds: u32,
    },
    /// What the spool knows of a step.
    Ask {
        key: StepKey,
    },
    /// The events of a step that is already known, without the first `seen` progress events, until `Finished`; a `Status` of
    /// `never_started` if it is not known. Never starts anything.
    Attach {
        key: StepKey,
        #[serde(default)]
        seen: u64,
    },
    /// Ends a running step's process group; its outcome says so. A key that was never started is called off: remembered, so that a
    /// start that is still under way begins nothing. Refused when a newer holder than `fence` says has been here: the step may be
    /// another one's by now.
    Cancel {
        key: StepKey,
        fence: Fence,
    },
    /// Drops the spool entries of a finished job, and refuses its fencing number from now on: a start that is still under way
    /// would find its key forgotten, and do it again.
    Forget {
        job: String,
        fence: Fence,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Downloads packages, installs nothing.
    Fetch { packages: Vec<String> },
    /// Brings resources to their desired state, in order. `expected` holds the digests of the observations that the plan was
    /// made from: a resource that is neither as planned nor already as desired stops the work with [`Outcome::Drifted`].
    Apply {
        resources: Vec<Resource>,
        expected: BTreeMap<ResourceId, String>,
    },
    /// Runs one command; a non-zero exit is a failure.
    Run { command: Command },
}

/// A question to a host that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    Command {
        command: Command,
    },
    /// `GET`, HTTP/1.1, plain text, to an address as seen from the host. Body is cut at `limit_bytes`.
    Http {
        address: String,
        port: u16,
        path: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        timeout_ms: u32,
        limit_bytes: u32,
    },
    /// Can TCP connections be opened from this host? All targets are tried at once, each within `timeout_ms`.
    Tcp {
        targets: Vec<TcpTarget>,
        timeout_ms: u32,
    },
    /// Sends a text to a stream socket and reads the answer to its end, for example HAProxy's `show info` or memcached's
    /// `stats` and `quit`.
    Socket {
        to: SocketAddress,
        send: String,
        timeout_ms: u32,
        limit_bytes: u32,
    },
    File {
        path: String,
        limit_bytes: u32,
    },
    /// The host's clock, and whether somebody works on it: what is asked again and again, and costs next to nothing.
    Pulse,
    /// `systemctl show` of the named units.
    Units {
        names: Vec<String>,
    },
    /// To which IPv4 addresses do names resolve on this host, by its own resolver (`getent ahostsv4`)?
    Resolve {
        names: Vec<String>,
        timeout_ms: u32,
    },
}

/// A TCP endpoint as seen from the host that is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpTarget {
    /// An address or a name that the host resolves.
    pub address: String,
    pub port: u16,
}

/// Where a stream socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "socket", rename_all = "snake_case", deny_unknown_fields)]
pub enum SocketAddress {
    Unix { path: String },
    Tcp { address: String, port: u16 },
}

/// Whether one target took a connection; `error` says why not (`refused`, `timed out`, ...).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpAnswer {
    #[serde(flatten)]
    pub target: TcpTarget,
    pub open: bool,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ProbeResult {
    Command {
        output: CommandOutput,
    },
    Http {
        status: u16,
        body: String,
    },
    /// In the order of the targets.
    Tcp {
        answers: Vec<TcpAnswer>,
    },
    Socket {
        answer: String,
    },
    File {
        content: Option<String>,
    },
    Pulse {
        /// Microseconds since the epoch, by the host's own clock.
        clock_micros: i64,
        /// As in [`Facts::maintenance_marker`].
        maintenance_marker: Option<String>,
    },
    /// unit → property → value. A unit that does not exist has `LoadState` `not-found`.
    Units {
        properties: BTreeMap<String, BTreeMap<String, String>>,
    },
    /// name → addresses; empty: the resolver answered that there is none.
    Resolve {
        addresses: BTreeMap<String, Vec<String>>,
    },
    /// The probe itself could not be made: the answer is unknown, which is not "down".
    Failed {
        why: String,
    },
}

/// What is true of a host, as far as plans and prechecks need it. What could not be learned is named in `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub hostname: String,
    pub machine: String,
    pub os_id: String,
    pub os_version: String,
    pub kernel: String,
    pub boot_id: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Seconds since the epoch, by the host's own clock.
    pub clock_seconds: f64,
    /// As the kernel says (adjtimex): false when it is not synchronised.
    pub clock_synchronised: Option<bool>,
    /// interface → addresses with prefix length, for example `10.77.0.11/24`.
    pub addresses: BTreeMap<String, Vec<String>>,
    /// Listening TCP ports → `address process` (process may be unknown).
    #[serde(with = "super::ports")]
    pub listening: BTreeMap<u16, Vec<String>>,
    /// mount point → (bytes that can be used, bytes in all, inodes free).
    pub filesystems: BTreeMap<String, (u64, u64, u64)>,
    /// First line of `/etc/nightshift/maintenance` on the host: a person asked for hands off. Empty file: empty text.
    pub maintenance_marker: Option<String>,
    /// Field that could not be learned → why. Its value above means nothing then.
    #[serde(default)]
    pub unknown: BTreeMap<String, String>,
}

/// How a resource stands against its desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Same,
    /// One line a change, or a unified diff; secrets are redacted before it leaves the host.
    WillChange {
        diff: Vec<String>,
    },
    Cannot {
        why: String,
    },
    Unknown {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub id: ResourceId,
    #[serde(flatten)]
    pub state: State,
    /// Digest of what was seen (not of what is wanted), hex.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    ResourceStarted {
        id: ResourceId,
    },
    ResourceDone {
        id: ResourceId,
        changed: bool,
        diff: Vec<String>,
    },
    /// A line of output worth showing while it runs.
    Line {
        text: String,
    },
    /// Downloads and installs: done of total, in whatever units the tool counts (a hundred parts for apt).
    Advance {
        done: u32,
        total: u32,
    },
}

/// How a step ended on its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// `changed`: the resources that were changed (empty: all were as desired already).
    Done {
        changed: Vec<ResourceId>,
        output: Option<CommandOutput>,
    },
    Failed {
        at: Option<ResourceId>,
        what: String,
        output: Option<CommandOutput>,
    },
    /// A resource was not as the plan saw it.
    Drifted {
        at: ResourceId,
        expected: String,
        found: String,
    },
    Cancelled,
    /// It was cancelled before it began, and never will begin: an order that arrives later finds this.
    CalledOff,
    /// The agent's worker died (power cut, kill): what it did is unknown until it is observed.
    Lost {
        why: String,
    },
    /// A newer holder of the lease has been here.
    Fenced {
        seen: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StepStatus {
    NeverStarted,
    Running { since_seconds: u64 },
    Finished { outcome: Outcome },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Recorded in the spool and running.
    Started,
    Progress {
        progress: Progress,
    },
    Finished {
        outcome: Outcome,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Hello {
        protocol: u32,
        version: String,
        boot_id: String,
        /// Part of every signature on this connection.
        nonce: String,
        /// [`HostKey::id`] of the key that the host obeys; `None`: it was never enrolled.
        obeys: Option<String>,
    },
    Observed {
        facts: Option<Facts>,
        observations: Vec<Observation>,
        probes: BTreeMap<String, ProbeResult>,
    },
    Event {
        key: StepKey,
        #[serde(flatten)]
        event: Event,
    },
    Status {
        key: StepKey,
        #[serde(flatten)]
        status: StepStatus,
    },
    Ok,
    /// The request was understood to be wrong; nothing was done.
    Refused {
        why: String,
    },
}
