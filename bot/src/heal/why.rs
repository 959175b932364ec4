//! What is behind a decision: opinions, every gate with what it looked at, readings in words. Pure.

use deploy_engine::probe::{self, Reading};
use jiff::Timestamp;
use runbooks::{
    gate::{Answer, Gate},
    healer::{DecisionRecord, StepJudgement},
    incident::Incident,
};

use super::wording::{decision_words, incident_message};
use crate::wording::{Cell, Message, Table, Tone, ago};

/// Everything behind a decision.
pub fn decision_message(
    incident: &Incident,
    record: Option<&DecisionRecord>,
    now: Timestamp,
) -> Message {
    let mut message = incident_message(incident, now);
    let Some(record) = record else {
        return message.line("Nothing was decided yet.");
    };
    message = message.line(format!(
        "decided {}: {}",
        ago(record.at, now),
        decision_words(&record.decision)
    ));
    for opinion in &record.opinions {
        message = message.line(format!("{}: {}", opinion.runbook, opinion.verdict.why()));
    }
    message = if record.gates.is_empty() {
        message.toned(
            "It did not come to the gates: no runbook wanted to act.",
            Tone::Dim,
        )
    } else {
        message.table(gates_table(&record.gates))
    };
    let readings = readings_table(record);
    if readings.rows.is_empty() {
        message
    } else {
        message.table(readings)
    }
}

/// Every gate: its verdict, the reason, and what it looked at.
pub fn gates_table(answers: &[Answer]) -> Table {
    let mut table = Table::new(&["gate", "about", "says", "why", "looked at"]);
    for answer in answers {
        let (word, tone) = match &answer.gate {
            Gate::Pass { .. } => ("pass".to_owned(), Tone::Good),
            Gate::Hold { until, .. } => (format!("wait until {until:.0}"), Tone::Warn),
            Gate::Refuse { .. } => ("no".to_owned(), Tone::Bad),
        };
        let mut seen = answer.seen.clone();
        if let Gate::Refuse { evidence, .. } = &answer.gate {
            seen.extend(evidence.iter().cloned());
        }
        table.row([
            answer.id.to_string().into(),
            answer.id.title().into(),
            Cell::new(word, tone),
            answer.gate.why().into(),
            Cell::new(seen.join("; "), Tone::Dim),
        ]);
    }
    table
}

/// What the gates last said to a repair, before which step.
pub fn judgement_table(message: Message, judgement: &StepJudgement, now: Timestamp) -> Message {
    message
        .line(format!(
            "the gates before \"{}\", {}:",
            judgement.step,
            ago(judgement.at, now)
        ))
        .table(gates_table(&judgement.gates))
}

fn readings_table(record: &DecisionRecord) -> Table {
    let mut table = Table::new(&["evidence", "host", "says"]);
    for (probe, hosts) in &record.readings.by_probe {
        for (host, reading) in hosts {
            let (text, tone) = match reading {
                Reading::Known { value, .. } => (
                    probe::words(probe, value).unwrap_or_else(|| value.to_string()),
                    Tone::Plain,
                ),
                Reading::Unknown { why, .. } => (format!("unknown: {why}"), Tone::Warn),
            };
            table.row([
                probe.clone().into(),
                host.to_string().into(),
                Cell::new(shortened(&text), tone),
            ]);
        }
    }
    table
}

/// Characters of one reading in a chat; the whole is in the JSON answer.
const READING_SHOWN: usize = 160;

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(READING_SHOWN).collect();
    if short.len() < text.len() {
        format!("{short}…")
    } else {
        short
    }
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
