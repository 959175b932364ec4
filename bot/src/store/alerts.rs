//! Alerts, one row for each source and fingerprint. A whole webhook is one transaction of two statements.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Store, StoreError,
    db::{Lock, Sql, values, without_nul},
    inbox,
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

/// What a fold decides.
pub struct Folded<T> {
    /// Rows to be written.
    pub changed: Vec<AlertRow>,
    /// What the bot that leads is told of it, in the same transaction.
    pub parcel: Option<(Timestamp, Value)>,
    pub answer: T,
}

impl Store {
    /// Reads the known rows of `keys`, lets `fold` decide what to write, and writes it: one transaction, durable when it
    /// returns. What `fold` saw cannot change before it is written.
    pub async fn fold_alerts<T>(
        &self,
        keys: &[AlertKey],
        fold: impl FnOnce(HashMap<AlertKey, AlertRow>) -> Folded<T> + Send,
    ) -> Result<T, StoreError> {
        let what = "recording alerts";
        let clean = |text: &String| without_nul(text.clone());
        let asked: Vec<_> = keys
            .iter()
            .map(|key| (clean(&key.source), clean(&key.fingerprint)))
            .collect();
        let asked = to_json("alerts", "batch", &asked)?;
        let mut tx = self.db.begin(what, Lock::Alerts).await?;
        let found = tx.run(what, KNOWN, values![asked]).await?;
        let mut known = HashMap::with_capacity(found.rows.len());
        for row in &found.rows {
            let alert = alert(&Reader::new("alert", "fingerprint", row))?;
            known.insert(alert.key.clone(), alert);
        }
        let folded = fold(known);
        if !folded.changed.is_empty() {
            tx.run(what, UPSERT, values![batch(&folded.changed)?])
                .await?;
        }
        if let Some((at, parcel)) = &folded.parcel {
            inbox::put(&mut tx, parcel, *at).await?;
        }
        tx.commit(what).await?;
        Ok(folded.answer)
    }

    pub async fn alert(&self, key: &AlertKey) -> Result<Option<AlertRow>, StoreError> {
        let sql = "SELECT * FROM alerts WHERE source = $1 AND fingerprint = $2";
        let values = values![&key.source, &key.fingerprint];
        let row = self.db.read("reading an alert", sql, values).await?.first();
        row.map(|row| alert(&Reader::new("alert", "fingerprint", &row)))
            .transpose()
    }

    /// Firing alerts, oldest first.
    pub async fn firing_alerts(&self, limit: u32) -> Result<Vec<AlertRow>, StoreError> {
        let sql = "SELECT * FROM alerts WHERE firing = 1 ORDER BY starts_at LIMIT $1";
        let found = self.db.read("listing alerts", sql, values![limit]).await?;
        let rows = found.rows.iter();
        rows.map(|row| alert(&Reader::new("alert", "fingerprint", row)))
            .collect()
    }

    pub async fn count_firing(&self) -> Result<u64, StoreError> {
        let sql = "SELECT 'firing' AS what, count(*) AS firing FROM alerts WHERE firing = 1";
        let row = self
            .db
            .read("counting alerts", sql, values![])
            .await?
            .first();
        let count = row.map(|row| Reader::new("count", "what", &row).get::<i64>("firing"));
        Ok(count.transpose()?.unwrap_or(0).unsigned_abs())
    }

    /// Forgets alerts that were resolved before then; says how many.
    pub async fn prune_alerts(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM alerts WHERE firing = 0 AND updated_at < $1";
        let values = values![micros(before)];
        let pruned = self.db.write("forgetting old alerts", sql, values).await?;
        Ok(pruned.affected)
    }
}

/// The rows of the keys in `$1`, a JSON array of pairs.
const KNOWN: Sql = Sql::each(
    "SELECT a.* FROM json_each($1) k CROSS JOIN alerts a \
     ON a.source = k.value ->> 0 AND a.fingerprint = k.value ->> 1",
    "SELECT a.* FROM json_array_elements(CAST($1 AS json)) AS k (value) JOIN alerts a \
     ON a.source = k.value ->> 0 AND a.fingerprint = k.value ->> 1",
);

/// The columns of an alert out of the JSON arrays in `$1`. `WHERE true` keeps SQLite from reading `ON CONFLICT` as a join
/// condition.
macro_rules! upsert {
    ($rows:literal) => {
        concat!(
            "INSERT INTO alerts (source, fingerprint, name, firing, starts_at, updated_at, body) \
             SELECT value ->> 0, value ->> 1, value ->> 2, CAST(value ->> 3 AS BIGINT), \
             CAST(value ->> 4 AS BIGINT), CAST(value ->> 5 AS BIGINT), value ->> 6 FROM ",
            $rows,
            " WHERE true ON CONFLICT (source, fingerprint) DO UPDATE SET name = excluded.name, \
             firing = excluded.firing, starts_at = excluded.starts_at, updated_at = excluded.updated_at, \
             body = excluded.body"
        )
    };
}
const UPSERT: Sql = Sql::each(
    upsert!("json_each($1)"),
    upsert!("json_array_elements(CAST($1 AS json)) AS e (value)"),
);

fn batch(rows: &[AlertRow]) -> Result<String, StoreError> {
    let mut batch = Vec::with_capacity(rows.len());
    for row in rows {
        let body = to_json("alert", &row.key.fingerprint, &row.body)?;
        batch.push(json!([
            without_nul(row.key.source.clone()),
            without_nul(row.key.fingerprint.clone()),
            without_nul(row.name.clone()),
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
