//! Which incident an alert belongs to, and which incident waits for which: by the site's topology, not by labels alone.

use std::collections::BTreeMap;

use collectors::Alert;
use deploy_engine::model::HostName;

use super::{Because, Claim, Domain, Incident, IncidentId, View, alert_key};
use crate::{matching::Matched, topology::Topology};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    Existing(IncidentId),
    /// Another incident explains it.
    Explained(IncidentId, Because),
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
        Matched::HostDown { host, .. } => Domain::Host(host.clone()),
        Matched::TellOnly { .. } | Matched::Gate { .. } => {
            Domain::Alert(format!("{}/{}", alert.source, alert.name))
        }
    }
}

/// Pure. Alerts of the same service, whichever member they name, are one incident, and what another incident explains joins that;
/// an alert that is known stays where it is.
pub fn place(view: &View<'_>, claim: &Claim, alert: &Alert) -> Placement {
    let incidents = view.incidents;
    let wanted = claim.domain.clone();
    if let Some(known) = incidents.with_alert(&alert_key(alert)) {
        return Placement::Existing(known.id.clone());
    }
    let own = incidents.about(&wanted);
    // What is worked on, or was, stays together.
    if own.is_none_or(Incident::is_light)
        && let Some((cause, because)) = view.cause(claim)
    {
        return Placement::Explained(cause.clone(), because);
    }
    if let Some(incident) = own {
        return Placement::Existing(incident.id.clone());
    }
    let told = |one: &&Incident| one.is_open() && matches!(one.domain, Domain::Alert(_));
    if !matches!(wanted, Domain::Alert(_))
        || incidents.values().filter(told).count() < TELL_ONLY_MAX
    {
        return Placement::New(wanted);
    }
    let further = Domain::Alert(format!("{}/{FURTHER}", alert.source));
    match incidents.about(&further) {
        Some(incident) => Placement::Existing(incident.id.clone()),
        None => Placement::New(further),
    }
}

/// Pure. The incident of a host that is down, if it explains this one: causes in a lower layer come first. `down`: hosts that
/// open incidents say are down; `asked`: those that were asked now, and whether they answered. What answers is not down, whoever says so:
/// a monitoring that is cut off from it cannot know better.
pub fn waits_for<'a>(
    incident: &Incident,
    topology: &Topology,
    asked: &BTreeMap<HostName, bool>,
    down: &'a [(HostName, IncidentId)],
) -> Option<&'a (HostName, IncidentId)> {
    let about = |host: &HostName| match &incident.domain {
        Domain::Host(own) => own == host,
        Domain::Service(service) => {
            topology
                .members(service)
                .is_some_and(|members| members.contains(host))
                && (incident.subjects.contains(host) || asked.contains_key(host))
        }
        Domain::Alert(_) => false,
    };
    let is_away = |host: &HostName| asked.get(host) != Some(&true);
    down.iter()
        .find(|(host, id)| *id != incident.id && is_away(host) && about(host))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub fn incident(id: &str, domain: Domain) -> Incident {
        Incident::opened(IncidentId(id.into()), domain, jiff::Timestamp::UNIX_EPOCH)
    }

    pub fn alert(name: &str, fingerprint: usize) -> Alert {
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
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        testing::{alert, incident},
        *,
    };
    use crate::{
        decision::testing::host, incident::Incidents, library::Library, topology::Deployed,
    };

    fn place(incidents: &Incidents, matched: &Matched, alert: &Alert) -> Placement {
        let view = View {
            incidents,
            library: &Library::default(),
            topology: &Topology::default(),
            now: jiff::Timestamp::UNIX_EPOCH,
            settles: jiff::SignedDuration::ZERO,
        };
        super::place(&view, &Claim::of(view.library, matched, alert), alert)
    }

    fn about(service: &str) -> Matched {
        let domain = Domain::Service(service.parse().unwrap());
        Matched::Runbooks {
            domain,
            runbooks: vec![],
            subjects: BTreeSet::new(),
            service: None,
        }
    }

    fn told() -> Matched {
        Matched::TellOnly {
            why: String::new(),
            subjects: BTreeSet::new(),
            service: None,
        }
    }

    #[test]
    fn alerts_of_one_service_are_one_incident() {
        let rabbitmq = incident("i1", Domain::Service("rabbitmq".parse().unwrap()));
        let mut closed = rabbitmq.clone();
        closed.closed_at = Some(jiff::Timestamp::UNIX_EPOCH);
        let open = Incidents::from_iter([rabbitmq]);
        let closed = Incidents::from_iter([closed]);
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
        let placed = place(&Incidents::default(), &told(), &alert("Odd", 7));
        assert_eq!(placed, Placement::New(Domain::Alert("am/Odd".into())));
        let open = Incidents::from_iter([incident("i1", Domain::Alert("am/Odd".into()))]);
        let placed = place(&open, &told(), &alert("Odd", 8));
        assert_eq!(placed, Placement::Existing(IncidentId("i1".into())));
    }

    #[test]
    fn very_many_names_share_one_incident() {
        let name = |n: usize| incident(&format!("i{n}"), Domain::Alert(format!("am/N{n}")));
        let mut open: Incidents = (0..TELL_ONLY_MAX).map(name).collect();
        let further = Domain::Alert(format!("am/{FURTHER}"));
        let placed = place(&open, &told(), &alert("One more", 1));
        assert_eq!(placed, Placement::New(further.clone()));
        open.insert(incident("rest", further));
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
        (0..count).for_each(|n| drop(one.hear(&alert("Odd", n))));
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
        let none = BTreeMap::new();
        assert_eq!(
            waits_for(&service, &topology, &none, &down),
            None,
            "it may be about another member"
        );
        assert_eq!(
            waits_for(&service, &topology, &[(host("h2"), false)].into(), &down),
            Some(&down[0])
        );
        service.subjects.insert(host("h2"));
        assert_eq!(waits_for(&service, &topology, &none, &down), Some(&down[0]));
        let own = incident("i9", Domain::Host(host("h2")));
        assert_eq!(waits_for(&own, &topology, &none, &down), None);
        let unit = incident("i2", Domain::Host(host("h2")));
        assert_eq!(waits_for(&unit, &topology, &none, &down), Some(&down[0]));
        let it_answers = [(host("h2"), true)].into();
        for about in [&service, &unit] {
            assert_eq!(waits_for(about, &topology, &it_answers, &down), None);
        }
    }
}
