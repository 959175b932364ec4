//! Benchmarks: the same work by Nightshift and by others, alternating in one run, so that a busy machine
//! slows all of them. Medians and ratios; figures are printed and kept as JSON, never asserted.

mod converge;
mod peers;
mod report;

use clap::Subcommand;

use crate::{Lab, Progress};

/// Which benchmark.
#[derive(Debug, Clone, Subcommand)]
pub enum Bench {
    /// Nothing to change, and one file to change, of 40 resources on each of three hosts; against
    /// ansible-core and pyinfra.
    Converge(Rounds),
}

/// How often, and how to print.
#[derive(Debug, Clone, clap::Args)]
pub struct Rounds {
    /// Rounds; each runs every tool once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Use the bot's development build, which is quicker to build and slower to run.
    #[arg(long)]
    dev: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark on lab `lab`, which it brings up and takes down.
pub fn run(bench: &Bench, lab: &Lab, progress: &Progress) -> anyhow::Result<()> {
    let (rounds, report) = match bench {
        Bench::Converge(rounds) => (rounds, converge::run(rounds, lab, progress)?),
    };
    if rounds.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(())
}
