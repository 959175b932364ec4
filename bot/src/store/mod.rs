//! What must outlive the bot: jobs and their journals, leases, alerts, incidents, messages, approvals, what was repaired.
//!
//! By default one SQLite file in the state directory, one writer connection, readers beside it; for several bots a database of
//! PostgreSQL. The same functions, the same tests and, wherever both agree, the same words of SQL (`db`). A write is on the disk
//! when its function returns (SQLite: one sync of its log for all that was committed meanwhile, `wal`; PostgreSQL: `synchronous_commit` at least `on`), but
//! for those that say "in order": they are there no later than whatever is written after them. SQLite runs
//! in threads of its own, so no runtime thread waits for a disk. One file a concern; bodies are JSON that belongs to whoever
//! wrote it.

mod address;
mod alerts;
mod approvals;
mod audit;
mod batches;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod copy;
mod db;
mod error;
mod handled;
mod inbox;
mod incidents;
mod journal;
mod kv;
mod leases;
mod messages;
mod mover;
mod overrides;
mod pg;
mod postgres;
mod queue;
mod repairs;
mod replicas;
mod row;
mod sqlite;
mod steps;
mod told;
mod trust;
mod turns;
mod votes;
mod wal;
mod writer;

use std::{fmt, path::Path, sync::Arc};

use tokio::sync::watch;

pub use address::{PostgresStore, host as postgres_host};
pub use alerts::{AlertKey, AlertRow, Folded};
pub use approvals::{Approval, ApprovalState, DecideError};
pub use audit::AuditEntry;
pub use batches::OwnBatch;
pub use copy::{Copied, CopyError, copy};
pub use error::StoreError;
pub use inbox::Parcel;
pub use incidents::{Detail, IncidentRow};
pub use journal::JobSummary;
pub use messages::{Message, MessageKey, Urgency};
pub use overrides::{Override, OverrideError};
pub use repairs::{Repair, RepairOutcome};
pub use replicas::{Leadership, Replica};
pub use sqlite::FILE_NAME;
pub use steps::ACTION as STEP_ACTION;
pub use told::{Heard, KnownOfSource, Matters, Moves};
pub use trust::{Trust, TrustMode};
pub use votes::{Vote, Voted};

use db::Db;
use postgres::Ear;
use turns::Turns;

/// The store. Cheap to clone; all clones share its connections.
#[derive(Clone)]
pub struct Store {
    db: Db,
    /// For people; without a password.
    at: Arc<str>,
    /// The bot that speaks through this store; empty in a store that has only one.
    replica: Arc<str>,
    ear: Arc<Ear>,
    /// Of the embedded store.
    turns: Arc<Turns>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.at)
    }
}

impl Store {
    /// Opens or creates the store in a state directory, checks it, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::Open`], [`StoreError::Damaged`] or [`StoreError::Version`].
    pub async fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let at = state_dir.join(FILE_NAME).display().to_string();
        Ok(Self {
            db: sqlite::open(state_dir).await?,
            at: at.into(),
            replica: "".into(),
            ear: Arc::new(Ear::deaf()),
            turns: Arc::default(),
        })
    }

    /// Opens the store that bots share, as one of them. `replica` is new with every start of a bot.
    ///
    /// # Errors
    /// [`StoreError::Connect`].
    pub async fn open_shared(postgres: &PostgresStore, replica: &str) -> Result<Self, StoreError> {
        let (db, ear) = postgres::open(postgres, replica).await?;
        Ok(Self {
            db,
            at: postgres.at().into(),
            replica: replica.into(),
            ear: Arc::new(ear),
            turns: Arc::default(),
        })
    }

    /// Where it is, for people.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The bot that speaks through this store; empty in a store that has only one.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// May other bots use it at the same time?
    pub fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Whatever was written before is on the disk when it returns.
    pub async fn durable(&self) -> Result<(), StoreError> {
        self.db.durable("waiting for the disk").await
    }

    /// The same store, for what must not wait behind this bot's own work: that it lives, and whether it may go on.
    pub fn vital(&self) -> Self {
        let db = match &self.db {
            Db::Postgres(pg) => Db::Postgres(pg.vital()),
            embedded => embedded.clone(),
        };
        Self { db, ..self.clone() }
    }

    /// How often the database was away when something was asked of it; an embedded one never is.
    pub fn troubles(&self) -> u64 {
        match &self.db {
            Db::Sqlite { .. } => 0,
            Db::Postgres(pg) => pg.troubles(),
        }
    }

    /// Why nothing can be written until the bot starts again; does not return before. A database server is waited for instead.
    pub async fn until_failed(&self) -> String {
        match &self.db {
            Db::Sqlite { wal, .. } => wal.until_failed().await,
            Db::Postgres(_) => std::future::pending().await,
        }
    }

    /// What was asked last when the database was away, and what was found.
    pub fn last_trouble(&self) -> Option<String> {
        match &self.db {
            Db::Sqlite { .. } => None,
            Db::Postgres(pg) => pg.last_trouble(),
        }
    }

    /// Changes whenever another bot (or this one) left something for others. Not every time, so whoever waits polls as well.
    pub fn woken(&self) -> watch::Receiver<u64> {
        self.ear.woken()
    }

    /// Waits for what is being written and closes the store.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

#[cfg(test)]
mod tests;
