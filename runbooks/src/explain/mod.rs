//! What would become of alerts: of files that were never seen before, without asking anybody. Pure but for reading files.

mod files;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use collectors::{Alert, SourceName, Status};
use deploy_engine::model::HostName;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    alerts::{Destination, Found, Mapping},
    format::RunbookId,
    library::Library,
    matching::{Matched, is_diagnosis, match_alert, titles},
    topology::Topology,
};

pub use files::{FileError, FileRead, files};
pub use read::{Read, Seen, read};

/// What would become of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A runbook looks, and may act behind its gates.
    Mapped,
    /// A runbook looks; the alert is a symptom more often than a cause.
    Diagnosis,
    HostDown,
    Gate,
    /// It is known, and a person is told: nothing is repaired for it, or not yet.
    Page,
    /// Its labels decide, or sets disagree.
    Depends,
    /// Nothing is known; a person is told.
    Unknown,
}

impl Outcome {
    pub const ALL: [Self; 7] = [
        Self::Mapped,
        Self::Diagnosis,
        Self::HostDown,
        Self::Gate,
        Self::Page,
        Self::Depends,
        Self::Unknown,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Mapped => "runbook",
            Self::Diagnosis => "diagnosis",
            Self::HostDown => "host down",
            Self::Gate => "gate",
            Self::Page => "page",
            Self::Depends => "by labels",
            Self::Unknown => "unknown: page",
        }
    }
}

/// One name, as often as it was found alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    pub outcome: Outcome,
    pub name: String,
    /// Runbooks with their titles, or why a person is told.
    pub to: String,
    /// Where the alert names what has failed.
    pub target: String,
    /// Hosts of the site that it names; only of an alert with labels.
    pub hosts: BTreeSet<HostName>,
    /// The set of the table, and its file.
    pub set: String,
    pub file: String,
    /// Sets that the site's own row hides.
    pub overrides: Vec<String>,
    /// What is done where there is a site; only of an alert with labels.
    pub here: Option<String>,
    pub count: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub lines: Vec<Line>,
    /// How many names go where.
    pub counts: BTreeMap<Outcome, usize>,
    /// How many of them take what is scraped for what has failed, because the table says so of their metric.
    pub by_instance: usize,
}

/// Pure. Without a site no host is known, and what runs there neither.
pub fn explain(library: &Library, site: Option<&Topology>, seen: &[Seen]) -> Report {
    let mut lines: BTreeMap<Line, usize> = BTreeMap::new();
    for one in seen {
        *lines.entry(line(library, site, one)).or_default() += 1;
    }
    let mut report = Report::default();
    let mut names = BTreeSet::new();
    for (line, count) in lines {
        if names.insert((line.outcome, line.name.clone())) {
            *report.counts.entry(line.outcome).or_default() += 1;
            report.by_instance += usize::from(line.target == "instance");
        }
        report.lines.push(Line { count, ..line });
    }
    report
}

fn line(library: &Library, site: Option<&Topology>, seen: &Seen) -> Line {
    let alert = alert(seen);
    let table = library.alerts();
    let found = match &seen.labels {
        Some(_) => table.find(&alert),
        None => table.of_name(&seen.name),
    };
    let mut line = match found {
        Found::Mapped(mapping) => of_mapping(library, &mapping),
        Found::Depends(rows) => depends(&rows),
        Found::Unknown => Line {
            to: "nobody has said what it means".to_owned(),
            ..empty(Outcome::Unknown)
        },
    };
    line.name = seen.name.clone();
    if let (Some(_), Some(site)) = (&seen.labels, site) {
        let (hosts, here) = here(match_alert(library, site, &alert));
        (line.hosts, line.here) = (hosts, Some(here));
    }
    if let Found::Mapped(mapping) = table.of_name(&seen.name)
        && mapping.layer > 0
    {
        let hidden = table.overridden(&seen.name, mapping.layer);
        line.overrides = hidden.into_iter().map(str::to_owned).collect();
    }
    line
}

fn empty(outcome: Outcome) -> Line {
    Line {
        outcome,
        name: String::new(),
        to: String::new(),
        target: String::new(),
        hosts: BTreeSet::new(),
        set: String::new(),
        file: String::new(),
        overrides: Vec::new(),
        here: None,
        count: 0,
    }
}

fn of_mapping(library: &Library, mapping: &Mapping) -> Line {
    let ids = mapping.destination.ids();
    let only_looks = |id: &&RunbookId| {
        !matches!(mapping.destination, Destination::Page(_)) || is_diagnosis(library, id)
    };
    let there = ids.iter().filter(|id| library.get(id).is_some());
    let there: Vec<RunbookId> = there.filter(only_looks).cloned().collect();
    let (outcome, to) = match &mapping.destination {
        Destination::Gate(_) => (Outcome::Gate, mapping.destination.word().to_owned()),
        Destination::HostDown(_) => (Outcome::HostDown, titles(ids)),
        Destination::Page(ids) if ids.is_empty() => (Outcome::Page, "for people".to_owned()),
        Destination::Page(_) if there.is_empty() => (Outcome::Page, titles(ids)),
        _ if there.is_empty() => (Outcome::Page, format!("no runbook yet: {}", titles(ids))),
        Destination::Runbook(_) => (Outcome::Mapped, titles(&there)),
        Destination::Diagnosis(_) | Destination::Page(_) => (Outcome::Diagnosis, titles(&there)),
    };
    Line {
        to,
        target: mapping.target.to_string(),
        set: mapping.set.clone(),
        file: mapping.file.clone(),
        ..empty(outcome)
    }
}

fn depends(rows: &[&Mapping]) -> Line {
    let one = |row: &&Mapping| {
        let when: Vec<String> = row
            .when
            .iter()
            .map(|(label, values)| match values.is_empty() {
                true => format!("with {label}"),
                false => format!("{label}={}", values.join("|")),
            })
            .collect();
        let to = match row.destination.ids() {
            [] => row.destination.word().to_owned(),
            ids => ids
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        };
        match when.is_empty() {
            true => format!("{to} ({})", row.set),
            false => format!("{to} ({}; {})", row.set, when.join(", ")),
        }
    };
    Line {
        to: rows.iter().map(one).collect::<Vec<_>>().join("; "),
        target: "by its rule".to_owned(),
        ..empty(Outcome::Depends)
    }
}

fn here(matched: Matched) -> (BTreeSet<HostName>, String) {
    match matched {
        Matched::Runbooks {
            domain,
            runbooks,
            subjects,
            ..
        } => {
            let ids: Vec<String> = runbooks.iter().map(ToString::to_string).collect();
            (subjects, format!("{} looks at {domain}", ids.join(", ")))
        }
        Matched::HostDown { host, .. } => ([host].into(), "holds what is wrong there".to_owned()),
        Matched::Gate { .. } => (BTreeSet::new(), "no incident".to_owned()),
        Matched::TellOnly { why, subjects, .. } => (subjects, format!("page: {why}")),
    }
}

fn alert(seen: &Seen) -> Alert {
    Alert {
        source: SourceName("file".to_owned()),
        fingerprint: String::new(),
        name: seen.name.clone(),
        labels: seen.labels.clone().unwrap_or_default(),
        annotations: BTreeMap::new(),
        status: Status::Firing,
        starts_at: Timestamp::UNIX_EPOCH,
        ends_at: None,
        generator_url: String::new(),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
