//! The plan of a deploy: members judged, prechecks, packages of a host together, services rolled by their logic.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Change, Goal, Parts, Plan, PlanRefusal, Precheck, Refused, SiteObserved, Verdict,
    assemble::{Assembly, GlobalKey, PlanDraft},
    finish,
    member::{self, MemberView, apply},
    precheck,
};
use crate::{
    job::{Action, Effect},
    logic::{self, DraftKey, MemberChange, Role, ServiceContext, StepDraft},
    model::{HostName, Model, Secs, ServiceName, before},
    wire::{Resource, Work},
};

/// Hundreds of packages over a slow line fit; a mirror that hangs does not hold a deploy for ever.
const FETCH_SECONDS: u32 = 1800;
/// Packages of a whole controller on slow disks fit.
const INSTALL_SECONDS: u32 = 1800;
const REPOSITORIES_SECONDS: u32 = 60;
/// Users, grants and policies of one service, over its own API.
const PROVISION_SECONDS: u32 = 180;

pub fn plan(
    model: &Model,
    goal: &Goal,
    services: &[ServiceName],
    observed: &SiteObserved,
) -> Result<Plan, PlanRefusal> {
    let mut roll = Roll {
        model,
        observed,
        views: BTreeMap::new(),
        refused: Vec::new(),
        unreachable: BTreeSet::new(),
        prechecks: Vec::new(),
        warnings: Vec::new(),
        changes: Vec::new(),
        drafts: Vec::new(),
        lost: BTreeSet::new(),
        interruptions: 0,
    };
    for service in services {
        roll.judge(service);
    }
    roll.check_hosts();
    let rolled: Vec<_> = services.iter().map(|s| (s, roll.roll(s))).collect();
    roll.install(&rolled);
    for (service, drafts) in rolled {
        roll.add(service, drafts);
    }
    let nothing_left = roll.drafts.is_empty() && !roll.refused.is_empty();
    if nothing_left && (matches!(goal, Goal::Service(_)) || roll.all_unreachable(services)) {
        return Err(PlanRefusal::Refused(roll.refused));
    }
    let steps = Assembly::new(model, &roll.drafts).steps()?;
    let parts = Parts {
        steps,
        changes: roll.changes,
        interruptions: roll.interruptions,
        refused: roll.refused,
        warnings: roll.warnings,
        prechecks: roll.prechecks,
    };
    Ok(finish(model, goal, observed, parts))
}

struct Roll<'a> {
    model: &'a Model,
    observed: &'a SiteObserved,
    views: BTreeMap<(ServiceName, HostName), MemberView>,
    refused: Vec<Refused>,
    unreachable: BTreeSet<HostName>,
    prechecks: Vec<Precheck>,
    warnings: Vec<String>,
    changes: Vec<Change>,
    drafts: Vec<PlanDraft>,
    /// Services that are refused as a whole.
    lost: BTreeSet<ServiceName>,
    interruptions: u32,
}

type Rolled = Vec<StepDraft>;

impl Roll<'_> {
    fn all_unreachable(&self, services: &[ServiceName]) -> bool {
        services
            .iter()
            .flat_map(|service| self.model.members(service))
            .all(|host| self.unreachable.contains(host))
    }

    /// Views of the members that answered; what cannot be judged is refused.
    fn judge(&mut self, service: &ServiceName) {
        for host in self.model.members(service) {
            if let Err(why) = self.observed.seen(host) {
                self.unreachable.insert(host.clone());
                self.refused.push(Refused {
                    service: Some(service.clone()),
                    host: Some(host.clone()),
                    why: format!("the host cannot be reached: {why}"),
                    remedy: "it stays a member; plan again when it is back".to_owned(),
                });
                continue;
            }
            let view = member::view(self.model, self.observed, service, host);
            if !view.refused.is_empty() {
                self.refused.extend(view.refused);
                continue;
            }
            self.views.insert((service.clone(), host.clone()), view);
        }
    }

    /// Prechecks of the members that change; a failed one takes the member out of the plan.
    fn check_hosts(&mut self) {
        let mut out = Vec::new();
        let mut checked = BTreeSet::new();
        for ((service, host), view) in &self.views {
            let Ok(seen) = self.observed.seen(host) else {
                continue;
            };
            if !view.changes_anything() {
                continue;
            }
            if checked.insert(host.clone()) {
                self.prechecks.extend(precheck::host(host, seen));
            }
            self.prechecks.extend(precheck::member(
                self.model,
                self.observed,
                service,
                host,
                view,
            ));
        }
        for check in &self.prechecks {
            match &check.verdict {
                Verdict::Pass => {}
                Verdict::Warn { why } => {
                    let of = check.service.as_ref().map(|s| format!("{s} on "));
                    let of = of.unwrap_or_default();
                    self.warnings.push(format!("{of}{}: {why}", check.host));
                }
                Verdict::Fail { why, remedy } | Verdict::Unknown { why, remedy } => {
                    out.push((check.service.clone(), check.host.clone()));
                    self.refused.push(Refused {
                        service: check.service.clone(),
                        host: Some(check.host.clone()),
                        why: format!("{}: {why}", check.name),
                        remedy: remedy.clone(),
                    });
                }
            }
        }
        self.views.retain(|(service, host), view| {
            !view.changes_anything()
                || !out.iter().any(|(refused, on)| {
                    on == host && refused.as_ref().is_none_or(|refused| refused == service)
                })
        });
    }

    /// The drafts of one service; none when nothing changes or it is refused.
    fn roll(&mut self, service: &ServiceName) -> Rolled {
        let Some(deployment) = self.model.services.get(service) else {
            return Vec::new();
        };
        let usable: Vec<HostName> = deployment
            .members
            .iter()
            .filter(|host| self.views.contains_key(&(service.clone(), (*host).clone())))
            .cloned()
            .collect();
        if usable.is_empty() {
            self.lost.insert(service.clone());
            return Vec::new();
        }
        let changes = self.member_changes(service, &usable);
        if changes.is_empty() {
            return Vec::new();
        }
        if let Some(need) = deployment.spec.needs.iter().find(|n| self.lost.contains(n)) {
            let why = format!("it needs {need}, which is refused");
            self.refuse(service, why, format!("mend {need} first"));
            return Vec::new();
        }
        let context = ServiceContext {
            model: self.model,
            service,
            deployment,
            usable: &usable,
        };
        let name = deployment.spec.rollout.logic.as_deref();
        let Some(logic) = logic::find(name) else {
            let why = format!("there is no logic {}", name.unwrap_or_default());
            self.refuse(service, why, String::new());
            return Vec::new();
        };
        match logic.rollout(&context, &self.observed.readings, &changes) {
            Ok(drafts) => drafts,
            Err(refusal) => {
                self.refuse(service, refusal.why, refusal.remedy);
                Vec::new()
            }
        }
    }

    fn refuse(&mut self, service: &ServiceName, why: String, remedy: String) {
        self.lost.insert(service.clone());
        self.views.retain(|(name, _), _| name != service);
        self.refused.push(Refused {
            service: Some(service.clone()),
            host: None,
            why,
            remedy,
        });
    }

    /// Members with something to configure or activate. One that only gets packages is activated, too: its units start later.
    fn member_changes(&self, service: &ServiceName, usable: &[HostName]) -> Vec<MemberChange> {
        usable
            .iter()
            .filter_map(|host| {
                let view = self.views.get(&(service.clone(), host.clone()))?;
                let brings_units = view
                    .configure
                    .iter()
                    .any(|resource| resource.id().0.contains("/systemd/"));
                let as_seen = !view.installs();
                view.changes_anything().then(|| MemberChange {
                    host: host.clone(),
                    configure: apply(self.observed, host, &view.configure, as_seen),
                    activate: apply(
                        self.observed,
                        host,
                        &view.activate,
                        as_seen && !brings_units,
                    ),
                    acts: view.acts.clone(),
                })
            })
            .collect()
    }

    /// Repositories and packages of each host, all services together, fetched and installed once.
    fn install(&mut self, rolled: &[(&ServiceName, Rolled)]) {
        let mut hosts: BTreeMap<HostName, (Vec<Resource>, Vec<Resource>)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (service, _) in rolled {
            for host in self.model.members(service) {
                let Some(view) = self.views.get(&((*service).clone(), host.clone())) else {
                    continue;
                };
                let entry = hosts.entry(host.clone()).or_default();
                for (list, resources) in [
                    (&mut entry.0, &view.repositories),
                    (&mut entry.1, &view.packages),
                ] {
                    for resource in resources {
                        if seen.insert((host.clone(), resource.id())) {
                            list.push(resource.clone());
                        }
                    }
                }
            }
        }
        for (host, (repositories, packages)) in hosts {
            self.install_host(&host, &repositories, &packages);
        }
    }

    fn install_host(&mut self, host: &HostName, repositories: &[Resource], packages: &[Resource]) {
        let mut before = Vec::new();
        if let Some(work) = apply(self.observed, host, repositories, true) {
            let key = GlobalKey::Repositories(host.clone());
            let title = format!("add package sources on {host}");
            self.drafts.push(host_draft(
                key.clone(),
                title,
                host,
                work,
                REPOSITORIES_SECONDS,
            ));
            before.push(key);
        }
        let names: Vec<String> = packages.iter().filter_map(package_name).collect();
        let Some(work) = apply(self.observed, host, packages, repositories.is_empty()) else {
            return;
        };
        let count = match names.len() {
            1 => "1 package".to_owned(),
            more => format!("{more} packages"),
        };
        let fetch = GlobalKey::Fetch(host.clone());
        let title = format!("fetch {count} for {host}");
        let fetching = Work::Fetch { packages: names };
        let mut draft = host_draft(fetch.clone(), title, host, fetching, FETCH_SECONDS);
        draft.needs = before;
        self.drafts.push(draft);
        let title = format!("install {count} on {host}");
        let key = GlobalKey::Install(host.clone());
        let mut draft = host_draft(key, title, host, work, INSTALL_SECONDS);
        draft.needs = vec![fetch];
        self.drafts.push(draft);
    }

    fn add(&mut self, service: &ServiceName, drafts: Rolled) {
        let members = self.model.members(service).iter();
        let usable: Vec<HostName> = members
            .filter(|host| self.views.contains_key(&(service.clone(), (*host).clone())))
            .cloned()
            .collect();
        let guards = self.need_guards(service);
        let activates = drafts.iter().any(|draft| draft.role != Role::Configure);
        for host in &usable {
            let Some(view) = self.views.get(&(service.clone(), host.clone())) else {
                continue;
            };
            for change in &view.changes {
                // A package that several services want is one change.
                let same =
                    |known: &Change| known.host == change.host && known.resource == change.resource;
                if !self.changes.iter().any(same) {
                    self.changes.push(change.clone());
                }
            }
            let acts = &view.acts;
            let interrupted = acts.restart.len() + acts.reload.len() + acts.stop.len();
            self.interruptions += u32::try_from(interrupted).unwrap_or(u32::MAX);
        }
        for mut draft in drafts {
            if draft.role == Role::Start {
                draft.guards.extend(guards.iter().cloned());
            }
            let installed = |host: &HostName| {
                let view = self.views.get(&(service.clone(), host.clone()));
                view.is_some_and(MemberView::installs)
            };
            self.drafts.push(PlanDraft::of(service, draft, installed));
        }
        if let Some(host) = usable.first() {
            self.provision(service, host, activates);
        }
    }

    /// A needed service without a step in this plan must be healthy when this one starts.
    fn need_guards(&self, service: &ServiceName) -> Vec<crate::condition::ConditionCall> {
        let Some(deployment) = self.model.services.get(service) else {
            return Vec::new();
        };
        let planned = |name: &ServiceName| {
            let mut drafts = self.drafts.iter();
            drafts.any(|draft| draft.service.as_ref() == Some(name))
        };
        deployment
            .spec
            .needs
            .iter()
            .filter(|need| !planned(need))
            .filter_map(|need| {
                let up: Vec<HostName> = self
                    .model
                    .members(need)
                    .iter()
                    .filter(|host| !self.unreachable.contains(*host))
                    .cloned()
                    .collect();
                if up.is_empty() {
                    return None;
                }
                self.model.health(need, &up)
            })
            .collect()
    }

    fn provision(&mut self, service: &ServiceName, host: &HostName, activates: bool) {
        let Some(view) = self.views.get(&(service.clone(), host.clone())) else {
            return;
        };
        if !view.provision_refused.is_empty() {
            self.refused.extend(view.provision_refused.iter().cloned());
            return;
        }
        let Some(work) = apply(self.observed, host, &view.provision, !activates) else {
            return;
        };
        self.changes.extend(view.provision_changes.iter().cloned());
        let key = GlobalKey::Provision(service.clone());
        let title = format!("provision {service} on {host}");
        let mut draft = host_draft(key, title, host, work, PROVISION_SECONDS);
        draft.service = Some(service.clone());
        draft.needs = vec![GlobalKey::Gates(service.clone(), Some(host.clone()))];
        self.drafts.push(draft);
    }
}

fn package_name(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Package {
            name,
            version: Some(version),
            ..
        } => Some(format!("{name}={version}")),
        Resource::Package { name, .. } => Some(name.clone()),
        _ => None,
    }
}

pub fn host_draft(
    key: GlobalKey,
    title: String,
    host: &HostName,
    work: Work,
    seconds: u32,
) -> PlanDraft {
    PlanDraft {
        key: key.clone(),
        service: None,
        role: Role::Other,
        hosts: vec![host.clone()],
        needs: Vec::new(),
        step: StepDraft {
            key: DraftKey(format!("{key:?}")),
            title,
            role: Role::Other,
            action: Action::Host {
                host: host.clone(),
                work,
            },
            effect: Effect::Converge,
            timeout: Secs(seconds),
            needs: Vec::new(),
            guards: Vec::new(),
            unless: None,
            undo: None,
        },
    }
}

/// The deployed services that `service` waits for.
pub fn services_before(model: &Model, service: &ServiceName) -> Vec<ServiceName> {
    model
        .services
        .get(service)
        .map_or_else(Vec::new, |deployment| {
            before(&deployment.spec, &model.services)
                .into_iter()
                .cloned()
                .collect()
        })
}
