//! What the gates look at.

use std::collections::{BTreeMap, BTreeSet};

use collectors::{prometheus::TargetHealth, watchdog::Watchdog};
use deploy_engine::model::{HostName, ServiceName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Overridden,
    maintenance::{Form, Sign},
};
use crate::{
    budget::{Budget, Spent},
    decision::Roles,
    format::{Blast, RunbookId},
    storm::Storm,
};

/// The numbers of the gates; a site may tighten them, drills shorten times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateLimits {
    /// A direct probe older than this proves nothing.
    pub direct_age_seconds: i64,
    /// An evaluation of the alert's rule, and the newest scrape of a host, may be so many of their own intervals old; up to twice
    /// that they are late and waited for, then stale.
    pub metric_intervals: i32,
    /// The bot's clock may differ so much from that of a host it acts on.
    pub clock_off_seconds: f64,
    /// A decision older than this is made again before anything is touched.
    pub plan_age_seconds: i64,
    /// More targets down than this share, and more than the number below, and the monitoring itself is suspected.
    pub targets_down_share: f64,
    /// On a small site one host has many of the targets: so many may be down whatever their share is.
    pub targets_down_at_least: u32,
    /// Of the members, for repairs of single members; one is always allowed.
    pub blast_share: f64,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            direct_age_seconds: 30,
            metric_intervals: 2,
            clock_off_seconds: 5.0,
            plan_age_seconds: 600,
            targets_down_share: 0.10,
            targets_down_at_least: 3,
            blast_share: 0.10,
        }
    }
}

/// When the gates are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the job is made.
    Starting,
    /// Before one of its steps.
    Step {
        decided_at: Timestamp,
        /// Something was changed already.
        acted: bool,
        /// The step changes something.
        acts: bool,
        /// All snapshots are in the journal.
        snapshot_done: bool,
    },
}

/// The alert's rule, as Prometheus last evaluated it; or its check, as Icinga last ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricPath {
    pub alert: String,
    /// The rule's expression; of a check [`super::sources::ICINGA`] and its command.
    #[serde(default)]
    pub query: String,
    /// For at least as long as the rule's `for`: Prometheus calls it pending until then.
    pub firing: bool,
    pub last_evaluation: Timestamp,
    pub interval: SignedDuration,
    pub error: Option<String>,
}

impl MetricPath {
    /// Who says so.
    pub fn by(&self) -> &'static str {
        match self.is_check() {
            true => "Icinga",
            false => "Prometheus",
        }
    }

    pub fn is_check(&self) -> bool {
        self.query.starts_with(super::sources::ICINGA)
    }
}

/// One answer taken by the bot itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    pub probe: String,
    pub host: HostName,
    pub at: Timestamp,
    pub known: bool,
}

/// The newest scrape of anything on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    pub last: Timestamp,
    pub interval: SignedDuration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceFacts {
    /// One entry for each alert of the incident; why there is none.
    pub metric: Result<Vec<MetricPath>, String>,
    /// Hosts that are scraped at all; why that is not known.
    pub scrapes: Result<BTreeMap<HostName, Scrape>, String>,
    pub direct: Vec<Direct>,
    /// The largest difference to the clock of a host that is acted on.
    pub clock_off_seconds: Result<f64, String>,
    /// What logs say of the service and its hosts, in words: a third source, never one of two.
    #[serde(default)]
    pub log_lines: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitoringFacts {
    pub watchdog: Watchdog,
    pub targets: Result<TargetHealth, String>,
    /// Is Prometheus up and past the replay of its log?
    pub prometheus: Result<(), String>,
    /// Does every Alertmanager answer for itself?
    pub alertmanager: Result<(), String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub by: String,
    pub at: Timestamp,
    pub why: String,
}

/// What people said, form by form; why a form could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeopleFacts {
    /// The forms that this site needs.
    pub required: BTreeSet<Form>,
    pub signs: BTreeMap<Form, Result<Vec<Sign>, String>>,
}

/// Another job that holds a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    pub scope: String,
    pub job: String,
    /// Hosts it acts on.
    pub hosts: BTreeSet<HostName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFacts {
    pub scope: String,
    /// Repairs of others that are not finished; why that is not known.
    pub held: Result<Vec<HeldLock>, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlastFacts {
    pub radius: Blast,
    /// All members of the service.
    pub members: BTreeSet<HostName>,
    /// Members that are broken, and so acted on.
    pub affected: BTreeSet<HostName>,
    /// Members that are away for other reasons; those of other repairs are known from the locks.
    pub away: BTreeSet<HostName>,
    /// Other failure domains with an open incident of the same runbook.
    pub same_elsewhere: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct BudgetFacts<'a> {
    pub budget: &'a Budget,
    pub ledger: &'a [Spent],
    pub runbook: &'a RunbookId,
    /// `host:NAME`, `domain:SERVICE`.
    pub targets: Vec<String>,
    /// The job itself, once it is in the ledger.
    pub own_job: Option<String>,
}

#[derive(Clone, Debug)]
pub struct PlanFacts<'a> {
    pub service: &'a ServiceName,
    pub roles: &'a Roles,
    /// Hosts that steps act on.
    pub hosts: BTreeSet<HostName>,
    /// Hosts of the site.
    pub site: BTreeSet<HostName>,
    /// Host → the failure domain that it shares with others.
    pub racks: &'a BTreeMap<HostName, String>,
    /// Members that no probe was answered by.
    pub unread: BTreeSet<HostName>,
    /// Hosts whose state the snapshots record.
    pub recorded: BTreeSet<HostName>,
    /// The host of this site that the bot keeps its records on, if it is one.
    pub kept_on: Option<HostName>,
    /// Position of the first snapshot and of the first step that changes something.
    pub first_snapshot: Option<usize>,
    pub first_act: Option<usize>,
    /// Steps that change something without a guard.
    pub unguarded: Vec<String>,
    /// The last step is a proof that needs all others, with a settle time.
    pub proof: bool,
    /// Jobs of this incident whose proof did not hold.
    pub unproven: Vec<String>,
    /// Services that the bot needs for its own locks, secrets, records or paging.
    pub bot_needs: &'a BTreeSet<ServiceName>,
}

#[derive(Clone, Debug)]
pub struct GateInput<'a> {
    pub now: Timestamp,
    pub phase: Phase,
    pub limits: &'a GateLimits,
    pub evidence: EvidenceFacts,
    pub monitoring: MonitoringFacts,
    pub people: PeopleFacts,
    pub locks: LockFacts,
    pub blast: BlastFacts,
    pub budget: BudgetFacts<'a>,
    pub storm: Storm,
    pub plan: PlanFacts<'a>,
    /// `None`: all gates hold.
    pub overridden: Option<Overridden>,
}

/// What the gates looked at in the world: kept with a decision, so that today's gates can be run over it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldFacts {
    pub at: Timestamp,
    pub evidence: EvidenceFacts,
    pub monitoring: MonitoringFacts,
    pub people: PeopleFacts,
    pub locks: LockFacts,
    pub away: BTreeSet<HostName>,
    pub same_elsewhere: Vec<String>,
    pub storm: Storm,
    pub unread: BTreeSet<HostName>,
    pub unproven: Vec<String>,
    pub kept_on: Option<HostName>,
}

impl GateInput<'_> {
    pub fn world(&self) -> WorldFacts {
        WorldFacts {
            at: self.now,
            evidence: self.evidence.clone(),
            monitoring: self.monitoring.clone(),
            people: self.people.clone(),
            locks: self.locks.clone(),
            away: self.blast.away.clone(),
            same_elsewhere: self.blast.same_elsewhere.clone(),
            storm: self.storm,
            unread: self.plan.unread.clone(),
            unproven: self.plan.unproven.clone(),
            kept_on: self.plan.kept_on.clone(),
        }
    }
}
