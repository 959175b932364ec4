//! From an alert to the runbooks that may be about it, and the hosts it names.
//!
//! An alert is a reason to look, not a diagnosis: many name no host, and some name the exporter instead of what failed. The table
//! of alerts says which label means what; a label is only ever compared with the site's own names and addresses.

use std::collections::BTreeSet;

use collectors::Alert;
use deploy_engine::model::{HostName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::{
    alerts::{self, Destination, Found, Gate, Mapping, Named, ServiceBy, candidates, named},
    format::{Class, Lock, Runbook, RunbookId},
    incident::Domain,
    library::Library,
    topology::Topology,
};

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
        /// The service whose symptom it is.
        service: Option<ServiceName>,
    },
    /// A host is away. Nothing is repaired, but it explains other incidents; `runbooks` are diagnoses.
    HostDown {
        host: HostName,
        runbooks: Vec<RunbookId>,
    },
    TellOnly {
        why: String,
        /// Hosts that the rule of its metric says are meant.
        subjects: BTreeSet<HostName>,
        /// The service whose symptom it is.
        service: Option<ServiceName>,
    },
    /// It is about the monitoring itself.
    Gate { gate: Gate },
}

/// Pure.
pub fn match_alert(library: &Library, topology: &Topology, alert: &Alert) -> Matched {
    match library.alerts().find(alert) {
        Found::Mapped(mapping) => mapped(library, topology, alert, &mapping),
        Found::Depends(rows) => {
            let sets: BTreeSet<&str> = rows.iter().map(|row| row.set.as_str()).collect();
            let sets = sets.into_iter().collect::<Vec<_>>().join(" and ");
            let why = format!("{} means different things in {sets}", shown(&alert.name));
            unknown(topology, alert, why)
        }
        Found::Unknown => {
            let why = format!("no runbook is about {}", shown(&alert.name));
            unknown(topology, alert, why)
        }
    }
}

/// People are told what its labels may mean; nothing is done on the strength of it.
fn unknown(topology: &Topology, alert: &Alert, why: String) -> Matched {
    let hosts = candidates(topology, alert);
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    let why = match names[..] {
        [] => why,
        _ => format!("{why}; its labels name {}", names.join(", ")),
    };
    Matched::TellOnly {
        why,
        subjects: BTreeSet::new(),
        service: None,
    }
}

fn mapped(library: &Library, topology: &Topology, alert: &Alert, mapping: &Mapping) -> Matched {
    let named = named(mapping, topology, alert);
    match &mapping.destination {
        Destination::Gate(gate) => Matched::Gate { gate: *gate },
        Destination::HostDown(ids) => host_down(library, ids, named),
        // A diagnosis changes nothing: it looks for the people who are told.
        Destination::Page(ids) if ids.iter().any(|id| is_diagnosis(library, id)) => {
            looked_into(library, topology, &diagnoses(library, ids), named)
        }
        Destination::Page(ids) => {
            let why = match ids.is_empty() {
                true => format!("{} is for people", shown(&alert.name)),
                false => format!("{}: that is for people", titles(ids)),
            };
            tell(why, named)
        }
        Destination::Runbook(ids) | Destination::Diagnosis(ids) => {
            by_service(library, topology, ids, mapping.service_by, named)
        }
    }
}

fn diagnoses(library: &Library, ids: &[RunbookId]) -> Vec<RunbookId> {
    let diagnoses = ids.iter().filter(|id| is_diagnosis(library, id));
    diagnoses.cloned().collect()
}

pub(crate) fn is_diagnosis(library: &Library, id: &RunbookId) -> bool {
    library
        .get(id)
        .is_some_and(|runbook| runbook.class == Class::Diagnosis)
}

fn host_down(library: &Library, ids: &[RunbookId], named: Named) -> Matched {
    match named.hosts.iter().collect::<Vec<_>>()[..] {
        [host] => Matched::HostDown {
            host: host.clone(),
            runbooks: diagnoses(library, ids),
        },
        _ => {
            let why = "a host is said to be down, but the alert does not name one of this site";
            tell(why.to_owned(), named)
        }
    }
}

/// Of runbooks about different services the one that looks is that of the service which the alert names (ADR 23).
fn by_service(
    library: &Library,
    topology: &Topology,
    ids: &[RunbookId],
    by: Option<ServiceBy>,
    named: Named,
) -> Matched {
    let all = library.with_variants(ids);
    let there: Vec<&Runbook> = all.iter().filter_map(|id| library.get(id)).collect();
    let services: BTreeSet<&ServiceName> = there.iter().map(|runbook| &runbook.service).collect();
    let Some(by) = by.filter(|_| services.len() > 1) else {
        return looked_into(library, topology, &all, named);
    };
    let about = there
        .iter()
        .filter(|runbook| Some(&runbook.service) == named.service.as_ref());
    let about: Vec<RunbookId> = about.map(|runbook| runbook.runbook.clone()).collect();
    match (about.is_empty(), &named.service) {
        (false, _) => looked_into(library, topology, &about, named),
        (true, Some(service)) => {
            let why = format!("none of {} is about {service}", titles(ids));
            tell(why, named)
        }
        (true, None) => {
            let why = format!("{}: {by} names no service of this site", titles(ids));
            tell(why, named)
        }
    }
}

/// The runbooks that there are of `ids`, if what the alert names is of this site.
fn looked_into(library: &Library, topology: &Topology, ids: &[RunbookId], named: Named) -> Matched {
    let candidates: Vec<&Runbook> = ids.iter().filter_map(|id| library.get(id)).collect();
    let Some(first) = candidates.first() else {
        return tell(
            format!("there is no runbook yet for {}", titles(ids)),
            named,
        );
    };
    if let Some((label, value)) = named.strangers.first().filter(|_| named.hosts.is_empty()) {
        let why = format!("the label {label}={value:?} names no host or address of this site");
        return tell(why, named);
    }
    let is_deployed = |runbook: &&Runbook| topology.members(&runbook.service).is_some();
    let deployed: Vec<&Runbook> = candidates.iter().copied().filter(is_deployed).collect();
    let Some(runbook) = deployed.first() else {
        let why = format!(
            "{} is about {}, which is not deployed on {}",
            first.runbook, first.service, topology.site
        );
        return tell(why, named);
    };
    let domain = match (
        runbook.lock,
        named.hosts.iter().collect::<Vec<_>>().as_slice(),
    ) {
        (Lock::Service, _) => Domain::Service(runbook.service.clone()),
        (Lock::Host, [host]) => Domain::Host((*host).clone()),
        (Lock::Host, hosts) => {
            let why = format!(
                "{} is about one host; the alert names {}",
                runbook.runbook,
                hosts.len()
            );
            return tell(why, named);
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
        subjects: named.hosts,
        service: named.service,
    }
}

fn tell(why: String, named: Named) -> Matched {
    Matched::TellOnly {
        why,
        subjects: named.hosts,
        service: named.service,
    }
}

/// For example `CEPH-5 (Ceph is getting full)`.
pub fn titles(ids: &[RunbookId]) -> String {
    let title = |id: &RunbookId| match alerts::catalogue().get(&id.0) {
        Some(title) => format!("{id} ({title})"),
        None => id.to_string(),
    };
    ids.iter().map(title).collect::<Vec<_>>().join(", ")
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

    fn of_target(library: &Library, service: &str, job: &str) -> Matched {
        let mut topology = Topology {
            site: "demo".into(),
            hosts: [("ctl1".parse().unwrap(), "10.77.0.11".to_owned())].into(),
            ..Topology::default()
        };
        let deployed = Deployed {
            members: vec!["ctl1".parse().unwrap()],
            ..Deployed::default()
        };
        let service: ServiceName = service.parse().unwrap();
        topology.services.insert(service.clone(), deployed);
        topology.scrape_jobs.insert("here".into(), service);
        let labels = [("instance", "10.77.0.11:9100"), ("job", job)];
        match_alert(library, &topology, &alert("TargetDown", &labels))
    }

    #[rstest::rstest]
    #[case("node_exporter", "MON-1")]
    #[case("mysqld_exporter", "MON-1M")]
    #[case("signs_exporter", "MON-1S")]
    #[case("alertmanager", "MON-4")]
    fn of_several_runbooks_the_one_of_the_service_that_the_alert_names(
        #[case] service: &str,
        #[case] runbook: &str,
    ) {
        let found = of_target(&Library::embedded().unwrap(), service, "here");
        assert_eq!(runbooks(&found), [runbook]);
        let Matched::Runbooks { domain, .. } = found else {
            unreachable!()
        };
        assert_eq!(domain, Domain::Service(service.parse().unwrap()));
    }

    #[rstest::rstest]
    #[case("haproxy", "here", "is about haproxy")]
    #[case("node_exporter", "elsewhere", "names no service of this site")]
    fn a_service_without_one_is_told(#[case] service: &str, #[case] job: &str, #[case] part: &str) {
        match of_target(&Library::embedded().unwrap(), service, job) {
            Matched::TellOnly { why, service, .. } => {
                assert!(why.contains(part), "{why}");
                // What else is wrong with it explains it.
                assert_eq!(service.is_some(), job == "here");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_letter_makes_a_variant() {
        let id = |text: &str| RunbookId(text.into());
        assert!(id("MON-1M").is_variant_of(&id("MON-1")));
        for other in ["MON-1", "MON-11", "MON-1MM", "MON-2M", "MON-1m"] {
            assert!(!id(other).is_variant_of(&id("MON-1")), "{other}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(
            matched("HostDown", &[("host", "ctl2")]),
            Matched::HostDown {
                host: "ctl2".parse().unwrap(),
                runbooks: vec![RunbookId("HOST-6".into())],
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
