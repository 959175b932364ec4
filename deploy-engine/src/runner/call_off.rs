//! Calling a step off: from then on its host does not begin it, however late an order arrives that is still under way.
//!
//! A host that says "never started" speaks of that moment only: the order may be stuck in a connection that broke, and arrive
//! after the journal has gone on. So nothing that was once sent is given up without this.

use std::time::Duration;

use jiff::SignedDuration;

use super::ports::Clock;
use crate::{
    model::HostName,
    transport::Hosts,
    wire::{Fence, Outcome, StepKey, StepStatus},
};

/// How long a host may be out of reach, or take to end what runs, before nobody knows: as long as an unreachable host is asked.
const CALL_OFF_LIMIT: SignedDuration = SignedDuration::from_secs(30);

/// Between two tries.
const CALL_OFF_PAUSE: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum CalledOff {
    /// It never began and never will.
    NeverBegan,
    /// It had begun; it is over now.
    Ended(Outcome),
    /// It may begin, or run on.
    Unknown { why: String },
}

pub async fn call_off(
    hosts: &dyn Hosts,
    clock: &dyn Clock,
    host: &HostName,
    key: &StepKey,
    fence: &Fence,
) -> CalledOff {
    let deadline = clock.now() + CALL_OFF_LIMIT;
    loop {
        let told = match hosts.cancel(host, key, fence).await {
            Ok(()) => hosts.ask(host, key).await,
            Err(error) => Err(error),
        };
        let why = match told {
            Ok(StepStatus::Finished {
                outcome: Outcome::CalledOff,
            }) => return CalledOff::NeverBegan,
            Ok(StepStatus::Finished { outcome }) => return CalledOff::Ended(outcome),
            Ok(StepStatus::Running { .. }) => format!("{host}: {key} does not end"),
            Ok(StepStatus::NeverStarted) => format!("{host}: {key} may still begin"),
            Err(error) => error.to_string(),
        };
        if clock.now() >= deadline {
            return CalledOff::Unknown { why };
        }
        clock.sleep(CALL_OFF_PAUSE).await;
    }
}
