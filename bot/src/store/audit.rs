//! Who asked for what, and what was decided. The table itself refuses changes and deletions.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    db::values,
    row::{Reader, micros, to_json},
};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// A chat identity, `cli:USER`, or `automation`.
    pub who: String,
    pub action: String,
    /// What it was about, for example `job:01J…`.
    pub target: String,
    pub body: Value,
}

impl Store {
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let sql = "INSERT INTO audit (at, who, action, target, body) VALUES ($1, $2, $3, $4, $5)";
        let body = to_json("audit entry", &entry.target, &entry.body)?;
        let values = values![
            micros(entry.at),
            &entry.who,
            &entry.action,
            &entry.target,
            body
        ];
        self.db
            .write("recording an audit entry", sql, values)
            .await?;
        Ok(())
    }

    /// The newest entries, newest first; of one target if named.
    pub async fn audit_log(
        &self,
        target: Option<&str>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = "SELECT * FROM audit WHERE $1 IS NULL OR target = $1 ORDER BY id DESC LIMIT $2";
        let values = values![target, limit];
        let found = self.db.read("reading the audit log", sql, values).await?;
        let entries = found.rows.iter();
        entries
            .map(|row| entry(&Reader::new("audit entry", "target", row)))
            .collect()
    }
}

fn entry(row: &Reader<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: row.time("at")?,
        who: row.get("who")?,
        action: row.get("action")?,
        target: row.get("target")?,
        body: row.json("body")?,
    })
}
