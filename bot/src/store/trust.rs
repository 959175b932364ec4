//! What each runbook has earned on this site.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Store, StoreError,
    db::values,
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
        let sql = "INSERT INTO trust (runbook, mode, changed_at, changed_by, body) \
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT (runbook) DO UPDATE SET mode = excluded.mode, \
                   changed_at = excluded.changed_at, changed_by = excluded.changed_by, body = excluded.body";
        let body = to_json("trust", &trust.runbook, &trust.body)?;
        let values = values![
            &trust.runbook,
            trust.mode.word(),
            micros(trust.changed_at),
            &trust.changed_by,
            body
        ];
        self.db.write("recording trust", sql, values).await?;
        Ok(())
    }

    /// By runbook.
    pub async fn trust(&self) -> Result<Vec<Trust>, StoreError> {
        let sql = "SELECT * FROM trust ORDER BY runbook";
        let found = self.db.read("reading trust", sql, values![]).await?;
        let rows = found.rows.iter();
        rows.map(|row| trust(&Reader::new("trust", "runbook", row)))
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
