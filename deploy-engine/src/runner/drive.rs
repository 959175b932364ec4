//! The loop that drives one job. It alone writes the job's journal; steps run beside it and report back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Context, RunError,
    act::{Acted, Attempt, How},
    host::stopped,
    ports::{limited, sleep_until},
    prepare::{Prepared, prepare},
};
use crate::{
    job::{
        Action, HOLD_POLL_SECONDS, Job, JobEvent, JobId, JobResult, JobState, LEASE_SECONDS, Lease,
        LeaseError, Next, Step, StepEnd, StepId,
    },
    model::{HostName, ServiceName},
    wire::Fence,
};

/// Steps of one job in flight: sites of a few hundred hosts are worked on at once, memory stays bounded.
const STEPS_AT_ONCE: usize = 256;

/// Steps of one job in flight on one host: enough to overlap waiting services, too few to starve what runs there.
const STEPS_PER_HOST: usize = 4;

/// Seconds between renewals of a lease: three may fail before it counts as expired.
const RENEW_SECONDS: i64 = LEASE_SECONDS / 3;

/// How long a gate may hold a job: a day later the world is another one, and the job is refused.
const HOLD_LIMIT_SECONDS: i64 = 24 * 60 * 60;

/// How often an attempt is begun again because its host says that it never started it.
const RESTARTS: u32 = 5;

/// How long hosts may take to forget a finished job, after everybody was told of its end; what they keep is small.
const FORGET_LIMIT: Duration = Duration::from_secs(2);

/// A request to cancel; answered when it is in the journal.
pub struct CancelOrder {
    pub by: String,
    pub reply: oneshot::Sender<()>,
}

/// Something that came back from beside the loop.
enum Landed {
    Prepared(Prepared),
    Acted(Acted),
}

/// A step that is being prepared or acted on by this process.
struct Flight {
    undo: bool,
    attempt: u32,
    /// Its start is in the journal.
    recorded: bool,
    restarts: u32,
    host: Option<HostName>,
    guarded: BTreeSet<ServiceName>,
}

pub struct Driver {
    context: Arc<Context>,
    job: JobId,
    state: Arc<JobState>,
    /// Journal times never go back, whatever the clock does.
    last_at: Timestamp,
    lease: Option<Lease>,
    renewed_at: Timestamp,
    flights: BTreeMap<StepId, Flight>,
    tasks: FuturesUnordered<BoxFuture<'static, (StepId, Landed)>>,
    stop: watch::Sender<bool>,
    /// While the job is held: when the gate is asked again.
    ask_gate_at: Option<Timestamp>,
}

impl Driver {
    pub fn new(context: Arc<Context>, job: JobId, state: JobState, last_at: Timestamp) -> Self {
        let cancelled = state.job().is_some_and(|job| job.cancelled_by.is_some());
        Self {
            context,
            job,
            state: Arc::new(state),
            last_at,
            lease: None,
            renewed_at: last_at,
            flights: BTreeMap::new(),
            tasks: FuturesUnordered::new(),
            stop: watch::Sender::new(cancelled),
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
            tokio::select! {
                Some((step, landed)) = self.tasks.next() => self.land(step, landed).await?,
                Some(order) = orders.recv() => self.cancel(order).await?,
                () = sleep_until(&*clock, wake) => self.renew_if_due().await?,
            }
        }
    }

    /// Does what [`JobState::next`] says that can be done now. The result, if the job finished.
    async fn advance(&mut self) -> Result<Option<JobResult>, RunError> {
        loop {
            let next = self.state.next(self.context.clock.now());
            if let [Next::Finish { result }] = &next[..] {
                return self.finish(result.clone()).await.map(Some);
            }
            if self.lease.is_none() {
                if let Some(result) = self.take_lease().await? {
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
            } if !self.flights.contains_key(&step) => {
                let flight = self.flight(step, attempt, undo, true);
                self.flights.insert(step, flight);
                self.act(step, since, How::Attach, String::new());
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
        if held || self.flights.contains_key(&step) || self.flights.len() >= STEPS_AT_ONCE {
            return;
        }
        let flight = self.flight(step, attempt, undo, false);
        if self.has_room(&flight) {
            self.flights.insert(step, flight);
            self.prepare(step, None);
        }
    }

    fn flight(&self, id: StepId, attempt: u32, undo: bool, recorded: bool) -> Flight {
        let step = self.step(id);
        let action = match &step.undo {
            Some(action) if undo => action,
            _ => &step.action,
        };
        let host = host_of(action).cloned();
        let guarded = step
            .guards
            .iter()
            .map(|guard| guard.service.clone())
            .collect();
        Flight {
            undo,
            attempt,
            recorded,
            restarts: 0,
            host,
            guarded,
        }
    }

    /// Not too many on its host; and never two guarded steps of one service at once: each guard would be judged before the
    /// other one acts, and both would take a member away.
    fn has_room(&self, flight: &Flight) -> bool {
        let on_host = |other: &&Flight| flight.host.is_some() && other.host == flight.host;
        let crowded = self.flights.values().filter(on_host).count() >= STEPS_PER_HOST;
        let mut others = self.flights.values();
        let overlaps = others.any(|other| !other.guarded.is_disjoint(&flight.guarded));
        !crowded && !overlaps
    }

    /// Asks gate and guards, beside the loop.
    fn prepare(&mut self, id: StepId, not_before: Option<Timestamp>) {
        let undo = self.flights.get(&id).is_some_and(|flight| flight.undo);
        let (context, job, state) = (self.context.clone(), self.job.clone(), self.state.clone());
        let step = self.step(id).clone();
        let mut stop = self.stop.subscribe();
        let task = async move {
            if let Some(at) = not_before {
                tokio::select! {
                    () = sleep_until(&*context.clock, at) => {}
                    () = stopped(&mut stop), if !undo => {}
                }
            }
            let prepared = prepare(context, job, state, step, undo).await;
            (id, Landed::Prepared(prepared))
        };
        self.tasks.push(task.boxed());
    }

    /// Acts, beside the loop.
    fn act(&mut self, id: StepId, since: Timestamp, how: How, before: String) {
        let (Some(flight), Some(lease)) = (self.flights.get(&id), &self.lease) else {
            return;
        };
        let key = match flight.undo {
            true => Job::undo_key(&self.job, id, flight.attempt),
            false => Job::step_key(&self.job, id, flight.attempt),
        };
        let attempt = Attempt {
            context: self.context.clone(),
            job: self.job.clone(),
            step: self.step(id).clone(),
            undo: flight.undo,
            key,
            fence: Fence {
                scope: lease.scope.clone(),
                token: lease.token,
            },
            since,
            how,
            before,
            stop: self.stop.subscribe(),
        };
        self.tasks
            .push(async move { (id, Landed::Acted(attempt.run().await)) }.boxed());
    }

    async fn land(&mut self, id: StepId, landed: Landed) -> Result<(), RunError> {
        match landed {
            Landed::Prepared(prepared) => self.prepared(id, prepared).await,
            Landed::Acted(Acted::End { end, evidence }) => {
                if let Some(readings) = evidence.filter(|readings| !readings.by_probe.is_empty()) {
                    let event = JobEvent::Evidence { step: id, readings };
                    self.record(event).await?;
                }
                self.end(id, end).await
            }
            Landed::Acted(Acted::NeverStarted) => self.never_started(id).await,
        }
    }

    async fn prepared(&mut self, id: StepId, prepared: Prepared) -> Result<(), RunError> {
        let Some(flight) = self.flights.get(&id) else {
            return Ok(());
        };
        let (undo, recorded) = (flight.undo, flight.recorded);
        if self.is_stopping() && !undo {
            // Nothing was done, so nothing is started any more.
            return match recorded {
                true => self.end(id, StepEnd::Cancelled).await,
                false => {
                    self.flights.remove(&id);
                    Ok(())
                }
            };
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
                if undo && !recorded {
                    self.record_start(id).await?;
                }
                self.end(id, end).await
            }
            Prepared::Act { before } => {
                self.release_hold().await?;
                self.renew_if_due().await?;
                let since = match recorded {
                    // It starts only now: the time until now was lost to a crash, not to the step.
                    true => self.context.clock.now(),
                    false => self.record_start(id).await?,
                };
                self.act(id, since, How::Start, before);
                Ok(())
            }
        }
    }

    /// Intent, before the act.
    async fn record_start(&mut self, id: StepId) -> Result<Timestamp, RunError> {
        let Some(flight) = self.flights.get_mut(&id) else {
            return Ok(self.last_at);
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
        let Some(flight) = self.flights.remove(&id) else {
            return Ok(());
        };
        let (step, attempt) = (id, flight.attempt);
        let event = match flight.undo {
            true => JobEvent::UndoEnded { step, attempt, end },
            false => JobEvent::StepEnded { step, attempt, end },
        };
        self.record(event).await.map(|_| ())
    }

    async fn never_started(&mut self, id: StepId) -> Result<(), RunError> {
        let Some(flight) = self.flights.get_mut(&id) else {
            return Ok(());
        };
        flight.restarts += 1;
        if flight.restarts <= RESTARTS {
            self.prepare(id, None);
            return Ok(());
        }
        let what = format!("its host was told {RESTARTS} times to start it, and never recorded it");
        self.end(id, StepEnd::Failed { what }).await
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
        let hold = self.state.job().and_then(|job| job.hold.as_ref());
        let known = hold.is_some_and(|hold| hold.why == why && hold.until == until);
        if !known {
            self.record(JobEvent::Held { until, why }).await?;
        }
        match self.flights.get(&id).is_some_and(|flight| flight.recorded) {
            true => self.prepare(id, Some(again)),
            false => drop(self.flights.remove(&id)),
        }
        Ok(())
    }

    fn held_too_long(&self) -> bool {
        let hold = self.state.job().and_then(|job| job.hold.as_ref());
        let now = self.context.clock.now();
        hold.is_some_and(|hold| now.duration_since(hold.since).as_secs() >= HOLD_LIMIT_SECONDS)
    }

    async fn release_hold(&mut self) -> Result<(), RunError> {
        self.ask_gate_at = None;
        if self.state.job().is_some_and(|job| job.hold.is_some()) {
            self.record(JobEvent::HoldReleased).await?;
        }
        Ok(())
    }

    async fn cancel(&mut self, order: CancelOrder) -> Result<(), RunError> {
        self.record(JobEvent::CancelRequested { by: order.by })
            .await?;
        self.stop.send_replace(true);
        self.ask_gate_at = None;
        // Whoever asked may have gone away; the journal has it all the same.
        let _ = order.reply.send(());
        Ok(())
    }

    /// The lease is taken before anything starts, and again by a bot that comes back. The result, if it cannot be had.
    async fn take_lease(&mut self) -> Result<Option<JobResult>, RunError> {
        let Some(job) = self.state.job() else {
            return Err(RunError::Journal(crate::job::JournalError::Unknown(
                self.job.clone(),
            )));
        };
        let (scope, fresh) = (job.scope.clone(), job.lease.is_none());
        let now = self.context.clock.now();
        let holder = self.context.holder.clone();
        match self
            .context
            .journal
            .acquire(&scope, &holder, &self.job, now)
            .await
        {
            Ok(lease) => {
                let token = lease.token;
                self.lease = Some(lease);
                self.renewed_at = now;
                self.record(JobEvent::Leased { holder, token }).await?;
                Ok(None)
            }
            // It never had the lease, so it did nothing: it is refused rather than left in a queue that nobody watches.
            Err(held @ LeaseError::Held { .. }) if fresh => {
                let why = held.to_string();
                self.finish(JobResult::Refused { why }).await.map(Some)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn renew_if_due(&mut self) -> Result<(), RunError> {
        let now = self.context.clock.now();
        let due = now.duration_since(self.renewed_at).as_secs() >= RENEW_SECONDS;
        if let Some(lease) = self.lease.as_ref().filter(|_| due) {
            self.context.journal.renew(lease, now).await?;
            self.renewed_at = now;
        }
        Ok(())
    }

    fn wake_at(&self) -> Timestamp {
        let renew = self.renewed_at + SignedDuration::from_secs(RENEW_SECONDS);
        let now = self.context.clock.now();
        let gate = self.ask_gate_at.filter(|at| *at > now);
        gate.map_or(renew, |gate| gate.min(renew))
    }

    async fn finish(&mut self, result: JobResult) -> Result<JobResult, RunError> {
        let event = JobEvent::Finished {
            result: result.clone(),
        };
        self.record(event).await?;
        if let Some(lease) = self.lease.take() {
            // A lease of a finished job counts as free, so a failure here holds up nobody.
            if let Err(error) = self.context.journal.release(&lease).await {
                tracing::warn!(job = %self.job, %error, "the lease could not be given back");
            }
        }
        self.forget_on_hosts().await;
        Ok(result)
    }

    /// Drops what hosts remember: nobody asks for a finished job again.
    async fn forget_on_hosts(&mut self) {
        let Some(job) = self.state.job() else { return };
        let started = job
            .steps
            .iter()
            .zip(&job.runs)
            .filter(|(_, run)| run.attempts > 0);
        let actions = started.flat_map(|(step, _)| step.undo.iter().chain([&step.action]));
        let touched: BTreeSet<&HostName> = actions.filter_map(host_of).collect();
        let forget = touched
            .into_iter()
            .map(|host| self.context.hosts.forget(host, &self.job));
        let forgotten = limited(&*self.context.clock, FORGET_LIMIT, join_all(forget)).await;
        for error in forgotten
            .unwrap_or_default()
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::debug!(job = %self.job, %error, "a host still remembers the job");
        }
    }

    /// Checks that the event is legal, makes it durable, and tells the observer. In this order, so that the journal never
    /// holds an illegal event and nobody is told what may be lost.
    async fn record(&mut self, event: JobEvent) -> Result<Timestamp, RunError> {
        let at = self.context.clock.now().max(self.last_at);
        let length = self.state.length();
        let before = Arc::unwrap_or_clone(std::mem::take(&mut self.state));
        let after = before
            .apply(at, &event)
            .map_err(|illegal| RunError::Illegal {
                job: self.job.clone(),
                illegal,
            })?;
        self.context
            .journal
            .append(&self.job, length, at, &event)
            .await?;
        self.last_at = at;
        self.state = Arc::new(after);
        self.context.observer.event(&self.job, &self.state, &event);
        Ok(at)
    }

    fn is_stopping(&self) -> bool {
        self.state.job().is_some_and(|job| job.is_stopping())
    }

    fn step(&self, id: StepId) -> &Step {
        let job = self.state.job().expect("a job that is driven was created");
        &job.steps[id.0 as usize]
    }
}

fn host_of(action: &Action) -> Option<&HostName> {
    match action {
        Action::Host { host, .. } => Some(host),
        Action::Check { .. } | Action::Snapshot { .. } | Action::Wait { .. } => None,
    }
}
