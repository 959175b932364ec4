//! The journal's words. Append-only; a job's state is a fold over them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Step, StepId};
use crate::{probe::Readings, wire};

/// Time-ordered, letters and digits only: it is part of step keys on hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    Deploy {
        plan_digest: String,
    },
    Heal {
        incident: String,
        runbook: String,
    },
    /// Some hosts of the deploy `of`, for a bot that read the same `model`.
    Batch {
        of: JobId,
        model: String,
    },
}

/// How one attempt at a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum StepEnd {
    /// `changed` false: it was so already.
    Done {
        changed: bool,
        detail: String,
    },
    /// A guard, gate or condition said no; nothing was done by this step.
    Refused {
        why: String,
    },
    /// Host, command, exit, last output and last probe in `what`, ready for people.
    Failed {
        what: String,
    },
    /// The world is not as the plan saw it.
    Drifted {
        what: String,
    },
    /// What it did is unknown: only observation can tell.
    Lost {
        why: String,
    },
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum JobResult {
    Succeeded,
    Failed {
        why: String,
    },
    Cancelled {
        by: String,
    },
    /// A gate refused before or between steps.
    Refused {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    Created {
        kind: JobKind,
        title: String,
        requested_by: String,
        scope: String,
        steps: Vec<Step>,
    },
    /// A bot took the job, with this fencing token. Later events with a lower token are illegal.
    Leased {
        holder: String,
        token: u64,
    },
    /// Intent, before the act.
    StepStarted {
        step: StepId,
        attempt: u32,
    },
    /// Evidence read by a snapshot or a check, worth keeping.
    Evidence {
        step: StepId,
        readings: Readings,
    },
    StepEnded {
        step: StepId,
        attempt: u32,
        end: StepEnd,
    },
    UndoStarted {
        step: StepId,
        attempt: u32,
    },
    UndoEnded {
        step: StepId,
        attempt: u32,
        end: StepEnd,
    },
    /// A gate holds the job until then (or until it is asked again).
    Held {
        until: Option<jiff::Timestamp>,
        why: String,
    },
    HoldReleased,
    CancelRequested {
        by: String,
    },
    Finished {
        result: JobResult,
    },
}

impl JobEvent {
    /// An act, or a word to people, follows from it at once: so it is on the disk before a journal says that it is written
    /// (ADR 13). Whatever else there is, such an event comes after it: a lease and evidence count from the intent that follows
    /// them, and after a power cut a host is asked for an outcome that was lost.
    pub fn is_acted_on(&self) -> bool {
        match self {
            // Somebody is told that it was taken. A repair is made again from its incident.
            Self::Created { kind, .. } => matches!(kind, JobKind::Deploy { .. }),
            Self::StepStarted { .. }
            | Self::UndoStarted { .. }
            | Self::CancelRequested { .. }
            | Self::Finished { .. } => true,
            Self::Leased { .. }
            | Self::Evidence { .. }
            | Self::StepEnded { .. }
            | Self::UndoEnded { .. }
            | Self::Held { .. }
            | Self::HoldReleased => false,
        }
    }
}

/// What an agent reported while a step ran: for progress bars, not for the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct StepProgress {
    pub job: JobId,
    pub step: StepId,
    pub progress: wire::Progress,
}
