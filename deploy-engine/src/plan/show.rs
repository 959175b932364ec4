//! A plan for people: plain text, no colours; the symbols `+`, `~` and `-` begin a line.

use std::{collections::BTreeMap, fmt::Write};

use super::{Change, Plan, Sign};
use crate::model::{HostName, ServiceName};

/// Digits of the digest that people type.
const SHORT_DIGEST: usize = 12;
/// Lines of one resource's diff before the rest is counted.
const DIFF_LINES: usize = 60;

impl Plan {
    /// The beginning of the digest, enough to name the plan.
    pub fn short_digest(&self) -> &str {
        self.digest.get(..SHORT_DIGEST).unwrap_or(&self.digest)
    }

    /// One line, for example `3 hosts, 41 changes, 12 restarts`.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "no changes".to_owned();
        }
        let mut words = vec![
            count(self.hosts().len(), "host"),
            count(self.changes.len(), "change"),
            count(self.interruptions as usize, "restart"),
            count(self.steps.len(), "step"),
        ];
        if !self.refused.is_empty() {
            words.push(format!("{} refused", self.refused.len()));
        }
        words.join(", ")
    }

    /// One line a host: what is added, altered and removed, and by which services.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<&HostName, ([usize; 3], Vec<&ServiceName>)> = BTreeMap::new();
        for change in &self.changes {
            let row = rows.entry(&change.host).or_default();
            row.0[match change.sign {
                Sign::Add => 0,
                Sign::Alter => 1,
                Sign::Remove => 2,
            }] += 1;
            if !row.1.contains(&&change.service) {
                row.1.push(&change.service);
            }
        }
        let width = rows.keys().map(|host| host.as_str().len()).max();
        let width = width.unwrap_or(0).max("host".len());
        let mut text = format!(
            "{:width$}  {:>4} {:>4} {:>4}  services\n",
            "host", "+", "~", "-"
        );
        for (host, ([add, alter, remove], services)) in rows {
            let services: Vec<&str> = services.iter().map(|name| name.as_str()).collect();
            let services = services.join(" ");
            let _ = writeln!(
                text,
                "{:width$}  {add:>4} {alter:>4} {remove:>4}  {services}",
                host.as_str()
            );
        }
        text
    }

    /// The whole plan: what changes, grouped by host and service, and what is refused and why. With `diffs` the lines of
    /// files, too.
    pub fn render(&self, diffs: bool) -> String {
        let mut text = format!(
            "Plan {} for {} on {}: {}\n",
            self.short_digest(),
            self.goal.title(),
            self.site,
            self.summary()
        );
        let mut grouped: BTreeMap<(&HostName, &ServiceName), Vec<&Change>> = BTreeMap::new();
        for change in &self.changes {
            let key = (&change.host, &change.service);
            grouped.entry(key).or_default().push(change);
        }
        let mut last = None;
        for ((host, service), changes) in grouped {
            if last != Some(host) {
                let _ = writeln!(text, "\n{host}");
                last = Some(host);
            }
            let _ = writeln!(text, "  {service}");
            for change in changes {
                render_change(change, diffs, &mut text);
            }
        }
        for (heading, lines) in [
            (
                "Refused",
                self.refused.iter().map(ToString::to_string).collect(),
            ),
            ("Warnings", self.warnings.clone()),
        ] {
            if !lines.is_empty() {
                let _ = writeln!(text, "\n{heading}");
                for line in lines {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        text
    }
}

fn render_change(change: &Change, diffs: bool, text: &mut String) {
    let _ = writeln!(text, "    {} {}", change.sign.symbol(), change.resource);
    // One line says what happens; more are a file's.
    let short = change.diff.len() <= 2;
    if !(diffs || short) {
        return;
    }
    for line in change.diff.iter().take(DIFF_LINES) {
        let _ = writeln!(text, "        {}", line.trim_end());
    }
    if change.diff.len() > DIFF_LINES {
        let _ = writeln!(
            text,
            "        … {} more lines",
            change.diff.len() - DIFF_LINES
        );
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
