//! Benchmarks: the same work by Nightshift and by others, alternating in one run, so that a busy machine
//! slows all of them. Medians, ratios, and whether the aims are met; every figure is kept as JSON, none is asserted.

mod converge;
mod first_deploy;
mod flood;
mod logs;
mod peers;
mod queue;
mod react;
mod report;
mod rulebook;
mod spread;
mod webhook;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use clap::Subcommand;

use crate::scenario::Program;
use crate::{Lab, Progress};

/// Which benchmark.
#[derive(Debug, Clone, Subcommand)]
pub enum Bench {
    /// Nothing to change, and one file to change, of 40 resources on each of three hosts; against
    /// ansible-core and pyinfra. About a minute a round.
    Converge {
        /// Rounds; each runs every tool once in each case.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        options: Options,
    },
    /// First deploy on fresh hosts; against a hand-written parallel shell script. About two minutes a round, and one
    /// round more that fills the package cache.
    FirstDeploy {
        /// Rounds that count; each runs both once.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        options: Options,
    },
    /// A storm of alerts against a bot on one processor, and what people wait for in it. About two minutes.
    Flood {
        /// How long each kind of storm lasts.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        #[command(flatten)]
        options: Options,
    },
    /// A million lines in a real OpenSearch: planted ones found exactly once by a bot that is killed twice, lines a second looked
    /// through, and how long people wait for lines. Needs no hosts. About five minutes.
    Logs {
        /// Lines that are written.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
        lines: u64,
        #[command(flatten)]
        options: Options,
    },
    /// Step starts a second while up to 20,000 jobs wait: the real runner and store, hosts that answer at once. Needs no hosts.
    Queue {
        #[command(flatten)]
        options: Options,
    },
    /// From a webhook to the step that runs on a host; against ansible-rulebook. About ten seconds a round.
    React {
        /// Rounds; each sends one webhook to either.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        #[command(flatten)]
        options: Options,
    },
}

/// What a benchmark found.
trait Figures: serde::Serialize {
    /// For people.
    fn table(&self) -> String;

    /// Measuring has ended.
    fn end(&mut self) {}
}

/// What is measured, and where the figures go.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Keep every figure in this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use the bot's development build, which is quicker to build and slower to run.
    #[arg(long)]
    dev: bool,
}

/// Runs a benchmark. Those that need hosts bring up a lab of their own beside `lab`, and take it down.
pub fn run(bench: &Bench, lab: &Lab, progress: &Progress) -> anyhow::Result<()> {
    match bench {
        Bench::Converge { rounds, options } => {
            on_hosts(*rounds, options, lab, progress, converge::run)
        }
        Bench::FirstDeploy { rounds, options } => {
            on_hosts(*rounds, options, lab, progress, first_deploy::run)
        }
        Bench::Flood { seconds, options } => {
            on_hosts(1, options, lab, progress, |run| flood::run(run, *seconds))
        }
        Bench::React { rounds, options } => on_hosts(*rounds, options, lab, progress, react::run),
        Bench::Logs { lines, options } => {
            let phase = progress.phase("build the bot");
            let program = Program::build(!options.dev)?;
            phase.done();
            told(
                logs::run(options.build(), *lines, &program, progress)?,
                options,
            )
        }
        Bench::Queue { options } => told(queue::run(options.build(), progress)?, options),
    }
}

fn on_hosts<F: Figures>(
    rounds: u32,
    options: &Options,
    lab: &Lab,
    progress: &Progress,
    measure: impl FnOnce(&Run) -> anyhow::Result<F>,
) -> anyhow::Result<()> {
    let stop = interruptions()?;
    let phase = progress.phase("build the bot");
    let program = Program::build(!options.dev)?;
    phase.done();
    let run = Run {
        rounds,
        lab: Lab::named(format!("{}bench", lab.name()).parse()?),
        build: options.build(),
        program,
        progress: progress.clone(),
        stop,
    };
    // Whatever an earlier run left; and this one, however it ends.
    run.lab.down()?;
    let result = measure(&run);
    run.lab.down()?;
    run.go_on()?;
    told(result?, options)
}

fn told(mut figures: impl Figures, options: &Options) -> anyhow::Result<()> {
    figures.end();
    println!("{}", figures.table());
    options.keep(&figures)
}

impl Options {
    fn build(&self) -> &'static str {
        if self.dev { "development" } else { "release" }
    }

    /// Every figure, for those who asked for a file.
    fn keep(&self, figures: &impl serde::Serialize) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(figures)?;
            fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// What all benchmarks need.
struct Run {
    rounds: u32,
    lab: Lab,
    /// Which build of the bot, for people.
    build: &'static str,
    program: Program,
    progress: Progress,
    stop: Arc<AtomicBool>,
}

impl Run {
    /// # Errors
    /// When somebody interrupted.
    fn go_on(&self) -> anyhow::Result<()> {
        ensure!(
            !self.stop.load(Ordering::Relaxed),
            "interrupted; the hosts are gone"
        );
        Ok(())
    }
}

/// ^C ends the programs that run; this one still takes its hosts down.
fn interruptions() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("watch for interruptions")?;
    }
    Ok(stop)
}
