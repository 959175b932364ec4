//! Before each step: does this bot lead (or live, for a step of a batch), and did anybody say `halt` to any bot?

use std::sync::Arc;

use async_trait::async_trait;
use deploy_engine::{
    job::{Job, JobId, JobKind, JobState, Step},
    runner::{GateVerdict, StepGate},
};
use jiff::Timestamp;

use super::Lead;
use crate::halt::Halt;

pub struct DutyGate {
    pub lead: Lead,
    pub halt: Halt,
    pub then: Arc<dyn StepGate>,
}

impl DutyGate {
    async fn hold(&self, job: &JobState) -> Option<GateVerdict> {
        let hold = |why| GateVerdict::Hold { until: None, why };
        let is_batch = |job: &Job| matches!(job.kind, JobKind::Batch { .. });
        let may = match job.job().is_some_and(is_batch) {
            true => self.lead.may_help(),
            false => self.lead.may_act(),
        };
        if let Err(why) = may {
            return Some(hold(why));
        }
        // Another bot may have been told to stop everything.
        match self.halt.look().await {
            Ok(()) => None,
            Err(error) => Some(hold(format!("whether all is halted is not known: {error}"))),
        }
    }
}

#[async_trait]
impl StepGate for DutyGate {
    async fn before(&self, id: &JobId, job: &JobState, step: &Step, now: Timestamp) -> GateVerdict {
        match self.hold(job).await {
            Some(hold) => hold,
            None => self.then.before(id, job, step, now).await,
        }
    }

    async fn before_undo(
        &self,
        id: &JobId,
        job: &JobState,
        step: &Step,
        now: Timestamp,
    ) -> GateVerdict {
        match self.hold(job).await {
            Some(hold) => hold,
            None => self.then.before_undo(id, job, step, now).await,
        }
    }
}
