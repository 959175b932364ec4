//! Which incident an alert belongs to, and which incident waits for which: by the site's topology, not by labels alone.

use std::collections::{BTreeMap, BTreeSet};

use collectors::Alert;
use deploy_engine::model::HostName;

use super::{Domain, Incident, IncidentId, alert_key};
use crate::{matching::Matched, topology::Topology};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Existing(IncidentId),
    New(Domain),
}

/// Open incidents about alerts that nothing is repaired for; alerts of further names share one. People cannot read more.
pub const TELL_ONLY_MAX: usize = 200;
/// The name of that one. An alert that really has this name joins it, which harms nothing.
const FURTHER: &str = "(further names)";

/// The domain of an alert: its service as a whole, its host, or its name alone.
pub fn domain(matched: &Matched, alert: &Alert) -> Domain {
    match matched {
        Matched::Runbooks { domain, .. } => domain.clone(),
        Matched::HostDown { host } => Domain::Host(host.clone()),
        Matched::TellOnly { .. } => Domain::Alert(format!("{}/{}", alert.source, alert.name)),
    }
}

/// Pure. Alerts of the same service, whichever member they name, are one incident; an alert that is known stays where it is.
pub fn place(
    incidents: &BTreeMap<IncidentId, Incident>,
    matched: &Matched,
    alert: &Alert,
) -> Placement {
    let open = || incidents.values().filter(|one| one.is_open());
    let key = alert_key(alert);
    let of = |domain: &Domain| open().find(|one| one.domain == *domain);
    let wanted = domain(matched, alert);
    let found = open().find(|one| one.has(&key)).or_else(|| of(&wanted));
    if let Some(incident) = found {
        return Placement::Existing(incident.id.clone());
    }
    let is_told = |domain: &Domain| matches!(domain, Domain::Alert(_));
    if !is_told(&wanted) || open().filter(|one| is_told(&one.domain)).count() < TELL_ONLY_MAX {
        return Placement::New(wanted);
    }
    let further = Domain::Alert(format!("{}/{FURTHER}", alert.source));
    match of(&further) {
        Some(incident) => Placement::Existing(incident.id.clone()),
        None => Placement::New(further),
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
            more: BTreeSet::new(),
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

    fn alert(name: &str, fingerprint: usize) -> Alert {
        Alert {
            source: collectors::SourceName("am".into()),
            fingerprint: format!("{fingerprint:x}"),
            name: name.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            status: collectors::Status::Firing,
            starts_at: jiff::Timestamp::UNIX_EPOCH,
            ends_at: None,
            generator_url: String::new(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn all(incidents: impl IntoIterator<Item = Incident>) -> BTreeMap<IncidentId, Incident> {
        incidents
            .into_iter()
            .map(|one| (one.id.clone(), one))
            .collect()
    }

    fn told() -> Matched {
        Matched::TellOnly {
            why: String::new(),
            subjects: BTreeSet::new(),
        }
    }

    #[test]
    fn alerts_of_one_service_are_one_incident() {
        let rabbitmq = incident("i1", Domain::Service("rabbitmq".parse().unwrap()));
        let mut closed = rabbitmq.clone();
        closed.closed_at = Some(jiff::Timestamp::UNIX_EPOCH);
        let (open, closed) = (all([rabbitmq]), all([closed]));
        let one = alert("X", 1);
        let existing = Placement::Existing(IncidentId("i1".into()));
        assert_eq!(place(&open, &about("rabbitmq"), &one), existing);
        let mariadb = Domain::Service("mariadb".parse().unwrap());
        assert_eq!(
            place(&open, &about("mariadb"), &one),
            Placement::New(mariadb)
        );
        let placed = place(&closed, &about("rabbitmq"), &one);
        assert!(matches!(placed, Placement::New(_)));
    }

    #[test]
    fn alerts_of_one_name_that_only_people_can_help_are_one_incident() {
        let placed = place(&BTreeMap::new(), &told(), &alert("Odd", 7));
        assert_eq!(placed, Placement::New(Domain::Alert("am/Odd".into())));
        let open = all([incident("i1", Domain::Alert("am/Odd".into()))]);
        let placed = place(&open, &told(), &alert("Odd", 8));
        assert_eq!(placed, Placement::Existing(IncidentId("i1".into())));
    }

    #[test]
    fn very_many_names_share_one_incident() {
        let name = |n: usize| incident(&format!("i{n}"), Domain::Alert(format!("am/N{n}")));
        let mut open = all((0..TELL_ONLY_MAX).map(name));
        let further = Domain::Alert(format!("am/{FURTHER}"));
        let placed = place(&open, &told(), &alert("One more", 1));
        assert_eq!(placed, Placement::New(further.clone()));
        open.extend(all([incident("rest", further)]));
        let placed = place(&open, &told(), &alert("And one", 2));
        assert_eq!(placed, Placement::Existing(IncidentId("rest".into())));
        // A repair is never folded away.
        let placed = place(&open, &about("mariadb"), &alert("X", 3));
        assert!(matches!(placed, Placement::New(Domain::Service(_))));
    }

    #[test]
    fn an_incident_ends_with_the_last_of_very_many_alerts() {
        let mut one = incident("i1", Domain::Alert("am/Odd".into()));
        let count = crate::incident::ALERTS_KEPT + 50;
        (0..count).for_each(|n| one.hear(&alert("Odd", n)));
        assert_eq!((one.known_alerts(), one.more.len()), (count, 50));
        for n in 0..count {
            assert!(one.is_firing(), "{n} of {count} have ended");
            let mut ended = alert("Odd", n);
            ended.status = collectors::Status::Resolved;
            one.hear(&ended);
        }
        assert!(!one.is_firing());
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
