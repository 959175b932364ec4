//! What a job should be doing: a pure function of its state and the time.

use jiff::{SignedDuration, Timestamp};

use super::{Job, JobKind, JobResult, JobState, StepEnd, StepId, StepPhase, state::UNDO_ATTEMPTS};
use crate::planted::{Bug, is_planted};

/// How often a gate that named no time is asked again, in seconds: soon enough for `!resume`, seldom enough to cost nothing.
pub const HOLD_POLL_SECONDS: i64 = 5;

/// How long a gate may hold a job: a day later the world is another one, and the job is refused.
pub const HOLD_LIMIT_SECONDS: i64 = 24 * 60 * 60;

/// Failures that a result quotes in full; more are counted.
const FAILURES_QUOTED: usize = 3;

/// One thing that should be going on. Whatever the runner is doing already appears again until its event is in the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Take the lease on the job's scope.
    Lease,
    /// All needs are done: ask the gate and the guards, then act.
    Start {
        step: StepId,
        attempt: u32,
    },
    /// Started, and its end is not in the journal: it runs, or a killed bot left it.
    Continue {
        step: StepId,
        attempt: u32,
        since: Timestamp,
        undo: bool,
    },
    /// Undo this step; the next one follows when it ended.
    Undo {
        step: StepId,
        attempt: u32,
    },
    /// A gate holds the job: ask it again then.
    Wait {
        until: Timestamp,
        why: String,
    },
    Finish {
        result: JobResult,
    },
}

impl JobState {
    /// What should be going on now. Empty before the job was created and after it has finished.
    pub fn next(&self, now: Timestamp) -> Vec<Next> {
        match self.job() {
            Some(job) if job.finished.is_none() => job.next(now),
            _ => Vec::new(),
        }
    }
}

impl Job {
    fn next(&self, now: Timestamp) -> Vec<Next> {
        let mut next = self.continued();
        if self.lease.is_none() {
            let never_ran = self.cancelled_by.is_some();
            return vec![if never_ran {
                self.finish_now()
            } else {
                Next::Lease
            }];
        }
        let starts = self.starts();
        match self.hold_left(now) {
            Some(wait) if !starts.is_empty() => next.push(wait),
            _ => next.extend(starts),
        }
        if next.is_empty() {
            next.push(match self.next_undo() {
                Some(step) => Next::Undo {
                    step,
                    attempt: self.runs[step.0 as usize].undo_attempts + 1,
                },
                None => self.finish_now(),
            });
        }
        next
    }

    fn finish_now(&self) -> Next {
        Next::Finish {
            result: self.outcome(),
        }
    }

    fn continued(&self) -> Vec<Next> {
        let runs = self.steps.iter().zip(&self.runs);
        runs.filter_map(|(step, run)| {
            let (attempt, since, undo) = match run.phase {
                StepPhase::Running { attempt, since } => (attempt, since, false),
                StepPhase::Undoing { attempt, since, .. } => (attempt, since, true),
                _ => return None,
            };
            let step = step.id;
            Some(Next::Continue {
                step,
                attempt,
                since,
                undo,
            })
        })
        .collect()
    }

    /// Steps whose needs are all done. A step that failed keeps back what needs it; in a repair it keeps back everything.
    fn starts(&self) -> Vec<Next> {
        if self.stopping().is_some() {
            return Vec::new();
        }
        let ready = |position: &usize| {
            let needs = &self.steps[*position].needs;
            self.is_open(*position)
                && needs
                    .iter()
                    .all(|need| self.runs[need.0 as usize].is_done())
        };
        (0..self.steps.len())
            .filter(ready)
            .map(|position| Next::Start {
                step: self.steps[position].id,
                attempt: self.runs[position].attempts + 1,
            })
            .collect()
    }

    fn hold_left(&self, now: Timestamp) -> Option<Next> {
        let hold = self.hold.as_ref()?;
        let poll = SignedDuration::from_secs(HOLD_POLL_SECONDS);
        let again = hold.at.saturating_add(poll).unwrap_or(Timestamp::MAX);
        let until = hold.until.unwrap_or(again);
        (now < until).then(|| Next::Wait {
            until,
            why: hold.why.clone(),
        })
    }

    /// The step to undo now: last started first. A repair that did not succeed takes back everything it did; a deploy only
    /// what was left half-done, because running it again goes on from what succeeded.
    pub(super) fn next_undo(&self) -> Option<StepId> {
        if self.in_flight().next().is_some() || !self.starts().is_empty() || self.succeeded() {
            return None;
        }
        let whole_job = matches!(self.kind, JobKind::Heal { .. });
        self.started.iter().rev().copied().find(|id| {
            let position = id.0 as usize;
            self.is_undo_due(position) && (whole_job || !self.runs[position].is_done())
        })
    }

    fn is_undo_due(&self, position: usize) -> bool {
        let run = &self.runs[position];
        if is_planted(Bug::UndoSkipped) && !run.is_done() {
            return false;
        }
        let again = match &run.phase {
            StepPhase::Ended { end, .. } => !was_so_already(end, run.attempts),
            StepPhase::Undone {
                undo: StepEnd::Lost { .. },
                ..
            } => run.undo_attempts < UNDO_ATTEMPTS,
            _ => false,
        };
        again && self.steps[position].undo.is_some()
    }

    fn succeeded(&self) -> bool {
        self.runs.iter().all(|run| run.is_done())
    }

    /// Steps that will not run because something they need did not succeed, by position.
    pub fn blocked(&self) -> Vec<bool> {
        let mut blocked = vec![false; self.steps.len()];
        for &position in self.order.iter() {
            let lacks = |need: &StepId| {
                let need = need.0 as usize;
                blocked[need] || self.has_failed(need)
            };
            blocked[position] = self.steps[position].needs.iter().any(lacks);
        }
        blocked
    }

    /// How the job ends if nothing more is done.
    fn outcome(&self) -> JobResult {
        let mut failed = Vec::new();
        let mut refused = Vec::new();
        let mut not_run = 0;
        for (step, run) in self.steps.iter().zip(&self.runs) {
            match run.end() {
                Some(StepEnd::Done { .. } | StepEnd::Cancelled) => {}
                None => not_run += 1,
                Some(StepEnd::Refused { why }) => refused.push(format!("{}: {why}", step.title)),
                Some(StepEnd::Failed { what }) => failed.push(format!("{}: {what}", step.title)),
                Some(StepEnd::Drifted { what }) => failed.push(format!(
                    "{}: it is not as the plan saw it: {what}",
                    step.title
                )),
                Some(StepEnd::Lost { why }) => {
                    failed.push(format!("{}: what it did is unknown: {why}", step.title))
                }
            }
            if let StepPhase::Undone { undo, .. } = &run.phase
                && let Some(why) = not_undone(undo)
            {
                failed.push(format!("{} could not be undone: {why}", step.title));
            }
        }
        let by = self.cancelled_by.clone();
        let stopped = self.runs.iter().any(|run| !run.is_done());
        match (failed.is_empty(), refused.is_empty(), by) {
            (false, ..) => JobResult::Failed {
                why: quote(&failed, &refused, not_run),
            },
            (true, false, _) => JobResult::Refused {
                why: quote(&refused, &[], not_run),
            },
            (true, true, Some(by)) if stopped => JobResult::Cancelled { by },
            _ if stopped => JobResult::Failed {
                why: quote(
                    &["a step was cancelled on its host".to_owned()],
                    &[],
                    not_run,
                ),
            },
            _ => JobResult::Succeeded,
        }
    }
}

/// Nothing to take back: the only attempt found it so already. (After a loss, the lost attempt may have done it.)
fn was_so_already(end: &StepEnd, attempts: u32) -> bool {
    attempts == 1 && matches!(end, StepEnd::Done { changed: false, .. })
}

fn not_undone(undo: &StepEnd) -> Option<&str> {
    match undo {
        StepEnd::Done { .. } => None,
        StepEnd::Refused { why } | StepEnd::Lost { why } => Some(why),
        StepEnd::Failed { what } | StepEnd::Drifted { what } => Some(what),
        StepEnd::Cancelled => Some("it was cancelled on its host"),
    }
}

fn quote(first: &[String], second: &[String], not_run: usize) -> String {
    let all: Vec<&str> = first.iter().chain(second).map(String::as_str).collect();
    let (quoted, more) = all.split_at(all.len().min(FAILURES_QUOTED));
    let mut text = quoted.join("; ");
    if !more.is_empty() {
        text += &format!("; and {} more", more.len());
    }
    if not_run > 0 {
        text += &format!("; {not_run} steps were not run");
    }
    text
}
