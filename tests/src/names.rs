//! Names and addresses: which lab on this machine, which host in the lab.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// Hosts in one lab: a site of nine is larger than any drill needs, and a host is one digit in names and addresses.
pub const MAX_HOSTS: u8 = 9;
/// The side of the bot, of Synapse and of the tests: the bridge of the lab.
pub const MANAGEMENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Prefix length of the lab's network.
pub const PREFIX_LENGTH: u8 = 24;

/// Longest lab name, in characters: it is part of namespace and file names that people read.
const MAX_LAB_NAME: usize = 32;

/// Name of one lab on this machine: lower-case letters and digits, so that no lab's name is a prefix of
/// another's derived names (`NAME-ctl1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.is_empty() || text.len() > MAX_LAB_NAME || !text.chars().all(good) {
            return Err(LabError::refused(format!(
                "lab name `{text}`: expected 1 to {MAX_LAB_NAME} lower-case letters and digits"
            )));
        }
        Ok(LabName(text.to_owned()))
    }
}

impl TryFrom<String> for LabName {
    type Error = LabError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> String {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One host of a lab; its number gives name (`ctl1`) and address (`10.77.0.11`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(u8);

impl Host {
    /// The host with this number, if 1 to [`MAX_HOSTS`].
    pub fn new(number: u8) -> Option<Host> {
        (1..=MAX_HOSTS).contains(&number).then_some(Host(number))
    }

    /// All hosts that a lab can have.
    pub fn all() -> impl Iterator<Item = Host> {
        (1..=MAX_HOSTS).map(Host)
    }

    /// `ctl1` …
    pub fn name(self) -> String {
        format!("ctl{}", self.0)
    }

    /// `10.77.0.11` …
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.0)
    }
}

impl FromStr for Host {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix("ctl")
            .filter(|digits| digits.len() == 1)
            .and_then(|digits| digits.parse().ok())
            .and_then(Host::new)
            .ok_or_else(|| {
                LabError::refused(format!(
                    "host `{text}`: expected a name from ctl1 to ctl{MAX_HOSTS}"
                ))
            })
    }
}

impl TryFrom<String> for Host {
    type Error = LabError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> String {
        host.name()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_and_addresses() {
        let host: Host = "ctl3".parse().unwrap();
        assert_eq!(host.address().to_string(), "10.77.0.13");
        assert_eq!(host.to_string(), "ctl3");
        for bad in ["ctl0", "ctl10", "ctl", "h1", "ctl+1", ""] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lab_names_cannot_run_into_derived_names() {
        assert!("demo2".parse::<LabName>().is_ok());
        for bad in [
            "",
            "a-ctl1",
            "a/b",
            "..",
            "A",
            "_cache",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }
}
