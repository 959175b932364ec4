//! Events that cannot follow, and why.

use super::{JobEvent, StepId};

/// An event that cannot follow in this state: the journal or the runner is wrong, and nothing may be done on its strength.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is illegal when {state}: {why}")]
pub struct IllegalEvent {
    pub event: String,
    pub state: String,
    pub why: Illegal,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    #[error("expected the job to be created first")]
    NotCreated,
    #[error("the job was created before")]
    CreatedTwice,
    #[error("nothing follows a finished job")]
    AlreadyFinished,
    #[error("{0}")]
    BadSteps(String),
    #[error("expected a token above {held}, found {found}")]
    TokenNotGrowing { held: u64, found: u64 },
    #[error("expected a lease first")]
    NoLease,
    #[error("the job has {steps} steps")]
    UnknownStep { steps: usize },
    #[error("expected attempt {expected}, found attempt {found}")]
    WrongAttempt { expected: u32, found: u32 },
    #[error("it needs step {need}, which is not done")]
    NeedNotDone { need: StepId },
    #[error("no step may start: {0}")]
    Stopping(&'static str),
    #[error("the step is not waiting to be started")]
    NotStartable,
    #[error("the step does not run")]
    NotRunning,
    #[error("only a refusal or a step with nothing to do ends without having been started")]
    EndedWithoutStart,
    #[error("there is nothing to undo")]
    NotUndoable,
    #[error("the job is not held")]
    NotHeld,
    #[error("step {step} still runs")]
    StillRunning { step: StepId },
    #[error("step {step} has not succeeded")]
    NotSucceeded { step: StepId },
}

impl IllegalEvent {
    pub(super) fn new(event: &JobEvent, state: &str, why: Illegal) -> Self {
        Self {
            event: name(event),
            state: format!("the job is {state}"),
            why,
        }
    }
}

fn name(event: &JobEvent) -> String {
    let step = |what: &str, step: &StepId| format!("{what} of step {step}");
    match event {
        JobEvent::Created { .. } => "Created".to_owned(),
        JobEvent::Leased { token, .. } => format!("Leased with token {token}"),
        JobEvent::StepStarted { step: id, .. } => step("StepStarted", id),
        JobEvent::Evidence { step: id, .. } => step("Evidence", id),
        JobEvent::StepEnded { step: id, .. } => step("StepEnded", id),
        JobEvent::UndoStarted { step: id, .. } => step("UndoStarted", id),
        JobEvent::UndoEnded { step: id, .. } => step("UndoEnded", id),
        JobEvent::Held { .. } => "Held".to_owned(),
        JobEvent::HoldReleased => "HoldReleased".to_owned(),
        JobEvent::CancelRequested { .. } => "CancelRequested".to_owned(),
        JobEvent::Finished { .. } => "Finished".to_owned(),
    }
}
