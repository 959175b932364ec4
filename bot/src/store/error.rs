//! Why the store could not do something, in words for whoever has to mend it.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("expected a writable state directory at {path}, found: {found}", path = .path.display())]
    Directory {
        path: PathBuf,
        found: std::io::Error,
    },
    #[error(
        "expected to open the store {path}, found: {found}; check the directory's owner and the file system",
        path = .path.display()
    )]
    Open { path: PathBuf, found: String },
    #[error(
        "expected a sound store in {path}, found: {found}; stop the bot, keep a copy of the file, restore a backup or move it away",
        path = .path.display()
    )]
    Damaged { path: PathBuf, found: String },
    #[error("the store {path} was not made by this version: {found}", path = .path.display())]
    Version { path: PathBuf, found: String },
    #[error("{doing}: the disk of the state directory is full; nothing was recorded")]
    Full { doing: &'static str },
    #[error("{doing}: the store's file is damaged ({found}); nothing was recorded")]
    Corrupt { doing: &'static str, found: String },
    #[error("{doing}: {found}")]
    Database { doing: &'static str, found: String },
    /// A row whose JSON or time cannot be read.
    #[error("{table} {key}: expected a readable row, found: {found}")]
    Row {
        table: &'static str,
        key: String,
        found: String,
    },
}

/// SQLite's primary result codes (<https://sqlite.org/rescode.html>).
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;

impl StoreError {
    /// What `doing` ran into.
    pub(super) fn from_sqlx(doing: &'static str, error: &sqlx::Error) -> Self {
        let found = error.to_string();
        match primary_code(error) {
            Some(SQLITE_FULL) => Self::Full { doing },
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::Corrupt { doing, found },
            _ => Self::Database { doing, found },
        }
    }

    pub(super) fn is_damage(error: &sqlx::Error) -> bool {
        matches!(primary_code(error), Some(SQLITE_CORRUPT | SQLITE_NOTADB))
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Says what was being done when the database failed.
pub(super) fn doing(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::from_sqlx(what, &error)
}
