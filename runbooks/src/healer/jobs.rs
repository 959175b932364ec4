//! A decision to act becomes a job: charged, in the journal, driven, settled.

use deploy_engine::job::{JobEvent, JobId, JobKind, JobResult, JobState};
use jiff::Timestamp;

use super::{Jobs, Ports};
use crate::{
    budget::{AUTOMATION, Spent},
    compile::facts,
    decide::HealPlan,
    format::RunbookId,
    incident::IncidentId,
    trust::{self, Mode, Record},
};

/// Charges the budget, then makes the job; in this order a crash in between costs a try, never gives one.
pub(super) async fn create(
    ports: &Ports,
    jobs: &dyn Jobs,
    id: &JobId,
    incident: &IncidentId,
    plan: &HealPlan,
    by: Option<&str>,
    now: Timestamp,
) -> Result<(), String> {
    let by = by.unwrap_or(AUTOMATION);
    let spent = Spent {
        job: id.to_string(),
        runbook: plan.runbook.clone(),
        targets: plan.targets.clone(),
        at: now,
        by: by.to_owned(),
        outcome: None,
        ended_at: None,
        version: Some(plan.version.clone()),
        cleared: None,
    };
    let records = &ports.records;
    let charged = tokio::try_join!(
        records.charge(&spent),
        records.use_override(&incident.0, &id.0, now)
    );
    charged.map_err(|error| error.to_string())?;
    let created = JobEvent::Created {
        kind: JobKind::Heal {
            incident: incident.to_string(),
            runbook: plan.runbook.to_string(),
        },
        title: plan.title.clone(),
        requested_by: by.to_owned(),
        scope: plan.scope.clone(),
        steps: plan.steps.clone(),
    };
    jobs.create(id, &created, now).await
}

/// Settles what was charged, and takes trust away where a proof failed.
pub(super) async fn settle(
    ports: &Ports,
    job: &JobId,
    state: Option<&JobState>,
    result: &JobResult,
    configured: impl Fn(&RunbookId) -> Mode,
    now: Timestamp,
) -> Result<Option<(RunbookId, Mode, String)>, String> {
    let outcome = trust::outcome(result, acted(state));
    let records = &ports.records;
    records
        .settle(&job.0, outcome, now)
        .await
        .map_err(|error| error.to_string())?;
    let Some(JobKind::Heal { runbook, .. }) = state.and_then(JobState::job).map(|job| &job.kind)
    else {
        return Ok(None);
    };
    let runbook = RunbookId(runbook.clone());
    let since = now
        .saturating_sub(crate::budget::LEDGER_SPAN)
        .unwrap_or(Timestamp::MIN);
    let ledger = records
        .ledger(since)
        .await
        .map_err(|error| error.to_string())?;
    let grants = records
        .grants(&runbook)
        .await
        .map_err(|error| error.to_string())?;
    let trusted =
        configured(&runbook) == Mode::Auto && grants.iter().all(|one| one.class.is_some());
    let granted = grants.iter().any(|grant| grant.mode == Mode::Auto);
    match trust::demotion(&Record::of(&runbook, "", &ledger, None)) {
        Some((to, why)) if trusted || granted => {
            let why = format!("{why} (job {job})");
            records
                .demote(&runbook, to, &why, now)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Some((runbook, to, why)))
        }
        _ => Ok(None),
    }
}

/// Did any step that changes something start?
pub(super) fn acted(state: Option<&JobState>) -> bool {
    state.and_then(JobState::job).is_some_and(|job| {
        job.steps
            .iter()
            .zip(&job.runs)
            .any(|(step, run)| facts::acts(step) && run.attempts > 0)
    })
}
