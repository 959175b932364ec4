//! The embedded store: one file in the state directory, checked when it is opened.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    StoreError,
    db::{Db, is_damage},
    mover::{self, Mover},
    wal::Wal,
    writer::Writer,
};

/// File in the state directory.
pub const FILE_NAME: &str = "nightshift.db";

/// Readers at once: more than the few pages and commands that read at the same time.
const READERS: u32 = 4;

/// Texts of statements that a connection keeps ready; statements that go together have a text of their own.
const STATEMENTS: usize = 512;

/// How long a statement waits for another process that holds the file, for example a backup.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How long a caller waits for its turn at the one writer. Writes take milliseconds; past this the disk hangs, and an
/// error is better than a bot that seems to work.
pub(super) const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Opens or creates the store in a state directory, checks it, and brings its tables up to date.
pub(super) async fn open(state_dir: &Path) -> Result<Db, StoreError> {
    prepare_directory(state_dir).await?;
    let path = state_dir.join(FILE_NAME);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit waits for the disk in `wal`, not in SQLite.
        .synchronous(SqliteSynchronous::Normal)
        .pragma("wal_autocheckpoint", mover::LOG_PAGES_MAX)
        .foreign_keys(true)
        .busy_timeout(BUSY_LIMIT)
        .statement_cache_capacity(STATEMENTS);
    let failed = |error| open_error(&path, &error);
    let first = pool(1).connect_with(options.clone()).await;
    let first = first.map_err(failed)?;
    check(&first, &path).await?;
    let migrated = migrator().run(&first).await;
    migrated.map_err(|error| migrate_error(&path, &error))?;
    let wal = Wal::of(&path);
    settle(&first, &wal, &path).await?;
    let writer = first.acquire().await.map_err(failed)?.detach();
    let later = options.clone().create_if_missing(false);
    let readers = pool(READERS).connect_with(later.clone().read_only(true));
    let readers = readers.await.map_err(failed)?;
    let mover = Mover::start(&later, &path).await.map_err(failed)?;
    Ok(Db::Sqlite {
        writer: Writer::new(later, writer, mover),
        readers,
        wal,
    })
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        // A ping before each use would double the statements; a local file does not go away.
        .test_before_acquire(false)
}

/// Created for the owner only: the store holds chat identities and readings of hosts.
async fn prepare_directory(state_dir: &Path) -> Result<(), StoreError> {
    let failed = |found| StoreError::Directory {
        path: state_dir.to_owned(),
        found,
    };
    let mut builder = tokio::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(state_dir).await.map_err(failed)
}

async fn check(writer: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(writer)
        .await
        .map_err(|error| open_error(path, &error))?;
    if found == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        found,
    })
}

/// What an earlier process left in the log is on the disk before anybody reads it: an intent that was written and not synced
/// would be acted on as if it were. It is moved out of the log, as after a failed sync the log may have a hole on the disk that
/// the kernel's copy has not.
async fn settle(writer: &SqlitePool, wal: &Wal, path: &Path) -> Result<(), StoreError> {
    let moved: (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(writer)
        .await
        .map_err(|error| open_error(path, &error))?;
    if moved.0 != 0 {
        // A backup, or `audit verify`; the bot does not wait for it longer than this.
        tracing::warn!(path = %path.display(), "somebody reads the store: its log is synced where it is");
    }
    wal.durable("opening the store").await
}

/// Numbered as those of PostgreSQL: the same number makes the same tables.
fn migrator() -> Migrator {
    Migrator::with_migrations(vec![
        migration(
            1,
            "store",
            include_str!("../../migrations/sqlite/0001_store.sql"),
        ),
        migration(
            2,
            "several bots",
            include_str!("../../migrations/sqlite/0002_several_bots.sql"),
        ),
        migration(
            3,
            "access",
            include_str!("../../migrations/sqlite/0003_access.sql"),
        ),
        migration(
            4,
            "batches",
            include_str!("../../migrations/sqlite/0004_batches.sql"),
        ),
        migration(
            5,
            "storms",
            include_str!("../../migrations/sqlite/0005_storms.sql"),
        ),
    ])
}

pub(super) fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(
        version,
        Cow::Borrowed(name),
        MigrationType::Simple,
        sqlx::SqlSafeStr::into_sql_str(sql),
        false,
    )
}

fn open_error(path: &Path, error: &sqlx::Error) -> StoreError {
    let (path, found) = (path.to_owned(), error.to_string());
    if is_damage(error) {
        StoreError::Damaged { path, found }
    } else {
        StoreError::Open { path, found }
    }
}

fn migrate_error(path: &Path, error: &MigrateError) -> StoreError {
    let (path, found): (PathBuf, String) = (path.to_owned(), error.to_string());
    match error {
        MigrateError::Execute(source) => open_error(&path, source),
        _ => StoreError::Version { path, found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that a version made which had some of the numbers only.
    #[tokio::test]
    async fn a_store_of_an_earlier_version_is_brought_up_to_date() {
        for had in [vec![1], vec![1, 3], vec![1, 2]] {
            let dir = tempfile::tempdir().unwrap();
            let options = SqliteConnectOptions::new()
                .filename(dir.path().join(FILE_NAME))
                .create_if_missing(true);
            let earlier = pool(1).connect_with(options).await.unwrap();
            let all = migrator();
            let some = all.iter().filter(|one| had.contains(&one.version));
            let some = Migrator::with_migrations(some.cloned().collect());
            some.run(&earlier).await.unwrap();
            earlier.close().await;
            for _ in 0..2 {
                open(dir.path()).await.unwrap().close().await;
            }
        }
    }

    /// As a bot finds it that is started again after it was killed.
    #[tokio::test]
    async fn what_a_killed_bot_left_in_the_log_is_on_the_disk_before_it_is_read() {
        let [dir, later] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let left = open(dir.path()).await.unwrap();
        let sql = "INSERT INTO kv (space, key, value) VALUES ('a', 'b', 'c')";
        left.write_in_order("testing", sql, vec![]).await.unwrap();
        let log = format!("{FILE_NAME}-wal");
        for name in [FILE_NAME, &log] {
            std::fs::copy(dir.path().join(name), later.path().join(name)).unwrap();
        }
        let length = |name: &str| std::fs::metadata(later.path().join(name)).unwrap().len();
        assert!(length(&log) > 0);
        let found = open(later.path()).await.unwrap();
        assert_eq!(length(&log), 0);
        let read = found.read("testing", "SELECT value FROM kv", vec![]).await;
        assert_eq!(read.unwrap().rows.len(), 1);
    }

    #[test]
    fn both_databases_have_the_same_migrations() {
        let named = |all: Migrator| -> Vec<(i64, String)> {
            let all = all.iter();
            all.map(|one| (one.version, one.description.to_string()))
                .collect()
        };
        assert_eq!(named(migrator()), named(super::super::postgres::migrator()));
    }

    /// What was released is never changed: a store that has it would not open any more.
    #[test]
    fn released_tables_are_as_they_were() {
        let released = migrator().iter().next().unwrap().checksum.to_vec();
        let hex: String = released.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..32], "5aa537eb44809b0c184b7cdac87e85a5");
    }
}
