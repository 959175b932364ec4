//! Where the events of jobs are kept, and who may drive which part of the site.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{JobEvent, JobId, JobResult};

/// How long a lease counts as alive without being renewed. After that somebody is paged; it is never handed over silently
/// (a lock that expires lets half-done repairs pile up).
pub const LEASE_SECONDS: i64 = 60;

/// The right to drive a job: whoever holds the newest token of the scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// `site:NAME` for a deploy, `batch:NAME:NUMBER` for a part of one, `domain:SERVICE` for a repair.
    pub scope: String,
    /// Grows for ever in its scope; hosts refuse a lower one.
    pub token: u64,
    pub job: JobId,
}

/// A lease as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub lease: Lease,
    /// The bot that drives the job.
    pub holder: String,
    pub acquired_at: Timestamp,
    pub renewed_at: Timestamp,
}

impl LeaseRecord {
    /// Nobody renewed it in time: its bot is gone or stuck.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.duration_since(self.renewed_at).as_secs() > LEASE_SECONDS
    }
}

/// May both scopes be leased at once? A deploy of a site excludes every repair on it, and the other way round; repairs of
/// different failure domains exclude nothing (gate G5).
pub fn scopes_conflict(one: &str, other: &str) -> bool {
    let is_site = |scope: &str| scope.starts_with("site:");
    let is_domain = |scope: &str| scope.starts_with("domain:");
    let excludes = |one: &str, other: &str| (is_site(one) || is_batch(one)) && is_domain(other);
    one == other || excludes(one, other) || excludes(other, one)
}

/// The scope of batch `number` of a job that has `scope`: beside its job's own, never beside a repair, and the same in the next
/// deploy, so that hosts remember a bounded number of them.
pub fn batch_scope(scope: &str, number: u32) -> String {
    let name = scope.split_once(':').map_or(scope, |(_, name)| name);
    format!("batch:{name}:{number}")
}

pub fn is_batch(scope: &str) -> bool {
    scope.starts_with("batch:")
}

/// The token that follows `last` in a scope. Not below the seconds since the epoch, so tokens keep growing on hosts that
/// remember them even when the bot's state directory was lost.
pub fn next_token(last: u64, now: Timestamp) -> u64 {
    let clock = u64::try_from(now.as_second()).unwrap_or(0);
    last.saturating_add(1).max(clock)
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(
        "job {job}: expected {expected} events in the journal, found {found}: somebody else drives it"
    )]
    Conflict {
        job: JobId,
        expected: u64,
        found: u64,
    },
    #[error("job {0} is not in the journal")]
    Unknown(JobId),
    #[error("job {0} is in the journal already")]
    Exists(JobId),
    #[error("job {job}: event {position} of the journal cannot be read: {why}")]
    Corrupt {
        job: JobId,
        position: u64,
        why: String,
    },
    /// The disk is full, the state directory is gone: nothing may be started.
    #[error("the journal cannot be used: {0}")]
    Storage(String),
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(
        "{wanted} is not free: {scope} is held by job {job} on {holder}, last renewed at {renewed_at}{expired}",
        scope = .held.lease.scope, job = .held.lease.job, holder = .held.holder, renewed_at = .held.renewed_at,
        expired = if *.expired { "; it has not been renewed in time, look at that job" } else { "" }
    )]
    Held {
        wanted: String,
        held: Box<LeaseRecord>,
        expired: bool,
    },
    #[error("the lease on {scope} with token {token} is no longer ours")]
    Lost { scope: String, token: u64 },
    #[error("the leases cannot be used: {0}")]
    Storage(String),
}

/// Append-only events of jobs, and leases. One writer a job: whoever appends says how many events it has seen.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Starts a job with its [`JobEvent::Created`]. Durable no later than whatever is appended after it.
    ///
    /// # Errors
    /// [`JournalError::Exists`] if the job is known.
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError>;

    /// Adds an event to a job of `length` events. What is acted on ([`JobEvent::is_acted_on`]) is durable when it returns; the rest
    /// is durable no later than whatever is appended after it (ADR 13).
    ///
    /// # Errors
    /// [`JournalError::Conflict`] if the job has another number of events: somebody else drives it.
    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError>;

    /// As [`Journal::append`], for an event that nothing follows from outside the bot before another is appended
    /// ([`Job::is_in_order`](super::Job::is_in_order)): durable no later than whatever is appended after it.
    async fn append_in_order(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        self.append(job, length, at, event).await
    }

    /// As [`Journal::append_in_order`], for events one after the other; where a journal can, all of them or none.
    async fn append_all(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        events: &[JobEvent],
    ) -> Result<(), JournalError> {
        for (length, event) in (length..).zip(events) {
            self.append_in_order(job, length, at, event).await?;
        }
        Ok(())
    }

    /// All events of a job, oldest first, each with the time it was recorded. What is acted on is durable, whoever wrote it, and also if
    /// he was killed before he heard so: a driver goes on from it without a write in between.
    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError>;

    /// How a job ended, if it has.
    async fn result(&self, job: &JobId) -> Result<Option<JobResult>, JournalError> {
        let events = self.load(job).await?;
        Ok(events.into_iter().rev().find_map(|(_, event)| match event {
            JobEvent::Finished { result } => Some(result),
            _ => None,
        }))
    }

    /// Asks whoever drives a job to cancel it; its driver writes that into the journal, which has one writer. Durable when it
    /// returns; asking again changes nothing.
    ///
    /// # Errors
    /// [`JournalError::Storage`]; always, where jobs have no other drivers.
    async fn ask_to_cancel(&self, job: &JobId, _by: &str) -> Result<(), JournalError> {
        Err(JournalError::Storage(format!(
            "job {job} has no driver that could be asked"
        )))
    }

    /// Jobs without a [`JobEvent::Finished`], oldest first.
    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError>;

    /// Takes the lease on a scope, with a token higher than any before. The same job may take it again (a bot that came
    /// back). A lease of a finished job counts as free; a lease of any other job does not, expired or not.
    ///
    /// # Errors
    /// [`LeaseError::Held`] if a conflicting scope is leased by another unfinished job, see [`scopes_conflict`].
    /// [`LeaseError::Lost`] if several bots share the journal and another one drives this job.
    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError>;

    /// Says that the holder is alive.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if a newer token was given out or the lease was released.
    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError>;

    /// Gives the lease back; nothing happens if it is not held any more.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;
}
