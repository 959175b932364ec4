//! The two places where an acknowledgement of the chat is said as well: an acknowledgement in Icinga, a silence in Alertmanager.

use std::collections::BTreeMap;

use collectors::{
    Alert, SourceError,
    alertmanager::{AlertmanagerClient, SilenceIndex},
    icinga2::{
        Held, HeldBy, Icinga2Client, Named,
        actions::{Done, Order, Signed},
    },
};
use jiff::Timestamp;

use super::decision::{SILENCE, There};

/// One place, as it was when it was asked.
pub enum Place<'c> {
    Icinga2 {
        client: &'c Icinga2Client,
        held: Vec<Held>,
    },
    Alertmanager {
        client: &'c AlertmanagerClient,
        silences: SilenceIndex,
    },
}

/// What marks a word there as the bot's, for an incident.
pub(super) fn comment(incident: &str) -> String {
    format!("taken in the chat of the bot (incident {incident})")
}

/// The object of an alert of Icinga.
fn named(alert: &Alert) -> Option<Named> {
    Some(Named {
        host: alert.labels.get("host")?.clone(),
        service: alert.labels.get("icinga_service").cloned(),
    })
}

impl Place<'_> {
    /// What is said there of an alert.
    pub fn says(&self, alert: &Alert, incident: &str, now: Timestamp) -> There {
        let marked = comment(incident);
        // Ours first: what else is said there is of others.
        let mut said: Vec<There> = match self {
            Self::Icinga2 { held, .. } => {
                let what = named(alert);
                let of_it = held.iter().filter(|one| {
                    one.by == HeldBy::Acknowledgement && Some(&one.what) == what.as_ref()
                });
                let of_it = of_it.map(|one| &one.care);
                of_it
                    .map(|care| said(&care.id, &care.by, &care.comment, care.until, &marked))
                    .collect()
            }
            Self::Alertmanager { silences, .. } => {
                let of_it = silences.covering(&alert.labels, now).into_iter();
                of_it
                    .map(|one| {
                        let until = Some(one.ends_at);
                        said(&one.id, &one.created_by, &one.comment, until, &marked)
                    })
                    .collect()
            }
        };
        said.sort_by_key(|one| !matches!(one, There::Ours { .. }));
        said.into_iter().next().unwrap_or(There::Nobody)
    }

    /// # Errors
    /// It is unknown whether it was written, or it was refused.
    pub async fn write(
        &self,
        alert: &Alert,
        incident: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        match self {
            Self::Icinga2 { client, .. } => {
                let order = Order::Acknowledge { until: None };
                ordered(client, alert, &order, by, incident, now).await
            }
            Self::Alertmanager { client, .. } => {
                let labels: &BTreeMap<String, String> = &alert.labels;
                let (comment, until) = (comment(incident), now + SILENCE);
                let made = client.silence(labels, by, &comment, now, until).await;
                made.map(drop).map_err(words)
            }
        }
    }

    /// # Errors
    /// As [`Place::write`].
    pub async fn extend(&self, id: &str, now: Timestamp) -> Result<(), String> {
        let Self::Alertmanager { client, silences } = self else {
            return Ok(());
        };
        match silences.of_id(id) {
            Some(silence) => {
                let extended = client.extend(silence, now + SILENCE).await;
                extended.map(drop).map_err(words)
            }
            None => Ok(()),
        }
    }

    /// # Errors
    /// As [`Place::write`].
    pub async fn withdraw(
        &self,
        alert: &Alert,
        incident: &str,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        match self {
            Self::Icinga2 { client, .. } => {
                let order = Order::RemoveAcknowledgement;
                ordered(client, alert, &order, by, incident, now).await
            }
            Self::Alertmanager { client, .. } => client.expire(id).await.map_err(words),
        }
    }
}

fn said(id: &str, by: &str, comment: &str, until: Option<Timestamp>, marked: &str) -> There {
    match comment == marked {
        true => There::Ours {
            by: by.to_owned(),
            id: id.to_owned(),
            until,
        },
        false => There::Others {
            by: by.to_owned(),
            comment: comment.to_owned(),
        },
    }
}

async fn ordered(
    client: &Icinga2Client,
    alert: &Alert,
    order: &Order,
    by: &str,
    incident: &str,
    now: Timestamp,
) -> Result<(), String> {
    let what = named(alert).ok_or("the alert names no object of Icinga")?;
    let signed = Signed {
        author: by.to_owned(),
        comment: comment(incident),
    };
    match client.order(&what, order, &signed, now).await {
        Ok(Done::Done) => Ok(()),
        Ok(Done::Refused(why)) => Err(format!("{} refuses: {why}", client.name())),
        Err(error) => Err(words(error)),
    }
}

fn words(error: SourceError) -> String {
    error.to_string()
}
