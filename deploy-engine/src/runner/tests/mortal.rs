//! Kills the runner at a chosen point: before or after any journal write, any word to a host, any judgement.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};

use crate::{
    condition::{ConditionCall, Judgement},
    job::{JobEvent, JobId, Journal, JournalError, Lease, LeaseError},
    model::{HostName, Secs},
    probe::{Ask, Readings},
    runner::Evidence,
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};

/// Counts the points of a run, and ends the run at one of them.
pub struct Killer {
    passed: AtomicU32,
    kill_at: Option<u32>,
    pub killed: Notify,
}

impl Killer {
    /// Points count from 1. `None`: it only counts.
    pub fn at(kill_at: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            passed: AtomicU32::new(0),
            kill_at,
            killed: Notify::new(),
        })
    }

    pub fn passed(&self) -> u32 {
        self.passed.load(Ordering::SeqCst)
    }

    async fn point(&self) {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if self.kill_at.is_some_and(|at| passed >= at) {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// The points on both sides of an act.
    async fn around<T>(&self, act: impl Future<Output = T>) -> T {
        self.point().await;
        let done = act.await;
        self.point().await;
        done
    }
}

/// What the runner of a mortal process holds.
pub struct Mortal<T: ?Sized> {
    pub killer: Arc<Killer>,
    pub inner: Arc<T>,
}

#[async_trait]
impl<T: Journal + ?Sized> Journal for Mortal<T> {
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        self.inner.create(job, at, event).await
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        self.killer
            .around(self.inner.append(job, length, at, event))
            .await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.inner.load(job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        self.inner.unfinished().await
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        self.killer
            .around(self.inner.acquire(scope, holder, job, now))
            .await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        self.killer.around(self.inner.renew(lease, now)).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.killer.around(self.inner.release(lease)).await
    }
}

#[async_trait]
impl<T: Hosts + ?Sized> Hosts for Mortal<T> {
    async fn observe(&self, host: &HostName, ask: Observe) -> Result<Observed, HostError> {
        self.inner.observe(host, ask).await
    }

    async fn start(
        &self,
        host: &HostName,
        key: StepKey,
        fence: Fence,
        work: Work,
        timeout: Secs,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let start = self.inner.start(host, key, fence, work, timeout, progress);
        self.killer.point().await;
        // Killed while it runs on its host: the first poll starts it there.
        let mut start = std::pin::pin!(start);
        if let std::task::Poll::Ready(outcome) = futures::poll!(&mut start) {
            return outcome;
        }
        self.killer.point().await;
        let outcome = start.await;
        self.killer.point().await;
        outcome
    }

    async fn ask(&self, host: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        self.killer.around(self.inner.ask(host, key)).await
    }

    async fn cancel(&self, host: &HostName, key: &StepKey) -> Result<(), HostError> {
        self.killer.around(self.inner.cancel(host, key)).await
    }

    async fn forget(&self, host: &HostName, job: &JobId) -> Result<(), HostError> {
        self.killer.around(self.inner.forget(host, job)).await
    }
}

#[async_trait]
impl<T: Evidence + ?Sized> Evidence for Mortal<T> {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        self.killer.around(self.inner.gather(asks, now)).await
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings) {
        self.killer.around(self.inner.judge(call, now)).await
    }
}
