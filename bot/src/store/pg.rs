//! One bot's connections to PostgreSQL: every answer has a limit, and that there was none is counted.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Executor, PgPool, Postgres, pool::PoolConnection};

use super::{
    StoreError,
    db::{Done, Lock, Value, on_postgres},
    error::doing,
};

/// How long a bot waits for the answer to one statement of PostgreSQL: statements take milliseconds, and the server's own
/// limit is shorter. Past this the network hangs, and waiting longer would only hide it.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Separates our advisory locks from those of others in the same database ("nigh").
const LOCK_CLASS: i32 = 0x6e69_6768;

/// The connections of one bot.
#[derive(Clone)]
pub(super) struct Pg {
    pool: PgPool,
    /// For what must not wait behind the bot's own work.
    vital: PgPool,
    troubles: Arc<Troubles>,
}

/// Of a database that was away when something was asked of it.
#[derive(Default)]
struct Troubles {
    count: AtomicU64,
    last: Mutex<Option<String>>,
}

impl Pg {
    pub fn new(pool: PgPool, vital: PgPool) -> Self {
        Self {
            pool,
            vital,
            troubles: Arc::default(),
        }
    }

    /// What was asked last when the database was away, and what was found.
    pub fn last_trouble(&self) -> Option<String> {
        let last = self.troubles.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, on the connections for what is vital.
    pub fn vital(&self) -> Self {
        Self {
            pool: self.vital.clone(),
            ..self.clone()
        }
    }

    pub async fn close(&self) {
        self.pool.close().await;
        self.vital.close().await;
    }

    /// How often that was so.
    pub fn troubles(&self) -> u64 {
        self.troubles.count.load(Ordering::SeqCst)
    }

    pub async fn one(
        &self,
        what: &'static str,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let mut connection = self.acquire(what).await?;
        let done = on_postgres(&mut connection, sql, values);
        let done = self.answered(what, done).await;
        if matches!(&done, Err(error) if error.is_away()) {
            // It hangs, or leads to a server that does not take writes any more.
            connection.close_on_drop();
        }
        done
    }

    async fn acquire(&self, what: &'static str) -> Result<PoolConnection<Postgres>, StoreError> {
        let connection = self.pool.acquire().await.map_err(doing(what));
        self.noted(connection)
    }

    /// An answer, or that there was none in time.
    async fn answered<T>(
        &self,
        what: &'static str,
        running: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let answer = match tokio::time::timeout(ANSWER_LIMIT, running).await {
            Ok(answer) => answer.map_err(doing(what)),
            Err(_) => Err(StoreError::Away {
                doing: what,
                found: format!("no answer in {} s", ANSWER_LIMIT.as_secs()),
            }),
        };
        self.noted(answer)
    }

    fn noted<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| {
            if error.is_away() {
                let last = self.troubles.last.lock();
                *last.unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                self.troubles.count.fetch_add(1, Ordering::SeqCst);
            }
        })
    }
}

/// A transaction of PostgreSQL on a connection of its own. One that was not committed closes its connection, so that the
/// server undoes it however the bot came to drop it.
pub(super) struct PgTx {
    pg: Pg,
    connection: PoolConnection<Postgres>,
    open: bool,
}

impl PgTx {
    pub async fn begin(pg: &Pg, what: &'static str, lock: Lock<'_>) -> Result<Self, StoreError> {
        let mut tx = Self {
            connection: pg.acquire(what).await?,
            pg: pg.clone(),
            open: true,
        };
        let mut begin = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        if let Some(key) = lock.key() {
            begin.push_str(&format!(
                "; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {key})"
            ));
        }
        tx.raw(what, begin).await?;
        Ok(tx)
    }

    pub async fn run(
        &mut self,
        what: &'static str,
        sql: &'static str,
        values: Vec<Value>,
    ) -> Result<Done, StoreError> {
        let done = on_postgres(&mut self.connection, sql, values);
        self.pg.answered(what, done).await
    }

    /// Words of our own, without values.
    pub async fn raw(&mut self, what: &'static str, sql: String) -> Result<(), StoreError> {
        let running = async {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql));
            (&mut *self.connection).execute(sql).await.map(drop)
        };
        self.pg.answered(what, running).await
    }

    pub async fn commit(mut self, what: &'static str) -> Result<(), StoreError> {
        self.raw(what, "COMMIT".to_owned()).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}
