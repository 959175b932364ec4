//! Which open incident explains an alert: causes in a lower layer come first. Pure, and the same in whichever order alerts arrive.
//!
//! A service that cannot do without another fails with it; what names a host that is down fails with the host. What is explained
//! joins the incident of its cause. It leaves again when the cause is mended and proven and it still fires, or when nothing is done
//! about the cause while there is a repair for the symptom itself: then the cause is not known to be one.

use std::collections::BTreeSet;

use collectors::Alert;
use deploy_engine::{
    model::{HostName, ServiceName},
    probe,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Domain, Incident, IncidentId, Incidents, State, alert_key, correlate::domain};
use crate::{format::Class, library::Library, matching::Matched, topology::Topology};

/// What began so long before a cause was heard of has another one; the alert of the cause may wait for a quarter of an hour itself.
const BEFORE: SignedDuration = SignedDuration::from_mins(30);
/// Hosts of one rack that go down within this time of each other go down with the rack.
const RACK_TOGETHER: SignedDuration = SignedDuration::from_mins(10);

/// What an alert says about where it belongs: all that is needed to judge anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub name: String,
    /// The incident that it would open.
    pub domain: Domain,
    /// The service whose symptom it is.
    pub service: Option<ServiceName>,
    pub subjects: BTreeSet<HostName>,
    pub host_down: bool,
    /// There is a repair for it; and the services that its repairs look at themselves.
    pub acts: bool,
    pub reads: BTreeSet<ServiceName>,
    pub starts_at: Timestamp,
}

/// Why an incident explains an alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Because {
    /// It is of the same service.
    Same {
        service: ServiceName,
    },
    /// Its service cannot do without the other.
    Needs {
        service: ServiceName,
        on: ServiceName,
    },
    Host {
        host: HostName,
    },
    Rack {
        rack: String,
    },
}

/// An alert that another incident explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symptom {
    pub claim: Claim,
    pub because: Because,
}

/// What is looked at to find a cause.
pub struct View<'a> {
    pub incidents: &'a Incidents,
    pub library: &'a Library,
    pub topology: &'a Topology,
    pub now: Timestamp,
    /// How long after its proof an incident still explains what began before.
    pub settles: SignedDuration,
}

impl Claim {
    pub fn of(library: &Library, matched: &Matched, alert: &Alert) -> Self {
        let domain = domain(matched, alert);
        let mut claim = Self {
            name: alert.name.clone(),
            domain,
            service: None,
            subjects: BTreeSet::new(),
            host_down: false,
            acts: false,
            reads: BTreeSet::new(),
            starts_at: alert.starts_at,
        };
        match matched {
            Matched::Runbooks {
                domain,
                runbooks,
                subjects,
                service,
            } => {
                let own = match domain {
                    Domain::Service(own) => Some(own.clone()),
                    Domain::Host(_) | Domain::Alert(_) => None,
                };
                claim.service = service.clone().or(own);
                claim.subjects = subjects.clone();
                let all = runbooks.iter().filter_map(|id| library.get(id));
                for runbook in all {
                    claim.acts |= runbook.class != Class::Diagnosis;
                    let probes = runbook.evidence.iter().filter_map(|name| probe::find(name));
                    let of = probes.filter_map(|probe| probe.service()?.parse().ok());
                    claim.reads.extend(of);
                }
            }
            Matched::HostDown { host, .. } => {
                claim.subjects = [host.clone()].into();
                claim.host_down = true;
            }
            Matched::TellOnly {
                subjects, service, ..
            } => {
                claim.service = service.clone();
                claim.subjects = subjects.clone();
            }
            Matched::Gate { .. } => {}
        }
        claim
    }

    /// Services that may be its cause, beyond its own.
    fn lower<'t>(&self, topology: &'t Topology) -> BTreeSet<&'t ServiceName> {
        let Some(service) = &self.service else {
            return BTreeSet::new();
        };
        let mut lower = topology.depends_on(service);
        lower.retain(|on| !topology.depends_on(on).contains(service));
        lower.retain(|on| !(self.acts && self.reads.contains(*on)));
        lower
    }

    /// Something that is deployed here may turn out to be its cause.
    pub fn may_be_symptom(&self, topology: &Topology) -> bool {
        // Something else may be told of the same service, with a repair of its own.
        let of_its_own =
            !self.acts && self.service.is_some() && !matches!(self.domain, Domain::Service(_));
        !self.host_down && (of_its_own || !self.lower(topology).is_empty())
    }
}

impl View<'_> {
    /// The open incident that explains it: the lowest there is.
    pub fn cause(&self, claim: &Claim) -> Option<(&IncidentId, Because)> {
        if claim.service.is_none() && claim.subjects.is_empty() {
            return None;
        }
        let open = self.incidents.values().filter(|one| one.is_open());
        let found = open.filter_map(|one| Some((one, self.explains(one, claim)?)));
        // A host comes before services; of services the one that none of the others explains.
        let rank = |(one, because): &(&Incident, Because)| {
            let below = match &one.domain {
                Domain::Service(on) => self.topology.depends_on(on).len(),
                Domain::Host(_) | Domain::Alert(_) => 0,
            };
            let kind = match because {
                Because::Rack { .. } => 0,
                Because::Host { .. } => 1,
                Because::Same { .. } => 2,
                Because::Needs { .. } => 3,
            };
            (kind, below, one.domain.clone())
        };
        found
            .min_by_key(rank)
            .map(|(one, because)| (&one.id, because))
    }

    fn explains(&self, cause: &Incident, claim: &Claim) -> Option<Because> {
        let earlier = |began: Timestamp| began.duration_since(claim.starts_at) > BEFORE;
        if cause.domain == claim.domain
            || !self.is_believed(cause, claim)
            || cause.first_start().is_some_and(earlier)
        {
            return None;
        }
        match &cause.domain {
            Domain::Service(on) => self.of_service(on, claim),
            Domain::Host(host) => self.of_host(cause, host, claim),
            Domain::Alert(_) => None,
        }
    }

    /// Something is known or done about the cause, and the alert is not from after that.
    fn is_believed(&self, cause: &Incident, claim: &Claim) -> bool {
        match &cause.state {
            State::Resolved { .. } => false,
            State::Healed { at, .. } => {
                claim.starts_at <= *at && self.now.duration_since(*at) < self.settles
            }
            State::Refused { .. }
            | State::TellOnly { .. }
            | State::Unproven { .. }
            | State::Shadow { .. } => !claim.acts && cause.is_firing(),
            State::Acting { .. } | State::Proving { .. } => true,
            State::Open | State::Holding { .. } | State::Asking { .. } | State::Approved { .. } => {
                cause.is_firing()
            }
        }
    }

    fn of_service(&self, on: &ServiceName, claim: &Claim) -> Option<Because> {
        let service = claim.service.clone().filter(|_| !claim.host_down)?;
        if service == *on {
            return Some(Because::Same { service });
        }
        let on = claim.lower(self.topology).get(on).map(|on| (*on).clone())?;
        Some(Because::Needs { service, on })
    }

    fn of_host(&self, cause: &Incident, host: &HostName, claim: &Claim) -> Option<Because> {
        if !cause.is_host_down() {
            return None;
        }
        if claim.host_down {
            let other = claim.subjects.first()?;
            let rack = self.topology.racks.get(host)?;
            let began = cause.first_start()?;
            let apart = claim.starts_at.duration_since(began).abs();
            let same = self.topology.racks.get(other) == Some(rack) && apart <= RACK_TOGETHER;
            // One of two is the other's cause, never both: the name decides.
            return (same && host < other).then(|| Because::Rack { rack: rack.clone() });
        }
        let down = cause.hosts_down();
        let only = claim
            .subjects
            .iter()
            .next()
            .filter(|_| claim.subjects.len() == 1)?;
        let explained = !claim.acts && down.contains(only);
        explained.then(|| Because::Host { host: only.clone() })
    }
}

/// An alert that belongs elsewhere than where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Into the incident of its cause.
    Joins {
        key: String,
        from: IncidentId,
        to: IncidentId,
        symptom: Box<Symptom>,
    },
    /// Nothing explains it any more.
    Leaves { key: String, from: IncidentId },
}

impl Incident {
    /// Nothing has been done about it yet: it may turn out to be a symptom.
    pub(crate) fn is_light(&self) -> bool {
        let idle = matches!(
            self.state,
            State::Open
                | State::Holding { .. }
                | State::Refused { .. }
                | State::Shadow { .. }
                | State::TellOnly { .. }
        );
        idle && self.unproven.is_empty() && self.is_open()
    }
}

/// Everything that must move, given how things are. Applying it and asking again comes to an end: causes are lower than what they
/// explain. Pure. `claim`: what an alert of an incident says.
pub fn regroup(view: &View<'_>, claim: impl Fn(&Alert) -> Claim) -> Vec<Move> {
    let mut moves = Vec::new();
    for incident in view.incidents.values().filter(|one| one.is_open()) {
        for (key, symptom) in &incident.explained {
            match view.cause(&symptom.claim) {
                Some((cause, _)) if *cause == incident.id => {}
                Some((cause, because)) => moves.push(Move::Joins {
                    key: key.clone(),
                    from: incident.id.clone(),
                    to: cause.clone(),
                    symptom: Box::new(Symptom {
                        claim: symptom.claim.clone(),
                        because,
                    }),
                }),
                None => moves.push(Move::Leaves {
                    key: key.clone(),
                    from: incident.id.clone(),
                }),
            }
        }
        if !incident.is_light() {
            continue;
        }
        let firing = incident.alerts.values();
        let firing = firing.filter(|alert| alert.status == collectors::Status::Firing);
        for alert in firing {
            let claim = claim(alert);
            if let Some((cause, because)) = view.cause(&claim)
                && *cause != incident.id
            {
                moves.push(Move::Joins {
                    key: alert_key(alert),
                    from: incident.id.clone(),
                    to: cause.clone(),
                    symptom: Box::new(Symptom { claim, because }),
                });
            }
        }
    }
    moves
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
