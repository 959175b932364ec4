//! The shell: alerts and timers in, jobs and news out. It reads the world, asks the pure parts, and does what they say.
//!
//! One task owns the incidents. Evidence is gathered beside it, jobs run beside it, and both report back; so nothing that is slow
//! keeps an alert, an approval or a halt waiting. Everything that must survive is in the records or in the journal before it counts.

pub(crate) mod case;
mod evaluate;
mod flaps;
mod gatekeeper;
mod jobs;
mod lines;
mod pace;
mod ports;
mod regroup;
mod restore;
mod run;
mod settings;
mod sighting;
mod starts;
mod step_gate;

#[cfg(test)]
mod correlation_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod steady_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use evaluate::{DecisionRecord, Evaluated};
pub use ports::{
    EngineJobs, Jobs, Metrics, MonitoringLost, News, Ports, RecordError, Records, Silences, Tell,
    Vitals,
};
pub use run::{Healer, HealerHandle, Order, OrderError};
pub use settings::HealSettings;
pub use sighting::Sighting;
pub use step_gate::{HealGate, StepJudgement};
