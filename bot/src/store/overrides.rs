//! Break-glass: an admin overrides one gate once, for one incident. Kept for ever, each with its review.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Store, StoreError,
    db::{Done, values},
    row::{Reader, micros},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Override {
    pub id: String,
    pub incident: String,
    /// For example `G7`.
    pub gate: String,
    pub made_by: String,
    pub reason: String,
    pub made_at: Timestamp,
    pub expires_at: Timestamp,
    /// The one job that it was used for.
    pub used_by_job: Option<String>,
    pub used_at: Option<Timestamp>,
    pub reviewed_by: Option<String>,
    pub reviewed_at: Option<Timestamp>,
    pub review: Option<String>,
}

impl Override {
    /// Does it count for `job` (`None`: a job that is not made yet)?
    pub fn counts(&self, job: Option<&str>, now: Timestamp) -> bool {
        let once = match (&self.used_by_job, job) {
            (None, _) => true,
            (Some(used), Some(job)) => used == job,
            (Some(_), None) => false,
        };
        once && now < self.expires_at
    }
}

/// Why an override was not reviewed.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error("there is no override {0} that waits for a review")]
    NotWaiting(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    pub async fn put_override(&self, made: &Override) -> Result<(), StoreError> {
        let sql = "INSERT INTO overrides (id, incident, gate, made_by, reason, made_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = values![
            &made.id,
            &made.incident,
            &made.gate,
            &made.made_by,
            &made.reason,
            micros(made.made_at),
            micros(made.expires_at),
        ];
        self.db.write("recording an override", sql, values).await?;
        Ok(())
    }

    /// Of one incident, newest first.
    pub async fn overrides_of(&self, incident: &str) -> Result<Vec<Override>, StoreError> {
        let sql = "SELECT * FROM overrides WHERE incident = $1 ORDER BY made_at DESC";
        all(self
            .db
            .read("reading overrides", sql, values![incident])
            .await?)
    }

    /// Those that wait for a review, oldest first.
    pub async fn overrides_to_review(&self) -> Result<Vec<Override>, StoreError> {
        let sql = "SELECT * FROM overrides WHERE reviewed_at IS NULL ORDER BY made_at";
        all(self.db.read("reading overrides", sql, values![]).await?)
    }

    /// Ties an override to the one job that it counts for. False: it is another job's already.
    pub async fn use_override(
        &self,
        id: &str,
        job: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE overrides SET used_by_job = $1, used_at = $2 \
                   WHERE id = $3 AND (used_by_job IS NULL OR used_by_job = $1)";
        let values = values![job, micros(now), id];
        let used = self.db.write("using an override", sql, values).await?;
        Ok(used.affected == 1)
    }

    /// # Errors
    /// [`OverrideError`] if there is none of that name that waits.
    pub async fn review_override(
        &self,
        id: &str,
        by: &str,
        review: &str,
        now: Timestamp,
    ) -> Result<(), OverrideError> {
        let sql = "UPDATE overrides SET reviewed_by = $1, reviewed_at = $2, review = $3 \
                   WHERE id = $4 AND reviewed_at IS NULL";
        let values = values![by, micros(now), review, id];
        match self
            .db
            .write("recording a review", sql, values)
            .await?
            .affected
        {
            1 => Ok(()),
            _ => Err(OverrideError::NotWaiting(id.to_owned())),
        }
    }
}

fn all(found: Done) -> Result<Vec<Override>, StoreError> {
    let rows = found.rows.iter();
    rows.map(|row| read(&Reader::new("override", "id", row)))
        .collect()
}

fn read(row: &Reader<'_>) -> Result<Override, StoreError> {
    Ok(Override {
        id: row.get("id")?,
        incident: row.get("incident")?,
        gate: row.get("gate")?,
        made_by: row.get("made_by")?,
        reason: row.get("reason")?,
        made_at: row.time("made_at")?,
        expires_at: row.time("expires_at")?,
        used_by_job: row.get("used_by_job")?,
        used_at: row.time_if_any("used_at")?,
        reviewed_by: row.get("reviewed_by")?,
        reviewed_at: row.time_if_any("reviewed_at")?,
        review: row.get("review")?,
    })
}
