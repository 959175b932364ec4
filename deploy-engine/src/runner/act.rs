//! One attempt at a step, from its start in the journal to its end. Whatever it finds is returned; the driver records it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    batch::BatchTask,
    check::{check, describe},
    host::{HostEnd, HostTask},
    outcome,
    policy::{OnCancel, on_cancel},
    ports::{limited, sleep_until},
};
use crate::{
    job::{Action, Effect, Job, JobEvent, JobId, JobKind, Step, StepEnd, batch_scope},
    model::HostName,
    probe::{Ask, Reading, Readings},
    wire::{Fence, StepKey, Work},
};

/// Bytes of one reading that the journal keeps. Probes of hosts stay far below; a reading that is larger is left out by name.
const READING_LIMIT_BYTES: usize = 256 * 1024;

/// How old the guards' word may be when a step is sent: the judgement itself and a journal write on a slow disk. Older, they are
/// asked again.
const GUARD_AGE_MAX: SignedDuration = SignedDuration::from_secs(15);

/// How an attempt is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// First act after the journal's entry.
    Start(Permit),
    /// The entry was found in the journal: what became of it is to be found out.
    Attach,
}

/// What speaks for acting now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What the guards said.
    pub before: String,
    /// When they were asked; `None`: there are none.
    pub guarded_at: Option<Timestamp>,
    /// Nothing was sent under the attempt's key before.
    pub fresh: bool,
}

impl Permit {
    fn is_stale(&self, now: Timestamp) -> bool {
        self.guarded_at
            .is_some_and(|at| now.duration_since(at) > GUARD_AGE_MAX)
    }
}

/// One attempt.
pub struct Attempt {
    pub context: Arc<Context>,
    pub job: JobId,
    pub step: Step,
    pub undo: bool,
    pub key: StepKey,
    pub fence: Fence,
    /// Who asked for the job.
    pub requested_by: String,
    /// When its start was recorded.
    pub since: Timestamp,
    pub how: How,
    pub stop: CancellationToken,
}

#[derive(Debug)]
pub enum Acted {
    End {
        end: StepEnd,
        evidence: Option<Readings>,
    },
    /// Its host never started it, or its guards' word grew too old first: gate and guards are to be asked again.
    NeverStarted,
}

impl Acted {
    fn end(end: StepEnd) -> Self {
        Self::End {
            end,
            evidence: None,
        }
    }
}

impl Attempt {
    pub async fn run(mut self) -> Acted {
        let step = self.step.clone();
        let action = match &step.undo {
            Some(undo) if self.undo => undo,
            _ => &step.action,
        };
        // Undos are not cancelled: they are what a cancelled job still owes.
        let policy = match self.undo {
            true => OnCancel::Finish,
            false => on_cancel(action, step.effect),
        };
        if policy != OnCancel::EndAtOnce {
            return self.act(action, policy).await;
        }
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => Acted::end(StepEnd::Cancelled),
            acted = self.act(action, policy) => acted,
        }
    }

    async fn act(&mut self, action: &Action, policy: OnCancel) -> Acted {
        match action {
            Action::Host { host, work } => self.on_host(host, work, policy).await,
            Action::Check { condition, mode } => {
                let (evidence, clock) = (&*self.context.evidence, &*self.context.clock);
                let checked = check(evidence, clock, condition, *mode, self.since).await;
                Acted::End {
                    end: checked.end,
                    evidence: Some(kept(checked.readings)),
                }
            }
            Action::Snapshot { asks } => self.snapshot(asks).await,
            Action::Batch {
                number,
                model,
                steps,
            } => Acted::end(self.batch(*number, model, steps).await),
            Action::Wait { seconds, why } => {
                let until = self.since + SignedDuration::from_secs(i64::from(seconds.0));
                sleep_until(&*self.context.clock, until).await;
                Acted::end(StepEnd::Done {
                    changed: false,
                    detail: format!("waited {seconds}: {why}"),
                })
            }
        }
    }

    async fn on_host(&mut self, host: &HostName, work: &Work, policy: OnCancel) -> Acted {
        let permit = match &self.how {
            How::Start(permit) => Some(permit),
            How::Attach => None,
        };
        // Whatever the driver did in between, this is the last moment.
        if permit.is_some_and(|permit| permit.is_stale(self.context.clock.now())) {
            return Acted::NeverStarted;
        }
        let before = permit.map_or("", |permit| permit.before.as_str());
        let task = HostTask {
            hosts: self.context.hosts.clone(),
            clock: self.context.clock.clone(),
            observer: self.context.observer.clone(),
            job: self.job.clone(),
            step: self.step.id,
            host: host.clone(),
            key: self.key.clone(),
            fence: self.fence.clone(),
            work: work.clone(),
            since: self.since,
            timeout: self.step.timeout,
            fresh: permit.is_some_and(|permit| permit.fresh),
            cancellable: policy == OnCancel::EndOnHost,
            stop: self.stop.clone(),
        };
        let ended = match permit {
            Some(_) => task.start().await,
            None => task.attach().await,
        };
        match ended {
            HostEnd::NeverStarted => Acted::NeverStarted,
            HostEnd::NotDone { why } => Acted::end(StepEnd::Failed {
                what: format!("{why}; nothing was done{before}"),
            }),
            HostEnd::Outcome(outcome) => {
                let end = outcome::step_end(host, work, outcome, before);
                Acted::end(self.after_loss(end).await)
            }
        }
    }

    /// Starting and attaching are the same: its job is made once, under a name that follows from the step.
    async fn batch(&self, number: u32, model: &str, steps: &[Step]) -> StepEnd {
        let created = JobEvent::Created {
            kind: JobKind::Batch {
                of: self.job.clone(),
                model: model.to_owned(),
            },
            title: self.step.title.clone(),
            requested_by: self.requested_by.clone(),
            scope: batch_scope(&self.fence.scope, number),
            steps: steps.to_vec(),
        };
        let task = BatchTask {
            journal: self.context.journal.clone(),
            clock: self.context.clock.clone(),
            id: Job::batch_id(&self.job, self.step.id),
            created,
            until: self.since + SignedDuration::from_secs(i64::from(self.step.timeout.0)),
            stop: self.stop.clone(),
        };
        task.run().await
    }

    /// A step that must not happen twice and was lost: only its own `unless` can say that it happened.
    async fn after_loss(&self, end: StepEnd) -> StepEnd {
        let StepEnd::Lost { why } = end else {
            return end;
        };
        if self.undo || self.step.effect != Effect::Once {
            return StepEnd::Lost { why };
        }
        let Some(unless) = &self.step.unless else {
            return StepEnd::Lost {
                why: format!(
                    "{why}; it must not happen twice, and nothing tells whether it happened: look at the host"
                ),
            };
        };
        let now = self.context.clock.now();
        let (judgement, _) = self.context.evidence.judge(unless, now).await;
        let said = describe(unless, &judgement);
        if judgement.holds() {
            return StepEnd::Done {
                changed: true,
                detail: format!("its outcome was lost ({why}), but it happened: {said}"),
            };
        }
        StepEnd::Lost {
            why: format!("{why}; it must not happen twice, and {said}: look at the host"),
        }
    }

    async fn snapshot(&self, asks: &[Ask]) -> Acted {
        let now = self.context.clock.now();
        let limit = self.step.timeout.as_duration();
        let gather = self.context.evidence.gather_recent(asks, now);
        let Some(readings) = limited(&*self.context.clock, limit, gather).await else {
            return Acted::end(StepEnd::Failed {
                what: format!("expected the readings within {}", self.step.timeout),
            });
        };
        let all = readings.by_probe.values().flat_map(|hosts| hosts.values());
        let (known, unknown): (Vec<_>, Vec<_>) =
            all.partition(|reading| matches!(reading, Reading::Known { .. }));
        let end = match (known.len(), unknown.first()) {
            // Gate G9: without any record of what was there, nothing may be changed.
            (0, Some(Reading::Unknown { why, .. })) => StepEnd::Failed {
                what: format!("no reading could be taken, for example: {why}"),
            },
            (0, _) => StepEnd::Failed {
                what: "there was nothing to read".to_owned(),
            },
            (count, _) => StepEnd::Done {
                changed: false,
                detail: format!("{count} readings kept, {} unknown", unknown.len()),
            },
        };
        Acted::End {
            end,
            evidence: Some(kept(readings)),
        }
    }
}

/// Readings as the journal keeps them.
fn kept(mut readings: Readings) -> Readings {
    for reading in readings
        .by_probe
        .values_mut()
        .flat_map(|hosts| hosts.values_mut())
    {
        if let Reading::Known { value, at } = reading {
            let bytes = value.to_string().len();
            if bytes > READING_LIMIT_BYTES {
                *reading = Reading::Unknown {
                    why: format!(
                        "left out: {bytes} bytes, the journal keeps {READING_LIMIT_BYTES}"
                    ),
                    at: *at,
                };
            }
        }
    }
    readings
}
