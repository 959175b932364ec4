//! The plan of a removal: units stopped first, then everything that the service brought.

use std::collections::BTreeSet;

use super::{
    Change, Goal, Parts, Plan, PlanRefusal, Refused, SiteObserved,
    assemble::{Assembly, GlobalKey},
    finish,
    member::{apply, change},
    precheck,
    roll::host_draft,
};
use crate::{
    model::{HostName, Model, ServiceName},
    wire::{Resource, ResourceId, State},
};

/// Stopping waits for systemd's own limits, for a few units in a row.
const STOP_SECONDS: u32 = 360;
/// Purging packages and deleting data directories on slow disks.
const DELETE_SECONDS: u32 = 1800;

pub fn plan(
    model: &Model,
    goal: &Goal,
    service: &ServiceName,
    observed: &SiteObserved,
) -> Result<Plan, PlanRefusal> {
    let by: Vec<&str> = model
        .services
        .iter()
        .filter(|(_, other)| other.spec.needs.contains(service))
        .map(|(name, _)| name.as_str())
        .collect();
    if !by.is_empty() {
        return Err(PlanRefusal::StillNeeded {
            service: service.clone(),
            by: by.join(", "),
        });
    }
    let mut parts = Parts {
        steps: Vec::new(),
        changes: Vec::new(),
        interruptions: 0,
        refused: Vec::new(),
        warnings: Vec::new(),
        prechecks: Vec::new(),
    };
    let mut drafts = Vec::new();
    for host in model.members(service) {
        let found = match judge(model, service, host, observed, &mut parts) {
            Ok(found) => found,
            Err(refused) => {
                parts.refused.push(refused);
                continue;
            }
        };
        let (stop, delete): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|resource| matches!(resource, Resource::Unit { .. }));
        parts.interruptions += u32::try_from(stop.len()).unwrap_or(u32::MAX);
        let stopping = GlobalKey::Removal(host.clone(), "stop");
        if let Some(work) = apply(observed, host, &stop, true) {
            let title = format!("stop {service} on {host}");
            let mut draft = host_draft(stopping.clone(), title, host, work, STOP_SECONDS);
            draft.service = Some(service.clone());
            drafts.push(draft);
        }
        // Purging a package takes its files along, so what was seen of them need not hold.
        if let Some(work) = apply(observed, host, &delete, false) {
            let key = GlobalKey::Removal(host.clone(), "delete");
            let title = format!("remove {service} from {host}");
            let mut draft = host_draft(key, title, host, work, DELETE_SECONDS);
            draft.service = Some(service.clone());
            draft.needs = vec![stopping];
            drafts.push(draft);
        }
    }
    if drafts.is_empty() && !parts.refused.is_empty() {
        return Err(PlanRefusal::Refused(parts.refused));
    }
    parts.steps = Assembly::new(model, &drafts).steps()?;
    Ok(finish(model, goal, observed, parts))
}

/// What has to go from one host.
fn judge(
    model: &Model,
    service: &ServiceName,
    host: &HostName,
    observed: &SiteObserved,
    parts: &mut Parts,
) -> Result<Vec<Resource>, Refused> {
    let refuse = |why: String, remedy: &str| Refused {
        service: Some(service.clone()),
        host: Some(host.clone()),
        why,
        remedy: remedy.to_owned(),
    };
    let seen = observed.seen(host).map_err(|why| {
        let why = format!("the host cannot be reached: {why}");
        refuse(why, "plan again when it is back")
    })?;
    if let Some(failed) = precheck::hands_off(host, seen).failure() {
        return Err(refuse(failed.0, &failed.1));
    }
    let kept = wanted_by_others(model, service, host);
    let removal = model.member(service, host).map(|member| &member.removal);
    let mut list = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    for resource in removal.into_iter().flatten() {
        let id = resource.id();
        if let Some(other) = kept.iter().find(|kept| keeps(kept, resource)) {
            let warning = format!("{host}: {id} stays, another service uses {other}");
            parts.warnings.push(warning);
            continue;
        }
        match seen.observations.get(&id).map(|found| &found.state) {
            Some(State::Same) => {}
            Some(State::WillChange { diff }) => {
                changes.push(change(service, host, resource, diff));
                list.push(resource.clone());
            }
            Some(State::Cannot { why } | State::Unknown { why }) => {
                return Err(refuse(format!("{id}: {why}"), "mend that and plan again"));
            }
            None => {
                let why = format!("the host said nothing about {id}");
                return Err(refuse(why, "plan again"));
            }
        }
    }
    parts.changes.extend(changes);
    Ok(list)
}

fn wanted_by_others(model: &Model, service: &ServiceName, host: &HostName) -> BTreeSet<ResourceId> {
    model
        .services_on(host)
        .filter(|other| *other != service)
        .flat_map(|other| model.rendered(other, host))
        .map(|entry| entry.resource.id())
        .collect()
}

/// Is it the same thing, or a directory that holds it?
fn keeps(kept: &ResourceId, removed: &Resource) -> bool {
    if *kept == removed.id() {
        return true;
    }
    let Resource::Directory { path, .. } = removed else {
        return false;
    };
    let inside = kept.0.split_once(':').map_or("", |(_, path)| path);
    inside.starts_with(&format!("{}/", path.trim_end_matches('/')))
}
