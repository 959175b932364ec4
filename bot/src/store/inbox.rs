//! What webhooks brought to any bot, for the one that leads.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{Tx, values},
    row::{Reader, micros, to_json},
};

/// Webhooks that may wait for a bot that leads. Each is stored, so a new leader knows the alerts; past this senders are asked
/// to come again, which they do.
pub(super) const INBOX_MAX: i64 = 1_024;

/// One webhook's alerts, each with what it changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parcel {
    pub id: i64,
    pub at: Timestamp,
    pub body: Value,
}

impl Store {
    /// What waits, oldest first.
    pub async fn inbox(&self, limit: u32) -> Result<Vec<Parcel>, StoreError> {
        let sql = "SELECT * FROM inbox ORDER BY id LIMIT $1";
        let found = self
            .db
            .read("reading the inbox", sql, values![limit])
            .await?;
        let parcel = |row| {
            let row = Reader::new("parcel", "body", row);
            Ok(Parcel {
                id: row.get("id")?,
                at: row.time("at")?,
                body: row.json("body")?,
            })
        };
        found.rows.iter().map(parcel).collect()
    }

    /// The healer has heard everything up to a parcel. False: nothing was taken out, because another bot leads by now, whose healer
    /// has not.
    pub async fn inbox_heard(&self, last: i64) -> Result<bool, StoreError> {
        let sql = "DELETE FROM inbox WHERE id <= $1 \
                   AND EXISTS (SELECT 1 FROM leadership WHERE name = 'leader' AND holder = $2)";
        let values = values![last, self.replica()];
        let emptied = self.db.write("emptying the inbox", sql, values).await?;
        Ok(emptied.affected > 0)
    }
}

/// Under the lock of the alerts, so that ids grow in the order in which the alerts were stored.
pub(super) async fn put(tx: &mut Tx, body: &Value, now: Timestamp) -> Result<(), StoreError> {
    let what = "filling the inbox";
    let sql = "SELECT 'waiting' AS what, count(*) AS waiting FROM inbox";
    let row = tx.run(what, sql, values![]).await?.first();
    let waiting = row.map(|row| Reader::new("count", "what", &row).get::<i64>("waiting"));
    let waiting = waiting.transpose()?.unwrap_or(0);
    if waiting >= INBOX_MAX {
        return Err(StoreError::Behind {
            waiting: waiting.unsigned_abs(),
        });
    }
    let body = to_json("parcel", "inbox", body)?;
    let sql = "INSERT INTO inbox (at, body) VALUES ($1, $2)";
    tx.run(what, sql, values![micros(now), body]).await?;
    tx.wake(what).await
}
