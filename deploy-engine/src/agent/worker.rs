//! The process that does one step. It has a session of its own, so it outlives the connection that asked for it.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    apply,
    exec::Exec,
    facts,
    fence::{self, Entering},
    root::Root,
    spool::{Entry, Spool, Started},
};
use crate::wire::{Event, Fence, Outcome, Progress, StepKey};

/// How often a worker looks whether it was asked to stop.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// `nightshift-agent work KEY`. Standard input is the held lock of the entry; standard output wakes whoever follows.
pub fn work(root: &Root, key: &str) -> Result<(), String> {
    // Fails only when it is a session leader already.
    let _ = rustix::process::setsid();
    let entry = Spool::new(root).entry(&StepKey(key.to_owned()))?;
    let _ = rustix::io::ioctl_fionbio(std::io::stdout(), true);
    // Without close-on-exec, so the programs that it starts hold the lock as well: were the worker alone killed, the step would
    // be called lost, and perhaps done again or undone, while its program still works.
    let _held_by_programs = rustix::io::dup(std::io::stdin())
        .map_err(|error| format!("expected to keep the lock of {key}, found: {error}"))?;
    if !entry.alive() {
        return Err(format!(
            "expected to be started by the agent, which holds the lock of {key}"
        ));
    }
    if entry.started()?.is_some() {
        return Err(format!("{key} was started before"));
    }
    let order = entry.order()?;
    begin(root, &entry, &order.fence)?;
    wake();
    let cancelled = watch_for_cancel(&entry);
    let deadline = Instant::now() + Duration::from_secs(order.timeout_seconds.into());
    let exec = Exec::new(root.clone()).bounded(deadline, cancelled);
    let mut tell = |progress: Progress| {
        entry.add_event(&Event::Progress { progress });
        wake();
    };
    let outcome: Outcome = apply::work(root, &exec, &order.work, &mut tell);
    entry.finish(&outcome)?;
    wake();
    Ok(())
}

/// Fence and start are on the disk when it returns. Each takes two syncs, one after the other; both go together. A holder that was
/// replaced starts nothing.
fn begin(root: &Root, entry: &Entry, fence: &Fence) -> Result<(), String> {
    let started = Started {
        pid: std::process::id(),
        boot_id: facts::boot_id(root).unwrap_or_default(),
        at: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    };
    let (entering, about) = together(
        || fence::enter(root, fence),
        || entry.about_to_start(&started),
    );
    let (entering, about) = match (entering, about) {
        (Ok(Entering::Refused { seen }), about) => {
            let _ = about.map(std::fs::remove_file);
            let Fence { scope, token } = fence;
            return Err(format!(
                "expected a holder of {scope} with the number {seen} or a later one, found {token}"
            ));
        }
        (Ok(entering), Ok(about)) => (entering, about),
        (Ok(entering), Err(why)) => {
            entering.give_up();
            return Err(why);
        }
        (Err(why), about) => {
            let _ = about.map(std::fs::remove_file);
            return Err(why);
        }
    };
    let (recorded, set) = together(|| entering.record(), || entry.set_started(&about));
    recorded.and(set)
}

fn together<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        // The agent aborts where it panics, so this never does.
        (one.join().unwrap_or_else(|_| std::process::abort()), other)
    })
}

/// One byte to whoever follows; nobody may be there any more, and a full pipe wakes as well.
fn wake() {
    let _ = std::io::stdout().write_all(b"\n");
    let _ = std::io::stdout().flush();
}

fn watch_for_cancel(entry: &Entry) -> Arc<AtomicBool> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (flag, entry) = (cancelled.clone(), entry.clone());
    thread::spawn(move || {
        while !entry.cancel_requested() {
            thread::sleep(CANCEL_POLL);
        }
        flag.store(true, Ordering::Relaxed);
    });
    cancelled
}
