//! How a condition file lists its conditions, and how several hosts' judgements become one.

use super::{Condition, ConditionCall, Judgement};
use crate::{
    model::{HostName, ServiceName},
    probe::{Ask, Readings},
};

/// One condition of a table.
pub struct Entry {
    pub name: &'static str,
    pub doc: &'static str,
    pub asks: fn(&ConditionCall) -> Vec<Ask>,
    pub judge: fn(&ConditionCall, &Readings) -> Judgement,
}

impl Condition for Entry {
    fn name(&self) -> &'static str {
        self.name
    }

    fn doc(&self) -> &'static str {
        self.doc
    }

    fn asks(&self, call: &ConditionCall) -> Vec<Ask> {
        (self.asks)(call)
    }

    /// Pure. A call about no host is never "about all hosts, so it holds".
    fn judge(&self, call: &ConditionCall, readings: &Readings) -> Judgement {
        if call.hosts.is_empty() {
            return Judgement::Unknown {
                why: format!("{}: expected at least one host; found none", self.name),
            };
        }
        if let Some(stranger) = call.hosts.iter().find(|host| !call.members.contains(host)) {
            return Judgement::Unknown {
                why: format!(
                    "{}: {stranger} is not a member of {}",
                    self.name, call.service
                ),
            };
        }
        (self.judge)(call, readings)
    }
}

/// Asks one probe of the hosts that the call is about.
pub fn ask_hosts(call: &ConditionCall, probe: &str) -> Vec<Ask> {
    ask(&call.service, probe, &call.hosts)
}

/// Asks one probe of all members.
pub fn ask_members(call: &ConditionCall, probe: &str) -> Vec<Ask> {
    ask(&call.service, probe, &call.members)
}

fn ask(service: &ServiceName, probe: &str, hosts: &[HostName]) -> Vec<Ask> {
    hosts
        .iter()
        .map(|host| Ask {
            probe: probe.to_owned(),
            host: host.clone(),
            service: Some(service.clone()),
        })
        .collect()
}

/// Members that the call is not about.
pub fn others(call: &ConditionCall) -> Vec<&HostName> {
    call.members
        .iter()
        .filter(|member| !call.hosts.contains(member))
        .collect()
}

/// More than half.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

pub fn holds(why: impl Into<String>) -> Judgement {
    Judgement::Holds { why: why.into() }
}

pub fn not_yet(why: impl Into<String>) -> Judgement {
    Judgement::NotYet { why: why.into() }
}

pub fn refuted(why: impl Into<String>) -> Judgement {
    Judgement::Refuted { why: why.into() }
}

pub fn unknown(why: impl Into<String>) -> Judgement {
    Judgement::Unknown { why: why.into() }
}

/// All must hold. The worst wins, in the order refuted, unknown, not yet; its reason is kept, and what others said is added.
pub fn all(judgements: impl IntoIterator<Item = Judgement>) -> Judgement {
    let (mut worst, mut reasons): (u8, Vec<String>) = (0, Vec::new());
    for judgement in judgements {
        let rank = rank(&judgement);
        if rank > worst {
            worst = rank;
            reasons.clear();
        }
        if rank == worst {
            reasons.push(judgement.why().to_owned());
        }
    }
    let why = reasons.join("; ");
    match worst {
        0 if reasons.is_empty() => unknown("nothing was judged"),
        0 => holds(why),
        1 => not_yet(why),
        2 => unknown(why),
        _ => refuted(why),
    }
}

fn rank(judgement: &Judgement) -> u8 {
    match judgement {
        Judgement::Holds { .. } => 0,
        Judgement::NotYet { .. } => 1,
        Judgement::Unknown { .. } => 2,
        Judgement::Refuted { .. } => 3,
    }
}

#[cfg(test)]
pub mod testing {
    //! Calls and readings for judging by hand.

    use std::collections::BTreeMap;

    use serde::Serialize;

    use crate::{
        condition::ConditionCall,
        model::HostName,
        probe::{Reading, Readings},
    };

    pub fn host(name: &str) -> HostName {
        name.parse().expect("a host name")
    }

    pub fn hosts(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| host(name)).collect()
    }

    pub fn call(name: &str, service: &str, about: &[&str], members: &[&str]) -> ConditionCall {
        ConditionCall {
            name: name.to_owned(),
            service: service.parse().expect("a service name"),
            hosts: hosts(about),
            members: hosts(members),
            settings: BTreeMap::new(),
        }
    }

    pub fn known<T: Serialize>(readings: &mut Readings, probe: &str, on: &str, value: &T) {
        let reading = Reading::Known {
            value: serde_json::to_value(value).expect("JSON"),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        readings.insert(probe, host(on), reading);
    }

    pub fn unknown(readings: &mut Readings, probe: &str, on: &str) {
        let reading = Reading::Unknown {
            why: "timed out".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        readings.insert(probe, host(on), reading);
    }
}
