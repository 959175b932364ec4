//! The text form of faults: read strictly, written so that it reads back the same.

use std::fmt;
use std::str::FromStr;

use super::{CATALOGUE, Fault, Folder, Frozen, ProcessName, Unit};
use crate::error::{LabError, Result};
use crate::names::Host;

/// `TASK_COMM_LEN` of the kernel, less its end byte.
const MAX_PROCESS_NAME: usize = 15;

impl FromStr for Fault {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Fault> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let name = words.first().copied().unwrap_or("");
        let Some(entry) = CATALOGUE.iter().find(|e| e.name == name) else {
            let names: Vec<&str> = CATALOGUE.iter().map(|e| e.name).collect();
            return Err(LabError::refused(format!(
                "fault `{name}`: expected one of {}",
                names.join(", ")
            )));
        };
        match parse(&words) {
            Ok(Some(fault)) => Ok(fault),
            Ok(None) => Err(LabError::refused(format!(
                "fault `{text}`: expected `{name} {}`",
                entry.parameters
            ))),
            Err(error) => Err(LabError::refused(format!("fault `{text}`: {error}"))),
        }
    }
}

/// `None` if the words do not have the fault's form.
fn parse(words: &[&str]) -> Result<Option<Fault>> {
    Ok(Some(match words {
        ["partition", from, "/", to] => partition(from, to, false)?,
        ["partition", from, "/", to, "one-way"] => partition(from, to, true)?,
        ["loss", percent, from] => loss(percent, from, "")?,
        ["loss", percent, from, "/", to] => loss(percent, from, to)?,
        ["kill", host, unit] => Fault::Kill {
            host: host.parse()?,
            unit: unit.parse()?,
        },
        ["hold-down", host, unit] => Fault::HoldDown {
            host: host.parse()?,
            unit: unit.parse()?,
        },
        ["power-cut", host] => Fault::PowerCut {
            host: host.parse()?,
        },
        ["freeze", host, rest @ ..] => {
            let what = match rest {
                [] => Frozen::Host,
                ["unit", unit] => Frozen::Unit(unit.parse()?),
                ["process", name] => Frozen::Process(name.parse()?),
                _ => return Ok(None),
            };
            let host = host.parse()?;
            Fault::Freeze { host, what }
        }
        ["fill-disk", host] => Fault::FillDisk {
            host: host.parse()?,
            folder: "/".parse()?,
        },
        ["fill-disk", host, folder] => Fault::FillDisk {
            host: host.parse()?,
            folder: folder.parse()?,
        },
        _ => return Ok(None),
    }))
}

fn partition(from: &str, to: &str, one_way: bool) -> Result<Fault> {
    let (from, to) = (set(from)?, set(to)?);
    disjoint(&from, &to)?;
    Ok(Fault::Partition { from, to, one_way })
}

fn loss(percent: &str, from: &str, to: &str) -> Result<Fault> {
    let percent = percent
        .trim_end_matches('%')
        .parse()
        .ok()
        .filter(|p| (1..=99).contains(p))
        .ok_or_else(|| {
            LabError::refused(format!(
                "`{percent}`: expected 1% to 99% (for all of it: partition)"
            ))
        })?;
    let from = set(from)?;
    let to = if to.is_empty() { Vec::new() } else { set(to)? };
    disjoint(&from, &to)?;
    Ok(Fault::Loss { percent, from, to })
}

fn set(text: &str) -> Result<Vec<Host>> {
    let mut hosts: Vec<Host> = text.split(',').map(str::parse).collect::<Result<_>>()?;
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

fn disjoint(from: &[Host], to: &[Host]) -> Result<()> {
    match from.iter().find(|host| to.contains(host)) {
        Some(host) => Err(LabError::refused(format!("{host} is in both sets"))),
        None => Ok(()),
    }
}

impl FromStr for Unit {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Unit> {
        let good = |c: char| c.is_ascii_alphanumeric() || "@:_.-\\".contains(c);
        let name = match text.rsplit_once('.') {
            Some((_, "service")) => text.to_owned(),
            _ => format!("{text}.service"),
        };
        let sound = !text.is_empty() && !text.starts_with(['-', '.']) && text.chars().all(good);
        if !sound {
            return Err(LabError::refused(format!(
                "unit `{text}`: not a unit's name"
            )));
        }
        Ok(Unit(name))
    }
}

impl FromStr for ProcessName {
    type Err = LabError;

    fn from_str(text: &str) -> Result<ProcessName> {
        if text.is_empty() || text.len() > MAX_PROCESS_NAME {
            return Err(LabError::refused(format!(
                "process `{text}`: expected a name of 1 to {MAX_PROCESS_NAME} bytes, as the kernel keeps it"
            )));
        }
        Ok(ProcessName(text.to_owned()))
    }
}

impl FromStr for Folder {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Folder> {
        if !text.starts_with('/') || text.split('/').any(|part| part == "..") {
            return Err(LabError::refused(format!(
                "folder `{text}`: expected an absolute path"
            )));
        }
        Ok(Folder(text.to_owned()))
    }
}

impl TryFrom<String> for Fault {
    type Error = LabError;

    fn try_from(text: String) -> Result<Fault> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> String {
        fault.to_string()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[Host]| {
            let names: Vec<String> = hosts.iter().map(|h| h.name()).collect();
            names.join(",")
        };
        let name = self.name();
        match self {
            Fault::Partition { from, to, one_way } => {
                let suffix = if *one_way { " one-way" } else { "" };
                write!(f, "{name} {} / {}{suffix}", list(from), list(to))
            }
            Fault::Loss { percent, from, to } if to.is_empty() => {
                write!(f, "{name} {percent}% {}", list(from))
            }
            Fault::Loss { percent, from, to } => {
                write!(f, "{name} {percent}% {} / {}", list(from), list(to))
            }
            Fault::Kill { host, unit } | Fault::HoldDown { host, unit } => {
                write!(f, "{name} {host} {unit}")
            }
            Fault::PowerCut { host } => write!(f, "{name} {host}"),
            Fault::Freeze { host, what } => match what {
                Frozen::Host => write!(f, "{name} {host}"),
                Frozen::Unit(unit) => write!(f, "{name} {host} unit {unit}"),
                Frozen::Process(process) => write!(f, "{name} {host} process {}", process.0),
            },
            Fault::FillDisk { host, folder } => write!(f, "{name} {host} {}", folder.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in [
            "partition ctl1,ctl2 / ctl3",
            "partition ctl1 / ctl3 one-way",
            "loss 30% ctl1",
            "loss 30% ctl1 / ctl2,ctl3",
            "kill ctl1 mariadb.service",
            "hold-down ctl2 ceph-osd@1.service",
            "power-cut ctl3",
            "freeze ctl1",
            "freeze ctl1 unit rabbitmq-server.service",
            "freeze ctl1 process beam.smp",
            "fill-disk ctl1 /var/lib/mysql",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        let short: Fault = "kill ctl1 mariadb".parse().unwrap();
        assert_eq!(short.to_string(), "kill ctl1 mariadb.service");
    }

    #[test]
    fn wrong_words_say_what_was_expected() {
        for (text, expected) in [
            ("", "expected one of partition, loss"),
            ("melt ctl1", "expected one of partition, loss"),
            ("partition ctl1 ctl2", "expected `partition HOST"),
            ("partition ctl1,ctl2 / ctl2", "ctl2 is in both sets"),
            ("partition ctl1 / h2", "host `h2`"),
            ("loss 100% ctl1", "expected 1% to 99%"),
            ("kill ctl1 -a", "not a unit's name"),
            ("kill ctl1 a;b", "not a unit's name"),
            ("freeze ctl1 all", "expected `freeze HOST"),
            ("fill-disk ctl1 tmp", "expected an absolute path"),
            ("fill-disk ctl1 /a/../b", "expected an absolute path"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
