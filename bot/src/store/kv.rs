//! Single values: chat sync positions, `!halt`, watermarks.

use super::{Store, StoreError, db::values, row::Reader};

const PUT: &str = "INSERT INTO kv (space, key, value) VALUES ($1, $2, $3) \
                   ON CONFLICT (space, key) DO UPDATE SET value = excluded.value";

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
        let sql = "SELECT key, value FROM kv WHERE space = $1 AND key = $2";
        let found = self
            .db
            .read("reading a value", sql, values![space, key])
            .await?;
        found
            .first()
            .map(|row| Reader::new("value", "key", &row).get("value"))
            .transpose()
    }

    /// All values of a space, by key.
    pub async fn list(&self, space: &str) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT key, value FROM kv WHERE space = $1 ORDER BY key";
        let found = self.db.read("reading values", sql, values![space]).await?;
        let pair = |row| {
            let reader = Reader::new("value", "key", row);
            Ok((reader.get("key")?, reader.get("value")?))
        };
        found.rows.iter().map(pair).collect()
    }

    pub async fn delete(&self, space: &str, key: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM kv WHERE space = $1 AND key = $2";
        self.db
            .write("deleting a value", sql, values![space, key])
            .await?;
        Ok(())
    }
}
