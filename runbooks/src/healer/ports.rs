//! What the healer needs of others. The bot implements the records; the rest is implemented here for the real sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use collectors::{
    Alert, SourceName,
    alertmanager::{AlertmanagerClient, Silence},
    icinga2::{CheckState, Held, Named},
    prometheus::{PrometheusSource, RuleState, ScrapeTarget},
    source::Reading,
};
use deploy_engine::{
    job::{JobEvent, JobId, JobResult, JobState, Journal},
    model::HostName,
    runner::{Clock, Evidence, Runner},
    transport::Hosts,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DecisionRecord, Sighting, StepJudgement};
use crate::{
    budget::{RepairOutcome, Spent},
    format::RunbookId,
    gate::{Halt, Overridden},
    incident::{Incident, IncidentId},
    storm::Storm,
    trust::{Drilled, Grant, Mode},
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records cannot be used: {0}")]
pub struct RecordError(pub String);

/// What is kept of incidents, decisions, budgets and trust. A write is on the disk when it returns, or (incidents,
/// decisions, judgements, charges) no later than whatever is recorded after it, jobs and their intents among that; without
/// them nothing is started.
#[async_trait]
pub trait Records: Send + Sync {
    /// A page of the alerts that fire now, for a start after a restart: by source and fingerprint, those after `last`. None are
    /// left when it is empty.
    async fn firing_alerts(
        &self,
        last: Option<&(SourceName, String)>,
    ) -> Result<Vec<Alert>, RecordError>;
    async fn open_incidents(&self) -> Result<Vec<Incident>, RecordError>;
    /// One of them; in a storm all of them are very large.
    async fn open_incident(&self, id: &IncidentId) -> Result<Option<Incident>, RecordError> {
        let open = self.open_incidents().await?;
        Ok(open.into_iter().find(|one| one.id == *id))
    }
    async fn put_incident(&self, incident: &Incident) -> Result<(), RecordError>;
    /// All or none, where records can; none is fine.
    async fn put_incidents(&self, incidents: &[&Incident]) -> Result<(), RecordError> {
        for incident in incidents {
            self.put_incident(incident).await?;
        }
        Ok(())
    }
    /// For `!why`: what was decided, by whom or what, on which evidence.
    async fn put_decision(&self, decision: &DecisionRecord) -> Result<(), RecordError>;
    /// Repairs since then, oldest first, whoever asked for them.
    async fn ledger(&self, since: Timestamp) -> Result<Vec<Spent>, RecordError>;
    /// Charges a repair before its job is made; the same job again changes nothing.
    async fn charge(&self, spent: &Spent) -> Result<(), RecordError>;
    async fn settle(
        &self,
        job: &str,
        outcome: RepairOutcome,
        at: Timestamp,
    ) -> Result<(), RecordError>;
    /// The last decision about an incident.
    async fn decision(&self, incident: &IncidentId) -> Result<Option<DecisionRecord>, RecordError>;
    /// What the gates said before a step.
    async fn put_judgement(&self, judgement: &StepJudgement) -> Result<(), RecordError>;
    /// Modes that were granted; none: the configuration's.
    async fn grants(&self, runbook: &RunbookId) -> Result<Vec<Grant>, RecordError>;
    /// The drill that a runbook last passed.
    async fn drilled(&self, runbook: &RunbookId) -> Result<Option<Drilled>, RecordError>;
    /// A demotion, at once: every grant of it that goes further goes no further than `to`.
    async fn demote(
        &self,
        runbook: &RunbookId,
        to: Mode,
        why: &str,
        at: Timestamp,
    ) -> Result<(), RecordError>;
    async fn halt(&self) -> Result<Option<Halt>, RecordError>;
    /// The gate that somebody overrode for this incident, for a job that is not made yet or for this very one. Records that know
    /// no overrides have none.
    async fn overridden(
        &self,
        _incident: &str,
        _job: Option<&str>,
        _now: Timestamp,
    ) -> Result<Option<Overridden>, RecordError> {
        Ok(None)
    }
    /// What was read in logs of late. Records that know no logs have none.
    async fn readings(&self) -> Result<Vec<Reading>, RecordError> {
        Ok(Vec::new())
    }
    /// Ties an override of this incident, if there is one, to the one job that it counts for.
    async fn use_override(
        &self,
        _incident: &str,
        _job: &str,
        _now: Timestamp,
    ) -> Result<(), RecordError> {
        Ok(())
    }
}

/// Prometheus as evidence, and Icinga beside it.
#[async_trait]
pub trait Metrics: Send + Sync {
    async fn rules(&self) -> Result<Vec<RuleState>, String>;
    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String>;
    /// Is it up and past the replay of its log?
    async fn ready(&self) -> Result<(), String>;
    /// These checks as Icinga last ran them; those that there are.
    async fn checks(&self, _of: &BTreeSet<Named>) -> Result<Vec<CheckState>, String> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Metrics for PrometheusSource {
    async fn rules(&self) -> Result<Vec<RuleState>, String> {
        self.alerting_rules()
            .await
            .map_err(|error| error.to_string())
    }

    async fn targets(&self) -> Result<Vec<ScrapeTarget>, String> {
        self.scrape_targets()
            .await
            .map_err(|error| error.to_string())
    }

    async fn ready(&self) -> Result<(), String> {
        PrometheusSource::ready(self)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Silences that people set.
#[async_trait]
pub trait Silences: Send + Sync {
    async fn silences(&self) -> Result<Vec<Silence>, String>;
    /// Does it answer for itself?
    async fn well(&self) -> Result<(), String>;
    /// Downtimes and acknowledgements in Icinga; none: there is no Icinga to be asked.
    async fn held(&self) -> Option<Result<Vec<Held>, String>> {
        None
    }
}

#[async_trait]
impl Silences for AlertmanagerClient {
    async fn silences(&self) -> Result<Vec<Silence>, String> {
        AlertmanagerClient::silences(self)
            .await
            .map_err(|error| error.to_string())
    }

    async fn well(&self) -> Result<(), String> {
        let status = self.status().await.map_err(|error| error.to_string())?;
        match status.cluster.as_str() {
            "ready" | "disabled" => Ok(()),
            other => Err(format!("its cluster is {other}")),
        }
    }
}

/// Jobs of the engine.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Durable when it returns.
    async fn create(&self, job: &JobId, created: &JobEvent, at: Timestamp) -> Result<(), String>;
    /// Drives a job to its end, from wherever its journal ends.
    async fn run(&self, job: &JobId) -> Result<JobResult, String>;
    /// None: there is no such job.
    async fn state(&self, job: &JobId) -> Result<Option<JobState>, String>;
}

/// The journal and the runner of the engine.
pub struct EngineJobs {
    pub journal: Arc<dyn Journal>,
    pub runner: Arc<Runner>,
}

#[async_trait]
impl Jobs for EngineJobs {
    async fn create(&self, job: &JobId, created: &JobEvent, at: Timestamp) -> Result<(), String> {
        self.journal
            .create(job, at, created)
            .await
            .map_err(|error| error.to_string())
    }

    async fn run(&self, job: &JobId) -> Result<JobResult, String> {
        self.runner
            .run(job)
            .await
            .map_err(|error| error.to_string())
    }

    async fn state(&self, job: &JobId) -> Result<Option<JobState>, String> {
        state(&*self.journal, job).await
    }
}

/// The state of a job of the journal.
pub(super) async fn state(journal: &dyn Journal, job: &JobId) -> Result<Option<JobState>, String> {
    match journal.load(job).await {
        Ok(events) => JobState::fold(&events)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(deploy_engine::job::JournalError::Unknown(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Something that people should see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum News {
    /// An incident was opened or its state changed. `page`: somebody has to look now.
    Incident {
        incident: Box<Incident>,
        page: bool,
    },
    /// A runbook lost trust.
    Demoted {
        runbook: RunbookId,
        to: Mode,
        why: String,
    },
    Storm {
        storm: Storm,
    },
    /// The healer itself cannot go on as it should.
    Trouble {
        what: String,
    },
}

/// Tells people. Must return at once: queue, never wait.
pub trait Tell: Send + Sync {
    fn tell(&self, news: News);
}

/// What the healer and the gate before each step both look at.
#[derive(Debug, Default)]
pub struct Vitals(Mutex<VitalsNow>);

#[derive(Clone, Debug, Default)]
pub struct VitalsNow {
    /// By the bot's own clock.
    pub watchdog_seen: Option<Timestamp>,
    pub storm: Storm,
    /// Open incidents: domain scope → runbooks that may be about it.
    pub open: Vec<(String, Vec<RunbookId>)>,
    /// Hosts that open incidents say are down.
    pub hosts_down: BTreeSet<HostName>,
    /// Gate G3 did not pass when it was last asked.
    pub monitoring_lost: Option<MonitoringLost>,
    /// Domain scope → what was seen when it was last decided: what the first step need not ask again while it is fresh.
    pub sightings: BTreeMap<String, Sighting>,
    /// What hosts last said of themselves.
    pub pulses: BTreeMap<HostName, Pulse>,
}

/// What a host says of itself in passing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// By the bot's clock: when it was asked, and when it had answered.
    pub asked_at: Timestamp,
    pub answered_at: Timestamp,
    /// The host's own clock in between.
    pub clock: Timestamp,
    /// Somebody works on it.
    pub marker: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitoringLost {
    pub since: Timestamp,
    /// Nobody asked later: an old word says nothing about now.
    pub judged_at: Timestamp,
}

impl Vitals {
    pub fn get(&self) -> VitalsNow {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn set(&self, change: impl FnOnce(&mut VitalsNow)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Everything that the healer works with, but for the jobs (whose runner needs the gate, which needs these).
#[derive(Clone)]
pub struct Ports {
    pub records: Arc<dyn Records>,
    pub evidence: Arc<dyn Evidence>,
    pub hosts: Arc<dyn Hosts>,
    pub journal: Arc<dyn Journal>,
    pub metrics: Arc<dyn Metrics>,
    pub silences: Arc<dyn Silences>,
    pub tell: Arc<dyn Tell>,
    pub clock: Arc<dyn Clock>,
    pub vitals: Arc<Vitals>,
}
