//! One store copied into another: the embedded one into the one that bots share, or back. All or nothing, and compared
//! afterwards row by row.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Store, StoreError,
    db::{Done, Lock, Sql, Tx, values},
    row::{Reader, to_json},
};

/// Rows that are copied at once: one statement of some hundred kilobytes.
const BATCH: i64 = 500;

/// How long bots of a shared store are watched before they count as not running: five of their beats.
const WATCH: Duration = Duration::from_secs(5);

const WHAT: &str = "copying the store";

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("expected an empty store at {at}, found {rows} rows in {table}: nothing was copied")]
    NotEmpty {
        at: String,
        table: &'static str,
        rows: u64,
    },
    #[error("expected no bot on {at}, found {bot} running: nothing was copied")]
    BotRuns { at: String, bot: String },
    #[error(
        "{table}: expected {expected} rows with the digest {expected_digest}, found {found} rows with {found_digest}: \
         nothing was copied"
    )]
    Differs {
        table: &'static str,
        expected: u64,
        expected_digest: String,
        found: u64,
        found_digest: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    pub table: &'static str,
    pub rows: u64,
    /// SHA-256 over the rows in their order, the same on both sides.
    pub digest: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
}

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    count: &'static str,
    /// A batch, in an order that is the same on both sides.
    select: &'static str,
    /// The rows of a JSON array of objects.
    insert: Sql,
}

macro_rules! table {
    (@kind text) => { Kind::Text };
    (@kind int) => { Kind::Int };
    (@value $column:ident text) => { concat!("value ->> '", stringify!($column), "'") };
    (@value $column:ident int) => { concat!("CAST(value ->> '", stringify!($column), "' AS BIGINT)") };
    (@insert $rows:literal, $name:literal, $first:ident $kind:ident, $($column:ident $more:ident),*) => {
        concat!(
            "INSERT INTO ", $name, " (", stringify!($first), $(", ", stringify!($column),)* ") SELECT ",
            table!(@value $first $kind), $(", ", table!(@value $column $more),)* " FROM ", $rows
        )
    };
    ($name:literal by $order:literal: $first:ident $kind:ident, $($column:ident $more:ident),*) => {
        Table {
            name: $name,
            columns: &[(stringify!($first), table!(@kind $kind)), $((stringify!($column), table!(@kind $more)),)*],
            count: concat!("SELECT 'rows' AS what, count(*) AS found FROM ", $name),
            select: concat!(
                "SELECT ", stringify!($first), $(", ", stringify!($column),)* " FROM ", $name,
                " ORDER BY ", $order, " LIMIT $1 OFFSET $2"
            ),
            insert: Sql::each(
                table!(@insert "json_each($1)", $name, $first $kind, $($column $more),*),
                table!(@insert "json_array_elements(CAST($1 AS json)) AS e (value)", $name, $first $kind, $($column $more),*),
            ),
        }
    };
}

/// All that is worth keeping. Not: which bots there are and who drives what (`replicas`, `leadership`, `jobs.driver`,
/// `messages.claimed_…`), and `inbox`, whose alerts are in `alerts`.
const TABLES: &[Table] = &[
    table!("jobs" by "id": id text, kind text, title text, scope text, requested_by text, created_at int, finished_at int,
        result text, length int, batch_of text, batch_model text, cancel_by text),
    table!("job_events" by "job, position": job text, position int, at int, event text),
    table!("tokens" by "scope": scope text, last int),
    table!("leases" by "scope": scope text, token int, holder text, job text, acquired_at int, renewed_at int),
    table!("alerts" by "source, fingerprint": source text, fingerprint text, name text, firing int, starts_at int,
        updated_at int, body text),
    table!("incidents" by "id": id text, state text, service text, runbook text, opened_at int, closed_at int, body text,
        rest text),
    table!("audit" by "id": id int, at int, who text, action text, target text, body text,
        hash text),
    table!("messages" by "room, subject": room text, subject text, wanted int, sent int, severity int, event text,
        changed_at int, tries int, next_try int, error text, body text),
    table!("approvals" by "id": id text, digest text, requested_by text, created_at int, expires_at int, state text,
        decided_by text, decided_at int, body text),
    table!("votes" by "approval, person": approval text, person text, who text, word text, at int),
    table!("overrides" by "id": id text, incident text, gate text, made_by text, reason text, made_at int, expires_at int,
        used_by_job text, used_at int, reviewed_by text, reviewed_at int, review text),
    table!("kv" by "space, key": space text, key text, value text),
    table!("handled" by "space, key": space text, key text, at int),
    table!("repairs" by "job": job text, runbook text, at int, by text, outcome text, ended_at int),
    table!("repair_targets" by "job, target": job text, target text),
    table!("trust" by "runbook": runbook text, mode text, changed_at int, changed_by text, body text),
];

/// Columns that are not copied: what is only so while bots run.
#[cfg(any(test, feature = "conformance"))]
pub(super) const KEPT_BACK: &[&str] = &[
    "jobs.driver",
    "messages.claimed_by",
    "messages.claimed_until",
    "replicas.id",
    "replicas.host",
    "replicas.started_at",
    "replicas.seen_at",
    "replicas.beat",
    "leadership.name",
    "leadership.holder",
    "leadership.token",
    "leadership.beat",
    "inbox.id",
    "inbox.at",
    "inbox.body",
];

/// Columns that are copied.
#[cfg(any(test, feature = "conformance"))]
pub(super) fn columns() -> Vec<String> {
    let columns = TABLES.iter().flat_map(|table| {
        let names = table.columns.iter();
        names.map(|(column, _)| format!("{}.{column}", table.name))
    });
    columns.collect()
}

/// Where a number that the database gives out goes on after the copied ones; SQLite does so by itself.
const GO_ON: Sql = Sql::each(
    "SELECT 1",
    "SELECT setval(pg_get_serial_sequence('audit', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM audit), false)",
);

/// Copies everything. Whoever calls this holds the lock of an embedded store's state directory.
///
/// # Errors
/// [`CopyError`]; then `to` is as it was.
pub async fn copy(from: &Store, to: &Store) -> Result<Vec<Copied>, CopyError> {
    for store in [from, to] {
        nobody_runs(store).await?;
    }
    let mut tx = to.db.begin(WHAT, Lock::Copy).await?;
    for table in TABLES {
        let rows = counted(tx.run(WHAT, table.count, values![]).await?)?;
        if rows > 0 {
            return Err(CopyError::NotEmpty {
                at: to.at().to_owned(),
                table: table.name,
                rows,
            });
        }
    }
    let mut copied = Vec::new();
    for table in TABLES {
        copied.push(copy_table(from, &mut tx, table).await?);
    }
    tx.run(WHAT, GO_ON, values![]).await?;
    // Nobody was there at the start; whoever came meanwhile wrote something.
    for (table, copied) in TABLES.iter().zip(&copied) {
        let now = counted(from.db.read(WHAT, table.count, values![]).await?)?;
        if now != copied.rows {
            return Err(CopyError::BotRuns {
                at: from.at().to_owned(),
                bot: format!("somebody who wrote to {} meanwhile", table.name),
            });
        }
    }
    tx.commit(WHAT).await?;
    Ok(copied)
}

async fn nobody_runs(store: &Store) -> Result<(), CopyError> {
    let before = store.replicas().await?;
    if before.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(WATCH).await;
    let after = store.replicas().await?;
    match after.into_iter().find(|bot| !before.contains(bot)) {
        None => Ok(()),
        Some(bot) => Err(CopyError::BotRuns {
            at: store.at().to_owned(),
            bot: bot.id,
        }),
    }
}

async fn copy_table(from: &Store, to: &mut Tx, table: &Table) -> Result<Copied, CopyError> {
    let mut source = Tally::default();
    loop {
        let values = values![BATCH, source.offset()];
        let rows = objects(table, &from.db.read(WHAT, table.select, values).await?)?;
        if rows.is_empty() {
            break;
        }
        source.add(&rows)?;
        let batch = to_json(table.name, "batch", &rows)?;
        to.run(WHAT, table.insert, values![batch]).await?;
    }
    let mut target = Tally::default();
    loop {
        let values = values![BATCH, target.offset()];
        let rows = objects(table, &to.run(WHAT, table.select, values).await?)?;
        if rows.is_empty() {
            break;
        }
        target.add(&rows)?;
    }
    let (expected, found) = (source.rows, target.rows);
    let (expected_digest, found_digest) = (source.digest(), target.digest());
    if (expected, &expected_digest) != (found, &found_digest) {
        return Err(CopyError::Differs {
            table: table.name,
            expected,
            expected_digest,
            found,
            found_digest,
        });
    }
    Ok(Copied {
        table: table.name,
        rows: found,
        digest: found_digest,
    })
}

/// Rows that were seen, and a digest of them in their order.
#[derive(Default)]
struct Tally {
    rows: u64,
    hash: Sha256,
}

impl Tally {
    fn offset(&self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX)
    }

    fn add(&mut self, rows: &[Map<String, Value>]) -> Result<(), StoreError> {
        for row in rows {
            self.hash.update(to_json("row", "", row)?.as_bytes());
            self.hash.update(b"\n");
        }
        self.rows += rows.len() as u64;
        Ok(())
    }

    fn digest(self) -> String {
        let digest = self.hash.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn counted(done: Done) -> Result<u64, StoreError> {
    let row = done.first();
    let found = row.map(|row| Reader::new("count", "what", &row).get::<i64>("found"));
    Ok(found.transpose()?.unwrap_or(0).unsigned_abs())
}

fn objects(table: &Table, done: &Done) -> Result<Vec<Map<String, Value>>, StoreError> {
    let object = |row| {
        let reader = Reader::new(table.name, table.columns[0].0, row);
        let column = |(name, kind): &(&str, Kind)| {
            let value = match kind {
                Kind::Text => reader.get::<Option<String>>(name)?.map(Value::from),
                Kind::Int => reader.get::<Option<i64>>(name)?.map(Value::from),
            };
            Ok(((*name).to_owned(), value.unwrap_or(Value::Null)))
        };
        table.columns.iter().map(column).collect()
    };
    done.rows.iter().map(object).collect()
}
