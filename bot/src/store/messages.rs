//! The outbox of chat: one message for a subject in a room, edited in place.
//!
//! Saying something bumps the wanted revision; the sender of a room catches up whenever its budget allows, and may skip
//! revisions in between. Nothing that is wanted is lost while the chat server is away.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros, to_json},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct MessageKey {
    pub room: String,
    /// `job:ID`, `incident:ID`, `reply:EVENT`.
    pub subject: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    pub key: MessageKey,
    /// The revision that should be shown.
    pub wanted: u64,
    /// The revision that is shown; 0: none yet.
    pub sent: u64,
    /// Higher goes first.
    pub severity: i64,
    /// The chat's identifier of the message, once it was sent: later revisions edit it.
    pub event: Option<String>,
    pub changed_at: Timestamp,
    /// Failed attempts at the wanted revision.
    pub tries: u32,
    pub error: Option<String>,
    pub body: Value,
}

/// What goes first when several messages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The most severe, then what waits longest: where the chat lets through only so much.
    Severity,
    /// In the order in which it is read: new subjects, then details, then how the subjects stand by now.
    Story,
}

impl Store {
    /// Wants `body` shown for a subject; the same body again wants nothing. Says which revision it is.
    pub async fn say(
        &self,
        key: &MessageKey,
        severity: i64,
        body: &Value,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let revision: i64 = sqlx::query_scalar(
            "INSERT INTO messages (room, subject, wanted, sent, severity, changed_at, body) \
             VALUES (?1, ?2, 1, 0, ?3, ?4, ?5) ON CONFLICT (room, subject) DO UPDATE SET \
             wanted = wanted + (body <> excluded.body), severity = excluded.severity, \
             changed_at = CASE WHEN wanted > sent THEN changed_at ELSE excluded.changed_at END, \
             tries = CASE WHEN body <> excluded.body THEN 0 ELSE tries END, \
             next_try = CASE WHEN body <> excluded.body AND tries = 0 THEN 0 ELSE next_try END, \
             body = excluded.body RETURNING wanted",
        )
        .bind(&key.room)
        .bind(&key.subject)
        .bind(severity)
        .bind(micros(now))
        .bind(to_json("message", &key.subject, body)?)
        .fetch_one(&self.writer)
        .await
        .map_err(doing("queueing a message"))?;
        Ok(revision.unsigned_abs())
    }

    /// What is to be sent now to the rooms of an adapter (`ADAPTER:…`).
    pub async fn pending_messages(
        &self,
        adapter: &str,
        order: Urgency,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        let rows = sqlx::query(match order {
            Urgency::Severity => {
                "SELECT * FROM messages WHERE wanted > sent AND next_try <= ?2 \
                 AND substr(room, 1, length(?1) + 1) = ?1 || ':' \
                 ORDER BY severity DESC, changed_at LIMIT ?3"
            }
            Urgency::Story => {
                "SELECT * FROM messages WHERE wanted > sent AND next_try <= ?2 \
                 AND substr(room, 1, length(?1) + 1) = ?1 || ':' \
                 ORDER BY (event IS NULL AND instr(subject, '#') = 0) DESC, instr(subject, '#') > 0 DESC, changed_at LIMIT ?3"
            }
        })
        .bind(adapter)
        .bind(micros(now))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(doing("listing messages"))?;
        rows.iter()
            .map(|row| message(&Reader::new("message", "subject", row)))
            .collect()
    }

    /// The chat shows `revision` as `event`.
    pub async fn message_sent(
        &self,
        key: &MessageKey,
        revision: u64,
        event: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE messages SET sent = max(sent, ?), event = ?, error = NULL, tries = 0, next_try = 0 \
             WHERE room = ? AND subject = ?",
        )
        .bind(i64::try_from(revision).unwrap_or(i64::MAX))
        .bind(event)
        .bind(&key.room)
        .bind(&key.subject)
        .execute(&self.writer)
        .await
        .map_err(doing("recording a sent message"))?;
        Ok(())
    }

    /// Sending failed; it is tried again then.
    pub async fn message_failed(
        &self,
        key: &MessageKey,
        error: &str,
        next_try: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE messages SET tries = tries + 1, next_try = ?, error = ? WHERE room = ? AND subject = ?",
        )
        .bind(micros(next_try))
        .bind(error)
        .bind(&key.room)
        .bind(&key.subject)
        .execute(&self.writer)
        .await
        .map_err(doing("recording a failed message"))?;
        Ok(())
    }

    pub async fn message(&self, key: &MessageKey) -> Result<Option<Message>, StoreError> {
        let row = sqlx::query("SELECT * FROM messages WHERE room = ? AND subject = ?")
            .bind(&key.room)
            .bind(&key.subject)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading a message"))?;
        row.map(|row| message(&Reader::new("message", "subject", &row)))
            .transpose()
    }

    /// The subject that a chat event shows: what a reaction or a reply is about.
    pub async fn subject_of(&self, room: &str, event: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT subject FROM messages WHERE room = ? AND event = ?")
            .bind(room)
            .bind(event)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading a message"))
    }

    /// Forgets messages that are shown and were last changed before then.
    pub async fn prune_messages(&self, before: Timestamp) -> Result<u64, StoreError> {
        let pruned = sqlx::query("DELETE FROM messages WHERE wanted = sent AND changed_at < ?")
            .bind(micros(before))
            .execute(&self.writer)
            .await
            .map_err(doing("forgetting old messages"))?;
        Ok(pruned.rows_affected())
    }
}

fn message(row: &Reader<'_>) -> Result<Message, StoreError> {
    Ok(Message {
        key: MessageKey {
            room: row.get("room")?,
            subject: row.get("subject")?,
        },
        wanted: row.get::<i64>("wanted")?.unsigned_abs(),
        sent: row.get::<i64>("sent")?.unsigned_abs(),
        severity: row.get("severity")?,
        event: row.get("event")?,
        changed_at: row.time("changed_at")?,
        tries: u32::try_from(row.get::<i64>("tries")?).map_err(|error| row.bad(error))?,
        error: row.get("error")?,
        body: row.json("body")?,
    })
}
