//! Who takes care of an incident, in the chat and in the monitoring systems: an `ack` in the chat is an acknowledgement in Icinga and
//! a silence in Alertmanager, which is extended while its alert fires and ends with it; what is said there is shown here.
//!
//! Either is a word to the bot as well (gate G4): it keeps its hands off what a person has taken.

mod decision;
mod lines;
mod places;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use collectors::{Alert, Status, source::Handling};
use jiff::Timestamp;
use runbooks::incident::{Incident, IncidentId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    bot::Bot,
    chat::Subject,
    heal,
    sources::handled_space,
    store::{Detail, StoreError},
};
use decision::{Next, Record, next};
use lines::Told;
use places::Place;

/// How often it is looked at when nothing wakes us: a word in the chat is in the monitoring within this, and the other way round.
const LOOK: Duration = Duration::from_secs(15);
/// Between two looks, however often we are woken: each reads all that is taken, and people wait for the same processor.
const PAUSE: Duration = Duration::from_secs(1);
/// Words written to the monitoring in one round; the rest follows in the next.
const WRITES_MAX: usize = 100;
/// The space of the store with what the bot wrote or found about each alert: `INCIDENT/SOURCE/FINGERPRINT` → [`Record`].
const RECORDS: &str = "care";
/// The space of the store with the lines about it in each incident's message.
const LINES: &str = "care-lines";

/// Lines for the message of an incident: who takes care of it elsewhere.
pub async fn lines_of(
    store: &crate::store::Store,
    incident: &str,
) -> Result<Vec<String>, StoreError> {
    let text = store.get(LINES, incident).await?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

/// Somebody took an incident anew: what was removed in a monitoring system is said there again.
pub async fn say_again(store: &crate::store::Store, incident: &str) -> Result<(), StoreError> {
    let of_incident = format!("{incident}/");
    for (key, text) in store.list(RECORDS).await? {
        let removed = matches!(serde_json::from_str(&text), Ok(Record::Removed { .. }));
        if removed && key.starts_with(&of_incident) {
            store.delete(RECORDS, &key).await?;
        }
    }
    Ok(())
}

/// Keeps both in step until told to stop. `woken`: something was said in a monitoring system, or here.
pub async fn tend(bot: Arc<Bot>, woken: Arc<Notify>, stop: CancellationToken) {
    loop {
        match stop.run_until_cancelled(round(&bot)).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "acknowledgements cannot be looked at"),
        }
        let paused = tokio::time::sleep(PAUSE);
        if stop.run_until_cancelled(paused).await.is_none() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = woken.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// One look at all incidents that somebody takes care of, or did.
async fn round(bot: &Bot) -> Result<(), StoreError> {
    // Lists show some alerts of each; whoever takes an incident takes all of them.
    let rows = bot.store.open_incidents(Detail::Brief).await?;
    let open: BTreeMap<String, Incident> = rows
        .iter()
        .filter_map(|row| heal::listed(row).ok())
        .map(|listed| (listed.incident.id.0.clone(), listed.incident))
        .collect();
    let holders: BTreeMap<String, String> = bot.store.list(heal::ACKS).await?.into_iter().collect();
    let records = records(bot).await?;
    let mut tended = Tended {
        bot,
        places: BTreeMap::new(),
        left: WRITES_MAX,
    };
    let mut ids: std::collections::BTreeSet<&String> = records.keys().collect();
    ids.extend(holders.keys().filter(|id| open.contains_key(*id)));
    let mut troubles: BTreeMap<&String, Vec<(String, String)>> = BTreeMap::new();
    for id in ids {
        let none = BTreeMap::new();
        let known = records.get(id).unwrap_or(&none);
        let incident = heal::incident_of(&bot.store, &IncidentId(id.clone())).await?;
        let Some(incident) = incident else { continue };
        let by = holders.get(id).filter(|_| incident.is_open());
        let why = tended
            .incident(&incident, by.map(String::as_str), known)
            .await?;
        troubles.insert(id, why);
    }
    tell(bot, &open, &holders, &troubles).await
}

/// `INCIDENT` → (`SOURCE/FINGERPRINT` → record).
type Records = BTreeMap<String, BTreeMap<String, Record>>;

async fn records(bot: &Bot) -> Result<Records, StoreError> {
    let mut records = Records::new();
    for (key, text) in bot.store.list(RECORDS).await? {
        let (Some((incident, alert)), Ok(record)) =
            (key.split_once('/'), serde_json::from_str(&text))
        else {
            continue;
        };
        let of_incident = records.entry(incident.to_owned()).or_default();
        of_incident.insert(alert.to_owned(), record);
    }
    Ok(records)
}

/// What one round has to do with.
struct Tended<'b> {
    bot: &'b Bot,
    /// Each is asked once a round.
    places: BTreeMap<String, Option<Result<Place<'b>, String>>>,
    left: usize,
}

impl<'b> Tended<'b> {
    /// What could not be done: the source, and why.
    async fn incident(
        &mut self,
        incident: &Incident,
        holder: Option<&str>,
        known: &BTreeMap<String, Record>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut troubles = Vec::new();
        for (key, alert) in &incident.alerts {
            let record = known.get(key);
            let fires = alert.status == Status::Firing;
            let want = holder.filter(|_| fires);
            if want.is_none() && record.is_none() {
                continue;
            }
            if let Err(why) = self.alert(incident, key, alert, want, record).await? {
                troubles.push((alert.source.0.clone(), why));
            }
        }
        // What the incident has forgotten by now.
        for key in known
            .keys()
            .filter(|key| !incident.alerts.contains_key(*key))
        {
            self.forget(incident, key).await?;
        }
        Ok(troubles)
    }

    async fn alert(
        &mut self,
        incident: &Incident,
        key: &str,
        alert: &Alert,
        want: Option<&str>,
        record: Option<&Record>,
    ) -> Result<Result<(), String>, StoreError> {
        let (bot, now, id) = (self.bot, Timestamp::now(), &incident.id.0);
        let place = match self.place(&alert.source.0).await {
            None => return Ok(Ok(())),
            Some(Err(why)) => return Ok(Err(why.clone())),
            Some(Ok(place)) => place,
        };
        let there = place.says(alert, id, now);
        let next = next(want, record, &there, now);
        let is_word = matches!(
            next,
            Next::Write { .. } | Next::Extend { .. } | Next::Withdraw { .. }
        );
        if is_word && self.left == 0 {
            return Ok(Err("many words are to be written; it follows".to_owned()));
        }
        let place = match self.place(&alert.source.0).await {
            Some(Ok(place)) => place,
            _ => return Ok(Ok(())),
        };
        let done = match &next {
            Next::Nothing => Ok(()),
            Next::Write { by } => match place.write(alert, id, by, now).await {
                Ok(()) => {
                    remember(bot, id, key, &Record::Written { by: by.clone() }).await?;
                    Ok(())
                }
                Err(why) => Err(why),
            },
            Next::Extend { id } => place.extend(id, now).await,
            Next::Withdraw { id: word } => {
                let by = match record {
                    Some(Record::Written { by }) => by.as_str(),
                    _ => "nightshift",
                };
                place.withdraw(alert, id, word, by, now).await
            }
            Next::Remember(record) => {
                remember(bot, id, key, record).await?;
                Ok(())
            }
            Next::Forget => {
                self.forget(incident, key).await?;
                Ok(())
            }
        };
        self.left -= usize::from(is_word);
        Ok(done)
    }

    async fn forget(&self, incident: &Incident, key: &str) -> Result<(), StoreError> {
        let key = format!("{}/{key}", incident.id);
        self.bot.store.delete(RECORDS, &key).await
    }

    /// Asked when it is first needed; none: nothing can be written to such a source.
    async fn place(&mut self, source: &str) -> Option<&Result<Place<'b>, String>> {
        if !self.places.contains_key(source) {
            let asked = self.ask(source).await;
            self.places.insert(source.to_owned(), asked);
        }
        self.places.get(source)?.as_ref()
    }

    async fn ask(&self, source: &str) -> Option<Result<Place<'b>, String>> {
        let name = collectors::SourceName(source.to_owned());
        let senses = &self.bot.senses;
        if let Some(client) = senses.icinga2(&name) {
            let held = client.held().await;
            let place = held.map(|held| Place::Icinga2 { client, held });
            return Some(place.map_err(|error| error.to_string()));
        }
        let client = senses.alertmanager(&name)?;
        let silences = client.silences().await;
        let place = silences.map(|silences| Place::Alertmanager {
            client,
            silences: silences.into(),
        });
        Some(place.map_err(|error| error.to_string()))
    }
}

async fn remember(bot: &Bot, incident: &str, key: &str, record: &Record) -> Result<(), StoreError> {
    let text = serde_json::to_string(record).unwrap_or_default();
    bot.store
        .put(RECORDS, &format!("{incident}/{key}"), &text)
        .await
}

/// Says what has changed since it was said last.
async fn tell(
    bot: &Bot,
    open: &BTreeMap<String, Incident>,
    holders: &BTreeMap<String, String>,
    troubles: &BTreeMap<&String, Vec<(String, String)>>,
) -> Result<(), StoreError> {
    let records = records(bot).await?;
    let handled = handled(bot, open).await?;
    for (id, incident) in open {
        let told = Told {
            holder: holders.get(id).map(String::as_str),
            records: records.get(id),
            handled: &handled,
            troubles: troubles.get(id).map_or(&[][..], Vec::as_slice),
        };
        let now = told.lines(incident);
        if now == lines_of(&bot.store, id).await? {
            continue;
        }
        let text = serde_json::to_string(&now).unwrap_or_default();
        bot.store.put(LINES, id, &text).await?;
        let mut message = heal::incident_message(incident, Timestamp::now());
        if let Some(by) = told.holder {
            message = message.line(format!("taken by {by}"));
        }
        let message = now
            .into_iter()
            .fold(message, |message, line| message.line(line));
        let subject = Subject::incident(&incident.id);
        bot.office
            .say(&bot.team_rooms(), &subject, &message)
            .await?;
    }
    Ok(())
}

/// `SOURCE/FINGERPRINT` → who handles it there.
async fn handled(
    bot: &Bot,
    open: &BTreeMap<String, Incident>,
) -> Result<BTreeMap<String, Handling>, StoreError> {
    let alerts = open.values().flat_map(|incident| incident.alerts.values());
    let sources: std::collections::BTreeSet<&str> =
        alerts.map(|one| one.source.0.as_str()).collect();
    let mut all = BTreeMap::new();
    for source in sources {
        for (fingerprint, text) in bot.store.list(&handled_space(source)).await? {
            if let Ok(handling) = serde_json::from_str(&text) {
                all.insert(format!("{source}/{fingerprint}"), handling);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
