//! The outbox of chat: one message for a subject in a room, edited in place.
//!
//! Saying something bumps the wanted revision; the sender of a room catches up whenever its budget allows, and may skip
//! revisions in between. Nothing that is wanted is lost while the chat server is away.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{Sql, values},
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

/// Messages that wait for an adapter (`$1`) now (`$2`), at most `$3`, seen by bot `$4`, in an order.
macro_rules! pending {
    ($order:literal) => {
        concat!(
            "SELECT * FROM messages WHERE wanted > sent AND next_try <= $2 \
             AND (claimed_until <= $2 OR claimed_by = $4) AND substr(room, 1, length($1) + 1) = $1 || ':' ORDER BY ",
            $order,
            " LIMIT $3"
        )
    };
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
        let values = values![
            &key.room,
            &key.subject,
            severity,
            micros(now),
            to_json("message", &key.subject, body)?,
        ];
        let said = self.db.write("queueing a message", SAY, values).await?;
        let revision = said
            .first()
            .map(|row| Reader::new("message", "subject", &row).get::<i64>("wanted"));
        Ok(revision.transpose()?.unwrap_or(0).unsigned_abs())
    }

    /// What is to be sent now to the rooms of an adapter (`ADAPTER:…`), but for what another bot is sending.
    pub async fn pending_messages(
        &self,
        adapter: &str,
        order: Urgency,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Message>, StoreError> {
        let sql: Sql = match order {
            Urgency::Severity => pending!("severity DESC, changed_at").into(),
            Urgency::Story => pending!(
                "CASE WHEN event IS NULL AND subject NOT LIKE '%#%' THEN 0 WHEN subject LIKE '%#%' THEN 1 ELSE 2 END, \
                 changed_at"
            )
            .into(),
        };
        let values = values![adapter, micros(now), limit, self.replica()];
        let found = self.db.read("listing messages", sql, values).await?;
        let rows = found.rows.iter();
        rows.map(|row| message(&Reader::new("message", "subject", row)))
            .collect()
    }

    /// Takes a message for sending, until then: no other bot sends it meanwhile. False if another has it, or it was sent.
    pub async fn claim_message(
        &self,
        message: &Message,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE messages SET claimed_by = $1, claimed_until = $2 WHERE room = $3 AND subject = $4 \
                   AND wanted > sent AND sent = $5 AND (claimed_by = $1 OR claimed_until <= $6)";
        let values = values![
            self.replica(),
            micros(until),
            &message.key.room,
            &message.key.subject,
            signed(message.sent),
            micros(now),
        ];
        let claimed = self.db.write("taking a message", sql, values).await?;
        Ok(claimed.affected == 1)
    }

    /// The chat shows `revision` as `event`.
    pub async fn message_sent(
        &self,
        key: &MessageKey,
        revision: u64,
        event: &str,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE messages SET sent = CASE WHEN sent < $1 THEN $1 ELSE sent END, event = $2, error = NULL, \
                   tries = 0, next_try = 0, claimed_until = 0 WHERE room = $3 AND subject = $4";
        let values = values![signed(revision), event, &key.room, &key.subject];
        self.db
            .write("recording a sent message", sql, values)
            .await?;
        Ok(())
    }

    /// Sending failed; it is tried again then.
    pub async fn message_failed(
        &self,
        key: &MessageKey,
        error: &str,
        next_try: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE messages SET tries = tries + 1, next_try = $1, error = $2, claimed_until = 0 \
                   WHERE room = $3 AND subject = $4";
        let values = values![micros(next_try), error, &key.room, &key.subject];
        self.db
            .write("recording a failed message", sql, values)
            .await?;
        Ok(())
    }

    pub async fn message(&self, key: &MessageKey) -> Result<Option<Message>, StoreError> {
        let sql = "SELECT * FROM messages WHERE room = $1 AND subject = $2";
        let values = values![&key.room, &key.subject];
        let row = self
            .db
            .read("reading a message", sql, values)
            .await?
            .first();
        row.map(|row| message(&Reader::new("message", "subject", &row)))
            .transpose()
    }

    /// The subject that a chat event shows: what a reaction or a reply is about.
    pub async fn subject_of(&self, room: &str, event: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT subject FROM messages WHERE room = $1 AND event = $2";
        let values = values![room, event];
        let row = self
            .db
            .read("reading a message", sql, values)
            .await?
            .first();
        row.map(|row| Reader::new("message", "subject", &row).get("subject"))
            .transpose()
    }

    /// Forgets messages that are shown and were last changed before then.
    pub async fn prune_messages(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM messages WHERE wanted = sent AND changed_at < $1";
        let values = values![micros(before)];
        let pruned = self
            .db
            .write("forgetting old messages", sql, values)
            .await?;
        Ok(pruned.affected)
    }
}

/// Other words than before count as a new revision; the same words change nothing.
const SAY: &str = "INSERT INTO messages (room, subject, wanted, sent, severity, changed_at, body) \
    VALUES ($1, $2, 1, 0, $3, $4, $5) ON CONFLICT (room, subject) DO UPDATE SET \
    wanted = messages.wanted + CASE WHEN messages.body <> excluded.body THEN 1 ELSE 0 END, \
    severity = excluded.severity, \
    changed_at = CASE WHEN messages.wanted > messages.sent THEN messages.changed_at ELSE excluded.changed_at END, \
    tries = CASE WHEN messages.body <> excluded.body THEN 0 ELSE messages.tries END, \
    next_try = CASE WHEN messages.body <> excluded.body AND messages.tries = 0 THEN 0 ELSE messages.next_try END, \
    body = excluded.body RETURNING subject, wanted";

/// Revisions count changes of one message: far below 2⁶³.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
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
