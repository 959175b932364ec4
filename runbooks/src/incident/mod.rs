//! Our response to alerts: one incident for each failure domain, however many alerts tell of it.

mod correlate;
#[cfg(test)]
mod properties;
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

use crate::{decision::Steady, format::RunbookId, matching::Matched};

/// Alerts kept whole with one incident; more of the same domain change nothing of what is decided, and so many at once are a storm,
/// in which nothing is repaired.
pub const ALERTS_KEPT: usize = 50;
/// Firing alerts beyond these of which only the key is kept, so that an incident ends with the last of them. Past this a
/// sender's next repeat tells of them again.
pub const MORE_KEPT: usize = 50_000;

/// The key of an alert among all sources.
pub fn alert_key(alert: &Alert) -> String {
    format!("{}/{}", alert.source, alert.fingerprint)
}

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
    /// Alerts of one name that nothing is repaired for, by their source and name.
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
    /// Keys of alerts that fire beyond those.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub more: BTreeSet<String>,
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
        !self.more.is_empty()
            || self
                .alerts
                .values()
                .any(|alert| alert.status == Status::Firing)
    }

    /// How many of its alerts fire.
    pub fn firing_count(&self) -> usize {
        let firing = |alert: &&Alert| alert.status == Status::Firing;
        self.more.len() + self.alerts.values().filter(firing).count()
    }

    pub fn has(&self, alert_key: &str) -> bool {
        self.alerts.contains_key(alert_key) || self.more.contains(alert_key)
    }

    /// How many alerts it knows, those that ended included.
    pub fn known_alerts(&self) -> usize {
        self.alerts.len() + self.more.len()
    }

    /// Names of alerts that fire.
    pub fn firing(&self) -> BTreeSet<&str> {
        let firing = self
            .alerts
            .values()
            .filter(|alert| alert.status == Status::Firing);
        firing.map(|alert| alert.name.as_str()).collect()
    }

    /// Takes in an alert. The oldest resolved ones make room; of firing ones past [`ALERTS_KEPT`] only the key is kept.
    pub fn hear(&mut self, alert: &Alert) {
        let key = alert_key(alert);
        if let Some(known) = self.alerts.get_mut(&key) {
            *known = alert.clone();
            return;
        }
        let was_more = self.more.remove(&key);
        if was_more && alert.status == Status::Resolved {
            return;
        }
        if self.alerts.len() < ALERTS_KEPT || self.forget_oldest_resolved() {
            self.alerts.insert(key, alert.clone());
        } else if alert.status == Status::Firing && self.more.len() < MORE_KEPT {
            self.more.insert(key);
        }
    }

    fn forget_oldest_resolved(&mut self) -> bool {
        let resolved = self
            .alerts
            .iter()
            .filter(|(_, one)| one.status == Status::Resolved);
        let oldest = resolved.min_by_key(|(_, one)| one.received_at);
        match oldest.map(|(key, _)| key.clone()) {
            Some(oldest) => self.alerts.remove(&oldest).is_some(),
            None => false,
        }
    }

    /// What an alert of it says about where the trouble is and what may help.
    pub fn learn(&mut self, matched: Matched) {
        match matched {
            Matched::Runbooks {
                runbooks, subjects, ..
            } => {
                self.subjects.extend(subjects);
                for runbook in runbooks {
                    if !self.runbooks.contains(&runbook) {
                        self.runbooks.push(runbook);
                    }
                }
                self.tell_only = None;
            }
            Matched::HostDown { host } => {
                self.tell_only = Some(format!(
                    "{host} does not answer: a person or its return helps, nothing else is tried"
                ));
                self.subjects.insert(host);
            }
            Matched::TellOnly { why, subjects } => {
                self.subjects.extend(subjects);
                if self.runbooks.is_empty() {
                    self.tell_only = Some(why);
                }
            }
        }
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
