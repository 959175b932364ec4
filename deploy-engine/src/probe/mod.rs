//! Named probes: one file each, with the request that asks a host and the pure parser of its answer.

pub mod ceph;
pub mod ceph_trouble;
pub mod chrony;
pub mod elasticsearch;
pub mod galera;
mod gather;
pub mod haproxy;
pub mod host;
pub mod icinga2;
pub mod keepalived;
pub mod memcached;
pub mod monitoring;
pub mod rabbitmq;
mod repeated;
pub mod rsyslog;
mod table;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use gather::{GATHER_LIMIT, ProbeSite, gather};
pub use words::words;

use crate::{
    model::{HostName, ServiceName},
    wire,
};

/// What a probe needs to know to word its question.
pub struct ProbeContext<'a> {
    pub host: &'a HostName,
    /// The address other hosts reach it under.
    pub address: &'a str,
    /// Members of the service the probe is about, with addresses; includes `host`.
    pub members: &'a [(HostName, String)],
    /// The service's settings on this site, defaults filled in.
    pub settings: &'a BTreeMap<String, serde_json::Value>,
    /// What of the host it is about, for a probe that asks for one thing of many: a unit.
    pub about: Option<&'a str>,
}

impl ProbeContext<'_> {
    /// A port setting, or the service's usual port where the setting is not there.
    pub fn port(&self, setting: &str, usual: u16) -> u16 {
        self.settings
            .get(setting)
            .and_then(serde_json::Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(usual)
    }

    pub fn text(&self, setting: &str) -> Option<&str> {
        self.settings
            .get(setting)
            .and_then(serde_json::Value::as_str)
    }
}

/// Every probe there is, one table a file.
pub fn registry() -> impl Iterator<Item = &'static dyn NamedProbe> {
    [
        galera::PROBES,
        rabbitmq::PROBES,
        memcached::PROBES,
        haproxy::PROBES,
        keepalived::PROBES,
        host::PROBES,
        monitoring::PROBES,
        ceph::PROBES,
        ceph_trouble::PROBES,
        chrony::PROBES,
        elasticsearch::PROBES,
        rsyslog::PROBES,
        icinga2::PROBES,
    ]
    .into_iter()
    .flatten()
    .map(|entry| entry as &'static dyn NamedProbe)
}

/// Between the name of a probe and what it is about: `host.unit/memcached.service`.
const ABOUT: char = '/';

/// A probe by its whole name. One that is about one thing of many is found with its thing only, any other without.
pub fn find(name: &str) -> Option<&'static dyn NamedProbe> {
    let (base, about) = split(name);
    registry().find(|probe| probe.name() == base && probe.is_about_one() == about.is_some())
}

/// The name in the table, and what it is about.
pub fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(ABOUT) {
        Some((base, about)) => (base, Some(about)),
        None => (name, None),
    }
}

/// A fact about a service, asked of one host.
pub trait NamedProbe: Send + Sync {
    /// For example `galera.status`.
    fn name(&self) -> &'static str;
    /// The service whose members and settings it needs.
    fn service(&self) -> Option<&'static str>;
    /// Does it ask for one thing of many, which follows its name?
    fn is_about_one(&self) -> bool {
        false
    }
    fn request(&self, context: &ProbeContext<'_>) -> wire::Probe;
    /// Pure. An answer that is not understood is an error, never a default.
    fn parse(&self, result: &wire::ProbeResult) -> Result<serde_json::Value, String>;
}

/// One answer, or why there is none. Unknown is not "down".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reading", rename_all = "snake_case")]
pub enum Reading {
    Known {
        value: serde_json::Value,
        at: jiff::Timestamp,
    },
    Unknown {
        why: String,
        at: jiff::Timestamp,
    },
}

/// What a daemon says, or that it says nothing: its host was asked and answered that nobody listens, or that nobody answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "daemon", rename_all = "snake_case")]
pub enum Heard<T> {
    Answers(T),
    Silent { why: String },
}

/// Readings by probe and host: the evidence that conditions and decisions judge, and that the journal keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    pub by_probe: BTreeMap<String, BTreeMap<HostName, Reading>>,
}

impl Readings {
    /// The typed answer of one host, or why it is unknown.
    pub fn get<T: DeserializeOwned>(&self, probe: &str, host: &HostName) -> Result<T, String> {
        match self.by_probe.get(probe).and_then(|hosts| hosts.get(host)) {
            Some(Reading::Known { value, .. }) => serde_json::from_value(value.clone())
                .map_err(|error| format!("{probe} on {host}: expected another shape: {error}")),
            Some(Reading::Unknown { why, .. }) => {
                Err(format!("{probe} on {host} is unknown: {why}"))
            }
            None => Err(format!("{probe} was not asked of {host}")),
        }
    }

    pub fn insert(&mut self, probe: &str, host: HostName, reading: Reading) {
        self.by_probe
            .entry(probe.to_owned())
            .or_default()
            .insert(host, reading);
    }
}

/// Which probe goes to which host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ask {
    pub probe: String,
    pub host: HostName,
    /// The service whose settings and members word the question.
    pub service: Option<ServiceName>,
}
