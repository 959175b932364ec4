//! The bot: chat, rights, store, web and the wiring of everything else.
#![recursion_limit = "256"] // matrix-sdk's futures are deep

pub mod answer;
pub mod audit;
pub mod bot;
mod care;
pub mod chat;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod halt;
pub mod heal;
mod heartbeat;
pub mod jobs;
pub mod leases;
pub mod lock;
pub mod logs;
pub mod pace;
pub mod replicas;
pub mod rights;
pub mod serve;
pub mod sources;
pub mod store;
pub mod web;
pub mod wording;
