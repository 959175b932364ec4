//! Alerts, one row for each source and fingerprint. Many webhooks are one transaction of few statements.

use std::{collections::HashMap, sync::LazyLock};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{self, Lock, Sql, Tx, values, without_nul},
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

/// `body`: the JSON of the collector's alert. A text: a storm is mostly written, and hardly read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlertRow {
    pub key: AlertKey,
    pub name: String,
    pub firing: bool,
    pub starts_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(serialize_with = "as_json")]
    pub body: String,
}

/// A body as what it says, for people and programs that read a list.
fn as_json<S: Serializer>(body: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    value.serialize(serializer)
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
        let answer = self.fold_alerts_in_order(keys, fold).await?;
        self.durable().await?;
        Ok(answer)
    }

    /// As [`Store::fold_alerts`], but durable only after the next [`Store::durable`].
    pub async fn fold_alerts_in_order<T>(
        &self,
        keys: &[AlertKey],
        fold: impl FnOnce(HashMap<AlertKey, AlertRow>) -> Folded<T> + Send,
    ) -> Result<T, StoreError> {
        let what = "recording alerts";
        let mut tx = self.db.begin(what, Lock::Alerts).await?;
        let known = known(&mut tx, keys).await?;
        let known = known.into_iter().map(|row| (row.key.clone(), row));
        let folded = fold(known.collect());
        upsert(&mut tx, what, folded.changed).await?;
        if let Some((at, parcel)) = &folded.parcel {
            inbox::put(&mut tx, parcel, *at).await?;
        }
        tx.commit_in_order(what).await?;
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

    /// A page of the firing alerts, by source and fingerprint: those after `last`.
    pub async fn firing_after(
        &self,
        last: Option<&AlertKey>,
        limit: u32,
    ) -> Result<Vec<AlertRow>, StoreError> {
        let sql = "SELECT * FROM alerts WHERE firing = 1 AND (source, fingerprint) > ($1, $2) \
                   ORDER BY source, fingerprint LIMIT $3";
        // No source has an empty name.
        let (source, fingerprint) = match last {
            Some(last) => (last.source.as_str(), last.fingerprint.as_str()),
            None => ("", ""),
        };
        let values = values![source, fingerprint, limit];
        let found = self.db.read("listing alerts", sql, values).await?;
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

/// The rows of these keys, those that there are.
pub(super) async fn known(tx: &mut Tx, keys: &[AlertKey]) -> Result<Vec<AlertRow>, StoreError> {
    let clean = |text: &String| without_nul(text.clone());
    let asked: Vec<_> = keys
        .iter()
        .map(|key| (clean(&key.source), clean(&key.fingerprint)))
        .collect();
    let asked = to_json("alerts", "batch", &asked)?;
    let found = tx.run("reading alerts", KNOWN, values![asked]).await?;
    let rows = found.rows.iter();
    rows.map(|row| alert(&Reader::new("alert", "fingerprint", row)))
        .collect()
}

/// All that fire of one source, but for these.
pub(super) async fn others_firing(
    tx: &mut Tx,
    source: &str,
    but: &[String],
) -> Result<Vec<AlertRow>, StoreError> {
    let but: Vec<_> = but.iter().map(|text| without_nul(text.clone())).collect();
    let but = to_json("alerts", source, &but)?;
    let values = values![without_nul(source.to_owned()), but];
    let found = tx.run("reading alerts", OTHERS_FIRING, values).await?;
    let rows = found.rows.iter();
    rows.map(|row| alert(&Reader::new("alert", "fingerprint", row)))
        .collect()
}

const OTHERS_FIRING: Sql = Sql::each(
    "SELECT * FROM alerts WHERE firing = 1 AND source = $1 \
     AND fingerprint NOT IN (SELECT value FROM json_each($2))",
    "SELECT * FROM alerts WHERE firing = 1 AND source = $1 \
     AND fingerprint NOT IN (SELECT json_array_elements_text(CAST($2 AS json)))",
);

/// The rows of the keys in `$1`, a JSON array of pairs.
const KNOWN: Sql = Sql::each(
    "SELECT a.* FROM json_each($1) k CROSS JOIN alerts a \
     ON a.source = k.value ->> 0 AND a.fingerprint = k.value ->> 1",
    "SELECT a.* FROM json_array_elements(CAST($1 AS json)) AS k (value) JOIN alerts a \
     ON a.source = k.value ->> 0 AND a.fingerprint = k.value ->> 1",
);

/// A statement that adds or replaces so many rows at once.
struct Upsert {
    rows: usize,
    /// Its places have no names: SQLite looks through all of these for each value.
    sqlite: String,
    postgres: String,
}

/// The largest first. Each is prepared once; a statement for every row would go to the writer's thread and back for every row.
static UPSERTS: LazyLock<[Upsert; 4]> = LazyLock::new(|| {
    [128, 32, 8, 1].map(|rows| Upsert {
        rows,
        sqlite: upsert_of(rows, |_| "?".to_owned()),
        postgres: upsert_of(rows, |number| format!("${number}")),
    })
});

/// `place`: how the value of this number is written, from 1.
fn upsert_of(rows: usize, place: impl Fn(usize) -> String) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=COLUMNS).map(|n| place(row * COLUMNS + n)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO alerts (source, fingerprint, name, firing, starts_at, updated_at, body) VALUES {} \
         ON CONFLICT (source, fingerprint) DO UPDATE SET name = excluded.name, firing = excluded.firing, \
         starts_at = excluded.starts_at, updated_at = excluded.updated_at, body = excluded.body",
        rows.join(", ")
    )
}

/// Columns of an alert.
const COLUMNS: usize = 7;

fn columns(row: AlertRow) -> [db::Value; COLUMNS] {
    [
        without_nul(row.key.source).into(),
        without_nul(row.key.fingerprint).into(),
        without_nul(row.name).into(),
        i64::from(row.firing).into(),
        micros(row.starts_at).into(),
        micros(row.updated_at).into(),
        row.body.into(),
    ]
}

/// No two rows of one key.
pub(super) async fn upsert(
    tx: &mut Tx,
    what: &'static str,
    rows: Vec<AlertRow>,
) -> Result<(), StoreError> {
    let mut rows = rows.into_iter();
    for upsert in UPSERTS.iter() {
        let sql = Sql::each(&upsert.sqlite, &upsert.postgres);
        while rows.len() >= upsert.rows {
            let values = rows.by_ref().take(upsert.rows).flat_map(columns).collect();
            tx.run(what, sql, values).await?;
        }
    }
    Ok(())
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
        body: row.get("body")?,
    })
}
