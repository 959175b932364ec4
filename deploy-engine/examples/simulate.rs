//! Plays seeds of the simulation: `cargo simulate --seed 42` one with its trace, `cargo simulate --from 0 --seeds 100000` many.
//! See `docs/simulation.md`.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use deploy_engine::simulation::{Bug, replay_command, run, run_many};

/// Failing seeds that are printed.
const FAILURES_SHOWN: usize = 20;

/// Plays jobs under attack, as seeds decide.
#[derive(Parser)]
struct Arguments {
    /// Play this one, and tell what happens
    #[arg(long, conflicts_with_all = ["from", "seeds"])]
    seed: Option<u64>,
    /// Play many, from this one on
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Plant a bug first: no-recheck, undo-skipped, old-fence-accepted, sync-not-awaited
    #[arg(long, value_parser = bug)]
    plant: Option<Bug>,
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    known.ok_or_else(|| {
        let names = Bug::ALL.map(Bug::name).join(", ");
        format!("expected one of {names}")
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, arguments.plant),
        None => many(&arguments),
    }
}

fn one(seed: u64, plant: Option<Bug>) -> ExitCode {
    let run = run(seed, plant, true);
    for line in &run.trace {
        println!("{line}");
    }
    println!("{}", run.tally);
    for violation in &run.violations {
        println!("VIOLATED: {violation}");
    }
    verdict(run.violations.is_empty())
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let runs = run_many(arguments.from, arguments.seeds, arguments.plant);
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", runs.tally);
    println!("{} seeds in {seconds:.1} s", runs.seeds);
    for run in runs.bad.iter().take(FAILURES_SHOWN) {
        println!("VIOLATED: {}", run.violations[0]);
        println!("    {}", replay_command(run.seed, arguments.plant));
    }
    println!("{} seeds violate an invariant", runs.bad.len());
    verdict(runs.bad.is_empty())
}

fn verdict(good: bool) -> ExitCode {
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
