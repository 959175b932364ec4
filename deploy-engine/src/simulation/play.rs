//! Plays a scenario: bots live, are killed, come back and take over, until the job has come to its end.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};

use super::{
    chat::{Chat, Said},
    clock::{VirtualClock, after},
    dice::Dice,
    disk::Disk,
    facts::Fact,
    gate::Gate,
    lives::{BOTS, End, Life, Lives, RIVAL},
    log::{Kept, Loss},
    mortal::{Doom, Killer, Mortal},
    network::Network,
    scenario::{self, Scenario},
    trace::Trace,
    world::{Extent, World, millis},
};
use crate::{
    job::{Action, JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Step},
    runner::{Clock, Context, NoObserver, OpenGate, RunError, Runner, subject},
};

/// A job that has not ended by then waits for something that never comes. The longest legal one: six steps with three lost
/// attempts of two minutes each, their undos, settle windows and the outages of the first half hour.
pub const END_LIMIT_SECONDS: u64 = 6 * 3_600;

/// After the end everything that is still under way arrives: longer than the latest message is late.
const DRAIN_SECONDS: i64 = 3_600;

/// From a driver's error to the next one that takes the job up, in seconds: a person, or a restart.
const RETAKE_SECONDS: u64 = 20;

const RIVAL_JOB: &str = "j2";

/// Between the tries of a person whose cancel nobody took.
const CANCEL_AGAIN_SECONDS: i64 = 2;

/// All that can be known of a run.
pub struct Played {
    pub job: JobId,
    pub scenario: Arc<Scenario>,
    pub written: Vec<Kept>,
    /// The same of a second job that wants a scope which this one excludes; empty if there was none.
    pub rival: Vec<Kept>,
    /// What each power cut of the bots' host took.
    pub losses: Vec<Loss>,
    /// What the journal says in the end.
    pub journal: Vec<(Timestamp, JobEvent)>,
    pub facts: Vec<Fact>,
    pub effects: BTreeMap<String, Extent>,
    /// What each life told.
    pub told: Vec<Said>,
    /// Which bot stood still from when to when.
    pub frozen: Vec<(usize, Timestamp, Timestamp)>,
    pub cancel_taken: bool,
    pub result: Option<JobResult>,
    pub ended_at: Timestamp,
    /// The site is free for the next job.
    pub lease_is_free: bool,
    pub deaths: usize,
    pub errors: Vec<String>,
    pub trace: Vec<String>,
}

/// One life of a bot that drives the job, over or not.
struct Lived {
    bot: usize,
    killer: Arc<Killer>,
    chat: Arc<Chat>,
}

struct Stage {
    clock: Arc<VirtualClock>,
    trace: Arc<Trace>,
    scenario: Arc<Scenario>,
    world: Arc<World>,
    disk: Arc<Disk>,
    job: JobId,
    dooms: RefCell<std::vec::IntoIter<Doom>>,
    lived: RefCell<Vec<Lived>>,
    cancel_taken: Cell<bool>,
    deaths: Cell<usize>,
    errors: RefCell<Vec<String>>,
}

pub fn play(seed: u64, trace: Trace) -> Played {
    let mut dice = Dice::new(seed);
    let scenario = Arc::new(Scenario::draw(&mut dice.split()));
    let stage = Stage::new(scenario, &mut dice, Arc::new(trace));
    let result = stage.clock.block_on(stage.run());
    stage.played(result)
}

impl Stage {
    fn new(scenario: Arc<Scenario>, dice: &mut Dice, trace: Arc<Trace>) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let weather = &scenario.weather;
        let world = World::new(
            clock.clone(),
            trace.clone(),
            weather.clone(),
            dice.split(),
            scenario.flags.clone(),
        );
        let disk = Disk::new(clock.clone(), trace.clone(), weather.clone(), dice.split());
        Self {
            world: Arc::new(world),
            disk: Arc::new(disk),
            clock,
            trace,
            job: JobId("j1".into()),
            dooms: RefCell::new(scenario.dooms.clone().into_iter()),
            scenario,
            lived: RefCell::default(),
            cancel_taken: Cell::new(false),
            deaths: Cell::new(0),
            errors: RefCell::default(),
        }
    }

    async fn run(&self) -> Option<JobResult> {
        for step in &self.scenario.steps {
            self.trace.say(self.clock.now(), || told(step));
        }
        self.make(&self.job, self.created()).await;
        let mut lives = Lives::default();
        lives.expect(0, self.clock.now());
        for (bot, at) in [
            (1, self.scenario.takeover_at),
            (RIVAL, self.scenario.rival_at),
        ] {
            if let Some(at) = at {
                lives.expect(bot, at);
            }
        }
        let mut result = None;
        loop {
            let wake = lives.next_birth().unwrap_or(after(END_LIMIT_SECONDS));
            tokio::select! {
                biased;
                Some((bot, end)) = lives.next_end() => {
                    if let Some(finished) = self.ended(bot, end, &mut lives) {
                        result = Some(finished);
                    }
                }
                () = self.clock.until(wake) => match lives.take_birth() {
                    Some(RIVAL) => lives.begin(RIVAL, self.rival()),
                    Some(bot) => lives.begin(bot, self.life(bot)),
                    None => {}
                }
            }
            // Whoever is frozen is waited for: it may wake up and act.
            if result.is_some() && lives.is_over() {
                return result;
            }
            if self.clock.now() >= after(END_LIMIT_SECONDS) {
                return None;
            }
        }
    }

    /// What comes of the end of a life.
    fn ended(&self, bot: usize, end: End, lives: &mut Lives<'_>) -> Option<JobResult> {
        let now = self.clock.now();
        let downtime = seconds(self.scenario.downtime);
        match end {
            End::Rival => {}
            End::Finished(finished) => return Some(finished),
            End::Killed => {
                self.deaths.set(self.deaths.get() + 1);
                lives.expect(bot, now + downtime);
            }
            End::PowerCut => {
                self.deaths.set(self.deaths.get() + 1);
                lives.expect(bot, now + downtime);
                lives.end_all(now + downtime);
                self.power_cut();
            }
            End::Error(error) => {
                self.trace
                    .say(now, || format!("{} gives up: {error}", BOTS[bot]));
                self.errors.borrow_mut().push(error.to_string());
                lives.expect_if_needed(bot, now + seconds(RETAKE_SECONDS));
            }
        }
        None
    }

    /// All bots share a host, as the store that they share is on it.
    fn power_cut(&self) {
        self.disk.power_cut();
        let left = self.disk.events(&self.job).len() as u64;
        for lived in self.lived.borrow().iter() {
            lived.killer.ends_now();
            lived.chat.lose_after(left);
        }
    }

    fn created(&self) -> JobEvent {
        let scope = match &self.scenario.kind {
            JobKind::Deploy { .. } | JobKind::Batch { .. } => "site:demo",
            JobKind::Heal { .. } => "domain:mariadb",
        };
        JobEvent::Created {
            kind: self.scenario.kind.clone(),
            title: "simulated".into(),
            requested_by: "alice".into(),
            scope: scope.into(),
            steps: self.scenario.steps.clone(),
        }
    }

    /// Makes a job, unless it is there: a repair that was lost with the power is made again from its incident.
    async fn make(&self, job: &JobId, created: JobEvent) {
        match self.disk.create(job, self.clock.now(), &created).await {
            Ok(()) | Err(JournalError::Exists(_)) => {}
            Err(error) => panic!("expected a new job: {error}"),
        }
    }

    fn life(&self, bot: usize) -> Life<'_> {
        let doom = self.dooms.borrow_mut().next().unwrap_or_default();
        let killer = Killer::new(BOTS[bot], doom, self.clock.clone(), self.trace.clone());
        self.trace.say(self.clock.now(), || {
            format!("{} begins to drive, {doom:?}", BOTS[bot])
        });
        let network = Arc::new(Network {
            world: self.world.clone(),
            bot,
        });
        let chat = Arc::new(Chat::default());
        self.lived.borrow_mut().push(Lived {
            bot,
            killer: killer.clone(),
            chat: chat.clone(),
        });
        let mortal = |inner| Mortal {
            killer: killer.clone(),
            inner,
        };
        let runner = Runner::new(Context {
            journal: Arc::new(Mortal {
                killer: killer.clone(),
                inner: self.disk.clone(),
            }),
            hosts: Arc::new(mortal(network.clone())),
            evidence: Arc::new(mortal(network)),
            gate: Arc::new(Gate {
                clock: self.clock.clone(),
                scenario: self.scenario.clone(),
            }),
            observer: chat,
            clock: self.clock.clone(),
            holder: BOTS[bot].into(),
        });
        async move {
            let driven = async {
                self.make(&self.job, self.created()).await;
                tokio::select! {
                    biased;
                    result = runner.run(&self.job) => result,
                    () = self.cancel(&runner) => unreachable!("a person waits for ever"),
                }
            };
            let end = match killer.mortal(driven).await {
                None if killer.is_power_cut() => End::PowerCut,
                None => End::Killed,
                Some(Ok(result)) => End::Finished(result),
                Some(Err(error)) => End::Error(error),
            };
            (bot, end)
        }
        .boxed_local()
    }

    /// A small job that excludes the other one, and is excluded by it. Nobody kills its bot.
    fn rival(&self) -> Life<'_> {
        let (kind, scope) = match &self.scenario.kind {
            JobKind::Deploy { .. } | JobKind::Batch { .. } => (
                JobKind::Heal {
                    incident: "i2".into(),
                    runbook: "RMQ-1".into(),
                },
                "domain:rabbitmq",
            ),
            JobKind::Heal { .. } => (
                JobKind::Deploy {
                    plan_digest: "d2".into(),
                },
                "site:demo",
            ),
        };
        let created = JobEvent::Created {
            kind,
            title: "rival".into(),
            requested_by: "bob".into(),
            scope: scope.into(),
            steps: vec![scenario::rival_step()],
        };
        let network = Arc::new(Network {
            world: self.world.clone(),
            bot: RIVAL,
        });
        let runner = Runner::new(Context {
            journal: self.disk.clone(),
            hosts: network.clone(),
            evidence: network,
            gate: Arc::new(OpenGate),
            observer: Arc::new(NoObserver),
            clock: self.clock.clone(),
            holder: BOTS[RIVAL].into(),
        });
        async move {
            let job = JobId(RIVAL_JOB.into());
            self.make(&job, created).await;
            while runner.run(&job).await.is_err() {
                self.pause(CANCEL_AGAIN_SECONDS).await;
            }
            (RIVAL, End::Rival)
        }
        .boxed_local()
    }

    /// A person who asks until somebody takes it.
    async fn cancel(&self, runner: &Runner) {
        if let Some(at) = self.scenario.cancel_at {
            self.clock.until(at).await;
            while !self.cancel_taken.get() {
                match runner.cancel(&self.job, "alice").await {
                    Ok(()) => self.cancel_taken.set(true),
                    Err(RunError::AlreadyFinished(_)) => break,
                    Err(_) => self.pause(CANCEL_AGAIN_SECONDS).await,
                }
            }
        }
        std::future::pending().await
    }

    async fn pause(&self, seconds: i64) {
        let until = self.clock.now() + SignedDuration::from_secs(seconds);
        self.clock.until(until).await;
    }

    fn played(self, result: Option<JobResult>) -> Played {
        let ended_at = self.clock.now();
        self.clock.skip(DRAIN_SECONDS);
        let (facts, effects) = {
            let mut inner = self.world.now();
            (std::mem::take(&mut inner.facts), inner.effects.clone())
        };
        let store = self.disk.journal();
        let journal = self.clock.block_on(store.load(&self.job));
        let next = JobId("j3".into());
        let now = self.clock.now();
        let acquire = store.acquire("site:demo", "bot9", &next, now);
        let lease_is_free = self.clock.block_on(acquire).is_ok();
        let lived = self.lived.take();
        let frozen = lived.iter().filter_map(|lived| {
            let (from, to) = lived.killer.frozen()?;
            Some((lived.bot, from, to))
        });
        Played {
            written: self.disk.events(&self.job),
            rival: self.disk.events(&JobId(RIVAL_JOB.into())),
            losses: self.disk.losses(),
            journal: journal.expect("a job that was created"),
            facts,
            effects,
            told: lived.iter().map(|lived| lived.chat.said()).collect(),
            frozen: frozen.collect(),
            cancel_taken: self.cancel_taken.get(),
            result,
            ended_at,
            lease_is_free,
            deaths: self.deaths.get(),
            errors: self.errors.take(),
            trace: self.trace.take(),
            job: self.job,
            scenario: self.scenario,
        }
    }
}

/// A step in one line.
fn told(step: &Step) -> String {
    let work = |action: &Action| match action {
        Action::Host { host, work } => format!("{} on {host}", subject(work)),
        Action::Check { condition, mode } => format!("check {} {mode:?}", condition.name),
        Action::Snapshot { .. } => "snapshot".to_owned(),
        Action::Wait { seconds, .. } => format!("wait {seconds}"),
        Action::Batch { number, .. } => format!("batch {number}"),
    };
    let mut line = format!(
        "step {}: {}, {:?}, within {}",
        step.id,
        work(&step.action),
        step.effect,
        step.timeout
    );
    if !step.needs.is_empty() {
        line += &format!(
            ", needs {:?}",
            step.needs.iter().map(|id| id.0).collect::<Vec<_>>()
        );
    }
    for guard in &step.guards {
        line += &format!(", guard {}", guard.name);
    }
    if let Some(unless) = &step.unless {
        line += &format!(", unless {}", unless.name);
    }
    if let Some(undo) = &step.undo {
        line += &format!(", undo {}", work(undo));
    }
    line
}

fn seconds(count: u64) -> SignedDuration {
    millis(count * 1_000)
}
