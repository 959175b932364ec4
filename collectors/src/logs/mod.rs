//! Lines of logs as evidence: which ones mean something ([`signature`]), how many of them are one [`reading`], and how a store of
//! logs is read so that none is skipped or counted twice ([`cursor`], [`mod@poll`]).
//!
//! A line is what a program wrote at some time: never enough by itself, and that there is none proves nothing.

pub mod cursor;
pub mod page;
pub mod poll;
pub mod reading;
pub mod signature;

use jiff::Timestamp;

pub use cursor::{Cursor, Window};
pub use poll::{Count, Page, Polled, Shelf, poll};
pub use reading::Standing;
pub use signature::{Fold, Pattern, Severity, Signature, Signatures};

/// Of one line, in bytes: the rest is neither looked at nor shown. Real ones are a few hundred bytes, tracebacks a few thousand.
pub const LINE_LIMIT_BYTES: usize = 16 * 1024;
/// Of a host's or program's name in a line, in bytes.
pub(crate) const NAME_LIMIT_BYTES: usize = 128;

/// One line, as a store of logs gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it came into the order in which the store is read: its own time, or that of its ingestion.
    pub order: Timestamp,
    /// When the program wrote it, by the clock of its host.
    pub at: Timestamp,
    /// When the store took it in, where it tells that.
    pub ingested: Option<Timestamp>,
    /// As its host calls itself; tamed.
    pub host: String,
    /// Tamed.
    pub program: String,
    /// Tamed; empty where the program tells none.
    pub level: String,
    /// At most [`LINE_LIMIT_BYTES`], as it was written: to be tamed before anybody sees it.
    pub text: String,
}

impl Line {
    /// The text as people may see it, in at most so many bytes.
    pub fn shown(&self, limit_bytes: usize) -> String {
        crate::label::tame(self.text.trim(), limit_bytes)
    }
}

/// The start of a text, at most so many bytes, cut between characters.
pub(crate) fn cut(text: &str, limit_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(limit_bytes)]
}
