//! Kills or freezes a bot at a chosen point: before or after any journal write, any word to a host, any judgement.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{clock::VirtualClock, trace::Trace};
use crate::{
    condition::{ConditionCall, Judgement},
    job::{JobEvent, JobId, JobResult, Journal, JournalError, Lease, LeaseError},
    model::{HostName, Secs},
    probe::{Ask, Readings},
    runner::{Clock, Evidence},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};

/// What happens to one life of a bot. Points count from 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doom {
    pub kill_at: Option<u32>,
    /// Not it alone is killed: its host loses its power, and everything that runs there ends with it.
    pub power_cut: bool,
    /// It stops for so long in the middle of everything, as a machine does whose disk hangs or that is moved.
    pub freeze: Option<(u32, Duration)>,
}

/// Counts the points of a life, and ends or stops it at one of them.
pub struct Killer {
    name: &'static str,
    clock: Arc<VirtualClock>,
    trace: Arc<Trace>,
    doom: Doom,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    passed: u32,
    dead: bool,
    frozen: Option<(Timestamp, Timestamp)>,
}

enum Passing {
    GoesOn,
    Dies,
    FreezesUntil(Timestamp),
}

impl Killer {
    pub fn new(
        name: &'static str,
        doom: Doom,
        clock: Arc<VirtualClock>,
        trace: Arc<Trace>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            clock,
            trace,
            doom,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn passed(&self) -> u32 {
        self.lock().passed
    }

    pub fn is_power_cut(&self) -> bool {
        self.doom.power_cut
    }

    /// It ends with its host.
    pub fn ends_now(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.dead = true;
        if let Some((_, to)) = &mut state.frozen {
            *to = now.min(*to);
        }
    }

    /// From when to when it stood still, if it did.
    pub fn frozen(&self) -> Option<(Timestamp, Timestamp)> {
        self.lock().frozen
    }

    /// One point more, and what happens at it.
    fn pass(&self, what: &'static str) -> Passing {
        let now = self.clock.now();
        let mut state = self.lock();
        state.passed += 1;
        let passed = state.passed;
        if self.doom.kill_at.is_some_and(|at| passed >= at) {
            state.dead = true;
            self.trace.say(now, || {
                format!("{} KILLED at point {passed}, {what}", self.name)
            });
            return Passing::Dies;
        }
        let freeze = self.doom.freeze.filter(|(at, _)| *at == passed);
        let Some((_, length)) = freeze else {
            return Passing::GoesOn;
        };
        let until = now + length;
        state.frozen = Some((now, until));
        self.trace.say(now, || {
            let seconds = length.as_secs();
            format!(
                "{} FROZEN for {seconds} s at point {passed}, {what}",
                self.name
            )
        });
        Passing::FreezesUntil(until)
    }

    async fn point(&self, what: &'static str) {
        match self.pass(what) {
            Passing::GoesOn => {}
            Passing::Dies => std::future::pending().await,
            Passing::FreezesUntil(until) => self.clock.until(until).await,
        }
    }

    /// The points on both sides of an act.
    async fn around<T>(
        &self,
        before: &'static str,
        act: impl Future<Output = T>,
        after: &'static str,
    ) -> T {
        self.point(before).await;
        let done = act.await;
        self.point(after).await;
        done
    }

    /// As [`Killer::around`], with a point in the middle of what takes time: its first poll has begun it.
    async fn across<T>(
        &self,
        [before, during, after]: [&'static str; 3],
        act: impl Future<Output = T>,
    ) -> T {
        self.point(before).await;
        let mut act = pin!(act);
        let done = match futures::poll!(&mut act) {
            Poll::Ready(done) => done,
            Poll::Pending => {
                self.point(during).await;
                act.await
            }
        };
        self.point(after).await;
        done
    }

    /// A life that passes points. `None`: it was killed.
    pub async fn mortal<T>(&self, life: impl Future<Output = T>) -> Option<T> {
        let mut life = pin!(life);
        let mut thaw = None;
        poll_fn(|context| {
            loop {
                let frozen = self.frozen().filter(|(_, to)| self.clock.now() < *to);
                if let Some((_, to)) = frozen {
                    let thaw = thaw.get_or_insert_with(|| self.clock.until(to));
                    if Pin::new(thaw).poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                match life.as_mut().poll(context) {
                    Poll::Ready(done) => return Poll::Ready(Some(done)),
                    Poll::Pending if self.lock().dead => return Poll::Ready(None),
                    Poll::Pending if frozen.is_none() && self.is_frozen() => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    fn is_frozen(&self) -> bool {
        self.frozen().is_some_and(|(_, to)| self.clock.now() < to)
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
        let append = self.inner.append(job, length, at, event);
        let points = [
            "before a journal write",
            "during a journal write",
            "after a journal write",
        ];
        self.killer.across(points, append).await
    }

    async fn append_in_order(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let append = self.inner.append_in_order(job, length, at, event);
        let points = [
            "before a journal write",
            "during a journal write",
            "after a journal write",
        ];
        self.killer.across(points, append).await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.inner.load(job).await
    }

    async fn result(&self, job: &JobId) -> Result<Option<JobResult>, JournalError> {
        self.inner.result(job).await
    }

    async fn ask_to_cancel(&self, job: &JobId, by: &str) -> Result<(), JournalError> {
        self.inner.ask_to_cancel(job, by).await
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
        let acquire = self.inner.acquire(scope, holder, job, now);
        self.killer
            .around("before it takes the lease", acquire, "with a new lease")
            .await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        let renew = self.inner.renew(lease, now);
        let points = ["before a renewal", "during a renewal", "after a renewal"];
        self.killer.across(points, renew).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let release = self.inner.release(lease);
        self.killer
            .around(
                "before it gives the lease back",
                release,
                "without its lease",
            )
            .await
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
        // Killed while it is under way: the first poll hands it to the network.
        let points = ["before an act", "during an act", "after an act"];
        self.killer.across(points, start).await
    }

    async fn ask(&self, host: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        let ask = self.inner.ask(host, key);
        self.killer
            .around("before it asks a host", ask, "after it asked a host")
            .await
    }

    async fn cancel(&self, host: &HostName, key: &StepKey, fence: &Fence) -> Result<(), HostError> {
        let cancel = self.inner.cancel(host, key, fence);
        self.killer
            .around(
                "before it cancels on a host",
                cancel,
                "after it cancelled on a host",
            )
            .await
    }

    async fn forget(&self, host: &HostName, job: &JobId, fence: &Fence) -> Result<(), HostError> {
        let forget = self.inner.forget(host, job, fence);
        self.killer
            .around("before a host forgets", forget, "after a host forgot")
            .await
    }
}

#[async_trait]
impl<T: Evidence + ?Sized> Evidence for Mortal<T> {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let gather = self.inner.gather(asks, now);
        self.killer
            .around("before readings", gather, "after readings")
            .await
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings) {
        let judge = self.inner.judge(call, now);
        self.killer
            .around("before a judgement", judge, "after a judgement")
            .await
    }
}
