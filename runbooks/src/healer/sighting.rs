//! What the readings of one look say to the gates, beside what they say to decisions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    job::{Action, Step},
    model::HostName,
    probe::{Reading, Readings, ceph, host, rabbitmq},
    wire::Work,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gate::{Direct, maintenance::Sign};

/// Where answers tell the version of what is running: probe, place in the answer. A map there is of node → version.
/// In one of maps the keys are the versions.
const VERSIONS: [(&str, &str); 5] = [
    (ceph::CLUSTER, "/versions"),
    (rabbitmq::CLUSTER_STATUS, "/versions"),
    ("galera.status", "/version"),
    ("haproxy.info", "/version"),
    ("memcached.stats", "/version"),
];

/// RabbitMQ's word for a node that nobody drained.
const NOT_DRAINED: &str = "not under maintenance";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    pub direct: Vec<Direct>,
    /// Hosts that were asked and answered nothing.
    pub unread: BTreeSet<HostName>,
    /// What a person switched off; why that is not known.
    pub disabled: Result<Vec<Sign>, String>,
    pub mixed_versions: Vec<Sign>,
    /// What somebody holds of Ceph; why that is not known.
    pub ceph_flags: Result<Vec<Sign>, String>,
}

/// `units`: what the steps start and stop, by host.
pub(super) fn sight(readings: &Readings, units: &BTreeMap<HostName, BTreeSet<String>>) -> Sighting {
    Sighting {
        direct: direct(readings),
        unread: unread(readings),
        disabled: disabled(readings, units),
        mixed_versions: mixed_versions(readings),
        ceph_flags: ceph_flags(readings),
    }
}

fn direct(readings: &Readings) -> Vec<Direct> {
    let of_probe = |(probe, of): (&String, &BTreeMap<HostName, Reading>)| {
        let one = |(host, reading): (&HostName, &Reading)| {
            let (known, at) = match reading {
                Reading::Known { at, .. } => (true, *at),
                Reading::Unknown { at, .. } => (false, *at),
            };
            Direct {
                probe: probe.clone(),
                host: host.clone(),
                at,
                known,
            }
        };
        of.iter().map(one).collect::<Vec<_>>()
    };
    readings.by_probe.iter().flat_map(of_probe).collect()
}

/// Hosts that were asked, and whether any of their probes answered.
pub(super) fn answers(readings: &Readings) -> BTreeMap<HostName, bool> {
    let mut answered: BTreeMap<HostName, bool> = BTreeMap::new();
    for (host, reading) in readings.by_probe.values().flatten() {
        *answered.entry(host.clone()).or_default() |= matches!(reading, Reading::Known { .. });
    }
    answered
}

/// Hosts none of whose probes was answered.
pub(super) fn unread(readings: &Readings) -> BTreeSet<HostName> {
    let silent = answers(readings)
        .into_iter()
        .filter(|(_, answered)| !answered);
    silent.map(|(host, _)| host).collect()
}

/// The units that steps name, by host.
pub(super) fn units_of(steps: &[Step]) -> BTreeMap<HostName, BTreeSet<String>> {
    let mut units: BTreeMap<HostName, BTreeSet<String>> = BTreeMap::new();
    for step in steps {
        let Action::Host { host, work } = &step.action else {
            continue;
        };
        let own = units.entry(host.clone()).or_default();
        if let Work::Run { command } = work {
            let named = command
                .argv
                .iter()
                .filter(|word| word.ends_with(".service"));
            own.extend(named.cloned());
        }
    }
    units
}

fn disabled(
    readings: &Readings,
    units: &BTreeMap<HostName, BTreeSet<String>>,
) -> Result<Vec<Sign>, String> {
    let mut signs = Vec::new();
    for (name, own) in units {
        for unit in own {
            let state = host::unit_in(readings, name, unit)?;
            if matches!(state.enabled.as_str(), "disabled" | "masked") {
                let what = format!("{unit} on {name} is {}", state.enabled);
                signs.push(Sign::new(what));
            }
        }
    }
    for value in known(readings, rabbitmq::CLUSTER_STATUS) {
        let nodes = value.get("maintenance_status").and_then(Value::as_object);
        let drained = nodes
            .into_iter()
            .flatten()
            .filter_map(|(node, how)| Some((node, how.as_str()?)));
        signs.extend(
            drained
                .filter(|(_, how)| *how != NOT_DRAINED)
                .map(|(node, how)| Sign::new(format!("{node} is {how}"))),
        );
    }
    signs.sort_by(|a, b| a.what.cmp(&b.what));
    signs.dedup();
    Ok(signs)
}

fn mixed_versions(readings: &Readings) -> Vec<Sign> {
    let mut signs = Vec::new();
    for (probe, place) in VERSIONS {
        let mut found: BTreeSet<&str> = BTreeSet::new();
        for value in known(readings, probe) {
            match value.pointer(place) {
                Some(Value::String(version)) => drop(found.insert(version)),
                Some(Value::Object(nodes)) => {
                    found.extend(nodes.values().filter_map(Value::as_str));
                    let maps = nodes.values().filter_map(Value::as_object);
                    found.extend(maps.flat_map(|map| map.keys().map(String::as_str)));
                }
                _ => {}
            }
        }
        if found.len() > 1 {
            let versions: Vec<&str> = found.into_iter().collect();
            signs.push(Sign::new(format!(
                "{probe} tells of {}: a rolling upgrade",
                versions.join(" and ")
            )));
        }
    }
    signs
}

/// Flags that any answer of the monitors has. One answer is enough: all of them tell the same map.
fn ceph_flags(readings: &Readings) -> Result<Vec<Sign>, String> {
    let mut flags: BTreeSet<&str> = BTreeSet::new();
    let mut answered = false;
    for value in known(readings, ceph::CLUSTER) {
        let list = value.get("flags").and_then(Value::as_array);
        let list = list.ok_or("expected the flags of Ceph's map; found none")?;
        answered = true;
        flags.extend(list.iter().filter_map(Value::as_str));
    }
    if !answered {
        return Err("no monitor of Ceph answered".to_owned());
    }
    let signs = flags.into_iter();
    Ok(signs
        .map(|flag| Sign::new(format!("Ceph has the flag {flag}")))
        .collect())
}

fn known<'r>(readings: &'r Readings, probe: &str) -> impl Iterator<Item = &'r Value> {
    let of = readings.by_probe.get(probe).into_iter();
    of.flat_map(BTreeMap::values)
        .filter_map(|reading| match reading {
            Reading::Known { value, .. } => Some(value),
            Reading::Unknown { .. } => None,
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decision::testing::host;

    fn readings(of: &[(&str, &str, Value)]) -> Readings {
        let mut readings = Readings::default();
        for (probe, name, value) in of {
            let at = jiff::Timestamp::UNIX_EPOCH;
            let value = value.clone();
            readings.insert(probe, host(name), Reading::Known { value, at });
        }
        readings
    }

    fn unit(enabled: &str) -> Value {
        json!({"load": "loaded", "active": "inactive", "sub": "dead", "result": "success", "restarts": 0,
            "enabled": enabled, "active_since_monotonic_us": 0, "inactive_since_monotonic_us": 0})
    }

    #[test]
    fn what_a_person_switched_off() {
        let units = [(host("h1"), ["a.service".to_owned()].into())].into();
        let off = |of: &[(&str, &str, Value)]| {
            let signs = disabled(&readings(of), &units)?;
            Ok::<_, String>(signs.into_iter().map(|sign| sign.what).collect::<Vec<_>>())
        };
        let on = ("host.unit/a.service", "h1", unit("enabled"));
        assert_eq!(off(std::slice::from_ref(&on)), Ok(vec![]));
        assert_eq!(
            off(&[("host.unit/a.service", "h1", unit("masked"))]),
            Ok(vec!["a.service on h1 is masked".to_owned()])
        );
        let listed = json!({ "a.service": unit("masked") });
        assert!(off(&[("host.units", "h1", listed)]).is_ok_and(|signs| signs.len() == 1));
        assert!(off(&[]).unwrap_err().contains("was not asked"));
        let others = ("host.units", "h1", json!({}));
        assert!(
            off(&[others])
                .unwrap_err()
                .contains("has not loaded a.service")
        );
        let drained = json!({"maintenance_status": {"rabbit@h2": "under maintenance", "rabbit@h3": NOT_DRAINED}});
        assert_eq!(
            off(&[on, ("rabbitmq.cluster_status", "h1", drained)]),
            Ok(vec!["rabbit@h2 is under maintenance".to_owned()])
        );
    }

    #[test]
    fn unequal_versions() {
        let mixed = |of: &[(&str, &str, Value)]| mixed_versions(&readings(of)).len();
        let server = |version: &str| json!({"server": "answering", "version": version});
        assert_eq!(mixed(&[("galera.status", "h1", server("10.11.6"))]), 0);
        assert_eq!(
            mixed(&[
                ("galera.status", "h1", server("10.11.6")),
                ("galera.status", "h2", json!({"server": "not_answering"})),
                ("galera.status", "h3", server("10.11.8")),
            ]),
            1
        );
        let daemons = |osd: &str| json!({"versions": {"mon": {"16.2.15": 3}, "osd": {osd: 2}}});
        assert_eq!(mixed(&[(ceph::CLUSTER, "h1", daemons("16.2.15"))]), 0);
        assert_eq!(mixed(&[(ceph::CLUSTER, "h1", daemons("16.2.14"))]), 1);
        let nodes = json!({"versions": {"rabbit@h1": "3.10.8", "rabbit@h2": "3.11.1"}});
        assert_eq!(mixed(&[("rabbitmq.cluster_status", "h1", nodes)]), 1);
    }

    #[test]
    fn flags_of_ceph() {
        let flags = |of: &[(&str, &str, Value)]| ceph_flags(&readings(of));
        let map = |flags: Value| (ceph::CLUSTER, "h1", json!({ "flags": flags }));
        assert_eq!(flags(&[map(json!([]))]), Ok(vec![]));
        assert_eq!(
            flags(&[map(json!(["noout"]))]),
            Ok(vec![Sign::new("Ceph has the flag noout")])
        );
        assert!(flags(&[]).unwrap_err().contains("no monitor"));
        assert!(flags(&[(ceph::CLUSTER, "h1", json!({}))]).is_err());
    }
}
