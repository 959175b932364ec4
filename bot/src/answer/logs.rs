//! `logs`: what programs and hosts wrote, from the stores of logs.

use std::collections::BTreeSet;

use collectors::{elasticsearch::About, logs::Line};
use deploy_engine::model::HostName;
use jiff::{SignedDuration, Timestamp};
use runbooks::format::Span;
use serde_json::json;

use super::Answer;
use crate::{
    bot::Bot,
    logs::Given,
    wording::{Message, Severity, Table, Tone, duration},
};

/// How far back, unless somebody says otherwise: a person looks at what happens now.
const BACK: SignedDuration = SignedDuration::from_mins(15);
/// Lines of one answer: more than a screen is not read in a chat.
const LINES_SHOWN: usize = 40;
/// Shown of one line, in bytes; the answer for programs has more.
const LINE_SHOWN_BYTES: usize = 300;
/// Of one line in the answer for programs, in bytes.
const LINE_DATA_BYTES: usize = 4_096;
/// Shown of all lines, in bytes: what fits in one message of a chat with room for the rest.
const SHOWN_BYTES: usize = 8 * 1024;

impl Bot {
    pub(super) async fn logs(
        &self,
        about: &str,
        since: Option<Span>,
        query: Option<String>,
    ) -> Answer {
        if self.logs.is_empty() {
            return Answer::refused(
                "No store of logs is configured: name one under `sources: elasticsearch`",
            );
        }
        let now = Timestamp::now();
        let back = since.map_or(BACK, |since| {
            SignedDuration::from_secs(i64::from(since.0.0))
        });
        let from = now.saturating_sub(back).unwrap_or(Timestamp::MIN);
        let asked = About {
            words: query.clone(),
            ..self.log_subject(about)
        };
        let given = self.logs.lines(&asked, (from, now), LINES_SHOWN).await;
        let data = data(&given);
        if given.lines.is_empty() && given.silent.len() == self.logs.sources().len() {
            return Answer::failed(given.silent.join("; "));
        }
        let what = match &query {
            Some(query) => format!("{about} with {query:?}"),
            None => about.to_owned(),
        };
        Answer::new(lines_message(&what, &duration(back), &given)).with(data)
    }

    /// The programs of a service, or a host by the names it may have in lines.
    fn log_subject(&self, about: &str) -> About {
        let host = about.parse::<HostName>().ok();
        let host = host.and_then(|host| self.model.site.hosts.get_key_value(&host));
        if let Some((name, spec)) = host {
            return About {
                hosts: [name.to_string(), spec.address.clone()].into(),
                ..About::default()
            };
        }
        let own = self
            .logs
            .signatures
            .iter()
            .filter(|one| one.service == about);
        let mut programs: BTreeSet<String> = own.flat_map(|one| one.programs.clone()).collect();
        programs.insert(about.to_owned());
        About {
            programs,
            ..About::default()
        }
    }
}

fn data(given: &Given) -> serde_json::Value {
    let line = |line: &Line| {
        json!({
            "at": line.at, "host": line.host, "program": line.program, "level": line.level,
            "text": line.shown(LINE_DATA_BYTES),
        })
    };
    let lines: Vec<_> = given.lines.iter().map(line).collect();
    json!({ "lines": lines, "more": given.more, "silent": given.silent })
}

/// Pure.
fn lines_message(about: &str, back: &str, given: &Given) -> Message {
    let (table, shown) = lines_table(&given.lines);
    let noun = if shown == 1 { "line" } else { "lines" };
    let title = match (given.lines.len(), given.more || shown < given.lines.len()) {
        (0, _) => format!("No line of {about} in the last {back}: that proves nothing"),
        (_, false) => format!("{shown} {noun} of {about} in the last {back}"),
        (_, true) => {
            format!("The last {shown} {noun} of {about}; there are more in the last {back}")
        }
    };
    let mut message = Message::new(Severity::Info, title);
    if shown > 0 {
        message = message.table(table);
    }
    for why in &given.silent {
        message = message.toned(why.clone(), Tone::Warn);
    }
    message
}

/// The latest lines that fit, oldest first, and how many they are.
fn lines_table(lines: &[Line]) -> (Table, usize) {
    let mut left = SHOWN_BYTES;
    let mut rows = Vec::new();
    for line in lines.iter().rev() {
        let text = line.shown(LINE_SHOWN_BYTES);
        let length = text.len() + line.host.len() + line.program.len() + 40;
        let Some(rest) = left.checked_sub(length) else {
            break;
        };
        left = rest;
        rows.push([
            format!("{:.3}", line.at),
            line.host.clone(),
            line.program.clone(),
            line.level.clone(),
            text,
        ]);
    }
    let mut table = Table::new(&["when", "host", "program", "level", "says"]);
    let shown = rows.len();
    for row in rows.into_iter().rev() {
        table.row(row.map(Into::into));
    }
    (table, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, text: String) -> Line {
        let at = Timestamp::from_second(1_800_000_000 + second).unwrap();
        Line {
            order: at,
            at,
            ingested: None,
            host: "ctl1".into(),
            program: "mariadb".into(),
            level: String::new(),
            text,
        }
    }

    #[test]
    fn what_is_shown_is_bounded_and_harmless() {
        let given = Given {
            lines: (0..40)
                .map(|n| line(n, "\u{1b}[2J".repeat(1_000)))
                .collect(),
            more: false,
            silent: vec![],
        };
        let message = lines_message("mariadb", "15 min", &given);
        let text = crate::wording::render::plain(&message);
        assert!(message.title.starts_with("The last "), "{}", message.title);
        assert!(!text.contains('\u{1b}'));
        assert!(text.len() < 4 * SHOWN_BYTES, "{}", text.len());
        let (table, shown) = lines_table(&given.lines);
        assert_eq!(table.rows.len(), shown);
        assert!((10..40).contains(&shown), "{shown}");
    }

    #[test]
    fn silence_and_stores_that_are_away_are_told_apart() {
        let none = lines_message("ctl1", "15 min", &Given::default());
        assert!(none.title.contains("proves nothing"), "{}", none.title);
        let given = Given {
            lines: vec![line(0, "well".into())],
            more: true,
            silent: vec!["logs did not answer: x".into()],
        };
        let message = lines_message("ctl1", "15 min", &given);
        assert_eq!(
            message.title,
            "The last 1 line of ctl1; there are more in the last 15 min"
        );
        let text = crate::wording::render::plain(&message);
        assert!(text.contains("logs did not answer"), "{text}");
    }
}
