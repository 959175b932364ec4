//! Who drives which part of the site. Tokens grow for ever; leases end with their jobs.

use deploy_engine::job::{JobId, Lease, LeaseError, LeaseRecord, next_token, scopes_conflict};
use jiff::Timestamp;

use super::{
    Store, StoreError,
    db::{Lock, Sql, Tx, values},
    row::{Reader, micros},
    turns::Wanted,
};

/// Leases whose jobs have not finished; a lease whose job is unknown counts too (refuse is the default).
const HELD: &str = "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job WHERE j.finished_at IS NULL ORDER BY l.scope";

const TAKING: &str = "taking a lease";
const RELEASING: &str = "releasing a lease";
const RELEASE: &str = "DELETE FROM leases WHERE scope = $1 AND token = $2 AND job = $3";

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

    pub(super) async fn acquire_lease(&self, wanted: Wanted) -> Result<Lease, LeaseError> {
        match self.is_shared() {
            true => self.acquire_alone(&wanted).await,
            false => self.acquire_in_turn(wanted).await,
        }
    }

    /// In a transaction of its own.
    pub(super) async fn acquire_alone(&self, wanted: &Wanted) -> Result<Lease, LeaseError> {
        let mut tx = self.db.begin(TAKING, Lock::Leases).await.map_err(storage)?;
        let lease = self.take_lease(&mut tx, wanted).await.map_err(storage)??;
        // No host starts anything under its token before an intent is on the disk, and that comes after it; the next token is
        // never below the clock.
        tx.commit_in_order(TAKING).await.map_err(storage)?;
        Ok(lease)
    }

    /// Within a transaction that has the lock; writes nothing if it is refused.
    pub(super) async fn take_lease(
        &self,
        tx: &mut Tx,
        wanted: &Wanted,
    ) -> Result<Result<Lease, LeaseError>, StoreError> {
        let (scope, job) = (&wanted.scope, &wanted.job);
        if self.is_others(tx, job).await? {
            return Ok(Err(LeaseError::Lost {
                scope: scope.clone(),
                token: 0,
            }));
        }
        let conflict = held(tx, scope)
            .await?
            .into_iter()
            .find(|held| held.lease.job != *job && scopes_conflict(scope, &held.lease.scope));
        if let Some(held) = conflict {
            return Ok(Err(LeaseError::Held {
                wanted: scope.clone(),
                expired: held.is_expired(wanted.now),
                held: Box::new(held),
            }));
        }
        grant(tx, wanted).await.map(Ok)
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

    /// A lease of a finished job counts as free, so nothing is lost with this.
    pub(super) async fn release_lease(&self, lease: &Lease) -> Result<(), LeaseError> {
        match self.is_shared() {
            true => self.release_alone(lease).await,
            false => self.release_in_turn(lease.clone()).await,
        }
    }

    pub(super) async fn release_alone(&self, lease: &Lease) -> Result<(), LeaseError> {
        let values = values![&lease.scope, signed(lease.token), &lease.job.0];
        let released = self.db.write_in_order(RELEASING, RELEASE, values).await;
        released.map(drop).map_err(storage)
    }
}

/// As [`Store::release_alone`], within a transaction.
pub(super) async fn give_back(tx: &mut Tx, lease: &Lease) -> Result<(), StoreError> {
    let values = values![&lease.scope, signed(lease.token), &lease.job.0];
    tx.later(RELEASING, RELEASE, values).await
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

async fn grant(tx: &mut Tx, wanted: &Wanted) -> Result<Lease, StoreError> {
    let Wanted {
        scope,
        holder,
        job,
        now,
    } = wanted;
    let sql = "SELECT scope, last FROM tokens WHERE scope = $1";
    let last = tx.run(TAKING, sql, values![scope]).await?.first();
    let last: Option<i64> = last
        .map(|row| Reader::new("token", "scope", &row).get("last"))
        .transpose()?;
    let token = next_token(last.map_or(0, i64::unsigned_abs), *now);
    let sql = "INSERT INTO tokens (scope, last) VALUES ($1, $2) \
               ON CONFLICT (scope) DO UPDATE SET last = excluded.last";
    tx.later(TAKING, sql, values![scope, signed(token)]).await?;
    let sql = "INSERT INTO leases (scope, token, holder, job, acquired_at, renewed_at) \
               VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (scope) DO UPDATE SET token = excluded.token, \
               holder = excluded.holder, job = excluded.job, acquired_at = excluded.acquired_at, \
               renewed_at = excluded.renewed_at";
    let values = values![scope, signed(token), holder, &job.0, micros(*now)];
    tx.later(TAKING, sql, values).await?;
    Ok(Lease {
        scope: scope.clone(),
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
