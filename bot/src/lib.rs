//! The bot: chat, rights, store, web and the wiring of everything else.
#![recursion_limit = "256"] // matrix-sdk's futures are deep

pub mod answer;
pub mod bot;
pub mod chat;
pub mod command;
pub mod config;
pub mod halt;
pub mod jobs;
pub mod rights;
pub mod store;
pub mod wording;
