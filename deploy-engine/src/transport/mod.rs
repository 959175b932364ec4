//! The way to hosts: one SSH session and one agent process a host, many requests at once over it.
//!
//! [`Hosts`] is what the rest of the engine sees; tests put their own behind it.

mod agent;
mod control;
mod conversation;
mod error;
mod live;
mod login;
mod secret;
mod ssh;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use agent::{AGENT, agent_path, agent_sha256};
pub use error::HostError;
pub use login::Target;
pub use secret::{Scrubber, Secrets};
pub use ssh::SshHosts;

use crate::{
    job::JobId,
    model::{HostName, Secs},
    wire::{
        Facts, Fence, Observation, Outcome, Probe, ProbeResult, Progress, Resource, StepKey,
        StepStatus, Work,
    },
};

/// What to learn of a host in one exchange. Changes nothing there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observe {
    pub facts: bool,
    pub resources: Vec<Resource>,
    /// Name of the question → question; the answer comes under the same name.
    pub probes: BTreeMap<String, Probe>,
}

/// What one exchange learned. One observation a resource, in their order; one result a probe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub facts: Option<Facts>,
    pub observations: Vec<Observation>,
    pub probes: BTreeMap<String, ProbeResult>,
}

/// Asks hosts and has work done on them. Texts hold secret references on both sides of this trait.
#[async_trait]
pub trait Hosts: Send + Sync {
    async fn observe(&self, host: &HostName, ask: Observe) -> Result<Observed, HostError>;

    /// Has `work` done once under `key` and waits for its outcome, across reconnections. A key that the host knows is attached to.
    /// An error says nothing about the work but [`HostError::NotStarted`], [`HostError::UnknownSecret`] and
    /// [`HostError::UnknownHost`], which mean that nothing was sent: after any other, [`Hosts::ask`].
    async fn start(
        &self,
        host: &HostName,
        key: StepKey,
        fence: Fence,
        work: Work,
        timeout: Secs,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError>;

    /// What the host remembers of a step.
    async fn ask(&self, host: &HostName, key: &StepKey) -> Result<StepStatus, HostError>;

    /// Ends a running step; its outcome becomes [`Outcome::Cancelled`]. One that never started is called off: its outcome becomes
    /// [`Outcome::CalledOff`], and an order that arrives later begins nothing. Refused when the host knows a newer fence.
    async fn cancel(&self, host: &HostName, key: &StepKey, fence: &Fence) -> Result<(), HostError>;

    /// Drops what the host remembers of a finished job. `fence` is the job's last one: the host refuses it from now on, so that
    /// nothing of the job that is still under way can begin.
    async fn forget(&self, host: &HostName, job: &JobId, fence: &Fence) -> Result<(), HostError>;
}
