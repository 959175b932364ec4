//! Samples of a benchmark and what is told of them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;
use serde::Serialize;

use super::Figures;

/// Processes that want a processor, per processor, from which figures are not worth keeping.
const BUSY: f64 = 1.0;

/// All samples of one run. The reference tool is the one that others are compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    /// What was done, and on what.
    pub setting: String,
    reference: &'static str,
    machine: Machine,
    /// Case → tool → seconds, in the order of the rounds.
    seconds: BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>,
    /// Case → tool → median in seconds.
    medians: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    aims: Vec<Aim>,
}

/// What else went on: the benchmark's own load is in the second figure.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    processors: usize,
    begun: Timestamp,
    load_at_begin: f64,
    load_at_end: f64,
}

/// A number to reach, and what was reached.
#[derive(Debug, Clone, Serialize)]
struct Aim {
    what: String,
    limit: f64,
    found: f64,
    met: bool,
}

impl Report {
    /// Begins now.
    pub fn new(benchmark: &'static str, setting: String, reference: &'static str) -> Report {
        Report {
            benchmark,
            setting,
            reference,
            machine: Machine {
                processors: std::thread::available_parallelism().map_or(1, usize::from),
                begun: Timestamp::now(),
                load_at_begin: load(),
                load_at_end: 0.0,
            },
            seconds: BTreeMap::new(),
            medians: BTreeMap::new(),
            aims: Vec::new(),
        }
    }

    pub fn add(&mut self, case: &'static str, tool: &'static str, took: Duration) {
        let samples = self
            .seconds
            .entry(case)
            .or_default()
            .entry(tool)
            .or_default();
        samples.push(took.as_secs_f64());
        let median = median(samples);
        self.medians.entry(case).or_default().insert(tool, median);
    }

    /// `tool` should take at least `times` as long as the reference.
    pub fn aim_faster_than(&mut self, case: &str, tool: &str, times: f64) {
        let found = self.median_of(case, tool) / self.median_of(case, self.reference);
        let what = format!(
            "{case}: {tool} takes ≥ {times} times as long as {}",
            self.reference
        );
        self.aim(what, times, found, found >= times);
    }

    /// `tool` should take at most `times` as long as the reference.
    pub fn aim_within(&mut self, case: &str, tool: &str, times: f64) {
        let found = self.median_of(case, tool) / self.median_of(case, self.reference);
        let what = format!(
            "{case}: {tool} takes ≤ {times} times as long as {}",
            self.reference
        );
        self.aim(what, times, found, found <= times);
    }

    /// `tool` should take at most so many seconds.
    pub fn aim_seconds(&mut self, case: &str, tool: &str, limit: f64) {
        let found = self.median_of(case, tool);
        self.aim(
            format!("{case}: {tool} takes ≤ {limit} s"),
            limit,
            found,
            found <= limit,
        );
    }

    fn aim(&mut self, what: String, limit: f64, found: f64, met: bool) {
        self.aims.push(Aim {
            what,
            limit,
            found,
            met,
        });
    }

    /// Nothing was measured: no number, which meets no aim.
    fn median_of(&self, case: &str, tool: &str) -> f64 {
        let tools = self.medians.get(case);
        tools
            .and_then(|tools| tools.get(tool))
            .copied()
            .unwrap_or(f64::NAN)
    }

    fn row(&self, case: &str, tool: &str, samples: &[f64]) -> Vec<String> {
        let own = self.median_of(case, tool);
        let ratio = own / self.median_of(case, self.reference);
        let (min, max) = samples.iter().fold((f64::MAX, 0.0_f64), |(min, max), s| {
            (min.min(*s), max.max(*s))
        });
        vec![
            case.to_owned(),
            tool.to_owned(),
            format!("{own:.3}"),
            format!("{min:.3}"),
            format!("{max:.3}"),
            samples.len().to_string(),
            format!("{ratio:.2}"),
        ]
    }
}

impl Figures for Report {
    fn end(&mut self) {
        self.machine.load_at_end = load();
    }

    /// One line for each case and tool, with its ratio to the reference of the same case; then the aims.
    fn table(&self) -> String {
        let mut table = Table::new();
        table.set_header([
            "case".to_owned(),
            "tool".to_owned(),
            "median s".to_owned(),
            "min s".to_owned(),
            "max s".to_owned(),
            "runs".to_owned(),
            format!("times {}", self.reference),
        ]);
        for (case, tools) in &self.seconds {
            for (tool, samples) in tools {
                table.add_row(self.row(case, tool, samples));
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let aims: String = self.aims.iter().map(Aim::line).collect();
        format!(
            "{}: {}\n{table}\n{aims}{}",
            self.benchmark,
            self.setting,
            self.machine.line()
        )
    }
}

impl Aim {
    fn line(&self) -> String {
        let met = if self.met { "met    " } else { "NOT met" };
        format!("aim {met}  {}: {:.2}\n", self.what, self.found)
    }
}

impl Machine {
    fn line(&self) -> String {
        let Machine {
            processors,
            load_at_begin: load,
            ..
        } = self;
        let busy = if *load > BUSY * *processors as f64 {
            ": it was busy, measure again on a quiet one"
        } else {
            ""
        };
        format!(
            "machine: {processors} processors, load {load:.1} before the first measurement{busy}"
        )
    }
}

/// Mean number of processes that want a processor, over the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first
        .and_then(|number| number.parse().ok())
        .unwrap_or(f64::NAN)
}

/// Median; of an even number the mean of the middle two. No samples have none.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    match sorted.len() {
        0 => f64::NAN,
        _ if odd => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_aims() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let mut report = Report::new("b", "s".to_owned(), "ours");
        for (tool, ms) in [
            ("ours", 100),
            ("theirs", 500),
            ("ours", 300),
            ("theirs", 900),
        ] {
            report.add("no-op", tool, Duration::from_millis(ms));
        }
        let table = report.table();
        assert!(
            table.contains("3.50"),
            "700 ms are 3.5 times 200 ms:\n{table}"
        );
        report.aim_faster_than("no-op", "theirs", 3.4);
        report.aim_within("no-op", "theirs", 3.4);
        report.aim_seconds("no-op", "ours", 0.2);
        report.aim_seconds("no-op", "nobody", 100.0);
        let met: Vec<bool> = report.aims.iter().map(|aim| aim.met).collect();
        assert_eq!(met, [true, false, true, false]);
    }
}
