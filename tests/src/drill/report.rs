//! What came of drills: a table for people, JSON for programs.

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::file::Drill;

/// Seconds of each part; absent: it did not come to that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// From the fault to the alert's arrival at the bot.
    pub alert: Option<f64>,
    /// From there to the decision.
    pub decision: Option<f64>,
    /// From there to the first step.
    pub first_step: Option<f64>,
    /// From there to the proof.
    pub proven: Option<f64>,
    /// From the fault to the end of all that.
    pub total: Option<f64>,
}

/// One drill's result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub drill: String,
    pub runbook: String,
    /// Must nothing be done?
    pub counter: bool,
    pub passed: bool,
    /// The bot's reason, or what went wrong.
    pub why: String,
    pub seconds: Times,
}

pub fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header([
        "drill",
        "runbook",
        "result",
        "alert s",
        "decision s",
        "first step s",
        "proven s",
        "total s",
        "why",
    ]);
    for outcome in outcomes {
        let seconds =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
        let times = &outcome.seconds;
        table.add_row([
            outcome.drill.clone(),
            outcome.runbook.clone(),
            if outcome.passed { "passed" } else { "FAILED" }.to_owned(),
            seconds(times.alert),
            seconds(times.decision),
            seconds(times.first_step),
            seconds(times.proven),
            seconds(times.total),
            outcome.why.clone(),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// All drills there are.
pub fn list(drills: &[Drill]) -> Table {
    let mut table = Table::new();
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["drill", "runbook", "must", "hosts", "what happens"]);
    for drill in drills {
        let must = if drill.is_counter() { "refuse" } else { "heal" };
        table.add_row([
            drill.drill.clone(),
            drill.runbook.clone(),
            must.to_owned(),
            drill.hosts.to_string(),
            drill.title.clone(),
        ]);
    }
    table
}
