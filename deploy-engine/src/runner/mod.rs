//! Drives jobs: gate and guards → intent in the journal → act → outcome in the journal.
//!
//! What is to be done is decided by [`JobState::next`]; the runner does it. A job is driven by one runner at a time (lease,
//! fencing token, expected length of the journal). [`Runner::run`] takes up a job wherever its journal ends: after a crash at
//! any point, steps that were started are asked for on their hosts before anything is repeated.

mod act;
mod batch;
mod book;
mod call_off;
mod check;
mod drive;
mod evidence;
mod flight;
mod host;
mod outcome;
mod policy;
mod ports;
mod prepare;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};

pub use evidence::HostEvidence;
pub use outcome::subject;
pub use policy::{OnCancel, on_cancel};
pub use ports::{
    Clock, Evidence, GateVerdict, JobObserver, NoObserver, OpenGate, StepGate, SystemClock,
};

use crate::{
    job::{IllegalEvent, JobEvent, JobId, JobResult, JobState, Journal, JournalError, LeaseError},
    model::HostName,
    probe::ProbeSite,
    transport::{Hosts, Observe},
};
use drive::{CancelOrder, Driver};

/// Cancel requests that may wait for one job's driver; it answers each within milliseconds.
const CANCEL_QUEUE: usize = 8;

/// Between two tries while the store cannot be used: soon enough for a repair, no load on a database that comes back.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// How often a cancel is tried again when somebody else writes to the same job in between.
const CANCEL_TRIES: u32 = 5;

/// Why a job is not being driven any more, though it has not finished. It can be taken up again with [`Runner::run`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("job {0} is being driven already")]
    AlreadyRunning(JobId),
    #[error("job {0} has finished already")]
    AlreadyFinished(JobId),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("job {job}: {illegal}")]
    Illegal { job: JobId, illegal: IllegalEvent },
}

impl RunError {
    /// The store cannot be used just now (a full disk, a database that is away): driving the job may go on later. All else is
    /// the word of somebody who knows more than this runner.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Journal(JournalError::Storage(_)) | Self::Lease(LeaseError::Storage(_))
        )
    }
}

/// What the runner works with.
pub struct Context {
    pub journal: Arc<dyn Journal>,
    pub hosts: Arc<dyn Hosts>,
    pub evidence: Arc<dyn Evidence>,
    pub gate: Arc<dyn StepGate>,
    pub observer: Arc<dyn JobObserver>,
    pub clock: Arc<dyn Clock>,
    /// The name of this bot in leases, for example `HOST:PID`.
    pub holder: String,
}

impl Context {
    /// With the system's clock, and evidence from the hosts themselves.
    pub fn new(
        journal: Arc<dyn Journal>,
        hosts: Arc<dyn Hosts>,
        site: Arc<dyn ProbeSite>,
        gate: Arc<dyn StepGate>,
        observer: Arc<dyn JobObserver>,
        holder: String,
    ) -> Self {
        let evidence = Arc::new(HostEvidence::new(hosts.clone(), site));
        Self {
            journal,
            hosts,
            evidence,
            gate,
            observer,
            clock: Arc::new(SystemClock),
            holder,
        }
    }

    /// Shared with whoever decides: what was read for a decision is not asked again.
    pub fn with_evidence(self, evidence: Arc<dyn Evidence>) -> Self {
        Self { evidence, ..self }
    }
}

/// Drives any number of jobs at once; each in the task that called [`Runner::run`].
pub struct Runner {
    context: Arc<Context>,
    driven: Mutex<HashMap<JobId, mpsc::Sender<CancelOrder>>>,
}

impl Runner {
    pub fn new(context: Context) -> Self {
        Self {
            context: Arc::new(context),
            driven: Mutex::default(),
        }
    }

    /// Drives a job of the journal to its end: a new one, or one that a crash left. A finished job's result is returned as it is.
    ///
    /// # Errors
    /// [`RunError`] if it cannot be driven on; what runs on hosts then goes on there, and `run` attaches to it later.
    pub async fn run(&self, job: &JobId) -> Result<JobResult, RunError> {
        let (send, orders) = mpsc::channel(CANCEL_QUEUE);
        let _driving = Driving::begin(self, job, send)?;
        let (state, last_at) = self.load(job).await?;
        if let Some(result) = state.result() {
            return Ok(result.clone());
        }
        Driver::new(self.context.clone(), job.clone(), state, last_at)
            .drive(orders)
            .await
    }

    /// Like [`Runner::run`], across times in which the store cannot be used: what runs on hosts goes on meanwhile, and nothing new
    /// begins. For as long as it is polled: nobody else would take the job up.
    ///
    /// # Errors
    /// As [`Runner::run`], but the passing ones.
    pub async fn run_on(&self, job: &JobId) -> Result<JobResult, RunError> {
        loop {
            match self.run(job).await {
                Err(error) if error.is_passing() => {
                    tracing::warn!(%job, %error, "the job is taken up again when the store is back");
                    self.context.clock.sleep(STORE_PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    /// Opens the way to the hosts of a job's steps, as far as that is possible: what is asked of them then need not wait for a login.
    pub async fn reach(&self, job: &JobId) {
        let Ok(state) = self.state(job).await else {
            return; // whoever drives it finds out why
        };
        let steps = state.job().map_or(&[][..], |job| &job.steps);
        let hosts: BTreeSet<&HostName> =
            steps.iter().flat_map(|step| step.action.hosts()).collect();
        let reached = hosts.into_iter().map(|host| {
            let asked = self.context.hosts.observe(host, Observe::default());
            async move { (host, asked.await) }
        });
        for (host, answer) in join_all(reached).await {
            if let Err(error) = answer {
                tracing::debug!(%job, %host, %error, "a host is not reached beforehand");
            }
        }
    }

    /// Asks for a job to be cancelled between its steps. The request is in the journal when this returns, whoever drives it.
    ///
    /// # Errors
    /// [`RunError::AlreadyFinished`], or the journal's error.
    pub async fn cancel(&self, job: &JobId, by: &str) -> Result<(), RunError> {
        let driver = self.lock().get(job).cloned();
        if let Some(driver) = driver {
            let (reply, recorded) = oneshot::channel();
            let order = CancelOrder {
                by: by.to_owned(),
                reply,
            };
            if driver.send(order).await.is_ok() && recorded.await.is_ok() {
                return Ok(());
            }
            // Its driver has just ended; the journal knows how.
        }
        self.cancel_in_journal(job, by).await
    }

    /// The state of a job, folded from its journal.
    pub async fn state(&self, job: &JobId) -> Result<JobState, RunError> {
        Ok(self.load(job).await?.0)
    }

    async fn load(&self, job: &JobId) -> Result<(JobState, jiff::Timestamp), RunError> {
        let events = self.context.journal.load(job).await?;
        let last_at = events.last().map(|(at, _)| *at).unwrap_or_default();
        let state = JobState::fold(&events).map_err(|illegal| RunError::Illegal {
            job: job.clone(),
            illegal,
        })?;
        Ok((state, last_at))
    }

    async fn cancel_in_journal(&self, job: &JobId, by: &str) -> Result<(), RunError> {
        let event = JobEvent::CancelRequested { by: by.to_owned() };
        let mut tries = 0;
        loop {
            let (state, last_at) = self.load(job).await?;
            if state.result().is_some() {
                return Err(RunError::AlreadyFinished(job.clone()));
            }
            tries += 1;
            let at = self.context.clock.now().max(last_at);
            let appended = self
                .context
                .journal
                .append(job, state.length(), at, &event)
                .await;
            match appended {
                Err(JournalError::Conflict { .. }) if tries < CANCEL_TRIES => {}
                other => return Ok(other?),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, mpsc::Sender<CancelOrder>>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This runner drives the job for as long as this lives.
struct Driving<'r> {
    runner: &'r Runner,
    job: &'r JobId,
}

impl<'r> Driving<'r> {
    fn begin(
        runner: &'r Runner,
        job: &'r JobId,
        cancel: mpsc::Sender<CancelOrder>,
    ) -> Result<Self, RunError> {
        let mut driven = runner.lock();
        if driven.contains_key(job) {
            return Err(RunError::AlreadyRunning(job.clone()));
        }
        driven.insert(job.clone(), cancel);
        Ok(Self { runner, job })
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.runner.lock().remove(self.job);
    }
}
