//! One service on one host: what of it has to change, and what cannot be judged.

use super::{Change, Refused, Sign, SiteObserved, unit_acts};
use crate::{
    logic::UnitActs,
    model::{HostName, Model, Phase, Rendered, ServiceName},
    wire::{Observation, Resource, State, Work},
};

/// Shown instead of a sensitive file's diff.
const NOT_SHOWN: &str = "content changes (not shown)";

/// What has to change of one member.
#[derive(Clone, Debug, Default)]
pub struct MemberView {
    pub repositories: Vec<Resource>,
    pub packages: Vec<Resource>,
    pub configure: Vec<Resource>,
    pub activate: Vec<Resource>,
    pub provision: Vec<Resource>,
    pub acts: UnitActs,
    /// Without those of `provision`: only one member is provisioned.
    pub changes: Vec<Change>,
    pub provision_changes: Vec<Change>,
    pub refused: Vec<Refused>,
    pub provision_refused: Vec<Refused>,
}

impl MemberView {
    pub fn changes_anything(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Packages or their sources change, so nothing that was seen of files and units holds afterwards.
    pub fn installs(&self) -> bool {
        !(self.packages.is_empty() && self.repositories.is_empty())
    }
}

pub fn view(
    model: &Model,
    observed: &SiteObserved,
    service: &ServiceName,
    host: &HostName,
) -> MemberView {
    let mut view = MemberView::default();
    for entry in model.rendered(service, host) {
        let id = entry.resource.id();
        let refuse = |why: String| Refused {
            service: Some(service.clone()),
            host: Some(host.clone()),
            why: format!("{id}: {why}"),
            remedy: "mend that and plan again".to_owned(),
        };
        let found = observed.observation(host, &id);
        let refused = match found.map(|found| &found.state) {
            Some(State::Same) => continue,
            Some(State::WillChange { diff }) => {
                let change = change(service, host, &entry.resource, diff);
                take(&mut view, entry, found, change);
                continue;
            }
            Some(State::Cannot { why }) => refuse(why.clone()),
            Some(State::Unknown { why }) => refuse(format!("its state is unknown: {why}")),
            None => refuse("the host said nothing about it".to_owned()),
        };
        match entry.phase {
            Phase::Provision => view.provision_refused.push(refused),
            _ => view.refused.push(refused),
        }
    }
    view
}

fn take(view: &mut MemberView, entry: &Rendered, found: Option<&Observation>, change: Change) {
    let list = match (entry.phase, &entry.resource) {
        (Phase::Packages, Resource::AptRepository { .. }) => &mut view.repositories,
        (Phase::Packages, _) => &mut view.packages,
        (Phase::Configure, _) => &mut view.configure,
        (Phase::Activate, _) => &mut view.activate,
        (Phase::Provision, _) => &mut view.provision,
    };
    list.push(entry.resource.clone());
    if let (Resource::Unit { name, .. }, Some(found)) = (&entry.resource, found) {
        unit_acts::collect(name, &found.state, &mut view.acts);
    }
    match entry.phase {
        Phase::Provision => view.provision_changes.push(change),
        _ => view.changes.push(change),
    }
}

pub fn change(
    service: &ServiceName,
    host: &HostName,
    resource: &Resource,
    diff: &[String],
) -> Change {
    let diff = match resource {
        Resource::File {
            sensitive: true, ..
        } => vec![NOT_SHOWN.to_owned()],
        _ => diff.to_vec(),
    };
    Change {
        host: host.clone(),
        service: service.clone(),
        resource: resource.id(),
        sign: sign(resource, &diff),
        diff,
    }
}

fn sign(resource: &Resource, diff: &[String]) -> Sign {
    let (absent, has_content) = match resource {
        Resource::Package { absent, .. }
        | Resource::Directory { absent, .. }
        | Resource::AptRepository { absent, .. }
        | Resource::Group { absent, .. }
        | Resource::User { absent, .. }
        | Resource::Sysctl { absent, .. }
        | Resource::SqlDatabase { absent, .. }
        | Resource::SqlUser { absent, .. }
        | Resource::RabbitmqVhost { absent, .. }
        | Resource::RabbitmqUser { absent, .. }
        | Resource::RabbitmqPolicy { absent, .. } => (*absent, false),
        Resource::File { absent, .. } => (*absent, true),
        Resource::Unit { running, .. } => (*running == Some(false), false),
        Resource::Archive { .. } => (false, true),
        Resource::Command { .. } | Resource::SqlGrant { .. } => (false, false),
    };
    let takes_away = diff
        .iter()
        .any(|line| line.starts_with('-') && !line.starts_with("---"));
    match resource {
        _ if absent => Sign::Remove,
        Resource::Unit { .. } => Sign::Alter,
        _ if has_content && takes_away => Sign::Alter,
        Resource::File {
            sensitive: true, ..
        } => Sign::Alter,
        _ => Sign::Add,
    }
}

/// The work that brings `resources` about; `None` when there is nothing to do. `as_seen`: nothing earlier in the plan changes
/// what was observed of them, so the agent is to stop on drift.
pub fn apply(
    observed: &SiteObserved,
    host: &HostName,
    resources: &[Resource],
    as_seen: bool,
) -> Option<Work> {
    if resources.is_empty() {
        return None;
    }
    let steady = resources
        .iter()
        // A command's guard is asked by the agent itself, right before it would run.
        .filter(|resource| as_seen && !matches!(resource, Resource::Command { .. }));
    let expected = steady
        .filter_map(|resource| {
            let id = resource.id();
            let digest = observed.observation(host, &id)?.digest.clone();
            Some((id, digest))
        })
        .collect();
    Some(Work::Apply {
        resources: resources.to_vec(),
        expected,
    })
}
