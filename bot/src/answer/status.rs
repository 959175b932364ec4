//! `status`: what the hosts themselves say, against what the site file wants.

use std::collections::BTreeMap;

use deploy_engine::{
    condition::{self, ConditionCall, Judgement},
    model::{HostName, Model, ServiceName},
    probe::gather,
};
use jiff::Timestamp;
use serde::Serialize;

use super::Answer;
use crate::{
    bot::Bot,
    logs,
    wording::{Cell, Message, Severity, Table, Tone, ago},
};

/// The health of one service on one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    pub service: ServiceName,
    pub host: HostName,
    #[serde(flatten)]
    pub judgement: Judgement,
}

impl Bot {
    pub(super) async fn status(&self, only: Option<&ServiceName>) -> Answer {
        let now = Timestamp::now();
        let health = self.health(only, now).await;
        let mut message = table_of(&self.model, &health);
        if let Some(halted) = self.halt.now() {
            message.severity = message.severity.max(Severity::Attention);
            message = message.toned(halted.to_string(), Tone::Warn);
        }
        let firing = self.store.count_firing().await;
        match &firing {
            Ok(0) => {}
            Ok(count) => message = message.toned(format!("{count} alerts fire"), Tone::Warn),
            Err(error) => message = message.toned(error.to_string(), Tone::Bad),
        }
        message = self.bots_in(message, now).await;
        for spot in self.senses.blind_spots(now) {
            message = message.toned(
                format!("blind to {} of {}: {}", spot.shows, spot.source, spot.why),
                Tone::Warn,
            );
        }
        let (logs, lines) = self.logs_status(now);
        for (line, tone) in lines {
            message = message.toned(line, tone);
        }
        if let Ok(open @ 1..) = self.store.count_open_incidents().await {
            message = message.toned(format!("{open} incidents are open"), Tone::Warn);
        }
        if let Ok(waiting) = self.store.overrides_to_review().await
            && !waiting.is_empty()
        {
            let text = format!("{} overrides wait for a review: reviews", waiting.len());
            message = message.toned(text, Tone::Warn);
        }
        if let Ok(jobs) = self.store.jobs(true, super::looking::JOBS_SHOWN).await {
            for job in jobs {
                message = message.line(format!(
                    "job {} runs: {}",
                    crate::jobs::short_id(&job.id),
                    job.title
                ));
            }
        }
        let healthy = health.iter().all(|health| health.judgement.holds());
        Answer::new(message).with(serde_json::json!({
            "healthy": healthy, "health": health, "firing": firing.ok(), "logs": logs,
        }))
    }

    /// How far stores of logs were read, for programs, and what people should know of it.
    fn logs_status(&self, now: Timestamp) -> (Vec<serde_json::Value>, Vec<(String, Tone)>) {
        let (mut data, mut lines) = (Vec::new(), Vec::new());
        for source in self.logs.sources() {
            let (settings, reached) = (source.settings(), source.reach().get());
            lines.extend(logs::status_lines(settings, &reached, now));
            data.push(serde_json::json!({
                "source": settings.name, "looked_at": reached.looked_at, "looks": reached.looks, "lines": reached.lines,
                "matched": reached.matched, "too_large": reached.too_large, "more": reached.more,
                "lag_seconds": reached.lag.map(|lag| lag.as_secs()), "given_up": reached.given_up,
            }));
        }
        (data, lines)
    }

    /// Which bot leads and which stand by, where there are several.
    async fn bots_in(&self, mut message: Message, now: Timestamp) -> Message {
        if !self.store.is_shared() {
            return message;
        }
        if let Some(since) = self.lead.state().away {
            let away = format!("the store is away, {}: no repair is begun", ago(since, now));
            message.severity = message.severity.max(Severity::Bad);
            message = message.toned(away, Tone::Bad);
        }
        let (Ok(leader), Ok(bots)) = (self.store.leadership().await, self.store.replicas().await)
        else {
            return message;
        };
        let leader = leader
            .map(|leader| leader.holder)
            .filter(|name| !name.is_empty());
        message = match &leader {
            Some(leader) => message.line(format!("{leader} leads")),
            None => message.toned("no bot leads".to_owned(), Tone::Bad),
        };
        for bot in bots.iter().filter(|bot| Some(&bot.id) != leader.as_ref()) {
            let seen = ago(bot.seen_at, now);
            message = message.line(format!("{} stands by, seen {seen}", bot.id));
        }
        message
    }

    /// Asks all hosts at once, one exchange each, and judges every member of every service.
    pub async fn health(&self, only: Option<&ServiceName>, now: Timestamp) -> Vec<Health> {
        let calls = calls(&self.model, only);
        let asks: Vec<_> = calls
            .iter()
            .filter_map(|(_, call)| Some(condition::find(&call.name)?.asks(call)))
            .flatten()
            .collect();
        let readings = gather(&*self.hosts, &*self.model, &asks, now).await;
        calls
            .into_iter()
            .map(|(host, call)| {
                let judgement = match condition::find(&call.name) {
                    Some(condition) => condition.judge(&call, &readings),
                    None => Judgement::Unknown {
                        why: format!("there is no condition {}", call.name),
                    },
                };
                Health {
                    service: call.service,
                    host,
                    judgement,
                }
            })
            .collect()
    }
}

/// The health condition of every member of every service.
fn calls(model: &Model, only: Option<&ServiceName>) -> Vec<(HostName, ConditionCall)> {
    model
        .services
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .flat_map(|(name, deployment)| {
            deployment.members.iter().filter_map(move |host| {
                let call = model.health(name, std::slice::from_ref(host))?;
                Some((host.clone(), call))
            })
        })
        .collect()
}

fn cell(judgement: Option<&Judgement>) -> Cell {
    match judgement {
        None => Cell::new("·", Tone::Dim),
        Some(Judgement::Holds { .. }) => Cell::new("healthy", Tone::Good),
        Some(Judgement::NotYet { .. }) => Cell::new("not yet", Tone::Warn),
        Some(Judgement::Refuted { .. }) => Cell::new("bad", Tone::Bad),
        Some(Judgement::Unknown { .. }) => Cell::new("unknown", Tone::Warn),
    }
}

/// Services by hosts, then every reason.
fn table_of(model: &Model, health: &[Health]) -> Message {
    let hosts: Vec<&HostName> = model.site.hosts.keys().collect();
    let mut header = vec!["service"];
    header.extend(hosts.iter().map(|host| host.as_str()));
    let mut table = Table::new(&header);
    let mut by_service: BTreeMap<&ServiceName, BTreeMap<&HostName, &Judgement>> = BTreeMap::new();
    for one in health {
        by_service
            .entry(&one.service)
            .or_default()
            .insert(&one.host, &one.judgement);
    }
    for (service, judgements) in &by_service {
        let cells = hosts.iter().map(|host| cell(judgements.get(host).copied()));
        table.row(std::iter::once(Cell::from(service.to_string())).chain(cells));
    }
    let bad = health.iter().filter(|one| !one.judgement.holds()).count();
    let (severity, title) = match (health.len(), bad) {
        (0, _) => (
            Severity::Info,
            format!("Site {}: no service is deployed", model.site.name),
        ),
        (all, 0) => (
            Severity::Good,
            format!("Site {}: all {all} checks are healthy", model.site.name),
        ),
        (all, bad) => (
            Severity::Bad,
            format!(
                "Site {}: {bad} of {all} checks are not healthy",
                model.site.name
            ),
        ),
    };
    let mut message = Message::new(severity, title);
    if !health.is_empty() {
        message = message.table(table);
    }
    for one in health.iter().filter(|one| !one.judgement.holds()) {
        let tone = match one.judgement {
            Judgement::Refuted { .. } => Tone::Bad,
            _ => Tone::Warn,
        };
        let text = format!("{} on {}: {}", one.service, one.host, one.judgement.why());
        message = message.toned(text, tone);
    }
    message
}
