//! Jobs: steps that change the world, and the journal events that their state is a fold of.

mod event;
mod step;

pub use event::{JobEvent, JobId, JobKind, JobResult, StepEnd, StepProgress};
pub use step::{Action, CheckMode, Effect, Step, StepId};
