//! The command line's way to the running bot: HTTP over a Unix socket in the state directory.
//!
//! Who asks is what the kernel says of the other end. One request is one command; the answer is a stream of JSON lines
//! ([`Frame`]), so that whoever started a job sees it to its end.

mod client;
mod server;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{ClientError, ask};
pub use server::{own_user_name, serve, user_name};

use crate::{answer::Answer, chat::office::Update};

/// File in the state directory.
pub const SOCKET: &str = "control.sock";

pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET)
}

/// One command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// As in the chat, without the prefix.
    pub line: String,
    /// Stay until a job that it starts has ended.
    #[serde(default)]
    pub follow: bool,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum Frame {
    Answer {
        answer: Box<Answer>,
    },
    /// While a followed job runs.
    Update {
        update: Update,
    },
    /// The followed job has come to rest; always the last line then.
    Ended {
        ok: bool,
        how: String,
    },
}
