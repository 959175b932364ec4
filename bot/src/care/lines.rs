//! What is said of it in the message of an incident. Pure.

use std::collections::{BTreeMap, BTreeSet};

use collectors::{
    Status,
    source::{Care, Handling},
};
use runbooks::incident::Incident;

use super::{decision::Record, places::comment};

/// Lines in one message; more of them are counted.
const LINES_MAX: usize = 8;
const DOWNTIME: &str = "in downtime";

pub struct Told<'a> {
    /// Who has it here.
    pub holder: Option<&'a str>,
    /// `SOURCE/FINGERPRINT` → what the bot wrote or found.
    pub records: Option<&'a BTreeMap<String, Record>>,
    /// `SOURCE/FINGERPRINT` → who handles it, by the source's own words.
    pub handled: &'a BTreeMap<String, Handling>,
    /// The source, and what could not be done there.
    pub troubles: &'a [(String, String)],
}

impl Told<'_> {
    /// Each once, however many alerts it is true of.
    pub fn lines(&self, incident: &Incident) -> Vec<String> {
        let mut lines = BTreeSet::new();
        let marked = comment(&incident.id.0);
        for (key, alert) in &incident.alerts {
            if alert.status != Status::Firing {
                continue;
            }
            let source = &alert.source.0;
            let record = self.records.and_then(|records| records.get(key));
            lines.extend(record.map(|record| recorded(source, record, self.holder)));
            let handling = self.handled.get(key);
            for (kind, care) in handling.into_iter().flat_map(words) {
                if kind == DOWNTIME || !is_recorded(record, &marked, care) {
                    lines.insert(said(source, kind, care));
                }
            }
        }
        for (source, why) in self.troubles {
            lines.insert(format!("not yet said in {source}: {why}"));
        }
        let more = lines.len().saturating_sub(LINES_MAX);
        let mut lines: Vec<String> = lines.into_iter().take(LINES_MAX).collect();
        if more > 0 {
            lines.push(format!("and {more} more such words"));
        }
        lines
    }
}

/// What the bot wrote itself is told by its record, and so is that of others which is in its way; what else they say is not.
fn is_recorded(record: Option<&Record>, marked: &str, care: &Care) -> bool {
    let is_theirs = match record {
        Some(Record::Theirs { by, comment }) => *by == care.by && *comment == care.comment,
        Some(Record::Written { .. } | Record::Removed { .. }) | None => false,
    };
    is_theirs || care.comment == marked
}

fn recorded(source: &str, record: &Record, holder: Option<&str>) -> String {
    let here = holder.unwrap_or("nobody");
    match record {
        Record::Written { by } => format!("acknowledged in {source} for {by}"),
        Record::Theirs { by, comment } => {
            format!(
                "two have it: {here} here, {} in {source}: {comment}",
                somebody(by)
            )
        }
        Record::Removed { by } => format!(
            "the acknowledgement of {by} was removed in {source}; here it stands: unack ends it, ack says it there again"
        ),
    }
}

fn words(handling: &Handling) -> impl Iterator<Item = (&'static str, &Care)> {
    let acknowledged = handling.acknowledged.iter();
    let acknowledged = acknowledged.map(|care| ("acknowledged", care));
    let downtimes = handling.downtimes.iter();
    let downtimes = downtimes.map(|care| (DOWNTIME, care));
    let silences = handling.silences.iter().map(|care| ("silenced", care));
    acknowledged.chain(downtimes).chain(silences)
}

fn said(source: &str, kind: &str, care: &Care) -> String {
    let until = care.until;
    let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
    let words = match care.comment.is_empty() {
        true => String::new(),
        false => format!(": {}", care.comment),
    };
    format!("{kind} in {source} by {}{until}{words}", somebody(&care.by))
}

fn somebody(by: &str) -> &str {
    match by {
        "" => "somebody",
        by => by,
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
