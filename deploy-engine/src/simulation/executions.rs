//! The executions that really happened, and what must be true of them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    check::{overlap, second},
    facts::{KeyParts, What, parts},
    play::Played,
};
use crate::{
    job::{Effect, JobEvent, Step, StepEnd, StepId},
    model::HostName,
    wire::StepKey,
};

/// How old a guard's judgement may be when its step is handed to the network, not counting the time in which the bot stood still:
/// the engine's own limit, and the journal write and the judgement in between.
const GUARD_AGE_MAX: SignedDuration = SignedDuration::from_secs(30);

/// One worker process that began to act.
pub struct Execution {
    pub key: KeyParts,
    pub host: HostName,
    pub began_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub touched: bool,
    bot: usize,
    sent_at: Timestamp,
}

pub fn of(played: &Played) -> Vec<Execution> {
    let mut all: Vec<Execution> = Vec::new();
    let mut open: BTreeMap<(HostName, StepKey), usize> = BTreeMap::new();
    for fact in &played.facts {
        match &fact.what {
            What::Started {
                key, bot, sent_at, ..
            } => {
                let Some(parts) = parts(&played.job, key) else {
                    continue;
                };
                open.insert((fact.host.clone(), key.clone()), all.len());
                all.push(Execution {
                    key: parts,
                    host: fact.host.clone(),
                    began_at: fact.at,
                    ended_at: None,
                    touched: false,
                    bot: *bot,
                    sent_at: *sent_at,
                });
            }
            What::Touched { key } => {
                if let Some(at) = open.get(&(fact.host.clone(), key.clone())) {
                    all[*at].touched = true;
                }
            }
            What::Stopped { key } => {
                if let Some(at) = open.remove(&(fact.host.clone(), key.clone())) {
                    all[at].ended_at = Some(fact.at);
                }
            }
            What::Admitted { .. } | What::Fenced | What::Judged { .. } => {}
        }
    }
    all
}

pub fn check(played: &Played, executions: &[Execution], wrong: &mut Vec<String>) {
    let mut before: BTreeMap<StepId, Vec<&Execution>> = BTreeMap::new();
    let mut touched: BTreeMap<StepId, u32> = BTreeMap::new();
    for execution in executions {
        let step = &played.scenario.steps[execution.key.step.0 as usize];
        let earlier = before.entry(step.id).or_default();
        repeated(execution, earlier, wrong);
        earlier.push(execution);
        intended(played, execution, wrong);
        if execution.key.undo {
            continue;
        }
        needs(played, execution, step, wrong);
        guards(played, execution, step, wrong);
        let times = touched.entry(step.id).or_default();
        *times += u32::from(execution.touched);
        if step.effect == Effect::Once && *times > 1 {
            wrong.push(format!("step {} must not happen twice, and did", step.id));
        }
    }
}

/// A key is begun once, and no two executions of one step run at the same time, its undos included.
fn repeated(execution: &Execution, earlier: &[&Execution], wrong: &mut Vec<String>) {
    let named = name(execution);
    for other in earlier {
        if other.key == execution.key {
            wrong.push(format!("{named} was begun twice"));
        } else if other
            .ended_at
            .is_none_or(|ended| ended > execution.began_at)
        {
            wrong.push(format!("{named} began while {} still ran", name(other)));
        }
    }
}

fn name(execution: &Execution) -> String {
    let KeyParts {
        step,
        undo,
        attempt,
    } = execution.key;
    let what = if undo { "undo" } else { "attempt" };
    format!("{what} {attempt} of step {step} on {}", execution.host)
}

/// Intent is in the journal before the act; and no act begins after the journal said how it ended.
fn intended(played: &Played, execution: &Execution, wrong: &mut Vec<String>) {
    let named = name(execution);
    let key = execution.key;
    let is_start = |event: &JobEvent| match event {
        JobEvent::StepStarted { step, attempt } => {
            !key.undo && (*step, *attempt) == (key.step, key.attempt)
        }
        JobEvent::UndoStarted { step, attempt } => {
            key.undo && (*step, *attempt) == (key.step, key.attempt)
        }
        _ => false,
    };
    let start = played.written.iter().find(|kept| is_start(&kept.event));
    if start.is_none_or(|start| !start.is_durable(execution.sent_at)) {
        wrong.push(format!("{named} was sent before the journal had its start"));
    }
    for kept in &played.written {
        let end = match &kept.event {
            JobEvent::StepEnded { step, attempt, end }
                if !key.undo && (*step, *attempt) == (key.step, key.attempt) =>
            {
                end
            }
            JobEvent::UndoEnded { step, attempt, end }
                if key.undo && (*step, *attempt) == (key.step, key.attempt) =>
            {
                end
            }
            _ => continue,
        };
        // What was lost may turn up; whoever goes on from there has to call it off first.
        if kept.written_at < execution.began_at && !matches!(end, StepEnd::Lost { .. }) {
            wrong.push(format!(
                "{named} began at {:.3}, after the journal had its end: {end:?}",
                second(execution.began_at)
            ));
        }
    }
}

fn needs(played: &Played, execution: &Execution, step: &Step, wrong: &mut Vec<String>) {
    for need in &step.needs {
        let is_done = |event: &JobEvent| matches!(event, JobEvent::StepEnded { step, end: StepEnd::Done { .. }, .. } if step == need);
        let done = played
            .written
            .iter()
            .any(|kept| kept.is_durable(execution.began_at) && is_done(&kept.event));
        if !done {
            wrong.push(format!(
                "{} began before step {need}, which it needs, was done",
                name(execution)
            ));
        }
    }
}

/// Every guard was judged by the bot that sent the step, shortly before, and held.
fn guards(played: &Played, execution: &Execution, step: &Step, wrong: &mut Vec<String>) {
    for guard in &step.guards {
        let fresh = played.facts.iter().any(|fact| match &fact.what {
            What::Judged {
                bot,
                condition,
                holds: true,
            } if *bot == execution.bot
                && *condition == guard.name
                && fact.at <= execution.sent_at =>
            {
                let age = execution.sent_at.duration_since(fact.at);
                let stood = played.frozen.iter().filter(|(who, ..)| who == bot);
                let stood: SignedDuration = stood
                    .map(|(_, from, to)| overlap(fact.at, execution.sent_at, (*from, *to)))
                    .sum();
                age - stood <= GUARD_AGE_MAX
            }
            _ => false,
        });
        if !fresh {
            wrong.push(format!(
                "{} was sent at {:.3} without its guard {} being judged at the moment of the act",
                name(execution),
                second(execution.sent_at),
                guard.name
            ));
        }
    }
}
