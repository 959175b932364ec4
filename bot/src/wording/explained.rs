//! What would become of alerts, in words.

use runbooks::explain::{Line, Outcome, Report};

use super::{Cell, Message, Severity, Table, Tone};

/// Lines shown of one report; the rest is in the JSON.
const LINES_SHOWN: usize = 2_000;

/// `site`: the site that it was explained with.
pub fn explained(report: &Report, site: Option<&str>) -> Message {
    let names: usize = report.counts.values().sum();
    let counts = Outcome::ALL.into_iter().filter_map(|outcome| {
        let count = report.counts.get(&outcome)?;
        Some(format!("{count} {}", outcome.word()))
    });
    let counts: Vec<String> = counts.collect();
    let severity = match report.counts.contains_key(&Outcome::Unknown) {
        true => Severity::Attention,
        false => Severity::Info,
    };
    let title = match names {
        1 => "1 name of an alert".to_owned(),
        _ => format!("{names} names of alerts: {}", counts.join(", ")),
    };
    let mut table = Table::new(&["alert", "", "goes to", "target", "by"]);
    for line in report.lines.iter().take(LINES_SHOWN) {
        table.row(row(line));
    }
    let mut message = Message::new(severity, title).table(table);
    if report.lines.len() > LINES_SHOWN {
        let more = report.lines.len() - LINES_SHOWN;
        message = message.line(format!("and {more} more: --json has them all"));
    }
    if report.by_instance > 0 {
        let count = report.by_instance;
        message = message.line(format!(
            "of metrics whose instance is what has failed: {count}; no other instance is ever acted on"
        ));
    }
    match site {
        Some(_) => message,
        None => {
            message.hint("with --config the site's own tables, hosts and services are used, too")
        }
    }
}

fn row(line: &Line) -> Vec<Cell> {
    let tone = match line.outcome {
        Outcome::Mapped => Tone::Good,
        Outcome::Diagnosis | Outcome::HostDown | Outcome::Gate => Tone::Plain,
        Outcome::Page | Outcome::Depends => Tone::Warn,
        Outcome::Unknown => Tone::Bad,
    };
    let name = match line.count {
        1 => line.name.clone(),
        count => format!("{} ×{count}", line.name),
    };
    let to = match &line.here {
        Some(here) => format!("{} → {here}", line.to),
        None => line.to.clone(),
    };
    let hosts: Vec<&str> = line.hosts.iter().map(|host| host.as_str()).collect();
    let target = match hosts[..] {
        [] => line.target.clone(),
        _ => format!("{}: {}", line.target, hosts.join(", ")),
    };
    let from = match line.overrides.is_empty() {
        true => line.set.clone(),
        false => format!("{}, instead of {}", line.set, line.overrides.join(", ")),
    };
    vec![
        name.into(),
        Cell::new(line.outcome.word(), tone),
        to.into(),
        target.into(),
        Cell::new(from, Tone::Dim),
    ]
}
