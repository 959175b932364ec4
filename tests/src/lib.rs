//! A lab of real Debian hosts on one machine, for tests, drills and the demo.

mod base;
pub mod bench;
mod cgroup;
mod command;
pub mod demo;
pub mod drill;
mod error;
mod fault;
mod keys;
mod lab;
pub mod layer;
mod lock;
mod machine;
mod mirror;
mod names;
mod netns;
mod network;
mod package_cache;
mod paths;
pub mod postgres;
mod preflight;
mod progress;
pub mod scenario;
mod ssh;
mod state;
pub mod synapse;
pub mod testing;
pub mod wait;

pub use command::Output;
pub use error::{LabError, Result};
pub use fault::{ActiveFault, CATALOGUE, Entry, Fault, Folder, Frozen, Mend, ProcessName, Unit};
pub use lab::{HostStatus, Lab, LabOptions};
pub use names::{Host, LabName, MANAGEMENT_ADDRESS, MAX_HOSTS, PREFIX_LENGTH};
pub use paths::{STORE_VARIABLE, Store};
pub use progress::{Phase, Progress};
pub use testing::{TestLab, in_lab, in_layered_lab};
