//! All hosts and the network to them. What is under way, what runs and what was planned for a moment is one queue in the order of
//! virtual time; whoever looks at the world first lets everything happen that is due.

mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    clock::VirtualClock,
    deed::Deed,
    dice::Dice,
    facts::{Fact, What},
    host::{Host, Order},
    trace::Trace,
    weather::{Weather, signed},
};
use crate::{
    job::JobId,
    model::HostName,
    runner::Clock,
    wire::{Fence, StepKey, StepStatus},
};
use work::Stage;

/// What an agent says that has too much to do (`agent::serve`).
const BUSY: &str = "expected at most 64 requests at once, found one more";

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
    Cancel { key: StepKey, fence: Fence },
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
        let busy = self.weather.hosts.busy;
        if !self.weather.is_calm(at) && self.dice.chance(busy) {
            self.trace
                .say(at, || format!("{host} is busy and refuses {name}"));
            return Answer::Refused(BUSY.into());
        }
        let answer = match order {
            Message::Start { key, order } => self.start(at, host, key, order),
            Message::Ask { key } => Answer::Status(self.host(host).status(&key, at)),
            Message::Cancel { key, fence } => self.cancel(at, host, &key, &fence),
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
}

fn named(order: &Message) -> String {
    match order {
        Message::Start { key, order } => format!(
            "start of {key} `{}` with token {} from bot{}",
            order.line, order.fence.token, order.bot
        ),
        Message::Ask { key } => format!("a question about {key}"),
        Message::Cancel { key, .. } => format!("a cancel of {key}"),
        Message::Forget { job, fence } => format!("forget {job}, token {}", fence.token),
    }
}

pub fn millis(count: u64) -> jiff::SignedDuration {
    signed(Duration::from_millis(count))
}
