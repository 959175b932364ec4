//! The ledger of repairs: what budgets count, whoever asked for the repair (gate G7).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairOutcome {
    /// The proof held for its settle time.
    Verified,
    Unverified,
    /// Refused before anything was done.
    Refused,
    Cancelled,
}

impl RepairOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repair {
    pub job: String,
    pub runbook: String,
    /// `host:NAME`, `domain:SERVICE`.
    pub targets: Vec<String>,
    pub at: Timestamp,
    /// A person, or `automation`.
    pub by: String,
    /// `None`: it is not over.
    pub outcome: Option<RepairOutcome>,
    pub ended_at: Option<Timestamp>,
}

impl Store {
    /// Charges a repair before its job starts; the same job again changes nothing.
    pub async fn repair_started(&self, repair: &Repair) -> Result<(), StoreError> {
        let what = "charging a repair";
        let mut tx = self.write(what).await?;
        sqlx::query(
            "INSERT INTO repairs (job, runbook, at, by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&repair.job)
        .bind(&repair.runbook)
        .bind(micros(repair.at))
        .bind(&repair.by)
        .execute(&mut *tx)
        .await
        .map_err(doing(what))?;
        for target in &repair.targets {
            sqlx::query(
                "INSERT INTO repair_targets (job, target) VALUES (?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(&repair.job)
            .bind(target)
            .execute(&mut *tx)
            .await
            .map_err(doing(what))?;
        }
        tx.commit().await.map_err(doing(what))
    }

    pub async fn repair_ended(
        &self,
        job: &str,
        outcome: RepairOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE repairs SET outcome = ?, ended_at = ? WHERE job = ?")
            .bind(outcome.word())
            .bind(micros(now))
            .bind(job)
            .execute(&self.writer)
            .await
            .map_err(doing("recording the end of a repair"))?;
        Ok(())
    }

    /// What one job was charged with.
    pub async fn repair(&self, job: &str) -> Result<Option<Repair>, StoreError> {
        let row = sqlx::query(
            "SELECT r.*, (SELECT json_group_array(t.target) FROM repair_targets t WHERE t.job = r.job) AS targets \
             FROM repairs r WHERE r.job = ?",
        )
        .bind(job)
        .fetch_optional(&self.readers)
        .await
        .map_err(doing("reading a repair"))?;
        row.map(|row| repair(&Reader::new("repair", "job", &row)))
            .transpose()
    }

    /// All repairs since then, oldest first: the budgets' windows are at most a day, so this stays short.
    pub async fn repairs_since(&self, since: Timestamp) -> Result<Vec<Repair>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.*, (SELECT json_group_array(t.target) FROM repair_targets t WHERE t.job = r.job) AS targets \
             FROM repairs r WHERE r.at >= ? ORDER BY r.at",
        )
        .bind(micros(since))
        .fetch_all(&self.readers)
        .await
        .map_err(doing("reading the repairs"))?;
        rows.iter()
            .map(|row| repair(&Reader::new("repair", "job", row)))
            .collect()
    }

    /// The newest repairs of a runbook, newest first: what trust is earned and lost by.
    pub async fn repairs_of(&self, runbook: &str, limit: u32) -> Result<Vec<Repair>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.*, (SELECT json_group_array(t.target) FROM repair_targets t WHERE t.job = r.job) AS targets \
             FROM repairs r WHERE r.runbook = ? ORDER BY r.at DESC LIMIT ?",
        )
        .bind(runbook)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(doing("reading the repairs"))?;
        rows.iter()
            .map(|row| repair(&Reader::new("repair", "job", row)))
            .collect()
    }
}

fn repair(row: &Reader<'_>) -> Result<Repair, StoreError> {
    let outcome: Option<String> = row.get("outcome")?;
    Ok(Repair {
        job: row.get("job")?,
        runbook: row.get("runbook")?,
        targets: row.json("targets")?,
        at: row.time("at")?,
        by: row.get("by")?,
        outcome: outcome.map(|_| row.word("outcome")).transpose()?,
        ended_at: row.time_if_any("ended_at")?,
    })
}
