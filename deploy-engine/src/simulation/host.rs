//! One host: the agent's spool and fences as in `agent::{spool, fence, serve, worker}`, and the workers that run there.
//! A plain machine of events; its time is whatever the event says.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::deed::Deed;
use crate::{
    planted::{Bug, is_planted},
    wire::{Fence, Outcome, StepKey, StepStatus},
};

/// A step that was handed to this host.
#[derive(Clone, Debug)]
pub struct Order {
    pub line: String,
    pub fence: Fence,
    pub timeout_seconds: u32,
    pub bot: usize,
    pub sent_at: Timestamp,
}

/// What the agent keeps of a key, and the worker that has its lock.
pub struct Entry {
    /// None for a key that was called off.
    pub order: Option<Order>,
    pub started_at: Option<Timestamp>,
    pub cancel: bool,
    pub outcome: Option<Outcome>,
    pub worker: Option<Worker>,
}

pub struct Worker {
    pub id: u64,
    pub deed: Deed,
    /// When it will be over, if nothing comes between.
    pub ends_at: Timestamp,
    /// The worker itself was killed; the program that it started goes on and keeps the lock.
    pub orphaned: bool,
}

#[derive(Default)]
pub struct Host {
    fences: BTreeMap<String, u64>,
    pub spool: BTreeMap<StepKey, Entry>,
    pub down_until: Option<Timestamp>,
}

/// What the agent says to an order for a key that it does not know.
pub enum Admission {
    Admitted,
    Fenced { seen: u64 },
}

impl Host {
    pub fn is_down(&self, now: Timestamp) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }

    /// `Entry::status` of the agent.
    pub fn status(&self, key: &StepKey, now: Timestamp) -> StepStatus {
        let Some(entry) = self.spool.get(key) else {
            return StepStatus::NeverStarted;
        };
        if let Some(outcome) = &entry.outcome {
            return StepStatus::Finished {
                outcome: outcome.clone(),
            };
        }
        match (entry.started_at, &entry.worker) {
            (Some(at), Some(_)) => StepStatus::Running {
                since_seconds: now.duration_since(at).as_secs().unsigned_abs(),
            },
            (None, Some(_)) => StepStatus::Running { since_seconds: 0 },
            (Some(_), None) => StepStatus::Finished {
                outcome: Outcome::Lost {
                    why: "its worker ended without an outcome".into(),
                },
            },
            (None, None) => StepStatus::NeverStarted,
        }
    }

    /// `fence::admit` of the agent.
    pub fn admit(&mut self, fence: &Fence) -> Admission {
        let seen = self.fences.entry(fence.scope.clone()).or_default();
        if fence.token < *seen && !is_planted(Bug::OldFenceAccepted) {
            return Admission::Fenced { seen: *seen };
        }
        *seen = fence.token.max(*seen);
        Admission::Admitted
    }

    /// `Entry::claim` and the start of a worker.
    pub fn claim(&mut self, key: StepKey, order: Order, worker: Worker) {
        // What an earlier claim left stays: a cancellation, most of all.
        let cancel = self.spool.get(&key).is_some_and(|entry| entry.cancel);
        let entry = Entry {
            order: Some(order),
            started_at: None,
            cancel,
            outcome: None,
            worker: Some(worker),
        };
        self.spool.insert(key, entry);
    }

    /// `Server::cancel` of the agent. A running worker is yet to be told.
    pub fn cancel(&mut self, key: &StepKey, now: Timestamp) {
        match self.status(key, now) {
            StepStatus::NeverStarted => {
                let called_off = Entry {
                    order: None,
                    started_at: None,
                    cancel: false,
                    outcome: Some(Outcome::CalledOff),
                    worker: None,
                };
                self.spool.insert(key.clone(), called_off);
            }
            StepStatus::Running { .. } => {
                if let Some(entry) = self.spool.get_mut(key) {
                    entry.cancel = true;
                }
            }
            StepStatus::Finished { .. } => {}
        }
    }

    /// `Server::forget` of the agent.
    pub fn forget(&mut self, job: &str) {
        let prefix = format!("{job}.");
        self.spool
            .retain(|key, entry| !key.0.starts_with(&prefix) || entry.worker.is_some());
    }
}
