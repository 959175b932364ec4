//! Jobs and their events: the engine's [`Journal`], on disk.

use async_trait::async_trait;
use deploy_engine::job::{
    JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Lease, LeaseError,
};
use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row;

use super::{
    Store, StoreError, audit,
    error::doing,
    row::{Reader, micros, to_json},
    steps,
};

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobSummary {
    pub id: JobId,
    /// `deploy` or `heal`.
    pub kind: String,
    pub title: String,
    pub scope: String,
    pub requested_by: String,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub result: Option<JobResult>,
}

impl Store {
    /// The newest jobs, newest first; with `open` only those that have not finished.
    pub async fn jobs(&self, open: bool, limit: u32) -> Result<Vec<JobSummary>, StoreError> {
        let sql = if open {
            "SELECT * FROM jobs WHERE finished_at IS NULL ORDER BY created_at DESC, id DESC LIMIT ?"
        } else {
            "SELECT * FROM jobs ORDER BY created_at DESC, id DESC LIMIT ?"
        };
        let rows = sqlx::query(sql).bind(limit).fetch_all(&self.readers).await;
        let rows = rows.map_err(doing("listing jobs"))?;
        rows.iter()
            .map(|row| summary(&Reader::new("job", "id", row)))
            .collect()
    }

    pub async fn job(&self, id: &JobId) -> Result<Option<JobSummary>, StoreError> {
        let row = sqlx::query("SELECT * FROM jobs WHERE id = ?")
            .bind(&id.0)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading a job"))?;
        row.map(|row| summary(&Reader::new("job", "id", &row)))
            .transpose()
    }

    async fn create_job(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError> {
        let JobEvent::Created {
            kind,
            title,
            requested_by,
            scope,
            ..
        } = created
        else {
            return Err(JournalError::Storage(format!(
                "job {job}: expected Created as the first event, found {created:?}"
            )));
        };
        let what = "recording a new job";
        let mut tx = self.write(what).await.map_err(storage)?;
        let inserted = sqlx::query(
            "INSERT INTO jobs (id, kind, title, scope, requested_by, created_at, length) \
             VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING",
        )
        .bind(&job.0)
        .bind(kind_word(kind))
        .bind(title)
        .bind(scope)
        .bind(requested_by)
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(|error| storage(doing(what)(error)))?;
        if inserted.rows_affected() == 0 {
            return Err(JournalError::Exists(job.clone()));
        }
        self.insert_event(&mut tx, job, 0, at, created).await?;
        tx.commit()
            .await
            .map_err(|error| storage(doing(what)(error)))
    }

    async fn insert_event(
        &self,
        tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
        job: &JobId,
        position: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let body = to_json("event of job", &job.0, event).map_err(storage)?;
        let entry = steps::entry(job, position, at, event, &body);
        audit::chain(tx, &entry).await.map_err(storage)?;
        sqlx::query("INSERT INTO job_events (job, position, at, event) VALUES (?, ?, ?, ?)")
            .bind(&job.0)
            .bind(signed(position))
            .bind(micros(at))
            .bind(body)
            .execute(&mut **tx)
            .await
            .map_err(|error| storage(doing("recording an event")(error)))?;
        Ok(())
    }

    async fn append_event(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let what = "recording an event";
        let (finished_at, result) = match event {
            JobEvent::Finished { result } => (
                Some(micros(at)),
                Some(to_json("job", &job.0, result).map_err(storage)?),
            ),
            _ => (None, None),
        };
        let mut tx = self.write(what).await.map_err(storage)?;
        let updated = sqlx::query(
            "UPDATE jobs SET length = length + 1, finished_at = ?, result = ? \
             WHERE id = ? AND length = ? AND finished_at IS NULL",
        )
        .bind(finished_at)
        .bind(result)
        .bind(&job.0)
        .bind(signed(length))
        .execute(&mut *tx)
        .await
        .map_err(|error| storage(doing(what)(error)))?;
        if updated.rows_affected() == 0 {
            return Err(why_not_appended(&mut tx, job, length).await);
        }
        self.insert_event(&mut tx, job, length, at, event).await?;
        tx.commit()
            .await
            .map_err(|error| storage(doing(what)(error)))
    }

    async fn load_events(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        let rows = sqlx::query("SELECT at, event FROM job_events WHERE job = ? ORDER BY position")
            .bind(&job.0)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| storage(doing("reading a job's events")(error)))?;
        if rows.is_empty() {
            return Err(JournalError::Unknown(job.clone()));
        }
        rows.iter()
            .zip(0..)
            .map(|(row, position)| {
                let reader = Reader {
                    table: "event of job",
                    key: job.0.clone(),
                    row,
                };
                let event = reader
                    .time("at")
                    .and_then(|at| Ok((at, reader.json("event")?)));
                event.map_err(|error| JournalError::Corrupt {
                    job: job.clone(),
                    position,
                    why: error.to_string(),
                })
            })
            .collect()
    }
}

#[async_trait]
impl Journal for Store {
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError> {
        self.create_job(job, at, created).await
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        self.append_event(job, length, at, event).await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.load_events(job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM jobs WHERE finished_at IS NULL ORDER BY created_at, id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(|error| storage(doing("listing unfinished jobs")(error)))?;
        Ok(ids.into_iter().map(JobId).collect())
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        self.acquire_lease(scope, holder, job, now).await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        self.renew_lease(lease, now).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.release_lease(lease).await
    }
}

async fn why_not_appended(
    tx: &mut sqlx::Transaction<'static, sqlx::Sqlite>,
    job: &JobId,
    expected: u64,
) -> JournalError {
    let found = sqlx::query("SELECT length FROM jobs WHERE id = ?")
        .bind(&job.0)
        .fetch_optional(&mut **tx)
        .await;
    match found {
        Err(error) => storage(doing("recording an event")(error)),
        Ok(None) => JournalError::Unknown(job.clone()),
        Ok(Some(row)) => JournalError::Conflict {
            job: job.clone(),
            expected,
            found: u64::try_from(row.get::<i64, _>("length")).unwrap_or(0),
        },
    }
}

fn summary(row: &Reader<'_>) -> Result<JobSummary, StoreError> {
    let result: Option<String> = row.get("result")?;
    let result = result
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| row.bad(error))?;
    Ok(JobSummary {
        id: JobId(row.get("id")?),
        kind: row.get("kind")?,
        title: row.get("title")?,
        scope: row.get("scope")?,
        requested_by: row.get("requested_by")?,
        created_at: row.time("created_at")?,
        finished_at: row.time_if_any("finished_at")?,
        result,
    })
}

fn kind_word(kind: &JobKind) -> &'static str {
    match kind {
        JobKind::Deploy { .. } => "deploy",
        JobKind::Heal { .. } => "heal",
    }
}

fn storage(error: StoreError) -> JournalError {
    JournalError::Storage(error.to_string())
}

/// SQLite's integers are signed; no job comes near 2⁶³ events.
fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
