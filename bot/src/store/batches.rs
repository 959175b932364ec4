//! Batches: parts of large jobs that wait for any bot that has room. Bots that look at the same time take different ones.

use deploy_engine::job::{JobId, JobResult};

use super::{
    Store, StoreError,
    db::{Done, Lock, Sql, values},
    row::Reader,
};

/// Takes up to `$3` batches for `$1` that wait for a bot which read `$2` (NULL: whatever they want).
macro_rules! take {
    ($lock:literal) => {
        concat!(
            "WITH picked AS (SELECT id FROM jobs WHERE finished_at IS NULL AND batch_of IS NOT NULL AND driver = '' \
             AND (CAST($2 AS TEXT) IS NULL OR batch_model = CAST($2 AS TEXT)) ORDER BY created_at, id LIMIT $3",
            $lock,
            ") UPDATE jobs SET driver = $1 WHERE id IN (SELECT id FROM picked) RETURNING id"
        )
    };
}
const TAKE: Sql = Sql::each(take!(""), take!(" FOR UPDATE SKIP LOCKED"));

/// A batch that this bot drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnBatch {
    pub id: JobId,
    /// Who wants it cancelled.
    pub cancel_by: Option<String>,
}

impl Store {
    /// Takes batches that nobody drives, oldest first. `model`: what this bot has read; none: it takes any.
    pub async fn take_batches(
        &self,
        model: Option<&str>,
        limit: u32,
    ) -> Result<Vec<JobId>, StoreError> {
        let values = values![self.replica(), model, limit];
        let taken = self.db.write("taking batches", TAKE, values).await?;
        ids(&taken)
    }

    /// Unfinished batches that are this bot's to drive.
    pub async fn own_batches(&self) -> Result<Vec<OwnBatch>, StoreError> {
        let sql = "SELECT id, cancel_by FROM jobs WHERE finished_at IS NULL AND batch_of IS NOT NULL AND driver = $1 \
                   ORDER BY created_at, id";
        let found = self
            .db
            .read("listing own batches", sql, values![self.replica()])
            .await?;
        let batch = |row| {
            let row = Reader::new("job", "id", row);
            Ok(OwnBatch {
                id: row.get("id").map(JobId)?,
                cancel_by: row.get("cancel_by")?,
            })
        };
        found.rows.iter().map(batch).collect()
    }

    /// Puts back what bots were driving that are not there any more, and says so to the others.
    pub async fn free_batches(&self) -> Result<Vec<JobId>, StoreError> {
        let what = "freeing batches";
        let sql = "UPDATE jobs SET driver = '' WHERE finished_at IS NULL AND batch_of IS NOT NULL AND driver <> '' \
                   AND driver NOT IN (SELECT id FROM replicas) RETURNING id";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        let freed = ids(&tx.run(what, sql, values![]).await?)?;
        if !freed.is_empty() {
            tx.wake(what).await?;
        }
        tx.commit(what).await?;
        Ok(freed)
    }

    /// Batches of a job, in their order, each with the bot that drives it or did so last; empty: it waits.
    pub async fn batches_of(&self, job: &JobId) -> Result<Vec<(JobId, String)>, StoreError> {
        let sql = "SELECT id, driver FROM jobs WHERE batch_of = $1 ORDER BY created_at, id";
        let found = self
            .db
            .read("listing batches", sql, values![&job.0])
            .await?;
        let batch = |row| {
            let row = Reader::new("job", "id", row);
            Ok((row.get("id").map(JobId)?, row.get("driver")?))
        };
        found.rows.iter().map(batch).collect()
    }

    pub(super) async fn job_result(&self, job: &JobId) -> Result<Option<JobResult>, StoreError> {
        Ok(self.job(job).await?.and_then(|job| job.result))
    }

    /// The first who asks is remembered.
    pub(super) async fn want_cancelled(&self, job: &JobId, by: &str) -> Result<(), StoreError> {
        let what = "asking for a job to be cancelled";
        let sql = "UPDATE jobs SET cancel_by = $1 WHERE id = $2 AND cancel_by IS NULL AND finished_at IS NULL";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        tx.run(what, sql, values![by, &job.0]).await?;
        tx.wake(what).await?;
        tx.commit(what).await
    }
}

fn ids(done: &Done) -> Result<Vec<JobId>, StoreError> {
    let rows = done.rows.iter();
    rows.map(|row| Reader::new("job", "id", row).get("id").map(JobId))
        .collect()
}
