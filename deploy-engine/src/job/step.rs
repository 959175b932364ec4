//! One step of a job.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    condition::ConditionCall,
    model::{HostName, Secs, ServiceName},
    probe::Ask,
    wire,
};

/// Position of a step in its job, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What repeating a step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing; may be repeated freely.
    Observe,
    /// Idempotent; may be run again after it was lost.
    Converge,
    /// Must not happen twice: after a loss its `unless` condition decides, else a human.
    Once,
}

/// What a step does. Recorded whole in the journal; secrets are references only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Work on one host, through its agent and spool.
    Host { host: HostName, work: wire::Work },
    /// A condition over one or more hosts.
    Check {
        condition: ConditionCall,
        mode: CheckMode,
    },
    /// Readings kept in the journal before anything is changed (gate G9).
    Snapshot { asks: Vec<Ask> },
    /// A journal state, not a sleeping task: `seconds` from the event that started it.
    Wait { seconds: Secs, why: String },
    /// The steps of some hosts as a job of its own ([`Job::batch_id`](super::Job::batch_id)), which any bot drives that read the
    /// same `model`. See [`share_out`](super::share_out).
    Batch {
        number: u32,
        model: String,
        steps: Vec<Step>,
    },
}

impl Action {
    /// The hosts that it works on or asks; none of a batch, whose own job names them.
    pub fn hosts(&self) -> Vec<&HostName> {
        match self {
            Self::Host { host, .. } => vec![host],
            Self::Check { condition, .. } => condition.hosts.iter().collect(),
            Self::Snapshot { asks } => asks.iter().map(|ask| &ask.host).collect(),
            Self::Wait { .. } | Self::Batch { .. } => Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum CheckMode {
    /// Holds now, or the step fails: a guard.
    Now,
    /// Comes to hold before the deadline: a health gate.
    Within { deadline: Secs },
    /// Comes to hold before the deadline and then holds through the whole settle time: a proof.
    Settled { settle: Secs, deadline: Secs },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: StepId,
    /// For people, for example `restart mariadb on ctl2`.
    pub title: String,
    pub service: Option<ServiceName>,
    pub action: Action,
    pub effect: Effect,
    /// Steps that must have succeeded first. Nothing else orders steps.
    pub needs: Vec<StepId>,
    /// The whole step, in seconds.
    pub timeout: Secs,
    /// Must hold immediately before the action, in the same breath (gate G11). Not holding: the step fails, nothing is done.
    #[serde(default)]
    pub guards: Vec<ConditionCall>,
    /// If it already holds, the step is done without acting.
    #[serde(default)]
    pub unless: Option<ConditionCall>,
    /// Undoes a step that ran or failed half-way; re-runnable.
    #[serde(default)]
    pub undo: Option<Action>,
}
