//! Hosts that remember the steps they started, as the real agents do; and conditions over what was done to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::virtual_time::{VirtualClock, start};
use crate::{
    condition::{ConditionCall, Judgement},
    job::JobId,
    model::{HostName, Secs},
    probe::{Ask, Reading, Readings},
    runner::{Clock, Evidence},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};

/// How one execution of a command goes.
#[derive(Clone, Debug)]
pub struct Deed {
    pub seconds: i64,
    pub outcome: Outcome,
    /// It has its effect, whatever it reports.
    pub effective: bool,
}

impl Deed {
    pub fn done(seconds: i64) -> Self {
        Self {
            seconds,
            effective: true,
            outcome: Outcome::Done {
                changed: vec![],
                output: None,
            },
        }
    }

    pub fn failed_half_way() -> Self {
        Self {
            outcome: Outcome::Failed {
                at: None,
                what: "exit code 1".into(),
                output: None,
            },
            ..Self::done(2)
        }
    }

    pub fn lost(effective: bool) -> Self {
        Self {
            effective,
            outcome: Outcome::Lost {
                why: "power cut".into(),
            },
            ..Self::done(2)
        }
    }
}

/// A step in a host's spool.
struct Entry {
    until: Timestamp,
    outcome: Outcome,
}

#[derive(Default)]
struct Inner {
    spool: BTreeMap<StepKey, Entry>,
    /// How the executions of a command go, first to last; the usual one when there is no more.
    scripts: BTreeMap<String, Vec<Deed>>,
    executed: BTreeMap<String, u32>,
    /// What was done and not undone.
    effects: BTreeSet<String>,
    /// Tokens seen by scope.
    fences: BTreeMap<String, u64>,
    unreachable: BTreeSet<HostName>,
    forgotten: Vec<JobId>,
}

/// All hosts. A command `do X` has the effect X, `undo X` takes it back.
pub struct World {
    pub clock: Arc<VirtualClock>,
    inner: Mutex<Inner>,
}

impl World {
    pub fn new(clock: Arc<VirtualClock>) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn script(&self, command: &str, deeds: Vec<Deed>) {
        self.lock().scripts.insert(command.to_owned(), deeds);
    }

    pub fn cut_off(&self, host: &str, unreachable: bool) {
        let host: HostName = host.parse().unwrap();
        let mut inner = self.lock();
        if unreachable {
            inner.unreachable.insert(host);
        } else {
            inner.unreachable.remove(&host);
        }
    }

    pub fn executed(&self) -> BTreeMap<String, u32> {
        self.lock().executed.clone()
    }

    pub fn times(&self, command: &str) -> u32 {
        self.lock().executed.get(command).copied().unwrap_or(0)
    }

    pub fn effects(&self) -> Vec<String> {
        self.lock().effects.iter().cloned().collect()
    }

    pub fn forgotten(&self) -> Vec<JobId> {
        self.lock().forgotten.clone()
    }

    fn reach(&self, host: &HostName) -> Result<(), HostError> {
        if self.lock().unreachable.contains(host) {
            return Err(HostError::Unreachable {
                host: host.clone(),
                address: "10.0.0.1".into(),
                found: "no route".into(),
            });
        }
        Ok(())
    }

    /// Begins under a new key, or finds the key.
    fn begin(&self, key: &StepKey, fence: &Fence, work: &Work) -> Result<Timestamp, Outcome> {
        let now = self.clock.now();
        let mut inner = self.lock();
        if let Some(entry) = inner.spool.get(key) {
            return Ok(entry.until);
        }
        let seen = inner.fences.entry(fence.scope.clone()).or_default();
        if fence.token < *seen {
            return Err(Outcome::Fenced { seen: *seen });
        }
        *seen = fence.token;
        let Work::Run { command } = work else {
            panic!("expected a command, found {work:?}")
        };
        let line = command.argv.join(" ");
        let executed = inner.executed.entry(line.clone()).or_default();
        *executed += 1;
        let nth = *executed as usize - 1;
        let script = inner.scripts.get(&line).and_then(|deeds| deeds.get(nth));
        let deed = script.cloned().unwrap_or_else(|| Deed::done(3));
        if deed.effective {
            match line.split_once(' ') {
                Some(("undo", what)) => inner.effects.remove(what),
                Some((_, what)) => inner.effects.insert(what.to_owned()),
                None => panic!("expected a verb and a name, found {line}"),
            };
        }
        let until = now + SignedDuration::from_secs(deed.seconds);
        let outcome = deed.outcome;
        inner.spool.insert(key.clone(), Entry { until, outcome });
        Ok(until)
    }
}

#[async_trait]
impl Hosts for World {
    async fn observe(&self, host: &HostName, _: Observe) -> Result<Observed, HostError> {
        self.reach(host)?;
        Ok(Observed::default())
    }

    async fn start(
        &self,
        host: &HostName,
        key: StepKey,
        fence: Fence,
        work: Work,
        _: Secs,
        _: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        self.reach(host)?;
        let mut until = match self.begin(&key, &fence, &work) {
            Ok(until) => until,
            Err(outcome) => return Ok(outcome),
        };
        // A cancel moves the end: look again when the time has come.
        while self.clock.now() < until {
            self.clock
                .sleep(std::time::Duration::from_millis(500))
                .await;
            self.reach(host)?;
            until = self.lock().spool[&key].until;
        }
        Ok(self.lock().spool[&key].outcome.clone())
    }

    async fn ask(&self, host: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        self.reach(host)?;
        let now = self.clock.now();
        Ok(match self.lock().spool.get(key) {
            None => StepStatus::NeverStarted,
            Some(entry) if now < entry.until => StepStatus::Running { since_seconds: 1 },
            Some(entry) => StepStatus::Finished {
                outcome: entry.outcome.clone(),
            },
        })
    }

    async fn cancel(&self, host: &HostName, key: &StepKey) -> Result<(), HostError> {
        self.reach(host)?;
        let now = self.clock.now();
        if let Some(entry) = self.lock().spool.get_mut(key)
            && now < entry.until
        {
            entry.until = now;
            entry.outcome = Outcome::Cancelled;
        }
        Ok(())
    }

    async fn forget(&self, host: &HostName, job: &JobId) -> Result<(), HostError> {
        self.reach(host)?;
        self.lock().forgotten.push(job.clone());
        Ok(())
    }
}

/// Judges `done:X` (X was done), `after:N` (N seconds since the start of the test), `never`, `impossible`, and `unknown`.
#[async_trait]
impl Evidence for World {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let mut readings = Readings::default();
        for ask in asks {
            let reading = match self.reach(&ask.host) {
                Ok(()) => Reading::Known {
                    value: self.effects().into(),
                    at: now,
                },
                Err(error) => Reading::Unknown {
                    why: error.to_string(),
                    at: now,
                },
            };
            readings.insert(&ask.probe, ask.host.clone(), reading);
        }
        readings
    }

    async fn judge(&self, call: &ConditionCall, now: Timestamp) -> (Judgement, Readings) {
        let why = String::new();
        let (name, argument) = call.name.split_once(':').unwrap_or((&call.name, ""));
        let holds = match name {
            "done" => self.lock().effects.contains(argument),
            "after" => now.duration_since(start()).as_secs() >= argument.parse::<i64>().unwrap(),
            "never" => false,
            "impossible" => return (Judgement::Refuted { why }, Readings::default()),
            _ => return (Judgement::Unknown { why }, Readings::default()),
        };
        let judgement = if holds {
            Judgement::Holds { why }
        } else {
            Judgement::NotYet { why }
        };
        (judgement, Readings::default())
    }
}
