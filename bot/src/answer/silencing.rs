//! Silences in Alertmanager: for people who know already, with an end and a reason. A silence is also a word to the bot: gate G4
//! keeps its hands off what is silenced.

use std::collections::BTreeMap;

use collectors::{Alert, SourceName, Status, alertmanager::Silence};
use jiff::{SignedDuration, Timestamp};
use runbooks::{format::Span, incident::Incident};
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    chat::Subject,
    wording::{Message, Severity, Table, Tone, ago},
};

/// Silences that one word may make: one for each name of the incident's alerts. More names at once have one cause, and a
/// person should choose what to be deaf to.
const SILENCES_MAX: usize = 20;
/// Silences that are listed; the next to end first.
const LISTED_MAX: usize = 50;

/// The alerts that one silence is about, and the labels that they have in common: among these always their name.
#[derive(Debug, PartialEq, Eq)]
struct About {
    source: SourceName,
    labels: BTreeMap<String, String>,
}

/// One for each source and name of the alerts that fire.
fn abouts(incident: &Incident) -> Vec<About> {
    let firing = incident.alerts.values();
    let firing = firing.filter(|alert| alert.status == Status::Firing);
    let mut groups: BTreeMap<(&str, &str), Vec<&Alert>> = BTreeMap::new();
    for alert in firing {
        let key = (alert.source.0.as_str(), alert.name.as_str());
        groups.entry(key).or_default().push(alert);
    }
    groups
        .into_values()
        .filter_map(|alerts| {
            let (first, others) = alerts.split_first()?;
            let mut labels = first.labels.clone();
            labels.retain(|name, value| {
                others
                    .iter()
                    .all(|alert| alert.labels.get(name) == Some(value))
            });
            let source = first.source.clone();
            Some(About { source, labels })
        })
        .collect()
}

impl Bot {
    pub(super) async fn silence(
        &self,
        asked: &Asked,
        id: &str,
        length: Span,
        why: &str,
    ) -> Result<Answer, Answer> {
        let incident = self
            .find_incident(id)
            .await?
            .filter(Incident::is_open)
            .ok_or_else(|| Answer::refused(format!("There is no open incident {id}")))?;
        let abouts = abouts(&incident);
        if abouts.is_empty() {
            let why = format!("No alert of incident {} fires", incident.id);
            return Err(Answer::refused(why));
        }
        if abouts.len() > SILENCES_MAX {
            return Err(Answer::refused(format!(
                "Incident {} has alerts of {} names, expected at most {SILENCES_MAX}: choose in Alertmanager what to be deaf to",
                incident.id,
                abouts.len()
            )));
        }
        let now = Timestamp::now();
        let until = now + SignedDuration::from_secs(i64::from(length.0.0));
        let comment = format!("{why} (incident {})", incident.id);
        let (mut made, mut failed) = (Vec::new(), Vec::new());
        for about in &abouts {
            match self.silence_one(asked, about, &comment, now, until).await {
                Ok(id) => made.push(id),
                Err(why) => failed.push(why),
            }
        }
        if made.is_empty() {
            return Err(Answer::failed(format!(
                "Nothing was silenced: {}",
                failed.join("; ")
            )));
        }
        let title = format!(
            "Incident {} ({}) is silenced for {}",
            incident.id, incident.domain, length.0
        );
        let told = Message::new(Severity::Attention, title)
            .line(format!("by {}: {why}", asked.who()))
            .line("The bot keeps its hands off what is silenced.");
        let told = failed.iter().fold(told, |told, why| {
            told.toned(format!("not silenced: {why}"), Tone::Bad)
        });
        self.office
            .say(&self.team_rooms(), &Subject::incident(&incident.id), &told)
            .await?;
        let hint = told.hint("silences lists them, unsilence ID ends one");
        let data =
            json!({ "incident": incident.id, "silences": made, "until": until, "failed": failed });
        Ok(Answer::new(hint).with(data))
    }

    async fn silence_one(
        &self,
        asked: &Asked,
        about: &About,
        comment: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<String, String> {
        let source = &about.source;
        let client = self
            .senses
            .alertmanager(source)
            .ok_or_else(|| format!("{source} has no `url`, so it cannot be asked"))?;
        client
            .silence(&about.labels, &asked.who(), comment, now, until)
            .await
            .map_err(|error| format!("{source}: {error}"))
    }

    pub(super) async fn silences(&self) -> Answer {
        let now = Timestamp::now();
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        for (source, client) in self.senses.alertmanagers() {
            match client.silences().await {
                Ok(silences) => all.extend(silences),
                Err(error) => failed.push(format!("{source}: {error}")),
            }
        }
        all.sort_by_key(|silence| silence.ends_at);
        let title = match all.len() {
            0 => "Nothing is silenced".to_owned(),
            1 => "1 silence".to_owned(),
            count => format!("{count} silences"),
        };
        let mut message = Message::new(Severity::Info, title);
        if !all.is_empty() {
            message = message.table(table(&all, now));
        }
        for why in &failed {
            message = message.toned(format!("unknown: {why}"), Tone::Bad);
        }
        let answer = Answer::new(message).with(json!({ "silences": all, "unknown": failed }));
        Answer {
            ok: failed.is_empty(),
            ..answer
        }
    }

    /// Whoever made it.
    pub(super) async fn unsilence(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let mut failed = Vec::new();
        for (source, client) in self.senses.alertmanagers() {
            let found = match client.silences().await {
                Ok(silences) => silences.into_iter().find(|silence| silence.id == id),
                Err(error) => {
                    failed.push(format!("{source}: {error}"));
                    continue;
                }
            };
            let Some(silence) = found else { continue };
            client
                .expire(&silence.id)
                .await
                .map_err(|error| Answer::failed(format!("It is not ended: {source}: {error}")))?;
            let message = Message::new(Severity::Good, "The silence is ended")
                .line(format!("{}: {}", silence.created_by, silence.comment));
            return Ok(Answer::new(message).with(json!({ "silence": id, "by": asked.who() })));
        }
        match failed.is_empty() {
            true => Err(Answer::refused(format!("There is no silence {id}"))),
            false => Err(Answer::failed(format!(
                "It is unknown where silence {id} is: {}",
                failed.join("; ")
            ))),
        }
    }
}

fn table(silences: &[Silence], now: Timestamp) -> Table {
    let mut table = Table::new(&["silence", "of", "by", "since", "left", "why"]);
    for silence in silences.iter().take(LISTED_MAX) {
        let matchers = silence.matchers.iter().map(|one| {
            let is = match (one.is_equal, one.is_regex) {
                (true, false) => "=",
                (true, true) => "=~",
                (false, false) => "!=",
                (false, true) => "!~",
            };
            format!("{}{is}{}", one.name, one.value)
        });
        table.row([
            silence.id.clone().into(),
            matchers.collect::<Vec<_>>().join(" ").into(),
            silence.created_by.clone().into(),
            ago(silence.starts_at, now).into(),
            crate::wording::duration(silence.ends_at.duration_since(now)).into(),
            silence.comment.clone().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(alerts: &[(&str, &str, &str)]) -> Incident {
        let mut incident: Incident = serde_json::from_value(json!({
            "id": "i1", "domain": {"domain": "service", "name": "memcached"}, "opened_at": Timestamp::UNIX_EPOCH, "closed_at": null,
            "state": {"state": "open"}, "since": Timestamp::UNIX_EPOCH, "alerts": {}, "subjects": [], "runbooks": [],
            "steady": {}, "unproven": [], "under": null, "tell_only": null,
        }))
        .unwrap();
        for (index, (name, host, status)) in alerts.iter().enumerate() {
            let alert: Alert = serde_json::from_value(json!({
                "source": "am", "fingerprint": index.to_string(), "name": name, "status": status,
                "labels": {"alertname": name, "host": host, "severity": "critical"}, "annotations": {},
                "starts_at": Timestamp::UNIX_EPOCH, "ends_at": null, "generator_url": "",
                "received_at": Timestamp::UNIX_EPOCH,
            }))
            .unwrap();
            incident.hear(&alert);
        }
        incident
    }

    #[test]
    fn one_silence_a_name_with_what_its_alerts_have_in_common() {
        let incident = incident(&[
            ("Down", "h1", "firing"),
            ("Down", "h2", "firing"),
            ("Slow", "h1", "firing"),
            ("Over", "h1", "resolved"),
        ]);
        let labels: Vec<_> = abouts(&incident)
            .into_iter()
            .map(|about| json!(about.labels))
            .collect();
        let both = json!({"alertname": "Down", "severity": "critical"});
        let one = json!({"alertname": "Slow", "host": "h1", "severity": "critical"});
        assert_eq!(labels, [both, one]);
    }
}
