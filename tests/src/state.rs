//! What is remembered of a lab between commands: two small files, each replaced at once.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{IoContext, LabError, Result};
use crate::names::Host;

/// The lab as `up` made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabState {
    pub created: Timestamp,
    /// Key of the base below all hosts.
    pub base: String,
    /// Layers between base and the hosts' own disks, the topmost first.
    pub layers: Vec<String>,
    pub hosts: Vec<Host>,
}

/// Reads a JSON file; `None` if it does not exist.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at("read", path)?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| LabError::refused(format!("{} is damaged ({e}): run `down`", path.display())))
}

/// Replaces a JSON file at once: a reader sees the old or the new content, also after a crash.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let unfinished = path.with_extension("new");
    let text = serde_json::to_vec_pretty(value)
        .map_err(std::io::Error::from)
        .at("encode", path)?;
    fs::write(&unfinished, text).at("write", &unfinished)?;
    fs::rename(&unfinished, path).at("rename", &unfinished)
}
