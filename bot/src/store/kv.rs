//! Single values: chat sync positions, `!halt`, watermarks.

use super::{Store, StoreError, error::doing};

impl Store {
    pub async fn put(&self, space: &str, key: &str, value: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO kv (space, key, value) VALUES (?, ?, ?)")
            .bind(space)
            .bind(key)
            .bind(value)
            .execute(&self.writer)
            .await
            .map_err(doing("recording a value"))?;
        Ok(())
    }

    pub async fn get(&self, space: &str, key: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM kv WHERE space = ? AND key = ?")
            .bind(space)
            .bind(key)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading a value"))
    }

    /// All values of a space, by key.
    pub async fn list(&self, space: &str) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as("SELECT key, value FROM kv WHERE space = ? ORDER BY key")
            .bind(space)
            .fetch_all(&self.readers)
            .await
            .map_err(doing("reading values"))
    }

    pub async fn delete(&self, space: &str, key: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM kv WHERE space = ? AND key = ?")
            .bind(space)
            .bind(key)
            .execute(&self.writer)
            .await
            .map_err(doing("deleting a value"))?;
        Ok(())
    }
}
