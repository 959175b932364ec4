//! How a job over many hosts is shared out: hosts whose steps need no other host are put into batches, and each batch is one step
//! of the job, that is done by a job of its own, on any bot. Pure.
//!
//! What stays with the job itself: everything about more than one host, everything guarded (two guarded steps of one service must
//! never run at the same time, and only one driver can see to that), and hosts that need another one before or in between.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Effect, HOLD_LIMIT_SECONDS, Step, StepId};
use crate::model::{HostName, Secs};

/// Most hosts of one batch: few enough that a bot that dies leaves little to be asked for again, enough that writing a batch's
/// own journal and lease costs nothing beside its hosts.
pub const BATCH_HOSTS: usize = 16;

/// Fewer hosts than two full batches are nothing that one bot could not do alone.
pub const SHARED_FROM_HOSTS: usize = 2 * BATCH_HOSTS;

/// The same work with as many hosts as can be in batches, or the same steps if that is not worth it. `model`: the digest of what
/// the steps were planned with; a bot that has read something else leaves the batches alone.
///
/// Whatever stays and needs a step of a batch needs the whole batch.
pub fn share_out(steps: Vec<Step>, model: &str) -> Vec<Step> {
    let owners: Vec<Option<&HostName>> = steps.iter().map(owner).collect();
    let hosts = alone(&steps, &owners);
    if hosts.len() < SHARED_FROM_HOSTS {
        return steps;
    }
    let count = hosts.len().div_ceil(BATCH_HOSTS);
    // As even as can be: host i of n is in batch i · count / n.
    let batch_of: BTreeMap<&HostName, usize> = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| (*host, at * count / hosts.len()))
        .collect();
    let batch_of = |at: usize| owners[at].and_then(|host| batch_of.get(host).copied());
    let (mut batches, mut rest) = (vec![Vec::new(); count], Vec::new());
    for at in 0..steps.len() {
        match batch_of(at) {
            Some(batch) => batches[batch].push(at),
            None => rest.push(at),
        }
    }
    // Where each step of the job is found in the new one.
    let mut found: Vec<StepId> = vec![StepId(0); steps.len()];
    for (number, batch) in batches.iter().enumerate() {
        batch.iter().for_each(|&at| found[at] = id(number));
    }
    for (number, &at) in rest.iter().enumerate() {
        found[at] = id(count + number);
    }
    let shared = batches
        .iter()
        .enumerate()
        .map(|(number, batch)| batch_step(number, &steps, batch, model));
    let kept = rest.iter().map(|&at| renumbered(&steps[at], &found));
    shared.chain(kept).collect()
}

/// Hosts of which every step is their own and needs only their own, in the order of their first steps.
fn alone<'a>(steps: &[Step], owners: &[Option<&'a HostName>]) -> Vec<&'a HostName> {
    let mut bound: BTreeSet<&HostName> = BTreeSet::new();
    for (step, owner) in steps.iter().zip(owners) {
        let needs_others = |host: &&HostName| {
            let mut needs = step.needs.iter();
            needs.any(|need| owners.get(need.0 as usize) != Some(&Some(*host)))
        };
        match owner {
            Some(host) if needs_others(host) => drop(bound.insert(host)),
            Some(_) => {}
            None => bound.extend(worked_on(step)),
        }
    }
    let mut seen = BTreeSet::new();
    let hosts = owners.iter().flatten().copied();
    hosts
        .filter(|host| !bound.contains(host) && seen.insert(*host))
        .collect()
}

/// The hosts that a step works on.
fn worked_on(step: &Step) -> impl Iterator<Item = &HostName> {
    let actions = step.undo.iter().chain([&step.action]);
    actions.filter_map(|action| match action {
        Action::Host { host, .. } => Some(host),
        _ => None,
    })
}

/// The one host that a step is about, if there is only one and nothing guards it.
fn owner(step: &Step) -> Option<&HostName> {
    let host = only_host(&step.action)?;
    let undo = step.undo.iter().all(|undo| only_host(undo) == Some(host));
    let unless = step.unless.iter().all(|call| call.hosts == [host.clone()]);
    (step.guards.is_empty() && undo && unless).then_some(host)
}

fn only_host(action: &Action) -> Option<&HostName> {
    match action {
        Action::Host { host, .. } => Some(host),
        Action::Check { condition, .. } => match &condition.hosts[..] {
            [host] => Some(host),
            _ => None,
        },
        Action::Snapshot { .. } | Action::Wait { .. } | Action::Batch { .. } => None,
    }
}

fn batch_step(number: usize, steps: &[Step], batch: &[usize], model: &str) -> Step {
    let own: BTreeMap<usize, StepId> = batch.iter().copied().zip((0..).map(StepId)).collect();
    let part: Vec<Step> = batch
        .iter()
        .map(|at| Step {
            id: own[at],
            needs: steps[*at]
                .needs
                .iter()
                .map(|need| own[&(need.0 as usize)])
                .collect(),
            ..steps[*at].clone()
        })
        .collect();
    Step {
        id: id(number),
        title: title(&part),
        service: None,
        timeout: limit(&part),
        action: Action::Batch {
            number: id(number).0,
            model: model.to_owned(),
            steps: part,
        },
        // Its own journal knows what happened.
        effect: Effect::Once,
        needs: vec![],
        guards: vec![],
        unless: None,
        undo: None,
    }
}

fn title(steps: &[Step]) -> String {
    let hosts: BTreeSet<&HostName> = steps.iter().filter_map(owner).collect();
    match (hosts.first(), hosts.last()) {
        (Some(first), Some(last)) => {
            let (hosts, steps) = (hosts.len(), steps.len());
            format!("{hosts} hosts, {first} to {last}: {steps} steps")
        }
        _ => format!("{} steps", steps.len()),
    }
}

/// As if its steps ran one after another, and a gate held it as long as it may.
fn limit(steps: &[Step]) -> Secs {
    let sum = steps
        .iter()
        .fold(0_u32, |sum, step| sum.saturating_add(step.timeout.0));
    Secs(sum.saturating_add(u32::try_from(HOLD_LIMIT_SECONDS).unwrap_or(u32::MAX)))
}

fn renumbered(step: &Step, found: &[StepId]) -> Step {
    let needs: BTreeSet<StepId> = step
        .needs
        .iter()
        .map(|need| found[need.0 as usize])
        .collect();
    let position = step.id.0 as usize;
    Step {
        id: found[position],
        needs: needs.into_iter().collect(),
        ..step.clone()
    }
}

fn id(position: usize) -> StepId {
    StepId(u32::try_from(position).unwrap_or(u32::MAX))
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
