//! The journal under attack: seeded runs of the engine's own runner against hosts, network, disk and bots that fail.
//! See `docs/simulation.md`. A failing seed prints as one command that plays it again.

use deploy_engine::simulation::{Bug, replay_command, run, run_many};

/// Seeds of an ordinary `cargo test`: what two cores do in about two minutes.
const SEEDS: u64 = 100_000;

/// Seeds in which each planted bug has to be found.
const SEEDS_WITH_A_BUG: u64 = 2_000;

/// Failing seeds that are printed; the first ones say enough.
const FAILURES_SHOWN: usize = 5;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|error| {
            panic!("expected a number in {variable}, found {text}: {error}")
        }),
        Err(_) => default,
    }
}

/// `SIMULATION_FIRST` and `SIMULATION_SEEDS` choose another range.
#[test]
fn no_seed_breaks_an_invariant() {
    let first = number("SIMULATION_FIRST", 0);
    let seeds = number("SIMULATION_SEEDS", SEEDS);
    let runs = run_many(first, seeds, None);
    assert_eq!(runs.seeds, seeds);
    println!("{seeds} seeds\n{}", runs.tally);
    let shown = runs.bad.iter().take(FAILURES_SHOWN).map(|run| {
        let first = &run.violations[0];
        format!("{first}\n    {}\n", replay_command(run.seed, None))
    });
    let bad = runs.bad.len();
    assert!(
        runs.bad.is_empty(),
        "{bad} of {seeds} seeds break an invariant:\n{}",
        shown.collect::<String>()
    );
}

fn is_found(bug: Bug, words: &str) {
    let runs = run_many(0, SEEDS_WITH_A_BUG, Some(bug));
    let found: Vec<_> = runs
        .bad
        .iter()
        .filter(|run| run.violations.iter().any(|wrong| wrong.contains(words)))
        .collect();
    let name = bug.name();
    println!(
        "{name}: found in {} of {SEEDS_WITH_A_BUG} seeds",
        found.len()
    );
    let first = found
        .first()
        .unwrap_or_else(|| panic!("{name} was found in none of {SEEDS_WITH_A_BUG} seeds"));
    println!("first: {}", replay_command(first.seed, Some(bug)));
    // It is the bug that was found, not the seed.
    assert_eq!(run(first.seed, None, false).violations, [""; 0]);
}

#[test]
fn a_guard_that_is_not_judged_again_is_found() {
    is_found(Bug::NoRecheck, "without its guard");
}

#[test]
fn a_half_done_step_that_is_not_undone_is_found() {
    is_found(Bug::UndoSkipped, "has not been undone");
}

#[test]
fn a_host_that_accepts_an_old_fencing_number_is_found() {
    is_found(Bug::OldFenceAccepted, "old fencing number");
}

#[test]
fn a_journal_that_does_not_wait_for_its_sync_is_found() {
    is_found(Bug::SyncNotAwaited, "called durable and lost");
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in 0..300 {
        let one = run(seed, None, true);
        let other = std::thread::spawn(move || run(seed, None, true))
            .join()
            .unwrap();
        assert!(!one.trace.is_empty());
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// What never happens is not tested.
#[test]
fn everything_that_can_happen_does() {
    let tally = run_many(0, 3_000, None).tally;
    for what in [
        "bots frozen",
        "bots killed",
        "cancels",
        "drivers that gave up",
        "evidence kept",
        "holds",
        "jobs cancelled",
        "jobs failed",
        "jobs refused",
        "jobs succeeded",
        "jobs taken over",
        "orders fenced",
        "power cuts of the bots' host",
        "rival jobs",
        "rival jobs refused",
        "steps cancelled",
        "steps done",
        "steps drifted",
        "steps failed",
        "steps lost",
        "steps refused",
        "steps with nothing to do",
        "undos done",
        "undos failed",
        "undos lost",
        "unsynced writes lost",
        "unsynced writes that survived",
    ] {
        assert!(tally.get(what) > 0, "no {what} in\n{tally}");
    }
}
