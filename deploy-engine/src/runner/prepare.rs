//! The questions before an act: the gate, whether it is so already, and the guards.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::future::{Either, select};
use jiff::{SignedDuration, Timestamp};

use super::{
    Context,
    call_off::{CalledOff, call_off},
    check::describe,
    ports::{GateVerdict, limited},
};
use crate::{
    condition::ConditionCall,
    job::{JobId, JobState, Step, StepEnd},
    model::HostName,
    planted::{Bug, is_planted},
    wire::{Fence, StepKey},
};

/// How long a gate may think. A gate that hangs must not let anything start.
const GATE_LIMIT: Duration = Duration::from_secs(10);

/// How old the guards' word may be when the gate passes that was asked with them: as long as both take on a host that is well.
/// Older, they are asked again.
const BESIDE_LIMIT: SignedDuration = SignedDuration::from_millis(250);

#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// Nothing is against it. `before`: what the guards said, if there are any, and when they were asked.
    Act {
        before: String,
        guarded_at: Option<Timestamp>,
    },
    /// It ends without acting.
    End(StepEnd),
    Hold {
        until: Option<Timestamp>,
        why: String,
    },
}

/// `open`: earlier attempts whose outcome was lost. They are over before this one is even considered.
pub async fn prepare(
    context: Arc<Context>,
    id: JobId,
    state: Arc<JobState>,
    step: Step,
    undo: bool,
    open: Vec<(HostName, StepKey)>,
    fence: Fence,
) -> Prepared {
    for (host, key) in &open {
        let ended = call_off(&*context.hosts, &*context.clock, host, key, &fence).await;
        if let CalledOff::Unknown { why } = ended {
            return refused(format!("an earlier attempt may not be over: {why}"));
        }
    }
    let prepared = consider(&context, &id, &state, &step, undo).await;
    match prepared {
        // Whoever reads that it was refused should not think that nothing was ever done.
        Prepared::End(StepEnd::Refused { why }) if !open.is_empty() => {
            refused(format!("{why}; what an earlier attempt did is unknown"))
        }
        other => other,
    }
}

async fn consider(
    context: &Context,
    id: &JobId,
    state: &JobState,
    step: &Step,
    undo: bool,
) -> Prepared {
    let now = context.clock.now();
    let gate = async {
        match undo {
            false => context.gate.before(id, state, step, now).await,
            true => context.gate.before_undo(id, state, step, now).await,
        }
    };
    let gate = limited(&*context.clock, GATE_LIMIT, gate);
    let held = state.job().is_some_and(|job| job.hold.is_some());
    let (verdict, guards) = match undo || held {
        // Undos have no guards; and a job that is held is likely to stay so.
        true => (gate.await, None),
        false => beside(context, gate, step).await,
    };
    match verdict {
        Some(GateVerdict::Pass) if undo => Prepared::Act {
            before: String::new(),
            guarded_at: None,
        },
        Some(GateVerdict::Pass) => match guards {
            Some(guards) => guards,
            None => judge(context, step).await,
        },
        Some(GateVerdict::Hold { until, why }) => Prepared::Hold { until, why },
        Some(GateVerdict::Refuse { why }) => refused(why),
        None => refused(format!(
            "the gate was expected to answer within {} s and did not",
            GATE_LIMIT.as_secs()
        )),
    }
}

/// The gate's verdict, and the guards' word, asked at the same time, if both came and the guards were asked just now: hosts answer
/// gates and guards at once. A gate that says no does not wait for guards, and one that thought for long makes them stale.
async fn beside(
    context: &Context,
    gate: impl Future<Output = Option<GateVerdict>>,
    step: &Step,
) -> (Option<GateVerdict>, Option<Prepared>) {
    let asked_at = context.clock.now();
    let (gate, guards) = (pin!(gate), pin!(judge(context, step)));
    match select(gate, guards).await {
        Either::Left((Some(GateVerdict::Pass), guards)) => {
            (Some(GateVerdict::Pass), Some(guards.await))
        }
        Either::Left((verdict, _)) => (verdict, None),
        Either::Right((guards, gate)) => {
            let verdict = gate.await;
            let age = context.clock.now().duration_since(asked_at);
            let fresh = (SignedDuration::ZERO..=BESIDE_LIMIT).contains(&age);
            (verdict, fresh.then_some(guards))
        }
    }
}

/// All at once, as shortly before the act as can be; what needs nothing done needs no guard.
async fn judge(context: &Context, step: &Step) -> Prepared {
    let calls: Vec<&ConditionCall> = step.unless.iter().chain(&step.guards).collect();
    let asked_at = context.clock.now();
    let judgements = context.evidence.judge_all(&calls, asked_at).await;
    let mut said = calls.into_iter().zip(judgements);
    if step.unless.is_some()
        && let Some((unless, judgement)) = said.next()
        && judgement.holds()
    {
        return Prepared::End(StepEnd::Done {
            changed: false,
            detail: format!("nothing to do: {}", describe(unless, &judgement)),
        });
    }
    let mut before = String::new();
    if is_planted(Bug::NoRecheck) {
        return Prepared::Act {
            before,
            guarded_at: None,
        };
    }
    for (guard, judgement) in said {
        let said = describe(guard, &judgement);
        if !judgement.holds() {
            return refused(said);
        }
        before += &format!("; before it, {said}");
    }
    let guarded_at = (!step.guards.is_empty()).then_some(asked_at);
    Prepared::Act { before, guarded_at }
}

fn refused(why: String) -> Prepared {
    Prepared::End(StepEnd::Refused { why })
}
