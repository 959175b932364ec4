//! Who asked for what, and what was decided. The table itself refuses changes and deletions, and each entry's hash covers the
//! one before it (see [`crate::audit`]).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{Lock, Tx, values, without_nul},
    kv,
    row::{Reader, micros, to_json},
};
use crate::audit::{Head, Kept, link};

/// Where the head of the chain is kept beside it.
const HEAD: (&str, &str) = ("audit", "head");

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
    /// Adds an entry to the chain; durable when it returns.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let what = "recording an audit entry";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        chain(&mut tx, entry).await?;
        tx.commit(what).await
    }

    /// As [`Store::audit`], for what is acted on only by way of something that is recorded after it: it is on the disk no later
    /// than that.
    pub async fn audit_in_order(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let what = "recording an audit entry";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        chain(&mut tx, entry).await?;
        tx.commit_in_order(what).await
    }

    /// As [`Store::put_in_order`] and [`Store::audit_in_order`]: both, or neither.
    pub async fn put_and_audit_in_order(
        &self,
        (space, key): (&str, &str),
        value: &str,
        entry: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.begin(CHAINING, Lock::Rows).await?;
        tx.later(CHAINING, kv::PUT, values![space, key, value])
            .await?;
        chain(&mut tx, entry).await?;
        tx.commit_in_order(CHAINING).await
    }

    /// Entries after number `after`, oldest first, exactly as they are kept.
    pub async fn audit_kept(&self, after: i64, limit: u32) -> Result<Vec<Kept>, StoreError> {
        let sql = "SELECT * FROM audit WHERE id > $1 ORDER BY id LIMIT $2";
        let found = self
            .db
            .read("reading the audit log", sql, values![after, limit])
            .await?;
        let rows = found.rows.iter();
        rows.map(|row| kept(&Reader::new("audit entry", "target", row)))
            .collect()
    }

    /// The head beside the chain; `None`: nothing was ever chained.
    pub async fn audit_head(&self) -> Result<Option<Head>, StoreError> {
        let text = self.get(HEAD.0, HEAD.1).await?;
        text.filter(|text| !text.is_empty())
            .map(|text| head(&text))
            .transpose()
    }

    /// SHA-256 of an event of the journal as it is kept, in hex; `None`: there is no such event.
    pub async fn event_digest(
        &self,
        job: &str,
        position: i64,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT job, event FROM job_events WHERE job = $1 AND position = $2";
        let found = self
            .db
            .read("reading the journal", sql, values![job, position])
            .await?;
        let text = found
            .first()
            .map(|row| Reader::new("event", "job", &row).get::<String>("event"));
        Ok(text.transpose()?.map(|text| sha256(&text)))
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

fn kept(row: &Reader<'_>) -> Result<Kept, StoreError> {
    Ok(Kept {
        number: row.get("id")?,
        at: row.get("at")?,
        who: row.get("who")?,
        action: row.get("action")?,
        target: row.get("target")?,
        body: row.get("body")?,
        hash: row.get("hash")?,
    })
}

fn head(text: &str) -> Result<Head, StoreError> {
    text.parse().map_err(|found| StoreError::Row {
        table: "value",
        key: format!("{} {}", HEAD.0, HEAD.1),
        found,
    })
}

pub(super) fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds an entry as a part of what it is about: both are kept, or neither. The last thing that a transaction takes a lock for, so that
/// no two wait for each other.
pub(super) async fn chain(tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
    let mut chain = Chain::held(tx).await?;
    chain.add(tx, entry).await?;
    chain.end(tx).await
}

/// The end of the chain, held by a transaction that adds to it.
pub(super) struct Chain {
    head: Head,
}

const CHAINING: &str = "recording an audit entry";

impl Chain {
    /// One statement that reads the head and holds its row until the end of the transaction: whoever else writes waits, so there is
    /// one chain in the order of commits.
    pub async fn held(tx: &mut Tx) -> Result<Self, StoreError> {
        let sql = "INSERT INTO kv (space, key, value) VALUES ($1, $2, '') \
                   ON CONFLICT (space, key) DO UPDATE SET value = kv.value RETURNING key, value";
        let held = tx.run(CHAINING, sql, values![HEAD.0, HEAD.1]).await?;
        let found = held.first();
        let found = found.map(|row| Reader::new("value", "key", &row).get::<String>("value"));
        let head = match found.transpose()?.as_deref() {
            None | Some("") => before_the_chain(tx).await?,
            Some(text) => head(text)?,
        };
        Ok(Self { head })
    }

    pub async fn add(&mut self, tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
        let new = Kept {
            number: self.head.number + 1,
            at: micros(entry.at),
            // As every database keeps them: the hash covers what is read again.
            who: without_nul(entry.who.clone()),
            action: without_nul(entry.action.clone()),
            target: without_nul(entry.target.clone()),
            body: to_json("audit entry", &entry.target, &entry.body)?,
            hash: None,
        };
        self.head = Head {
            number: new.number,
            hash: link(&self.head.hash, &new),
        };
        let hash = &self.head.hash;
        let sql = "INSERT INTO audit (id, at, who, action, target, body, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = values![
            new.number, new.at, new.who, new.action, new.target, new.body, hash
        ];
        tx.later(CHAINING, sql, values).await
    }

    /// After the last entry: the chain's head, kept beside it.
    pub async fn end(self, tx: &mut Tx) -> Result<(), StoreError> {
        let sql = "UPDATE kv SET value = $1 WHERE space = $2 AND key = $3";
        let values = values![self.head.to_string(), HEAD.0, HEAD.1];
        tx.later(CHAINING, sql, values).await
    }
}

/// What the first chained entry follows: all that was written before there was a chain.
async fn before_the_chain(tx: &mut Tx) -> Result<Head, StoreError> {
    let found = tx
        .run(
            "reading the audit log",
            "SELECT * FROM audit ORDER BY id",
            values![],
        )
        .await?;
    let mut end = Head::default();
    for row in &found.rows {
        let kept = kept(&Reader::new("audit entry", "target", row))?;
        end = Head {
            number: kept.number,
            hash: link(&end.hash, &kept),
        };
    }
    Ok(end)
}
