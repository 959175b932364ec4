//! What the runner asks of others: may a step start, what is the time, what do hosts say; and whom it tells.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    condition::{ConditionCall, Judgement},
    job::{JobEvent, JobId, JobState, Step, StepProgress},
    probe::{Ask, Readings},
};

/// What a gate says of a step that is about to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    Pass,
    /// Nothing starts now; the gate is asked again then, or every few seconds when it names no time.
    Hold {
        until: Option<Timestamp>,
        why: String,
    },
    /// The step ends as refused.
    Refuse {
        why: String,
    },
}

/// Asked immediately before each step: halt, maintenance, budgets, freshness. A gate that does not answer in time refuses.
#[async_trait]
pub trait StepGate: Send + Sync {
    async fn before(&self, id: &JobId, job: &JobState, step: &Step, now: Timestamp) -> GateVerdict;

    /// Asked before a step is undone. Taking back what a repair did half-way is safer than leaving it, so only a person's
    /// word should stop it, and only for a while: a refusal here counts as an undo that failed.
    async fn before_undo(
        &self,
        _id: &JobId,
        _job: &JobState,
        _step: &Step,
        _now: Timestamp,
    ) -> GateVerdict {
        GateVerdict::Pass
    }
}

/// Lets everything pass: for jobs that a person approved and nothing else guards.
pub struct OpenGate;

#[async_trait]
impl StepGate for OpenGate {
    async fn before(&self, _: &JobId, _: &JobState, _: &Step, _: Timestamp) -> GateVerdict {
        GateVerdict::Pass
    }
}

/// Told of everything that enters the journal, and of progress in between. Must return at once: queue, never wait.
pub trait JobObserver: Send + Sync {
    /// `state` is the state after `event`.
    fn event(&self, job: &JobId, state: &JobState, event: &JobEvent);
    fn progress(&self, progress: StepProgress);
}

/// Tells nobody.
pub struct NoObserver;

impl JobObserver for NoObserver {
    fn event(&self, _: &JobId, _: &JobState, _: &JobEvent) {}
    fn progress(&self, _: StepProgress) {}
}

/// The time of journal entries and deadlines, and every pause of the runner.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    async fn sleep(&self, length: Duration);
}

pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }
}

/// `None`: it took longer than the limit, and was dropped.
pub(super) async fn limited<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(limit) => None,
    }
}

/// Longest sleep in one piece: a clock that was set forward, or a machine that slept, is noticed within this time.
const NAP_LIMIT: Duration = Duration::from_secs(30);

/// Sleeps until the clock says so.
pub(super) async fn sleep_until(clock: &dyn Clock, until: Timestamp) {
    loop {
        let left = clock.now().duration_until(until);
        let Ok(left) = Duration::try_from(left) else {
            return; // it has passed
        };
        if left.is_zero() {
            return;
        }
        // A millisecond more than needed beats waking up a moment too early, again and again.
        clock
            .sleep((left + Duration::from_millis(1)).min(NAP_LIMIT))
            .await;
    }
}

/// Readings and judgements of the site.
#[async_trait]
pub trait Evidence: Send + Sync {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings;

    /// As [`Evidence::gather`], before anything is done: what was gathered a moment ago, for the decision, need not be asked again.
    async fn gather_recent(&self, asks: &[Ask], now: Timestamp) -> Readings {
        self.gather(asks, now).await
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings);

    /// Several at once, in their order.
    async fn judge_all(&self, calls: &[&ConditionCall], now: Timestamp) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        for call in calls {
            judgements.push(self.judge(call, now).await.0);
        }
        judgements
    }
}
