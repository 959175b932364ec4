//! A job's state: a fold over its journal by one total function.
//!
//! [`JobState::apply`] decides every pair of state and event; what to do next is decided in [`super::next`]. Nothing here
//! reads a clock or acts.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Action, Effect, Illegal, IllegalEvent, JobEvent, JobId, JobKind, JobResult, Step, StepEnd,
    StepId, graph,
};

/// Attempts in all at a step whose outcome was lost: two repeats cover a killed worker and a power cut; a third loss is a
/// fault of its own. Nothing but a loss is ever repeated by itself.
pub const LOST_ATTEMPTS: u32 = 3;

/// Attempts in all at an undo that was lost; undos are re-runnable.
pub const UNDO_ATTEMPTS: u32 = 3;

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum StepPhase {
    Waiting,
    Running {
        attempt: u32,
        since: Timestamp,
    },
    Ended {
        end: StepEnd,
        at: Timestamp,
    },
    Undoing {
        end: StepEnd,
        attempt: u32,
        since: Timestamp,
    },
    Undone {
        end: StepEnd,
        undo: StepEnd,
        at: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRun {
    pub phase: StepPhase,
    /// Attempts that were started.
    pub attempts: u32,
    pub undo_attempts: u32,
    /// Of the first attempt.
    pub started_at: Option<Timestamp>,
}

impl StepRun {
    /// How the step itself ended, whatever its undo did.
    pub fn end(&self) -> Option<&StepEnd> {
        match &self.phase {
            StepPhase::Waiting | StepPhase::Running { .. } => None,
            StepPhase::Ended { end, .. }
            | StepPhase::Undoing { end, .. }
            | StepPhase::Undone { end, .. } => Some(end),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.end(), Some(StepEnd::Done { .. }))
    }

    /// Being worked on right now.
    pub fn is_in_flight(&self) -> bool {
        matches!(
            self.phase,
            StepPhase::Running { .. } | StepPhase::Undoing { .. }
        )
    }
}

/// A gate holds the job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hold {
    /// `None`: until the gate, asked again, lets it pass.
    pub until: Option<Timestamp>,
    pub why: String,
    /// When it was first held, without a release since.
    pub since: Timestamp,
    /// When the gate last said so.
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    pub holder: String,
    pub token: u64,
}

/// A job that was created.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    pub kind: JobKind,
    pub title: String,
    pub requested_by: String,
    pub scope: String,
    pub created_at: Timestamp,
    #[serde(serialize_with = "as_slice")]
    pub steps: Arc<[Step]>,
    /// One for each step, in the same order. Shared, so that a gate that thinks about a state costs the next one little.
    #[serde(serialize_with = "as_runs")]
    pub runs: Vec<Arc<StepRun>>,
    pub lease: Option<Holder>,
    pub hold: Option<Hold>,
    pub cancelled_by: Option<String>,
    pub finished: Option<(Timestamp, JobResult)>,
    /// Steps in an order that respects their needs.
    #[serde(skip)]
    pub(super) order: Arc<[usize]>,
    /// Steps in the order in which they were first started.
    #[serde(skip)]
    pub(super) started: Vec<StepId>,
    /// A step of a heal did not succeed.
    #[serde(skip)]
    pub(super) heal_failed: bool,
}

/// The state of a job; empty before its first event.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JobState {
    job: Option<Job>,
    length: u64,
}

impl JobState {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after all events of a journal.
    ///
    /// # Errors
    /// The first illegal event.
    pub fn fold<'a>(
        events: impl IntoIterator<Item = &'a (Timestamp, JobEvent)>,
    ) -> Result<Self, IllegalEvent> {
        events
            .into_iter()
            .try_fold(Self::new(), |state, (at, event)| state.apply(*at, event))
    }

    /// `None` before the job was created.
    pub fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    /// Events so far: what the next append expects.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn result(&self) -> Option<&JobResult> {
        let (_, result) = self.job.as_ref()?.finished.as_ref()?;
        Some(result)
    }

    /// The state after `event`, recorded at `at`. Total: every pair of state and event is decided.
    ///
    /// # Errors
    /// [`IllegalEvent`], which names the event, the state and what was expected.
    pub fn apply(self, at: Timestamp, event: &JobEvent) -> Result<Self, IllegalEvent> {
        let illegal = |state, why| IllegalEvent::new(event, state, why);
        let job = match self.job {
            None => Job::created(at, event).map_err(|why| illegal("not created", why))?,
            Some(job) if job.finished.is_some() => {
                return Err(illegal(job.phase_name(), Illegal::AlreadyFinished));
            }
            Some(mut job) => match job.follow(at, event) {
                Ok(()) => job,
                Err(why) => return Err(illegal(job.phase_name(), why)),
            },
        };
        Ok(Self {
            job: Some(job),
            length: self.length + 1,
        })
    }
}

impl Job {
    fn created(at: Timestamp, event: &JobEvent) -> Result<Self, Illegal> {
        let JobEvent::Created {
            kind,
            title,
            requested_by,
            scope,
            steps,
        } = event
        else {
            return Err(Illegal::NotCreated);
        };
        let order = graph::order(steps).map_err(Illegal::BadSteps)?;
        let run = StepRun {
            phase: StepPhase::Waiting,
            attempts: 0,
            undo_attempts: 0,
            started_at: None,
        };
        Ok(Self {
            kind: kind.clone(),
            title: title.clone(),
            requested_by: requested_by.clone(),
            scope: scope.clone(),
            created_at: at,
            // One shared value for all; each gets its own when it changes.
            runs: std::iter::repeat_n(Arc::new(run), steps.len()).collect(),
            steps: steps.as_slice().into(),
            lease: None,
            hold: None,
            cancelled_by: None,
            finished: None,
            order: order.into(),
            started: Vec::new(),
            heal_failed: false,
        })
    }

    /// Does nothing outside the bot follow from this event before another is appended? So the start of a step that only looks or
    /// waits, and sends no order: its intent need not be on the disk by itself. If it is lost in a power cut, the step begins again.
    pub fn is_in_order(&self, event: &JobEvent) -> bool {
        let JobEvent::StepStarted { step, .. } = event else {
            return !event.is_acted_on();
        };
        match self.steps.get(step.0 as usize).map(|step| &step.action) {
            Some(Action::Check { .. } | Action::Snapshot { .. } | Action::Wait { .. }) => true,
            Some(Action::Host { .. } | Action::Batch { .. }) | None => false,
        }
    }

    /// What an unfinished job becomes.
    fn follow(&mut self, at: Timestamp, event: &JobEvent) -> Result<(), Illegal> {
        match event {
            JobEvent::Created { .. } => Err(Illegal::CreatedTwice),
            JobEvent::Leased { holder, token } => self.leased(holder, *token),
            JobEvent::StepStarted { step, attempt } => self.step_started(at, *step, *attempt),
            JobEvent::StepEnded { step, attempt, end } => self.step_ended(at, *step, *attempt, end),
            JobEvent::Evidence { step, .. } => self.evidence(*step),
            JobEvent::UndoStarted { step, attempt } => self.undo_started(at, *step, *attempt),
            JobEvent::UndoEnded { step, attempt, end } => self.undo_ended(at, *step, *attempt, end),
            JobEvent::Held { until, why } => {
                let since = self.hold.as_ref().map_or(at, |hold| hold.since);
                self.hold = Some(Hold {
                    until: *until,
                    why: why.clone(),
                    since,
                    at,
                });
                Ok(())
            }
            JobEvent::HoldReleased => self.hold.take().map(|_| ()).ok_or(Illegal::NotHeld),
            JobEvent::CancelRequested { by } => {
                // The first word counts; a second one is not worth an error in front of people.
                self.cancelled_by.get_or_insert_with(|| by.clone());
                Ok(())
            }
            JobEvent::Finished { result } => self.finish(at, result),
        }
    }

    fn leased(&mut self, holder: &str, token: u64) -> Result<(), Illegal> {
        if let Some(held) = self.lease.as_ref().filter(|held| held.token >= token) {
            return Err(Illegal::TokenNotGrowing {
                held: held.token,
                found: token,
            });
        }
        self.lease = Some(Holder {
            holder: holder.to_owned(),
            token,
        });
        Ok(())
    }

    fn step_started(&mut self, at: Timestamp, id: StepId, attempt: u32) -> Result<(), Illegal> {
        self.may_start(id, attempt)?;
        let run = Arc::make_mut(&mut self.runs[id.0 as usize]);
        if run.attempts == 0 {
            run.started_at = Some(at);
            self.started.push(id);
        }
        run.attempts = attempt;
        run.phase = StepPhase::Running { attempt, since: at };
        Ok(())
    }

    fn step_ended(
        &mut self,
        at: Timestamp,
        id: StepId,
        attempt: u32,
        end: &StepEnd,
    ) -> Result<(), Illegal> {
        match self.run(id)?.phase {
            StepPhase::Running {
                attempt: running, ..
            } => same_attempt(running, attempt)?,
            StepPhase::Waiting | StepPhase::Ended { .. } => {
                self.may_start(id, attempt)?;
                if !ends_without_start(end) {
                    return Err(Illegal::EndedWithoutStart);
                }
            }
            StepPhase::Undoing { .. } | StepPhase::Undone { .. } => {
                return Err(Illegal::NotRunning);
            }
        }
        Arc::make_mut(&mut self.runs[id.0 as usize]).phase = StepPhase::Ended {
            end: end.clone(),
            at,
        };
        let stops = matches!(self.kind, JobKind::Heal { .. }) && self.has_failed(id.0 as usize);
        self.heal_failed |= stops;
        Ok(())
    }

    fn evidence(&self, id: StepId) -> Result<(), Illegal> {
        if self.run(id)?.is_in_flight() {
            Ok(())
        } else {
            Err(Illegal::NotRunning)
        }
    }

    fn undo_started(&mut self, at: Timestamp, id: StepId, attempt: u32) -> Result<(), Illegal> {
        let run = self.run(id)?;
        self.leased_now()?;
        if self.next_undo() != Some(id) {
            return Err(Illegal::NotUndoable);
        }
        same_attempt(run.undo_attempts + 1, attempt)?;
        let end = run.end().cloned().ok_or(Illegal::NotUndoable)?;
        let run = Arc::make_mut(&mut self.runs[id.0 as usize]);
        run.undo_attempts = attempt;
        run.phase = StepPhase::Undoing {
            end,
            attempt,
            since: at,
        };
        Ok(())
    }

    fn undo_ended(
        &mut self,
        at: Timestamp,
        id: StepId,
        attempt: u32,
        undo: &StepEnd,
    ) -> Result<(), Illegal> {
        let StepPhase::Undoing {
            end,
            attempt: running,
            ..
        } = &self.run(id)?.phase
        else {
            return Err(Illegal::NotRunning);
        };
        same_attempt(*running, attempt)?;
        let end = end.clone();
        Arc::make_mut(&mut self.runs[id.0 as usize]).phase = StepPhase::Undone {
            end,
            undo: undo.clone(),
            at,
        };
        Ok(())
    }

    fn finish(&mut self, at: Timestamp, result: &JobResult) -> Result<(), Illegal> {
        if let Some(step) = self.in_flight().next() {
            return Err(Illegal::StillRunning { step });
        }
        if *result == JobResult::Succeeded
            && let Some(open) = self.runs.iter().position(|run| !run.is_done())
        {
            return Err(Illegal::NotSucceeded {
                step: self.steps[open].id,
            });
        }
        self.hold = None;
        self.finished = Some((at, result.clone()));
        Ok(())
    }

    /// Is starting this attempt what the job is waiting for?
    fn may_start(&self, id: StepId, attempt: u32) -> Result<(), Illegal> {
        let run = self.run(id)?;
        self.leased_now()?;
        if !self.is_open(id.0 as usize) {
            return Err(Illegal::NotStartable);
        }
        if let Some(why) = self.stopping() {
            return Err(Illegal::Stopping(why));
        }
        if self.hold.is_some() {
            return Err(Illegal::Stopping("the job is held"));
        }
        same_attempt(run.attempts + 1, attempt)?;
        let needs = &self.steps[id.0 as usize].needs;
        match needs
            .iter()
            .find(|need| !self.runs[need.0 as usize].is_done())
        {
            Some(&need) => Err(Illegal::NeedNotDone { need }),
            None => Ok(()),
        }
    }

    fn leased_now(&self) -> Result<(), Illegal> {
        self.lease.as_ref().map(|_| ()).ok_or(Illegal::NoLease)
    }

    fn run(&self, id: StepId) -> Result<&StepRun, Illegal> {
        let run = self.runs.get(id.0 as usize).map(Arc::as_ref);
        run.ok_or(Illegal::UnknownStep {
            steps: self.steps.len(),
        })
    }

    /// Why no further step may start, if so.
    pub(super) fn stopping(&self) -> Option<&'static str> {
        if self.cancelled_by.is_some() {
            Some("the job is being cancelled")
        } else if self.heal_failed {
            Some("a step of this repair did not succeed")
        } else {
            None
        }
    }

    /// Nothing more is started: the job is being cancelled, or a step of a repair did not succeed.
    pub fn is_stopping(&self) -> bool {
        self.stopping().is_some()
    }

    /// Waiting to be started, or to be started again after a loss.
    pub(super) fn is_open(&self, position: usize) -> bool {
        matches!(self.runs[position].phase, StepPhase::Waiting) || self.is_lost_again(position)
    }

    fn is_lost_again(&self, position: usize) -> bool {
        let run = &self.runs[position];
        matches!(
            run.phase,
            StepPhase::Ended {
                end: StepEnd::Lost { .. },
                ..
            }
        ) && run.attempts < LOST_ATTEMPTS
            && self.steps[position].effect != Effect::Once
    }

    /// Ended, not done, and will not be tried again.
    pub(super) fn has_failed(&self, position: usize) -> bool {
        self.runs[position].end().is_some()
            && !self.runs[position].is_done()
            && !self.is_lost_again(position)
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = StepId> {
        let running = self.steps.iter().zip(&self.runs);
        running
            .filter(|(_, run)| run.is_in_flight())
            .map(|(step, _)| step.id)
    }

    /// One word or two for people.
    pub fn phase_name(&self) -> &'static str {
        if self.finished.is_some() {
            "finished"
        } else if self
            .runs
            .iter()
            .any(|run| matches!(run.phase, StepPhase::Undoing { .. }))
        {
            "undoing"
        } else if self.stopping().is_some() {
            "stopping"
        } else if self.hold.is_some() {
            "held"
        } else if self.lease.is_none() {
            "queued"
        } else {
            "running"
        }
    }

    /// The key under which a host remembers an attempt at a step.
    pub fn step_key(job: &JobId, step: StepId, attempt: u32) -> crate::wire::StepKey {
        crate::wire::StepKey(format!("{job}.{step}.{attempt}"))
    }

    /// The job that does a step which is a batch. A name of its own for each, known before anything is done, so that it is made once.
    pub fn batch_id(job: &JobId, step: StepId) -> JobId {
        JobId(format!("{job}x{step}"))
    }

    /// The key under which a host remembers an attempt at undoing a step.
    pub fn undo_key(job: &JobId, step: StepId, attempt: u32) -> crate::wire::StepKey {
        crate::wire::StepKey(format!("{job}.{step}.u{attempt}"))
    }
}

fn as_slice<S: serde::Serializer>(steps: &Arc<[Step]>, to: S) -> Result<S::Ok, S::Error> {
    steps.as_ref().serialize(to)
}

fn as_runs<S: serde::Serializer>(runs: &[Arc<StepRun>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(runs.iter().map(Arc::as_ref))
}

fn same_attempt(expected: u32, found: u32) -> Result<(), Illegal> {
    if expected == found {
        Ok(())
    } else {
        Err(Illegal::WrongAttempt { expected, found })
    }
}

/// Ends that are true although nothing was started: a guard refused, or it was so already.
fn ends_without_start(end: &StepEnd) -> bool {
    matches!(
        end,
        StepEnd::Refused { .. } | StepEnd::Done { changed: false, .. }
    )
}
