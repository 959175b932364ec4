//! The queue of jobs: unfinished ones without a driver that lives. Bots that look at the same time take different ones. Batches
//! of large jobs have a queue of their own (`batches`), because any bot drives them.

use deploy_engine::job::JobId;

use super::{
    Store, StoreError,
    db::{Sql, values},
    row::Reader,
};

/// Takes up to `$3` jobs that `$2` was driving for `$1`. `SKIP LOCKED`: a job that another bot is just taking is not waited for.
macro_rules! take {
    ($lock:literal) => {
        concat!(
            "WITH picked AS (SELECT id FROM jobs WHERE finished_at IS NULL AND batch_of IS NULL AND driver = $2 \
             ORDER BY created_at, id LIMIT $3",
            $lock,
            ") UPDATE jobs SET driver = $1 WHERE id IN (SELECT id FROM picked) RETURNING id"
        )
    };
}
const TAKE: Sql = Sql::each(take!(""), take!(" FOR UPDATE SKIP LOCKED"));

impl Store {
    /// Drivers of unfinished jobs; empty for jobs that wait for one.
    pub async fn drivers(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT driver FROM jobs WHERE finished_at IS NULL AND batch_of IS NULL ORDER BY driver";
        let found = self.db.read("listing drivers", sql, values![]).await?;
        let rows = found.rows.iter();
        rows.map(|row| Reader::new("job", "driver", row).get("driver"))
            .collect()
    }

    /// Takes over unfinished jobs of one driver, oldest first; what another bot is taking at the same moment is left to it.
    pub async fn take_jobs(&self, from: &str, limit: u32) -> Result<Vec<JobId>, StoreError> {
        let values = values![self.replica(), from, limit];
        let taken = self.db.write("taking jobs", TAKE, values).await?;
        let rows = taken.rows.iter();
        rows.map(|row| Reader::new("job", "id", row).get("id").map(JobId))
            .collect()
    }

    /// Unfinished jobs that are this bot's to drive.
    pub async fn own_jobs(&self) -> Result<Vec<JobId>, StoreError> {
        let sql =
            "SELECT id FROM jobs WHERE finished_at IS NULL AND driver = $1 ORDER BY created_at, id";
        let found = self
            .db
            .read("listing own jobs", sql, values![self.replica()])
            .await?;
        let rows = found.rows.iter();
        rows.map(|row| Reader::new("job", "id", row).get("id").map(JobId))
            .collect()
    }

    /// The bot that drives a job; none if there is no such job.
    pub async fn driver(&self, job: &JobId) -> Result<Option<String>, StoreError> {
        let sql = "SELECT id, driver FROM jobs WHERE id = $1";
        let row = self
            .db
            .read("reading a job", sql, values![&job.0])
            .await?
            .first();
        row.map(|row| Reader::new("job", "id", &row).get("driver"))
            .transpose()
    }
}
