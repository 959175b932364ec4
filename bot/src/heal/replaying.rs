//! What is said of a replay. Pure.

use jiff::Timestamp;
use runbooks::{
    decide::Decision,
    replay::{Difference, Replayed},
};

use super::wording::decision_words;
use crate::wording::{Cell, Message, Severity, Table, Tone, ago};

/// Incidents in the table; the rest is counted, and all are in the JSON answer.
const SHOWN: usize = 40;

/// Differences first; what is the same is only counted.
pub fn replay_message(replayed: &[Replayed], unread: usize, now: Timestamp) -> Message {
    let count = |of: Difference| replayed.iter().filter(|one| one.difference == of).count();
    let differ = replayed.len() - count(Difference::Same) - count(Difference::CannotTell);
    let (severity, title) = match (replayed.len(), differ) {
        (0, _) => (
            Severity::Info,
            "There is nothing on record to replay".to_owned(),
        ),
        (all, 0) => (
            Severity::Good,
            format!("Today's rules and gates decide {all} incidents as they were decided"),
        ),
        (all, differ) => (
            Severity::Attention,
            format!("Today's rules and gates decide {differ} of {all} incidents differently"),
        ),
    };
    let mut message = Message::new(severity, title);
    let parts = [
        (Difference::Fires, "would newly act"),
        (Difference::ActsAlone, "would act without asking"),
        (Difference::AsksFirst, "would ask before acting"),
        (Difference::Holds, "would newly wait"),
        (Difference::Stops, "would not be repaired any more"),
        (Difference::Same, "as it was"),
        (Difference::CannotTell, "cannot be told"),
    ];
    let counted: Vec<String> = parts
        .iter()
        .map(|(of, words)| (count(*of), words))
        .filter(|(count, _)| *count > 0)
        .map(|(count, words)| format!("{count} {words}"))
        .collect();
    if !counted.is_empty() {
        message = message.line(counted.join(", "));
    }
    let shown: Vec<&Replayed> = replayed
        .iter()
        .filter(|one| one.difference != Difference::Same || rules_differ(one))
        .collect();
    if !shown.is_empty() {
        message = message.table(table(&shown, now));
        if shown.len() > SHOWN {
            message = message.line(format!("and {} more", shown.len() - SHOWN));
        }
    }
    if unread > 0 {
        message = message.toned(
            format!("{unread} incidents are in the words of another version and were left out"),
            Tone::Warn,
        );
    }
    message.toned(
        "Nothing was changed or asked. Of each incident the last decision counts; readings and what the gates looked at are \
         those that were recorded with it, so what nobody asked then cannot be told now.",
        Tone::Dim,
    )
}

fn rules_differ(one: &Replayed) -> bool {
    !one.newly_matched.is_empty() || !one.no_longer_matched.is_empty()
}

fn table(shown: &[&Replayed], now: Timestamp) -> Table {
    let mut table = Table::new(&["incident", "about", "when", "then", "today", "difference"]);
    for one in shown.iter().take(SHOWN) {
        let then = one
            .then
            .as_ref()
            .map_or("nothing decided".to_owned(), words);
        let today = match &one.now {
            Ok(decision) => words(decision),
            Err(why) => why.clone(),
        };
        let (word, tone) = match one.difference {
            Difference::Fires => ("newly acts", Tone::Warn),
            Difference::ActsAlone => ("acts without asking", Tone::Warn),
            Difference::AsksFirst => ("asks first", Tone::Good),
            Difference::Holds => ("newly waits", Tone::Good),
            Difference::Stops => ("stops", Tone::Bad),
            Difference::Same => ("same", Tone::Plain),
            Difference::CannotTell => ("cannot tell", Tone::Dim),
        };
        table.row([
            one.incident.clone().into(),
            one.about.clone().into(),
            ago(one.at, now).into(),
            then.into(),
            today.into(),
            Cell::new(format!("{word}{}", rules(one)), tone),
        ]);
    }
    table
}

fn rules(one: &Replayed) -> String {
    let listed = |ids: &[runbooks::format::RunbookId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join(" ")
    };
    let mut words = String::new();
    if !one.newly_matched.is_empty() {
        words.push_str(&format!("; now also {}", listed(&one.newly_matched)));
    }
    if !one.no_longer_matched.is_empty() {
        words.push_str(&format!("; no longer {}", listed(&one.no_longer_matched)));
    }
    words
}

/// Short: a plan by its title.
fn words(decision: &Decision) -> String {
    match decision {
        Decision::Act { plan, .. } => format!("acts: {}", plan.title),
        Decision::Ask { plan, .. } => format!("asks: {}", plan.title),
        Decision::Shadow { plan, .. } => format!("only shows: {}", plan.title),
        other => decision_words(other),
    }
}

#[cfg(test)]
mod tests {
    use runbooks::format::RunbookId;

    use super::*;
    use crate::wording::render::plain;

    #[test]
    fn differences_are_shown_and_what_is_the_same_is_counted() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let hold = |why: &str| Decision::Hold {
            until: now,
            why: why.to_owned(),
        };
        let refuse = |why: &str| Decision::Refuse {
            why: why.to_owned(),
            evidence: Vec::new(),
        };
        let one = |incident: &str, difference, then, today: Result<Decision, String>| Replayed {
            incident: incident.to_owned(),
            about: "memcached".to_owned(),
            at: now - jiff::SignedDuration::from_hours(30),
            then,
            now: today,
            difference,
            newly_matched: Vec::new(),
            no_longer_matched: Vec::new(),
            gates: Vec::new(),
        };
        let mut stops = one(
            "i2",
            Difference::Stops,
            Some(hold("G8: a storm")),
            Ok(refuse(
                "G2: Prometheus and the bot's own answers both lean on HAProxy: that is one source",
            )),
        );
        stops.newly_matched.push(RunbookId("MEM-2".to_owned()));
        let replayed = [
            one("i1", Difference::Same, Some(hold("w")), Ok(hold("w"))),
            stops,
            one(
                "i3",
                Difference::CannotTell,
                None,
                Err("no decision is on record".to_owned()),
            ),
        ];
        insta::assert_snapshot!(plain(&replay_message(&replayed, 1, now)));
        let nothing = plain(&replay_message(&[], 0, now));
        assert!(nothing.contains("nothing on record"), "{nothing}");
    }
}
