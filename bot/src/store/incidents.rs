//! Incidents. What they hold belongs to `runbooks`; here they are found again.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Store, StoreError,
    db::{self, Lock, values},
    row::{Reader, micros},
};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentRow {
    pub id: String,
    /// A word of the incident's own state machine.
    pub state: String,
    pub service: Option<String>,
    pub runbook: Option<String>,
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// JSON of what lists show.
    pub body: String,
    /// JSON of the rest of a large one; lists do not read it.
    pub rest: Option<String>,
}

/// How much of each incident a list reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Without its `rest`.
    Brief,
    Whole,
}

impl Detail {
    fn open(self) -> &'static str {
        match self {
            Self::Brief => {
                "SELECT id, state, service, runbook, opened_at, closed_at, body, NULL AS rest \
                 FROM incidents WHERE closed_at IS NULL ORDER BY opened_at"
            }
            Self::Whole => "SELECT * FROM incidents WHERE closed_at IS NULL ORDER BY opened_at",
        }
    }

    fn since(self) -> &'static str {
        match self {
            Self::Brief => {
                "SELECT id, state, service, runbook, opened_at, closed_at, body, NULL AS rest \
                 FROM incidents WHERE opened_at >= $1 ORDER BY opened_at DESC LIMIT $2"
            }
            Self::Whole => {
                "SELECT * FROM incidents WHERE opened_at >= $1 ORDER BY opened_at DESC LIMIT $2"
            }
        }
    }
}

const PUT: &str = "INSERT INTO incidents (id, state, service, runbook, opened_at, closed_at, body, rest) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET state = excluded.state, \
     service = excluded.service, runbook = excluded.runbook, opened_at = excluded.opened_at, \
     closed_at = excluded.closed_at, body = excluded.body, rest = excluded.rest";

fn values_of(incident: &IncidentRow) -> Vec<db::Value> {
    values![
        &incident.id,
        &incident.state,
        &incident.service,
        &incident.runbook,
        micros(incident.opened_at),
        incident.closed_at.map(micros),
        &incident.body,
        &incident.rest,
    ]
}

impl Store {
    /// Adds or replaces an incident, in order: jobs and words to people, which follow from it, are recorded after it.
    pub async fn put_incident(&self, incident: &IncidentRow) -> Result<(), StoreError> {
        let what = "recording an incident";
        let values = values_of(incident);
        self.db.write_in_order(what, PUT, values).await?;
        Ok(())
    }

    /// All or none, in one turn of the writer.
    pub async fn put_incidents(&self, incidents: &[IncidentRow]) -> Result<(), StoreError> {
        if incidents.is_empty() {
            return Ok(());
        }
        let what = "recording incidents";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        for incident in incidents {
            tx.later(what, PUT, values_of(incident)).await?;
        }
        tx.commit_in_order(what).await
    }

    pub async fn incident(&self, id: &str) -> Result<Option<IncidentRow>, StoreError> {
        let sql = "SELECT * FROM incidents WHERE id = $1";
        let found = self
            .db
            .read("reading an incident", sql, values![id])
            .await?;
        let row = found.first();
        row.map(|row| incident(&Reader::new("incident", "id", &row)))
            .transpose()
    }

    /// Oldest first.
    pub async fn open_incidents(&self, detail: Detail) -> Result<Vec<IncidentRow>, StoreError> {
        let what = "listing incidents";
        let found = self.db.read(what, detail.open(), values![]).await?;
        let rows = found.rows.iter();
        rows.map(|row| incident(&Reader::new("incident", "id", row)))
            .collect()
    }

    pub async fn count_open_incidents(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) AS id FROM incidents WHERE closed_at IS NULL";
        let found = self.db.read("counting incidents", sql, values![]).await?;
        let count = found.first();
        let count = count.map(|row| Reader::new("incident", "id", &row).get::<i64>("id"));
        Ok(count.transpose()?.unwrap_or_default().unsigned_abs())
    }

    /// Ids of incidents, newest first, each with whether it is open. In a storm the incidents themselves are large.
    pub async fn incident_ids_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let sql = "SELECT id, closed_at FROM incidents WHERE opened_at >= $1 \
                   ORDER BY opened_at DESC LIMIT $2";
        let values = values![micros(since), limit];
        let found = self.db.read("listing incidents", sql, values).await?;
        let one = |row| {
            let reader = Reader::new("incident", "id", row);
            Ok((
                reader.get("id")?,
                reader.time_if_any("closed_at")?.is_none(),
            ))
        };
        found.rows.iter().map(one).collect()
    }

    /// Newest first, open ones included.
    pub async fn incidents_since(
        &self,
        since: Timestamp,
        limit: u32,
        detail: Detail,
    ) -> Result<Vec<IncidentRow>, StoreError> {
        let (what, values) = ("listing incidents", values![micros(since), limit]);
        let found = self.db.read(what, detail.since(), values).await?;
        let rows = found.rows.iter();
        rows.map(|row| incident(&Reader::new("incident", "id", row)))
            .collect()
    }
}

fn incident(row: &Reader<'_>) -> Result<IncidentRow, StoreError> {
    Ok(IncidentRow {
        id: row.get("id")?,
        state: row.get("state")?,
        service: row.get("service")?,
        runbook: row.get("runbook")?,
        opened_at: row.time("opened_at")?,
        closed_at: row.time_if_any("closed_at")?,
        body: row.get("body")?,
        rest: row.get("rest")?,
    })
}
