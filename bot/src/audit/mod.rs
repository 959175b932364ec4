//! The audit log: who did what, why, on which evidence. What proves that nobody changed it afterwards is pure and here; the rows
//! are in the store.

mod chain;
mod redact;

pub use chain::{Broken, Checker, Head, Kept, link};
pub use redact::Redactor;
