//! Which incident an alert belongs to, and which incident waits for which: by the site's topology, not by labels alone.

use std::collections::BTreeSet;

use deploy_engine::model::HostName;

use super::{Domain, Incident, IncidentId};
use crate::{matching::Matched, topology::Topology};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Existing(IncidentId),
    New(Domain),
}

/// The domain of an alert: its service as a whole, its host, or the alert alone.
pub fn domain(matched: &Matched, alert_key: &str) -> Domain {
    match matched {
        Matched::Runbooks { domain, .. } => domain.clone(),
        Matched::HostDown { host } => Domain::Host(host.clone()),
        Matched::TellOnly { .. } => Domain::Alert(alert_key.to_owned()),
    }
}

/// Pure. Alerts of the same service, whichever member they name, are one incident; an alert that is known stays where it is.
pub fn place(open: &[Incident], matched: &Matched, alert_key: &str) -> Placement {
    let known = open
        .iter()
        .find(|one| one.is_open() && one.alerts.contains_key(alert_key));
    let domain = domain(matched, alert_key);
    let same = || {
        open.iter()
            .find(|one| one.is_open() && one.domain == domain)
    };
    match known.or_else(same) {
        Some(incident) => Placement::Existing(incident.id.clone()),
        None => Placement::New(domain),
    }
}

/// Pure. The incident of a host that is down, if it explains this one: causes in a lower layer come first. `down`: hosts that
/// open incidents say are down.
pub fn waits_for<'a>(
    incident: &Incident,
    topology: &Topology,
    unreachable: &BTreeSet<HostName>,
    down: &'a [(HostName, IncidentId)],
) -> Option<&'a (HostName, IncidentId)> {
    let about = |host: &HostName| match &incident.domain {
        Domain::Host(own) => own == host,
        Domain::Service(service) => {
            topology
                .members(service)
                .is_some_and(|members| members.contains(host))
                && (incident.subjects.contains(host) || unreachable.contains(host))
        }
        Domain::Alert(_) => false,
    };
    down.iter()
        .find(|(host, id)| *id != incident.id && about(host))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{decision::testing::host, incident::State, topology::Deployed};

    fn incident(id: &str, domain: Domain) -> Incident {
        Incident {
            id: IncidentId(id.into()),
            domain,
            opened_at: jiff::Timestamp::UNIX_EPOCH,
            closed_at: None,
            state: State::Open,
            since: jiff::Timestamp::UNIX_EPOCH,
            alerts: BTreeMap::new(),
            subjects: BTreeSet::new(),
            runbooks: vec![],
            steady: BTreeMap::new(),
            jobs: vec![],
            unproven: vec![],
            under: None,
            tell_only: None,
        }
    }

    fn about(service: &str) -> Matched {
        let domain = Domain::Service(service.parse().unwrap());
        Matched::Runbooks {
            domain,
            runbooks: vec![],
            subjects: BTreeSet::new(),
        }
    }

    #[test]
    fn alerts_of_one_service_are_one_incident() {
        let open = [incident("i1", Domain::Service("rabbitmq".parse().unwrap()))];
        assert_eq!(
            place(&open, &about("rabbitmq"), "am/1"),
            Placement::Existing(IncidentId("i1".into()))
        );
        assert_eq!(
            place(&open, &about("mariadb"), "am/1"),
            Placement::New(Domain::Service("mariadb".parse().unwrap()))
        );
        let mut closed = open.clone();
        closed[0].closed_at = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(matches!(
            place(&closed, &about("rabbitmq"), "am/1"),
            Placement::New(_)
        ));
        let told = Matched::TellOnly {
            why: String::new(),
            subjects: BTreeSet::new(),
        };
        assert_eq!(
            place(&[], &told, "am/7"),
            Placement::New(Domain::Alert("am/7".into()))
        );
    }

    #[test]
    fn a_host_that_is_down_comes_first() {
        let topology = Topology {
            services: [(
                "rabbitmq".parse().unwrap(),
                Deployed {
                    members: vec![host("h1"), host("h2")],
                    settings: BTreeMap::new(),
                },
            )]
            .into(),
            ..Topology::default()
        };
        let down = [(host("h2"), IncidentId("i9".into()))];
        let mut service = incident("i1", Domain::Service("rabbitmq".parse().unwrap()));
        let none = BTreeSet::new();
        assert_eq!(
            waits_for(&service, &topology, &none, &down),
            None,
            "it may be about another member"
        );
        assert_eq!(
            waits_for(&service, &topology, &[host("h2")].into(), &down),
            Some(&down[0])
        );
        service.subjects.insert(host("h2"));
        assert_eq!(waits_for(&service, &topology, &none, &down), Some(&down[0]));
        let own = incident("i9", Domain::Host(host("h2")));
        assert_eq!(waits_for(&own, &topology, &none, &down), None);
        let unit = incident("i2", Domain::Host(host("h2")));
        assert_eq!(waits_for(&unit, &topology, &none, &down), Some(&down[0]));
    }
}
