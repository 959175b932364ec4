//! Who drives which part of the site. Tokens grow for ever; leases end with their jobs.

use deploy_engine::job::{JobId, Lease, LeaseError, LeaseRecord, next_token, scopes_conflict};
use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{Lock, Sql, Tx, values},
    row::{Reader, micros},
};

/// Leases whose jobs have not finished; a lease whose job is unknown counts too (refuse is the default).
const HELD: &str = "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job WHERE j.finished_at IS NULL ORDER BY l.scope";

const TAKING: &str = "taking a lease";
/// Those of them that may be in the way of a repair: its own scope, and those of sites and batches (see [`scopes_conflict`]). In
/// SQLite by the key, so that a lease costs the same however many are held; `;` follows `:`.
const HELD_NEAR: Sql = Sql::each(
    "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job WHERE j.finished_at IS NULL AND (l.scope = $1 \
     OR (l.scope >= 'batch:' AND l.scope < 'batch;') OR (l.scope >= 'site:' AND l.scope < 'site;')) ORDER BY l.scope",
    "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job WHERE j.finished_at IS NULL AND (l.scope = $1 \
     OR l.scope LIKE 'batch:%' OR l.scope LIKE 'site:%') ORDER BY l.scope",
);

impl Store {
    /// All leases of unfinished jobs: what `status` shows and what pages when one is not renewed.
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, StoreError> {
        let found = self.db.read("listing leases", HELD, values![]).await?;
        let rows = found.rows.iter();
        rows.map(|row| record(&Reader::new("lease", "scope", row)))
            .collect()
    }

    pub(super) async fn acquire_lease(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        let mut tx = self.db.begin(TAKING, Lock::Leases).await.map_err(storage)?;
        if self.is_others(&mut tx, job).await.map_err(storage)? {
            return Err(LeaseError::Lost {
                scope: scope.to_owned(),
                token: 0,
            });
        }
        let held = held(&mut tx, scope).await.map_err(storage)?;
        let conflict = held
            .into_iter()
            .find(|held| held.lease.job != *job && scopes_conflict(scope, &held.lease.scope));
        if let Some(held) = conflict {
            return Err(LeaseError::Held {
                wanted: scope.to_owned(),
                expired: held.is_expired(now),
                held: Box::new(held),
            });
        }
        let lease = grant(&mut tx, scope, holder, job, now)
            .await
            .map_err(storage)?;
        // No host starts anything under its token before an intent is on the disk, and that comes after it; the next token is
        // never below the clock.
        tx.commit_in_order(TAKING).await.map_err(storage)?;
        Ok(lease)
    }

    /// Is it another bot that drives this job? One that was away while its jobs were given to others must not take them back: a
    /// lease of its own would be newer than theirs.
    async fn is_others(&self, tx: &mut Tx, job: &JobId) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(false);
        }
        let sql = "SELECT id, driver FROM jobs WHERE id = $1";
        let found = tx.run(TAKING, sql, values![&job.0]).await?.first();
        let driver: Option<String> = found
            .map(|row| Reader::new("job", "id", &row).get("driver"))
            .transpose()?;
        Ok(driver.is_some_and(|driver| driver != self.replica()))
    }

    pub(super) async fn renew_lease(
        &self,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<(), LeaseError> {
        let sql = "UPDATE leases SET renewed_at = $1 WHERE scope = $2 AND token = $3 AND job = $4";
        let values = values![micros(now), &lease.scope, signed(lease.token), &lease.job.0];
        let renewed = self.db.write("renewing a lease", sql, values).await;
        if renewed.map_err(storage)?.affected == 1 {
            return Ok(());
        }
        Err(LeaseError::Lost {
            scope: lease.scope.clone(),
            token: lease.token,
        })
    }

    pub(super) async fn release_lease(&self, lease: &Lease) -> Result<(), LeaseError> {
        let sql = "DELETE FROM leases WHERE scope = $1 AND token = $2 AND job = $3";
        let values = values![&lease.scope, signed(lease.token), &lease.job.0];
        // A lease of a finished job counts as free, so nothing is lost with this.
        let what = "releasing a lease";
        let released = self.db.write_in_order(what, sql, values).await;
        released.map(drop).map_err(storage)
    }
}

async fn held(tx: &mut Tx, scope: &str) -> Result<Vec<LeaseRecord>, StoreError> {
    let found = match scope.starts_with("domain:") {
        true => tx.run(TAKING, HELD_NEAR, values![scope]).await?,
        false => tx.run(TAKING, HELD, values![]).await?,
    };
    let rows = found.rows.iter();
    rows.map(|row| record(&Reader::new("lease", "scope", row)))
        .collect()
}

async fn grant(
    tx: &mut Tx,
    scope: &str,
    holder: &str,
    job: &JobId,
    now: Timestamp,
) -> Result<Lease, StoreError> {
    let sql = "SELECT scope, last FROM tokens WHERE scope = $1";
    let last = tx.run(TAKING, sql, values![scope]).await?.first();
    let last: Option<i64> = last
        .map(|row| Reader::new("token", "scope", &row).get("last"))
        .transpose()?;
    let token = next_token(last.map_or(0, i64::unsigned_abs), now);
    let sql = "INSERT INTO tokens (scope, last) VALUES ($1, $2) \
               ON CONFLICT (scope) DO UPDATE SET last = excluded.last";
    tx.run(TAKING, sql, values![scope, signed(token)]).await?;
    let sql = "INSERT INTO leases (scope, token, holder, job, acquired_at, renewed_at) \
               VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (scope) DO UPDATE SET token = excluded.token, \
               holder = excluded.holder, job = excluded.job, acquired_at = excluded.acquired_at, \
               renewed_at = excluded.renewed_at";
    let values = values![scope, signed(token), holder, &job.0, micros(now)];
    tx.run(TAKING, sql, values).await?;
    Ok(Lease {
        scope: scope.to_owned(),
        token,
        job: job.clone(),
    })
}

fn record(row: &Reader<'_>) -> Result<LeaseRecord, StoreError> {
    let token: i64 = row.get("token")?;
    Ok(LeaseRecord {
        lease: Lease {
            scope: row.get("scope")?,
            token: token.unsigned_abs(),
            job: JobId(row.get("job")?),
        },
        holder: row.get("holder")?,
        acquired_at: row.time("acquired_at")?,
        renewed_at: row.time("renewed_at")?,
    })
}

/// Tokens start at the seconds since the epoch and grow by one: far below 2⁶³.
fn signed(token: u64) -> i64 {
    i64::try_from(token).unwrap_or(i64::MAX)
}

fn storage(error: StoreError) -> LeaseError {
    LeaseError::Storage(error.to_string())
}
