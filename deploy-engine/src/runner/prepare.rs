//! The questions before an act, in order: the gate, whether it is so already, and the guards.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Context,
    check::describe,
    ports::{GateVerdict, limited},
};
use crate::job::{JobId, JobState, Step, StepEnd};

/// How long a gate may think. A gate that hangs must not let anything start.
const GATE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// Nothing is against it. `before`: what the guards said.
    Act { before: String },
    /// It ends without acting.
    End(StepEnd),
    Hold {
        until: Option<Timestamp>,
        why: String,
    },
}

pub async fn prepare(
    context: Arc<Context>,
    id: JobId,
    state: Arc<JobState>,
    step: Step,
    undo: bool,
) -> Prepared {
    let now = context.clock.now();
    let asked = async {
        match undo {
            false => context.gate.before(&id, &state, &step, now).await,
            true => context.gate.before_undo(&id, &state, &step, now).await,
        }
    };
    match limited(&*context.clock, GATE_LIMIT, asked).await {
        Some(GateVerdict::Pass) if undo => Prepared::Act {
            before: String::new(),
        },
        Some(GateVerdict::Pass) => judge(&context, &step).await,
        Some(GateVerdict::Hold { until, why }) => Prepared::Hold { until, why },
        Some(GateVerdict::Refuse { why }) => refused(why),
        None => refused(format!(
            "the gate was expected to answer within {} s and did not",
            GATE_LIMIT.as_secs()
        )),
    }
}

async fn judge(context: &Context, step: &Step) -> Prepared {
    // First: what needs nothing done needs no guard; and the guards are asked as shortly before the act as can be.
    if let Some(unless) = &step.unless {
        let (judgement, _) = context.evidence.judge(unless, context.clock.now()).await;
        if judgement.holds() {
            return Prepared::End(StepEnd::Done {
                changed: false,
                detail: format!("nothing to do: {}", describe(unless, &judgement)),
            });
        }
    }
    let mut before = String::new();
    for guard in &step.guards {
        let (judgement, _) = context.evidence.judge(guard, context.clock.now()).await;
        let said = describe(guard, &judgement);
        if !judgement.holds() {
            return refused(said);
        }
        before += &format!("; before it, {said}");
    }
    Prepared::Act { before }
}

fn refused(why: String) -> Prepared {
    Prepared::End(StepEnd::Refused { why })
}
