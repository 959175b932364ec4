//! The log of the embedded store (`bot::store::wal`): what was written, in one order for all jobs and leases, and how much of it
//! is on the disk. A process that dies leaves all of it, for the kernel has it; a power cut leaves a beginning.

use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;

use super::dice::Dice;
use crate::job::{JobEvent, JobId, Journal, Lease, MemoryJournal};

/// What was written, so that it can be written again.
#[derive(Clone, Debug)]
pub enum Write {
    Event {
        job: JobId,
        /// Events of the job before this one; none before the one that creates it.
        length: u64,
        at: Timestamp,
        event: JobEvent,
    },
    Acquired {
        scope: String,
        holder: String,
        job: JobId,
        now: Timestamp,
    },
    Renewed {
        lease: Lease,
        now: Timestamp,
    },
    Released {
        lease: Lease,
    },
}

struct Entry {
    written_at: Timestamp,
    /// None: the kernel alone has it.
    durable_at: Option<Timestamp>,
    write: Write,
}

/// An event of a job, as the log has it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub written_at: Timestamp,
    pub durable_at: Option<Timestamp>,
    pub at: Timestamp,
    pub event: JobEvent,
}

impl Kept {
    /// Was it on the disk then?
    pub fn is_durable(&self, then: Timestamp) -> bool {
        self.durable_at.is_some_and(|durable| durable <= then)
    }
}

/// A sync under way: the kernel ends it then, whoever waits for it, and whether anybody does.
struct Sync {
    ends_at: Timestamp,
    /// Entries that were written when it began: those it is for.
    covers: usize,
}

/// What one power cut took.
#[derive(Debug, PartialEq, Eq)]
pub struct Loss {
    pub unsynced: usize,
    pub lost: usize,
    /// Entries that were lost though somebody had been told that they are on the disk.
    pub promised: usize,
}

#[derive(Default)]
pub struct Log {
    entries: Vec<Entry>,
    syncs: Vec<Sync>,
    /// Entries that are on the disk, as far as the syncs have come that were looked at.
    synced: usize,
    /// Entries that somebody was told are on the disk.
    promised: usize,
}

impl Log {
    pub fn write(&mut self, now: Timestamp, write: Write) {
        self.entries.push(Entry {
            written_at: now,
            durable_at: None,
            write,
        });
    }

    /// Begins to sync everything that is written. How much that is.
    pub fn sync(&mut self, ends_at: Timestamp) -> usize {
        let covers = self.entries.len();
        self.syncs.push(Sync { ends_at, covers });
        covers
    }

    /// Somebody is told that so much is on the disk.
    pub fn promise(&mut self, covers: usize) {
        self.promised = self.promised.max(covers);
    }

    /// Lets the syncs end that are due.
    pub fn catch_up(&mut self, now: Timestamp) {
        self.syncs.sort_by_key(|sync| sync.ends_at);
        let due = self.syncs.partition_point(|sync| sync.ends_at <= now);
        for sync in self.syncs.drain(..due) {
            for entry in self.entries.iter_mut().take(sync.covers) {
                entry.durable_at.get_or_insert(sync.ends_at);
            }
            self.synced = self.synced.max(sync.covers);
        }
    }

    pub fn is_unsynced(&mut self, now: Timestamp) -> bool {
        self.catch_up(now);
        self.synced < self.entries.len()
    }

    /// What is on the disk stays, and as much of the rest as chance wants, from its begin.
    pub fn power_cut(&mut self, now: Timestamp, dice: &mut Dice) -> Loss {
        self.catch_up(now);
        self.syncs.clear();
        let unsynced = self.entries.len() - self.synced;
        let lost = dice.index(unsynced + 1);
        self.entries.truncate(self.entries.len() - lost);
        self.synced = self.entries.len();
        for entry in &mut self.entries {
            entry.durable_at.get_or_insert(now);
        }
        let promised = self.promised.saturating_sub(self.synced);
        self.promised -= promised;
        Loss {
            unsynced,
            lost,
            promised,
        }
    }

    /// What a bot finds that reads it now.
    ///
    /// # Panics
    /// When a beginning of what was written cannot be written.
    pub fn replay(&self) -> Arc<MemoryJournal> {
        let journal = MemoryJournal::default();
        for entry in &self.entries {
            let again = again(&journal, &entry.write).now_or_never();
            assert_eq!(again, Some(true), "{:?}", entry.write);
        }
        Arc::new(journal)
    }

    /// A job's events.
    pub fn events(&self, job: &JobId) -> Vec<Kept> {
        let kept = |entry: &Entry| match &entry.write {
            Write::Event {
                job: of, at, event, ..
            } if of == job => Some(Kept {
                written_at: entry.written_at,
                durable_at: entry.durable_at,
                at: *at,
                event: event.clone(),
            }),
            _ => None,
        };
        self.entries.iter().filter_map(kept).collect()
    }
}

async fn again(journal: &MemoryJournal, write: &Write) -> bool {
    match write {
        Write::Event {
            job,
            length: 0,
            at,
            event,
        } => journal.create(job, *at, event).await.is_ok(),
        Write::Event {
            job,
            length,
            at,
            event,
        } => journal.append(job, *length, *at, event).await.is_ok(),
        Write::Acquired {
            scope,
            holder,
            job,
            now,
        } => journal.acquire(scope, holder, job, *now).await.is_ok(),
        Write::Renewed { lease, now } => journal.renew(lease, *now).await.is_ok(),
        Write::Released { lease } => journal.release(lease).await.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::clock::after;

    fn job() -> JobId {
        JobId("j1".into())
    }

    fn write(log: &mut Log, length: u64) {
        let write = Write::Event {
            job: job(),
            length,
            at: after(length),
            event: JobEvent::HoldReleased,
        };
        log.write(after(length), write);
    }

    /// Two writes whose sync has ended, one whose sync is under way, and one that nobody syncs.
    fn log() -> Log {
        let mut log = Log::default();
        write(&mut log, 0);
        write(&mut log, 1);
        let covers = log.sync(after(5));
        log.promise(covers);
        write(&mut log, 2);
        log.sync(after(12));
        write(&mut log, 3);
        log
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_any_beginning_of_the_rest() {
        let mut left = [0; 5];
        for seed in 0..200 {
            let mut log = log();
            let loss = log.power_cut(after(10), &mut Dice::new(seed));
            let kept = log.events(&job());
            left[kept.len()] += 1;
            assert_eq!((loss.unsynced, loss.promised), (2, 0));
            assert_eq!(loss.lost, 4 - kept.len());
            assert_eq!(kept[1].durable_at, Some(after(5)));
            assert!(kept[2..].iter().all(|kept| kept.is_durable(after(10))));
            let read = log.replay().load(&job()).now_or_never().unwrap();
            assert_eq!(read.unwrap().len(), kept.len());
        }
        assert!(left[2..].iter().all(|times| *times > 20), "{left:?}");
    }

    #[test]
    fn a_promise_that_is_not_kept_is_counted() {
        let broken = (0..20).filter(|seed| {
            let mut log = log();
            log.promise(4);
            let loss = log.power_cut(after(10), &mut Dice::new(*seed));
            assert_eq!(loss.promised, loss.lost);
            // It is told once.
            assert_eq!(log.power_cut(after(11), &mut Dice::new(0)).promised, 0);
            loss.promised > 0
        });
        assert!(broken.count() > 0);
    }
}
