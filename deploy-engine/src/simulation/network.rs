//! What one bot sees of the world: exchanges that are lost on the way there or back, late, doubled, or cut off by a partition.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{
    host::Order,
    weather::signed,
    world::{Answer, Message, World, millis},
};
use crate::{
    job::JobId,
    model::{HostName, Secs},
    runner::Clock,
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};

/// The transport follows a step over broken connections for so long (`transport::ssh`).
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);

/// On top of a step's own limit, before the transport says that the host does not tell its outcome (`transport::ssh`).
const OUTCOME_GRACE: Duration = Duration::from_secs(10);

/// A follower looks at least so often; what ends earlier than planned is noticed at most this late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The hosts as a bot reaches them.
pub struct Network {
    pub world: Arc<World>,
    pub bot: usize,
}

/// How a message fares.
enum Fate {
    /// No connection could be had: nothing was sent.
    Unsent { told_after: Duration },
    /// It was sent; it arrives then, or never; whoever sent it hears nothing.
    Silent {
        arrives_after: Option<Duration>,
        told_after: Duration,
    },
    Arrives {
        after: Duration,
        again_after: Option<Duration>,
    },
}

impl Network {
    pub(super) fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    fn unreachable(&self, host: &HostName, found: &str) -> HostError {
        HostError::Unreachable {
            host: host.clone(),
            address: "10.0.0.1".into(),
            found: found.into(),
        }
    }

    pub(super) fn parted_until(&self, host: &HostName) -> Option<Timestamp> {
        self.world
            .weather
            .parted(self.bot, number(host), self.now())
    }

    fn fate(&self, host: &HostName) -> Fate {
        let now = self.now();
        let weather = &self.world.weather;
        let parted = self.parted_until(host);
        let mut inner = self.world.now();
        if inner.unreachable.contains(host) {
            let told_after = Duration::ZERO;
            let arrives_after = None;
            return Fate::Silent {
                arrives_after,
                told_after,
            };
        }
        let dice = &mut inner.dice;
        if let Some(until) = parted {
            let healed = Duration::try_from(now.duration_until(until)).unwrap_or_default();
            let told_after = dice.millis(1_000, 30_000);
            if dice.chance(0.5) {
                return Fate::Unsent { told_after };
            }
            let late = dice.millis(0, 20_000);
            return Fate::Silent {
                arrives_after: dice.chance(0.5).then_some(healed + late),
                told_after,
            };
        }
        let chances = &weather.network;
        if weather.is_calm(now) {
            let (after, again_after) = (weather.latency(dice), None);
            return Fate::Arrives { after, again_after };
        }
        let late = |dice: &mut super::dice::Dice| dice.millis(500, chances.late_by_seconds * 1_000);
        if dice.chance(chances.lost_before_it_arrives) {
            let told_after = dice.millis(100, 20_000);
            return match dice.chance(0.5) {
                true => Fate::Unsent { told_after },
                false => Fate::Silent {
                    arrives_after: None,
                    told_after,
                },
            };
        }
        if dice.chance(chances.late) {
            return Fate::Silent {
                arrives_after: Some(late(dice)),
                told_after: dice.millis(100, 10_000),
            };
        }
        let again_after = dice.chance(chances.doubled).then(|| late(dice));
        let after = weather.latency(dice);
        Fate::Arrives { after, again_after }
    }

    /// One message there and its answer back.
    pub(super) async fn exchange(
        &self,
        host: &HostName,
        message: Message,
    ) -> Result<Answer, HostError> {
        let now = self.now();
        let at = |after: Duration| now + signed(after);
        match self.fate(host) {
            Fate::Unsent { told_after } => {
                self.world.clock.pause(told_after).await;
                Err(match message {
                    Message::Start { key, .. } => HostError::NotStarted {
                        host: host.clone(),
                        key: key.to_string(),
                        found: "no connection".into(),
                    },
                    _ => self.unreachable(host, "no connection"),
                })
            }
            Fate::Silent {
                arrives_after,
                told_after,
            } => {
                if let Some(after) = arrives_after {
                    self.world.now().send(at(after), host, message, false);
                }
                self.world.clock.pause(told_after).await;
                Err(self.unreachable(host, "a connection that broke"))
            }
            Fate::Arrives { after, again_after } => {
                let exchange = {
                    let mut inner = self.world.now();
                    if let Some(again) = again_after {
                        inner.send(at(after + again), host, message.clone(), false);
                    }
                    inner.send(at(after), host, message, true)
                };
                self.world.clock.pause(after).await;
                let answer = self.world.now().take_answer(exchange);
                if answer == Answer::Down {
                    let patience = self.world.now().dice.millis(1_000, 20_000);
                    self.world.clock.pause(patience).await;
                    return Err(self.unreachable(host, "no answer"));
                }
                match self.answered(host, answer).await? {
                    Answer::Refused(why) => Err(HostError::Refused {
                        host: host.clone(),
                        why,
                    }),
                    answer => Ok(answer),
                }
            }
        }
    }

    /// The way back.
    async fn answered<T>(&self, host: &HostName, answer: T) -> Result<T, HostError> {
        let (lost, back) = {
            let calm = self.world.weather.is_calm(self.now());
            let mut inner = self.world.now();
            let chance = self.world.weather.network.answer_lost;
            let lost = !calm && inner.dice.chance(chance);
            (lost, self.world.weather.latency(&mut inner.dice))
        };
        self.world.clock.pause(back).await;
        match lost || self.world.now().unreachable.contains(host) {
            true => Err(self.unreachable(host, "a connection that broke before the answer")),
            false => Ok(answer),
        }
    }

    /// Follows a step over as many connections as it takes, as the transport does.
    async fn follow(
        &self,
        host: &HostName,
        key: &StepKey,
        limit: Timestamp,
    ) -> Result<Outcome, HostError> {
        let mut broken_since = None;
        loop {
            let now = self.now();
            let parted = self.parted_until(host).is_some();
            let (cut_off, status, ends_at) = {
                let mut inner = self.world.now();
                let cut_off = inner.unreachable.contains(host);
                let machine = inner.host(host);
                let worker = machine.spool.get(key).and_then(|e| e.worker.as_ref());
                let ends_at = worker.map(|worker| worker.ends_at);
                (
                    cut_off || machine.is_down(now),
                    machine.status(key, now),
                    ends_at,
                )
            };
            if parted || cut_off {
                let since = *broken_since.get_or_insert(now);
                if now.duration_since(since) >= signed(RECONNECT_LIMIT) {
                    return Err(self.unreachable(host, "a connection that broke"));
                }
                self.world.clock.pause(LOOK_EVERY).await;
                continue;
            }
            broken_since = None;
            match status {
                StepStatus::Finished { outcome } => return self.answered(host, outcome).await,
                StepStatus::NeverStarted => {
                    return Err(HostError::Protocol {
                        host: host.clone(),
                        expected: format!("the outcome of {key}"),
                        found: "the host has no record of it".into(),
                    });
                }
                StepStatus::Running { .. } if now >= limit => {
                    return Err(HostError::TimedOut {
                        host: host.clone(),
                        what: "the outcome of its step".into(),
                        limit_seconds: 0,
                    });
                }
                StepStatus::Running { .. } => {
                    let look = now + signed(LOOK_EVERY);
                    let next = ends_at.map_or(look, |ends| ends.min(look));
                    self.world
                        .clock
                        .until(next.min(limit).max(now + millis(1)))
                        .await;
                }
            }
        }
    }
}

/// `ctl1` → 0.
fn number(host: &HostName) -> usize {
    let digits = host.as_str().trim_start_matches("ctl");
    digits.parse::<usize>().map_or(0, |n| n.saturating_sub(1))
}

fn line(work: &Work) -> String {
    match work {
        Work::Run { command } => command.argv.join(" "),
        Work::Fetch { packages } => format!("do {}", packages.join("+")),
        Work::Apply { .. } => panic!("expected a command or a download, found {work:?}"),
    }
}

#[async_trait]
impl Hosts for Network {
    async fn observe(&self, host: &HostName, _: Observe) -> Result<Observed, HostError> {
        let key = StepKey("none".into());
        self.exchange(host, Message::Ask { key })
            .await
            .map(|_| Observed::default())
    }

    async fn start(
        &self,
        host: &HostName,
        key: StepKey,
        fence: Fence,
        work: Work,
        timeout: Secs,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let now = self.now();
        let order = Order {
            line: line(&work),
            fence,
            timeout_seconds: timeout.0,
            bot: self.bot,
            sent_at: now,
        };
        let limit = now + signed(timeout.as_duration() + OUTCOME_GRACE);
        let message = Message::Start {
            key: key.clone(),
            order,
        };
        match self.exchange(host, message).await? {
            Answer::Fenced { seen } => Ok(Outcome::Fenced { seen }),
            _ => {
                let text = "begun".to_owned();
                // Nobody may listen.
                let _ = progress.try_send(Progress::Line { text });
                self.follow(host, &key, limit).await
            }
        }
    }

    async fn ask(&self, host: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        match self
            .exchange(host, Message::Ask { key: key.clone() })
            .await?
        {
            Answer::Status(status) => Ok(status),
            other => panic!("expected a status, found {other:?}"),
        }
    }

    async fn cancel(&self, host: &HostName, key: &StepKey, fence: &Fence) -> Result<(), HostError> {
        let (key, fence) = (key.clone(), fence.clone());
        self.exchange(host, Message::Cancel { key, fence })
            .await
            .map(|_| ())
    }

    async fn forget(&self, host: &HostName, job: &JobId, fence: &Fence) -> Result<(), HostError> {
        let (job, fence) = (job.clone(), fence.clone());
        self.exchange(host, Message::Forget { job, fence })
            .await
            .map(|_| ())
    }
}
