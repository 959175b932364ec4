//! Applying, checking and mending faults, and the record of those that last.
//!
//! The record is written before anything is broken, so that `mend all` also mends what a killed
//! program broke half-way.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CATALOGUE, Fault, Frozen, disk, network, power, unit};
use crate::cgroup::Cgroups;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::Host;
use crate::state;

/// A fault that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveFault {
    /// Number within the lab.
    pub id: u32,
    pub fault: Fault,
    pub since: Timestamp,
}

/// Which faults to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    All,
    Id(u32),
    /// All of one kind, by its name in [`CATALOGUE`].
    Named(String),
}

impl FromStr for Mend {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Mend> {
        if text == "all" {
            return Ok(Mend::All);
        }
        if let Ok(id) = text.parse() {
            return Ok(Mend::Id(id));
        }
        if CATALOGUE.iter().any(|entry| entry.name == text) {
            return Ok(Mend::Named(text.to_owned()));
        }
        Err(LabError::refused(format!(
            "mend `{text}`: expected `all`, the number of an active fault or a fault's name"
        )))
    }
}

impl Mend {
    fn covers(&self, fault: &ActiveFault) -> bool {
        match self {
            Mend::All => true,
            Mend::Id(id) => fault.id == *id,
            Mend::Named(name) => fault.fault.name() == name,
        }
    }
}

impl Lab {
    /// Applies a fault and makes sure that it took effect. Gives its record, or `None` for a fault that
    /// is over at once (`kill`).
    ///
    /// # Errors
    /// [`LabError::Refused`] if it makes no sense now (unknown host, unit not running), then nothing was
    /// changed; [`LabError::NoEffect`] if it had no effect, then it was taken back.
    pub fn fault(&self, fault: &Fault) -> Result<Option<ActiveFault>> {
        let _lock = self.lock()?;
        let cgroups = Cgroups::find()?;
        let hosts = self.hosts()?;
        for host in fault.hosts() {
            self.known_host(&host.name())?;
        }
        if let Fault::Kill { host, unit } = fault {
            return unit::kill(&self.machine(&cgroups, *host), unit).map(|()| None);
        }
        let mut active = self.faults()?;
        if let Some(same) = active.iter().find(|a| a.fault == *fault) {
            return Err(LabError::refused(format!(
                "fault `{fault}` lasts already, as number {}",
                same.id
            )));
        }
        let record = ActiveFault {
            id: active.iter().map(|a| a.id).max().unwrap_or(0) + 1,
            fault: fault.clone(),
            since: Timestamp::now(),
        };
        active.push(record.clone());
        state::write(&self.folder.faults(), &active)?;
        let applied = self.apply(&cgroups, &record, &active, &hosts);
        if applied.is_err() {
            self.mend_one(&cgroups, &record)?;
        }
        applied.map(|()| Some(record))
    }

    /// Faults that last now, in the order in which they came.
    pub fn faults(&self) -> Result<Vec<ActiveFault>> {
        Ok(state::read(&self.folder.faults())?.unwrap_or_default())
    }

    /// Mends the faults, the last first, and gives those mended. One that cannot be mended stays recorded
    /// and does not keep the others from being mended.
    pub fn mend(&self, which: &Mend) -> Result<Vec<ActiveFault>> {
        let _lock = self.lock()?;
        let cgroups = Cgroups::find()?;
        let mut chosen: Vec<ActiveFault> = self.faults()?;
        chosen.retain(|fault| which.covers(fault));
        if chosen.is_empty() && *which != Mend::All {
            return Err(LabError::refused(format!(
                "lab `{}` has no such fault active",
                self.name
            )));
        }
        // Nothing on a silent host can be mended before the host itself.
        chosen.reverse();
        chosen.sort_by_key(|active| active.fault.silences().is_none());
        let mut first_error = None;
        for fault in &chosen {
            if let Err(error) = self.mend_one(&cgroups, fault) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(chosen), Err)
    }

    fn apply(
        &self,
        cgroups: &Cgroups,
        record: &ActiveFault,
        active: &[ActiveFault],
        hosts: &[Host],
    ) -> Result<()> {
        let fault = &record.fault;
        match fault {
            Fault::Partition { .. } | Fault::Loss { .. } => {
                let all: Vec<&Fault> = active.iter().map(|a| &a.fault).collect();
                network::load(&self.name, &all)?;
                network::verify(&self.name, fault, &all, hosts)
            }
            Fault::Kill { host, unit } => unit::kill(&self.machine(cgroups, *host), unit),
            Fault::HoldDown { host, unit } => {
                let machine = self.machine(cgroups, *host);
                unit::hold_down(self, &machine, unit)?;
                unit::verify_held(self, &machine, fault, unit)
            }
            Fault::PowerCut { host } => {
                let machine = self.machine(cgroups, *host);
                machine.power_cut()?;
                power::verify_silent(&machine, fault)
            }
            Fault::Freeze { host, what } => {
                let machine = self.machine(cgroups, *host);
                power::freeze(&machine, what)?;
                match what {
                    Frozen::Host => power::verify_silent(&machine, fault),
                    // The kernel's word was waited for.
                    Frozen::Unit(_) | Frozen::Process(_) => Ok(()),
                }
            }
            Fault::FillDisk { host, folder } => {
                disk::fill(self, *host, folder)?;
                disk::verify_full(self, *host, fault, folder)
            }
        }
    }

    /// Mends one fault and takes it off the record.
    fn mend_one(&self, cgroups: &Cgroups, record: &ActiveFault) -> Result<()> {
        let mut left = self.faults()?;
        left.retain(|active| active.id != record.id);
        match &record.fault {
            Fault::Partition { .. } | Fault::Loss { .. } => {
                let all: Vec<&Fault> = left.iter().map(|a| &a.fault).collect();
                network::load(&self.name, &all)?;
                network::verify(&self.name, &record.fault, &all, &self.hosts()?)?;
            }
            Fault::Kill { .. } => {}
            Fault::HoldDown { host, unit } => {
                // The drop-in is in /run: gone with the power.
                if self.machine(cgroups, *host).powered() {
                    unit::release(self, *host, unit)?;
                }
            }
            Fault::PowerCut { host } => self.power_return(cgroups, *host)?,
            Fault::Freeze { host, what } => power::thaw(&self.machine(cgroups, *host), what)?,
            Fault::FillDisk { host, folder } => disk::free(self, *host, folder)?,
        }
        state::write(&self.folder.faults(), &left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mend_names_all_one_or_a_kind() {
        let record = ActiveFault {
            id: 3,
            fault: "power-cut ctl1".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
        };
        for (text, covers) in [
            ("all", true),
            ("3", true),
            ("4", false),
            ("power-cut", true),
            ("loss", false),
        ] {
            assert_eq!(
                text.parse::<Mend>().unwrap().covers(&record),
                covers,
                "{text}"
            );
        }
        assert!("everything".parse::<Mend>().is_err());
    }
}
