//! What the healer remembers, in the store.

use async_trait::async_trait;
use collectors::{Alert, SourceName, source::Reading};
use jiff::Timestamp;
use runbooks::{
    budget::{RepairOutcome, Spent},
    format::RunbookId,
    gate::{Halt, OVERRIDABLE, Overridden},
    healer::{DecisionRecord, RecordError, Records, StepJudgement},
    incident::{Incident, IncidentId},
    trust::{Drilled, Grant, Mode},
};
use serde_json::json;

use super::{earned, listed, notes};
use crate::{
    halt,
    store::{self, AlertKey, AuditEntry, Detail, IncidentRow, Repair, Store, StoreError},
    web,
};

/// The space of the store with the last decision about each incident.
const DECISIONS: &str = "decision";
/// The space of the store with what the gates last said to a job, before a step of it.
const JUDGEMENTS: &str = "judgement";
/// Alerts that are read at once after a restart: some 2 MB.
const ALERTS_PAGE: u32 = 1_000;
/// The action of a decision in the audit log.
const DECIDED: &str = "decide";
/// Decisions of one incident that are looked back on; an incident that waits for hours makes a new one for each new reason only.
const HISTORY_MAX: u32 = 100;
/// Who acts when nobody asked.
const AUTOMATION: &str = "automation";

pub struct BotRecords {
    pub store: Store,
    pub halt: halt::Halt,
}

fn failed(error: StoreError) -> RecordError {
    RecordError(error.to_string())
}

/// The last decision about an incident.
pub async fn decision_of(
    store: &Store,
    incident: &str,
) -> Result<Option<DecisionRecord>, StoreError> {
    let text = store.get(DECISIONS, incident).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// What the gates last said to a repair before one of its steps.
pub async fn judgement_of(store: &Store, job: &str) -> Result<Option<StepJudgement>, StoreError> {
    let text = store.get(JUDGEMENTS, job).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// The target of an incident in the audit log.
fn audited(incident: &IncidentId) -> String {
    format!("incident:{incident}")
}

/// What was decided about an incident, oldest first; the same answer again and again is there once.
pub async fn history_of(
    store: &Store,
    incident: &IncidentId,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut entries = store
        .audit_log(Some(&audited(incident)), HISTORY_MAX)
        .await?;
    entries.retain(|entry| entry.action == DECIDED);
    entries.reverse();
    Ok(entries)
}

fn unreadable(incident: &str, error: &serde_json::Error) -> RecordError {
    RecordError(format!("incident {incident}: {error}"))
}

fn row(incident: &Incident) -> Result<IncidentRow, RecordError> {
    listed::row(incident).map_err(|error| unreadable(&incident.id.0, &error))
}

#[async_trait]
impl Records for BotRecords {
    async fn firing_alerts(
        &self,
        last: Option<&(SourceName, String)>,
    ) -> Result<Vec<Alert>, RecordError> {
        let mut last = last.map(|(source, fingerprint)| AlertKey {
            source: source.0.clone(),
            fingerprint: fingerprint.clone(),
        });
        loop {
            let page = self.store.firing_after(last.as_ref(), ALERTS_PAGE).await;
            let page = page.map_err(failed)?;
            let Some(row) = page.last() else {
                return Ok(Vec::new());
            };
            last = Some(row.key.clone());
            let alerts = web::stored(page);
            // A whole page that cannot be read, of another version, is not the end.
            if !alerts.is_empty() {
                return Ok(alerts);
            }
        }
    }

    async fn open_incidents(&self) -> Result<Vec<Incident>, RecordError> {
        let rows = self.store.open_incidents(Detail::Whole).await;
        let read =
            |row: &IncidentRow| listed::whole(row).map_err(|error| unreadable(&row.id, &error));
        rows.map_err(failed)?.iter().map(read).collect()
    }

    async fn open_incident(&self, id: &IncidentId) -> Result<Option<Incident>, RecordError> {
        let row = self.store.incident(&id.0).await.map_err(failed)?;
        let open = row.filter(|row| row.closed_at.is_none());
        let read = open.map(|row| listed::whole(&row));
        read.transpose().map_err(|error| unreadable(&id.0, &error))
    }

    async fn put_incident(&self, incident: &Incident) -> Result<(), RecordError> {
        self.store
            .put_incident(&row(incident)?)
            .await
            .map_err(failed)
    }

    async fn put_incidents(&self, incidents: &[&Incident]) -> Result<(), RecordError> {
        let rows: Vec<_> = incidents
            .iter()
            .map(|one| row(one))
            .collect::<Result<_, _>>()?;
        self.store.put_incidents(&rows).await.map_err(failed)
    }

    async fn put_decision(&self, decision: &DecisionRecord) -> Result<(), RecordError> {
        let text =
            serde_json::to_string(decision).map_err(|error| RecordError(error.to_string()))?;
        let before = decision_of(&self.store, &decision.incident.0)
            .await
            .map_err(failed)?;
        let at = (DECISIONS, &*decision.incident.0);
        let same = before.is_some_and(|before| {
            std::mem::discriminant(&before.decision) == std::mem::discriminant(&decision.decision)
                && before.decision.why() == decision.decision.why()
        });
        if same {
            // The same answer every few seconds is one entry of the log.
            return self
                .store
                .put_in_order(at.0, at.1, &text)
                .await
                .map_err(failed);
        }
        let entry = AuditEntry {
            at: decision.at,
            who: AUTOMATION.to_owned(),
            action: DECIDED.to_owned(),
            target: audited(&decision.incident),
            body: json!({ "decision": decision.decision, "gates": decision.gates }),
        };
        let kept = self.store.put_and_audit_in_order(at, &text, &entry).await;
        kept.map_err(failed)
    }

    async fn ledger(&self, since: Timestamp) -> Result<Vec<Spent>, RecordError> {
        notes::ledger_of(&self.store, since).await.map_err(failed)
    }

    async fn charge(&self, spent: &Spent) -> Result<(), RecordError> {
        let repair = Repair {
            job: spent.job.clone(),
            runbook: spent.runbook.to_string(),
            targets: spent.targets.clone(),
            at: spent.at,
            by: spent.by.clone(),
            outcome: None,
            ended_at: None,
        };
        let charged = notes::charge(&self.store, &repair, spent.version.as_deref());
        charged.await.map_err(failed)
    }

    async fn settle(
        &self,
        job: &str,
        outcome: RepairOutcome,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        let outcome = match outcome {
            RepairOutcome::Verified => store::RepairOutcome::Verified,
            RepairOutcome::Unverified => store::RepairOutcome::Unverified,
            RepairOutcome::Refused => store::RepairOutcome::Refused,
            RepairOutcome::Cancelled => store::RepairOutcome::Cancelled,
        };
        self.store
            .repair_ended(job, outcome, at)
            .await
            .map_err(failed)
    }

    async fn decision(&self, incident: &IncidentId) -> Result<Option<DecisionRecord>, RecordError> {
        decision_of(&self.store, &incident.0).await.map_err(failed)
    }

    async fn put_judgement(&self, judgement: &StepJudgement) -> Result<(), RecordError> {
        let text =
            serde_json::to_string(judgement).map_err(|error| RecordError(error.to_string()))?;
        self.store
            .put_in_order(JUDGEMENTS, &judgement.job, &text)
            .await
            .map_err(failed)
    }

    async fn grants(&self, runbook: &RunbookId) -> Result<Vec<Grant>, RecordError> {
        earned::granted(&self.store, runbook).await.map_err(failed)
    }

    async fn drilled(&self, runbook: &RunbookId) -> Result<Option<Drilled>, RecordError> {
        notes::drilled_of(&self.store, runbook)
            .await
            .map_err(failed)
    }

    async fn demote(
        &self,
        runbook: &RunbookId,
        to: Mode,
        why: &str,
        at: Timestamp,
    ) -> Result<(), RecordError> {
        earned::demote(&self.store, runbook, to, AUTOMATION, why, at)
            .await
            .map_err(failed)
    }

    async fn readings(&self) -> Result<Vec<Reading>, RecordError> {
        crate::logs::readings(&self.store).await.map_err(failed)
    }

    async fn halt(&self) -> Result<Option<Halt>, RecordError> {
        Ok(self.halt.now().map(|halted| Halt {
            by: halted.by.to_string(),
            at: halted.at,
            why: halted.why,
        }))
    }

    async fn overridden(
        &self,
        incident: &str,
        job: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Overridden>, RecordError> {
        let all = self.store.overrides_of(incident).await.map_err(failed)?;
        let one = all.into_iter().find(|one| one.counts(job, now));
        // A gate that has no such name any more overrides nothing.
        Ok(one.and_then(|one| {
            let (_, gate) = OVERRIDABLE
                .into_iter()
                .find(|(name, _)| *name == one.gate)?;
            Some(Overridden {
                gate,
                by: one.made_by,
                why: one.reason,
                until: one.expires_at,
            })
        }))
    }

    async fn use_override(
        &self,
        incident: &str,
        job: &str,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let all = self.store.overrides_of(incident).await.map_err(failed)?;
        let Some(one) = all.into_iter().find(|one| one.counts(Some(job), now)) else {
            return Ok(());
        };
        match self
            .store
            .use_override(&one.id, job, now)
            .await
            .map_err(failed)?
        {
            true => Ok(()),
            false => Err(RecordError(format!("override {} is another job's", one.id))),
        }
    }
}

/// For answers: whatever is known of an incident, open or closed.
pub async fn incident_of(store: &Store, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
    let row = store.incident(&id.0).await?;
    Ok(row.and_then(|row| listed::whole(&row).ok()))
}
