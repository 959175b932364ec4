//! Faults: what can be broken in the lab, in one text form for the command line and drill files.

mod active;
mod disk;
mod grammar;
mod network;
mod power;
mod unit;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use active::{ActiveFault, Mend};

use crate::names::Host;

/// One fault. Its text form (`Display`, `FromStr`, serde) is that of [`CATALOGUE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fault {
    /// No frame passes between the two sets; one way: nothing but ARP passes from the first to the second.
    Partition {
        from: Vec<Host>,
        to: Vec<Host>,
        one_way: bool,
    },
    /// So many percent (1 to 99) of the frames between the sets are lost, both ways. No second set: all other hosts.
    Loss {
        percent: u8,
        from: Vec<Host>,
        to: Vec<Host>,
    },
    /// All processes of the unit get `SIGKILL` at once; what its `Restart=` does then is not hindered.
    Kill { host: Host, unit: Unit },
    /// The unit is killed and every start of it fails.
    HoldDown { host: Host, unit: Unit },
    /// The host loses power: all its processes end at once, its disk stays.
    PowerCut { host: Host },
    /// The host, a unit or a process stands still but is not gone: connections stay open and nobody answers.
    Freeze { host: Host, what: Frozen },
    /// The file system that holds the folder has no block left.
    FillDisk { host: Host, folder: Folder },
}

/// What a freeze stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frozen {
    Host,
    Unit(Unit),
    /// All processes with this name (as `ps -o comm` shows it).
    Process(ProcessName),
}

/// A service unit: `mariadb.service`; `mariadb` is read as that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit(pub(in crate::fault) String);

/// Name of a process, at most 15 bytes (the kernel cuts longer ones).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessName(pub(in crate::fault) String);

/// An absolute path on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub(in crate::fault) String);

/// One line of the table of faults.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub parameters: &'static str,
    pub effect: &'static str,
    /// How the lab makes sure that it took effect.
    pub check: &'static str,
    pub mend: &'static str,
}

/// All faults.
pub const CATALOGUE: [Entry; 7] = [
    Entry {
        name: "partition",
        parameters: "HOST[,HOST…] / HOST[,HOST…] [one-way]",
        effect: "no frame passes between the sets (one-way: from the first to the second); \
                 the management side still reaches all",
        check: "datagrams between every two hosts, both ways, and from the management side",
        mend: "the packet filter rule goes",
    },
    Entry {
        name: "loss",
        parameters: "PERCENT% HOST[,HOST…] [/ HOST[,HOST…]]",
        effect: "so much of the traffic between the sets (or with all others) is lost, both ways",
        check: "loss measured with datagrams between every two hosts",
        mend: "the packet filter rule goes",
    },
    Entry {
        name: "kill",
        parameters: "HOST UNIT",
        effect: "SIGKILL to all processes of the unit at once; systemd may restart it",
        check: "the processes are gone",
        mend: "none needed",
    },
    Entry {
        name: "hold-down",
        parameters: "HOST UNIT",
        effect: "the unit is killed and every start fails, until mended or the host reboots",
        check: "no process, and a start fails",
        mend: "starts work again; the unit stays as it is",
    },
    Entry {
        name: "power-cut",
        parameters: "HOST",
        effect: "all processes of the host end at once; its disk stays",
        check: "no process, disk released, sshd does not answer",
        mend: "the power returns: the host boots and takes logins",
    },
    Entry {
        name: "freeze",
        parameters: "HOST [unit UNIT | process NAME]",
        effect: "all of it stands still and holds its connections",
        check: "the kernel says frozen (stopped, for processes)",
        mend: "thawed where it stood",
    },
    Entry {
        name: "fill-disk",
        parameters: "HOST [FOLDER]",
        effect: "the file system of the folder (default /) is full",
        check: "a write there fails with ENOSPC",
        mend: "the filling file is removed, a write works",
    },
];

impl Fault {
    /// Name in [`CATALOGUE`].
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Partition { .. } => "partition",
            Fault::Loss { .. } => "loss",
            Fault::Kill { .. } => "kill",
            Fault::HoldDown { .. } => "hold-down",
            Fault::PowerCut { .. } => "power-cut",
            Fault::Freeze { .. } => "freeze",
            Fault::FillDisk { .. } => "fill-disk",
        }
    }

    /// The hosts that it names.
    pub fn hosts(&self) -> Vec<Host> {
        match self {
            Fault::Partition { from, to, .. } | Fault::Loss { from, to, .. } => {
                from.iter().chain(to).copied().collect()
            }
            Fault::Kill { host, .. }
            | Fault::HoldDown { host, .. }
            | Fault::PowerCut { host }
            | Fault::Freeze { host, .. }
            | Fault::FillDisk { host, .. } => vec![*host],
        }
    }

    /// The host that cannot answer SSH while this fault lasts, if any.
    pub(crate) fn silences(&self) -> Option<Host> {
        match self {
            Fault::PowerCut { host } => Some(*host),
            Fault::Freeze { host, what } => match what {
                Frozen::Host => Some(*host),
                Frozen::Unit(unit) => (unit.0 == "ssh.service").then_some(*host),
                Frozen::Process(name) => (name.0 == "sshd").then_some(*host),
            },
            Fault::HoldDown { host, unit } => (unit.0 == "ssh.service").then_some(*host),
            _ => None,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
