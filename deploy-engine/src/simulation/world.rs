//! All hosts and the network to them. What is under way, what runs and what was planned for a moment is one queue in the order of
//! virtual time; whoever looks at the world first lets everything happen that is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    clock::VirtualClock,
    deed::{Deed, Moment, Way},
    dice::Dice,
    facts::{Fact, What},
    host::{Admission, Entry, Host, Order, Worker},
    trace::Trace,
    weather::{Weather, signed},
};
use crate::{
    job::JobId,
    model::HostName,
    runner::Clock,
    wire::{Fence, Outcome, ResourceId, StepKey, StepStatus},
};

/// A worker looks so often whether it was asked to stop (`agent::worker`).
const CANCEL_POLL_MS: u64 = 100;

/// From a power cut to an agent that answers again, in seconds.
const REBOOT_SECONDS: (u64, u64) = (5, 90);

/// How much of what a command does is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Half,
    Whole,
}

/// What a bot sends to an agent.
#[derive(Clone, Debug)]
pub enum Message {
    Start { key: StepKey, order: Order },
    Ask { key: StepKey },
    Cancel { key: StepKey },
    Forget { job: JobId, fence: Fence },
}

/// What the agent says at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Started or known: there is something to follow.
    Known,
    Fenced {
        seen: u64,
    },
    Status(StepStatus),
    Ok,
    Refused(String),
    /// Nobody is there.
    Down,
}

enum Happening {
    Arrives {
        exchange: Option<u64>,
        host: HostName,
        order: Message,
    },
    Work {
        host: HostName,
        key: StepKey,
        worker: u64,
        stage: Stage,
    },
    PowerCut {
        host: HostName,
    },
}

/// The stages of one execution.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Mark,
    Touch,
    Complete,
    End,
    Killed,
    Orphaned,
    StopAsked,
}

pub struct World {
    pub clock: Arc<VirtualClock>,
    pub trace: Arc<Trace>,
    pub weather: Weather,
    inner: Mutex<Inner>,
}

pub struct Inner {
    trace: Arc<Trace>,
    weather: Weather,
    pub dice: Dice,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    next: u64,
    hosts: BTreeMap<HostName, Host>,
    answers: BTreeMap<u64, Answer>,
    /// How the executions of a command go, first to last; drawn or the usual one when there is no more.
    scripts: BTreeMap<String, Vec<Deed>>,
    executed: BTreeMap<String, u32>,
    /// What was done and not undone.
    pub effects: BTreeMap<String, Extent>,
    pub unreachable: BTreeSet<HostName>,
    pub forgotten: Vec<JobId>,
    pub facts: Vec<Fact>,
    /// Conditions that turn over at these times; they hold at first.
    pub flags: Vec<Vec<Timestamp>>,
}

impl World {
    /// A world in which nothing goes wrong but what is scripted.
    pub fn calm(clock: Arc<VirtualClock>, flags: Vec<Vec<Timestamp>>) -> Self {
        Self::new(clock, Arc::default(), Weather::calm(), Dice::new(0), flags)
    }

    pub fn new(
        clock: Arc<VirtualClock>,
        trace: Arc<Trace>,
        weather: Weather,
        dice: Dice,
        flags: Vec<Vec<Timestamp>>,
    ) -> Self {
        let inner = Inner {
            trace: trace.clone(),
            weather: weather.clone(),
            dice,
            queue: BTreeMap::new(),
            next: 0,
            hosts: BTreeMap::new(),
            answers: BTreeMap::new(),
            scripts: BTreeMap::new(),
            executed: BTreeMap::new(),
            effects: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            forgotten: Vec::new(),
            facts: Vec::new(),
            flags,
        };
        Self {
            clock,
            trace,
            weather,
            inner: Mutex::new(inner),
        }
    }

    /// The world as it is now.
    pub fn now(&self) -> MutexGuard<'_, Inner> {
        let now = self.clock.now();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.catch_up(now);
        inner
    }

    pub fn script(&self, command: &str, deeds: Vec<Deed>) {
        self.now().scripts.insert(command.to_owned(), deeds);
    }

    /// # Panics
    /// When it is no host's name.
    pub fn cut_off(&self, host: &str, unreachable: bool) {
        let host: HostName = host.parse().expect("a host's name");
        let mut inner = self.now();
        if unreachable {
            inner.unreachable.insert(host);
        } else {
            inner.unreachable.remove(&host);
        }
    }

    pub fn executed(&self) -> BTreeMap<String, u32> {
        self.now().executed.clone()
    }

    pub fn times(&self, command: &str) -> u32 {
        self.now().executed.get(command).copied().unwrap_or(0)
    }

    pub fn effects(&self) -> Vec<String> {
        self.now().effects.keys().cloned().collect()
    }

    pub fn forgotten(&self) -> Vec<JobId> {
        self.now().forgotten.clone()
    }
}

impl Inner {
    fn plan(&mut self, at: Timestamp, happening: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), happening);
    }

    fn catch_up(&mut self, now: Timestamp) {
        while let Some(first) = self.queue.first_entry() {
            if first.key().0 > now {
                return;
            }
            let ((at, _), happening) = first.remove_entry();
            match happening {
                Happening::Arrives {
                    exchange,
                    host,
                    order,
                } => {
                    let answer = self.arrives(at, &host, order);
                    if let Some(exchange) = exchange {
                        self.answers.insert(exchange, answer);
                    }
                }
                Happening::Work {
                    host,
                    key,
                    worker,
                    stage,
                } => self.work(at, &host, &key, worker, stage),
                Happening::PowerCut { host } => self.power_cut(at, &host),
            }
        }
    }

    pub fn host(&mut self, host: &HostName) -> &mut Host {
        self.hosts.entry(host.clone()).or_default()
    }

    fn fact(&mut self, at: Timestamp, host: &HostName, what: What) {
        let host = host.clone();
        self.facts.push(Fact { at, host, what });
    }

    /// Hands something to the network. The number under which its answer will be; none for one that nobody waits for.
    pub fn send(&mut self, at: Timestamp, host: &HostName, order: Message, awaited: bool) -> u64 {
        self.next += 1;
        let exchange = self.next;
        let happening = Happening::Arrives {
            exchange: awaited.then_some(exchange),
            host: host.clone(),
            order,
        };
        self.plan(at, happening);
        exchange
    }

    pub fn take_answer(&mut self, exchange: u64) -> Answer {
        self.answers.remove(&exchange).unwrap_or(Answer::Down)
    }

    fn arrives(&mut self, at: Timestamp, host: &HostName, order: Message) -> Answer {
        if self.host(host).is_down(at) {
            self.trace.say(at, || {
                format!("{host} is down and misses {}", named(&order))
            });
            return Answer::Down;
        }
        let name = named(&order);
        let answer = match order {
            Message::Start { key, order } => self.start(at, host, key, order),
            Message::Ask { key } => Answer::Status(self.host(host).status(&key, at)),
            Message::Cancel { key } => self.cancel(at, host, &key),
            Message::Forget { job, fence } => {
                let closed = Fence {
                    token: fence.token + 1,
                    ..fence
                };
                // A newer holder has been here: as closed as can be.
                self.host(host).admit(&closed);
                self.host(host).forget(&job.0);
                self.forgotten.push(job);
                Answer::Ok
            }
        };
        self.trace
            .say(at, || format!("{host} gets {name}: {answer:?}"));
        answer
    }

    fn start(&mut self, at: Timestamp, host: &HostName, key: StepKey, order: Order) -> Answer {
        if self.host(host).status(&key, at) != StepStatus::NeverStarted {
            return Answer::Known;
        }
        if let Admission::Fenced { seen } = self.host(host).admit(&order.fence) {
            self.fact(at, host, What::Fenced);
            return Answer::Fenced { seen };
        }
        let (scope, token) = (order.fence.scope.clone(), order.fence.token);
        self.fact(at, host, What::Admitted { scope, token });
        let deed = self.deed(at, &order.line);
        self.next += 1;
        let (id, limit) = (self.next, u64::from(order.timeout_seconds) * 1_000);
        let in_time = deed.way != Way::Hangs && deed.millis <= limit;
        let ends = match in_time {
            true => deed.ends_after(),
            false => deed.spawn_ms + limit,
        };
        let worker = Worker {
            id,
            ends_at: at + millis(ends),
            deed: deed.clone(),
            orphaned: false,
        };
        self.host(host).claim(key.clone(), order, worker);
        self.plan_worker(at, host, &key, id, &deed, ends);
        Answer::Known
    }

    fn plan_worker(
        &mut self,
        at: Timestamp,
        host: &HostName,
        key: &StepKey,
        worker: u64,
        deed: &Deed,
        ends: u64,
    ) {
        let mut stages = vec![
            (deed.spawn_ms, Stage::Mark),
            (deed.touches_after(), Stage::Touch),
            (ends, Stage::End),
        ];
        if deed.way != Way::FailsHalfWay && deed.way != Way::Drifts && deed.way != Way::Hangs {
            stages.push((deed.completes_after(), Stage::Complete));
        }
        match deed.way {
            Way::Killed(moment) => stages.push((deed.comes_after(moment), Stage::Killed)),
            Way::Orphaned(moment) if moment != Moment::BeforeTheMark => {
                stages.push((deed.comes_after(moment), Stage::Orphaned));
            }
            Way::Cut(moment) => {
                let cut = at + millis(deed.comes_after(moment));
                self.plan(cut, Happening::PowerCut { host: host.clone() });
            }
            _ => {}
        }
        for (after, stage) in stages.into_iter().filter(|(after, _)| *after <= ends + 1) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker,
                stage,
            };
            self.plan(at + millis(after), happening);
        }
    }

    fn deed(&mut self, at: Timestamp, line: &str) -> Deed {
        let executed = self.executed.entry(line.to_owned()).or_default();
        *executed += 1;
        let nth = *executed as usize - 1;
        if let Some(deed) = self.scripts.get(line).and_then(|deeds| deeds.get(nth)) {
            return deed.clone();
        }
        match self.weather.is_calm(at) {
            true => Deed::done(3),
            false => Deed::draw(&mut self.dice, &self.weather.hosts),
        }
    }

    fn work(&mut self, at: Timestamp, host: &HostName, key: &StepKey, worker: u64, stage: Stage) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        let running = entry.worker.as_mut().filter(|running| running.id == worker);
        let (Some(running), Some(order)) = (running, &entry.order) else {
            return;
        };
        self.trace
            .say(at, || format!("{host} {key} `{}`: {stage:?}", order.line));
        let (line, limit) = (order.line.clone(), order.timeout_seconds);
        match stage {
            Stage::Mark => self.mark(at, host, key),
            Stage::Touch if running.deed.way == Way::Drifts => {}
            Stage::Touch => self.touch(at, host, key, &line),
            Stage::Complete => self.complete(&line),
            Stage::Orphaned => running.orphaned = true,
            Stage::Killed => {
                entry.worker = None;
                self.fact(at, host, What::Stopped { key: key.clone() });
            }
            Stage::StopAsked if running.orphaned => {}
            Stage::StopAsked => self.end(at, host, key, Outcome::Cancelled),
            Stage::End => {
                let outcome = outcome(running, limit);
                self.end(at, host, key, outcome);
            }
        }
    }

    fn mark(&mut self, at: Timestamp, host: &HostName, key: &StepKey) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        entry.started_at = Some(at);
        let Some(order) = entry.order.clone() else {
            return;
        };
        if let Some(worker) = entry.worker.as_ref().filter(|_| entry.cancel) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker: worker.id,
                stage: Stage::StopAsked,
            };
            self.plan(at + millis(CANCEL_POLL_MS), happening);
        }
        let what = What::Started {
            key: key.clone(),
            scope: order.fence.scope,
            token: order.fence.token,
            bot: order.bot,
            sent_at: order.sent_at,
        };
        self.fact(at, host, what);
    }

    fn touch(&mut self, at: Timestamp, host: &HostName, key: &StepKey, line: &str) {
        match line.split_once(' ') {
            Some(("do" | "undo", name)) => {
                self.effects.insert(name.to_owned(), Extent::Half);
            }
            Some(("look", _)) => return,
            _ => panic!("expected a verb and a name, found {line}"),
        }
        self.fact(at, host, What::Touched { key: key.clone() });
    }

    fn complete(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("do", name)) => {
                self.effects.insert(name.to_owned(), Extent::Whole);
            }
            Some(("undo", name)) => {
                self.effects.remove(name);
            }
            _ => {}
        }
    }

    fn end(&mut self, at: Timestamp, host: &HostName, key: &StepKey, outcome: Outcome) {
        let Some(entry) = self.hosts.get_mut(host).and_then(|h| h.spool.get_mut(key)) else {
            return;
        };
        let orphaned = entry.worker.take().is_some_and(|worker| worker.orphaned);
        // Nobody is left who would write it down.
        entry.outcome = (!orphaned).then_some(outcome);
        self.fact(at, host, What::Stopped { key: key.clone() });
    }

    fn cancel(&mut self, at: Timestamp, host: &HostName, key: &StepKey) -> Answer {
        self.host(host).cancel(key, at);
        let entry = self.host(host).spool.get(key);
        let running = entry.filter(|entry: &&Entry| entry.started_at.is_some());
        if let Some(worker) = running.and_then(|entry| entry.worker.as_ref()) {
            let happening = Happening::Work {
                host: host.clone(),
                key: key.clone(),
                worker: worker.id,
                stage: Stage::StopAsked,
            };
            self.plan(at + millis(CANCEL_POLL_MS), happening);
        }
        Answer::Ok
    }

    fn power_cut(&mut self, at: Timestamp, host: &HostName) {
        let reboot = self.dice.between(REBOOT_SECONDS.0, REBOOT_SECONDS.1);
        self.trace
            .say(at, || format!("{host} LOSES ITS POWER for {reboot} s"));
        let machine = self.host(host);
        machine.down_until = Some(at + millis(reboot * 1_000));
        let running = machine.spool.iter_mut();
        let died: Vec<StepKey> = running
            .filter_map(|(key, entry)| entry.worker.take().map(|_| key.clone()))
            .collect();
        for key in died {
            self.fact(at, host, What::Stopped { key });
        }
    }
}

fn outcome(worker: &Worker, timeout_seconds: u32) -> Outcome {
    let failed = |what: String| Outcome::Failed {
        at: None,
        what,
        output: None,
    };
    match worker.deed.way {
        Way::FailsHalfWay => failed("exit code 1".into()),
        Way::Drifts => Outcome::Drifted {
            at: ResourceId("file:/etc/x".into()),
            expected: "d1".into(),
            found: "d2".into(),
        },
        Way::Hangs => failed("the step's time was up".into()),
        _ if worker.deed.millis > u64::from(timeout_seconds) * 1_000 => {
            failed("the step's time was up".into())
        }
        _ => Outcome::Done {
            changed: vec![],
            output: None,
        },
    }
}

fn named(order: &Message) -> String {
    match order {
        Message::Start { key, order } => format!(
            "start of {key} `{}` with token {} from bot{}",
            order.line, order.fence.token, order.bot
        ),
        Message::Ask { key } => format!("a question about {key}"),
        Message::Cancel { key } => format!("a cancel of {key}"),
        Message::Forget { job, fence } => format!("forget {job}, token {}", fence.token),
    }
}

pub fn millis(count: u64) -> jiff::SignedDuration {
    signed(Duration::from_millis(count))
}
