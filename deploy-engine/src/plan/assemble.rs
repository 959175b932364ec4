//! Drafts → numbered steps: names of needs become edges, and every step comes after what it needs.

use std::collections::{BTreeMap, BTreeSet};

use super::{PlanRefusal, roll::services_before};
use crate::{
    job::{Step, StepId},
    logic::{DraftKey, Need, Role, StepDraft},
    model::{HostName, Model, ServiceName},
};

/// A draft's name in the whole plan, or a group of drafts that can be waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GlobalKey {
    Repositories(HostName),
    Fetch(HostName),
    Install(HostName),
    Service(ServiceName, DraftKey),
    Provision(ServiceName),
    Removal(HostName, &'static str),
    /// The health gates of a service (those of one host); without any, what starts its members.
    Gates(ServiceName, Option<HostName>),
}

pub struct PlanDraft {
    pub key: GlobalKey,
    pub service: Option<ServiceName>,
    pub role: Role,
    /// The hosts it is about.
    pub hosts: Vec<HostName>,
    pub needs: Vec<GlobalKey>,
    pub step: StepDraft,
}

impl PlanDraft {
    /// A logic's draft. `installed`: does this plan install the service's packages on that host?
    pub fn of(
        service: &ServiceName,
        step: StepDraft,
        installed: impl Fn(&HostName) -> bool,
    ) -> Self {
        let mut needs = Vec::new();
        for need in &step.needs {
            match need {
                Need::Draft(key) => needs.push(GlobalKey::Service(service.clone(), key.clone())),
                Need::Installed(host) if installed(host) => {
                    needs.push(GlobalKey::Repositories(host.clone()));
                    needs.push(GlobalKey::Install(host.clone()));
                }
                Need::Installed(_) => {}
                // Resolved by the assembly, which knows the needs of services.
                Need::ServicesBefore => needs.push(GlobalKey::Gates(service.clone(), None)),
            }
        }
        Self {
            key: GlobalKey::Service(service.clone(), step.key.clone()),
            service: Some(service.clone()),
            role: step.role,
            hosts: step.action.hosts().into_iter().cloned().collect(),
            needs,
            step,
        }
    }
}

pub struct Assembly<'a> {
    model: &'a Model,
    drafts: &'a [PlanDraft],
    by_key: BTreeMap<&'a GlobalKey, usize>,
}

impl<'a> Assembly<'a> {
    pub fn new(model: &'a Model, drafts: &'a [PlanDraft]) -> Self {
        let by_key = drafts.iter().enumerate().map(|(i, draft)| (&draft.key, i));
        Self {
            model,
            drafts,
            by_key: by_key.collect(),
        }
    }

    /// Numbered so that needs come first; among equals the drafts' order stays.
    pub fn steps(&self) -> Result<Vec<Step>, PlanRefusal> {
        let needs: Vec<BTreeSet<usize>> = self.drafts.iter().map(|d| self.edges(d)).collect();
        let mut numbers: BTreeMap<usize, StepId> = BTreeMap::new();
        let mut steps = Vec::new();
        while steps.len() < self.drafts.len() {
            let ready = (0..self.drafts.len()).find(|index| {
                !numbers.contains_key(index)
                    && needs[*index].iter().all(|need| numbers.contains_key(need))
            });
            let Some(index) = ready else {
                return Err(self.circular(&numbers));
            };
            let id = StepId(u32::try_from(steps.len()).unwrap_or(u32::MAX));
            let step = &self.drafts[index].step;
            steps.push(Step {
                id,
                title: step.title.clone(),
                service: self.drafts[index].service.clone(),
                action: step.action.clone(),
                effect: step.effect,
                needs: needs[index]
                    .iter()
                    .filter_map(|need| numbers.get(need).copied())
                    .collect(),
                timeout: step.timeout,
                guards: step.guards.clone(),
                unless: step.unless.clone(),
                undo: step.undo.clone(),
            });
            numbers.insert(index, id);
        }
        Ok(steps)
    }

    fn circular(&self, done: &BTreeMap<usize, StepId>) -> PlanRefusal {
        let left: BTreeSet<&str> = self
            .drafts
            .iter()
            .enumerate()
            .filter(|(index, _)| !done.contains_key(index))
            .filter_map(|(_, draft)| draft.service.as_ref().map(ServiceName::as_str))
            .collect();
        PlanRefusal::Circular {
            services: left.into_iter().collect::<Vec<_>>().join(", "),
        }
    }

    fn edges(&self, draft: &PlanDraft) -> BTreeSet<usize> {
        let mut edges = BTreeSet::new();
        for need in &draft.needs {
            match need {
                // A service's own drafts wait for the services before it; provisioning waits for its own gates.
                GlobalKey::Gates(service, host) => {
                    let own = matches!(draft.key, GlobalKey::Provision(_));
                    if own {
                        edges.extend(self.gates(service, host.as_ref()));
                    } else {
                        for before in services_before(self.model, service) {
                            edges.extend(self.gates(&before, None));
                            edges.extend(self.by_key.get(&GlobalKey::Provision(before)));
                        }
                    }
                }
                key => edges.extend(self.by_key.get(key)),
            }
        }
        edges
    }

    fn gates(&self, service: &ServiceName, host: Option<&HostName>) -> Vec<usize> {
        let of = |roles: &[Role]| -> Vec<usize> {
            self.drafts
                .iter()
                .enumerate()
                .filter(|(_, draft)| draft.service.as_ref() == Some(service))
                .filter(|(_, draft)| roles.contains(&draft.role))
                .filter(|(_, draft)| !matches!(draft.key, GlobalKey::Provision(_)))
                .filter(|(_, draft)| host.is_none_or(|host| draft.hosts.contains(host)))
                .map(|(index, _)| index)
                .collect()
        };
        let wanted: [&[Role]; 3] = [
            &[Role::Health],
            &[Role::Start, Role::Restart],
            &[Role::Configure, Role::Other],
        ];
        wanted
            .into_iter()
            .map(of)
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }
}
