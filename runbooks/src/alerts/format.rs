//! The format of a table of alerts: which name means what, and which label names what has failed.

use std::{collections::BTreeMap, fmt};

use deploy_engine::model::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::format::RunbookId;

/// One file: the rules of one family, in sets as they are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertFile {
    /// The family, for people.
    pub alerts: String,
    pub sets: Vec<AlertSet>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertSet {
    /// Shown as where a mapping comes from.
    pub set: String,
    /// Where the rules are published.
    #[serde(default)]
    pub from: String,
    /// The label whose value is looked up; the alert's name when absent.
    #[serde(default)]
    pub by: Option<String>,
    pub map: Vec<Row>,
}

/// Alerts that mean the same: exactly one of `runbook`, `diagnosis`, `page`, `host_down` and `gate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Case, `_` and signs do not count. A name that ends in `*` is a beginning.
    pub names: Vec<String>,
    /// Repairs that may be meant, in the order in which they are asked.
    #[serde(default)]
    pub runbook: Option<Vec<RunbookId>>,
    /// As `runbook`, of alerts that are symptoms more often than causes.
    #[serde(default)]
    pub diagnosis: Option<Vec<RunbookId>>,
    /// A person is told; nothing is tried. What the person may look into.
    #[serde(default)]
    pub page: Option<Vec<RunbookId>>,
    /// The whole host is away: the cause of whatever else is wrong on it.
    #[serde(default)]
    pub host_down: Option<Vec<RunbookId>>,
    /// It is about the monitoring itself and opens no incident.
    #[serde(default)]
    pub gate: Option<Gate>,
    /// Where the alert names what has failed; absent: nowhere.
    #[serde(default)]
    pub target: Target,
    /// The service whose symptom it is.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// Where the alert names the service whose symptom it is.
    #[serde(default)]
    pub service_by: Option<ServiceBy>,
    /// Only alerts with these labels: one of the values, or any if there are none.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Always fires; its absence means that alerts do not arrive.
    Watchdog,
    /// Fires to hold notifications of other alerts back.
    Inhibitor,
}

/// Where an alert names the host that has failed. `instance` is a target only where this says so: of many metrics it is the
/// exporter that tells of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Target {
    Known(KnownTarget),
    /// The first of these labels that is there.
    Labels {
        labels: Vec<String>,
    },
    #[default]
    #[serde(skip)]
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KnownTarget {
    /// An aggregate, or a series that is absent.
    None,
    /// `instance` is the exporter, and what failed is not named.
    Exporter,
    /// What is scraped is what has failed.
    Instance,
    Host,
    Hostname,
    AgentHost,
    /// `name` or `host` of Elasticsearch's exporter.
    ElasticsearchNode,
    /// `rabbit@host`.
    ErlangNode,
    /// The address that was probed.
    Url,
}

/// Where an alert names the service whose symptom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceBy {
    /// The scrape job.
    Job,
    /// The proxy or back end of HAProxy.
    Proxy,
    /// The unit of systemd.
    Unit,
}

impl fmt::Display for ServiceBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job => "its scrape job",
            Self::Proxy => "its proxy",
            Self::Unit => "its unit",
        })
    }
}

impl Target {
    /// Does the rule name a host at all?
    pub fn is_named(&self) -> bool {
        !matches!(
            self,
            Self::Absent | Self::Known(KnownTarget::None | KnownTarget::Exporter)
        )
    }

    /// Is what is scraped taken for what has failed?
    pub fn is_instance(&self) -> bool {
        *self == Self::Known(KnownTarget::Instance)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent | Self::Known(KnownTarget::None) => "none named",
            Self::Known(KnownTarget::Exporter) => "none named (instance is the exporter)",
            Self::Known(KnownTarget::Instance) => "instance",
            Self::Known(KnownTarget::Host) => "host",
            Self::Known(KnownTarget::Hostname) => "hostname",
            Self::Known(KnownTarget::AgentHost) => "agent_host",
            Self::Known(KnownTarget::ElasticsearchNode) => "name or host",
            Self::Known(KnownTarget::ErlangNode) => "rabbitmq_node",
            Self::Known(KnownTarget::Url) => "the probed address",
            Self::Labels { labels } => return f.write_str(&labels.join(" or ")),
        })
    }
}
