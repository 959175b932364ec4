//! What readings of logs are about on this site. Pure. Good for showing, and for being a third source; nothing is done to a host
//! because a line names it.

use std::collections::BTreeSet;

use collectors::{
    logs::reading::{HOST, SERVICE, Standing, standing},
    source::Reading,
};
use deploy_engine::model::HostName;
use jiff::Timestamp;

use crate::{
    incident::{Domain, Incident},
    topology::Topology,
};

/// The host of the site that a line calls so: by its name, alone or before a dot, or by its address.
pub fn host_of<'t>(topology: &'t Topology, written: &str) -> Option<&'t HostName> {
    let bare = || topology.host_named(written.split('.').next().unwrap_or_default());
    topology.host_named(written).or_else(bare)
}

/// Who is meant by labels of a reading, or of the alert that is made of it.
pub struct Meant<'r> {
    service: Option<&'r str>,
    pub host: Option<&'r HostName>,
}

impl<'r> Meant<'r> {
    pub fn by(
        topology: &'r Topology,
        labels: &'r std::collections::BTreeMap<String, String>,
    ) -> Self {
        let host = labels.get(HOST);
        Self {
            service: labels.get(SERVICE).map(String::as_str),
            host: host.and_then(|written| host_of(topology, written)),
        }
    }

    /// Is an incident about the same service or the same host?
    pub fn is_of(&self, incident: &Incident) -> bool {
        let names = |host: &HostName| incident.subjects.contains(host);
        match &incident.domain {
            Domain::Service(service) => {
                self.service == Some(service.as_str()) || self.host.is_some_and(names)
            }
            Domain::Host(own) => self.host == Some(own),
            Domain::Alert(_) => self.host.is_some_and(names),
        }
    }

    fn is_about(&self, service: &str, hosts: &BTreeSet<HostName>) -> bool {
        self.service == Some(service) || self.host.is_some_and(|host| hosts.contains(host))
    }
}

/// Readings of now about a service or hosts, in words.
pub fn evidence(
    readings: &[Reading],
    topology: &Topology,
    service: &str,
    hosts: &BTreeSet<HostName>,
    now: Timestamp,
) -> Vec<String> {
    let of_now = |one: &&Reading| standing(one, now) == Standing::Evidence;
    let about = |one: &&Reading| Meant::by(topology, &one.labels).is_about(service, hosts);
    let found = readings.iter().filter(of_now).filter(about);
    found.map(words).collect()
}

/// For example `mariadb.sst_failed ×3 of ctl2`.
pub fn words(reading: &Reading) -> String {
    let of = reading.labels.get(HOST);
    let of = of.map(|host| format!(" of {host}")).unwrap_or_default();
    format!("{} ×{}{of}", reading.name, reading.count)
}

#[cfg(test)]
mod tests {
    use collectors::SourceName;
    use jiff::SignedDuration;

    use super::*;

    fn topology() -> Topology {
        let host = |name: &str, address: &str| (name.parse().unwrap(), address.to_owned());
        Topology {
            hosts: [host("ctl1", "10.77.0.11"), host("ctl2", "10.77.0.12")].into(),
            ..Topology::default()
        }
    }

    fn reading(service: &str, host: &str) -> Reading {
        let labels = [(SERVICE, service), (HOST, host)];
        Reading {
            source: SourceName("logs".into()),
            key: "k".into(),
            name: "mariadb.sst_failed".into(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            count: 3,
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            lag_millis: None,
            samples: vec![],
        }
    }

    #[test]
    fn hosts_by_the_names_that_lines_have_for_them() {
        let topology = topology();
        let named = |written| host_of(&topology, written).map(HostName::as_str);
        assert_eq!(named("ctl1"), Some("ctl1"));
        assert_eq!(named("ctl1.example.org"), Some("ctl1"));
        assert_eq!(named("10.77.0.12"), Some("ctl2"));
        for stranger in ["", "ctl", "ctl11", ".ctl1", "ctl3.ctl1", "10.77.0.13"] {
            assert_eq!(named(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn evidence_is_of_now_and_of_the_same() {
        let (topology, hosts) = (topology(), ["ctl2".parse().unwrap()].into());
        let all = [
            reading("mariadb", "ctl1"),
            reading("host", "ctl2.example.org"),
            reading("rabbitmq", "ctl1"),
            reading("rabbitmq", "ctl9"),
        ];
        let of = |after: i64| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(after);
            evidence(&all, &topology, "mariadb", &hosts, now)
        };
        assert_eq!(
            of(15),
            [
                "mariadb.sst_failed ×3 of ctl1",
                "mariadb.sst_failed ×3 of ctl2.example.org"
            ]
        );
        assert_eq!(of(16), Vec::<String>::new());
    }
}
