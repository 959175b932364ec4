//! Alerts, one row for each source and fingerprint. A whole webhook is one transaction of two statements.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros, to_json},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AlertKey {
    pub source: String,
    pub fingerprint: String,
}

impl AlertKey {
    pub fn of(alert: &collectors::Alert) -> Self {
        Self {
            source: alert.source.0.clone(),
            fingerprint: alert.fingerprint.clone(),
        }
    }
}

/// `body`: the collector's alert, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertRow {
    pub key: AlertKey,
    pub name: String,
    pub firing: bool,
    pub starts_at: Timestamp,
    pub updated_at: Timestamp,
    pub body: Value,
}

impl Store {
    /// Reads the known rows of `keys`, lets `fold` decide what to write, and writes it: one transaction, durable when it
    /// returns. What `fold` saw cannot change before it is written.
    pub async fn fold_alerts<T>(
        &self,
        keys: &[AlertKey],
        fold: impl FnOnce(HashMap<AlertKey, AlertRow>) -> (Vec<AlertRow>, T) + Send,
    ) -> Result<T, StoreError> {
        let what = "recording alerts";
        let asked: Vec<_> = keys
            .iter()
            .map(|key| (&key.source, &key.fingerprint))
            .collect();
        let asked = to_json("alerts", "batch", &asked)?;
        let mut tx = self.write(what).await?;
        let rows = sqlx::query(
            "SELECT a.* FROM json_each(?) k CROSS JOIN alerts a \
             ON a.source = k.value ->> 0 AND a.fingerprint = k.value ->> 1",
        )
        .bind(asked)
        .fetch_all(&mut *tx)
        .await
        .map_err(doing(what))?;
        let mut known = HashMap::with_capacity(rows.len());
        for row in &rows {
            let alert = alert(&Reader::new("alert", "fingerprint", row))?;
            known.insert(alert.key.clone(), alert);
        }
        let (changed, answer) = fold(known);
        if !changed.is_empty() {
            sqlx::query(UPSERT)
                .bind(batch(&changed)?)
                .execute(&mut *tx)
                .await
                .map_err(doing(what))?;
        }
        tx.commit().await.map_err(doing(what))?;
        Ok(answer)
    }

    pub async fn alert(&self, key: &AlertKey) -> Result<Option<AlertRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM alerts WHERE source = ? AND fingerprint = ?")
            .bind(&key.source)
            .bind(&key.fingerprint)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading an alert"))?;
        row.map(|row| alert(&Reader::new("alert", "fingerprint", &row)))
            .transpose()
    }

    /// Firing alerts, oldest first.
    pub async fn firing_alerts(&self, limit: u32) -> Result<Vec<AlertRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM alerts WHERE firing = 1 ORDER BY starts_at LIMIT ?")
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(doing("listing alerts"))?;
        rows.iter()
            .map(|row| alert(&Reader::new("alert", "fingerprint", row)))
            .collect()
    }

    pub async fn count_firing(&self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM alerts WHERE firing = 1")
            .fetch_one(&self.readers)
            .await
            .map_err(doing("counting alerts"))?;
        Ok(count.unsigned_abs())
    }

    /// Forgets alerts that were resolved before then; says how many.
    pub async fn prune_alerts(&self, before: Timestamp) -> Result<u64, StoreError> {
        let pruned = sqlx::query("DELETE FROM alerts WHERE firing = 0 AND updated_at < ?")
            .bind(micros(before))
            .execute(&self.writer)
            .await
            .map_err(doing("forgetting old alerts"))?;
        Ok(pruned.rows_affected())
    }
}

/// `WHERE true` keeps SQLite from reading `ON CONFLICT` as a join condition.
const UPSERT: &str = "INSERT INTO alerts (source, fingerprint, name, firing, starts_at, updated_at, body) \
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
    FROM json_each(?) WHERE true \
    ON CONFLICT (source, fingerprint) DO UPDATE SET name = excluded.name, firing = excluded.firing, \
    starts_at = excluded.starts_at, updated_at = excluded.updated_at, body = excluded.body";

fn batch(rows: &[AlertRow]) -> Result<String, StoreError> {
    let mut batch = Vec::with_capacity(rows.len());
    for row in rows {
        let body = to_json("alert", &row.key.fingerprint, &row.body)?;
        batch.push(json!([
            row.key.source,
            row.key.fingerprint,
            row.name,
            i64::from(row.firing),
            micros(row.starts_at),
            micros(row.updated_at),
            body
        ]));
    }
    to_json("alerts", "batch", &batch)
}

fn alert(row: &Reader<'_>) -> Result<AlertRow, StoreError> {
    Ok(AlertRow {
        key: AlertKey {
            source: row.get("source")?,
            fingerprint: row.get("fingerprint")?,
        },
        name: row.get("name")?,
        firing: row.get::<i64>("firing")? == 1,
        starts_at: row.time("starts_at")?,
        updated_at: row.time("updated_at")?,
        body: row.json("body")?,
    })
}
