//! The invariants, over what really happened and what the journal says. Each violation is a sentence.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    clock::start,
    executions::{self, Execution},
    facts::What,
    log::Kept,
    play::{END_LIMIT_SECONDS, Played},
    world::Extent,
};
use crate::job::{
    Action, Effect, Job, JobEvent, JobKind, JobResult, JobState, Step, StepEnd, StepPhase, StepRun,
};

/// All violations of one run.
pub fn check(played: &Played) -> Vec<String> {
    let mut wrong = Vec::new();
    journal(played, &mut wrong);
    told(played, &mut wrong);
    fences(played, &mut wrong);
    leases(played, &mut wrong);
    let executions = executions::of(played);
    executions::check(played, &executions, &mut wrong);
    match JobState::fold(&played.journal) {
        Err(illegal) => wrong.push(format!("the journal holds an illegal event: {illegal}")),
        Ok(state) => {
            ended(played, &state, &mut wrong);
            if let Some(job) = state.job().filter(|job| job.finished.is_some()) {
                for (step, run) in job.steps.iter().zip(&job.runs) {
                    claim(played, step, run, &executions, &mut wrong);
                    undo(job, step, run, &mut wrong);
                }
            }
        }
    }
    wrong
}

/// Append-only: what was written, and not lost with the power, is there in the end, in its place; whatever somebody was told is on
/// the disk was not lost; and times do not go back.
fn journal(played: &Played, wrong: &mut Vec<String>) {
    let written = played.written.iter().map(|kept| (kept.at, &kept.event));
    let written: Vec<_> = written.collect();
    let kept: Vec<_> = played.journal.iter().map(|(at, e)| (*at, e)).collect();
    if written != kept {
        wrong.push("the journal is not what was written to it".into());
    }
    for loss in played.losses.iter().filter(|loss| loss.promised > 0) {
        let promised = loss.promised;
        wrong.push(format!(
            "{promised} writes were called durable and lost with the power"
        ));
    }
    if let Some(pair) = kept.windows(2).find(|pair| pair[0].0 > pair[1].0) {
        wrong.push(format!("the journal's time goes back at {:?}", pair[1]));
    }
}

/// Each process told every event that it recorded, once, in order, and nothing else.
fn told(played: &Played, wrong: &mut Vec<String>) {
    for said in &played.told {
        for pair in said.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1) {
            wrong.push(format!("event {} was told after {}", pair[1].0, pair[0].0));
        }
        for (length, event) in said {
            let place = usize::try_from(*length).unwrap_or(0);
            let kept = place.checked_sub(1).and_then(|at| played.journal.get(at));
            if kept.map(|(_, kept)| kept) != Some(event) {
                wrong.push(format!("told what is not event {length}: {event:?}"));
            }
        }
    }
}

/// No host admits a step under a lower number than it has seen.
fn fences(played: &Played, wrong: &mut Vec<String>) {
    let mut seen: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for fact in &played.facts {
        if let What::Admitted { scope, token } = &fact.what {
            let highest = seen.entry((fact.host.as_str(), scope)).or_default();
            if token < highest {
                wrong.push(format!(
                    "{} accepted a step with the old fencing number {token}, though it had seen {highest}",
                    fact.host
                ));
            }
            *highest = (*highest).max(*token);
        }
    }
}

/// From its first lease to its end no job overlaps with one that it excludes.
fn leases(played: &Played, wrong: &mut Vec<String>) {
    let held = |written: &[Kept]| {
        let mut leased = written
            .iter()
            .filter(|kept| matches!(kept.event, JobEvent::Leased { .. }));
        let from = leased.next()?.written_at;
        let last = written.last()?;
        let ended = matches!(last.event, JobEvent::Finished { .. }).then_some(last.written_at);
        Some((from, ended.unwrap_or(Timestamp::MAX)))
    };
    if let (Some(one), Some(other)) = (held(&played.written), held(&played.rival))
        && overlap(one.0, one.1, other) > SignedDuration::ZERO
    {
        wrong.push("two jobs that exclude each other held their leases at the same time".into());
    }
}

/// Every wait is bounded; what was promised to people was kept; the site is free.
fn ended(played: &Played, state: &JobState, wrong: &mut Vec<String>) {
    let Some(result) = state.result() else {
        wrong.push(format!(
            "the job has not ended within {END_LIMIT_SECONDS} s"
        ));
        return;
    };
    if played.result.as_ref().is_some_and(|told| told != result) {
        wrong.push(format!(
            "the runner says {:?}, the journal {result:?}",
            played.result
        ));
    }
    if !played.lease_is_free {
        wrong.push("the lease of a finished job is not free".into());
    }
    let asked =
        |(_, event): &(Timestamp, JobEvent)| matches!(event, JobEvent::CancelRequested { .. });
    if played.cancel_taken && !played.journal.iter().any(asked) {
        wrong.push("a cancel was confirmed and is not in the journal".into());
    }
}

/// The name of what a step changes on hosts, if it changes anything.
fn changes(step: &Step) -> Option<String> {
    let on_host = matches!(step.action, Action::Host { .. });
    (on_host && step.effect != Effect::Observe).then(|| format!("s{}", step.id))
}

/// What the journal says of a step is so.
fn claim(
    played: &Played,
    step: &Step,
    run: &StepRun,
    executions: &[Execution],
    wrong: &mut Vec<String>,
) {
    let Some(name) = changes(step) else { return };
    let extent = played.effects.get(&name).copied();
    let of_step = |e: &&Execution| e.key.step == step.id && !e.key.undo;
    let began = executions.iter().filter(of_step).count();
    let id = step.id;
    let ended = played
        .journal
        .iter()
        .rev()
        .find_map(|(_, event)| match event {
            JobEvent::StepEnded { step, attempt, .. } if *step == id => Some(*attempt),
            _ => None,
        });
    // Of the attempt that its end speaks of.
    let last = executions
        .iter()
        .filter(of_step)
        .any(|e| Some(e.key.attempt) == ended);
    match &run.phase {
        StepPhase::Waiting if began > 0 => {
            wrong.push(format!("step {id} was done, though it was never started"));
        }
        StepPhase::Ended {
            end: StepEnd::Done { .. },
            ..
        } if extent != Some(Extent::Whole) => {
            wrong.push(format!(
                "step {id} is done, but its change is lost: {extent:?}"
            ));
        }
        StepPhase::Ended {
            end: StepEnd::Refused { .. },
            ..
        } if last => {
            wrong.push(format!("step {id} was refused, but its host did it"));
        }
        StepPhase::Ended {
            end: StepEnd::Failed { what },
            ..
        } if what.contains("nothing was done") && last => {
            wrong.push(format!("step {id} says that nothing was done, but: {what}"));
        }
        StepPhase::Undone {
            undo: StepEnd::Done { .. },
            ..
        } if extent.is_some() => {
            wrong.push(format!("step {id} was undone, but is there: {extent:?}"));
        }
        StepPhase::Running { .. } | StepPhase::Undoing { .. } => {
            wrong.push(format!("step {id} runs in a finished job"));
        }
        _ => {}
    }
}

/// Whatever was started is undone when the rules say so, the half-done step included, and nothing else is.
fn undo(job: &Job, step: &Step, run: &StepRun, wrong: &mut Vec<String>) {
    let found_so =
        run.attempts == 1 && matches!(run.end(), Some(StepEnd::Done { changed: false, .. }));
    let succeeded = matches!(&job.finished, Some((_, JobResult::Succeeded)));
    let whole_job = matches!(job.kind, JobKind::Heal { .. });
    let due = step.undo.is_some()
        && run.attempts > 0
        && !found_so
        && !succeeded
        && (whole_job || !run.is_done());
    let undone = match &run.phase {
        StepPhase::Undone { undo, .. } => Some(undo),
        _ => None,
    };
    let id = step.id;
    match (due, undone) {
        (true, None) => wrong.push(format!("step {id} was started and has not been undone")),
        (false, Some(_)) => wrong.push(format!("step {id} was undone without a reason")),
        (true, Some(StepEnd::Done { .. })) | (false, None) => {}
        (true, Some(end)) => {
            let said = match &job.finished {
                Some((_, JobResult::Failed { why })) => why.as_str(),
                _ => "",
            };
            // More failures than a result quotes are counted in it.
            if !said.contains("could not be undone") && !said.contains("more") {
                wrong.push(format!(
                    "nobody is told that step {id} is not undone: {end:?}"
                ));
            }
        }
    }
}

/// Seconds since the begin, for people.
pub fn second(at: Timestamp) -> f64 {
    at.duration_since(start()).as_secs_f64()
}

pub fn overlap(from: Timestamp, to: Timestamp, stood: (Timestamp, Timestamp)) -> SignedDuration {
    let begin = from.max(stood.0);
    let end = to.min(stood.1);
    end.duration_since(begin).max(SignedDuration::ZERO)
}
