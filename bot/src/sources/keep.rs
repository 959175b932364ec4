//! What a source told, put into the store; what it changes is decided without I/O.

use std::collections::BTreeMap;

use collectors::{
    Alert, Change, SourceName, fold,
    settle::settle,
    source::{Covers, Handling, NotKept, Progress, State, Told},
};
use jiff::Timestamp;

use crate::{
    logs,
    store::{AlertKey, AlertRow, Heard, KnownOfSource, Matters, Moves, Store},
    web::{Batch, alert_row},
};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// For the healer; in a store that bots share it is left there for it.
    pub batch: Batch,
    /// Somebody took care of an alert in the monitoring system itself, or no longer does.
    pub handling: bool,
}

/// The space of the store with who handles which alert, by what a source told: fingerprint → [`Handling`].
pub fn handled_space(source: &str) -> String {
    format!("handled/{source}")
}

/// The space of the store with what a source read that is no alert: key → [`collectors::source::Reading`].
pub fn readings_space(source: &str) -> String {
    format!("{}/{source}", logs::READINGS)
}

/// Durable when it returns.
///
/// # Errors
/// Nothing of it was kept.
pub async fn keep(
    store: &Store,
    source: &SourceName,
    told: Told,
    progress: Option<Progress>,
    now: Timestamp,
) -> Result<Kept, NotKept> {
    let matters = matters(&told);
    let space = match &told {
        Told::Readings(_) => readings_space(&source.0),
        Told::Alerts(_) | Told::State(_) => handled_space(&source.0),
    };
    let moves = progress.map(|progress| Moves {
        from: progress.from,
        to: progress.to,
    });
    let shared = store.is_shared();
    let hear = |known: KnownOfSource| {
        let Changed { mut kept, values } = changed(known, told, now);
        let replaced = kept.batch.iter().filter(|(_, change)| change.replaces());
        let rows: BTreeMap<AlertKey, AlertRow> = replaced
            .map(|(alert, _)| {
                let key = AlertKey::of(alert);
                let row = alert_row(&key, alert, now);
                (key, row)
            })
            .collect();
        let mut parcel = None;
        if shared && !kept.batch.is_empty() {
            let batch = std::mem::take(&mut kept.batch);
            parcel = Some((now, serde_json::to_value(batch).unwrap_or_default()));
        }
        Heard {
            changed: rows.into_values().collect(),
            values,
            parcel,
            answer: kept,
        }
    };
    let heard = store.hear(&source.0, &matters, &space, moves.as_ref(), hear);
    match heard.await {
        Ok(Some(kept)) => Ok(kept),
        Ok(None) => Err(NotKept::Moved),
        Err(error) => Err(NotKept::Store(error.to_string())),
    }
}

/// The known alerts that can be changed by this.
fn matters(told: &Told) -> Matters {
    match told {
        Told::Alerts(alerts) => Matters::These(named(alerts)),
        Told::Readings(_) => Matters::TheseAndWhatFires(Vec::new()),
        Told::State(state) => {
            let mut named = named(&state.firing);
            match &state.covers {
                Covers::Everything | Covers::EverythingBut(_) => Matters::TheseAndWhatFires(named),
                Covers::WhatItNames => Matters::These(named),
                Covers::These(these) => {
                    named.extend(these.iter().cloned());
                    named.sort();
                    named.dedup();
                    Matters::These(named)
                }
            }
        }
    }
}

fn named(alerts: &[Alert]) -> Vec<String> {
    alerts.iter().map(|one| one.fingerprint.clone()).collect()
}

struct Changed {
    kept: Kept,
    /// Of the space.
    values: BTreeMap<String, Option<String>>,
}

fn changed(known: KnownOfSource, told: Told, now: Timestamp) -> Changed {
    let alerts = known.alerts.into_iter().filter_map(|row| {
        let alert: Alert = serde_json::from_str(&row.body).ok()?;
        Some((row.key.fingerprint, alert))
    });
    let mut alerts: BTreeMap<String, Alert> = alerts.collect();
    match told {
        Told::Alerts(told) => {
            let mut batch = Batch::new();
            for alert in told {
                let change = fold(alerts.get(&alert.fingerprint), &alert);
                if change.replaces() {
                    alerts.insert(alert.fingerprint.clone(), alert.clone());
                }
                batch.push((alert, change));
            }
            Changed {
                kept: Kept {
                    batch,
                    handling: false,
                },
                values: BTreeMap::new(),
            }
        }
        Told::State(state) => {
            let batch: Vec<(Alert, Change)> = settle(&alerts, &state);
            let values = handling(&known.values, &state);
            let handling = !values.is_empty();
            Changed {
                kept: Kept { batch, handling },
                values,
            }
        }
        Told::Readings(readings) => {
            let heard = logs::hear(&known.values, &alerts, readings, now);
            Changed {
                kept: Kept {
                    batch: heard.alerts,
                    ..Kept::default()
                },
                values: heard.values,
            }
        }
    }
}

/// Who handles what is different now.
fn handling(known: &BTreeMap<String, String>, state: &State) -> BTreeMap<String, Option<String>> {
    let mut values = BTreeMap::new();
    let judged = known.keys().filter(|one| state.judges_handling_of(one));
    let all: std::collections::BTreeSet<&String> = judged.chain(state.handled.keys()).collect();
    for fingerprint in all {
        let before = known.get(fingerprint);
        let before = before.and_then(|text| serde_json::from_str(text).ok());
        let before: Handling = before.unwrap_or_default();
        let after = state.handled.get(fingerprint).cloned().unwrap_or_default();
        if before == after {
            continue;
        }
        let text = (!after.is_nobody()).then(|| serde_json::to_string(&after).unwrap_or_default());
        values.insert(fingerprint.clone(), text);
    }
    values
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
