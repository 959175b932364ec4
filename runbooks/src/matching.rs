//! From an alert to the runbooks that may be about it, and the hosts it names.
//!
//! An alert is a reason to look, not a diagnosis: many name no host, and some name the exporter instead of what failed. A label
//! is only ever compared with the site's own names and addresses.

use std::collections::BTreeSet;

use collectors::Alert;
use deploy_engine::model::HostName;
use serde::{Deserialize, Serialize};

use crate::{
    format::{Lock, Runbook, RunbookId},
    incident::Domain,
    library::Library,
    topology::Topology,
};

/// Labels whose value may be a host, in the vocabularies of common exporters and rule sets.
pub const HOST_LABELS: [&str; 9] = [
    "host",
    "hostname",
    "instance",
    "exported_instance",
    "exported_host",
    "node",
    "nodename",
    "agent_host",
    "target",
];

/// Alerts that say that a whole host is away: the cause of whatever else is wrong on it.
pub const HOST_DOWN_ALERTS: [&str; 3] = ["HostDown", "NodeDown", "HostUnreachable"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "match", rename_all = "snake_case")]
pub enum Matched {
    Runbooks {
        /// The incident it belongs to.
        domain: Domain,
        /// In the order in which they are asked.
        runbooks: Vec<RunbookId>,
        /// Hosts that its labels name; may be empty.
        subjects: BTreeSet<HostName>,
    },
    /// A host is away. Nothing is repaired, but it explains other incidents.
    HostDown { host: HostName },
    TellOnly {
        why: String,
        subjects: BTreeSet<HostName>,
    },
}

/// Pure.
pub fn match_alert(library: &Library, topology: &Topology, alert: &Alert) -> Matched {
    let (subjects, strangers) = subjects(topology, alert);
    if HOST_DOWN_ALERTS.contains(&alert.name.as_str()) {
        return match subjects.iter().collect::<Vec<_>>()[..] {
            [host] => Matched::HostDown { host: host.clone() },
            _ => Matched::TellOnly {
                why: "a host is said to be down, but the alert does not name one of this site"
                    .to_owned(),
                subjects,
            },
        };
    }
    let is_about = |runbook: &&Runbook| {
        runbook
            .alerts
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&alert.name))
    };
    let candidates: Vec<&Runbook> = library.iter().filter(is_about).collect();
    let Some(first) = candidates.first() else {
        return Matched::TellOnly {
            why: format!("no runbook is about {}", shown(&alert.name)),
            subjects,
        };
    };
    if let Some((label, value)) = strangers.first().filter(|_| subjects.is_empty()) {
        let why = format!("the label {label}={value:?} names no host or address of this site");
        return Matched::TellOnly { why, subjects };
    }
    let deployed: Vec<&Runbook> = candidates
        .iter()
        .copied()
        .filter(|runbook| topology.members(&runbook.service).is_some())
        .collect();
    let Some(runbook) = deployed.first() else {
        let why = format!(
            "{} is about {}, which is not deployed on {}",
            first.runbook, first.service, topology.site
        );
        return Matched::TellOnly { why, subjects };
    };
    let domain = match (runbook.lock, subjects.iter().collect::<Vec<_>>().as_slice()) {
        (Lock::Service, _) => Domain::Service(runbook.service.clone()),
        (Lock::Host, [host]) => Domain::Host((*host).clone()),
        (Lock::Host, hosts) => {
            let why = format!(
                "{} is about one host; the alert names {}",
                runbook.runbook,
                hosts.len()
            );
            return Matched::TellOnly { why, subjects };
        }
    };
    let same = |other: &&&Runbook| other.service == runbook.service && other.lock == runbook.lock;
    let runbooks = deployed
        .iter()
        .filter(same)
        .map(|runbook| runbook.runbook.clone())
        .collect();
    Matched::Runbooks {
        domain,
        runbooks,
        subjects,
    }
}

/// Hosts that labels name, and labels that should name one but do not.
fn subjects(
    topology: &Topology,
    alert: &Alert,
) -> (BTreeSet<HostName>, Vec<(&'static str, String)>) {
    let (mut subjects, mut strangers) = (BTreeSet::new(), Vec::new());
    for label in HOST_LABELS {
        let Some(value) = alert.labels.get(label).filter(|value| !value.is_empty()) else {
            continue;
        };
        match topology.host_named(value) {
            Some(host) => drop(subjects.insert(host.clone())),
            None => strangers.push((label, value.clone())),
        }
    }
    (subjects, strangers)
}

fn shown(name: &str) -> &str {
    if name.is_empty() {
        "an alert without a name"
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use collectors::{SourceName, Status};
    use jiff::Timestamp;

    use super::*;
    use crate::topology::Deployed;

    fn alert(name: &str, labels: &[(&str, &str)]) -> Alert {
        Alert {
            source: SourceName("am".into()),
            fingerprint: "0".into(),
            name: name.into(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            annotations: BTreeMap::new(),
            status: Status::Firing,
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: None,
            generator_url: String::new(),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn matched(name: &str, labels: &[(&str, &str)]) -> Matched {
        let members: Vec<HostName> = vec!["ctl1".parse().unwrap(), "ctl2".parse().unwrap()];
        let topology = Topology {
            site: "demo".into(),
            hosts: members
                .iter()
                .enumerate()
                .map(|(n, host)| (host.clone(), format!("10.77.0.1{}", n + 1)))
                .collect(),
            services: ["mariadb", "rabbitmq"]
                .map(|name| {
                    (
                        name.parse().unwrap(),
                        Deployed {
                            members: members.clone(),
                            settings: BTreeMap::new(),
                        },
                    )
                })
                .into(),
            ..Topology::default()
        };
        match_alert(
            &Library::embedded().unwrap(),
            &topology,
            &alert(name, labels),
        )
    }

    fn runbooks(matched: &Matched) -> Vec<&str> {
        match matched {
            Matched::Runbooks { runbooks, .. } => runbooks.iter().map(|id| id.0.as_str()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_service_of_an_alert_is_the_runbooks_not_a_labels() {
        let found = matched(
            "GaleraNodeDown",
            &[("instance", "10.77.0.12:9104"), ("service", "rabbitmq")],
        );
        assert_eq!(runbooks(&found), ["GAL-1", "GAL-5"]);
        let Matched::Runbooks {
            domain, subjects, ..
        } = found
        else {
            unreachable!()
        };
        assert_eq!(domain, Domain::Service("mariadb".parse().unwrap()));
        assert_eq!(subjects, ["ctl2".parse().unwrap()].into());
        assert_eq!(
            runbooks(&matched("RabbitmqPartition", &[])),
            ["RMQ-1"],
            "an aggregate without labels"
        );
        assert_eq!(
            runbooks(&matched("rabbitMQnodeDOWN", &[])),
            ["RMQ-2"],
            "spelling differs between rule sets"
        );
    }

    #[rstest::rstest]
    #[case("Odd", &[], "no runbook is about Odd")]
    #[case("", &[], "no runbook is about an alert without a name")]
    #[case("RabbitmqNodeDown", &[("instance", "10.77.0.99:15692")], "names no host or address of this site")]
    #[case("RabbitmqNodeDown", &[("instance", "ctl1.evil;reboot")], "names no host or address of this site")]
    #[case("MemcachedDown", &[("host", "ctl1")], "memcached, which is not deployed on demo")]
    #[case("UnitFailed", &[], "names 0")]
    #[case("UnitFailed", &[("host", "ctl1"), ("instance", "ctl2")], "names 2")]
    #[case("HostDown", &[("host", "gone")], "does not name one of this site")]
    fn told_only(#[case] name: &str, #[case] labels: &[(&str, &str)], #[case] part: &str) {
        match matched(name, labels) {
            Matched::TellOnly { why, .. } => assert!(why.contains(part), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(
            matched("HostDown", &[("host", "ctl2")]),
            Matched::HostDown {
                host: "ctl2".parse().unwrap()
            }
        );
        let found = matched(
            "UnitFailed",
            &[
                ("host", "ctl2"),
                ("name", "$(reboot).service"),
                ("instance", "10.77.0.12:9808"),
            ],
        );
        assert_eq!(runbooks(&found), ["HOST-7"]);
        let Matched::Runbooks { domain, .. } = found else {
            unreachable!()
        };
        assert_eq!(domain, Domain::Host("ctl2".parse().unwrap()));
    }
}
