//! Site, catalogue and what follows from both: which service runs where, with which settings.

pub mod diagnostic;
pub mod document;
mod name;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::{Document, load_document, parse_document, schema};
pub use name::{HostName, Secs, ServiceName};
