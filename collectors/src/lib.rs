//! Sources of alerts and evidence: parse, fingerprint and fold what monitoring says, and know what it does not say.
//!
//! Decisions (`alert`, `flap`, `watchdog`, `blind`, the webhook parser) are pure; `prometheus` and
//! `alertmanager::AlertmanagerClient` are thin shells with time, size and retry limits. The crate knows nothing of hosts,
//! runbooks or jobs.

pub mod alert;
pub mod alertmanager;
pub mod api;
pub mod blind;
pub mod elasticsearch;
pub mod flap;
mod http;
pub mod icinga2;
mod label;
pub mod logs;
pub mod prometheus;
pub mod settle;
pub mod source;
pub mod watchdog;

pub use alert::{Alert, Change, SourceName, Status, fingerprint, fold};
pub use http::{Answer, SourceError};
