//! Which bots there are, and which one leads. What follows from it is decided in [`crate::replicas`].

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Store, StoreError,
    db::{Lock, values},
    row::{Reader, micros},
};

/// One bot of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replica {
    pub id: String,
    pub host: String,
    pub started_at: Timestamp,
    /// By its own clock.
    pub seen_at: Timestamp,
    pub beat: i64,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leadership {
    /// Empty: nobody.
    pub holder: String,
    /// Grows for ever.
    pub token: i64,
    pub beat: i64,
}

impl Store {
    /// Says that this bot lives.
    pub async fn beat(&self, host: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO replicas (id, host, started_at, seen_at, beat) VALUES ($1, $2, $3, $3, 1) \
                   ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, beat = replicas.beat + 1";
        let values = values![self.replica(), host, micros(now)];
        self.db
            .write("saying that this bot lives", sql, values)
            .await?;
        Ok(())
    }

    pub async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let sql = "SELECT * FROM replicas ORDER BY id";
        let found = self.db.read("listing the bots", sql, values![]).await?;
        let replica = |row| {
            let row = Reader::new("bot", "id", row);
            Ok(Replica {
                id: row.get("id")?,
                host: row.get("host")?,
                started_at: row.time("started_at")?,
                seen_at: row.time("seen_at")?,
                beat: row.get("beat")?,
            })
        };
        found.rows.iter().map(replica).collect()
    }

    pub async fn leadership(&self) -> Result<Option<Leadership>, StoreError> {
        let sql = "SELECT * FROM leadership WHERE name = 'leader'";
        let row = self
            .db
            .read("asking who leads", sql, values![])
            .await?
            .first();
        let leadership = |row| {
            let row = Reader::new("leadership", "holder", row);
            Ok(Leadership {
                holder: row.get("holder")?,
                token: row.get("token")?,
                beat: row.get("beat")?,
            })
        };
        row.as_ref().map(leadership).transpose()
    }

    /// Takes the lead from whoever was `seen` to have it, if nothing changed since. The token, if it was taken.
    pub async fn lead(&self, seen: Option<&Leadership>) -> Result<Option<i64>, StoreError> {
        let what = "taking the lead";
        let taken = match seen {
            None => {
                let sql = "INSERT INTO leadership (name, holder, token, beat) VALUES ('leader', $1, 1, 0) \
                           ON CONFLICT (name) DO NOTHING RETURNING holder, token";
                self.db.write(what, sql, values![self.replica()]).await?
            }
            Some(seen) => {
                let sql = "UPDATE leadership SET holder = $1, token = token + 1, beat = beat + 1 \
                           WHERE name = 'leader' AND token = $2 AND beat = $3 AND holder = $4 \
                           RETURNING holder, token";
                let values = values![self.replica(), seen.token, seen.beat, &seen.holder];
                self.db.write(what, sql, values).await?
            }
        };
        taken
            .first()
            .map(|row| Reader::new("leadership", "holder", &row).get("token"))
            .transpose()
    }

    /// Says that the leader lives. False: another one leads.
    pub async fn keep_leading(&self, token: i64) -> Result<bool, StoreError> {
        let sql = "UPDATE leadership SET beat = beat + 1 WHERE name = 'leader' AND token = $1 AND holder = $2";
        let values = values![token, self.replica()];
        let kept = self.db.write("keeping the lead", sql, values).await?;
        Ok(kept.affected == 1)
    }

    /// This bot goes: others need not wait to be sure of it.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let what = "leaving";
        let mut tx = self.db.begin(what, Lock::Rows).await?;
        let sql = "UPDATE leadership SET holder = '' WHERE holder = $1";
        tx.run(what, sql, values![self.replica()]).await?;
        let sql = "DELETE FROM replicas WHERE id = $1";
        tx.run(what, sql, values![self.replica()]).await?;
        let sql = "UPDATE jobs SET driver = '' WHERE finished_at IS NULL AND batch_of IS NOT NULL AND driver = $1";
        tx.run(what, sql, values![self.replica()]).await?;
        tx.wake(what).await?;
        tx.commit(what).await
    }

    /// Forgets bots that are known to be dead.
    pub async fn forget_replica(&self, id: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM replicas WHERE id = $1";
        self.db.write("forgetting a bot", sql, values![id]).await?;
        Ok(())
    }
}
