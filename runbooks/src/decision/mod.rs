//! Named decisions: evidence in, the hosts to act on out, or the reason not to. Pure, one file each.
//!
//! Refusing is the default. An unknown reading never leads to an action, an empty role never leaves this module.

mod alertmanager_down;
mod ceph_checks;
mod ceph_crash_over;
mod ceph_damaged_copy;
mod ceph_monitor_down;
mod ceph_no_manager;
mod ceph_osd_down;
mod ceph_slow_osd;
mod ceph_views;
mod disk_full;
mod elasticsearch_found;
mod elasticsearch_node_down;
mod elasticsearch_views;
mod exporter_down;
mod galera_cluster_crash;
mod galera_no_primary;
mod galera_node_down;
mod host_clock;
mod host_rebooted;
mod host_unreachable;
mod icinga2_disconnected;
mod icinga2_late;
mod input;
mod lb_process;
mod memcached_down;
mod prometheus_flawed;
mod rabbitmq_node_down;
mod rabbitmq_partition;
mod rabbitmq_views;
mod rsyslog_queue;
mod steady;
mod table;
mod tool_down;
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
    /// A diagnosis has found something for a person to look at; repairs of the same service may go on.
    Page { why: String, evidence: Vec<String> },
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
            | Self::Page { why, .. }
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
        &disk_full::DECISION,
        &host_rebooted::DECISION,
        &host_unreachable::DECISION,
        &host_clock::DECISION,
        &prometheus_flawed::DISK,
        &tool_down::DECISION,
        &prometheus_flawed::RULES,
        &prometheus_flawed::STORE,
        &alertmanager_down::DECISION,
        &exporter_down::DECISION,
        &ceph_osd_down::DECISION,
        &ceph_monitor_down::DECISION,
        &ceph_no_manager::DECISION,
        &ceph_damaged_copy::DECISION,
        &ceph_slow_osd::DECISION,
        &ceph_crash_over::DECISION,
        &ceph_checks::DECISION,
        &icinga2_disconnected::DECISION,
        &icinga2_late::DECISION,
        &elasticsearch_node_down::DECISION,
        &elasticsearch_found::RED,
        &elasticsearch_found::UNASSIGNED,
        &elasticsearch_found::DISK,
        &elasticsearch_found::HEAP,
        &rsyslog_queue::DECISION,
    ]
    .into_iter()
}

pub fn find(name: &str) -> Option<&'static Entry> {
    registry().find(|entry| entry.name == name)
}
