//! A program to run on a host: an argument vector, never a shell line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One program run with limits. `argv[0]` is looked up in the agent's fixed `PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub argv: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// The user to run as; root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub timeout_seconds: u32,
    /// Bytes kept of each output stream: the first half and the last half of what came.
    pub output_limit_bytes: u32,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Killed by the agent because its time was up.
    TimedOut,
    /// There is no such program on the host.
    NotFound,
}

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutput {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    /// True when output was dropped from the middle to stay within the limit.
    pub truncated: bool,
    pub took_ms: u64,
}

impl CommandOutput {
    pub fn ok(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}
