//! Work on one host: started once under its key, attached to after a crash, asked about after a broken connection.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    call_off::{CalledOff, call_off},
    ports::{Clock, JobObserver},
};
use crate::{
    job::{JobId, StepId, StepProgress},
    model::{HostName, Secs},
    transport::{HostError, Hosts},
    wire::{Fence, Outcome, StepKey, StepStatus, Work},
};

/// How much longer than the step's own limit the runner waits for the host to say that the limit was reached.
const ANSWER_GRACE: Duration = Duration::from_secs(15);

/// How long a host may be out of reach before its step counts as lost: longer than a restart of sshd or a spanning-tree
/// change, shorter than anybody wants to wait at night. The transport's own attempts come on top.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(30);

/// The first pause before a host is asked again, and the longest.
const ASK_PAUSE_FIRST: Duration = Duration::from_millis(250);
const ASK_PAUSE_LAST: Duration = Duration::from_secs(4);

/// How often a step that outlived its limit is waited for and told to end, before it counts as lost.
const OVERDUE_TRIES: u32 = 2;

/// Progress lines kept for an observer that is behind; more than a screen of them is of no use.
const PROGRESS_QUEUE: usize = 64;

/// One attempt at working on one host.
pub struct HostTask {
    pub hosts: Arc<dyn Hosts>,
    pub clock: Arc<dyn Clock>,
    pub observer: Arc<dyn JobObserver>,
    pub job: JobId,
    pub step: StepId,
    pub host: HostName,
    pub key: StepKey,
    pub fence: Fence,
    pub work: Work,
    /// When the journal's event that started the attempt was recorded, and how long it may take from then on.
    pub since: Timestamp,
    pub timeout: Secs,
    /// Nothing was sent under this key before.
    pub fresh: bool,
    /// True when a cancelled job ends this work on its host instead of waiting for it.
    pub cancellable: bool,
    pub stop: CancellationToken,
}

/// What became of it.
#[derive(Debug)]
pub enum HostEnd {
    Outcome(Outcome),
    /// The host never started it. Guards are to be asked again before it is.
    NeverStarted,
    /// Nothing was done, and trying again would not help.
    NotDone {
        why: String,
    },
}

impl HostTask {
    /// Starts the work now; its guards have just been judged.
    pub async fn start(mut self) -> HostEnd {
        match self.start_once().await {
            Ok(outcome) => HostEnd::Outcome(outcome),
            Err(error) => self.after(error).await,
        }
    }

    /// The journal says that the work was started, but not how it ended: asks the host.
    pub async fn attach(mut self) -> HostEnd {
        self.find_out(None).await
    }

    async fn after(&mut self, error: HostError) -> HostEnd {
        match error {
            HostError::NotStarted { .. }
            | HostError::UnknownSecret { .. }
            | HostError::UnknownHost { .. }
                if self.fresh =>
            {
                HostEnd::NotDone {
                    why: error.to_string(),
                }
            }
            // This try did nothing, says who could not send it or would not have it; a worker may run all the same, or the
            // order of an earlier try be under way.
            HostError::NotStarted { .. }
            | HostError::Refused { .. }
            | HostError::UnknownSecret { .. }
            | HostError::UnknownHost { .. } => self.not_done(error.to_string()).await,
            // Whether the host got it is unknown.
            _ => self.find_out(Some(error)).await,
        }
    }

    async fn not_done(&self, why: String) -> HostEnd {
        let (hosts, clock) = (&*self.hosts, &*self.clock);
        match call_off(hosts, clock, &self.host, &self.key, &self.fence).await {
            CalledOff::NeverBegan => HostEnd::NotDone { why },
            CalledOff::Ended(outcome) => HostEnd::Outcome(outcome),
            CalledOff::Unknown { why: unknown } => lost(format!("{why}; then {unknown}")),
        }
    }

    async fn find_out(&mut self, mut last: Option<HostError>) -> HostEnd {
        let mut unreachable_since = last.as_ref().map(|_| self.clock.now());
        let mut pause = ASK_PAUSE_FIRST;
        let mut overdue = 0;
        loop {
            let asked = match self.hosts.ask(&self.host, &self.key).await {
                Ok(StepStatus::NeverStarted) => return HostEnd::NeverStarted,
                Ok(StepStatus::Finished { outcome }) => return HostEnd::Outcome(outcome),
                Ok(StepStatus::Running { .. }) => {
                    overdue += u32::from(self.left().is_zero());
                    if overdue > OVERDUE_TRIES {
                        return lost(format!(
                            "{}: {} still runs after its limit and cannot be stopped",
                            self.host, self.key
                        ));
                    }
                    unreachable_since = None;
                    match self.start_once().await {
                        Ok(outcome) => return HostEnd::Outcome(outcome),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let now = self.clock.now();
            let since = *unreachable_since.get_or_insert(now);
            if now.duration_since(since) >= signed(UNREACHABLE_LIMIT) {
                let first = last
                    .map(|first| format!("{first}; then "))
                    .unwrap_or_default();
                return lost(format!("{first}{asked}"));
            }
            last.get_or_insert(asked);
            self.clock.sleep(pause).await;
            pause = (pause * 2).min(ASK_PAUSE_LAST);
        }
    }

    /// One `start`, which attaches if the host knows the key; bounded, cancellable, with progress passed on.
    async fn start_once(&mut self) -> Result<Outcome, HostError> {
        let left = self.left();
        let (send, mut progress) = mpsc::channel(PROGRESS_QUEUE);
        let (hosts, clock) = (self.hosts.clone(), self.clock.clone());
        let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1);
        let work = hosts.start(
            &self.host,
            self.key.clone(),
            self.fence.clone(),
            self.work.clone(),
            Secs(seconds),
            send,
        );
        let mut work = std::pin::pin!(work);
        let mut limit = clock.sleep(left + ANSWER_GRACE);
        let mut asked_to_stop = false;
        loop {
            // In this order: a host that tells much progress must not hold up the limit.
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                () = &mut limit => break,
                () = self.stop.cancelled(), if self.cancellable && !asked_to_stop => {
                    asked_to_stop = true;
                    // If it cannot be told, the work goes on to its end or its limit, which is as safe.
                    let _ = hosts.cancel(&self.host, &self.key, &self.fence).await;
                }
                Some(progress) = progress.recv() => self.observer.progress(StepProgress {
                    job: self.job.clone(),
                    step: self.step,
                    progress,
                }),
            }
        }
        let _ = hosts.cancel(&self.host, &self.key, &self.fence).await;
        Err(HostError::TimedOut {
            host: self.host.clone(),
            what: format!("the outcome of {}", self.key),
            limit_seconds: (left + ANSWER_GRACE).as_secs(),
        })
    }

    /// What is left of the step's time.
    fn left(&self) -> Duration {
        let end = self.since + SignedDuration::from_secs(i64::from(self.timeout.0));
        Duration::try_from(self.clock.now().duration_until(end)).unwrap_or(Duration::ZERO)
    }
}

fn lost(why: String) -> HostEnd {
    HostEnd::Outcome(Outcome::Lost { why })
}

fn signed(length: Duration) -> SignedDuration {
    SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX)
}
