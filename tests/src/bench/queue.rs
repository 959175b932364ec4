//! Step starts a second while very many jobs wait. The work itself is done by `tests/examples/queue.rs`, which has the bot's
//! store and the engine's runner in it; the lab builds without them.

use std::process::{Command, Stdio};

use anyhow::Context;
use comfy_table::Table;
use serde::{Deserialize, Serialize};

use super::Figures;
use crate::Progress;
use crate::scenario::workspace;

/// Jobs that wait: flat means that the last row is as the first.
const WAITING: [&str; 4] = ["1000", "5000", "10000", "20000"];
/// Starts a second.
const AIM: f64 = 1_000.0;

#[derive(Debug, Serialize)]
pub(super) struct Queue {
    build: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    waiting: u64,
    starts_a_second: f64,
    first_start_seconds: f64,
    all_done_seconds: f64,
}

pub(super) fn run(build: &'static str, progress: &Progress) -> anyhow::Result<Queue> {
    let release = (build == "release").then_some("--release");
    let phase = progress.phase("build the bot's runner and store, and drive the jobs");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["run", "--quiet", "--package", "tests", "--example", "queue"])
        .args(release)
        .arg("--")
        .args(WAITING)
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    anyhow::ensure!(
        output.status.success(),
        "the benchmark failed with {}: see its messages above",
        output.status
    );
    phase.done();
    let lines = String::from_utf8_lossy(&output.stdout);
    let rows = lines.lines().map(serde_json::from_str).collect();
    let rows: serde_json::Result<Vec<Row>> = rows;
    Ok(Queue {
        build,
        rows: rows.with_context(|| format!("expected a line of JSON a run, found {lines}"))?,
    })
}

impl Figures for Queue {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.set_header([
            "jobs that wait",
            "step starts a second",
            "first start s",
            "all done s",
        ]);
        for row in &self.rows {
            table.add_row([
                row.waiting.to_string(),
                format!("{:.0}", row.starts_a_second),
                format!("{:.2}", row.first_start_seconds),
                format!("{:.2}", row.all_done_seconds),
            ]);
        }
        let slowest = self.rows.iter().map(|row| row.starts_a_second);
        let slowest = slowest.fold(f64::INFINITY, f64::min);
        let met = if slowest >= AIM { "met    " } else { "NOT met" };
        format!(
            "queue: {} build\n{table}\naim {met}  at least {AIM} step starts a second, however many jobs wait: {slowest:.0}",
            self.build
        )
    }
}
