//! What really happened on hosts, whatever anybody was told. The invariants are checked against it.

use jiff::Timestamp;

use crate::{
    job::{JobId, StepId},
    model::HostName,
    wire::StepKey,
};

#[derive(Clone, Debug)]
pub struct Fact {
    pub at: Timestamp,
    pub host: HostName,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// The host took a new key under this fencing number.
    Admitted { scope: String, token: u64 },
    /// The host refused an order under an old fencing number.
    Fenced,
    /// A worker began to act. `sent_at`: when a bot handed the order to the network.
    Started {
        key: StepKey,
        scope: String,
        token: u64,
        bot: usize,
        sent_at: Timestamp,
    },
    /// The first half of what it does to the world.
    Touched { key: StepKey },
    /// It does nothing to the world any more.
    Stopped { key: StepKey },
    /// A condition was judged by a bot. `holds`: what the bot was told.
    Judged {
        bot: usize,
        condition: String,
        holds: bool,
    },
}

/// Which step, which undo and which attempt a key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyParts {
    pub step: StepId,
    pub undo: bool,
    pub attempt: u32,
}

/// The parts of a key of this job.
pub fn parts(job: &JobId, key: &StepKey) -> Option<KeyParts> {
    let (step, attempt) = key
        .0
        .strip_prefix(job.0.as_str())?
        .strip_prefix('.')?
        .split_once('.')?;
    let (undo, attempt) = match attempt.strip_prefix('u') {
        Some(attempt) => (true, attempt),
        None => (false, attempt),
    };
    Some(KeyParts {
        step: StepId(step.parse().ok()?),
        undo,
        attempt: attempt.parse().ok()?,
    })
}
