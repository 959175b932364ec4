//! What is asked of hosts for a plan, and what they said.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Goal, PlanRefusal, goal_services, order, precheck};
use crate::{
    logic::{self, ServiceContext},
    model::{HostName, Model, Phase, ServiceName},
    probe::{self, Ask, Reading, Readings},
    transport::Observe,
    wire::{Facts, Observation, ProbeResult, Resource, ResourceId},
};

/// The whole site as it was seen.
#[derive(Clone, Debug, Default)]
pub struct SiteObserved {
    pub hosts: BTreeMap<HostName, HostView>,
    /// What the roll-out logics asked.
    pub readings: Readings,
}

#[derive(Clone, Debug)]
pub enum HostView {
    Seen(Box<HostSeen>),
    Unreachable { why: String },
}

/// One host as it was seen.
#[derive(Clone, Debug, Default)]
pub struct HostSeen {
    pub facts: Facts,
    pub observations: BTreeMap<ResourceId, Observation>,
    pub probes: BTreeMap<String, ProbeResult>,
    /// By the bot's clock.
    pub asked_at: Timestamp,
    pub answered_at: Timestamp,
}

impl SiteObserved {
    pub fn seen(&self, host: &HostName) -> Result<&HostSeen, String> {
        match self.hosts.get(host) {
            Some(HostView::Seen(seen)) => Ok(seen),
            Some(HostView::Unreachable { why }) => Err(why.clone()),
            None => Err("it was not asked".to_owned()),
        }
    }

    pub fn observation(&self, host: &HostName, id: &ResourceId) -> Option<&Observation> {
        self.seen(host).ok()?.observations.get(id)
    }
}

/// What the resources of a goal are on one host: each once, in the order in which they would be applied.
pub fn resources(model: &Model, goal: &Goal, host: &HostName) -> Vec<Resource> {
    let services = match goal {
        Goal::Remove(service) => {
            let member = model.member(service, host);
            return member.map_or_else(Vec::new, |member| member.removal.clone());
        }
        Goal::Service(service) => vec![service.clone()],
        Goal::Site => order::by_needs(model),
    };
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    let mut take = |wanted: fn(Phase) -> bool| {
        for service in &services {
            for entry in model.rendered(service, host) {
                if wanted(entry.phase) && seen.insert(entry.resource.id()) {
                    list.push(entry.resource.clone());
                }
            }
        }
    };
    take(|phase| phase == Phase::Packages);
    take(|phase| matches!(phase, Phase::Configure | Phase::Activate));
    take(|phase| phase == Phase::Provision);
    // Repositories come before the packages that they bring.
    list.sort_by_key(|resource| match resource {
        Resource::AptRepository { .. } => 0,
        Resource::Package { .. } => 1,
        _ => 2,
    });
    list
}

/// The one exchange of each host that the goal concerns.
///
/// # Errors
/// The goal names a service that the site does not have.
pub fn questions(model: &Model, goal: &Goal) -> Result<BTreeMap<HostName, Observe>, PlanRefusal> {
    let services = goal_services(model, goal)?;
    let mut questions: BTreeMap<HostName, Observe> = BTreeMap::new();
    for service in &services {
        for host in model.members(service) {
            let ask = questions.entry(host.clone()).or_insert_with(|| Observe {
                facts: true,
                resources: resources(model, goal, host),
                probes: BTreeMap::new(),
            });
            ask.probes.extend(precheck::questions(model, service, host));
        }
    }
    for ask in logic_asks(model, goal, &services) {
        let request = worded(model, &ask);
        if let (Some(observe), Some((key, request))) = (questions.get_mut(&ask.host), request) {
            observe.probes.insert(key, request);
        }
    }
    Ok(questions)
}

fn logic_asks(model: &Model, goal: &Goal, services: &[ServiceName]) -> Vec<Ask> {
    if matches!(goal, Goal::Remove(_)) {
        return Vec::new();
    }
    let mut asks = Vec::new();
    for service in services {
        let Some(deployment) = model.services.get(service) else {
            continue;
        };
        let Some(logic) = logic::find(deployment.spec.rollout.logic.as_deref()) else {
            continue;
        };
        asks.extend(logic.asks(&ServiceContext {
            model,
            service,
            deployment,
            usable: &deployment.members,
        }));
    }
    asks
}

fn worded(model: &Model, ask: &Ask) -> Option<(String, crate::wire::Probe)> {
    let probe = probe::find(&ask.probe)?;
    let service = service_of(ask, probe.service());
    let context = model.probe_context(service.as_ref(), &ask.host)?;
    Some((key(ask), probe.request(&context)))
}

fn service_of(ask: &Ask, default: Option<&str>) -> Option<ServiceName> {
    ask.service
        .clone()
        .or_else(|| default.and_then(|name| name.parse().ok()))
}

fn key(ask: &Ask) -> String {
    format!("logic {}", ask.probe)
}

/// The logics' questions answered, from the same exchange.
pub fn readings(
    model: &Model,
    goal: &Goal,
    hosts: &BTreeMap<HostName, HostView>,
    now: Timestamp,
) -> Readings {
    let mut readings = Readings::default();
    let Ok(services) = goal_services(model, goal) else {
        return readings;
    };
    for ask in logic_asks(model, goal, &services) {
        let answer = match hosts.get(&ask.host) {
            Some(HostView::Seen(seen)) => match seen.probes.get(&key(&ask)) {
                Some(ProbeResult::Failed { why }) => Err(why.clone()),
                Some(result) => probe::find(&ask.probe)
                    .ok_or_else(|| format!("there is no probe {}", ask.probe))
                    .and_then(|probe| probe.parse(result)),
                None => Err("the host left out the answer".to_owned()),
            },
            Some(HostView::Unreachable { why }) => Err(why.clone()),
            None => Err("the host was not asked".to_owned()),
        };
        let reading = match answer {
            Ok(value) => Reading::Known { value, at: now },
            Err(why) => Reading::Unknown { why, at: now },
        };
        readings.insert(&ask.probe, ask.host.clone(), reading);
    }
    readings
}
