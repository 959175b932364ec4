//! SQLite's one writer, and its transactions. Each statement goes to the connection's thread and back, some 60 µs: what nobody waits
//! for goes with the statement after it, `BEGIN` with the first and `COMMIT` with the last.

use std::sync::Arc;

use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Either, Executor, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use super::{
    db::{Done, Row, Value, bound},
    mover::Mover,
    sqlite::TURN_LIMIT,
};

/// Statements that wait to be sent together; more would only make one answer late.
const TOGETHER_MAX: usize = 8;

/// The connection that writes. Whoever has it writes alone; others wait in their order. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    options: Arc<SqliteConnectOptions>,
    place: Arc<Mutex<Place>>,
    mover: Mover,
}

struct Place {
    /// None: the store was closed, or its thread died.
    connection: Option<SqliteConnection>,
    closed: bool,
    /// A transaction was given up, or failed, and may still be open.
    open: bool,
}

impl Writer {
    pub fn new(options: SqliteConnectOptions, connection: SqliteConnection, mover: Mover) -> Self {
        let place = Place {
            connection: Some(connection),
            closed: false,
            open: false,
        };
        Self {
            options: Arc::new(options),
            place: Arc::new(Mutex::new(place)),
            mover,
        }
    }

    /// One statement, which is a transaction of its own.
    pub async fn one(&self, sql: &'static str, values: Vec<Value>) -> Result<Done, sqlx::Error> {
        let mut place = self.ready().await?;
        let done = send(place.connection()?, Script::of(sql, values)).await;
        self.mover.committed();
        place.note(done)
    }

    /// A transaction that has the file to itself before it reads anything.
    pub async fn begin(&self) -> Result<SqliteTx, sqlx::Error> {
        let place = self.ready().await?;
        Ok(SqliteTx {
            place: Some(place),
            waiting: Script::of("BEGIN IMMEDIATE", Vec::new()),
            mover: self.mover.clone(),
        })
    }

    /// Waits for the turn. What another left open is taken back first.
    async fn ready(&self) -> Result<OwnedMutexGuard<Place>, sqlx::Error> {
        let turn = timeout(TURN_LIMIT, self.place.clone().lock_owned()).await;
        let mut place = turn.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if place.closed {
            return Err(sqlx::Error::PoolClosed);
        }
        if place.connection.is_none() {
            place.connection = Some(self.options.connect().await?);
            place.open = false;
        }
        if place.open {
            place.take_back().await;
        }
        Ok(place)
    }

    pub async fn close(&self) {
        let mut place = self.place.lock().await;
        place.closed = true;
        if let Some(connection) = place.connection.take() {
            // What is not on the disk is made so at the next start.
            let _ = connection.close().await;
        }
    }
}

impl Place {
    fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// SQLite may have done so by itself, as when the disk is full; then there is nothing to take back.
    async fn take_back(&mut self) {
        if let Ok(connection) = self.connection() {
            let _ = send(connection, Script::of("ROLLBACK", Vec::new())).await;
        }
        self.open = false;
    }

    /// A connection whose thread died is replaced by whoever writes next.
    fn note<T>(&mut self, done: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if matches!(done, Err(sqlx::Error::WorkerCrashed)) {
            self.connection = None;
        }
        done
    }
}

/// A transaction; dropped, it did nothing.
pub(super) struct SqliteTx {
    /// None: it is over.
    place: Option<OwnedMutexGuard<Place>>,
    waiting: Script,
    mover: Mover,
}

impl SqliteTx {
    pub async fn run(&mut self, sql: &str, values: Vec<Value>) -> Result<Done, sqlx::Error> {
        // Places without a name are counted from the first value.
        if sql.contains('?') && !self.waiting.values.is_empty() {
            self.send().await?;
        }
        self.waiting.add(sql, values);
        self.send().await
    }

    async fn send(&mut self) -> Result<Done, sqlx::Error> {
        let script = std::mem::take(&mut self.waiting);
        let place = self.place.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        place.open = true;
        let done = send(place.connection()?, script).await;
        place.note(done)
    }

    /// Need not be done before the next statement is; if it fails, that one fails.
    pub async fn later(&mut self, sql: &str, values: Vec<Value>) -> Result<(), sqlx::Error> {
        if self.waiting.statements < TOGETHER_MAX && !sql.contains('?') {
            self.waiting.add(sql, values);
            return Ok(());
        }
        self.run(sql, values).await.map(drop)
    }

    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.run("COMMIT", Vec::new()).await?;
        if let Some(mut place) = self.place.take() {
            place.open = false;
        }
        self.mover.committed();
        Ok(())
    }
}

impl Drop for SqliteTx {
    /// Taken back at once, so that no other process waits for it either; without a runtime, by whoever writes next, or with the file.
    fn drop(&mut self) {
        let Some(mut place) = self.place.take().filter(|place| place.open) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { place.take_back().await });
        }
    }
}

/// Statements that are sent together, with their values.
#[derive(Default)]
struct Script {
    sql: String,
    values: Vec<Value>,
    statements: usize,
}

impl Script {
    fn of(sql: &str, values: Vec<Value>) -> Self {
        let mut script = Self::default();
        script.add(sql, values);
        script
    }

    /// `$1` of the statement is the first value after those of the statements before it.
    fn add(&mut self, sql: &str, values: Vec<Value>) {
        if self.statements > 0 {
            self.sql.push(';');
        }
        let before = self.values.len();
        let mut parts = sql.split('$');
        self.sql.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = part.split_at(digits);
            self.sql.push('$');
            match number.parse::<usize>() {
                Ok(number) => self.sql.push_str(&(number + before).to_string()),
                Err(_) => self.sql.push_str(number), // no placeholder
            }
            self.sql.push_str(rest);
        }
        self.values.extend(values);
        self.statements += 1;
    }
}

/// What the last statement did. The texts are ours, and values are bound, never written into them.
async fn send(connection: &mut SqliteConnection, script: Script) -> Result<Done, sqlx::Error> {
    let query = bound!(AssertSqlSafe(script.sql), script.values, |text: String| {
        text
    });
    let mut done = Done::default();
    let mut ended = 0;
    let mut answers = connection.fetch_many(query);
    while let Some(answer) = answers.try_next().await? {
        let is_last = ended + 1 == script.statements;
        match answer {
            Either::Left(result) => {
                ended += 1;
                if is_last {
                    done.affected = result.rows_affected();
                }
            }
            Either::Right(row) if is_last => done.rows.push(Row::Sqlite(row)),
            Either::Right(_) => {}
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const INSERT: &str = "INSERT INTO t (a, b) VALUES ($1, $2)";

    async fn writer(dir: &tempfile::TempDir) -> Writer {
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("x.db"))
            .create_if_missing(true);
        let connection = options.connect().await.unwrap();
        let mover = Mover::start(&options, dir.path()).await.unwrap();
        let writer = Writer::new(options, connection, mover);
        let table = "CREATE TABLE t (a TEXT UNIQUE, b INTEGER)";
        writer.one(table, Vec::new()).await.unwrap();
        writer
    }

    fn row(a: &str, b: i64) -> Vec<Value> {
        vec![a.into(), b.into()]
    }

    async fn kept(writer: &Writer) -> Vec<(String, i64)> {
        use sqlx::Row as _;
        let done = writer
            .one("SELECT a, b FROM t ORDER BY b", Vec::new())
            .await;
        let read = |row: &Row| match row {
            Row::Sqlite(row) => (row.get(0), row.get(1)),
            Row::Postgres(_) => unreachable!("of SQLite"),
        };
        done.unwrap().rows.iter().map(read).collect()
    }

    #[test]
    fn placeholders_count_on() {
        let mut script = Script::of("UPDATE t SET b = $1 WHERE a = $2", row("x", 1));
        script.add("SELECT '$' || $2 || $1, $10", row("y", 2));
        assert_eq!(
            script.sql,
            "UPDATE t SET b = $1 WHERE a = $2;SELECT '$' || $4 || $3, $12"
        );
        assert_eq!((script.values.len(), script.statements), (4, 2));
    }

    #[tokio::test]
    async fn what_waits_is_written_before_what_is_asked_next() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir).await;
        let mut tx = writer.begin().await.unwrap();
        for number in 0..20 {
            tx.later(INSERT, row(&format!("k{number}"), number))
                .await
                .unwrap();
        }
        let asked = tx
            .run("SELECT a FROM t WHERE b >= $1", vec![15_i64.into()])
            .await;
        assert_eq!(asked.unwrap().rows.len(), 5);
        tx.later(INSERT, row("last but one", 20)).await.unwrap();
        let nameless = "INSERT INTO t (a, b) VALUES (?, ?)";
        tx.later(nameless, row("last", 21)).await.unwrap();
        tx.commit().await.unwrap();
        let kept = kept(&writer).await;
        assert_eq!(kept.len(), 22);
        assert_eq!(kept[21], ("last".to_owned(), 21));
        let changed = writer
            .one("UPDATE t SET b = b + $1", vec![1_i64.into()])
            .await;
        assert_eq!(changed.unwrap().affected, 22);
    }

    #[tokio::test]
    async fn a_transaction_that_fails_or_is_dropped_leaves_nothing_and_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir).await;
        let mut tx = writer.begin().await.unwrap();
        tx.run(INSERT, row("dropped", 1)).await.unwrap();
        drop(tx);
        // Another process, which waits for nobody.
        let options = (*writer.options).clone().busy_timeout(Duration::ZERO);
        let mut other = options.connect().await.unwrap();
        drop(writer.ready().await.unwrap());
        other.execute("DELETE FROM t").await.unwrap();
        let mut tx = writer.begin().await.unwrap();
        tx.later(INSERT, row("twice", 2)).await.unwrap();
        tx.later(INSERT, row("twice", 3)).await.unwrap();
        assert!(tx.commit().await.is_err());
        let mut tx = writer.begin().await.unwrap();
        tx.later("INSERT INTO nowhere VALUES ($1)", vec![4_i64.into()])
            .await
            .unwrap();
        assert!(tx.run(INSERT, row("after", 4)).await.is_err());
        drop(tx);
        writer.one(INSERT, row("alone", 5)).await.unwrap();
        // Dropped before anything was sent.
        drop(writer.begin().await.unwrap());
        let mut tx = writer.begin().await.unwrap();
        tx.later(INSERT, row("whole", 6)).await.unwrap();
        tx.commit().await.unwrap();
        let names: Vec<String> = kept(&writer).await.into_iter().map(|(a, _)| a).collect();
        assert_eq!(names, ["alone", "whole"]);
        writer.close().await;
        assert!(matches!(writer.begin().await, Err(sqlx::Error::PoolClosed)));
    }

    /// Whoever stops waiting in the middle of a statement leaves it to the connection, and the transaction to the next one.
    #[tokio::test]
    async fn one_that_is_given_up_is_taken_back_by_the_next() {
        use futures::FutureExt;
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir).await;
        // The connection's thread may be the quicker one and have done it already; then the next one is given up.
        let mut in_the_middle = false;
        for _ in 0..100 {
            let mut tx = writer.begin().await.unwrap();
            let done = tx.run(INSERT, row("given up", 1)).now_or_never();
            in_the_middle = done.is_none();
            if in_the_middle {
                break;
            }
        }
        assert!(in_the_middle);
        let mut tx = writer.begin().await.unwrap();
        tx.run(INSERT, row("next", 2)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(kept(&writer).await, [("next".to_owned(), 2)]);
    }
}
