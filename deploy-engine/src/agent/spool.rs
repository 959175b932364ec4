//! What the host remembers of steps: one directory a key.
//!
//! | file | meaning |
//! |---|---|
//! | `lock` | held by the worker through its standard input, so it is free exactly when no worker lives; a reboot frees it too |
//! | `request` | what to do; removed at the end, because it may hold secrets |
//! | `started` | synced before the worker acts |
//! | `events` | one JSON event a line |
//! | `cancel` | somebody asked the worker to stop |
//! | `outcome` | synced when the worker is done |

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{collect, durable, resource::plain_name, root::Root};
use crate::wire::{Event, Fence, Outcome, StepKey, StepStatus, Work};

/// Finished entries are kept this long: longer than any bot is away before its jobs are looked at by people.
const KEEP_FINISHED: Duration = Duration::from_secs(14 * 24 * 3600);
/// Finished entries kept at most; the oldest go first. A large deploy has some tens of steps a host.
const KEEP_ENTRIES: usize = 1000;
/// Progress events kept of one step, in bytes; later ones are dropped, the outcome never is.
const EVENTS_LIMIT_BYTES: u64 = 1024 * 1024;

/// The work of one step as it waits for its worker.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub work: Work,
    pub timeout_seconds: u32,
    /// Whose order it is; recorded before the worker acts.
    pub fence: Fence,
}

/// When and where a step began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: u32,
    pub boot_id: String,
    /// Seconds since the epoch, by the host's clock.
    pub at: u64,
}

pub struct Spool {
    dir: PathBuf,
}

/// One step's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    dir: PathBuf,
}

impl Spool {
    pub fn new(root: &Root) -> Self {
        Self {
            dir: root.state("spool"),
        }
    }

    /// The entry of a key, whether it exists or not.
    pub fn entry(&self, key: &StepKey) -> Result<Entry, String> {
        plain_name("step", &key.0, "-.")?;
        Ok(Entry {
            dir: self.dir.join(&key.0),
        })
    }

    fn entries(&self) -> Vec<Entry> {
        let all = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        all.map(|e| Entry { dir: e.path() }).collect()
    }

    /// Drops the entries of a job, but those that still run.
    pub fn forget(&self, job: &str) -> Result<(), String> {
        plain_name("job", job, "-")?;
        let prefix = format!("{job}.");
        let of_job = |entry: &Entry| entry.name().is_some_and(|name| name.starts_with(&prefix));
        self.entries()
            .iter()
            .filter(|e| of_job(e) && !e.runs())
            .try_for_each(Entry::remove)
    }

    /// Keeps the spool bounded: old entries and those above the limit go, running ones never.
    pub fn prune(&self, now: SystemTime) {
        let idle = collect::set(
            self.entries()
                .into_iter()
                .filter(|e| !e.runs())
                .map(|e| (e.changed().unwrap_or(SystemTime::UNIX_EPOCH), e)),
        );
        for (place, (changed, entry)) in idle.iter().rev().enumerate() {
            let old = now
                .duration_since(*changed)
                .is_ok_and(|age| age > KEEP_FINISHED);
            if old || place >= KEEP_ENTRIES {
                let _ = entry.remove();
            }
        }
    }
}

/// What became of an attempt to take an entry for a new worker.
pub enum Claim {
    /// Ours to start; the file is the lock and goes to the worker.
    Taken(File),
    /// It is known: started, finished or lost.
    Known,
}

impl Entry {
    fn name(&self) -> Option<&str> {
        self.dir.file_name()?.to_str()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    fn changed(&self) -> Option<SystemTime> {
        let of = |file: &str| {
            fs::metadata(self.path(file))
                .and_then(|m| m.modified())
                .ok()
        };
        of("outcome")
            .or_else(|| of("started"))
            .or_else(|| of("lock"))
    }

    fn remove(&self) -> Result<(), String> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!(
                "expected to remove {}, found: {error}",
                self.dir.display()
            )),
            _ => Ok(()),
        }
    }

    fn open_lock(&self, create: bool) -> io::Result<File> {
        File::options()
            .create(create)
            .truncate(false)
            .read(true)
            .write(true)
            .open(self.path("lock"))
    }

    /// Whether a worker (or the agent that is about to start one) holds the lock.
    pub fn alive(&self) -> bool {
        self.open_lock(false).is_ok_and(|lock| {
            flock(&lock, FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// Not over yet. What a finished step left running may keep the lock.
    fn runs(&self) -> bool {
        !self.path("outcome").exists() && self.alive()
    }

    /// Takes a key that was never started, and writes down what is to be done: for the worker alone, so it need not outlive a
    /// power cut, after which no worker would read it.
    pub fn claim(&self, order: &Order) -> Result<Claim, String> {
        let Some(lock) = self.take()? else {
            return Ok(Claim::Known);
        };
        let json = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path("request"))
            .and_then(|mut file| file.write_all(&json));
        written.map_err(|error| format!("expected to write the request, found: {error}"))?;
        Ok(Claim::Taken(lock))
    }

    /// Sees to it that a key that was never started never is. False: it was started meanwhile.
    pub fn call_off(&self) -> Result<bool, String> {
        let Some(_lock) = self.take()? else {
            return Ok(false);
        };
        self.finish(&Outcome::CalledOff)?;
        self.sync()?;
        Ok(true)
    }

    fn sync(&self) -> Result<(), String> {
        durable::sync_dir_of(&self.dir)
            .map_err(|error| format!("expected to sync the spool, found: {error}"))
    }

    /// The lock of a key that was neither started nor called off.
    fn take(&self) -> Result<Option<File>, String> {
        durable::create_private_dir(&self.dir)?;
        let lock = self.open_lock(true).map_err(|error| {
            format!(
                "expected to open {}, found: {error}",
                self.path("lock").display()
            )
        })?;
        // Somebody who only looks whether it is held lets go at once.
        let held = (0..20).all(|_| {
            let taken = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if !taken {
                std::thread::sleep(Duration::from_millis(5));
            }
            !taken
        });
        let known = held || self.path("started").exists() || self.path("outcome").exists();
        Ok((!known).then_some(lock))
    }

    pub fn order(&self) -> Result<Order, String> {
        read_json(&self.path("request"))?
            .ok_or_else(|| format!("expected a request in {}, found none", self.dir.display()))
    }

    /// On the disk when it returns, with the entry itself: from here on the step may have been done.
    /// Writes down that it starts, beside its place, and syncs that and the entry's own name: [`Entry::set_started`] puts it there.
    pub fn about_to_start(&self, started: &Started) -> Result<PathBuf, String> {
        let json = serde_json::to_vec(started).map_err(|error| error.to_string())?;
        let path = self.path("started");
        std::thread::scope(|scope| {
            let named = scope.spawn(|| self.sync());
            let written =
                durable::write_beside(&path, &json).map_err(|error| unwritten(&path, &error));
            named
                .join()
                .unwrap_or_else(|_| Err("the spool could not be synced".to_owned()))?;
            written
        })
    }

    /// From now on it was started, also after a power cut.
    pub fn set_started(&self, about: &Path) -> Result<(), String> {
        let path = self.path("started");
        durable::rename_into_place(about, &path).map_err(|error| unwritten(&path, &error))
    }

    pub fn started(&self) -> Result<Option<Started>, String> {
        read_json(&self.path("started"))
    }

    pub fn outcome(&self) -> Result<Option<Outcome>, String> {
        read_json(&self.path("outcome"))
    }

    /// The outcome is durable before the request, which may hold secrets, is dropped.
    pub fn finish(&self, outcome: &Outcome) -> Result<(), String> {
        let json = serde_json::to_vec(outcome).map_err(|error| error.to_string())?;
        durable::write(&self.path("outcome"), &json)?;
        let _ = fs::remove_file(self.path("request"));
        Ok(())
    }

    /// Adds an event for whoever follows. Losing one costs a progress bar, nothing else.
    pub fn add_event(&self, event: &Event) {
        let open = File::options()
            .append(true)
            .create(true)
            .open(self.path("events"));
        let (Ok(mut file), Ok(mut line)) = (open, serde_json::to_string(event)) else {
            return;
        };
        if file.metadata().is_ok_and(|m| m.len() < EVENTS_LIMIT_BYTES) {
            line.push('\n');
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Whole events from byte `offset` on, and where they end.
    pub fn events_from(&self, offset: usize) -> (Vec<Event>, usize) {
        let bytes = fs::read(self.path("events")).unwrap_or_default();
        let fresh = bytes.get(offset..).unwrap_or_default();
        let whole = fresh
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let events = fresh[..whole]
            .split(|b| *b == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        (events, offset + whole)
    }

    pub fn request_cancel(&self) -> Result<(), String> {
        durable::write(&self.path("cancel"), b"")
    }

    pub fn cancel_requested(&self) -> bool {
        self.path("cancel").exists()
    }

    /// What is known of the step. The order of the looks matters: a worker ends between its outcome and its lock.
    pub fn status(&self, now: SystemTime) -> Result<StepStatus, String> {
        let alive = self.alive();
        if let Some(outcome) = self.outcome()? {
            return Ok(StepStatus::Finished { outcome });
        }
        match (self.started()?, alive) {
            (Some(started), true) => {
                let now = now
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |d| d.as_secs());
                Ok(StepStatus::Running {
                    since_seconds: now.saturating_sub(started.at),
                })
            }
            (None, true) => Ok(StepStatus::Running { since_seconds: 0 }),
            (Some(started), false) => Ok(StepStatus::Finished {
                outcome: lost(&started),
            }),
            (None, false) => Ok(StepStatus::NeverStarted),
        }
    }
}

fn unwritten(path: &Path, error: &io::Error) -> String {
    format!("expected to write {}, found: {error}", path.display())
}

fn lost(started: &Started) -> Outcome {
    Outcome::Lost {
        why: format!(
            "its worker (process {} of boot {}) ended without an outcome: a power cut, a reboot or a kill",
            started.pid, started.boot_id
        ),
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            format!(
                "expected {} to be as written, found: {error}",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "expected to read {}, found: {error}",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Progress;

    fn order() -> Order {
        Order {
            work: Work::Fetch { packages: vec![] },
            timeout_seconds: 1,
            fence: Fence {
                scope: "site:demo".into(),
                token: 1,
            },
        }
    }

    fn started() -> Started {
        Started {
            pid: 1,
            boot_id: "b".into(),
            at: 0,
        }
    }

    fn start(entry: &Entry) {
        let about = entry.about_to_start(&started()).unwrap();
        entry.set_started(&about).unwrap();
    }

    fn bench() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(&Root::new(dir.path()));
        (dir, spool)
    }

    #[test]
    fn an_entry_goes_from_never_started_to_finished_or_lost() {
        let (_dir, spool) = bench();
        let entry = spool.entry(&StepKey("job1.0.1".into())).unwrap();
        let status = || {
            entry
                .status(SystemTime::UNIX_EPOCH + Duration::from_secs(7))
                .unwrap()
        };
        assert_eq!(status(), StepStatus::NeverStarted);
        let Claim::Taken(lock) = entry.claim(&order()).unwrap() else {
            panic!("the key is new")
        };
        assert_eq!(status(), StepStatus::Running { since_seconds: 0 });
        assert!(matches!(entry.claim(&order()).unwrap(), Claim::Known));
        // The agent dies before it started a worker: the key is free again.
        drop(lock);
        assert_eq!(status(), StepStatus::NeverStarted);
        let Claim::Taken(lock) = entry.claim(&order()).unwrap() else {
            panic!("nothing was started")
        };
        start(&entry);
        assert_eq!(status(), StepStatus::Running { since_seconds: 7 });
        drop(lock);
        assert!(matches!(
            status(),
            StepStatus::Finished {
                outcome: Outcome::Lost { .. }
            }
        ));
        assert!(matches!(entry.claim(&order()).unwrap(), Claim::Known));
        entry.finish(&Outcome::Cancelled).unwrap();
        assert_eq!(
            status(),
            StepStatus::Finished {
                outcome: Outcome::Cancelled
            }
        );
        assert!(entry.order().is_err(), "the request must be gone");
    }

    #[test]
    fn a_key_that_was_called_off_is_never_started() {
        let (_dir, spool) = bench();
        let entry = spool.entry(&StepKey("job1.0.1".into())).unwrap();
        assert_eq!(entry.call_off(), Ok(true));
        let outcome = Outcome::CalledOff;
        let status = entry.status(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(status, StepStatus::Finished { outcome });
        assert!(matches!(entry.claim(&order()).unwrap(), Claim::Known));
        // One that has begun, or is about to, is not called off any more.
        let entry = spool.entry(&StepKey("job1.1.1".into())).unwrap();
        let Claim::Taken(lock) = entry.claim(&order()).unwrap() else {
            panic!("the key is new")
        };
        assert_eq!(entry.call_off(), Ok(false));
        start(&entry);
        drop(lock);
        assert_eq!(entry.call_off(), Ok(false));
    }

    #[test]
    fn events_come_whole_and_once() {
        let (_dir, spool) = bench();
        let entry = spool.entry(&StepKey("j.0.1".into())).unwrap();
        let _ = entry.claim(&order()).unwrap();
        let event = |n| Event::Progress {
            progress: Progress::Advance { done: n, total: 2 },
        };
        entry.add_event(&event(1));
        let (first, offset) = entry.events_from(0);
        assert_eq!(first, [event(1)]);
        fs::write(
            entry.path("events"),
            [fs::read(entry.path("events")).unwrap(), b"{\"half".to_vec()].concat(),
        )
        .unwrap();
        assert_eq!(entry.events_from(offset), (vec![], offset));
    }

    #[test]
    fn jobs_are_forgotten_and_old_entries_pruned_but_not_running_ones() {
        let (dir, spool) = bench();
        let made = |key: &str| {
            let entry = spool.entry(&StepKey(key.into())).unwrap();
            let Claim::Taken(lock) = entry.claim(&order()).unwrap() else {
                panic!("new")
            };
            (entry, lock)
        };
        let (running, _held) = made("job1.0.1");
        drop(made("job1.1.1"));
        drop(made("job10.0.1"));
        spool.forget("job1").unwrap();
        let names = || {
            let mut names: Vec<String> = spool
                .entries()
                .iter()
                .filter_map(|e| e.name().map(str::to_owned))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["job1.0.1", "job10.0.1"]);
        spool.prune(SystemTime::now());
        assert_eq!(names().len(), 2);
        spool.prune(SystemTime::now() + KEEP_FINISHED + Duration::from_secs(60));
        assert_eq!(names(), ["job1.0.1"]);
        assert!(running.alive() && dir.path().exists());
        for bad in ["../x", "a/b", "", ".."] {
            assert!(spool.entry(&StepKey(bad.into())).is_err(), "{bad}");
            assert!(spool.forget(bad).is_err(), "{bad}");
        }
    }
}
