//! Jobs: steps that change the world, and the journal events that their state is a fold of.
//!
//! Pure, but for the [`Journal`] that keeps the events. `state` decides what an event makes of a job, `next` what should be
//! going on; the runner does it and appends what came of it.

mod event;
mod graph;
mod illegal;
mod journal;
mod memory;
mod next;
mod share;
mod state;
mod step;

pub use event::{JobEvent, JobId, JobKind, JobResult, StepEnd, StepProgress};
pub use graph::STEPS_MAX;
pub use illegal::{Illegal, IllegalEvent};
pub use journal::{
    Journal, JournalError, LEASE_SECONDS, Lease, LeaseError, LeaseRecord, batch_scope, is_batch,
    next_token, scopes_conflict,
};
pub use memory::MemoryJournal;
pub use next::{HOLD_LIMIT_SECONDS, HOLD_POLL_SECONDS, Next};
pub use share::{BATCH_HOSTS, SHARED_FROM_HOSTS, share_out};
pub use state::{Hold, Holder, Job, JobState, LOST_ATTEMPTS, StepPhase, StepRun, UNDO_ATTEMPTS};
pub use step::{Action, CheckMode, Effect, Step, StepId};

#[cfg(test)]
mod tests;
