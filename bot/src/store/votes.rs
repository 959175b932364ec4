//! Votes on requests for approval: a person has one, and a request may need several.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    ApprovalState, DecideError, Store, StoreError,
    approvals::in_transaction,
    db::{Lock, values},
    row::{Reader, micros},
};
use crate::store::Approval;

/// One person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// One name for all identities of a person.
    pub person: String,
    /// The identity that spoke.
    pub who: String,
    pub at: Timestamp,
}

/// How a request stands after a vote for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Voted {
    /// More people have to approve.
    Waiting { votes: Vec<Vote> },
    /// This was the last vote that it needed.
    Approved {
        approval: Approval,
        votes: Vec<Vote>,
    },
}

impl Store {
    /// Counts a vote for a request, once a person; with `needed` votes it is approved. Who may vote is the caller's affair.
    ///
    /// # Errors
    /// [`DecideError`] if the request is unknown, decided already or expired, or the person has voted.
    pub async fn vote(
        &self,
        id: &str,
        vote: &Vote,
        needed: u32,
        now: Timestamp,
    ) -> Result<Voted, DecideError> {
        let what = "recording a vote";
        let mut tx = self.db.begin(what, Lock::Approval(id)).await?;
        let mut found = in_transaction(&mut tx, id).await?;
        found.decidable(now)?;
        let sql = "INSERT INTO votes (approval, person, who, word, at) VALUES ($1, $2, $3, 'approve', $4) \
                   ON CONFLICT DO NOTHING";
        let values = values![id, &vote.person, &vote.who, micros(vote.at)];
        if tx.run(what, sql, values).await?.affected == 0 {
            return Err(DecideError::VotedAlready {
                id: id.to_owned(),
                person: vote.person.clone(),
            });
        }
        let sql = "SELECT * FROM votes WHERE approval = $1 ORDER BY at, person";
        let rows = tx.run(what, sql, values![id]).await?.rows;
        let votes = rows
            .iter()
            .map(|row| read(&Reader::new("vote", "approval", row)))
            .collect::<Result<Vec<_>, _>>()?;
        let enough = votes.len() >= needed as usize;
        if enough {
            let by = people(&votes);
            let sql = "UPDATE approvals SET state = 'approved', decided_by = $1, decided_at = $2 WHERE id = $3";
            tx.run(what, sql, values![&by, micros(now), id]).await?;
            found.state = ApprovalState::Approved;
            found.decided_by = Some(by);
            found.decided_at = Some(now);
        }
        tx.commit(what).await?;
        Ok(match enough {
            true => Voted::Approved {
                approval: found,
                votes,
            },
            false => Voted::Waiting { votes },
        })
    }
}

fn read(row: &Reader<'_>) -> Result<Vote, StoreError> {
    Ok(Vote {
        person: row.get("person")?,
        who: row.get("who")?,
        at: row.time("at")?,
    })
}

/// Who spoke, for `decided_by`.
fn people(votes: &[Vote]) -> String {
    let names: Vec<&str> = votes.iter().map(|vote| vote.who.as_str()).collect();
    names.join(", ")
}
