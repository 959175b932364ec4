//! What a driver does with attempts that nobody knows the end of: it begins them again, or gives them up for good.

use futures::FutureExt;

use super::{Driver, Landed};
use crate::{
    job::{Action, Job, StepEnd, StepId},
    model::HostName,
    runner::{
        call_off::{CalledOff, call_off},
        flight::{Flight, host_of},
        outcome,
    },
    wire::StepKey,
};

/// How often an attempt is begun again because its host says that it never started it, or its guards' word grew too old.
const RESTARTS: u32 = 5;

impl Driver {
    /// Earlier attempts at the step, and at its undo, of which no host said how they ended: they may begin or run on.
    pub(super) fn open_attempts(&self, id: StepId) -> Vec<(HostName, StepKey)> {
        let (Some(flight), Some(job)) = (self.flights.get(id), self.book.state().job()) else {
            return Vec::new();
        };
        let (step, run) = (&job.steps[id.0 as usize], &job.runs[id.0 as usize]);
        let said = matches!(
            run.end(),
            Some(StepEnd::Done { .. } | StepEnd::Failed { .. } | StepEnd::Drifted { .. })
        );
        let attempt = match flight.undo {
            true if said => 0,
            true => run.attempts,
            false => flight.attempt - 1,
        };
        let name = self.book.job();
        let step_host = host_of(&step.action).filter(|_| attempt > 0);
        let undo_host = step.undo.as_ref().and_then(host_of);
        let undo_host = undo_host.filter(|_| flight.undo && flight.attempt > 1);
        let step_key = step_host.map(|host| (host.clone(), Job::step_key(name, id, attempt)));
        let undone = flight.attempt - 1;
        let undo_key = undo_host.map(|host| (host.clone(), Job::undo_key(name, id, undone)));
        step_key.into_iter().chain(undo_key).collect()
    }

    /// Gives up a step whose start is in the journal, and ends it so, beside the loop.
    pub(super) fn give_up(&mut self, id: StepId, end: StepEnd) {
        let Some(flight) = self.flights.get(id) else {
            return;
        };
        let (key, action) = self.key_and_action(id, flight);
        let Action::Host { host, work } = action.clone() else {
            return self
                .beside
                .push(futures::future::ready((id, Landed::CalledOff(end))).boxed());
        };
        let Some(fence) = self.fence() else {
            return;
        };
        let context = self.context.clone();
        let task = async move {
            let (hosts, clock) = (&*context.hosts, &*context.clock);
            let end = match call_off(hosts, clock, &host, &key, &fence).await {
                CalledOff::NeverBegan => end,
                CalledOff::Ended(outcome) => outcome::step_end(&host, &work, outcome, ""),
                CalledOff::Unknown { why } => StepEnd::Lost { why },
            };
            (id, Landed::CalledOff(end))
        };
        self.beside.push(task.boxed());
    }

    pub(super) fn key_and_action(&self, id: StepId, flight: &Flight) -> (StepKey, &Action) {
        let (step, job) = (self.step(id), self.book.job());
        match &step.undo {
            Some(undo) if flight.undo => (Job::undo_key(job, id, flight.attempt), undo),
            _ => (Job::step_key(job, id, flight.attempt), &step.action),
        }
    }

    /// Its start is in the journal, and nothing has begun: gate and guards are asked again.
    pub(super) fn begin_again(&mut self, id: StepId) {
        let Some(flight) = self.flights.get_mut(id) else {
            return;
        };
        flight.restarts += 1;
        if flight.restarts <= RESTARTS {
            return self.prepare(id, None);
        }
        let what = format!(
            "it was to be started {RESTARTS} times, and each time its host never recorded it or its guards' word grew too old \
             before; nothing was done"
        );
        self.give_up(id, StepEnd::Failed { what });
    }
}
