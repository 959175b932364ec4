//! A gate that holds, refuses and hangs at the times that the seed chose. It never refuses an undo.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{clock::VirtualClock, scenario::Scenario};
use crate::{
    job::{JobId, JobState, Step},
    runner::{GateVerdict, StepGate},
};

/// Longer than any gate may think.
const HANGS_FOR: SignedDuration = SignedDuration::from_secs(40);

pub struct Gate {
    pub clock: Arc<VirtualClock>,
    pub scenario: Arc<Scenario>,
}

impl Gate {
    fn hold(&self, now: Timestamp) -> Option<GateVerdict> {
        let mut holds = self.scenario.holds.iter();
        let (from, to) = holds.find(|(from, to)| *from <= now && now < *to)?;
        // Every second one names no time: it is to be asked again.
        let until = (from.as_second() % 2 == 0).then_some(*to);
        let why = "halted by alice".into();
        Some(GateVerdict::Hold { until, why })
    }
}

#[async_trait]
impl StepGate for Gate {
    async fn before(&self, _: &JobId, _: &JobState, _: &Step, now: Timestamp) -> GateVerdict {
        let hangs = self.scenario.gate_hangs_at;
        if let Some(from) = hangs.filter(|from| *from <= now && now < *from + HANGS_FOR) {
            self.clock.until(from + HANGS_FOR).await;
        }
        if self.scenario.refuses_from.is_some_and(|from| from <= now) {
            let why = "silenced by bob".into();
            return GateVerdict::Refuse { why };
        }
        self.hold(now).unwrap_or(GateVerdict::Pass)
    }

    async fn before_undo(&self, _: &JobId, _: &JobState, _: &Step, now: Timestamp) -> GateVerdict {
        self.hold(now).unwrap_or(GateVerdict::Pass)
    }
}
