//! The loop that owns the incidents.

use std::{collections::BTreeSet, sync::Arc};

use collectors::{Alert, Change, Status, flap::Flap, logs::page, watchdog};
use deploy_engine::{
    job::{JobId, JobKind, JobResult},
    runner::Clock,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{
    Evaluated, HealSettings, Jobs, News, Ports,
    evaluate::{Evaluator, hosts_down},
    flaps::Flaps,
    gatekeeper::Gatekeeper,
    jobs,
    pace::Pace,
    regroup::{Causes, Leavers},
    restore::{Pages, restore},
    starts::Starts,
};
use crate::{
    alerts::Gate,
    decide::{Decision, HealPlan},
    format::RunbookId,
    incident::{
        Claim, Domain, Event, Incident, IncidentId, Incidents, Placement, State, Symptom, View,
        alert_key, place,
    },
    library::Library,
    matching::{Matched, match_alert},
    storm::{self, Weather},
    topology::Topology,
};

/// Orders that may wait for the loop; it takes each in microseconds. Alerts are durable before they are sent here, so a full
/// queue only slows the sender down.
const ORDERS: usize = 4_096;
/// Looks at the same time: each asks all members of a service.
const LOOKS: usize = 4;
/// The longest pause without looking at the clock.
const TICK: std::time::Duration = std::time::Duration::from_secs(5);
/// The shortest pause, so that something that is always due cannot spin.
const SHORTEST_TICK: std::time::Duration = std::time::Duration::from_millis(20);

/// Something for the loop.
pub enum Order {
    /// Alerts that were taken in, repeats included (the Watchdog lives from them).
    Heard {
        alerts: Vec<(Alert, Change)>,
        reply: oneshot::Sender<()>,
    },
    Approve {
        incident: IncidentId,
        digest: String,
        by: String,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    Deny {
        incident: IncidentId,
        by: String,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    /// Look at it now (a person asked).
    Look {
        incident: IncidentId,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    Incidents {
        reply: oneshot::Sender<Vec<Incident>>,
    },
    /// A person looked at a repair that was not proven: its incident may be decided again.
    Cleared {
        job: String,
        by: String,
        reply: oneshot::Sender<Result<(), OrderError>>,
    },
    /// A job of any kind has finished: what was charged for it is settled.
    Finished { job: JobId },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("there is no open incident {0}")]
    Unknown(IncidentId),
    #[error(transparent)]
    Illegal(#[from] crate::incident::IllegalTransition),
    #[error("the healer has stopped")]
    Stopped,
    #[error("{0}")]
    Records(String),
}

/// What comes back from beside the loop.
enum Landed {
    Looked {
        incident: IncidentId,
        approved: Option<(String, String)>,
        evaluated: Box<Evaluated>,
    },
    Ended {
        incident: IncidentId,
        job: JobId,
        result: Result<JobResult, String>,
    },
    Proof {
        incident: IncidentId,
        job: JobId,
    },
}

/// Speaks to the loop. Cheap to clone.
#[derive(Clone)]
pub struct HealerHandle {
    orders: mpsc::Sender<Order>,
    landed: mpsc::Sender<Landed>,
}

impl HealerHandle {
    /// Returns when they are in their incidents: whoever brings alerts brings no more than the loop can take.
    pub async fn heard(&self, alerts: Vec<(Alert, Change)>) -> Result<(), OrderError> {
        self.ask(|reply| Order::Heard { alerts, reply }).await
    }

    pub async fn approve(
        &self,
        incident: IncidentId,
        digest: String,
        by: String,
    ) -> Result<(), OrderError> {
        self.ask(|reply| Order::Approve {
            incident,
            digest,
            by,
            reply,
        })
        .await?
    }

    pub async fn deny(&self, incident: IncidentId, by: String) -> Result<(), OrderError> {
        self.ask(|reply| Order::Deny {
            incident,
            by,
            reply,
        })
        .await?
    }

    pub async fn look(&self, incident: IncidentId) -> Result<(), OrderError> {
        self.ask(|reply| Order::Look { incident, reply }).await?
    }

    /// After the clearing is on record.
    pub async fn cleared(&self, job: String, by: String) -> Result<(), OrderError> {
        self.ask(|reply| Order::Cleared { job, by, reply }).await?
    }

    /// For the observer of jobs. Never waits: a word that is lost here is made good at the next start.
    pub fn job_finished(&self, job: &JobId) {
        let order = Order::Finished { job: job.clone() };
        if self.orders.try_send(order).is_err() {
            tracing::debug!(%job, "the healer is too busy to hear that a job finished");
        }
    }

    /// Open incidents, oldest first.
    pub async fn incidents(&self) -> Result<Vec<Incident>, OrderError> {
        self.ask(|reply| Order::Incidents { reply }).await
    }

    /// For the observer of jobs: the last step of a repair has started. Never waits.
    pub fn proof_started(&self, incident: &str, job: &JobId) {
        let landed = Landed::Proof {
            incident: IncidentId(incident.to_owned()),
            job: job.clone(),
        };
        if self.landed.try_send(landed).is_err() {
            tracing::debug!(%job, "the healer is too busy to hear that a proof started");
        }
    }

    async fn send(&self, order: Order) -> Result<(), OrderError> {
        self.orders
            .send(order)
            .await
            .map_err(|_| OrderError::Stopped)
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.send(order(reply)).await?;
        answer.await.map_err(|_| OrderError::Stopped)
    }
}

pub struct Healer {
    pub(super) ports: Ports,
    jobs: Arc<dyn Jobs>,
    settings: Arc<HealSettings>,
    pub(super) topology: Arc<Topology>,
    pub(super) library: Arc<Library>,
    evaluator: Evaluator,
    pub(super) incidents: Incidents,
    looking: BTreeSet<IncidentId>,
    /// When alerts started, for the storm gate.
    starts: Starts,
    /// The causes as they were when alerts were last put to them.
    pub(super) causes: Causes,
    pub(super) leavers: Leavers,
    flaps: Flaps,
    pub(super) pace: Pace,
    serial: u64,
    orders: mpsc::Receiver<Order>,
    back: mpsc::Receiver<Landed>,
    handle: HealerHandle,
}

impl Healer {
    pub fn new(
        ports: Ports,
        jobs: Arc<dyn Jobs>,
        settings: Arc<HealSettings>,
        topology: Arc<Topology>,
        library: Arc<Library>,
    ) -> (Self, HealerHandle) {
        let (send, orders) = mpsc::channel(ORDERS);
        let (landed, back) = mpsc::channel(ORDERS);
        let handle = HealerHandle {
            orders: send,
            landed,
        };
        let keeper = Gatekeeper {
            ports: ports.clone(),
            settings: settings.clone(),
            topology: topology.clone(),
        };
        let evaluator = Evaluator {
            keeper,
            library: library.clone(),
        };
        let healer = Self {
            ports,
            jobs,
            settings,
            topology,
            library,
            evaluator,
            incidents: Incidents::default(),
            looking: BTreeSet::new(),
            starts: Starts::default(),
            causes: Causes::default(),
            leavers: Leavers::default(),
            flaps: Flaps::default(),
            pace: Pace::default(),
            serial: 0,
            orders,
            back,
            handle: handle.clone(),
        };
        (healer, handle)
    }

    /// Runs until `stop`. Jobs that run then go on on their hosts; the next start takes them up again.
    ///
    /// # Errors
    /// When what was going on cannot be read at the start: then nothing is begun.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), String> {
        self.restore().await?;
        loop {
            let pause = self.pause();
            tokio::select! {
                _ = &mut stop => return Ok(()),
                Some(landed) = self.back.recv() => self.landed(landed).await,
                Some(order) = self.orders.recv() => self.order(order).await,
                () = self.ports.clock.clone().sleep_owned(pause) => {}
            }
            self.tick().await;
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.ports.clock.now()
    }

    async fn restore(&mut self) -> Result<(), String> {
        let restored = restore(&self.ports, &*self.jobs, self.now()).await?;
        self.incidents = restored.incidents;
        for incident in self.incidents.keys().cloned().collect::<Vec<_>>() {
            self.keep(&incident).await;
        }
        for (job, incident) in restored.jobs {
            self.drive(job, incident);
        }
        let records = self.ports.records.clone();
        let mut pages = Pages::default();
        while let Some(page) = pages.next(&*records).await? {
            // When the Watchdog was first heard says nothing about now; the next one does.
            let unknown = page
                .into_iter()
                .filter(|alert| !self.is_watchdog(alert) && !self.fires(alert));
            let unknown = unknown.map(|alert| (alert, Change::New)).collect();
            self.heard(unknown).await;
        }
        Ok(())
    }

    /// Is it on record that this alert fires?
    fn fires(&self, alert: &Alert) -> bool {
        let key = alert_key(alert);
        let known = self.incidents.with_alert(&key);
        // Of what an incident keeps by key alone, only what fires.
        known.is_some_and(|one| {
            let whole = one.alerts.get(&key);
            whole.is_none_or(|whole| whole.status == Status::Firing)
        })
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Heard { alerts, reply } => {
                self.heard(alerts).await;
                let _ = reply.send(());
            }
            Order::Approve {
                incident,
                digest,
                by,
                reply,
            } => {
                let _ = reply.send(
                    self.change(&incident, &Event::Approved { by, digest })
                        .await,
                );
            }
            Order::Deny {
                incident,
                by,
                reply,
            } => {
                let _ = reply.send(self.change(&incident, &Event::Denied { by }).await);
            }
            Order::Look { incident, reply } => {
                let known = self
                    .incidents
                    .get(&incident)
                    .filter(|one| one.is_open())
                    .cloned();
                let _ = reply.send(match known {
                    Some(_) => {
                        self.look(&incident);
                        Ok(())
                    }
                    None => Err(OrderError::Unknown(incident)),
                });
            }
            Order::Cleared { job, by, reply } => {
                let _ = reply.send(self.cleared(&job, &by).await);
            }
            Order::Finished { job } => self.settle_redeploy(&job).await,
            Order::Incidents { reply } => {
                let open = self
                    .incidents
                    .values()
                    .filter(|one| one.is_open())
                    .cloned()
                    .collect();
                let _ = reply.send(open);
            }
        }
    }

    async fn cleared(&mut self, job: &str, by: &str) -> Result<(), OrderError> {
        let about = |one: &&Incident| {
            let waits = matches!(&one.state, State::Unproven { job: own, .. } if own == job);
            waits || one.unproven.iter().any(|unproven| unproven == job)
        };
        let id = self
            .incidents
            .values()
            .find(about)
            .map(|one| one.id.clone());
        match id {
            Some(id) => {
                let event = Event::Cleared {
                    job: job.to_owned(),
                    by: by.to_owned(),
                };
                self.change(&id, &event).await
            }
            None => Ok(()), // its incident is over
        }
    }

    /// Repairs settle themselves when they end; what a person redeployed is settled here.
    async fn settle_redeploy(&mut self, job: &JobId) {
        let state = self.jobs.state(job).await.ok().flatten();
        let Some(of) = state.as_ref().and_then(|state| state.job()) else {
            return;
        };
        let (JobKind::Deploy { .. }, Some((_, result))) = (&of.kind, &of.finished) else {
            return;
        };
        let outcome = crate::trust::outcome(result, jobs::acted(state.as_ref()));
        if let Err(error) = self.ports.records.settle(&job.0, outcome, self.now()).await {
            let what = error.to_string();
            self.ports.tell.tell(News::Trouble { what });
        }
    }

    /// Every incident that they change is recorded and told once, however many alerts it got.
    async fn heard(&mut self, alerts: Vec<(Alert, Change)>) {
        let touched: BTreeSet<IncidentId> = alerts
            .into_iter()
            .filter_map(|(alert, change)| self.place(&alert, change))
            .collect();
        for id in touched {
            self.alerts_changed(&id).await;
        }
        self.regroup().await;
    }

    /// An incident that stays as it is, but for its alerts, is put on record with others, now and then.
    pub(super) async fn alerts_changed(&mut self, id: &IncidentId) {
        let now = self.now();
        let Some(incident) = self.incidents.get(id) else {
            return;
        };
        match incident.stays_with_its_alerts(now) {
            true => self.pace.changed(id, now),
            false => drop(self.change(id, &Event::AlertsChanged).await),
        }
    }

    /// Records incidents of which nothing but the alerts has changed, and tells how many there are now.
    async fn keep_pace(&mut self, now: Timestamp) {
        let all = &self.incidents;
        let is_large = |id: &IncidentId| all.get(id).is_some_and(|one| !one.more.is_empty());
        let due = self.pace.due(now, is_large);
        let found = due.iter().filter_map(|id| self.incidents.get(id));
        let incidents: Vec<&Incident> = found.collect();
        if let Err(error) = self.ports.records.put_incidents(&incidents).await {
            let what = error.to_string();
            self.ports.tell.tell(News::Trouble { what });
            // They are still not on record.
            due.iter().for_each(|id| self.pace.changed(id, now));
            return;
        }
        for incident in incidents {
            let grows = !incident.explained.is_empty();
            if matches!(incident.state, State::TellOnly { .. }) || grows {
                let incident = Box::new(incident.clone());
                let page = false;
                self.ports.tell.tell(News::Incident { incident, page });
            }
        }
    }

    /// The incident that the alert changes; it is not recorded yet.
    pub(super) fn place(&mut self, alert: &Alert, change: Change) -> Option<IncidentId> {
        if self.is_watchdog(alert) {
            if alert.status == Status::Firing && change != Change::Stale {
                self.ports.vitals.set(|vitals| {
                    vitals.watchdog_seen = vitals.watchdog_seen.max(Some(alert.received_at));
                });
            }
            return None;
        }
        if page::is_line(alert) {
            // No storm either: whoever can write lines must not be able to stop repairs.
            return change.replaces().then(|| self.place_line(alert))?;
        }
        if !change.replaces() || self.folds(alert) {
            return None;
        }
        self.take_in(alert, change)
    }

    /// It has ended, but comes and goes: its incident stays as it is for a while.
    fn folds(&mut self, alert: &Alert) -> bool {
        let (key, now) = (alert_key(alert), self.now());
        if alert.status == Status::Firing {
            self.flaps.began(&key, now);
            return false;
        }
        let flap = self.flaps.ended(&key, alert.starts_at, now);
        let known = self.incidents.with_alert(&key);
        let known = known.filter(|one| one.is_light()).map(|one| one.id.clone());
        let (Flap::Flapping { until, .. }, Some(id)) = (flap, known) else {
            return false;
        };
        self.flaps.hold(until, alert);
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.comes_and_goes.insert(alert.name.clone());
            self.pace.changed(&id, now);
        }
        true
    }

    /// Ends of alerts that have not come again, and of those whose incident is worked on: a proof must see them.
    async fn unfold(&mut self) {
        let (now, incidents) = (self.now(), &self.incidents);
        let is_worked_on = |key: &str| incidents.with_alert(key).is_none_or(|one| !one.is_light());
        let ended = self.flaps.due(now, is_worked_on);
        let touched: BTreeSet<IncidentId> = ended
            .iter()
            .filter_map(|alert| self.take_in(alert, Change::Resolved))
            .collect();
        for id in touched {
            self.alerts_changed(&id).await;
        }
    }

    fn take_in(&mut self, alert: &Alert, change: Change) -> Option<IncidentId> {
        self.leavers.ended_or_placed(&alert_key(alert));
        let matched = match_alert(&self.library, &self.topology, alert);
        if matches!(matched, Matched::Gate { .. }) {
            return None;
        }
        let claim = Claim::of(&self.library, &matched, alert);
        let placed = place(&self.view(), &claim, alert);
        if matches!(change, Change::New | Change::Refiring) {
            self.count(&placed, &claim, alert);
        }
        let id = match placed {
            Placement::Existing(id) => id,
            Placement::Explained(..) | Placement::New(_) if alert.status == Status::Resolved => {
                return None;
            }
            Placement::Explained(id, because) => {
                let symptom = Symptom { claim, because };
                self.incidents.explain(&id, alert_key(alert), symptom);
                return Some(id);
            }
            Placement::New(domain) => {
                let may_be_symptom = claim.may_be_symptom(&self.topology);
                self.open(domain, may_be_symptom)
            }
        };
        let key = alert_key(alert);
        let known = self.incidents.get(&id);
        let is_own = known.is_some_and(|one| !one.explained.contains_key(&key));
        self.incidents.hear(&id, alert);
        // A symptom teaches its cause nothing.
        if let Some(incident) = self.incidents.get_mut(&id).filter(|_| is_own) {
            incident.learn(&alert.name, matched);
        }
        Some(id)
    }

    /// By whichever name the rules call it.
    fn is_watchdog(&self, alert: &Alert) -> bool {
        alert.name == watchdog::ALERT_NAME
            || self.library.alerts().gate(alert) == Some(Gate::Watchdog)
    }

    pub(super) fn open(&mut self, domain: Domain, may_be_symptom: bool) -> IncidentId {
        let now = self.now();
        let id = IncidentId(self.unique("i"));
        let mut incident = Incident::opened(id.clone(), domain, now);
        if may_be_symptom {
            incident.gathers_until = Some(now + self.settings.gathers());
        }
        self.incidents.insert(incident);
        id
    }

    /// What another incident explains is no storm.
    fn count(&mut self, placed: &Placement, claim: &Claim, alert: &Alert) {
        let now = self.now();
        match placed {
            Placement::Explained(..) => {}
            // However many tell of one service, it is one thing that is broken.
            Placement::Existing(_) if matches!(claim.domain, Domain::Service(_)) => {}
            _ if claim.may_be_symptom(&self.topology) => {
                let until = now + self.settings.gathers();
                self.starts.may_be_symptom(until, alert_key(alert));
            }
            Placement::Existing(_) | Placement::New(_) => self.starts.began(now),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            incidents: &self.incidents,
            library: &self.library,
            topology: &self.topology,
            now: self.now(),
            settles: self.settings.settles(),
        }
    }

    /// Letters and digits, sorted by time, unique in this process; the milliseconds make it so over restarts.
    fn unique(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!(
            "{prefix}{:x}{:02x}",
            self.now().as_millisecond(),
            self.serial % 256
        )
    }

    /// Applies an event, records, tells.
    pub(super) async fn change(
        &mut self,
        id: &IncidentId,
        event: &Event,
    ) -> Result<(), OrderError> {
        let now = self.now();
        let incident = self
            .incidents
            .get_mut(id)
            .ok_or_else(|| OrderError::Unknown(id.clone()))?;
        let before = incident.clone();
        incident.apply(event, now)?;
        // Nothing is begun on the strength of a state that would be forgotten.
        if let Err(error) = self.ports.records.put_incident(incident).await {
            *incident = before;
            self.ports.tell.tell(News::Trouble {
                what: error.to_string(),
            });
            return Err(OrderError::Records(error.to_string()));
        }
        // What was gathered and turned out to be nothing by itself was never told of.
        let unheard = before.gathers(now) && !incident.is_open();
        if worth_telling(&before, incident) && !unheard {
            let page = is_page(&before.state, &incident.state);
            self.ports.tell.tell(News::Incident {
                incident: Box::new(incident.clone()),
                page,
            });
        }
        if !incident.is_open() {
            self.close(id);
        }
        Ok(())
    }

    /// What it explained and still fires is left alone for a while: much of it ends with its cause.
    fn close(&mut self, id: &IncidentId) {
        let Some(closed) = self.incidents.take(id) else {
            return;
        };
        let due = self.now() + self.settings.settles();
        self.leavers.wait(closed.explained.into_keys(), due);
    }

    /// Records an incident as it is.
    async fn keep(&mut self, id: &IncidentId) {
        let Some(incident) = self.incidents.get(id) else {
            return;
        };
        if let Err(error) = self.ports.records.put_incident(incident).await {
            self.ports.tell.tell(News::Trouble {
                what: error.to_string(),
            });
        }
        if !incident.is_open() {
            self.close(id);
        }
    }

    async fn tick(&mut self) {
        let now = self.now();
        for id in self.incidents.keys().cloned().collect::<Vec<_>>() {
            let Some(incident) = self.incidents.get(&id) else {
                continue;
            };
            let next = incident
                .state
                .clone()
                .next(&Event::Tick, incident.is_firing(), now);
            if next.is_ok_and(|next| next != incident.state) {
                let _ = self.change(&id, &Event::Tick).await;
            }
        }
        self.unfold().await;
        self.regroup().await;
        self.keep_pace(now).await;
        self.weather(now);
        let due: Vec<IncidentId> = self
            .incidents
            .values()
            .filter(|one| one.is_open() && one.state.is_due(now) && !one.gathers(now))
            .map(|one| one.id.clone())
            .collect();
        for id in due {
            self.look(&id);
        }
    }

    fn weather(&mut self, now: Timestamp) {
        let explained = |key: &str| {
            let known = self.incidents.with_alert(key);
            known.is_some_and(|one| one.explained.contains_key(key))
        };
        let new_alerts = self.starts.count(now, explained);
        let vitals = self.ports.vitals.get();
        let sick = |one: &&Incident| {
            matches!(one.domain, Domain::Service(_))
                && one.under.is_none()
                && !one.gathers(now)
                && one.is_firing()
                && !matches!(one.state, State::Healed { .. } | State::Resolved { .. })
        };
        let fresh = self.settings.watchdog_fresh();
        // A word of G3 that nobody renewed says nothing about now.
        let distrusted = vitals.monitoring_lost.is_some_and(|lost| {
            now.duration_since(lost.since) > fresh && now.duration_since(lost.judged_at) < fresh
        });
        let weather = Weather {
            new_alerts,
            unhealthy_services: self.incidents.values().filter(sick).count(),
            // Never heard since the start is not a loss; gate G3 stands still for it anyway.
            monitoring_lost: vitals
                .watchdog_seen
                .is_some_and(|seen| now.duration_since(seen) > fresh || distrusted),
        };
        let storm = storm::judge(vitals.storm, &weather, &self.settings.storm, now);
        if std::mem::discriminant(&storm) != std::mem::discriminant(&vitals.storm) {
            self.ports.tell.tell(News::Storm { storm });
        }
        let open = self
            .incidents
            .values()
            .filter(|one| one.is_firing() && !matches!(one.state, State::Healed { .. }));
        let open: Vec<(String, Vec<RunbookId>)> = open
            .map(|one| (one.domain.scope(), one.runbooks.clone()))
            .collect();
        let down = hosts_down(self.incidents.values());
        self.ports.vitals.set(|vitals| {
            (vitals.storm, vitals.open) = (storm, open);
            vitals.hosts_down = down.into_iter().map(|(host, _)| host).collect();
        });
    }

    /// Looks at an incident beside the loop.
    fn look(&mut self, id: &IncidentId) {
        let Some(incident) = self.incidents.get(id).cloned() else {
            return;
        };
        if self.looking.len() >= LOOKS || !self.looking.insert(id.clone()) {
            return;
        }
        let approved = match &incident.state {
            State::Approved { digest, by } => Some((digest.clone(), by.clone())),
            _ => None,
        };
        let down = hosts_down(self.incidents.values());
        let (evaluator, landed) = (self.evaluator.clone(), self.handle.landed.clone());
        tokio::spawn(async move {
            let digest = approved.as_ref().map(|(digest, _)| digest.as_str());
            let evaluated = Box::new(evaluator.look(&incident, &down, digest).await);
            let _ = landed
                .send(Landed::Looked {
                    incident: incident.id,
                    approved,
                    evaluated,
                })
                .await;
        });
    }

    async fn landed(&mut self, landed: Landed) {
        match landed {
            Landed::Looked {
                incident,
                approved,
                evaluated,
            } => self.looked(&incident, approved, *evaluated).await,
            Landed::Ended {
                incident,
                job,
                result,
            } => self.ended(&incident, &job, result).await,
            Landed::Proof { incident, job } => {
                let _ = self
                    .change(
                        &incident,
                        &Event::ProofStarted {
                            job: job.to_string(),
                        },
                    )
                    .await;
            }
        }
    }

    async fn looked(
        &mut self,
        id: &IncidentId,
        approved: Option<(String, String)>,
        evaluated: Evaluated,
    ) {
        self.looking.remove(id);
        let Some(incident) = self.incidents.get_mut(id) else {
            return;
        };
        // A person spoke meanwhile: what was decided without that is void, and it is looked at again.
        let approval = match &incident.state {
            State::Approved { digest, .. } => Some(digest),
            _ => None,
        };
        if approval != approved.as_ref().map(|(digest, _)| digest) {
            return;
        }
        // The decision that a job was made from stays on record while the job runs: its gates are asked with it.
        if incident.state.job().is_some() {
            return;
        }
        incident.steady = evaluated.steady;
        incident.under = evaluated.under;
        if let Err(error) = self.ports.records.put_decision(&evaluated.record).await {
            self.ports.tell.tell(News::Trouble {
                what: error.to_string(),
            });
            return;
        }
        let decision = evaluated.record.decision;
        if self
            .change(
                id,
                &Event::Decided {
                    decision: decision.clone(),
                },
            )
            .await
            .is_err()
        {
            return; // it ended or was taken up meanwhile
        }
        if let Decision::Act { plan, .. } = decision {
            self.act(id, &plan, approved.map(|(_, by)| by)).await;
        }
    }

    async fn act(&mut self, id: &IncidentId, plan: &HealPlan, by: Option<String>) {
        let job = JobId(self.unique("h"));
        let created = jobs::create(
            &self.ports,
            &*self.jobs,
            &job,
            id,
            plan,
            by.as_deref(),
            self.now(),
        )
        .await;
        if let Err(what) = created {
            self.ports.tell.tell(News::Trouble { what: what.clone() });
            let decision = Decision::Refuse {
                why: format!("the job could not be made: {what}"),
                evidence: Vec::new(),
            };
            let _ = self.change(id, &Event::Decided { decision }).await;
            return;
        }
        // What comes back from it is heard after this. If it cannot be recorded the job is in the journal all the same, and a
        // restart finds it.
        self.drive(job.clone(), id.clone());
        let started = Event::JobStarted {
            job: job.to_string(),
        };
        let _ = self.change(id, &started).await;
    }

    fn drive(&self, job: JobId, incident: IncidentId) {
        let (jobs, landed) = (self.jobs.clone(), self.handle.landed.clone());
        tokio::spawn(async move {
            let result = jobs.run(&job).await;
            let _ = landed
                .send(Landed::Ended {
                    incident,
                    job,
                    result,
                })
                .await;
        });
    }

    async fn ended(&mut self, id: &IncidentId, job: &JobId, result: Result<JobResult, String>) {
        let result = match result {
            Ok(result) => result,
            Err(what) => {
                // It is still in the journal, and its lease is held; a restart of the bot takes it up again.
                let what = format!("job {job} is not driven any more: {what}");
                return self.ports.tell.tell(News::Trouble { what });
            }
        };
        let now = self.now();
        let state = self.jobs.state(job).await.ok().flatten();
        let settings = self.settings.clone();
        let configured = move |runbook: &RunbookId| settings.configured_mode(runbook);
        match jobs::settle(&self.ports, job, state.as_ref(), &result, configured, now).await {
            Ok(Some((runbook, to, why))) => {
                self.ports.tell.tell(News::Demoted { runbook, to, why })
            }
            Ok(None) => {}
            Err(what) => self.ports.tell.tell(News::Trouble { what }),
        }
        let acted = jobs::acted(state.as_ref());
        let event = Event::JobEnded {
            job: job.to_string(),
            result,
            acted,
        };
        if self.change(id, &event).await.is_ok() {
            // The alerts may have ended before the proof did.
            if self.incidents.get(id).is_some_and(|one| !one.is_firing()) {
                let _ = self.change(id, &Event::AlertsChanged).await;
            }
        }
    }

    /// Until the next thing is due.
    fn pause(&self) -> std::time::Duration {
        let now = self.now();
        let due = self.incidents.values().filter_map(|one| match &one.state {
            State::Holding { until, .. } => Some(*until),
            State::Asking { expires, .. } => Some(*expires),
            State::Refused { again, .. } => *again,
            State::Shadow { again, .. } => Some(*again),
            _ => None,
        });
        let gathers = self.incidents.values().filter_map(|one| one.gathers_until);
        let due = due.chain(gathers.filter(|until| now < *until));
        let due = due
            .chain(self.leavers.next_at())
            .chain(self.flaps.next_at());
        let left = due.chain(self.pace.next_at()).min().map_or(TICK, |at| {
            std::time::Duration::try_from(now.duration_until(at)).unwrap_or_default()
        });
        left.clamp(SHORTEST_TICK, TICK)
    }
}

/// A sleep that owns its clock.
trait SleepOwned {
    fn sleep_owned(self, length: std::time::Duration) -> impl Future<Output = ()> + Send;
}

impl SleepOwned for Arc<dyn Clock> {
    async fn sleep_owned(self, length: std::time::Duration) {
        self.sleep(length).await;
    }
}

/// A hold that only moves its end by some seconds is no news.
fn worth_telling(before: &Incident, after: &Incident) -> bool {
    match (&before.state, &after.state) {
        (State::Holding { why: old, .. }, State::Holding { why: new, .. }) => old != new,
        (State::Refused { why: old, .. }, State::Refused { why: new, .. }) => old != new,
        (State::Shadow { would: old, .. }, State::Shadow { would: new, .. }) => old != new,
        (old, new) => old != new || before.known_alerts() != after.known_alerts(),
    }
}

/// Somebody must look now: a refusal that is new, a question, a repair that was not proven.
fn is_page(before: &State, after: &State) -> bool {
    match after {
        State::Unproven { .. } | State::Asking { .. } => before.name() != after.name(),
        State::Refused { why, again, .. } => {
            !matches!(before, State::Refused { why: old, .. } if old == why) && again.is_some()
        }
        State::TellOnly { .. } => !matches!(before, State::TellOnly { .. }),
        _ => false,
    }
}
