//! The steps that this process has in hand, and how many of them at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    job::{Action, Step, StepId},
    model::{HostName, ServiceName},
};

/// Steps of one job in flight: sites of a few hundred hosts are worked on at once, memory stays bounded.
const STEPS_AT_ONCE: usize = 256;

/// Steps of one job in flight on one host: enough to overlap waiting services, too few to starve what runs there.
const STEPS_PER_HOST: usize = 4;

/// A step that is being prepared or acted on by this process.
pub struct Flight {
    pub undo: bool,
    pub attempt: u32,
    /// Its start is in the journal.
    pub recorded: bool,
    pub restarts: u32,
    host: Option<HostName>,
    guarded: BTreeSet<ServiceName>,
}

impl Flight {
    pub fn new(step: &Step, attempt: u32, undo: bool, recorded: bool) -> Self {
        let guarded = step.guards.iter().map(|guard| guard.service.clone());
        Self {
            undo,
            attempt,
            recorded,
            restarts: 0,
            host: host_of(action_of(step, undo)).cloned(),
            guarded: guarded.collect(),
        }
    }
}

#[derive(Default)]
pub struct Flights {
    by_step: BTreeMap<StepId, Flight>,
    on_host: BTreeMap<HostName, usize>,
    guarded: BTreeSet<ServiceName>,
}

impl Flights {
    pub fn get(&self, id: StepId) -> Option<&Flight> {
        self.by_step.get(&id)
    }

    pub fn get_mut(&mut self, id: StepId) -> Option<&mut Flight> {
        self.by_step.get_mut(&id)
    }

    pub fn contains(&self, id: StepId) -> bool {
        self.by_step.contains_key(&id)
    }

    pub fn is_full(&self) -> bool {
        self.by_step.len() >= STEPS_AT_ONCE
    }

    /// Not too many on its host; and never two guarded steps of one service at once: each guard would be judged before the
    /// other one acts, and both would take a member away.
    pub fn has_room_for(&self, step: &Step, undo: bool) -> bool {
        let host = host_of(action_of(step, undo));
        let on_host = host.and_then(|host| self.on_host.get(host));
        let overlaps = step
            .guards
            .iter()
            .any(|guard| self.guarded.contains(&guard.service));
        !self.is_full() && on_host.is_none_or(|count| *count < STEPS_PER_HOST) && !overlaps
    }

    pub fn insert(&mut self, id: StepId, flight: Flight) {
        if let Some(host) = &flight.host {
            *self.on_host.entry(host.clone()).or_default() += 1;
        }
        self.guarded.extend(flight.guarded.iter().cloned());
        self.by_step.insert(id, flight);
    }

    pub fn remove(&mut self, id: StepId) -> Option<Flight> {
        let flight = self.by_step.remove(&id)?;
        if let Some(count) = flight
            .host
            .as_ref()
            .and_then(|host| self.on_host.get_mut(host))
        {
            *count = count.saturating_sub(1);
        }
        // A bot that came back may have found two in flight: what another one guards stays guarded.
        self.guarded = self
            .by_step
            .values()
            .flat_map(|other| other.guarded.iter().cloned())
            .collect();
        Some(flight)
    }
}

fn action_of(step: &Step, undo: bool) -> &Action {
    match &step.undo {
        Some(action) if undo => action,
        _ => &step.action,
    }
}

/// The host that an action works on, if it is one.
pub fn host_of(action: &Action) -> Option<&HostName> {
    match action {
        Action::Host { host, .. } => Some(host),
        Action::Check { .. }
        | Action::Snapshot { .. }
        | Action::Wait { .. }
        | Action::Batch { .. } => None,
    }
}
