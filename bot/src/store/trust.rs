//! What each runbook has earned on this site.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros, to_json},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustMode {
    Shadow,
    Ask,
    Auto,
}

impl TrustMode {
    fn word(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Ask => "ask",
            Self::Auto => "auto",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trust {
    pub runbook: String,
    pub mode: TrustMode,
    pub changed_at: Timestamp,
    pub changed_by: String,
    /// Why, and what it rests on.
    pub body: Value,
}

impl Store {
    pub async fn put_trust(&self, trust: &Trust) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO trust (runbook, mode, changed_at, changed_by, body) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&trust.runbook)
        .bind(trust.mode.word())
        .bind(micros(trust.changed_at))
        .bind(&trust.changed_by)
        .bind(to_json("trust", &trust.runbook, &trust.body)?)
        .execute(&self.writer)
        .await
        .map_err(doing("recording trust"))?;
        Ok(())
    }

    /// By runbook.
    pub async fn trust(&self) -> Result<Vec<Trust>, StoreError> {
        let rows = sqlx::query("SELECT * FROM trust ORDER BY runbook")
            .fetch_all(&self.readers)
            .await;
        let rows = rows.map_err(doing("reading trust"))?;
        rows.iter()
            .map(|row| trust(&Reader::new("trust", "runbook", row)))
            .collect()
    }
}

fn trust(row: &Reader<'_>) -> Result<Trust, StoreError> {
    Ok(Trust {
        runbook: row.get("runbook")?,
        mode: row.word("mode")?,
        changed_at: row.time("changed_at")?,
        changed_by: row.get("changed_by")?,
        body: row.json("body")?,
    })
}
