//! Faults of units and processes, from outside by control group and signal: the host's own systemd is
//! asked only where its answer is the check.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, ProcessName, Unit};
use crate::error::{IoContext, LabError, Result};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::names::Host;
use crate::wait;

/// Killed processes are gone at once, except from a long disk write.
const GONE_LIMIT: Duration = Duration::from_secs(15);
/// Systemd needs a moment to see that a unit's processes are gone.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const STOPPED_LIMIT: Duration = Duration::from_secs(5);

/// Kills all processes of the unit at once.
pub(super) fn kill(machine: &Machine, unit: &Unit) -> Result<()> {
    let group = group_of(machine, unit)?;
    let before = processes(&group);
    if before.is_empty() {
        return Err(not_running(machine, unit));
    }
    let file = group.join("cgroup.kill");
    fs::write(&file, "1").at("write", &file)?;
    wait::until(
        &format!("the end of {unit}'s processes"),
        GONE_LIMIT,
        || {
            // A restarted unit has other processes in the same group.
            let left: Vec<Pid> = processes(&group)
                .into_iter()
                .filter(|p| before.contains(p))
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("alive: {left:?}"))
            }
        },
    )
}

/// Makes every start of the unit fail, then kills it.
pub(super) fn hold_down(lab: &Lab, machine: &Machine, unit: &Unit) -> Result<()> {
    let host = machine.host.name();
    if systemd_property(lab, machine.host, unit, "LoadState")? != "loaded" {
        return Err(LabError::refused(format!("{host} has no unit {unit}")));
    }
    let (folder, file) = drop_in(unit);
    lab.ssh_ok(&host, &["mkdir", "-p", &folder])?;
    // Without `Restart=no` a restart that is still to come would succeed as soon as the unit is let go.
    let text = b"# The lab holds this unit down.\n[Service]\nExecStartPre=\nExecStartPre=/bin/false\nRestart=no\n";
    let output = lab.ssh_limited(&host, &["tee", &file], text, GONE_LIMIT)?;
    if !output.status.success() {
        return Err(LabError::refused(format!(
            "{host}: {file}: {}",
            output.stderr
        )));
    }
    lab.ssh_ok(&host, &["systemctl", "daemon-reload"])?;
    match kill(machine, unit) {
        // Not running is as good as killed here.
        Ok(()) | Err(LabError::Refused(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// A held unit has no process and does not start.
pub(super) fn verify_held(lab: &Lab, machine: &Machine, fault: &Fault, unit: &Unit) -> Result<()> {
    let host = machine.host.name();
    let start = lab.ssh(&host, &["systemctl", "start", &unit.0])?;
    if start.status.success() {
        return Err(LabError::NoEffect {
            fault: fault.to_string(),
            expected: format!("`systemctl start {unit}` fails"),
            found: "it succeeded".to_owned(),
        });
    }
    wait::until(&format!("{unit} to be down for good"), SETTLE_LIMIT, || {
        let property =
            |name| systemd_property(lab, machine.host, unit, name).map_err(|e| e.to_string());
        let (pid, state) = (property("MainPID")?, property("ActiveState")?);
        // `activating` is a restart that is still to come.
        if pid == "0" && ["failed", "inactive"].contains(&state.as_str()) {
            Ok(())
        } else {
            Err(format!("{state}, main process {pid}"))
        }
    })
}

/// Lets the unit start again; leaves it as it is.
pub(super) fn release(lab: &Lab, host: Host, unit: &Unit) -> Result<()> {
    let (folder, file) = drop_in(unit);
    let host = host.name();
    lab.ssh_ok(&host, &["rm", "-f", &file])?;
    // Not there, or others' drop-ins in it: stays as it is. Never the folders above: systemctl needs them.
    lab.ssh(&host, &["rmdir", &folder])?;
    lab.ssh_ok(&host, &["systemctl", "daemon-reload"])?;
    // Not failed, so nothing to reset: no error of ours.
    lab.ssh(&host, &["systemctl", "reset-failed", &unit.0])?;
    let left = systemd_property(lab, host.parse()?, unit, "DropInPaths")?;
    if left.contains(&file) {
        return Err(LabError::refused(format!(
            "{host}: {unit} still has {file}"
        )));
    }
    Ok(())
}

/// In `/run`, which is above the unit's own file wherever that lies, and gone after a boot.
fn drop_in(unit: &Unit) -> (String, String) {
    let folder = format!("/run/systemd/system/{unit}.d");
    let file = format!("{folder}/zz-nightshift-lab.conf");
    (folder, file)
}

/// The unit's control group as seen from the machine.
pub(super) fn group_of(machine: &Machine, unit: &Unit) -> Result<PathBuf> {
    find(&machine.inner_group(), &unit.0).ok_or_else(|| not_running(machine, unit))
}

fn not_running(machine: &Machine, unit: &Unit) -> LabError {
    LabError::refused(format!("{unit} does not run on {}", machine.host))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = || {
        let entries = fs::read_dir(folder).ok()?;
        Some(
            entries
                .filter_map(|e| e.ok())
                .map(|e| e.path())
                .filter(|p| p.is_dir()),
        )
    };
    folders()?
        .find(|path| path.file_name().is_some_and(|n| n == name))
        .or_else(|| folders()?.find_map(|path| find(&path, name)))
}

/// Process ids (of the machine) in the group and below.
fn processes(group: &Path) -> Vec<Pid> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<Pid> = own
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect();
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.filter_map(|e| e.ok()) {
            if entry.path().is_dir() {
                pids.extend(processes(&entry.path()));
            }
        }
    }
    pids
}

/// Stops (or continues) all processes of the host with this name, and waits until the kernel shows it.
pub(super) fn stop_processes(machine: &Machine, name: &ProcessName, stop: bool) -> Result<()> {
    let named = || -> Vec<Pid> {
        let all = processes(&machine.inner_group());
        all.into_iter()
            .filter(|&pid| proc_file(pid, "comm").trim_end() == name.0)
            .collect()
    };
    let pids = named();
    if pids.is_empty() && stop {
        return Err(LabError::refused(format!(
            "no process `{}` runs on {}",
            name.0, machine.host
        )));
    }
    let signal = if stop { Signal::STOP } else { Signal::CONT };
    for pid in pids {
        // One that ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
    wait::until(
        &format!("stopped = {stop} for `{}`", name.0),
        STOPPED_LIMIT,
        || {
            let states: Vec<char> = named().into_iter().map(state).collect();
            if states.iter().all(|&s| (s == 'T') == stop) {
                Ok(())
            } else {
                Err(format!("states {states:?}"))
            }
        },
    )
}

/// The state letter of `proc(5)`; it follows the name in parentheses.
fn state(pid: Pid) -> char {
    let stat = proc_file(pid, "stat");
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
        .unwrap_or('?')
}

fn proc_file(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default()
}

fn systemd_property(lab: &Lab, host: Host, unit: &Unit, property: &str) -> Result<String> {
    let argument = format!("--property={property}");
    let text = lab.ssh_ok(
        &host.name(),
        &["systemctl", "show", "--value", &argument, &unit.0],
    )?;
    Ok(text.trim().to_owned())
}
