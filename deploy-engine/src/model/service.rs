//! `service.yaml`: what a service is made of and how it is rolled out. Every text may be a template.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    HostName, Secs, ServiceName,
    resource::{Only, ResourceSpec},
    setting::SettingSpec,
};

/// One service of the catalogue.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The name of the folder.
    pub service: ServiceName,
    pub title: String,
    /// The heading it is listed under.
    pub group: String,
    pub topology: Topology,
    /// Systems it can be installed on, as `ID VERSION_ID` of `/etc/os-release`.
    #[serde(default = "default_systems")]
    pub systems: Vec<String>,
    /// Services that must be deployed and healthy before this one is activated.
    #[serde(default)]
    pub needs: Vec<ServiceName>,
    /// The same, if they are deployed.
    #[serde(default)]
    pub after: Vec<ServiceName>,
    #[serde(default)]
    pub settings: BTreeMap<String, SettingSpec>,
    /// Secrets generated on first use; `{{ secret.NAME }}` in templates. A name that ends with `_cephx` is a key for Ceph, any
    /// other one letters and digits.
    #[serde(default)]
    pub secrets: Vec<HostName>,
    /// Its members speak TLS: each gets a key and a certificate for its host name, of an authority that only this service has;
    /// `{{ tls.authority }}`, `{{ tls.certificate }}` and `{{ tls.key }}` in templates, in PEM.
    #[serde(default)]
    pub certificates: bool,
    /// TCP ports it listens on: a number, or a template that gives `PORT`, `ADDRESS:PORT` or several of them.
    #[serde(default)]
    pub ports: Vec<PortText>,
    /// The programs that may hold these ports.
    #[serde(default)]
    pub process: Vec<String>,
    /// The names of all members must resolve to their addresses on every member.
    #[serde(default)]
    pub resolves_members: bool,
    /// An address that moves between members (with prefix): it must lie in their network and be unused.
    #[serde(default)]
    pub virtual_address: Option<String>,
    #[serde(default)]
    pub data: Option<DataSpec>,
    #[serde(default)]
    pub packages: Vec<String>,
    /// In addition, when it forms a cluster.
    #[serde(default)]
    pub packages_clustered: Vec<String>,
    /// In order. From the first `unit` on, they are applied when the service is activated; those before it when it is configured.
    #[serde(default)]
    pub resources: Vec<ResourceSpec>,
    /// Once per service, on its first member, when that is healthy.
    #[serde(default)]
    pub provision: Vec<ResourceSpec>,
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// The condition that gates the next member, and that status shows.
    #[serde(default)]
    pub health: Option<String>,
    /// How long a member may take to become healthy, in seconds.
    #[serde(default = "default_healthy_within")]
    pub healthy_within: Secs,
    /// What Prometheus scrapes from each member.
    #[serde(default)]
    pub metrics: Vec<MetricsSpec>,
    /// How a monitor that is not Prometheus asks each member. Absent: a TCP connection to each port that others can reach.
    #[serde(default)]
    pub checks: Option<Vec<CheckSpec>>,
    /// A file with a YAML list of Prometheus rule groups; `[[ … ]]` and `[% … %]` are its template marks.
    #[serde(default)]
    pub alerts: Option<String>,
    /// Front ends that a load balancer offers for it.
    #[serde(default)]
    pub balance: Vec<BalanceSpec>,
    #[serde(default)]
    pub remove: RemoveSpec,
}

fn default_systems() -> Vec<String> {
    vec!["debian 12".to_owned()]
}

fn default_healthy_within() -> Secs {
    Secs(120)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// Exactly one member.
    Single,
    /// Any number; from two on they form a cluster.
    Clustered,
    /// Members are independent of each other.
    PerHost,
}

/// A port as a number or as a template.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PortText {
    Number(#[schemars(range(min = 1))] u16),
    Template(String),
}

impl PortText {
    pub fn to_text(&self) -> String {
        match self {
            Self::Number(port) => port.to_string(),
            Self::Template(text) => text.clone(),
        }
    }
}

/// Where it keeps data and how much must be free before it is first installed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    pub path: String,
    pub need_free_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// A roll-out logic that is written in Rust; absent: plain.
    pub logic: Option<String>,
    /// First start of members.
    pub start: Pace,
    /// Restart or reload of running members.
    pub change: Pace,
    /// The condition asked immediately before a running member is restarted.
    pub before_stop: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    AllAtOnce,
    /// The next member follows when the one before it is healthy.
    #[default]
    OneAtATime,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsSpec {
    pub job: String,
    pub port: PortText,
    #[serde(default = "default_metrics_path")]
    pub path: String,
    #[serde(default)]
    pub only: Option<Only>,
}

fn default_metrics_path() -> String {
    "/metrics".to_owned()
}

/// One check of a member from outside, in the words of the Icinga template library.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// Unique among the checks of a host.
    pub check: HostName,
    /// The name of a check command, for example `tcp`, `http` or `mysql`.
    pub command: HostName,
    /// When no command of the library has that name: the one that it is made from.
    #[serde(default)]
    pub like: Option<HostName>,
    /// The command's parameters, for example `http_uri`. They may be templates.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalanceSpec {
    /// The front end's name; the service's when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The port of the front end.
    pub listen: PortText,
    /// The port of each member; `listen` when absent.
    #[serde(default)]
    pub port: Option<PortText>,
    pub mode: BalanceMode,
    /// How the load balancer checks a member; a TCP connection when absent.
    #[serde(default)]
    pub check: Option<BalanceCheck>,
    #[serde(default)]
    pub policy: BalancePolicy,
    /// How long a connection may be idle.
    #[serde(default)]
    pub idle_timeout: Option<Secs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceMode {
    Tcp,
    Http,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalanceCheck {
    /// The path of a `GET` that must answer 200.
    pub http: String,
    /// The port to ask; the member's own when absent.
    #[serde(default)]
    pub port: Option<PortText>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancePolicy {
    /// Spread over all healthy members.
    #[default]
    All,
    /// The first healthy member takes everything; the others stand by.
    First,
}

/// What removal takes away besides the files, units and kernel settings among the resources.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveSpec {
    /// Units to stop that are not among the resources.
    pub units: Vec<String>,
    pub packages: Vec<String>,
    pub files: Vec<String>,
    pub directories: Vec<String>,
    pub users: Vec<String>,
    pub groups: Vec<String>,
}
