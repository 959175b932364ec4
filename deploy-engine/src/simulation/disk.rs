//! The disk under the journal: full, slow, or in doubt (written, but whoever wrote is told otherwise); and it loses what was not
//! synced when the power of its host is cut. Its log is the truth that the journal is compared with.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    clock::VirtualClock,
    dice::Dice,
    log::{Kept, Log, Loss, Write},
    trace::Trace,
    weather::{Weather, signed},
};
use crate::{
    job::{JobEvent, JobId, Journal, JournalError, Lease, LeaseError, MemoryJournal},
    planted::{Bug, is_planted},
    runner::Clock,
};

/// How long a slow disk takes, in milliseconds.
const SLOW_MS: (u64, u64) = (200, 60_000);

/// How long one sync takes on a quiet disk and on a busy one, in milliseconds (ADR 13).
const SYNC_MS: (u64, u64) = (2, 25);

pub struct Disk {
    pub clock: Arc<VirtualClock>,
    pub trace: Arc<Trace>,
    pub weather: Weather,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    /// What can be read: all that was written.
    journal: Arc<MemoryJournal>,
    log: Log,
    losses: Vec<Loss>,
}

/// When a write is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    /// When whoever writes hears that it is written.
    AtOnce,
    /// No later than what is written after it.
    InOrder,
}

impl Durable {
    fn of(event: &JobEvent) -> Self {
        match event.is_acted_on() {
            true => Self::AtOnce,
            false => Self::InOrder,
        }
    }
}

/// What the disk does to one write.
enum Trouble {
    None,
    Full,
    InDoubt,
    Slow { before: bool, length: Duration },
}

impl Disk {
    pub fn new(clock: Arc<VirtualClock>, trace: Arc<Trace>, weather: Weather, dice: Dice) -> Self {
        let state = State {
            dice,
            journal: Arc::default(),
            log: Log::default(),
            losses: Vec::new(),
        };
        Self {
            clock,
            trace,
            weather,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn journal(&self) -> Arc<MemoryJournal> {
        self.lock().journal.clone()
    }

    /// A job's events, each with when it was on the disk.
    pub fn events(&self, job: &JobId) -> Vec<Kept> {
        let mut state = self.lock();
        state.log.catch_up(self.clock.now());
        state.log.events(job)
    }

    /// What each power cut took.
    pub fn losses(&self) -> Vec<Loss> {
        std::mem::take(&mut self.lock().losses)
    }

    /// The host of the store loses its power: nobody may be in the middle of a write any more.
    pub fn power_cut(&self) {
        let now = self.clock.now();
        let mut guard = self.lock();
        let state = &mut *guard;
        let loss = state.log.power_cut(now, &mut state.dice);
        state.journal = state.log.replay();
        self.trace.say(now, || {
            let Loss { unsynced, lost, .. } = loss;
            format!("THE BOTS' HOST LOSES ITS POWER: {lost} of {unsynced} unsynced writes are lost")
        });
        state.losses.push(loss);
    }

    fn wrote(&self, write: Write) {
        let now = self.clock.now();
        self.lock().log.write(now, write);
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
    async fn write<T, E>(
        &self,
        what: &str,
        durable: Durable,
        write: impl Future<Output = Result<T, E>>,
    ) -> Option<Result<T, E>> {
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
                return None;
            }
            Trouble::Slow {
                before: false,
                length,
            } => self.slow(what, length).await,
            _ => {}
        }
        if written.is_ok() && durable == Durable::AtOnce {
            self.sync().await;
        }
        Some(written)
    }

    /// What was written by now is on the disk when it returns.
    async fn sync(&self) {
        let (covers, ends_at) = {
            let mut state = self.lock();
            let length = state.dice.millis(SYNC_MS.0, SYNC_MS.1);
            let ends_at = self.clock.now() + signed(length);
            (state.log.sync(ends_at), ends_at)
        };
        if !is_planted(Bug::SyncNotAwaited) {
            self.clock.until(ends_at).await;
        }
        self.lock().log.promise(covers);
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

impl Disk {
    async fn append_as(
        &self,
        durable: Durable,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let append = async {
            self.journal().append(job, length, at, event).await?;
            self.wrote(Write::Event {
                job: job.clone(),
                length,
                at,
                event: event.clone(),
            });
            self.trace.say(self.clock.now(), || {
                format!("journal of {job} [{length}] {event:?}")
            });
            Ok(())
        };
        let full = || Err(JournalError::Storage(TOLD.into()));
        let appended = self.write("event", durable, append).await;
        appended.unwrap_or_else(full)
    }
}

#[async_trait]
impl Journal for Disk {
    async fn create(
        &self,
        job: &JobId,
        at: Timestamp,
        created: &JobEvent,
    ) -> Result<(), JournalError> {
        self.journal().create(job, at, created).await?;
        self.wrote(Write::Event {
            job: job.clone(),
            length: 0,
            at,
            event: created.clone(),
        });
        if Durable::of(created) == Durable::AtOnce {
            self.sync().await;
        }
        Ok(())
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let durable = Durable::of(event);
        self.append_as(durable, job, length, at, event).await
    }

    async fn append_in_order(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        self.append_as(Durable::InOrder, job, length, at, event)
            .await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        let read = self.journal().load(job).await?;
        // The embedded store does so when it is opened; of what others write to a shared one, what is on the disk can be seen.
        let unsynced = self.lock().log.is_unsynced(self.clock.now());
        if unsynced {
            self.sync().await;
        }
        Ok(read)
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        self.journal().unfinished().await
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        let acquire = async {
            let lease = self.journal().acquire(scope, holder, job, now).await?;
            self.wrote(Write::Acquired {
                scope: scope.to_owned(),
                holder: holder.to_owned(),
                job: job.clone(),
                now,
            });
            Ok(lease)
        };
        let full = || Err(LeaseError::Storage(TOLD.into()));
        let acquired = self.write("lease", Durable::InOrder, acquire).await;
        acquired.unwrap_or_else(full)
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        let renew = async {
            self.journal().renew(lease, now).await?;
            let lease = lease.clone();
            self.wrote(Write::Renewed { lease, now });
            Ok(())
        };
        let full = || Err(LeaseError::Storage(TOLD.into()));
        let renewed = self.write("renewal", Durable::AtOnce, renew).await;
        renewed.unwrap_or_else(full)
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let release = async {
            self.journal().release(lease).await?;
            let lease = lease.clone();
            self.wrote(Write::Released { lease });
            Ok(())
        };
        let full = || Err(LeaseError::Storage(TOLD.into()));
        let released = self.write("release", Durable::InOrder, release).await;
        released.unwrap_or_else(full)
    }
}
