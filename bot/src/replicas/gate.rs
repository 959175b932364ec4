//! Before each step: does this bot lead, and did anybody say `halt` to any bot?

use std::sync::Arc;

use async_trait::async_trait;
use deploy_engine::{
    job::{JobId, JobState, Step},
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
    async fn hold(&self) -> Option<GateVerdict> {
        let hold = |why| GateVerdict::Hold { until: None, why };
        if let Err(why) = self.lead.may_act() {
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
        match self.hold().await {
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
        match self.hold().await {
            Some(hold) => hold,
            None => self.then.before_undo(id, job, step, now).await,
        }
    }
}
