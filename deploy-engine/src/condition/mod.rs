//! Named conditions: what must hold of a service, judged from readings. Health gates, guards and proofs are all conditions;
//! only when they are asked differs.

mod ceph;
mod ceph_trouble;
mod elasticsearch;
mod galera;
pub mod galera_start;
mod haproxy;
pub mod host;
pub mod icinga2;
mod judge;
mod keepalived;
mod memcached;
mod monitoring;
mod rabbitmq;
mod rsyslog;
pub mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use judge::{judge, judge_all};

use crate::{
    model::{HostName, ServiceName},
    probe::{Ask, Readings},
};

/// A condition about some hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCall {
    /// For example `galera.synced`.
    pub name: String,
    pub service: ServiceName,
    /// The hosts it is about (the one to be stopped, the ones to be healthy). Never empty.
    pub hosts: Vec<HostName>,
    /// All members of the service on this site, `hosts` included.
    pub members: Vec<HostName>,
    #[serde(default)]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// A judgement with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "judgement", rename_all = "snake_case")]
pub enum Judgement {
    Holds {
        why: String,
    },
    /// It does not hold now; waiting may help.
    NotYet {
        why: String,
    },
    /// It does not hold and waiting cannot help.
    Refuted {
        why: String,
    },
    /// Something needed for the judgement is unknown. A guard treats this as a refusal.
    Unknown {
        why: String,
    },
}

impl Judgement {
    pub fn holds(&self) -> bool {
        matches!(self, Self::Holds { .. })
    }

    pub fn why(&self) -> &str {
        match self {
            Self::Holds { why }
            | Self::NotYet { why }
            | Self::Refuted { why }
            | Self::Unknown { why } => why,
        }
    }
}

/// A named condition.
pub trait Condition: Send + Sync {
    fn name(&self) -> &'static str;
    /// One sentence for people: what holds when it holds.
    fn doc(&self) -> &'static str;
    /// What to ask before judging.
    fn asks(&self, call: &ConditionCall) -> Vec<Ask>;
    /// Pure.
    fn judge(&self, call: &ConditionCall, readings: &Readings) -> Judgement;
}

/// Every condition there is, one table a file.
pub fn registry() -> impl Iterator<Item = &'static dyn Condition> {
    [
        galera::CONDITIONS,
        rabbitmq::CONDITIONS,
        memcached::CONDITIONS,
        haproxy::CONDITIONS,
        keepalived::CONDITIONS,
        monitoring::CONDITIONS,
        elasticsearch::CONDITIONS,
        rsyslog::CONDITIONS,
        icinga2::CONDITIONS,
        host::CONDITIONS,
        ceph::CONDITIONS,
        ceph_trouble::CONDITIONS,
    ]
    .into_iter()
    .flatten()
    .map(|entry| entry as &'static dyn Condition)
}

pub fn find(name: &str) -> Option<&'static dyn Condition> {
    registry().find(|condition| condition.name() == name)
}
