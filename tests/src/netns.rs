//! Network namespaces: entering the lab's one, so that tests and the bot reach the hosts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{IoContext, LabError, Result};
use crate::names::{Host, LabName};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Namespace with the lab's bridge: the management side.
pub(crate) fn lab_netns(lab: &LabName) -> String {
    format!("nslab-{lab}")
}

/// Namespace of one host.
pub(crate) fn host_netns(lab: &LabName, host: Host) -> String {
    format!("nslab-{lab}-{host}")
}

pub(crate) fn path(netns: &str) -> PathBuf {
    Path::new(NAMES).join(netns)
}

/// `program` as a command inside the namespace.
pub(crate) fn command(netns: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", path(netns).display()))
        .arg("--")
        .arg(program);
    command
}

/// Moves the calling thread into the namespace, for good. Threads and programs that it starts later
/// are inside too; threads that exist already are not.
pub(crate) fn enter(netns: &str) -> Result<()> {
    let path = path(netns);
    let file = File::open(&path).at("open the network namespace", &path)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .at("enter the network namespace", &path)
}

/// Runs `work` on a new thread inside the namespace and gives its result; a panic goes on in the caller.
pub(crate) fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter(netns).map(|()| work()));
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Names of the existing namespaces of this lab.
pub(crate) fn existing(lab: &LabName) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(NAMES) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(format!("read {NAMES}"))?,
    };
    let main = lab_netns(lab);
    let of_hosts = format!("{main}-");
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.doing(format!("read {NAMES}"))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name == main || name.starts_with(&of_hosts) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The namespace must exist: else the lab is not up.
pub(crate) fn require(lab: &LabName) -> Result<String> {
    let netns = lab_netns(lab);
    if path(&netns).exists() {
        return Ok(netns);
    }
    Err(LabError::refused(format!(
        "lab `{lab}` is not up (no network namespace {netns}): run `nightshift-lab --lab {lab} up`"
    )))
}
