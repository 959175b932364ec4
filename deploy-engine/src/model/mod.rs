//! Site, catalogue and what follows from both: which service runs where, with which settings.

mod name;

pub use name::{HostName, Secs, ServiceName};
