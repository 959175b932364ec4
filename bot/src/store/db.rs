//! The one way to either database: a query is written once, with `$1`, `$2`, … for its values, which both take.
//!
//! Isolation. A write transaction says what it locks ([`Lock`]), and has the lock before it reads anything: so what it reads is
//! still true when it commits. In SQLite that is the whole file (`BEGIN IMMEDIATE`); in PostgreSQL an advisory lock, under
//! `READ COMMITTED`, where each statement sees everything that was committed before the lock was had.

use futures::TryStreamExt;
use sqlx::{
    Either, Executor, PgConnection, SqliteConnection, SqlitePool, postgres::PgRow,
    sqlite::SqliteRow,
};

use super::{
    StoreError,
    error::{Meaning, doing, meaning},
    pg::{Pg, PgTx},
    postgres::CHANNEL,
    wal::Wal,
    writer::{SqliteTx, Writer},
};

/// A query in the words of both databases; the same words wherever they agree.
#[derive(Clone, Copy)]
pub(super) struct Sql {
    sqlite: &'static str,
    postgres: &'static str,
}

impl Sql {
    pub const fn each(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }
}

impl From<&'static str> for Sql {
    fn from(both: &'static str) -> Self {
        Self::each(both, both)
    }
}

/// A value of a query. All columns of the store are texts or 64-bit integers.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

/// The values of a query, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::db::Value::from($value)),*] };
}
pub(super) use values;

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a statement did.
#[derive(Default)]
pub(super) struct Done {
    pub affected: u64,
    pub rows: Vec<Row>,
}

impl Done {
    pub fn first(mut self) -> Option<Row> {
        match self.rows.is_empty() {
            true => None,
            false => Some(self.rows.swap_remove(0)),
        }
    }
}

/// What a write transaction reads and must find unchanged when it commits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lock<'a> {
    /// Nothing that it reads decides what it writes; rows that it changes are locked by changing them.
    Rows,
    Alerts,
    Leases,
    Approval(&'a str),
    /// Everything, against every other bot: a copy of one store into another.
    Copy,
}

impl Lock<'_> {
    /// The second key of the advisory lock. Two approvals that share one only wait for each other.
    pub fn key(self) -> Option<i32> {
        match self {
            Self::Rows => None,
            Self::Alerts => Some(1),
            Self::Leases => Some(2),
            Self::Copy => Some(3),
            Self::Approval(id) => {
                use sha2::{Digest, Sha256};
                let digest = Sha256::digest(id.as_bytes());
                let number = i32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
                Some(number | 0x100)
            }
        }
    }
}

/// Either database. Cheap to clone.
#[derive(Clone)]
pub(super) enum Db {
    Sqlite {
        writer: Writer,
        readers: SqlitePool,
        wal: Wal,
    },
    Postgres(Pg),
}

impl Db {
    pub async fn read(
        &self,
        what: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite { readers, .. } => one_on_sqlite(readers, what, sql, values).await,
            Self::Postgres(pg) => pg.one(what, sql.postgres, values).await,
        }
    }

    /// One statement, which is a transaction of its own; durable when it returns.
    pub async fn write(
        &self,
        what: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let done = self.write_in_order(what, sql, values).await?;
        self.durable(what).await?;
        Ok(done)
    }

    /// Everything that was committed before this is on the disk when it returns.
    pub async fn durable(&self, what: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { wal, .. } => wal.durable(what).await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// As [`Db::write`], but it need not be on the disk yet when it returns: it is no later than whatever is written after it,
    /// so for what nobody acts on, or is told of, before that. (PostgreSQL: on the disk.)
    pub async fn write_in_order(
        &self,
        what: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite { writer, wal, .. } => {
                wal.usable(what)?;
                let done = writer.one(sql.sqlite, values).await;
                done.map_err(doing(what))
            }
            Self::Postgres(pg) => pg.one(what, sql.postgres, values).await,
        }
    }

    /// A write transaction that has its turn, and its lock before it reads anything.
    pub async fn begin(&self, what: &'static str, lock: Lock<'_>) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, wal, .. } => {
                wal.usable(what)?;
                let tx = writer.begin().await;
                Ok(Tx::Sqlite(tx.map_err(doing(what))?, wal.clone()))
            }
            Self::Postgres(pg) => PgTx::begin(pg, what, lock).await.map(Tx::Postgres),
        }
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite {
                writer, readers, ..
            } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres(pg) => pg.close().await,
        }
    }
}

/// A write transaction; dropped, it did nothing.
pub(super) enum Tx {
    Sqlite(SqliteTx, Wal),
    Postgres(PgTx),
}

impl Tx {
    pub async fn run(
        &mut self,
        what: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite(tx, _) => {
                let done = tx.run(sql.sqlite, values).await;
                done.map_err(doing(what))
            }
            Self::Postgres(tx) => tx.run(what, sql.postgres, values).await,
        }
    }

    /// As [`Tx::run`], for what nobody needs the answer of: it may go to the database with the statement after it, and fail with it.
    pub async fn later(
        &mut self,
        what: &'static str,
        sql: impl Into<Sql>,
        values: Vec<Value>,
    ) -> Result<(), StoreError> {
        let sql = sql.into();
        match self {
            Self::Sqlite(tx, _) => tx.later(sql.sqlite, values).await.map_err(doing(what)),
            Self::Postgres(tx) => tx.run(what, sql.postgres, values).await.map(drop),
        }
    }

    /// Wakes other bots when this is committed; a store that has only one wakes nobody.
    pub async fn wake(&mut self, what: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(..) => Ok(()),
            Self::Postgres(tx) => tx.raw(what, format!("NOTIFY {CHANNEL}")).await,
        }
    }

    /// Durable when it returns. If it fails as away it may have happened or not: whoever needs to know reads again.
    pub async fn commit(self, what: &'static str) -> Result<(), StoreError> {
        let wal = match &self {
            Self::Sqlite(_, wal) => Some(wal.clone()),
            Self::Postgres(_) => None,
        };
        self.commit_in_order(what).await?;
        match wal {
            Some(wal) => wal.durable(what).await,
            None => Ok(()),
        }
    }

    /// As [`Tx::commit`], but it need not be on the disk yet when it returns: see [`Db::write_in_order`].
    pub async fn commit_in_order(self, what: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _) => tx.commit().await.map_err(doing(what)),
            Self::Postgres(tx) => tx.commit(what).await,
        }
    }
}

async fn one_on_sqlite(
    pool: &SqlitePool,
    what: &'static str,
    sql: Sql,
    values: Vec<Value>,
) -> Result<Done, StoreError> {
    let mut connection = pool.acquire().await.map_err(doing(what))?;
    on_sqlite(&mut connection, sql.sqlite, values)
        .await
        .map_err(doing(what))
}

/// A query with its values.
macro_rules! bound {
    ($sql:expr, $values:expr, $text:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match value {
                $crate::store::db::Value::Text(text) => query.bind(text.map($text)),
                $crate::store::db::Value::Int(number) => query.bind(number),
            };
        }
        query
    }};
}
pub(super) use bound;

macro_rules! on {
    ($connection:expr, $sql:expr, $values:expr, $row:path, $text:expr) => {{
        let query = bound!($sql, $values, $text);
        let mut done = Done::default();
        let mut answers = $connection.fetch_many(query);
        while let Some(answer) = answers.try_next().await? {
            match answer {
                Either::Left(result) => done.affected += result.rows_affected(),
                Either::Right(row) => done.rows.push($row(row)),
            }
        }
        Ok(done)
    }};
}

async fn on_sqlite(
    connection: &mut SqliteConnection,
    sql: &'static str,
    values: Vec<Value>,
) -> Result<Done, sqlx::Error> {
    on!(connection, sql, values, Row::Sqlite, |text: String| text)
}

pub(super) async fn on_postgres(
    connection: &mut PgConnection,
    sql: &'static str,
    values: Vec<Value>,
) -> Result<Done, sqlx::Error> {
    on!(connection, sql, values, Row::Postgres, without_nul)
}

/// PostgreSQL keeps no NUL in a text. A label that has one (nobody means it well) must not stop the alerts beside it.
pub(super) fn without_nul(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
}

/// Is the file or the database itself damaged?
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    meaning(error) == Meaning::Damage
}
