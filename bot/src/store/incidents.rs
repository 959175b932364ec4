//! Incidents. What they hold belongs to `runbooks`; here they are found again.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    Store, StoreError,
    error::doing,
    row::{Reader, micros, to_json},
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
    pub body: Value,
}

impl Store {
    /// Adds or replaces an incident; durable when it returns.
    pub async fn put_incident(&self, incident: &IncidentRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO incidents (id, state, service, runbook, opened_at, closed_at, body) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&incident.id)
        .bind(&incident.state)
        .bind(&incident.service)
        .bind(&incident.runbook)
        .bind(micros(incident.opened_at))
        .bind(incident.closed_at.map(micros))
        .bind(to_json("incident", &incident.id, &incident.body)?)
        .execute(&self.writer)
        .await
        .map_err(doing("recording an incident"))?;
        Ok(())
    }

    pub async fn incident(&self, id: &str) -> Result<Option<IncidentRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM incidents WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await
            .map_err(doing("reading an incident"))?;
        row.map(|row| incident(&Reader::new("incident", "id", &row)))
            .transpose()
    }

    /// Oldest first.
    pub async fn open_incidents(&self) -> Result<Vec<IncidentRow>, StoreError> {
        let sql = "SELECT * FROM incidents WHERE closed_at IS NULL ORDER BY opened_at";
        let rows = sqlx::query(sql).fetch_all(&self.readers).await;
        let rows = rows.map_err(doing("listing incidents"))?;
        rows.iter()
            .map(|row| incident(&Reader::new("incident", "id", row)))
            .collect()
    }

    pub async fn count_open_incidents(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM incidents WHERE closed_at IS NULL";
        let count: Result<i64, _> = sqlx::query_scalar(sql).fetch_one(&self.readers).await;
        Ok(count.map_err(doing("counting incidents"))?.unsigned_abs())
    }

    /// Ids of incidents, newest first, each with whether it is open. In a storm the incidents themselves are large.
    pub async fn incident_ids_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let sql = "SELECT id, closed_at IS NULL FROM incidents WHERE opened_at >= ? \
                   ORDER BY opened_at DESC LIMIT ?";
        let ids = sqlx::query_as(sql).bind(micros(since)).bind(limit);
        let ids = ids.fetch_all(&self.readers).await;
        ids.map_err(doing("listing incidents"))
    }

    /// Newest first, open ones included.
    pub async fn incidents_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<IncidentRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM incidents WHERE opened_at >= ? ORDER BY opened_at DESC LIMIT ?",
        )
        .bind(micros(since))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(doing("listing incidents"))?;
        rows.iter()
            .map(|row| incident(&Reader::new("incident", "id", row)))
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
        body: row.json("body")?,
    })
}
