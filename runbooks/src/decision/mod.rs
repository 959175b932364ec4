//! Named decisions: evidence in, the hosts to act on out, or the reason not to. Pure, one file each.
//!
//! Refusing is the default. An unknown reading never leads to an action, an empty role never leaves this module.

mod galera_cluster_crash;
mod galera_no_primary;
mod galera_node_down;
mod input;
mod lb_process;
mod memcached_down;
mod rabbitmq_node_down;
mod rabbitmq_partition;
mod rabbitmq_views;
mod steady;
mod table;
mod unit_failed;
mod vip_missing;

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

use deploy_engine::{model::HostName, probe::Ask};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use input::{Input, Settings, majority, names};
pub use steady::{FLAP_WINDOW, FLAPS, Facts, Since, Steady};
pub use table::{Entry, Role};

/// Named, non-empty lists of hosts.
pub type Roles = BTreeMap<String, Vec<HostName>>;

/// What a decision says, always with its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that the runbook asks for is proven.
    Act(Act),
    /// So far so good; these must be asked before more can be said.
    More { asks: Vec<Ask>, why: String },
    /// It may become clear or mend by itself.
    Hold { until: Timestamp, why: String },
    /// A person has to look.
    Refuse { why: String, evidence: Vec<String> },
    /// Not the situation of this runbook; perhaps of another one.
    Elsewhere { why: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    pub roles: Roles,
    /// Values for the recipe's placeholders. Only from our own lists, never from an alert.
    pub parameters: BTreeMap<String, String>,
    pub why: String,
}

impl Act {
    /// On these roles, without parameters. A role that nobody has is left out.
    pub fn on<const N: usize>(roles: [(&str, Vec<HostName>); N], why: String) -> Self {
        let roles = roles.into_iter().filter(|(_, hosts)| !hosts.is_empty());
        Self {
            roles: roles
                .map(|(name, hosts)| (name.to_owned(), hosts))
                .collect(),
            parameters: BTreeMap::new(),
            why,
        }
    }
}

impl Verdict {
    pub fn why(&self) -> &str {
        match self {
            Self::Act(act) => &act.why,
            Self::More { why, .. }
            | Self::Hold { why, .. }
            | Self::Refuse { why, .. }
            | Self::Elsewhere { why } => why,
        }
    }
}

/// Every decision there is.
pub fn registry() -> impl Iterator<Item = &'static Entry> {
    [
        &rabbitmq_partition::DECISION,
        &rabbitmq_node_down::DECISION,
        &galera_node_down::DECISION,
        &galera_no_primary::DECISION,
        &galera_cluster_crash::DECISION,
        &memcached_down::DECISION,
        &vip_missing::DECISION,
        &lb_process::DECISION,
        &unit_failed::DECISION,
    ]
    .into_iter()
}

pub fn find(name: &str) -> Option<&'static Entry> {
    registry().find(|entry| entry.name == name)
}
