//! Hosts that remember the steps they started and the newest token of each scope they have seen, as agents do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use async_trait::async_trait;
use deploy_engine::{
    job::{JobId, Lease},
    model::{HostName, Secs},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Fence, Outcome, Progress, StepKey, StepStatus, Work},
};
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct Inner {
    /// Step → its program.
    spool: BTreeMap<StepKey, String>,
    executed: BTreeMap<String, u32>,
    /// Never begun, whenever an order comes.
    called_off: BTreeSet<StepKey>,
    /// The newest token of each scope on each host.
    seen: BTreeMap<(HostName, String), u64>,
    /// The newest token of a job that was forgotten.
    forgotten: BTreeMap<(HostName, String), u64>,
    /// Hosts that were asked something.
    asked: BTreeSet<HostName>,
    /// Token of whoever came, and when.
    contacts: Vec<(u64, Instant)>,
}

pub struct World {
    inner: Mutex<Inner>,
    /// May what is slow end?
    released: watch::Sender<bool>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            released: watch::Sender::new(false),
        }
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub fn asked(&self, host: &str) -> bool {
        self.lock().asked.iter().any(|one| one.as_str() == host)
    }

    pub fn executed(&self, program: &str) -> u32 {
        self.lock().executed.get(program).copied().unwrap_or(0)
    }

    pub fn runs(&self, program: &str) -> Result<(), String> {
        match self.executed(program) {
            0 => Err(format!("{program} was not started")),
            _ => Ok(()),
        }
    }

    /// Of all hosts and scopes.
    pub fn newest_token(&self) -> u64 {
        self.lock().seen.values().copied().max().unwrap_or(0)
    }

    /// Programs whose names begin so, each as often as it was executed.
    pub fn all_executed(&self, beginning: &str) -> BTreeMap<String, u32> {
        let executed = self.lock().executed.clone();
        let of = executed
            .into_iter()
            .filter(|(program, _)| program.starts_with(beginning));
        of.collect()
    }

    pub fn contact_after(&self, token: u64) -> Result<(), String> {
        match self.newest_token() {
            seen if seen > token => Ok(()),
            seen => Err(format!("the newest token is {seen}")),
        }
    }

    /// When whoever has a newer token came first.
    pub fn first_contact(&self, token: u64) -> Instant {
        let inner = self.lock();
        let newer = inner.contacts.iter().find(|(seen, _)| *seen > token);
        newer.unwrap().1
    }

    /// What somebody with an older lease is told who wants to start something.
    pub fn try_as(&self, lease: &Lease) -> Outcome {
        let fence = Fence {
            scope: lease.scope.clone(),
            token: lease.token,
        };
        let key = StepKey("late".to_owned());
        self.begin(&"h1".parse().unwrap(), &key, &fence, "late")
            .unwrap_err()
    }

    fn begin(
        &self,
        host: &HostName,
        key: &StepKey,
        fence: &Fence,
        program: &str,
    ) -> Result<(), Outcome> {
        let mut inner = self.lock();
        let place = (host.clone(), fence.scope.clone());
        let newest = |of: &BTreeMap<_, u64>| of.get(&place).copied().unwrap_or(0);
        let (seen, forgotten) = (newest(&inner.seen), newest(&inner.forgotten));
        if fence.token < seen || fence.token <= forgotten {
            return Err(Outcome::Fenced { seen });
        }
        if inner.called_off.contains(key) {
            return Err(Outcome::CalledOff);
        }
        inner.seen.insert(place, fence.token);
        inner.contacts.push((fence.token, Instant::now()));
        if !inner.spool.contains_key(key) {
            inner.spool.insert(key.clone(), program.to_owned());
            *inner.executed.entry(program.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn done() -> Outcome {
        Outcome::Done {
            changed: vec![],
            output: None,
        }
    }
}

/// Does it end only when the test wants?
fn is_slow(program: &str) -> bool {
    program.starts_with("slow")
}

#[async_trait]
impl Hosts for World {
    async fn observe(&self, host: &HostName, _: Observe) -> Result<Observed, HostError> {
        self.lock().asked.insert(host.clone());
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
        let Work::Run { command } = work else {
            unreachable!("the jobs of these tests run programs")
        };
        let program = command.argv[0].clone();
        if let Err(fenced) = self.begin(host, &key, &fence, &program) {
            return Ok(fenced);
        }
        if is_slow(&program) {
            let mut released = self.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
        }
        Ok(Self::done())
    }

    async fn ask(&self, _: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        let (program, called_off) = {
            let inner = self.lock();
            let program = inner.spool.get(key).cloned();
            (program, inner.called_off.contains(key))
        };
        Ok(match program.as_deref() {
            None if called_off => StepStatus::Finished {
                outcome: Outcome::CalledOff,
            },
            None => StepStatus::NeverStarted,
            Some(program) if is_slow(program) && !*self.released.borrow() => {
                StepStatus::Running { since_seconds: 1 }
            }
            Some(_) => StepStatus::Finished {
                outcome: Self::done(),
            },
        })
    }

    /// The jobs of these tests are not cancelled while they run.
    async fn cancel(&self, _: &HostName, key: &StepKey, _: &Fence) -> Result<(), HostError> {
        let mut inner = self.lock();
        if !inner.spool.contains_key(key) {
            inner.called_off.insert(key.clone());
        }
        Ok(())
    }

    async fn forget(&self, host: &HostName, _: &JobId, fence: &Fence) -> Result<(), HostError> {
        let mut inner = self.lock();
        let place = (host.clone(), fence.scope.clone());
        let forgotten = inner.forgotten.entry(place).or_default();
        *forgotten = (*forgotten).max(fence.token);
        Ok(())
    }
}
