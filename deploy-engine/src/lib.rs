//! The deployment engine: site and service files, plans, jobs, and the agent that acts on hosts.
//!
//! Pure parts decide (`model`, `plan`, `job`, `condition`, `probe` parsers); thin shells act (`transport`, `runner`).
//! The crate knows nothing of alerts, runbooks or chat.
#![doc(test(attr(deny(warnings))))]

pub mod agent;
mod impstats;
pub mod wire;

#[cfg(feature = "engine")]
pub mod condition;
#[cfg(feature = "engine")]
pub mod job;
#[cfg(feature = "engine")]
pub mod logic;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "engine")]
pub mod plan;
#[cfg(feature = "engine")]
mod planted;
#[cfg(feature = "engine")]
pub mod probe;
#[cfg(feature = "engine")]
pub mod runner;
#[cfg(feature = "engine")]
pub mod secrets;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
#[cfg(feature = "engine")]
pub mod transport;
