//! Everything the bot says. Sentences are made by pure constructors; how they look is the business of [`render`].

mod message;
pub mod render;

pub use message::{Block, Cell, Message, Progress, Severity, Table, Tone};
