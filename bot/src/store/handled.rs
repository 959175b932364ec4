//! What was handled already: a chat event or request that comes twice is run once.

use jiff::Timestamp;

use super::{Store, StoreError, error::doing, row::micros};

impl Store {
    /// Claims a key. True for the first caller only; durable before it returns, so a crash afterwards never runs a
    /// command twice (it may lose it, and the person repeats it).
    pub async fn claim(&self, space: &str, key: &str, now: Timestamp) -> Result<bool, StoreError> {
        let claimed = sqlx::query(
            "INSERT INTO handled (space, key, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(space)
        .bind(key)
        .bind(micros(now))
        .execute(&self.writer)
        .await
        .map_err(doing("claiming a request"))?;
        Ok(claimed.rows_affected() == 1)
    }

    /// Forgets claims from before then; only safe for what cannot come again.
    pub async fn prune_claims(&self, before: Timestamp) -> Result<u64, StoreError> {
        let pruned = sqlx::query("DELETE FROM handled WHERE at < ?")
            .bind(micros(before))
            .execute(&self.writer)
            .await
            .map_err(doing("forgetting old requests"))?;
        Ok(pruned.rows_affected())
    }
}
