//! Tells the healer when a repair's proof begins and when any job ends, and everybody else everything.

use std::sync::Arc;

use deploy_engine::{
    job::{JobEvent, JobId, JobKind, JobState, StepProgress},
    runner::JobObserver,
};

use super::Ear;

pub struct HealObserver {
    pub ear: Ear,
    pub then: Arc<dyn JobObserver>,
}

impl JobObserver for HealObserver {
    fn event(&self, job: &JobId, state: &JobState, event: &JobEvent) {
        if let (JobEvent::StepStarted { step, .. }, Some(of)) = (event, state.job())
            && let JobKind::Heal { incident, .. } = &of.kind
            // A repair ends with its proof.
            && of.steps.last().is_some_and(|last| last.id == *step)
            && let Some(healer) = self.ear.get()
        {
            healer.proof_started(incident, job);
        }
        // Of a batch the job tells that it is a part of.
        let whole = state
            .job()
            .is_some_and(|job| !matches!(job.kind, JobKind::Batch { .. }));
        if whole && let (JobEvent::Finished { .. }, Some(healer)) = (event, self.ear.get()) {
            healer.job_finished(job);
        }
        self.then.event(job, state, event);
    }

    fn progress(&self, progress: StepProgress) {
        self.then.progress(progress);
    }
}
