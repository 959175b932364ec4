//! What one process tells people: everything that its runner said to the observer, in order.

use std::sync::{Mutex, PoisonError};

use crate::{
    job::{JobEvent, JobId, JobState, StepProgress},
    runner::JobObserver,
};

/// Everything said in one life. Each with the number of events that the journal then held.
pub type Said = Vec<(u64, JobEvent)>;

#[derive(Default)]
pub struct Chat {
    said: Mutex<Said>,
}

impl Chat {
    pub fn said(&self) -> Said {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A power cut left so many events of the job. A word comes after its event in the log, and is said when it is on the disk:
    /// what spoke of the others has not been said.
    pub fn lose_after(&self, length: u64) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(at, _)| *at <= length);
    }
}

impl JobObserver for Chat {
    fn event(&self, _: &JobId, state: &JobState, event: &JobEvent) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push((state.length(), event.clone()));
    }

    fn progress(&self, _: StepProgress) {}
}
