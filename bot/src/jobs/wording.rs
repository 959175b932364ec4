//! What is said of jobs. Pure.

use std::collections::HashMap;

use deploy_engine::job::{Job, JobEvent, JobId, JobResult, JobState, StepEnd, StepPhase};
use jiff::{SignedDuration, Timestamp};

use crate::wording::{Block, Cell, Message, Severity, Table, Tone, duration};

/// Running steps named in the message of a job.
const RUNNING_SHOWN: usize = 6;

/// The id as people type it. Time-ordered ids begin alike, so the end tells jobs apart.
pub fn short(job: &JobId) -> String {
    let chars = job.0.chars().count();
    job.0.chars().skip(chars.saturating_sub(6)).collect()
}

/// The one message of a job. `reports`: what running steps last said. `None` before the job was created.
pub fn job(id: &JobId, state: &JobState, reports: &HashMap<u32, String>) -> Option<Message> {
    let job = state.job()?;
    let total = u32::try_from(job.steps.len()).unwrap_or(u32::MAX);
    let done = u32::try_from(job.runs.iter().filter(|run| run.is_done()).count()).unwrap_or(total);
    let (severity, word) = standing(job);
    let message = Message::new(severity, format!("{}: {word}", job.title));
    let message = match &job.finished {
        Some((at, result)) => finished(message, job, *at, result, done, total),
        None => running(message, job, reports, done, total),
    };
    let by = format!("job {} by {}", short(id), job.requested_by);
    Some(message.toned(by, Tone::Dim))
}

fn standing(job: &Job) -> (Severity, String) {
    if let Some((_, result)) = &job.finished {
        let severity = match result {
            JobResult::Succeeded => Severity::Good,
            JobResult::Failed { .. } => Severity::Bad,
            JobResult::Cancelled { .. } | JobResult::Refused { .. } => Severity::Refused,
        };
        return (severity, result_word(result).to_owned());
    }
    if let Some(hold) = &job.hold {
        return (Severity::Attention, format!("held: {}", hold.why));
    }
    match &job.cancelled_by {
        Some(by) => (Severity::Working, format!("stopping for {by}")),
        None => (Severity::Working, "running".to_owned()),
    }
}

pub fn result_word(result: &JobResult) -> &'static str {
    match result {
        JobResult::Succeeded => "done",
        JobResult::Failed { .. } => "failed",
        JobResult::Cancelled { .. } => "cancelled",
        JobResult::Refused { .. } => "refused",
    }
}

/// Why it ended so, if there is more to say.
pub fn finished_line(result: &JobResult) -> Option<String> {
    match result {
        JobResult::Succeeded => None,
        JobResult::Failed { why } | JobResult::Refused { why } => Some(why.clone()),
        JobResult::Cancelled { by } => Some(format!("by {by}")),
    }
}

fn finished(
    message: Message,
    job: &Job,
    at: Timestamp,
    result: &JobResult,
    done: u32,
    total: u32,
) -> Message {
    let message = match finished_line(result) {
        Some(why) => message.toned(why, Tone::Bad),
        None => message,
    };
    let took = duration(at.duration_since(job.created_at));
    let changed = job
        .runs
        .iter()
        .filter(|run| matches!(run.end(), Some(StepEnd::Done { changed: true, .. })))
        .count();
    message.line(format!(
        "{done} of {total} steps in {took}; {changed} changed something"
    ))
}

fn running(
    message: Message,
    job: &Job,
    reports: &HashMap<u32, String>,
    done: u32,
    total: u32,
) -> Message {
    let mut now: Vec<String> = job
        .steps
        .iter()
        .zip(&job.runs)
        .filter(|(_, run)| run.is_in_flight())
        .map(|(step, _)| match reports.get(&step.id.0) {
            Some(report) => format!("{} ({report})", step.title),
            None => step.title.clone(),
        })
        .collect();
    let more = now.len().saturating_sub(RUNNING_SHOWN);
    now.truncate(RUNNING_SHOWN);
    if more > 0 {
        now.push(format!("{more} more"));
    }
    let mut message = message.progress(done, total, now.join("; "));
    for (step, run) in job.steps.iter().zip(&job.runs) {
        if let Some(why) = run.end().and_then(trouble) {
            message = message.toned(format!("{}: {why}", step.title), Tone::Bad);
        }
    }
    message
}

/// What is wrong with how a step ended.
fn trouble(end: &StepEnd) -> Option<String> {
    match end {
        StepEnd::Done { .. } => None,
        StepEnd::Refused { why } => Some(format!("refused: {why}")),
        StepEnd::Failed { what } => Some(format!("failed: {what}")),
        StepEnd::Drifted { what } => Some(format!("found changed: {what}")),
        StepEnd::Lost { why } => Some(format!("lost: {why}")),
        StepEnd::Cancelled => Some("cancelled".to_owned()),
    }
}

/// The line that an event adds to the thread of its job.
pub fn detail(state: &JobState, event: &JobEvent) -> Option<Block> {
    let job = state.job()?;
    let line = |text: String, tone| Some(Block::Line { text, tone });
    match event {
        JobEvent::StepEnded { step, end, .. } => {
            let index = step.0 as usize;
            let (spec, run) = (job.steps.get(index)?, job.runs.get(index)?);
            let took = took(run.started_at, &run.phase);
            match end {
                StepEnd::Done {
                    changed: true,
                    detail,
                } => line(
                    format!("✔ {}{took}{}", spec.title, dash(detail)),
                    Tone::Good,
                ),
                StepEnd::Done {
                    changed: false,
                    detail,
                } => line(format!("· {}{took}{}", spec.title, dash(detail)), Tone::Dim),
                other => {
                    let why = trouble(other).unwrap_or_default();
                    line(format!("✘ {}{took} – {why}", spec.title), Tone::Bad)
                }
            }
        }
        JobEvent::UndoEnded { step, end, .. } => {
            let spec = job.steps.get(step.0 as usize)?;
            let how = trouble(end).unwrap_or_else(|| "done".to_owned());
            line(format!("↩ undo {}: {how}", spec.title), Tone::Warn)
        }
        JobEvent::Held { why, .. } => line(format!("⏸ held: {why}"), Tone::Warn),
        JobEvent::HoldReleased => line("▶ goes on".to_owned(), Tone::Plain),
        JobEvent::CancelRequested { by } => line(format!("{by} asked to cancel"), Tone::Warn),
        JobEvent::Created { .. }
        | JobEvent::Leased { .. }
        | JobEvent::StepStarted { .. }
        | JobEvent::Evidence { .. }
        | JobEvent::UndoStarted { .. }
        | JobEvent::Finished { .. } => None,
    }
}

fn dash(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" – {detail}")
    }
}

fn took(started: Option<Timestamp>, phase: &StepPhase) -> String {
    match (started, phase) {
        (Some(started), StepPhase::Ended { at, .. } | StepPhase::Undone { at, .. }) => {
            let took = at.duration_since(started);
            if took < SignedDuration::from_millis(100) {
                String::new()
            } else {
                format!(" ({})", duration(took))
            }
        }
        _ => String::new(),
    }
}

/// Every step of a job, for `job ID`.
pub fn steps_table(job: &Job) -> Table {
    let mut table = Table::new(&["step", "what", "state", "since start"]);
    for (step, run) in job.steps.iter().zip(&job.runs) {
        let (word, tone) = match &run.phase {
            StepPhase::Waiting => ("waits".to_owned(), Tone::Dim),
            StepPhase::Running { .. } => ("runs".to_owned(), Tone::Warn),
            StepPhase::Undoing { .. } => ("is undone".to_owned(), Tone::Warn),
            StepPhase::Undone { .. } => ("undone".to_owned(), Tone::Warn),
            StepPhase::Ended {
                end: StepEnd::Done { changed, .. },
                ..
            } => (
                if *changed { "changed" } else { "was so" }.to_owned(),
                Tone::Good,
            ),
            StepPhase::Ended { end, .. } => (trouble(end).unwrap_or_default(), Tone::Bad),
        };
        let at = run
            .started_at
            .map(|at| format!("+{}", duration(at.duration_since(job.created_at))))
            .unwrap_or_default();
        table.row([
            step.id.to_string().into(),
            step.title.clone().into(),
            Cell::new(word, tone),
            at.into(),
        ]);
    }
    table
}
