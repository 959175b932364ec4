//! From an alert to a proven repair: runbooks, incidents, evidence, gates, decisions, and the jobs they become.
//!
//! Everything that decides is pure: `matching`, `incident`, `decision`, `gate`, `budget`, `compile`, `decide`. The shell is
//! `healer`, behind ports. The crate knows nothing of chat or stores.

pub mod alerts;
pub mod budget;
pub mod compile;
pub mod decide;
pub mod decision;
pub mod explain;
pub mod format;
pub mod gate;
pub mod healer;
pub mod incident;
pub mod library;
pub mod log_lines;
pub mod matching;
pub mod never;
pub mod replay;
pub mod signatures;
pub mod storm;
pub mod topology;
pub mod trust;
