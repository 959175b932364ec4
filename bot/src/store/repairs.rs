//! The ledger of repairs: what budgets count, whoever asked for the repair (gate G7).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    db::{Lock, Sql, Value, values},
    kv,
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

/// A repair with its targets as a JSON array, and which repairs, in which order.
macro_rules! repairs {
    ($which:literal) => {
        Sql::each(
            concat!(
                "SELECT r.*, (SELECT json_group_array(t.target) FROM repair_targets t WHERE t.job = r.job) AS targets \
                 FROM repairs r ",
                $which
            ),
            concat!(
                "SELECT r.*, (SELECT coalesce(json_agg(t.target ORDER BY t.target), '[]')::text \
                 FROM repair_targets t WHERE t.job = r.job) AS targets FROM repairs r ",
                $which
            ),
        )
    };
}

impl Store {
    /// Charges a repair before its job starts, with what is noted beside it: the value of `note.1` in the space `note.0`. The same
    /// job again changes nothing.
    pub async fn repair_started(
        &self,
        repair: &Repair,
        note: Option<(&str, &str)>,
    ) -> Result<(), StoreError> {
        let what = "charging a repair";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        let sql = "INSERT INTO repairs (job, runbook, at, by) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let values = values![&repair.job, &repair.runbook, micros(repair.at), &repair.by];
        tx.later(what, sql, values).await?;
        for target in &repair.targets {
            let sql =
                "INSERT INTO repair_targets (job, target) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.later(what, sql, values![&repair.job, target]).await?;
        }
        if let Some((space, value)) = note {
            let values = values![space, &repair.job, value];
            tx.later(what, kv::PUT_NEW, values).await?;
        }
        // Its job is recorded after it.
        tx.commit_in_order(what).await
    }

    pub async fn repair_ended(
        &self,
        job: &str,
        outcome: RepairOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE repairs SET outcome = $1, ended_at = $2 WHERE job = $3";
        let values = values![outcome.word(), micros(now), job];
        self.db
            .write("recording the end of a repair", sql, values)
            .await?;
        Ok(())
    }

    /// What one job was charged with.
    pub async fn repair(&self, job: &str) -> Result<Option<Repair>, StoreError> {
        let sql = repairs!("WHERE r.job = $1");
        let found = self.db.read("reading a repair", sql, values![job]).await?;
        let row = found.first();
        row.map(|row| repair(&Reader::new("repair", "job", &row)))
            .transpose()
    }

    /// All repairs since then, oldest first: the budgets' windows are at most a day, so this stays short.
    pub async fn repairs_since(&self, since: Timestamp) -> Result<Vec<Repair>, StoreError> {
        self.repairs(
            repairs!("WHERE r.at >= $1 ORDER BY r.at"),
            values![micros(since)],
        )
        .await
    }

    /// The newest repairs of a runbook, newest first: what trust is earned and lost by.
    pub async fn repairs_of(&self, runbook: &str, limit: u32) -> Result<Vec<Repair>, StoreError> {
        let sql = repairs!("WHERE r.runbook = $1 ORDER BY r.at DESC LIMIT $2");
        self.repairs(sql, values![runbook, limit]).await
    }

    async fn repairs(&self, sql: Sql, values: Vec<Value>) -> Result<Vec<Repair>, StoreError> {
        let found = self.db.read("reading the repairs", sql, values).await?;
        let rows = found.rows.iter();
        rows.map(|row| repair(&Reader::new("repair", "job", row)))
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
