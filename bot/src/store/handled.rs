//! What was handled already: a chat event or request that comes twice is run once.

use jiff::Timestamp;

use super::{Store, StoreError, db::values, row::micros};

impl Store {
    /// Claims a key. True for the first caller only; durable before it returns, so a crash afterwards never runs a
    /// command twice (it may lose it, and the person repeats it).
    pub async fn claim(&self, space: &str, key: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "INSERT INTO handled (space, key, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values = values![space, key, micros(now)];
        let claimed = self.db.write("claiming a request", sql, values).await?;
        Ok(claimed.affected == 1)
    }

    /// Forgets claims from before then; only safe for what cannot come again.
    pub async fn prune_claims(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM handled WHERE at < $1";
        let values = values![micros(before)];
        let pruned = self
            .db
            .write("forgetting old requests", sql, values)
            .await?;
        Ok(pruned.affected)
    }
}
