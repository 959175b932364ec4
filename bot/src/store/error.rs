//! Why the store could not do something, in words for whoever has to mend it.

use std::path::PathBuf;

use sqlx::postgres::PgDatabaseError;

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
    #[error("{doing}: the disk of the store is full; nothing was recorded")]
    Full { doing: &'static str },
    #[error("{doing}: the store is damaged ({found}); nothing was recorded")]
    Corrupt { doing: &'static str, found: String },
    #[error("{doing}: {found}")]
    Database { doing: &'static str, found: String },
    /// The database server cannot be reached, or does not take writes now; it may be back in a moment.
    #[error("{doing}: the database is away ({found})")]
    Away { doing: &'static str, found: String },
    /// Nobody takes the alerts out of the store: no bot leads.
    #[error("{waiting} webhooks wait for a bot that leads; come again")]
    Behind { waiting: u64 },
    #[error("expected to use the store {at}, found: {found}")]
    Connect { at: String, found: String },
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

/// PostgreSQL's codes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const PG_DISK_FULL: &str = "53100";
/// Data or index corrupted.
const PG_CORRUPT: [&str; 2] = ["XX001", "XX002"];
/// Connection exceptions; then: read-only (a demoted primary), statement ended by its limit, lock not had in time, shutting
/// down, crashed, starting, ended while idle in a transaction, too many connections.
const PG_AWAY_CLASS: &str = "08";
const PG_AWAY: [&str; 8] = [
    "25006", "57014", "55P03", "57P01", "57P02", "57P03", "25P03", "53300",
];

/// What a failure of the database means for the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Full,
    Damage,
    Away,
    Other,
}

/// What `error` means. Pure.
pub(super) fn meaning(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => of_postgres(error.code()),
            None => of_sqlite(database.code().and_then(|code| code.parse().ok())),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Meaning::Away,
        _ => Meaning::Other,
    }
}

fn of_sqlite(code: Option<i32>) -> Meaning {
    match code.map(|code| code & 0xff) {
        Some(SQLITE_FULL) => Meaning::Full,
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Meaning::Damage,
        _ => Meaning::Other,
    }
}

fn of_postgres(code: &str) -> Meaning {
    match code {
        PG_DISK_FULL => Meaning::Full,
        code if PG_CORRUPT.contains(&code) => Meaning::Damage,
        code if code.starts_with(PG_AWAY_CLASS) || PG_AWAY.contains(&code) => Meaning::Away,
        _ => Meaning::Other,
    }
}

impl StoreError {
    /// What `doing` ran into.
    pub(super) fn from_sqlx(doing: &'static str, error: &sqlx::Error) -> Self {
        let found = error.to_string();
        match meaning(error) {
            Meaning::Full => Self::Full { doing },
            Meaning::Damage => Self::Corrupt { doing, found },
            Meaning::Away => Self::Away { doing, found },
            Meaning::Other => Self::Database { doing, found },
        }
    }

    /// The database may be back in a moment, and then the same can be tried again.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// Says what was being done when the database failed.
pub(super) fn doing(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::from_sqlx(what, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("08006", Meaning::Away)]
    #[case("57P01", Meaning::Away)]
    #[case("25006", Meaning::Away)]
    #[case("53100", Meaning::Full)]
    #[case("XX001", Meaning::Damage)]
    #[case("23505", Meaning::Other)]
    fn codes_of_postgres(#[case] code: &str, #[case] expected: Meaning) {
        assert_eq!(of_postgres(code), expected);
    }

    #[rstest::rstest]
    #[case(13, Meaning::Full)]
    #[case(267, Meaning::Damage)]
    #[case(19, Meaning::Other)]
    fn codes_of_sqlite(#[case] code: i32, #[case] expected: Meaning) {
        assert_eq!(of_sqlite(Some(code)), expected);
    }
}
