//! After a restart: incidents and holds come from the records, jobs from the journal, alerts from the store. Nothing is begun
//! twice, nothing is forgotten.

use std::collections::{BTreeMap, HashSet};

use collectors::{Alert, SourceName, Status};
use deploy_engine::job::{JobId, JobKind, JobState};
use jiff::Timestamp;

use super::{Jobs, Ports, Records, ports::state};
use crate::{
    budget::{LEDGER_SPAN, RepairOutcome},
    incident::{Event, Incident, IncidentId, Incidents, State, alert_key},
};

/// Alerts that fire, page by page: very many may, and one that is left out would be taken for ended.
#[derive(Default)]
pub(super) struct Pages {
    last: Option<(SourceName, String)>,
}

impl Pages {
    /// None: there are no more.
    pub async fn next(&mut self, records: &dyn Records) -> Result<Option<Vec<Alert>>, String> {
        let page = records.firing_alerts(self.last.as_ref()).await;
        let page = page.map_err(|error| error.to_string())?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.last = Some(last.key());
        Ok(Some(page))
    }
}

/// What a restarted healer goes on with.
pub(super) struct Restored {
    pub incidents: Incidents,
    /// Repairs to be driven on.
    pub jobs: Vec<(JobId, IncidentId)>,
}

pub(super) async fn restore(
    ports: &Ports,
    jobs: &dyn Jobs,
    now: Timestamp,
) -> Result<Restored, String> {
    let open = ports
        .records
        .open_incidents()
        .await
        .map_err(|error| error.to_string())?;
    let mut incidents: BTreeMap<IncidentId, Incident> =
        open.into_iter().map(|one| (one.id.clone(), one)).collect();
    let unfinished = unfinished(ports).await?;
    for (job, incident) in &unfinished {
        // The job was in the journal before the incident knew of it.
        if let Some(incident) = incidents.get_mut(incident)
            && incident.state.job() != Some(&job.0)
        {
            let event = Event::JobStarted {
                job: job.to_string(),
            };
            incident
                .apply(&event, now)
                .map_err(|error| error.to_string())?;
        }
    }
    settle_lost(ports, jobs, now).await?;
    end_finished(jobs, &mut incidents, &unfinished, now).await?;
    end_silent(ports, &mut incidents, now).await?;
    Ok(Restored {
        incidents: incidents.into_values().collect(),
        jobs: unfinished,
    })
}

async fn unfinished(ports: &Ports) -> Result<Vec<(JobId, IncidentId)>, String> {
    let mut heals = Vec::new();
    for job in ports
        .journal
        .unfinished()
        .await
        .map_err(|error| error.to_string())?
    {
        let state = state(&*ports.journal, &job).await?;
        if let Some(JobKind::Heal { incident, .. }) =
            state.as_ref().and_then(JobState::job).map(|job| &job.kind)
        {
            heals.push((job, IncidentId(incident.clone())));
        }
    }
    Ok(heals)
}

/// Charged, but the job was never made, or it ended and nobody wrote it down.
async fn settle_lost(ports: &Ports, jobs: &dyn Jobs, now: Timestamp) -> Result<(), String> {
    let since = now.saturating_sub(LEDGER_SPAN).unwrap_or(Timestamp::MIN);
    for spent in ports
        .records
        .ledger(since)
        .await
        .map_err(|error| error.to_string())?
    {
        if spent.outcome.is_some() {
            continue;
        }
        let state = jobs.state(&JobId(spent.job.clone())).await?;
        let outcome = match state.as_ref().map(JobState::result) {
            None => RepairOutcome::Refused, // nothing was done: it never was a job
            Some(None) => continue,
            Some(Some(result)) => crate::trust::outcome(result, super::jobs::acted(state.as_ref())),
        };
        ports
            .records
            .settle(&spent.job, outcome, now)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Incidents whose job finished while nobody looked.
async fn end_finished(
    jobs: &dyn Jobs,
    incidents: &mut BTreeMap<IncidentId, Incident>,
    unfinished: &[(JobId, IncidentId)],
    now: Timestamp,
) -> Result<(), String> {
    for incident in incidents.values_mut() {
        let Some(job) = incident.state.job().map(|job| JobId(job.to_owned())) else {
            continue;
        };
        if unfinished.iter().any(|(id, _)| *id == job) {
            continue;
        }
        let state = jobs.state(&job).await?;
        match state.as_ref().and_then(JobState::result) {
            Some(result) => {
                let event = Event::JobEnded {
                    job: job.to_string(),
                    result: result.clone(),
                    acted: super::jobs::acted(state.as_ref()),
                };
                incident
                    .apply(&event, now)
                    .map_err(|error| error.to_string())?;
            }
            None => incident.state = State::Open, // the job was never made
        }
    }
    Ok(())
}

/// Alerts that ended while nobody listened.
async fn end_silent(
    ports: &Ports,
    incidents: &mut BTreeMap<IncidentId, Incident>,
    now: Timestamp,
) -> Result<(), String> {
    let mut firing = HashSet::new();
    let mut pages = Pages::default();
    while let Some(page) = pages.next(&*ports.records).await? {
        firing.extend(page.iter().map(alert_key));
    }
    for incident in incidents.values_mut() {
        let mut ended = false;
        for (key, alert) in &mut incident.alerts {
            if alert.status == Status::Firing && !firing.contains(key) {
                alert.status = Status::Resolved;
                alert.ends_at = Some(now);
                ended = true;
            }
        }
        let more = incident.more.len();
        incident.more.retain(|key| firing.contains(key));
        ended |= incident.more.len() < more;
        incident.explained.retain(|key, _| firing.contains(key));
        if ended && !incident.is_firing() {
            incident
                .apply(&Event::AlertsChanged, now)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
