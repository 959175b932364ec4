//! What the alerts of the world mean: one table, from the files of `runbooks/alerts` and a site's own on top.
//!
//! An alert is only a reason to look. The table says which runbooks look, and which label, if any, names what has failed.

mod format;
mod load;
mod target;

use std::{borrow::Cow, collections::BTreeMap};

use collectors::Alert;
use deploy_engine::model::ServiceName;
use serde::Serialize;

use crate::format::{Class, Runbook, RunbookId};

pub use format::{AlertFile, AlertSet, Gate, KnownTarget, Row, ServiceBy, Target};
pub use load::catalogue;
pub use target::{Named, SCRAPED_LABELS, candidates, named};

type Labels = BTreeMap<String, String>;

/// What becomes of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "to", content = "of", rename_all = "snake_case")]
pub enum Destination {
    Runbook(Vec<RunbookId>),
    Diagnosis(Vec<RunbookId>),
    Page(Vec<RunbookId>),
    HostDown(Vec<RunbookId>),
    Gate(Gate),
}

impl Destination {
    pub fn ids(&self) -> &[RunbookId] {
        match self {
            Self::Runbook(ids) | Self::Diagnosis(ids) | Self::Page(ids) | Self::HostDown(ids) => {
                ids
            }
            Self::Gate(_) => &[],
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Runbook(_) => "runbook",
            Self::Diagnosis(_) => "diagnosis",
            Self::Page(_) => "page",
            Self::HostDown(_) => "host down",
            Self::Gate(Gate::Watchdog) => "gate: watchdog",
            Self::Gate(Gate::Inhibitor) => "gate: inhibitor",
        }
    }
}

/// One row of the table, for one alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mapping {
    pub destination: Destination,
    pub target: Target,
    pub service: Option<ServiceName>,
    pub service_by: Option<ServiceBy>,
    pub when: BTreeMap<String, Vec<String>>,
    /// The set and the file that say so.
    pub set: String,
    pub file: String,
    /// 0: comes with the program; 1 and up: the site's directories, in their order.
    pub layer: usize,
}

/// What the table has for an alert.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'t> {
    Mapped(Cow<'t, Mapping>),
    /// Sets disagree and no label decides: nothing is guessed.
    Depends(Vec<&'t Mapping>),
    Unknown,
}

/// Name (or the value of a label) → rows.
#[derive(Clone, Debug, Default)]
pub struct AlertTable {
    rows: Vec<Mapping>,
    /// Label that is looked up (empty: the name) → key → rows.
    exact: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// The same, of names without their threshold or version: for those that are written with another one.
    bare: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// The same, of names that are a beginning.
    beginnings: BTreeMap<String, Vec<(String, usize)>>,
}

/// Names differ in case, `_` and signs between rule sets that mean the same.
pub fn key(name: &str) -> String {
    let plain = name.replace("&gt;", "").replace("&lt;", "");
    plain
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// The name without a threshold or version that some sets put into it: `X(>80%)`, `X>80%`, `X(v1)`.
fn bare(name: &str) -> Option<&str> {
    let end = name.find(['(', '>', '<', '&'])?;
    (end > 0).then(|| &name[..end])
}

impl AlertTable {
    /// Pure.
    pub fn find(&self, alert: &Alert) -> Found<'_> {
        self.lookup(&alert.name, Some(&alert.labels))
    }

    /// What a name may mean while its labels are not known.
    pub fn of_name(&self, name: &str) -> Found<'_> {
        self.lookup(name, None)
    }

    /// The alert says that a whole host is away.
    pub fn is_host_down(&self, alert: &Alert) -> bool {
        matches!(self.find(alert), Found::Mapped(mapping) if matches!(mapping.destination, Destination::HostDown(_)))
    }

    pub fn gate(&self, alert: &Alert) -> Option<Gate> {
        match self.find(alert) {
            Found::Mapped(mapping) => match mapping.destination {
                Destination::Gate(gate) => Some(gate),
                _ => None,
            },
            Found::Depends(_) | Found::Unknown => None,
        }
    }

    /// Names for which a runbook looks; a diagnosis also looks for those that page.
    pub fn names_of(&self, runbook: &Runbook) -> Vec<&str> {
        let looks = |row: &Mapping| {
            let acts = match row.destination {
                Destination::Runbook(_) | Destination::Diagnosis(_) => true,
                Destination::Page(_) | Destination::HostDown(_) => {
                    runbook.class == Class::Diagnosis
                }
                Destination::Gate(_) => false,
            };
            let own = |id: &RunbookId| *id == runbook.runbook || runbook.runbook.is_variant_of(id);
            acts && row.destination.ids().iter().any(own)
        };
        let keys = self.exact.values().flatten();
        keys.filter(|(_, rows)| rows.iter().any(|row| looks(&self.rows[*row])))
            .map(|(key, _)| key.as_str())
            .collect()
    }

    /// How a site's row hides others: the sets that have the name in a lower layer.
    pub fn overridden(&self, name: &str, layer: usize) -> Vec<&str> {
        let rows = self.rows_of("", name).into_iter();
        rows.filter(|row| row.layer < layer)
            .map(|row| row.set.as_str())
            .collect()
    }

    pub fn len(&self) -> usize {
        self.exact.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn lookup(&self, name: &str, labels: Option<&Labels>) -> Found<'_> {
        let by_name = self.rows_of("", name);
        let others = self.exact.keys().filter(|by| !by.is_empty());
        let by_label = others.filter_map(|by| Some(self.rows_of(by, labels?.get(by)?)));
        std::iter::once(by_name)
            .chain(by_label)
            .map(|rows| decide(rows, labels))
            .find(|found| *found != Found::Unknown)
            .unwrap_or(Found::Unknown)
    }

    fn rows_of(&self, by: &str, value: &str) -> Vec<&Mapping> {
        let exact = |value: &str| self.exact.get(by)?.get(&key(value));
        let other = |value: &str| self.bare.get(by)?.get(&key(value));
        let found = exact(value).or_else(|| {
            let bare = bare(value)?;
            exact(bare).or_else(|| other(bare))
        });
        if let Some(rows) = found {
            return rows.iter().map(|row| &self.rows[*row]).collect();
        }
        let value = key(value);
        let beginnings = self.beginnings.get(by).into_iter().flatten();
        let longest = beginnings
            .filter(|(start, _)| value.starts_with(start.as_str()))
            .max_by_key(|(start, _)| start.len());
        longest
            .map(|(_, row)| &self.rows[*row])
            .into_iter()
            .collect()
    }
}

/// Of the rows of one name: the highest layer, then those whose labels fit best, if they agree.
fn decide<'t>(rows: Vec<&'t Mapping>, labels: Option<&Labels>) -> Found<'t> {
    let fits = |row: &&Mapping| {
        let Some(labels) = labels else { return true };
        row.when.iter().all(|(name, values)| {
            let found = labels.get(name).filter(|found| !found.is_empty());
            found.is_some_and(|found| values.is_empty() || values.contains(found))
        })
    };
    let mut rows: Vec<&Mapping> = rows.into_iter().filter(fits).collect();
    let Some(top) = rows.iter().map(|row| row.layer).max() else {
        return Found::Unknown;
    };
    rows.retain(|row| row.layer == top);
    if labels.is_some() && rows.iter().any(|row| !row.when.is_empty()) {
        rows.retain(|row| !row.when.is_empty());
    }
    agreed(rows)
}

fn agreed(rows: Vec<&Mapping>) -> Found<'_> {
    let Some((&first, rest)) = rows.split_first() else {
        return Found::Unknown;
    };
    if rest.iter().any(|row| row.destination != first.destination) {
        return Found::Depends(rows);
    }
    let same = |row: &&&Mapping| {
        row.target == first.target
            && row.service == first.service
            && row.service_by == first.service_by
    };
    if rest.iter().all(|row| same(&row)) {
        return Found::Mapped(Cow::Borrowed(first));
    }
    // They agree on what it means, not on what it names: then it names nothing.
    let mut careful = first.clone();
    if rest.iter().any(|row| row.target != first.target) {
        careful.target = Target::Known(KnownTarget::None);
    }
    if rest.iter().any(|row| row.service != first.service) {
        careful.service = None;
    }
    if rest.iter().any(|row| row.service_by != first.service_by) {
        careful.service_by = None;
    }
    Found::Mapped(Cow::Owned(careful))
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
