//! A deterministic simulation of jobs under attack: the engine's own runner and state machine over hosts, clock, disk, network and
//! chat that live in this process and fail as a seed decides.
//!
//! `docs/simulation.md` says what is simulated, what is not, and which invariants are checked. Nothing here is part of any
//! program: the module is there in tests, and with the feature `simulation`.

mod chat;
mod check;
pub mod clock;
pub mod deed;
mod dice;
mod disk;
mod evidence;
mod executions;
pub(crate) mod facts;
mod gate;
mod host;
mod lives;
mod log;
pub mod mortal;
pub mod network;
mod play;
mod scenario;
mod tally;
pub mod trace;
mod weather;
pub mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

pub use crate::planted::Bug;
use crate::planted::Plant;
pub use tally::Tally;
use trace::Trace;

/// One seed's run.
#[derive(Debug)]
pub struct Run {
    pub seed: u64,
    /// Invariants that do not hold; none in a good run.
    pub violations: Vec<String>,
    pub tally: Tally,
    /// What happened, a line each; empty unless it was asked for.
    pub trace: Vec<String>,
}

/// Plays one seed, with a planted bug or without, and checks all invariants.
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Run {
    let _plant = Plant::new(bug);
    let trace = match traced {
        true => Trace::written(),
        false => Trace::default(),
    };
    let played = catch_unwind(AssertUnwindSafe(|| play::play(seed, trace)));
    match played {
        Ok(mut played) => Run {
            seed,
            violations: check::check(&played),
            tally: Tally::of(&played),
            trace: std::mem::take(&mut played.trace),
        },
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Run {
                seed,
                violations: vec![format!("a panic: {}", said.unwrap_or("without words"))],
                tally: Tally::default(),
                trace: Vec::new(),
            }
        }
    }
}

/// The command that plays a seed again, with its trace.
pub fn replay_command(seed: u64, bug: Option<Bug>) -> String {
    let plant = bug.map_or_else(String::new, |bug| format!(" --plant {}", bug.name()));
    format!("cargo simulate --seed {seed}{plant}")
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Runs {
    pub seeds: u64,
    pub tally: Tally,
    /// Seeds with violations, lowest first.
    pub bad: Vec<Run>,
}

/// Plays seeds from `first` on, on all cores.
pub fn run_many(first: u64, count: u64, bug: Option<Bug>) -> Runs {
    let next = AtomicU64::new(0);
    let runs = Mutex::new(Runs::default());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut mine = Runs::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        break;
                    }
                    let run = run(first + at, bug, false);
                    mine.seeds += 1;
                    mine.tally.add(&run.tally);
                    if !run.violations.is_empty() {
                        mine.bad.push(run);
                    }
                }
                let mut all = runs.lock().unwrap_or_else(PoisonError::into_inner);
                all.seeds += mine.seeds;
                all.tally.add(&mine.tally);
                all.bad.extend(mine.bad);
            });
        }
    });
    let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    runs.bad.sort_by_key(|run| run.seed);
    runs
}
