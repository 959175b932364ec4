//! The store of several bots: any PostgreSQL, best one that is highly available.
//!
//! Every wait has a limit on both sides. The bot's say when it stops believing in an answer; the server's end what a bot left
//! that was cut off, so that its locks hold up nobody for longer than a take-over may last.

use std::time::Duration;

use sqlx::{
    Connection, Executor, PgConnection, PgPool, Row,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::watch, task::JoinHandle};

use super::{StoreError, address::PostgresStore, db::Db, pg::Pg, sqlite::migration};

/// Connections of one bot: a few jobs that write their journals, the healer, the chat, webhooks. Well below what a server
/// with its usual 100 leaves for three bots.
const CONNECTIONS: u32 = 8;

/// Beside them, one for the sign of life and what goes with it, one for the look at `halt` before each step: a bot whose jobs all
/// write at once is busy, not dead.
const VITAL_CONNECTIONS: u32 = 2;

/// How long the sign of life waits for a connection, opening one included: longer than a TLS handshake over a slow network, short
/// enough that a bot which leads notices that the database is away before others take over.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How long all else waits for one: the steps of 64 hosts that end at the same moment write one after another.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// How long a start waits for the first connections, and how often it looks whether they are there.
const START_LIMIT: Duration = Duration::from_secs(30);
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// How long bringing the tables up to date may take, waiting for another bot that does the same included.
const MIGRATE_LIMIT: Duration = Duration::from_secs(60);

/// The first and the longest pause before a broken listener is made anew. Polling goes on meanwhile.
const LISTEN_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The oldest server whose SQL the store uses.
const OLDEST_VERSION: i32 = 130_000;

/// What the server does for a session of ours:
/// a statement ends before the bot gives up on it; waiting for a lock ends sooner; a transaction that a dead bot left open ends
/// and frees its locks; a connection whose bot is cut off is found out within seconds.
const LIMITS: [(&str, &str); 7] = [
    ("statement_timeout", "4s"),
    ("lock_timeout", "3s"),
    ("idle_in_transaction_session_timeout", "3s"),
    ("tcp_keepalives_idle", "3"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "6000"),
];

/// A commit is on the server's disk when it returns, whatever the server's default; a stricter default is kept.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// The channel on which bots wake each other.
pub(super) const CHANNEL: &str = "nightshift";

/// Hears that other bots left something; stops listening when it is dropped.
pub(super) struct Ear {
    woken: watch::Sender<u64>,
    listening: Option<JoinHandle<()>>,
}

impl Ear {
    /// For a store that nobody else uses.
    pub fn deaf() -> Self {
        Self {
            woken: watch::Sender::new(0),
            listening: None,
        }
    }

    pub fn woken(&self) -> watch::Receiver<u64> {
        self.woken.subscribe()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// Connects, checks the server, and brings its tables up to date.
pub(super) async fn open(store: &PostgresStore, replica: &str) -> Result<(Db, Ear), StoreError> {
    let at = store.at();
    let failed = |found: String| StoreError::Connect {
        at: at.clone(),
        found,
    };
    let options = store
        .options()
        .map_err(&failed)?
        .application_name(&format!("nightshift {replica}"));
    let preparing = prepare(&options);
    match tokio::time::timeout(MIGRATE_LIMIT, preparing).await {
        Ok(prepared) => prepared.map_err(&failed)?,
        Err(_) => {
            return Err(failed(format!(
                "no answer in {} s",
                MIGRATE_LIMIT.as_secs()
            )));
        }
    }
    let options = options.options(LIMITS);
    let pools = tokio::try_join!(work(&options), vital(&options));
    let (pool, vital) = pools.map_err(|error| failed(error.to_string()))?;
    let woken = watch::Sender::new(0);
    let ear = Ear {
        woken: woken.clone(),
        listening: Some(tokio::spawn(listen(pool.clone(), woken))),
    };
    Ok((Db::Postgres(Pg::new(pool, vital)), ear))
}

/// Opened as they are needed.
async fn work(options: &PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    let pool = pool(CONNECTIONS, TURN_LIMIT);
    opened(pool, 1, options).await
}

/// Open before anything depends on them, and kept: a login costs more than a question.
async fn vital(options: &PgConnectOptions) -> Result<PgPool, sqlx::Error> {
    let pool = pool(VITAL_CONNECTIONS, CONNECT_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None);
    opened(pool, VITAL_CONNECTIONS, options).await
}

fn pool(connections: u32, limit: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(limit)
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(DURABLE).await.map(drop) })
        })
}

/// With `first` connections. Nothing hurries at the start, so they may take longer to open than a bot on duty would wait: a task
/// of the pool opens them, which is not given up with whoever waits.
async fn opened(
    pool: PgPoolOptions,
    first: u32,
    options: &PgConnectOptions,
) -> Result<PgPool, sqlx::Error> {
    let pool = pool
        .min_connections(first)
        .connect_lazy_with(options.clone());
    let all_open = async {
        loop {
            match pool.acquire().await {
                Ok(_) if pool.size() >= first => return Ok(()),
                Ok(_) => tokio::time::sleep(OPEN_PAUSE).await,
                Err(sqlx::Error::PoolTimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(START_LIMIT, all_open).await {
        Ok(all) => all.map(|()| pool),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Without the limits of a bot on duty. First on a connection of its own: a pool would keep a refusal to itself.
async fn prepare(options: &PgConnectOptions) -> Result<(), String> {
    let connection = PgConnection::connect_with(options).await;
    let mut connection = connection.map_err(|error| error.to_string())?;
    let found = sqlx::query(
        "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
         current_setting('fsync'), pg_encoding_to_char(encoding)::text \
         FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(&mut connection)
    .await
    .map_err(|error| error.to_string())?;
    // Its end is not worth a wait.
    let _ = connection.close_hard().await;
    check(found.get(0), found.get(1), &found.get::<String, _>(3))?;
    if found.get::<String, _>(2) == "off" {
        tracing::warn!(
            "the database runs with fsync=off: a power cut there loses what was recorded"
        );
    }
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone());
    let pool = pool.await.map_err(|error| error.to_string())?;
    let migrated = migrator().run(&pool).await;
    pool.close().await;
    migrated.map_err(|error| format!("tables that this version cannot use: {error}"))
}

/// May the server keep a store? Pure.
fn check(version: i32, standby: bool, encoding: &str) -> Result<(), String> {
    if version < OLDEST_VERSION {
        return Err(format!(
            "version {}; expected {} or newer",
            version / 10_000,
            OLDEST_VERSION / 10_000
        ));
    }
    if standby {
        return Err(
            "a standby that takes no writes; expected the address of the primary".to_owned(),
        );
    }
    if encoding != "UTF8" {
        return Err(format!("the encoding {encoding}; expected UTF8"));
    }
    Ok(())
}

pub(super) fn migrator() -> Migrator {
    Migrator::with_migrations(vec![
        migration(
            1,
            "store",
            include_str!("../../migrations/postgres/0001_store.sql"),
        ),
        migration(
            2,
            "several bots",
            include_str!("../../migrations/postgres/0002_several_bots.sql"),
        ),
        migration(
            3,
            "access",
            include_str!("../../migrations/postgres/0003_access.sql"),
        ),
        migration(
            4,
            "batches",
            include_str!("../../migrations/postgres/0004_batches.sql"),
        ),
        migration(
            5,
            "storms",
            include_str!("../../migrations/postgres/0005_storms.sql"),
        ),
    ])
}

/// Passes on that another bot changed something, for as long as the store is open. Whoever waits polls beside it, so a
/// listener that is broken costs a second, never a message.
async fn listen(pool: PgPool, woken: watch::Sender<u64>) {
    let mut pause = LISTEN_PAUSE.0;
    while !pool.is_closed() {
        if let Ok(mut listener) = listener(&pool).await {
            pause = LISTEN_PAUSE.0;
            while listener.recv().await.is_ok() {
                woken.send_modify(|count| *count += 1);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LISTEN_PAUSE.1);
    }
}

async fn listener(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case(150_006, false, "UTF8", None)]
    #[case(120_001, false, "UTF8", Some("version 12"))]
    #[case(150_006, true, "UTF8", Some("standby"))]
    #[case(150_006, false, "SQL_ASCII", Some("SQL_ASCII"))]
    fn servers(
        #[case] version: i32,
        #[case] standby: bool,
        #[case] encoding: &str,
        #[case] refused: Option<&str>,
    ) {
        let found = check(version, standby, encoding);
        match refused {
            None => found.unwrap(),
            Some(why) => assert!(found.unwrap_err().contains(why)),
        }
    }
}
