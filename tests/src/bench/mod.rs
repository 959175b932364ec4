//! Benchmarks: the same work by Nightshift and by others, alternating in one run, so that a busy machine
//! slows all of them. Medians and ratios; figures are printed and kept as JSON, never asserted.

mod converge;
mod first_deploy;
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
    /// First deploy on fresh hosts; against a hand-written parallel shell script.
    FirstDeploy(Rounds),
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

/// Runs a benchmark on a lab of its own beside `lab`, which it brings up and takes down.
pub fn run(bench: &Bench, lab: &Lab, progress: &Progress) -> anyhow::Result<()> {
    let lab = &Lab::named(format!("{}bench", lab.name()).parse()?);
    let (rounds, report) = match bench {
        Bench::Converge(rounds) => (rounds, converge::run(rounds, lab, progress)?),
        Bench::FirstDeploy(rounds) => (rounds, first_deploy::run(rounds, lab, progress)?),
    };
    if rounds.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(())
}
