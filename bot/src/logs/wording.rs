//! What is said of readings of logs. Pure.

use collectors::{
    elasticsearch::{Reached, Settings},
    logs::reading::{ABOUT, EVIDENCE_FOR, HOST, Standing, standing},
    source::Reading,
};
use jiff::Timestamp;
use runbooks::{incident::Incident, log_lines::Meant, topology::Topology};

use crate::wording::{Cell, Table, Tone, ago, duration};

/// Readings in one table, the latest of them.
const SHOWN: usize = 12;
/// Shown of a sample, in characters.
const SAMPLE_CHARS: usize = 160;

/// How far a store was read. That it was not read at all is told as a blind spot.
pub fn status_lines(settings: &Settings, reached: &Reached, now: Timestamp) -> Vec<(String, Tone)> {
    let name = &settings.name;
    let Some(looked_at) = reached.looked_at else {
        return Vec::new();
    };
    let looked = ago(looked_at, now);
    let mut lines = vec![match reached.lag {
        None => (
            format!("{name}: no line at all in the last minutes, looked {looked}"),
            Tone::Warn,
        ),
        Some(lag) if lag > settings.window.late => (
            format!(
                "{name}: the newest line is {} old, looked {looked}: nobody writes, or lines come later than the {} that are waited for",
                duration(lag),
                duration(settings.window.late)
            ),
            Tone::Warn,
        ),
        Some(lag) => (
            format!(
                "{name}: the newest line was {} old, looked {looked}",
                duration(lag)
            ),
            Tone::Dim,
        ),
    }];
    if let Some((from, to)) = reached.given_up {
        let text = format!(
            "{name}: lines between {from:.0} and {to:.0} were never read: the absence was too long"
        );
        lines.push((text, Tone::Warn));
    }
    if reached.more {
        lines.push((
            format!("{name}: there is more than was read so far"),
            Tone::Dim,
        ));
    }
    lines
}

/// Readings about the service or the hosts of an incident, from a while before it began until its end, the latest first.
pub fn about(
    incident: &Incident,
    topology: &Topology,
    mut readings: Vec<Reading>,
    now: Timestamp,
) -> Vec<Reading> {
    let from = incident
        .opened_at
        .saturating_sub(EVIDENCE_FOR)
        .unwrap_or(Timestamp::MIN);
    let to = incident.closed_at.unwrap_or(now);
    readings.retain(|one| {
        let own = incident.alerts.values().any(|alert| alert.name == one.name);
        let meant = own || Meant::by(topology, &one.labels).is_of(incident);
        meant && one.last >= from && one.first <= to
    });
    readings.sort_by_key(|one| std::cmp::Reverse(one.last));
    readings
}

/// One line each; what is too old to say something of now is dim.
pub fn readings_table(readings: &[Reading], now: Timestamp) -> Table {
    let mut table = Table::new(&["log line", "host", "count", "first", "last", "for example"]);
    for one in readings.iter().take(SHOWN) {
        let tone = match standing(one, now) {
            Standing::Evidence => Tone::Plain,
            Standing::Aged { .. } => Tone::Dim,
        };
        let label = |name: &str| one.labels.get(name).cloned().unwrap_or_default();
        let name = match label(ABOUT).as_str() {
            "" => one.name.clone(),
            about => format!("{} ({about})", one.name),
        };
        let sample: String = one
            .samples
            .last()
            .into_iter()
            .flat_map(|text| text.chars())
            .take(SAMPLE_CHARS)
            .collect();
        table.row([
            Cell::new(name, tone),
            label(HOST).into(),
            one.count.to_string().into(),
            ago(one.first, now).into(),
            ago(one.last, now).into(),
            Cell::new(sample, Tone::Dim),
        ]);
    }
    table
}
