//! The bot's commands, rights and words, as they stand in `bot/src`.

#[path = "../../../bot/src/command/mod.rs"]
pub mod command;
#[path = "../../../bot/src/rights/mod.rs"]
pub mod rights;
#[path = "../../../bot/src/wording/mod.rs"]
pub mod wording;
