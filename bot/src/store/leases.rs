//! Who drives which part of the site. Tokens grow for ever; leases end with their jobs.

use deploy_engine::job::{JobId, Lease, LeaseError, LeaseRecord, next_token, scopes_conflict};
use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros},
};

/// Leases whose jobs have not finished; a lease whose job is unknown counts too (refuse is the default).
const HELD: &str = "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job WHERE j.finished_at IS NULL ORDER BY l.scope";

/// Those of them that may be in the way of a scope that is no site: its own and the sites' (see [`scopes_conflict`]). By the
/// key, so that a lease costs the same however many are held; `;` follows `:`.
const HELD_NEAR: &str = "SELECT l.* FROM leases l LEFT JOIN jobs j ON j.id = l.job \
    WHERE j.finished_at IS NULL AND (l.scope = ? OR (l.scope >= 'site:' AND l.scope < 'site;')) ORDER BY l.scope";

impl Store {
    /// All leases of unfinished jobs: what `status` shows and what pages when one is not renewed.
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, StoreError> {
        let rows = sqlx::query(HELD).fetch_all(&self.readers).await;
        let rows = rows.map_err(doing("listing leases"))?;
        rows.iter()
            .map(|row| record(&Reader::new("lease", "scope", row)))
            .collect()
    }

    pub(super) async fn acquire_lease(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        let mut tx = self.write("taking a lease").await.map_err(storage)?;
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
        let committed = tx.commit().await.map_err(doing("taking a lease"));
        committed.map_err(storage)?;
        Ok(lease)
    }

    pub(super) async fn renew_lease(
        &self,
        lease: &Lease,
        now: Timestamp,
    ) -> Result<(), LeaseError> {
        let renewed = sqlx::query(
            "UPDATE leases SET renewed_at = ? WHERE scope = ? AND token = ? AND job = ?",
        )
        .bind(micros(now))
        .bind(&lease.scope)
        .bind(signed(lease.token))
        .bind(&lease.job.0)
        .execute(&self.writer)
        .await
        .map_err(|error| storage(doing("renewing a lease")(error)))?;
        if renewed.rows_affected() == 1 {
            return Ok(());
        }
        Err(LeaseError::Lost {
            scope: lease.scope.clone(),
            token: lease.token,
        })
    }

    pub(super) async fn release_lease(&self, lease: &Lease) -> Result<(), LeaseError> {
        sqlx::query("DELETE FROM leases WHERE scope = ? AND token = ? AND job = ?")
            .bind(&lease.scope)
            .bind(signed(lease.token))
            .bind(&lease.job.0)
            .execute(&self.writer)
            .await
            .map_err(|error| storage(doing("releasing a lease")(error)))?;
        Ok(())
    }
}

async fn held(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &str,
) -> Result<Vec<LeaseRecord>, StoreError> {
    let query = match scope.starts_with("site:") {
        true => sqlx::query(HELD),
        false => sqlx::query(HELD_NEAR).bind(scope),
    };
    let rows = query.fetch_all(&mut **tx).await;
    let rows = rows.map_err(doing("taking a lease"))?;
    rows.iter()
        .map(|row| record(&Reader::new("lease", "scope", row)))
        .collect()
}

async fn grant(
    tx: &mut Transaction<'static, Sqlite>,
    scope: &str,
    holder: &str,
    job: &JobId,
    now: Timestamp,
) -> Result<Lease, StoreError> {
    let failed = doing("taking a lease");
    let last: Option<i64> = sqlx::query_scalar("SELECT last FROM tokens WHERE scope = ?")
        .bind(scope)
        .fetch_optional(&mut **tx)
        .await
        .map_err(&failed)?;
    let token = next_token(last.map_or(0, i64::unsigned_abs), now);
    sqlx::query("INSERT OR REPLACE INTO tokens (scope, last) VALUES (?, ?)")
        .bind(scope)
        .bind(signed(token))
        .execute(&mut **tx)
        .await
        .map_err(&failed)?;
    sqlx::query("INSERT OR REPLACE INTO leases (scope, token, holder, job, acquired_at, renewed_at) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(scope)
        .bind(signed(token))
        .bind(holder)
        .bind(&job.0)
        .bind(micros(now))
        .bind(micros(now))
        .execute(&mut **tx)
        .await
        .map_err(&failed)?;
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
