//! Our response to alerts: one incident for each failure domain, however many alerts tell of it.

mod correlate;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use collectors::{Alert, Status};
use deploy_engine::model::{HostName, ServiceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use correlate::{Placement, place, waits_for};
pub use state::{Event, IllegalTransition, SETTLED_ALERTS, State};

use crate::{decision::Steady, format::RunbookId};

/// Alerts kept with one incident; more of the same domain change nothing of what is decided.
pub const ALERTS_KEPT: usize = 200;

/// Sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub String);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one incident is about, and what one repair locks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "domain", content = "name", rename_all = "snake_case")]
pub enum Domain {
    Service(ServiceName),
    Host(HostName),
    /// An alert that nothing is repaired for, by its source and fingerprint.
    Alert(String),
}

impl Domain {
    /// The lock scope of a repair.
    pub fn scope(&self) -> String {
        match self {
            Self::Service(name) => format!("domain:{name}"),
            Self::Host(host) => format!("domain:host.{host}"),
            Self::Alert(key) => format!("domain:alert.{key}"),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "{name}"),
            Self::Host(host) => write!(f, "{host}"),
            Self::Alert(key) => write!(f, "alert {key}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub domain: Domain,
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub state: State,
    /// When the state was last entered.
    pub since: Timestamp,
    /// `source/fingerprint` → the alert as last heard.
    pub alerts: BTreeMap<String, Alert>,
    /// Hosts that the alerts named.
    pub subjects: BTreeSet<HostName>,
    /// Runbooks that may be about it, in the order in which they are asked.
    pub runbooks: Vec<RunbookId>,
    /// How long what the decisions look at has been so.
    pub steady: BTreeMap<RunbookId, Steady>,
    /// Jobs that worked on it, the latest last.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// Jobs of this incident whose proof did not hold.
    pub unproven: Vec<String>,
    /// A host that is down and explains it.
    pub under: Option<IncidentId>,
    /// Why nothing can be repaired automatically, when it is known from the alerts alone.
    pub tell_only: Option<String>,
}

impl Incident {
    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    pub fn is_firing(&self) -> bool {
        self.alerts
            .values()
            .any(|alert| alert.status == Status::Firing)
    }

    /// Names of alerts that fire.
    pub fn firing(&self) -> BTreeSet<&str> {
        let firing = self
            .alerts
            .values()
            .filter(|alert| alert.status == Status::Firing);
        firing.map(|alert| alert.name.as_str()).collect()
    }

    /// Takes in an alert. The oldest resolved ones make room.
    pub fn hear(&mut self, alert: &Alert) {
        let key = format!("{}/{}", alert.source, alert.fingerprint);
        let known = self.alerts.contains_key(&key);
        if !known && self.alerts.len() >= ALERTS_KEPT {
            let resolved = self
                .alerts
                .iter()
                .filter(|(_, one)| one.status == Status::Resolved);
            match resolved
                .min_by_key(|(_, one)| one.received_at)
                .map(|(key, _)| key.clone())
            {
                Some(oldest) => drop(self.alerts.remove(&oldest)),
                None => return,
            }
        }
        self.alerts.insert(key, alert.clone());
    }

    /// Moves to the next state.
    ///
    /// # Errors
    /// [`IllegalTransition`]; nothing was changed.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> Result<(), IllegalTransition> {
        let next = self.state.clone().next(event, self.is_firing(), now)?;
        if let Event::JobStarted { job } = event {
            self.jobs.push(job.clone());
        }
        if let Event::Cleared { job, .. } = event {
            self.unproven.retain(|unproven| unproven != job);
        }
        if let Event::JobEnded { job, .. } = event
            && matches!(next, State::Unproven { .. })
        {
            self.unproven.push(job.clone());
        }
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.state) {
            self.since = now;
        }
        if next.is_closed() && self.closed_at.is_none() {
            self.closed_at = Some(now);
        }
        self.state = next;
        Ok(())
    }
}
