//! Reading columns: times, JSON and words.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};

use super::{StoreError, db::Row};

/// A row of a table, with what is needed to say where a bad one is.
pub(super) struct Reader<'r> {
    pub table: &'static str,
    pub key: String,
    pub row: &'r Row,
}

impl<'r> Reader<'r> {
    /// `key` is the column that names the row.
    pub fn new(table: &'static str, key: &str, row: &'r Row) -> Self {
        let mut reader = Self {
            table,
            key: String::new(),
            row,
        };
        let found = reader.get::<String>(key);
        reader.key = found.unwrap_or_else(|_| "(without a readable key)".to_owned());
        reader
    }

    pub fn bad(&self, found: impl ToString) -> StoreError {
        StoreError::Row {
            table: self.table,
            key: self.key.clone(),
            found: found.to_string(),
        }
    }

    pub fn get<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        let found = match self.row {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        };
        found.map_err(|error| self.bad(error))
    }

    pub fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        from_micros(self.get(column)?).map_err(|error| self.bad(error))
    }

    pub fn time_if_any(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = self.get(column)?;
        micros
            .map(from_micros)
            .transpose()
            .map_err(|error| self.bad(error))
    }

    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|error| self.bad(format!("{column}: {error}")))
    }

    /// An enum that is kept as its serialised word.
    pub fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        let text: String = self.get(column)?;
        serde_json::from_value(serde_json::Value::String(text))
            .map_err(|error| self.bad(format!("{column}: {error}")))
    }
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn from_micros(micros: i64) -> Result<Timestamp, jiff::Error> {
    Timestamp::from_microsecond(micros)
}

/// The JSON of a body that is about to be written.
pub(super) fn to_json<T: Serialize + ?Sized>(
    table: &'static str,
    key: &str,
    body: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(body).map_err(|error| StoreError::Row {
        table,
        key: key.to_owned(),
        found: error.to_string(),
    })
}
