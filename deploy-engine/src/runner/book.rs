//! What is written down of a job that is driven: its journal, its state, its lease. The one place that appends.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{Context, RunError, flight::host_of, ports::limited};
use crate::{
    job::{JobEvent, JobId, JobResult, JobState, JournalError, LEASE_SECONDS, Lease, LeaseError},
    model::HostName,
    wire::Fence,
};

/// Seconds between renewals of a lease: three may fail before it counts as expired.
const RENEW_SECONDS: i64 = LEASE_SECONDS / 3;

/// How long hosts may take to forget a finished job, after everybody was told of its end; what they keep is small.
const FORGET_LIMIT: Duration = Duration::from_secs(2);

pub struct Book {
    context: Arc<Context>,
    job: JobId,
    state: Arc<JobState>,
    /// Journal times never go back, whatever the clock does.
    last_at: Timestamp,
    lease: Option<Lease>,
    renewed_at: Timestamp,
}

impl Book {
    /// A job as its journal says, last written at `last_at`. The lease is yet to be taken, also by a bot that comes back.
    pub fn new(context: Arc<Context>, job: JobId, state: JobState, last_at: Timestamp) -> Self {
        Self {
            context,
            job,
            state: Arc::new(state),
            last_at,
            lease: None,
            renewed_at: last_at,
        }
    }

    pub fn job(&self) -> &JobId {
        &self.job
    }

    pub fn state(&self) -> &JobState {
        &self.state
    }

    pub fn shared_state(&self) -> Arc<JobState> {
        self.state.clone()
    }

    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// When the newest event was recorded.
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Checks that the event is legal, makes it durable, and tells the observer. In this order, so that the journal never
    /// holds an illegal event and nobody is told what may be lost.
    pub async fn record(&mut self, event: JobEvent) -> Result<Timestamp, RunError> {
        let at = self.context.clock.now().max(self.last_at);
        let length = self.state.length();
        let before = Arc::unwrap_or_clone(std::mem::take(&mut self.state));
        let after = self.applied(before, at, &event)?;
        let journal = &self.context.journal;
        let in_order = after.job().is_some_and(|job| job.is_in_order(&event));
        match in_order {
            true => {
                journal
                    .append_in_order(&self.job, length, at, &event)
                    .await?
            }
            false => journal.append(&self.job, length, at, &event).await?,
        }
        self.last_at = at;
        self.state = Arc::new(after);
        self.context.observer.event(&self.job, &self.state, &event);
        Ok(at)
    }

    /// As [`Book::record`], for what a step found and how it ended: nothing follows from either before the next event.
    pub async fn record_end(&mut self, found: JobEvent, end: JobEvent) -> Result<(), RunError> {
        let at = self.context.clock.now().max(self.last_at);
        let length = self.state.length();
        let before = Arc::unwrap_or_clone(std::mem::take(&mut self.state));
        let between = Arc::new(self.applied(before, at, &found)?);
        let after = Arc::new(self.applied((*between).clone(), at, &end)?);
        let events = [found, end];
        let journal = &self.context.journal;
        journal.append_all(&self.job, length, at, &events).await?;
        self.last_at = at;
        for (state, event) in [between, after].into_iter().zip(&events) {
            self.state = state;
            self.context.observer.event(&self.job, &self.state, event);
        }
        Ok(())
    }

    fn applied(
        &self,
        state: JobState,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<JobState, RunError> {
        state.apply(at, event).map_err(|illegal| RunError::Illegal {
            job: self.job.clone(),
            illegal,
        })
    }

    /// The lease is taken before anything starts, and again by a bot that comes back. The result, if it cannot be had.
    pub async fn take_lease(&mut self) -> Result<Option<JobResult>, RunError> {
        let Some(job) = self.state.job() else {
            return Err(RunError::Journal(JournalError::Unknown(self.job.clone())));
        };
        let (scope, fresh) = (job.scope.clone(), job.lease.is_none());
        let now = self.context.clock.now();
        let holder = self.context.holder.clone();
        match self
            .context
            .journal
            .acquire(&scope, &holder, &self.job, now)
            .await
        {
            Ok(lease) => {
                let token = lease.token;
                self.lease = Some(lease);
                self.renewed_at = now;
                self.record(JobEvent::Leased { holder, token }).await?;
                Ok(None)
            }
            // It never had the lease, so it did nothing: it is refused rather than left in a queue that nobody watches.
            Err(held @ LeaseError::Held { .. }) if fresh => {
                let why = held.to_string();
                self.finish(JobResult::Refused { why }).await.map(Some)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says that this bot is alive, now and then; a lease that is gone ends the driving.
    pub async fn renew_if_due(&mut self) -> Result<(), RunError> {
        let now = self.context.clock.now();
        let due = now.duration_since(self.renewed_at).as_secs() >= RENEW_SECONDS;
        if let Some(lease) = self.lease.as_ref().filter(|_| due) {
            self.context.journal.renew(lease, now).await?;
            self.renewed_at = now;
        }
        Ok(())
    }

    pub fn renewal_due_at(&self) -> Timestamp {
        self.renewed_at + SignedDuration::from_secs(RENEW_SECONDS)
    }

    pub async fn finish(&mut self, result: JobResult) -> Result<JobResult, RunError> {
        let event = JobEvent::Finished {
            result: result.clone(),
        };
        self.record(event).await?;
        if let Some(lease) = self.lease.take() {
            // A lease of a finished job counts as free, so a failure here holds up nobody.
            if let Err(error) = self.context.journal.release(&lease).await {
                tracing::warn!(job = %self.job, %error, "the lease could not be given back");
            }
            let (scope, token) = (lease.scope, lease.token);
            self.forget_on_hosts(&Fence { scope, token }).await;
        }
        Ok(result)
    }

    /// Drops what hosts remember, and closes them to what is still under way: nobody asks for a finished job again.
    async fn forget_on_hosts(&self, fence: &Fence) {
        let Some(job) = self.state.job() else { return };
        let started = job
            .steps
            .iter()
            .zip(&job.runs)
            .filter(|(_, run)| run.attempts > 0);
        let actions = started.flat_map(|(step, _)| step.undo.iter().chain([&step.action]));
        let touched: BTreeSet<&HostName> = actions.filter_map(host_of).collect();
        let forget = touched
            .into_iter()
            .map(|host| self.context.hosts.forget(host, &self.job, fence));
        let forgotten = limited(&*self.context.clock, FORGET_LIMIT, join_all(forget)).await;
        for error in forgotten
            .unwrap_or_default()
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::debug!(job = %self.job, %error, "a host still remembers the job");
        }
    }
}
