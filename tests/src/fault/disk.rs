//! A full disk: all blocks of the host's bounded disk are taken by one file.

use std::time::Duration;

use super::{Fault, Folder};
use crate::command::Output;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::Host;

const FILL: &str = ".nightshift-lab-fill";
const PROBE: &str = ".nightshift-lab-probe";
/// Left by the quick allocation, for the file system's own tables; then filled by writing.
const MARGIN_BYTES: u64 = 4 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn fill(lab: &Lab, host: Host, folder: &Folder) -> Result<()> {
    let name = host.name();
    let kind = lab.ssh_ok(&name, &["stat", "-f", "-c", "%T", &folder.0])?;
    // A tmpfs is the machine's memory; anything else was not made by the lab.
    if !["overlayfs", "ext2/ext3"].contains(&kind.trim()) {
        return Err(LabError::refused(format!(
            "{host}:{} is on {}, not on the host's disk",
            folder.0,
            kind.trim()
        )));
    }
    let free = lab.ssh_ok(&name, &["df", "--output=avail", "-B1", &folder.0])?;
    let free: u64 = free
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| LabError::refused(format!("{host}: df said {free:?}")))?;
    let file = inside(folder, FILL);
    if free > MARGIN_BYTES {
        let length = (free - MARGIN_BYTES).to_string();
        lab.ssh_ok(&name, &["fallocate", "-l", &length, &file])?;
    }
    // Ends with "No space left on device": that is its purpose.
    write_zeros(lab, host, &file, None)?;
    Ok(())
}

pub(super) fn verify_full(lab: &Lab, host: Host, fault: &Fault, folder: &Folder) -> Result<()> {
    let probe = probe(lab, host, folder)?;
    if !probe.status.success() && probe.stderr.contains("No space left on device") {
        return Ok(());
    }
    Err(LabError::NoEffect {
        fault: fault.to_string(),
        expected: "a write fails with `No space left on device`".to_owned(),
        found: format!("{}: {}", probe.status, probe.stderr.trim()),
    })
}

pub(super) fn free(lab: &Lab, host: Host, folder: &Folder) -> Result<()> {
    lab.ssh_ok(&host.name(), &["rm", "-f", &inside(folder, FILL)])?;
    let probe = probe(lab, host, folder)?;
    if probe.status.success() {
        return Ok(());
    }
    Err(LabError::refused(format!(
        "{host}:{} takes no write after the filling file was removed: {}",
        folder.0,
        probe.stderr.trim()
    )))
}

/// Tries to write 1 MiB.
fn probe(lab: &Lab, host: Host, folder: &Folder) -> Result<Output> {
    let file = inside(folder, PROBE);
    let output = write_zeros(lab, host, &file, Some("count=16"))?;
    lab.ssh_ok(&host.name(), &["rm", "-f", &file])?;
    Ok(output)
}

fn write_zeros(lab: &Lab, host: Host, file: &str, count: Option<&str>) -> Result<Output> {
    let to = format!("of={file}");
    let mut argv = vec!["env", "LC_ALL=C", "dd", "if=/dev/zero", &to, "bs=64k"];
    argv.extend(["oflag=append", "conv=notrunc,fsync"]);
    argv.extend(count);
    lab.ssh_limited(&host.name(), &argv, b"", LIMIT)
}

fn inside(folder: &Folder, file: &str) -> String {
    format!("{}/{file}", folder.0.trim_end_matches('/'))
}
