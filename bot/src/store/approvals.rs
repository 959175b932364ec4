//! Approvals: bound to a digest, expiring, decided once and used once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Store, StoreError,
    db::{Lock, Tx, values},
    row::{Reader, micros, to_json},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    Pending,
    Approved,
    Denied,
    /// Approved, and the job was made: it cannot be used again.
    Used,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Approval {
    pub id: String,
    /// Exactly what is approved: a plan's or a decision's digest.
    pub digest: String,
    pub requested_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub state: ApprovalState,
    pub decided_by: Option<String>,
    pub decided_at: Option<Timestamp>,
    pub body: Value,
}

impl Approval {
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == ApprovalState::Pending && now < self.expires_at
    }

    /// # Errors
    /// Why it cannot be decided (any more).
    pub(super) fn decidable(&self, now: Timestamp) -> Result<(), DecideError> {
        if self.state != ApprovalState::Pending {
            return Err(DecideError::Decided {
                id: self.id.clone(),
                state: self.state,
                by: self.decided_by.clone().unwrap_or_default(),
            });
        }
        if now >= self.expires_at {
            return Err(DecideError::Expired {
                id: self.id.clone(),
                at: self.expires_at,
            });
        }
        Ok(())
    }
}

/// Why an approval was not decided or used.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("there is no request {0}")]
    Unknown(String),
    #[error("request {id} is {state:?} already, by {by}")]
    Decided {
        id: String,
        state: ApprovalState,
        by: String,
    },
    #[error("{person} has voted for request {id} already; somebody else has to")]
    VotedAlready { id: String, person: String },
    #[error("request {id} expired at {at}; ask again")]
    Expired { id: String, at: Timestamp },
    #[error("request {id} was expected to be approved, found {state:?}")]
    NotApproved { id: String, state: ApprovalState },
    #[error("request {id} is about {expected}, found {found}")]
    OtherDigest {
        id: String,
        expected: String,
        found: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    pub async fn request_approval(&self, approval: &Approval) -> Result<(), StoreError> {
        let sql = "INSERT INTO approvals (id, digest, requested_by, created_at, expires_at, state, body) \
                   VALUES ($1, $2, $3, $4, $5, 'pending', $6)";
        let values = values![
            &approval.id,
            &approval.digest,
            &approval.requested_by,
            micros(approval.created_at),
            micros(approval.expires_at),
            to_json("approval", &approval.id, &approval.body)?,
        ];
        self.db
            .write("recording a request for approval", sql, values)
            .await?;
        Ok(())
    }

    pub async fn approval(&self, id: &str) -> Result<Option<Approval>, StoreError> {
        let sql = "SELECT * FROM approvals WHERE id = $1";
        let found = self
            .db
            .read("reading an approval", sql, values![id])
            .await?;
        let row = found.first();
        row.map(|row| approval(&Reader::new("approval", "id", &row)))
            .transpose()
    }

    /// Requests that can still be decided, oldest first.
    pub async fn open_approvals(&self, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
        let sql = "SELECT * FROM approvals WHERE state = 'pending' AND expires_at > $1 ORDER BY created_at";
        let values = values![micros(now)];
        let found = self.db.read("listing approvals", sql, values).await?;
        let rows = found.rows.iter();
        rows.map(|row| approval(&Reader::new("approval", "id", row)))
            .collect()
    }

    /// Decides a request: the first word counts. Who may decide is the caller's affair.
    ///
    /// # Errors
    /// [`DecideError`] if it is unknown, decided already or expired.
    pub async fn decide(
        &self,
        id: &str,
        approve: bool,
        by: &str,
        now: Timestamp,
    ) -> Result<Approval, DecideError> {
        let what = "recording a decision";
        let mut tx = self.db.begin(what, Lock::Approval(id)).await?;
        let mut found = in_transaction(&mut tx, id).await?;
        found.decidable(now)?;
        found.state = if approve {
            ApprovalState::Approved
        } else {
            ApprovalState::Denied
        };
        let sql = "UPDATE approvals SET state = $1, decided_by = $2, decided_at = $3 WHERE id = $4";
        let state = if approve { "approved" } else { "denied" };
        tx.run(what, sql, values![state, by, micros(now), id])
            .await?;
        tx.commit(what).await?;
        found.decided_by = Some(by.to_owned());
        found.decided_at = Some(now);
        Ok(found)
    }

    /// Uses an approval for what it was given for. Once; not after it expired.
    ///
    /// # Errors
    /// [`DecideError`] if it is not approved, expired, or was given for another digest.
    pub async fn use_approval(
        &self,
        id: &str,
        digest: &str,
        now: Timestamp,
    ) -> Result<Approval, DecideError> {
        let what = "using an approval";
        let mut tx = self.db.begin(what, Lock::Approval(id)).await?;
        let mut found = in_transaction(&mut tx, id).await?;
        if found.state != ApprovalState::Approved {
            return Err(DecideError::NotApproved {
                id: id.to_owned(),
                state: found.state,
            });
        }
        if now >= found.expires_at {
            return Err(DecideError::Expired {
                id: id.to_owned(),
                at: found.expires_at,
            });
        }
        if found.digest != digest {
            return Err(DecideError::OtherDigest {
                id: id.to_owned(),
                expected: found.digest,
                found: digest.to_owned(),
            });
        }
        let sql = "UPDATE approvals SET state = 'used' WHERE id = $1";
        tx.run(what, sql, values![id]).await?;
        tx.commit(what).await?;
        found.state = ApprovalState::Used;
        Ok(found)
    }
}

pub(super) async fn in_transaction(tx: &mut Tx, id: &str) -> Result<Approval, DecideError> {
    let sql = "SELECT * FROM approvals WHERE id = $1";
    let found = tx.run("reading an approval", sql, values![id]).await?;
    let row = found
        .first()
        .ok_or_else(|| DecideError::Unknown(id.to_owned()))?;
    Ok(approval(&Reader::new("approval", "id", &row))?)
}

fn approval(row: &Reader<'_>) -> Result<Approval, StoreError> {
    Ok(Approval {
        id: row.get("id")?,
        digest: row.get("digest")?,
        requested_by: row.get("requested_by")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        state: row.word("state")?,
        decided_by: row.get("decided_by")?,
        decided_at: row.time_if_any("decided_at")?,
        body: row.json("body")?,
    })
}
