//! Our response to alerts: one incident for each failure domain, however many alerts tell of it.

mod cause;
mod correlate;
mod open;
#[cfg(test)]
mod properties;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use collectors::{Alert, Status, logs::page};
use deploy_engine::model::{HostName, ServiceName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use cause::{Because, Claim, Move, Symptom, View, regroup};
pub use correlate::{Placement, place, waits_for};
pub use open::Incidents;
pub use state::{Event, IllegalTransition, SETTLED_ALERTS, State};

use crate::{decision::Steady, format::RunbookId, matching::Matched};

/// Alerts kept whole with one incident; more of the same domain change nothing of what is decided, and so many at once are a storm,
/// in which nothing is repaired.
pub const ALERTS_KEPT: usize = 50;
/// Firing alerts beyond these of which only the key is kept, so that an incident ends with the last of them. Past this a
/// sender's next repeat tells of them again.
pub const MORE_KEPT: usize = 50_000;

/// How an incident ends that only lines of a log told of.
const LINES_AGED: &str = "no such line came for a while, which proves nothing; its last ones are too old to say something of now";

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
    /// Alerts of other services and hosts that it explains, by their keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub explained: BTreeMap<String, Symptom>,
    /// Names of its alerts that say that its host is away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub away: BTreeSet<String>,
    /// Names of its alerts that come and go.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub comes_and_goes: BTreeSet<String>,
    /// It may be a symptom of something that is not heard of yet: until then nobody is told and nothing is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gathers_until: Option<Timestamp>,
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
    /// One that has just begun.
    pub fn opened(id: IncidentId, domain: Domain, now: Timestamp) -> Self {
        Self {
            id,
            domain,
            opened_at: now,
            closed_at: None,
            state: State::Open,
            since: now,
            alerts: BTreeMap::new(),
            more: BTreeSet::new(),
            explained: BTreeMap::new(),
            away: BTreeSet::new(),
            comes_and_goes: BTreeSet::new(),
            gathers_until: None,
            subjects: BTreeSet::new(),
            runbooks: Vec::new(),
            steady: BTreeMap::new(),
            jobs: Vec::new(),
            unproven: Vec::new(),
            under: None,
            tell_only: None,
        }
    }

    /// Are alerts still gathered, so that a symptom is not told as a cause?
    pub fn gathers(&self, now: Timestamp) -> bool {
        self.gathers_until.is_some_and(|until| now < until)
    }

    /// An alert of it says that its host is away.
    pub fn is_host_down(&self) -> bool {
        let away =
            |alert: &Alert| alert.status == Status::Firing && self.away.contains(&alert.name);
        self.alerts.values().any(away)
    }

    /// Hosts that are away: its own, and those of its rack that went with it.
    pub fn hosts_down(&self) -> BTreeSet<HostName> {
        let own = match &self.domain {
            Domain::Host(host) if self.is_host_down() => Some(host.clone()),
            _ => None,
        };
        let others = self.explained.values().filter(|one| one.claim.host_down);
        let others = others.flat_map(|one| one.claim.subjects.iter().cloned());
        own.into_iter().chain(others).collect()
    }

    /// When the first of its alerts that fire began.
    pub fn first_start(&self) -> Option<Timestamp> {
        let firing = self
            .alerts
            .values()
            .filter(|one| one.status == Status::Firing);
        firing.map(|one| one.starts_at).min()
    }

    /// Services whose alerts it explains.
    pub fn explained_services(&self) -> BTreeSet<&ServiceName> {
        let services = self
            .explained
            .values()
            .filter_map(|one| one.claim.service.as_ref());
        services.collect()
    }

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

    /// Does nothing but a log say so?
    fn is_of_log_lines(&self) -> bool {
        self.more.is_empty() && !self.alerts.is_empty() && self.alerts.values().all(page::is_line)
    }

    /// How many of its alerts fire.
    pub fn firing_count(&self) -> usize {
        let firing = |alert: &&Alert| alert.status == Status::Firing;
        self.more.len() + self.alerts.values().filter(firing).count()
    }

    pub fn has(&self, alert_key: &str) -> bool {
        self.alerts.contains_key(alert_key)
            || self.more.contains(alert_key)
            || self.explained.contains_key(alert_key)
    }

    /// How many alerts it knows, those that ended included.
    pub fn known_alerts(&self) -> usize {
        self.alerts.len() + self.more.len() + self.explained.len()
    }

    /// Names of alerts that fire.
    pub fn firing(&self) -> BTreeSet<&str> {
        let firing = self
            .alerts
            .values()
            .filter(|alert| alert.status == Status::Firing);
        firing.map(|alert| alert.name.as_str()).collect()
    }

    /// Would it be in the same state after hearing of its alerts again?
    pub(crate) fn stays_with_its_alerts(&self, now: Timestamp) -> bool {
        let firing = self.is_firing();
        // Decided from the alerts alone, and they still say so: looking again would find the same.
        if let State::TellOnly { why } = &self.state
            && self.tell_only.as_ref() == Some(why)
        {
            return firing;
        }
        let next = self.state.clone().next(&Event::AlertsChanged, firing, now);
        next.is_ok_and(|next| next == self.state)
    }

    /// It with so many of its alerts: what a list shows.
    pub fn brief(&self, alerts: usize) -> Self {
        let kept = self.alerts.iter().take(alerts);
        Self {
            id: self.id.clone(),
            domain: self.domain.clone(),
            opened_at: self.opened_at,
            closed_at: self.closed_at,
            state: self.state.clone(),
            since: self.since,
            alerts: kept.map(|(k, alert)| (k.clone(), alert.clone())).collect(),
            more: BTreeSet::new(),
            explained: BTreeMap::new(),
            away: self.away.clone(),
            comes_and_goes: self.comes_and_goes.clone(),
            gathers_until: self.gathers_until,
            subjects: self.subjects.clone(),
            runbooks: self.runbooks.clone(),
            steady: self.steady.clone(),
            jobs: self.jobs.clone(),
            unproven: self.unproven.clone(),
            under: self.under.clone(),
            tell_only: self.tell_only.clone(),
        }
    }

    /// Takes in an alert. The oldest resolved ones make room; of firing ones past [`ALERTS_KEPT`] only the key is kept. Returns
    /// the key of the alert, this one or another, that it does not know any more.
    pub fn hear(&mut self, alert: &Alert) -> Option<String> {
        let key = alert_key(alert);
        if self.explained.contains_key(&key) {
            let ended = alert.status == Status::Resolved;
            return ended.then(|| self.explained.remove(&key)).map(|_| key);
        }
        if let Some(known) = self.alerts.get_mut(&key) {
            known.clone_from(alert);
            return None;
        }
        let was_more = self.more.remove(&key);
        if was_more && alert.status == Status::Resolved {
            return Some(key);
        }
        if self.alerts.len() < ALERTS_KEPT {
            self.alerts.insert(key, alert.clone());
            return None;
        }
        let forgotten = self.forget_oldest_resolved();
        if forgotten.is_some() {
            self.alerts.insert(key, alert.clone());
            return forgotten;
        }
        if alert.status == Status::Firing && self.more.len() < MORE_KEPT {
            self.more.insert(key);
            return None;
        }
        Some(key)
    }

    /// Takes in an alert that it explains. False: there are [`MORE_KEPT`] of them, and it is not known.
    pub(crate) fn explain(&mut self, key: String, symptom: Symptom) -> bool {
        let has_room = self.explained.len() < MORE_KEPT || self.explained.contains_key(&key);
        if has_room {
            self.explained.insert(key, symptom);
        }
        has_room
    }

    fn forget_oldest_resolved(&mut self) -> Option<String> {
        let resolved = self
            .alerts
            .iter()
            .filter(|(_, one)| one.status == Status::Resolved);
        let oldest = resolved.min_by_key(|(_, one)| one.received_at);
        let oldest = oldest.map(|(key, _)| key.clone())?;
        self.alerts.remove(&oldest);
        Some(oldest)
    }

    /// What an alert of it says about where the trouble is and what may help.
    pub fn learn(&mut self, name: &str, matched: Matched) {
        match matched {
            Matched::Runbooks {
                runbooks, subjects, ..
            } => {
                self.subjects.extend(subjects);
                self.consider(runbooks);
                self.tell_only = None;
            }
            Matched::HostDown { host, runbooks } => {
                self.tell_only = runbooks.is_empty().then(|| {
                    format!(
                        "{host} does not answer: a person or its return helps, nothing else is tried"
                    )
                });
                self.consider(runbooks);
                self.subjects.insert(host);
                self.away.insert(name.to_owned());
            }
            Matched::Gate { .. } => {}
            Matched::TellOnly { why, subjects, .. } => {
                self.subjects.extend(subjects);
                if self.runbooks.is_empty() {
                    self.tell_only = Some(why);
                }
            }
        }
    }

    fn consider(&mut self, runbooks: Vec<RunbookId>) {
        for runbook in runbooks {
            if !self.runbooks.contains(&runbook) {
                self.runbooks.push(runbook);
            }
        }
    }

    /// Moves to the next state.
    ///
    /// # Errors
    /// [`IllegalTransition`]; nothing was changed.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> Result<(), IllegalTransition> {
        let mut next = self.state.clone().next(event, self.is_firing(), now)?;
        if let State::Resolved { how } = &mut next
            && self.is_of_log_lines()
        {
            LINES_AGED.clone_into(how);
        }
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
