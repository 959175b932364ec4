//! The disk under the journal: full, slow, or in doubt (written, but whoever wrote is told otherwise). It also keeps a copy of every
//! event at the moment it became durable: the truth that the journal is compared with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{clock::VirtualClock, dice::Dice, trace::Trace, weather::Weather};
use crate::{
    job::{JobEvent, JobId, Journal, JournalError, Lease, LeaseError, MemoryJournal},
    runner::Clock,
};

/// How long a slow disk takes, in milliseconds.
const SLOW_MS: (u64, u64) = (200, 60_000);

pub struct Disk {
    pub journal: MemoryJournal,
    pub clock: Arc<VirtualClock>,
    pub trace: Arc<Trace>,
    pub weather: Weather,
    pub state: Mutex<State>,
}

pub struct State {
    pub dice: Dice,
    pub written: BTreeMap<JobId, Written>,
}

/// A job's events: when each became durable, its own time, and the event.
pub type Written = Vec<(Timestamp, Timestamp, JobEvent)>;

/// What the disk does to one write.
enum Trouble {
    None,
    Full,
    InDoubt,
    Slow { before: bool, length: Duration },
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self, job: &JobId, at: Timestamp, event: &JobEvent) {
        let now = self.clock.now();
        let mut state = self.lock();
        let written = state.written.entry(job.clone()).or_default();
        written.push((now, at, event.clone()));
    }

    fn trouble(&self) -> Trouble {
        if self.weather.is_calm(self.clock.now()) {
            return Trouble::None;
        }
        let (chances, mut state) = (&self.weather.disk, self.lock());
        let dice = &mut state.dice;
        if dice.chance(chances.full) {
            Trouble::Full
        } else if dice.chance(chances.in_doubt) {
            Trouble::InDoubt
        } else if dice.chance(chances.slow) {
            Trouble::Slow {
                before: dice.chance(0.5),
                length: dice.millis(SLOW_MS.0, SLOW_MS.1),
            }
        } else {
            Trouble::None
        }
    }

    /// One write with its trouble. `None`: it failed, or says so.
    async fn write<T>(&self, what: &str, write: impl Future<Output = T>) -> Option<T> {
        let trouble = self.trouble();
        if let Trouble::Full = trouble {
            self.trace
                .say(self.clock.now(), || format!("DISK FULL: no {what}"));
            return None;
        }
        if let Trouble::Slow {
            before: true,
            length,
        } = trouble
        {
            self.slow(what, length).await;
        }
        let written = write.await;
        match trouble {
            Trouble::InDoubt => {
                self.trace
                    .say(self.clock.now(), || format!("DISK IN DOUBT: {what}"));
                None
            }
            Trouble::Slow {
                before: false,
                length,
            } => {
                self.slow(what, length).await;
                Some(written)
            }
            _ => Some(written),
        }
    }

    async fn slow(&self, what: &str, length: Duration) {
        let seconds = length.as_secs_f64();
        self.trace.say(self.clock.now(), || {
            format!("DISK SLOW: {what} takes {seconds:.1} s")
        });
        self.clock.pause(length).await;
    }
}

const TOLD: &str = "no space left on device";

#[async_trait]
impl Journal for Disk {
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError> {
        self.journal.create(job, at, created).await?;
        self.durable(job, at, created);
        Ok(())
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let append = async {
            self.journal.append(job, length, at, event).await?;
            self.durable(job, at, event);
            self.trace.say(self.clock.now(), || {
                format!("journal of {job} [{length}] {event:?}")
            });
            Ok(())
        };
        let full = || Err(JournalError::Storage(TOLD.into()));
        self.write("event", append).await.unwrap_or_else(full)
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.journal.load(job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        self.journal.unfinished().await
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        let acquire = self.journal.acquire(scope, holder, job, now);
        let full = || Err(LeaseError::Storage(TOLD.into()));
        self.write("lease", acquire).await.unwrap_or_else(full)
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        let renew = self.journal.renew(lease, now);
        let full = || Err(LeaseError::Storage(TOLD.into()));
        self.write("renewal", renew).await.unwrap_or_else(full)
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let release = self.journal.release(lease);
        let full = || Err(LeaseError::Storage(TOLD.into()));
        self.write("release", release).await.unwrap_or_else(full)
    }
}
