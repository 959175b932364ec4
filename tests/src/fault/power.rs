//! Faults of a whole host, and freezing.

use std::time::Duration;

use super::{Fault, Frozen, unit};
use crate::error::{LabError, Result};
use crate::machine::Machine;

/// A host that is off or frozen gives no banner for this long.
const SILENT_FOR: Duration = Duration::from_millis(500);

pub(super) fn freeze(machine: &Machine, what: &Frozen) -> Result<()> {
    match what {
        Frozen::Host if !machine.powered() => {
            Err(LabError::refused(format!("{} is off", machine.host)))
        }
        Frozen::Host => machine.freeze(true),
        Frozen::Unit(unit) => machine
            .cgroups
            .freeze(&unit::group_of(machine, unit)?, true),
        Frozen::Process(name) => unit::stop_processes(machine, name, true),
    }
}

/// Thaws what is still there: a unit or process that ended meanwhile is not frozen any more.
pub(super) fn thaw(machine: &Machine, what: &Frozen) -> Result<()> {
    match what {
        Frozen::Host if !machine.powered() => Ok(()),
        Frozen::Host => {
            machine.freeze(false)?;
            machine.wait_for_sshd()
        }
        Frozen::Unit(unit) => match unit::group_of(machine, unit) {
            Ok(group) => machine.cgroups.freeze(&group, false),
            Err(_) => Ok(()),
        },
        Frozen::Process(name) => unit::stop_processes(machine, name, false),
    }
}

/// No answer from the host's sshd.
pub(super) fn verify_silent(machine: &Machine, fault: &Fault) -> Result<()> {
    if !machine.sshd_answers_within(SILENT_FOR)? {
        return Ok(());
    }
    Err(LabError::NoEffect {
        fault: fault.to_string(),
        expected: format!("no answer from {}", machine.host),
        found: "its sshd answers".to_owned(),
    })
}
