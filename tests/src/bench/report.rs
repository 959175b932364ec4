//! Samples of a benchmark and what is told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// All samples of one run. The reference tool is the one that others are compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    /// What was done, and on what.
    pub setting: String,
    reference: &'static str,
    /// Case → tool → seconds, in the order of the rounds.
    seconds: BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>,
    /// Case → tool → median in seconds.
    medians: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
}

impl Report {
    pub fn new(benchmark: &'static str, setting: String, reference: &'static str) -> Report {
        Report {
            benchmark,
            setting,
            reference,
            seconds: BTreeMap::new(),
            medians: BTreeMap::new(),
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

    /// One line for each case and tool, with its ratio to the reference of the same case.
    pub fn table(&self) -> String {
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
        format!("{}: {}\n{table}", self.benchmark, self.setting)
    }

    fn row(&self, case: &str, tool: &str, samples: &[f64]) -> Vec<String> {
        let own = self.medians[case][tool];
        let ratio = self.medians[case].get(self.reference).map_or_else(
            || "-".to_owned(),
            |reference| format!("{:.2}", own / reference),
        );
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
            ratio,
        ]
    }
}

/// Median; of an even number the mean of the middle two. Zero samples have none and give 0.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    match sorted.len() {
        0 => 0.0,
        _ if odd => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
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
    }
}
