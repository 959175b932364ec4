//! What Alertmanager itself lists, beside what its webhooks brought: nothing is lost while the bot is down or a webhook fails,
//! and a silence made there is known here.
//!
//! What it does not list has ended only if the list can be complete. It is not
//! - after a start: the list fills when Prometheus sends again, each firing alert at least every `resend-delay` and evaluation
//!   interval (a minute each by default): [`GRACE`] is some of them;
//! - while Prometheus does not send: then alerts expire that still fire. The Watchdog in the list says that it does.
//! - if one of several members does not answer: they do not tell each other of alerts.
//!
//! The Watchdog itself is left out: it has to come by webhook, for it proves that way.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    client::{AmStatus, Silence, SilenceState, read_silences, read_status},
    webhook::{WebhookError, parse_alert},
};
use crate::{
    Alert, Answer, SourceError, SourceName, Status,
    api::{Api, Connection},
    source::{Care, Covers, Ear, Handling, Pace, Source, State, Told, rounds},
    watchdog,
};

/// How long after its start an Alertmanager may not know everything: four resends and evaluations with the usual minute.
pub const GRACE: SignedDuration = SignedDuration::from_mins(5);
/// From so much on its clock is wrong, or the bot's: more than any answer takes.
pub const CLOCK_OFF: SignedDuration = SignedDuration::from_secs(60);

/// One Alertmanager, or the members of one cluster: their alerts are the same ones.
pub struct Reconcile {
    name: SourceName,
    members: Vec<(String, Api)>,
    pace: Pace,
}

/// What one member says.
#[derive(Clone, Debug, PartialEq)]
struct View {
    member: String,
    listed: Vec<(Alert, Vec<String>)>,
    silences: BTreeMap<String, Silence>,
    /// Why the list may not be complete.
    gaps: Option<String>,
    clock_ahead: SignedDuration,
}

impl Reconcile {
    /// `name`: of the source whose webhooks these members send.
    ///
    /// # Errors
    /// [`SourceError::Address`].
    pub fn new(name: SourceName, members: &[Connection], pace: Pace) -> Result<Self, SourceError> {
        let member = |at: &Connection| Ok((at.url.clone(), Api::new(at)?));
        Ok(Self {
            name,
            members: members.iter().map(member).collect::<Result<_, _>>()?,
            pace,
        })
    }

    /// One look at all members.
    async fn round(&self, ear: &dyn Ear) -> Result<(), String> {
        let asked_at = Timestamp::now();
        let mut views = Vec::new();
        for (member, api) in &self.members {
            views.push(view(&self.name, member, api, asked_at).await);
        }
        let (state, problems) = together(views, asked_at);
        if let Some(state) = state {
            let told = ear.tell(Told::State(state), None).await;
            told.map_err(|why| why.to_string())?;
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems.join("; ")),
        }
    }
}

#[async_trait]
impl Source for Reconcile {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn follow(&self, ear: Arc<dyn Ear>, stop: CancellationToken) {
        rounds(&*ear, &self.pace, &stop, || self.round(&*ear)).await;
    }
}

async fn view(
    name: &SourceName,
    member: &str,
    api: &Api,
    asked_at: Timestamp,
) -> Result<View, SourceError> {
    let status = api.get("api/v2/status").await?;
    let now = Timestamp::now();
    let its_now = status.date.unwrap_or(now);
    let status = read_status(&status.answer)?;
    let listed = read_alerts(&api.get("api/v2/alerts").await?.answer, name, asked_at)?;
    let silences = read_silences(&api.get("api/v2/silences").await?.answer)?;
    let silences = silences.into_iter().map(|one| (one.id.clone(), one));
    Ok(View {
        member: member.to_owned(),
        gaps: gaps(&status, &listed, its_now),
        listed,
        silences: silences.collect(),
        clock_ahead: its_now.duration_since(now),
    })
}

/// Alerts that fire, each with the silences that it is under, of an answer to `api/v2/alerts`. Pure.
fn read_alerts(
    answer: &Answer,
    source: &SourceName,
    asked_at: Timestamp,
) -> Result<Vec<(Alert, Vec<String>)>, SourceError> {
    let list: Vec<Value> = answer.json()?;
    let one = |(index, value): (usize, &Value)| {
        let path = format!("[{index}]");
        let alert = parse_alert(source, &path, value, Status::Firing, asked_at);
        let silenced = value
            .pointer("/status/silencedBy")
            .and_then(Value::as_array);
        let silenced = silenced.into_iter().flatten().filter_map(Value::as_str);
        let silenced = silenced.map(str::to_owned).collect();
        Ok((alert.map_err(|error| shape(answer, error))?, silenced))
    };
    list.iter().enumerate().map(one).collect()
}

fn shape(answer: &Answer, error: WebhookError) -> SourceError {
    let (expected, found) = match error {
        WebhookError::Field {
            field,
            expected,
            found,
        } => (format!("{expected} at `{field}`"), found),
        other => ("a list of alerts".to_owned(), other.to_string()),
    };
    SourceError::Shape {
        asked: answer.asked.clone(),
        expected,
        found,
    }
}

/// Why what is not listed may fire all the same.
fn gaps(status: &AmStatus, listed: &[(Alert, Vec<String>)], its_now: Timestamp) -> Option<String> {
    let up = its_now.duration_since(status.started_at);
    if up < GRACE {
        return Some(format!("it started {} s ago", up.as_secs()));
    }
    let hears = listed
        .iter()
        .any(|(alert, _)| alert.name == watchdog::ALERT_NAME);
    (!hears).then(|| "it does not list the Watchdog, so Prometheus may not reach it".to_owned())
}

/// What all members say together, and what is wrong with them.
fn together(
    views: Vec<Result<View, SourceError>>,
    asked_at: Timestamp,
) -> (Option<State>, Vec<String>) {
    let (mut complete, mut problems) = (true, Vec::new());
    let mut firing: BTreeMap<String, Alert> = BTreeMap::new();
    let mut handled: BTreeMap<String, Handling> = BTreeMap::new();
    let mut answers = 0;
    for view in views {
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                problems.push(error.to_string());
                complete = false;
                continue;
            }
        };
        answers += 1;
        if let Some(why) = &view.gaps {
            tracing::debug!(member = view.member, why, "nothing ends by this list");
            complete = false;
        }
        if view.clock_ahead.abs() > CLOCK_OFF {
            problems.push(format!(
                "{}: expected its clock to be right, found it {} s ahead of the bot's",
                view.member,
                view.clock_ahead.as_secs()
            ));
        }
        let listed = view.listed.into_iter();
        for (alert, silenced) in listed.filter(|(alert, _)| alert.name != watchdog::ALERT_NAME) {
            let care = handled.entry(alert.fingerprint.clone()).or_default();
            let silences = silenced.iter().filter_map(|id| view.silences.get(id));
            care.silences.extend(silences.map(care_of));
            care.silences.sort();
            care.silences.dedup();
            let kept = firing
                .entry(alert.fingerprint.clone())
                .or_insert(alert.clone());
            kept.starts_at = kept.starts_at.min(alert.starts_at);
        }
    }
    handled.retain(|_, handling| !handling.is_nobody());
    let state = State {
        asked_at,
        covers: match complete {
            true => Covers::Everything,
            false => Covers::WhatItNames,
        },
        firing: firing.into_values().collect(),
        ended: BTreeMap::new(),
        handled,
    };
    ((answers > 0).then_some(state), problems)
}

fn care_of(silence: &Silence) -> Care {
    debug_assert_ne!(silence.status, SilenceState::Expired);
    Care {
        id: silence.id.clone(),
        by: silence.created_by.clone(),
        comment: silence.comment.clone(),
        since: Some(silence.starts_at),
        until: Some(silence.ends_at),
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
