//! The loop that drives one job. It alone writes the job's journal; steps run beside it and report back.

mod beside;
mod open_end;

use std::sync::Arc;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Context, RunError,
    act::{Acted, Attempt, How, Permit},
    book::Book,
    flight::{Flight, Flights},
    ports::sleep_until,
    prepare::{Prepared, prepare},
};
use crate::{
    job::{
        HOLD_LIMIT_SECONDS, HOLD_POLL_SECONDS, JobEvent, JobId, JobResult, JobState, Next, Step,
        StepEnd, StepId,
    },
    wire::Fence,
};
use beside::Beside;

/// A request to cancel; answered when it is in the journal.
pub struct CancelOrder {
    pub by: String,
    pub reply: oneshot::Sender<()>,
}

/// Something that came back from beside the loop.
enum Landed {
    Prepared(Prepared),
    Acted(Acted),
    /// What was to be given up, and how it then ended.
    CalledOff(StepEnd),
}

pub struct Driver {
    context: Arc<Context>,
    book: Book,
    flights: Flights,
    beside: Beside,
    stop: CancellationToken,
    /// While the job is held: when the gate is asked again.
    ask_gate_at: Option<Timestamp>,
}

impl Driver {
    pub fn new(context: Arc<Context>, job: JobId, state: JobState, last_at: Timestamp) -> Self {
        let stop = CancellationToken::new();
        if state.job().is_some_and(|job| job.cancelled_by.is_some()) {
            stop.cancel();
        }
        Self {
            book: Book::new(context.clone(), job, state, last_at),
            context,
            flights: Flights::default(),
            beside: Beside::default(),
            stop,
            ask_gate_at: None,
        }
    }

    pub async fn drive(
        mut self,
        mut orders: mpsc::Receiver<CancelOrder>,
    ) -> Result<JobResult, RunError> {
        loop {
            if let Some(result) = self.advance().await? {
                return Ok(result);
            }
            let clock = self.context.clock.clone();
            let wake = self.wake_at();
            // In this order: what people and the clock want is seldom, so steps wait for neither for long.
            tokio::select! {
                biased;
                Some(order) = orders.recv() => self.cancel(order).await?,
                () = sleep_until(&*clock, wake) => self.renew_if_due().await?,
                Some((step, landed)) = self.beside.next() => self.land(step, landed).await?,
            }
        }
    }

    /// Does what [`JobState::next`] says that can be done now. The result, if the job finished.
    async fn advance(&mut self) -> Result<Option<JobResult>, RunError> {
        loop {
            if self.flights.is_full() {
                return Ok(None); // nothing can be begun, and nothing can be over
            }
            let next = self.book.state().next(self.context.clock.now());
            if let [Next::Finish { result }] = &next[..] {
                return self.book.finish(result.clone()).await.map(Some);
            }
            if self.book.lease().is_none() {
                if let Some(result) = self.book.take_lease().await? {
                    return Ok(Some(result));
                }
                continue;
            }
            for next in next {
                self.begin(next);
            }
            return Ok(None);
        }
    }

    fn begin(&mut self, next: Next) {
        match next {
            Next::Start { step, attempt } => self.prepare_new(step, attempt, false),
            Next::Undo { step, attempt } => self.prepare_new(step, attempt, true),
            Next::Continue {
                step,
                attempt,
                since,
                undo,
            } if !self.flights.contains(step) => {
                let flight = Flight::new(self.step(step), attempt, undo, true);
                self.flights.insert(step, flight);
                self.act(step, since, How::Attach);
            }
            Next::Wait { until, .. } => {
                let asked = self.ask_gate_at.get_or_insert(until);
                *asked = (*asked).max(until);
            }
            Next::Continue { .. } | Next::Lease | Next::Finish { .. } => {}
        }
    }

    fn prepare_new(&mut self, step: StepId, attempt: u32, undo: bool) {
        let held = self
            .ask_gate_at
            .is_some_and(|at| self.context.clock.now() < at);
        if held || self.flights.is_full() || self.flights.contains(step) {
            return;
        }
        if self.flights.has_room_for(self.step(step), undo) {
            let flight = Flight::new(self.step(step), attempt, undo, false);
            self.flights.insert(step, flight);
            self.prepare(step, None);
        }
    }

    /// Asks gate and guards, beside the loop.
    fn prepare(&mut self, id: StepId, not_before: Option<Timestamp>) {
        let Some(fence) = self.fence() else {
            return;
        };
        let undo = self.flights.get(id).is_some_and(|flight| flight.undo);
        let (context, job, state) = (
            self.context.clone(),
            self.book.job().clone(),
            self.book.shared_state(),
        );
        let step = self.step(id).clone();
        let open = self.open_attempts(id);
        let stop = self.stop.clone();
        let task = async move {
            if let Some(at) = not_before {
                tokio::select! {
                    biased;
                    () = sleep_until(&*context.clock, at) => {}
                    () = stop.cancelled(), if !undo => {}
                }
            }
            let prepared = prepare(context, job, state, step, undo, open, fence).await;
            (id, Landed::Prepared(prepared))
        };
        self.beside.push(task.boxed());
    }

    /// Acts, beside the loop.
    fn act(&mut self, id: StepId, since: Timestamp, how: How) {
        let (Some(flight), Some(fence)) = (self.flights.get(id), self.fence()) else {
            return;
        };
        let (key, _) = self.key_and_action(id, flight);
        let job = self.book.state().job();
        let attempt = Attempt {
            requested_by: job.map_or_else(String::new, |job| job.requested_by.clone()),
            context: self.context.clone(),
            job: self.book.job().clone(),
            step: self.step(id).clone(),
            undo: flight.undo,
            key,
            fence,
            since,
            how,
            stop: self.stop.clone(),
        };
        self.beside
            .push(async move { (id, Landed::Acted(attempt.run().await)) }.boxed());
    }

    async fn land(&mut self, id: StepId, landed: Landed) -> Result<(), RunError> {
        match landed {
            Landed::Prepared(prepared) => self.prepared(id, prepared).await,
            Landed::Acted(Acted::End { end, evidence }) => {
                let found = evidence.filter(|readings| !readings.by_probe.is_empty());
                let found = found.map(|readings| JobEvent::Evidence { step: id, readings });
                self.end_with(id, found, end).await
            }
            Landed::Acted(Acted::NeverStarted) => {
                self.begin_again(id);
                Ok(())
            }
            Landed::CalledOff(end) => self.end(id, end).await,
        }
    }

    async fn prepared(&mut self, id: StepId, prepared: Prepared) -> Result<(), RunError> {
        let Some(flight) = self.flights.get(id) else {
            return Ok(());
        };
        let (undo, recorded) = (flight.undo, flight.recorded);
        if self.is_stopping() && !undo {
            // Nothing was done, so nothing is started any more.
            match recorded {
                true => self.give_up(id, StepEnd::Cancelled),
                false => drop(self.flights.remove(id)),
            }
            return Ok(());
        }
        let prepared = match prepared {
            Prepared::Hold { why, .. } if self.held_too_long() => Prepared::End(StepEnd::Refused {
                why: format!(
                    "held for more than {} hours: {why}",
                    HOLD_LIMIT_SECONDS / 3600
                ),
            }),
            other => other,
        };
        match prepared {
            Prepared::Hold { until, why } => self.hold(id, until, why).await,
            Prepared::End(end) => {
                self.release_hold().await?;
                if recorded {
                    self.give_up(id, end);
                    return Ok(());
                }
                if undo {
                    self.record_start(id).await?;
                }
                self.end(id, end).await
            }
            Prepared::Act { before, guarded_at } => {
                self.release_hold().await?;
                self.renew_if_due().await?;
                let since = match recorded {
                    // It starts only now: the time until now was lost to a crash, not to the step.
                    true => self.context.clock.now(),
                    false => self.record_start(id).await?,
                };
                let permit = Permit {
                    before,
                    guarded_at,
                    fresh: !recorded,
                };
                self.act(id, since, How::Start(permit));
                Ok(())
            }
        }
    }

    async fn record(&mut self, event: JobEvent) -> Result<Timestamp, RunError> {
        self.beside.during(self.book.record(event)).await
    }

    async fn renew_if_due(&mut self) -> Result<(), RunError> {
        self.beside.during(self.book.renew_if_due()).await
    }

    /// Intent, before the act.
    async fn record_start(&mut self, id: StepId) -> Result<Timestamp, RunError> {
        let Some(flight) = self.flights.get_mut(id) else {
            return Ok(self.book.last_at());
        };
        flight.recorded = true;
        let (step, attempt) = (id, flight.attempt);
        let event = match flight.undo {
            true => JobEvent::UndoStarted { step, attempt },
            false => JobEvent::StepStarted { step, attempt },
        };
        self.record(event).await
    }

    /// Outcome, after the act.
    async fn end(&mut self, id: StepId, end: StepEnd) -> Result<(), RunError> {
        self.end_with(id, None, end).await
    }

    /// Outcome, and the evidence that it rests on.
    async fn end_with(
        &mut self,
        id: StepId,
        found: Option<JobEvent>,
        end: StepEnd,
    ) -> Result<(), RunError> {
        let Some(flight) = self.flights.remove(id) else {
            return Ok(());
        };
        let (step, attempt) = (id, flight.attempt);
        let event = match flight.undo {
            true => JobEvent::UndoEnded { step, attempt, end },
            false => JobEvent::StepEnded { step, attempt, end },
        };
        match found {
            Some(found) => {
                let recorded = self.book.record_end(found, event);
                self.beside.during(recorded).await
            }
            None => self.record(event).await.map(drop),
        }
    }

    async fn hold(
        &mut self,
        id: StepId,
        until: Option<Timestamp>,
        why: String,
    ) -> Result<(), RunError> {
        let now = self.context.clock.now();
        let poll = now + SignedDuration::from_secs(HOLD_POLL_SECONDS);
        let again = until.filter(|until| *until > now).unwrap_or(poll);
        self.ask_gate_at = Some(again);
        let hold = self.book.state().job().and_then(|job| job.hold.as_ref());
        let known = hold.is_some_and(|hold| hold.why == why && hold.until == until);
        if !known {
            self.record(JobEvent::Held { until, why }).await?;
        }
        match self.flights.get(id).is_some_and(|flight| flight.recorded) {
            true => self.prepare(id, Some(again)),
            false => drop(self.flights.remove(id)),
        }
        Ok(())
    }

    fn held_too_long(&self) -> bool {
        let hold = self.book.state().job().and_then(|job| job.hold.as_ref());
        let now = self.context.clock.now();
        hold.is_some_and(|hold| now.duration_since(hold.since).as_secs() >= HOLD_LIMIT_SECONDS)
    }

    async fn release_hold(&mut self) -> Result<(), RunError> {
        self.ask_gate_at = None;
        if self
            .book
            .state()
            .job()
            .is_some_and(|job| job.hold.is_some())
        {
            self.record(JobEvent::HoldReleased).await?;
        }
        Ok(())
    }

    async fn cancel(&mut self, order: CancelOrder) -> Result<(), RunError> {
        self.record(JobEvent::CancelRequested { by: order.by })
            .await?;
        self.stop.cancel();
        self.ask_gate_at = None;
        // Whoever asked may have gone away; the journal has it all the same.
        let _ = order.reply.send(());
        Ok(())
    }

    fn wake_at(&self) -> Timestamp {
        let renew = self.book.renewal_due_at();
        let now = self.context.clock.now();
        let gate = self.ask_gate_at.filter(|at| *at > now);
        gate.map_or(renew, |gate| gate.min(renew))
    }

    /// What hosts are shown; none without a lease.
    fn fence(&self) -> Option<Fence> {
        self.book.lease().map(|lease| Fence {
            scope: lease.scope.clone(),
            token: lease.token,
        })
    }

    fn is_stopping(&self) -> bool {
        self.book.state().job().is_some_and(|job| job.is_stopping())
    }

    fn step(&self, id: StepId) -> &Step {
        let job = self
            .book
            .state()
            .job()
            .expect("a job that is driven was created");
        &job.steps[id.0 as usize]
    }
}
