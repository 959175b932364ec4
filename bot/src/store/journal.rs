//! Jobs and their events: the engine's [`Journal`], on disk.

use async_trait::async_trait;
use deploy_engine::job::{
    JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Lease, LeaseError,
};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    AuditEntry, Store, StoreError,
    audit::{self, Chain},
    db::{Lock, Tx, values},
    row::{Reader, micros, to_json},
    steps,
    turns::Wanted,
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
    /// The newest jobs, newest first; with `open` only those that have not finished. Batches are shown by the jobs that they are
    /// parts of.
    pub async fn jobs(&self, open: bool, limit: u32) -> Result<Vec<JobSummary>, StoreError> {
        let sql = if open {
            "SELECT * FROM jobs WHERE finished_at IS NULL AND batch_of IS NULL ORDER BY created_at DESC, id DESC LIMIT $1"
        } else {
            "SELECT * FROM jobs WHERE batch_of IS NULL ORDER BY created_at DESC, id DESC LIMIT $1"
        };
        let found = self.db.read("listing jobs", sql, values![limit]).await?;
        let rows = found.rows.iter();
        rows.map(|row| summary(&Reader::new("job", "id", row)))
            .collect()
    }

    pub async fn job(&self, id: &JobId) -> Result<Option<JobSummary>, StoreError> {
        let sql = "SELECT * FROM jobs WHERE id = $1";
        let row = self
            .db
            .read("reading a job", sql, values![&id.0])
            .await?
            .first();
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
        let mut tx = self.db.begin(what, Lock::Rows).await.map_err(storage)?;
        // A batch is for whoever has room.
        let (driver, batch_of, model) = match kind {
            JobKind::Batch { of, model } => ("", Some(&*of.0), Some(&**model)),
            _ => (self.replica(), None, None),
        };
        let sql = "INSERT INTO jobs (id, kind, title, scope, requested_by, created_at, length, driver, batch_of, batch_model) \
                   VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9) ON CONFLICT DO NOTHING";
        let values = values![
            &job.0,
            kind_word(kind),
            title,
            scope,
            requested_by,
            micros(at),
            driver,
            batch_of,
            model,
        ];
        let inserted = tx.run(what, sql, values).await.map_err(storage)?;
        if inserted.affected == 0 {
            return Err(JournalError::Exists(job.clone()));
        }
        let event = Recorded::new(job, 0, at, created).map_err(storage)?;
        event.insert(&mut tx).await.map_err(storage)?;
        audit::chain(&mut tx, &event.entry).await.map_err(storage)?;
        if batch_of.is_some() {
            tx.wake(what).await.map_err(storage)?;
        }
        tx.commit_in_order(what).await.map_err(storage)?;
        self.durable_if_acted_on(what, created).await
    }

    async fn append_events(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        events: &[JobEvent],
    ) -> Result<(), JournalError> {
        let recorded = (length..).zip(events);
        let recorded = recorded.map(|(length, event)| Recorded::new(job, length, at, event));
        let recorded = recorded.collect::<Result<Vec<_>, _>>().map_err(storage)?;
        match self.is_shared() {
            true => self.append_alone(&recorded).await,
            false => self.append_in_turn(recorded).await,
        }
    }

    /// In a transaction of its own.
    pub(super) async fn append_alone(&self, events: &[Recorded]) -> Result<(), JournalError> {
        let begun = self.db.begin(RECORDING, Lock::Rows).await;
        let mut tx = begun.map_err(storage)?;
        for event in events {
            event.append(&mut tx).await.map_err(storage)??;
        }
        // The last thing that is locked.
        let mut chain = Chain::held(&mut tx).await.map_err(storage)?;
        for event in events {
            let added = chain.add(&mut tx, &event.entry).await;
            added.map_err(storage)?;
        }
        chain.end(&mut tx).await.map_err(storage)?;
        tx.commit_in_order(RECORDING).await.map_err(storage)
    }

    /// Durable when it returns, if it is acted on; else in order.
    async fn durable_if_acted_on(
        &self,
        what: &'static str,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        match event.is_acted_on() {
            true => self.db.durable(what).await.map_err(storage),
            false => Ok(()),
        }
    }

    async fn load_events(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        let sql = "SELECT at, event FROM job_events WHERE job = $1 ORDER BY position";
        let what = "reading a job's events";
        let found = self.db.read(what, sql, values![&job.0]).await;
        let rows = found.map_err(storage)?.rows;
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
        let events = std::slice::from_ref(event);
        self.append_events(job, length, at, events).await?;
        self.durable_if_acted_on(RECORDING, event).await
    }

    async fn append_in_order(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let events = std::slice::from_ref(event);
        self.append_events(job, length, at, events).await
    }

    async fn append_all(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        events: &[JobEvent],
    ) -> Result<(), JournalError> {
        self.append_events(job, length, at, events).await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.load_events(job).await
    }

    async fn result(&self, job: &JobId) -> Result<Option<JobResult>, JournalError> {
        self.job_result(job).await.map_err(storage)
    }

    async fn ask_to_cancel(&self, job: &JobId, by: &str) -> Result<(), JournalError> {
        self.want_cancelled(job, by).await.map_err(storage)
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        let sql = "SELECT id FROM jobs WHERE finished_at IS NULL ORDER BY created_at, id";
        let found = self
            .db
            .read("listing unfinished jobs", sql, values![])
            .await;
        let rows = found.map_err(storage)?.rows;
        let id = |row| Reader::new("job", "id", row).get("id").map(JobId);
        rows.iter()
            .map(id)
            .collect::<Result<_, _>>()
            .map_err(storage)
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        self.acquire_lease(Wanted {
            scope: scope.to_owned(),
            holder: holder.to_owned(),
            job: job.clone(),
            now,
        })
        .await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        self.renew_lease(lease, now).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.release_lease(lease).await
    }
}

const RECORDING: &str = "recording an event";

/// An event as it is kept.
pub(super) struct Recorded {
    job: JobId,
    position: u64,
    at: Timestamp,
    text: String,
    /// The job's result, if this is its last event.
    result: Option<String>,
    entry: AuditEntry,
}

impl Recorded {
    fn new(
        job: &JobId,
        position: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<Self, StoreError> {
        let text = to_json("event of job", &job.0, event)?;
        let result = match event {
            JobEvent::Finished { result } => Some(to_json("job", &job.0, result)?),
            _ => None,
        };
        Ok(Self {
            job: job.clone(),
            position,
            at,
            entry: steps::entry(job, position, at, event, &text),
            text,
            result,
        })
    }

    /// Its entry in the audit log, which belongs to the same transaction.
    pub fn entry(&self) -> &AuditEntry {
        &self.entry
    }

    /// As the next event of its job; nothing is written if the job has another length.
    pub async fn append(&self, tx: &mut Tx) -> Result<Result<(), JournalError>, StoreError> {
        let finished_at = self.result.as_ref().map(|_| micros(self.at));
        let sql = "UPDATE jobs SET length = length + 1, finished_at = $1, result = $2 \
                   WHERE id = $3 AND length = $4 AND finished_at IS NULL";
        let values = values![
            finished_at,
            &self.result,
            &self.job.0,
            signed(self.position)
        ];
        let updated = tx.run(RECORDING, sql, values).await?;
        if updated.affected == 0 {
            return why_not_appended(tx, &self.job, self.position)
                .await
                .map(Err);
        }
        self.insert(tx).await.map(Ok)
    }

    async fn insert(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let sql = "INSERT INTO job_events (job, position, at, event) VALUES ($1, $2, $3, $4)";
        let values = values![
            &self.job.0,
            signed(self.position),
            micros(self.at),
            &self.text
        ];
        tx.later(RECORDING, sql, values).await
    }
}

async fn why_not_appended(
    tx: &mut Tx,
    job: &JobId,
    expected: u64,
) -> Result<JournalError, StoreError> {
    let sql = "SELECT id, length FROM jobs WHERE id = $1";
    let Some(row) = tx.run(RECORDING, sql, values![&job.0]).await?.first() else {
        return Ok(JournalError::Unknown(job.clone()));
    };
    let found: i64 = Reader::new("job", "id", &row).get("length")?;
    Ok(JournalError::Conflict {
        job: job.clone(),
        expected,
        found: found.unsigned_abs(),
    })
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
        JobKind::Deploy { .. } | JobKind::Batch { .. } => "deploy",
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
