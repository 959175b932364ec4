//! What becomes of a running step when its job is cancelled. Pure.

use crate::{
    job::{Action, Effect},
    wire::Work,
};

/// The policy for one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// It changes something: half of it is worse than all of it, so it is left to finish.
    Finish,
    /// It runs on a host but changes nothing worth keeping: the host is told to end it.
    EndOnHost,
    /// It only watches or waits: it ends at once.
    EndAtOnce,
    /// It is a job: that is cancelled, and decides for each of its own steps.
    PassOn,
}

pub fn on_cancel(action: &Action, effect: Effect) -> OnCancel {
    match (action, effect) {
        (Action::Check { .. } | Action::Wait { .. } | Action::Snapshot { .. }, _) => {
            OnCancel::EndAtOnce
        }
        (Action::Batch { .. }, _) => OnCancel::PassOn,
        // Downloads are the longest steps of a deploy and change nothing that runs.
        (
            Action::Host {
                work: Work::Fetch { .. },
                ..
            },
            _,
        )
        | (Action::Host { .. }, Effect::Observe) => OnCancel::EndOnHost,
        (Action::Host { .. }, Effect::Converge | Effect::Once) => OnCancel::Finish,
    }
}
