//! Single values: chat sync positions, `!halt`, watermarks.

use super::{Store, StoreError, db::values, row::Reader};

pub(super) const PUT: &str = "INSERT INTO kv (space, key, value) VALUES ($1, $2, $3) \
                   ON CONFLICT (space, key) DO UPDATE SET value = excluded.value";
pub(super) const PUT_NEW: &str =
    "INSERT INTO kv (space, key, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
pub(super) const GET: &str = "SELECT key, value FROM kv WHERE space = $1 AND key = $2";
pub(super) const LIST: &str = "SELECT key, value FROM kv WHERE space = $1 ORDER BY key";
pub(super) const DELETE: &str = "DELETE FROM kv WHERE space = $1 AND key = $2";

impl Store {
    pub async fn put(&self, space: &str, key: &str, value: &str) -> Result<(), StoreError> {
        let what = "recording a value";
        self.db.write(what, PUT, values![space, key, value]).await?;
        Ok(())
    }

    /// As [`Store::put`], for a value that counts only with what is written after it: it is on the disk no later than that.
    pub async fn put_in_order(
        &self,
        space: &str,
        key: &str,
        value: &str,
    ) -> Result<(), StoreError> {
        let what = "recording a value";
        self.db
            .write_in_order(what, PUT, values![space, key, value])
            .await?;
        Ok(())
    }

    /// Records a value unless there is one; the one that is there afterwards.
    pub async fn put_once(
        &self,
        space: &str,
        key: &str,
        value: &str,
    ) -> Result<String, StoreError> {
        let sql = "INSERT INTO kv (space, key, value) VALUES ($1, $2, $3) \
                   ON CONFLICT (space, key) DO UPDATE SET value = kv.value RETURNING key, value";
        let values = values![space, key, value];
        let row = self
            .db
            .write("recording a value", sql, values)
            .await?
            .first();
        let kept = row.map(|row| Reader::new("value", "key", &row).get("value"));
        Ok(kept.transpose()?.unwrap_or_else(|| value.to_owned()))
    }

    pub async fn get(&self, space: &str, key: &str) -> Result<Option<String>, StoreError> {
        let found = self
            .db
            .read("reading a value", GET, values![space, key])
            .await?;
        found
            .first()
            .map(|row| Reader::new("value", "key", &row).get("value"))
            .transpose()
    }

    /// All values of a space, by key.
    pub async fn list(&self, space: &str) -> Result<Vec<(String, String)>, StoreError> {
        let found = self.db.read("reading values", LIST, values![space]).await?;
        let pair = |row| {
            let reader = Reader::new("value", "key", row);
            Ok((reader.get("key")?, reader.get("value")?))
        };
        found.rows.iter().map(pair).collect()
    }

    /// All values of all spaces whose name begins so and goes on with a slash, by space and key.
    pub async fn list_below(&self, space: &str) -> Result<Vec<(String, String)>, StoreError> {
        // Nothing sorts between a slash and a zero.
        let sql = "SELECT key, value FROM kv WHERE space >= $1 AND space < $2 ORDER BY space, key";
        let (from, to) = (format!("{space}/"), format!("{space}0"));
        let found = self
            .db
            .read("reading values", sql, values![from, to])
            .await?;
        let pair = |row| {
            let reader = Reader::new("value", "key", row);
            Ok((reader.get("key")?, reader.get("value")?))
        };
        found.rows.iter().map(pair).collect()
    }

    pub async fn delete(&self, space: &str, key: &str) -> Result<(), StoreError> {
        self.db
            .write("deleting a value", DELETE, values![space, key])
            .await?;
        Ok(())
    }
}
