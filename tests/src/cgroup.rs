//! The lab's own control groups: what runs in them is the lab's, and nothing else is ever killed.
//!
//! Everything stands under `nightshift-lab/` of the version 2 hierarchy (`/sys/fs/cgroup`, or
//! `/sys/fs/cgroup/unified` on a hybrid machine), where `cgroup.kill` and `cgroup.freeze` act on a whole
//! subtree at once. On a hybrid machine the same folders are made in the version 1 hierarchies, so that
//! a host's systemd sees its own root in each of them and none of the machine's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{IoContext, LabError, Result};
use crate::wait;

const TOP: &str = "nightshift-lab";
/// From `SIGKILL` to an empty group: a process in a long disk write ends late.
const EMPTY_LIMIT: Duration = Duration::from_secs(30);
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// Moves itself into the given groups and becomes the given program: between start and move nothing
/// can be left outside. Arguments: number of groups, their folders, program and its arguments.
const ENTER: &str = r#"
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 > "$1/cgroup.procs" || exit 97; shift; n=$((n-1)); done
exec "$@"
"#;

/// The control group hierarchies of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    v2: PathBuf,
    v1: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds the hierarchies; refuses a machine without version 2 (nothing there kills a group at once).
    pub fn find() -> Result<Cgroups> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path).at("read", path)?;
        parse(&mounts).ok_or_else(|| {
            LabError::Missing(vec!["cgroup v2, mounted below /sys/fs/cgroup".to_owned()])
        })
    }

    /// The folders of group `name` (relative, such as `demo/ctl1`) in all hierarchies, version 2 first.
    pub fn folders(&self, name: &str) -> Vec<PathBuf> {
        std::iter::once(&self.v2)
            .chain(&self.v1)
            .map(|root| root.join(TOP).join(name))
            .collect()
    }

    pub fn v2(&self, name: &str) -> PathBuf {
        self.v2.join(TOP).join(name)
    }

    pub fn create(&self, name: &str) -> Result<()> {
        self.folders(name)
            .iter()
            .try_for_each(|folder| fs::create_dir_all(folder).at("create", folder))
    }

    /// `program` as a command that starts inside group `name` in its own session, in the background:
    /// the command itself ends at once, the program has no parent to wait for it.
    pub fn daemon(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("setsid");
        command.args(["--fork", "sh", "-c", ENTER, "lab-enter"]);
        self.enter(command, name, program)
    }

    /// `program` as a command that runs inside group `name`.
    pub fn inside(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "lab-enter"]);
        self.enter(command, name, program)
    }

    fn enter(&self, mut command: Command, name: &str, program: &str) -> Command {
        let folders = self.folders(name);
        command
            .arg(folders.len().to_string())
            .args(folders)
            .arg(program);
        command
    }

    /// Whether a process lives in the group or below.
    pub fn populated(&self, name: &str) -> bool {
        event(&self.v2(name), "populated") == Some(true)
    }

    /// Kills all processes of the group and below at once, and waits until they are gone.
    pub fn kill(&self, name: &str) -> Result<()> {
        let folder = self.v2(name);
        if !folder.exists() {
            return Ok(());
        }
        let file = folder.join("cgroup.kill");
        fs::write(&file, "1").at("write", &file)?;
        wait::until(
            &format!("the end of all in {name}"),
            EMPTY_LIMIT,
            || match event(&folder, "populated") {
                Some(true) => Err("processes still alive".to_owned()),
                Some(false) | None => Ok(()),
            },
        )
    }

    /// Freezes (or thaws) the group `name` or a folder below, and waits until the kernel confirms it.
    pub fn freeze(&self, folder: &Path, frozen: bool) -> Result<()> {
        let file = folder.join("cgroup.freeze");
        fs::write(&file, if frozen { "1" } else { "0" }).at("write", &file)?;
        wait::until(
            &format!("frozen = {frozen}"),
            FREEZE_LIMIT,
            || match event(folder, "frozen") {
                Some(now) if now == frozen => Ok(()),
                other => Err(format!("frozen = {other:?} in {}", folder.display())),
            },
        )
    }

    /// Removes the empty group with all below it, in every hierarchy.
    pub fn remove(&self, name: &str) -> Result<()> {
        for folder in self.folders(name) {
            wait::until(
                &format!("the removal of {}", folder.display()),
                EMPTY_LIMIT,
                || remove_tree(&folder).map_err(|e| e.to_string()),
            )?;
        }
        // The common parent goes with the last lab; another lab in it is no error.
        for top in self.folders("") {
            let _ = fs::remove_dir(top);
        }
        Ok(())
    }
}

fn event(folder: &Path, key: &str) -> Option<bool> {
    let text = fs::read_to_string(folder.join("cgroup.events")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse::<u8>().ok())
        .map(|value| value == 1)
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads `/proc/self/mountinfo`; `None` without a version 2 hierarchy below `/sys/fs/cgroup`.
fn parse(mountinfo: &str) -> Option<Cgroups> {
    let mut v2 = None;
    let mut v1 = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        if !point.starts_with("/sys/fs/cgroup") {
            continue;
        }
        let mut fields = right.split(' ');
        match fields.next() {
            Some("cgroup2") => v2 = Some(PathBuf::from(point)),
            // A version 1 cpuset takes no process before its processors are assigned; hosts need none.
            Some("cgroup") if !point.contains("cpuset") => v1.push(PathBuf::from(point)),
            _ => {}
        }
    }
    v2.map(|v2| Cgroups { v2, v1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "31 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const HYBRID: &str = "25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:23 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn finds_the_hierarchies_of_both_kinds_of_machine() {
        let unified = parse(UNIFIED).unwrap();
        assert_eq!(
            unified.folders("a/ctl1"),
            [PathBuf::from("/sys/fs/cgroup/nightshift-lab/a/ctl1")]
        );
        let hybrid = parse(HYBRID).unwrap();
        assert_eq!(
            hybrid.folders("a"),
            [
                PathBuf::from("/sys/fs/cgroup/unified/nightshift-lab/a"),
                PathBuf::from("/sys/fs/cgroup/systemd/nightshift-lab/a"),
            ]
        );
    }

    #[test]
    fn refuses_a_machine_with_version_1_only() {
        assert!(parse("27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory").is_none());
    }
}
