//! A journal that lives as long as the process: for tests and for `nightshift plan`-like dry runs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    JobEvent, JobId, Journal, JournalError, Lease, LeaseError, LeaseRecord, next_token,
    scopes_conflict,
};

#[derive(Default)]
pub struct MemoryJournal {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    jobs: BTreeMap<JobId, Vec<(Timestamp, JobEvent)>>,
    leases: BTreeMap<String, LeaseRecord>,
    tokens: BTreeMap<String, u64>,
    /// Jobs that are to be cancelled, and who asked first.
    to_cancel: BTreeMap<JobId, String>,
}

impl Inner {
    fn finished(&self, job: &JobId) -> bool {
        self.jobs
            .get(job)
            .and_then(|events| events.last())
            .is_some_and(|(_, event)| matches!(event, JobEvent::Finished { .. }))
    }

    fn held_against(&self, scope: &str, job: &JobId) -> Option<&LeaseRecord> {
        self.leases
            .values()
            .filter(|held| held.lease.job != *job && !self.finished(&held.lease.job))
            .find(|held| scopes_conflict(scope, &held.lease.scope))
    }
}

impl MemoryJournal {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another thread leaves no half-done change: every method changes one map once.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asked for a job to be cancelled, for whoever drives it.
    pub fn asked_to_cancel(&self, job: &JobId) -> Option<String> {
        self.lock().to_cancel.get(job).cloned()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError> {
        let mut inner = self.lock();
        if inner.jobs.contains_key(job) {
            return Err(JournalError::Exists(job.clone()));
        }
        inner.jobs.insert(job.clone(), vec![(at, created.clone())]);
        Ok(())
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let mut inner = self.lock();
        let events = inner
            .jobs
            .get_mut(job)
            .ok_or_else(|| JournalError::Unknown(job.clone()))?;
        if events.len() as u64 != length {
            return Err(JournalError::Conflict {
                job: job.clone(),
                expected: length,
                found: events.len() as u64,
            });
        }
        events.push((at, event.clone()));
        Ok(())
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        let inner = self.lock();
        let events = inner.jobs.get(job).cloned();
        events.ok_or_else(|| JournalError::Unknown(job.clone()))
    }

    async fn ask_to_cancel(&self, job: &JobId, by: &str) -> Result<(), JournalError> {
        let mut inner = self.lock();
        let asked = inner.to_cancel.entry(job.clone());
        asked.or_insert_with(|| by.to_owned());
        Ok(())
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        let inner = self.lock();
        let mut open: Vec<_> = inner
            .jobs
            .iter()
            .filter(|(job, _)| !inner.finished(job))
            .map(|(job, events)| (events.first().map(|(at, _)| *at), job.clone()))
            .collect();
        open.sort();
        Ok(open.into_iter().map(|(_, job)| job).collect())
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        let mut inner = self.lock();
        if let Some(held) = inner.held_against(scope, job) {
            return Err(LeaseError::Held {
                wanted: scope.to_owned(),
                expired: held.is_expired(now),
                held: Box::new(held.clone()),
            });
        }
        let last = inner.tokens.get(scope).copied().unwrap_or(0);
        let token = next_token(last, now);
        inner.tokens.insert(scope.to_owned(), token);
        let lease = Lease {
            scope: scope.to_owned(),
            token,
            job: job.clone(),
        };
        let record = LeaseRecord {
            lease: lease.clone(),
            holder: holder.to_owned(),
            acquired_at: now,
            renewed_at: now,
        };
        inner.leases.insert(scope.to_owned(), record);
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        match self.lock().leases.get_mut(&lease.scope) {
            Some(held) if held.lease == *lease => {
                held.renewed_at = now;
                Ok(())
            }
            _ => Err(LeaseError::Lost {
                scope: lease.scope.clone(),
                token: lease.token,
            }),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let mut inner = self.lock();
        if inner
            .leases
            .get(&lease.scope)
            .is_some_and(|held| held.lease == *lease)
        {
            inner.leases.remove(&lease.scope);
        }
        Ok(())
    }
}
