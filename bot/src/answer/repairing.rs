//! Incidents and runbooks: look, take, ask why, run, trust, approve.

use jiff::Timestamp;
use runbooks::{
    explain::{Seen, explain},
    format::{Class, RunbookId},
    healer::StepJudgement,
    incident::{Incident, IncidentId},
    topology::Topology,
    trust::version,
};
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    chat::Subject,
    heal::{self, Listed},
    logs,
    store::{Approval, Detail},
    wording::{Cell, Message, Severity, Table, Tone, explained},
};

/// Closed incidents are looked through for an id this far back, in days, and so many.
const CLOSED_DAYS: i64 = 30;
const CLOSED_MAX: u32 = 500;
/// `incidents` shows what was opened so long ago and is closed, and so many of them.
const CLOSED_SHOWN: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
const CLOSED_LISTED: u32 = 20;

impl Bot {
    /// Open ones, and what was closed since yesterday: the first thing that a person asks in the morning.
    pub(super) async fn incidents(&self) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        let open = self.open_incidents().await?;
        let closed = self.closed_incidents(now - CLOSED_SHOWN).await?;
        let message = match open.len() {
            0 => Message::new(Severity::Good, "No incident is open"),
            1 => Message::new(Severity::Attention, "1 incident is open"),
            count => Message::new(Severity::Attention, format!("{count} incidents are open")),
        };
        let mut message = message;
        if !open.is_empty() {
            message = message.table(heal::incidents_table(&open, now));
        }
        if !closed.is_empty() {
            message = message
                .line(format!("closed since yesterday: {}", closed.len()))
                .table(heal::incidents_table(&closed, now));
        }
        let all: Vec<_> = open.into_iter().chain(closed).collect();
        if !all.is_empty() {
            message = message.hint("why INCIDENT tells more");
        }
        Ok(Answer::new(message).with(json!({ "incidents": all })))
    }

    /// The newest first.
    async fn closed_incidents(&self, since: Timestamp) -> Result<Vec<Listed>, Answer> {
        let rows = self
            .store
            .incidents_since(since, CLOSED_LISTED, Detail::Brief)
            .await?;
        let closed = rows.iter().filter(|row| row.closed_at.is_some());
        Ok(closed.filter_map(|row| heal::listed(row).ok()).collect())
    }

    /// Oldest first.
    pub(super) async fn open_incidents(&self) -> Result<Vec<Listed>, Answer> {
        let rows = self.store.open_incidents(Detail::Brief).await?;
        let read = rows.iter().filter_map(|row| heal::listed(row).ok());
        Ok(read.collect())
    }

    /// An incident by its id or a part of it, open ones first.
    pub(super) async fn find_incident(&self, word: &str) -> Result<Option<Incident>, Answer> {
        if let Some(whole) = heal::incident_of(&self.store, &IncidentId(word.to_owned())).await? {
            return Ok(Some(whole));
        }
        let since = Timestamp::now() - jiff::SignedDuration::from_hours(24 * CLOSED_DAYS);
        let mut found = self.store.incident_ids_since(since, CLOSED_MAX).await?;
        found.retain(|(id, _)| id.ends_with(word) || id.starts_with(word));
        if found.iter().any(|(_, open)| *open) {
            found.retain(|(_, open)| *open);
        }
        match &found[..] {
            [] => Ok(None),
            [(id, _)] => Ok(heal::incident_of(&self.store, &IncidentId(id.clone())).await?),
            several => Err(Answer::refused(format!(
                "{} incidents are called {word}: say more of the id",
                several.len()
            ))),
        }
    }

    pub(super) async fn ack(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let incident = self
            .find_incident(id)
            .await?
            .filter(Incident::is_open)
            .ok_or_else(|| Answer::refused(format!("There is no open incident {id}")))?;
        let (id, who) = (&incident.id.0, asked.who());
        // Of two at the same time both see that there are two: only one finds nobody.
        let before = self.store.put_once(heal::ACKS, id, &who).await?;
        let mut taken = format!("taken by {who}");
        if before != who {
            self.store.put(heal::ACKS, id, &who).await?;
            taken.push_str(&format!(", from {before}"));
        }
        crate::care::say_again(&self.store, id).await?;
        self.say_incident(&incident, Some(taken)).await?;
        self.care.notify_one();
        let title = format!("Incident {} ({}) is yours", incident.id, incident.domain);
        let mut message = Message::new(Severity::Good, title);
        if before != who {
            message = message.toned(format!("{before} had it until now"), Tone::Warn);
        }
        Ok(Answer::new(message)
            .with(json!({ "incident": incident.id, "by": who, "from": (before != who).then_some(before) })))
    }

    pub(super) async fn unack(&self, asked: &Asked, id: &str) -> Result<Answer, Answer> {
        let incident = self
            .find_incident(id)
            .await?
            .filter(Incident::is_open)
            .ok_or_else(|| Answer::refused(format!("There is no open incident {id}")))?;
        let Some(by) = self.store.get(heal::ACKS, &incident.id.0).await? else {
            // Others' words are theirs to take back.
            let there = crate::care::lines_of(&self.store, &incident.id.0).await?;
            let there: String = there.iter().map(|line| format!("; {line}")).collect();
            let why = format!("Nobody has incident {} here{there}", incident.id);
            return Err(Answer::refused(why));
        };
        self.store.delete(heal::ACKS, &incident.id.0).await?;
        let who = asked.who();
        let given = match by == who {
            true => format!("given back by {by}"),
            false => format!("taken from {by} by {who}"),
        };
        self.say_incident(&incident, Some(given)).await?;
        self.care.notify_one();
        let title = format!("Incident {} ({}) is nobody's", incident.id, incident.domain);
        Ok(Answer::new(Message::new(Severity::Attention, title))
            .with(json!({ "incident": incident.id, "was": by, "by": who })))
    }

    async fn say_incident(&self, incident: &Incident, line: Option<String>) -> Result<(), Answer> {
        let lines = crate::care::lines_of(&self.store, &incident.id.0).await?;
        let message = heal::incident_message(incident, Timestamp::now());
        let message = line.into_iter().chain(lines).fold(message, Message::line);
        let subject = Subject::incident(&incident.id);
        self.office
            .say(&self.team_rooms(), &subject, &message)
            .await?;
        Ok(())
    }

    pub(super) async fn why(&self, id: &str) -> Result<Answer, Answer> {
        match self.find_incident(id).await? {
            Some(incident) => {
                let record = heal::decision_of(&self.store, &incident.id.0).await?;
                let now = Timestamp::now();
                let mut message = heal::decision_message(&incident, record.as_ref(), now);
                let history = heal::history_of(&self.store, &incident.id).await?;
                if !history.is_empty() {
                    message = message.table(heal::history_table(&history, now));
                }
                let mut repairs = Vec::new();
                for job in &incident.jobs {
                    repairs.extend(self.store.repair(job).await?);
                }
                if !repairs.is_empty() {
                    message = message.table(heal::repairs_table(&repairs, now));
                }
                let last = match incident.jobs.last() {
                    Some(job) => heal::judgement_of(&self.store, job).await?,
                    None => None,
                };
                // What passed before a step is no news; `why JOB` has it all the same.
                let against = |one: &&StepJudgement| one.gates.iter().any(|one| !one.gate.passes());
                if let Some(judgement) = last.as_ref().filter(against) {
                    message = heal::judgement_table(message, judgement, now);
                }
                let topology = Topology::from(&*self.model);
                let readings = logs::readings(&self.store).await?;
                let readings = logs::about(&incident, &topology, readings, now);
                if !readings.is_empty() {
                    message = message.table(logs::readings_table(&readings, now));
                }
                let decisions: Vec<_> = history
                    .iter()
                    .map(|entry| json!({ "at": entry.at, "decision": entry.body["decision"], "gates": entry.body["gates"] }))
                    .collect();
                Ok(Answer::new(message).with(json!({
                    "incident": incident, "decision": record, "decisions": decisions, "repairs": repairs,
                    "judgement": last, "readings": readings,
                })))
            }
            None => self.why_job(id).await,
        }
    }

    /// A job: its steps, and what the gates said before the last step that they were asked about.
    async fn why_job(&self, word: &str) -> Result<Answer, Answer> {
        let id = self
            .find_job(word)
            .await
            .map_err(|_| Answer::refused(format!("There is no incident and no job {word}")))?;
        let mut answer = self.show_job(&id.0).await?;
        let judgement = heal::judgement_of(&self.store, &id.0).await?;
        if let Some(judgement) = &judgement {
            answer.message = heal::judgement_table(answer.message, judgement, Timestamp::now());
        }
        let data = json!({ "job": answer.data, "judgement": judgement });
        Ok(answer.with(data))
    }

    /// Looks again at the open incidents that a runbook may be about, now.
    pub(super) async fn run_runbook(
        &self,
        runbook: &str,
        hosts: &[deploy_engine::model::HostName],
    ) -> Result<Answer, Answer> {
        let id = RunbookId(runbook.to_owned());
        let open = self.open_incidents().await?;
        let about: Vec<_> = open
            .iter()
            .map(|one| &one.incident)
            .filter(|one| one.runbooks.contains(&id))
            .filter(|one| hosts.is_empty() || hosts.iter().any(|host| one.subjects.contains(host)))
            .collect();
        if about.is_empty() {
            return Err(Answer::refused(format!(
                "No open incident is about {id}: a runbook acts on evidence of a failure, and nothing says that there is one"
            )));
        }
        let healer = self.healer()?;
        for incident in &about {
            healer
                .look(incident.id.clone())
                .await
                .map_err(|error| Answer::refused(error.to_string()))?;
        }
        let ids: Vec<_> = about.iter().map(|one| one.id.to_string()).collect();
        let title = format!("{id} looks at {} again", ids.join(", "));
        Ok(Answer::new(
            Message::new(Severity::Working, title).hint("why INCIDENT tells what it decides"),
        )
        .with(json!({ "incidents": ids })))
    }

    pub(super) fn runbooks(&self) -> Answer {
        let mut table = Table::new(&["runbook", "what", "service", "class", "answers"]);
        for runbook in self.library.iter() {
            table.row([
                runbook.runbook.to_string().into(),
                runbook.title.clone().into(),
                runbook.service.to_string().into(),
                class_cell(runbook.class),
                self.library.alerts().names_of(runbook).join(" ").into(),
            ]);
        }
        let all: Vec<_> = self.library.iter().collect();
        let title = format!("{} runbooks", all.len());
        Answer::new(Message::new(Severity::Info, title).table(table)).with(all)
    }

    /// What would become of an alert of this name, with these labels.
    pub(super) fn explain(&self, what: &str) -> Answer {
        let words: Vec<&str> = what.split_whitespace().collect();
        let site = Topology::from(&*self.model);
        let report = explain(&self.library, Some(&site), &[Seen::said(&words)]);
        Answer::new(explained(&report, Some(&site.site))).with(&report)
    }

    pub(super) fn drills(&self) -> Answer {
        let mut table = Table::new(&["runbook", "version", "drill", "must refuse in"]);
        for runbook in self.library.repairs() {
            table.row([
                runbook.runbook.to_string().into(),
                version(runbook).into(),
                runbook.drill.clone().into(),
                runbook.counter_drills.join(" ").into(),
            ]);
        }
        let data: Vec<_> = self
            .library
            .repairs()
            .map(|one| json!({ "runbook": one.runbook, "version": version(one), "drill": one.drill, "counter_drills": one.counter_drills }))
            .collect();
        let message = Message::new(Severity::Info, "Drills of the runbooks")
            .table(table)
            .hint("`nightshift-lab drill NAME` runs one on hosts of a lab, never on this site")
            .hint("drilled RUNBOOK VERSION records that it has passed there: with proven repairs it earns `auto`");
        Answer::new(message).with(data)
    }

    pub(super) async fn start_repair(
        &self,
        asked: &Asked,
        approval: &Approval,
        incident: &str,
    ) -> Result<Answer, Answer> {
        let healer = self.healer()?;
        self.store
            .use_approval(&approval.id, &approval.digest, Timestamp::now())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        healer
            .approve(
                IncidentId(incident.to_owned()),
                approval.digest.clone(),
                asked.who(),
            )
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        let message = Message::new(
            Severity::Working,
            format!("Approved: incident {incident} is looked at once more, then repaired"),
        )
        .line("If anything is different from what you approved, nothing is done.");
        Ok(Answer::new(message).with(json!({ "incident": incident, "approval": approval.id })))
    }

    pub(super) async fn deny_repair(&self, asked: &Asked, incident: &str) -> Result<(), Answer> {
        self.healer()?
            .deny(IncidentId(incident.to_owned()), asked.who())
            .await
            .map_err(|error| Answer::refused(error.to_string()))
    }

    pub(super) fn healer(&self) -> Result<&runbooks::healer::HealerHandle, Answer> {
        self.ear
            .get()
            .ok_or_else(|| Answer::failed("the healer does not run"))
    }
}

fn class_cell(class: Class) -> Cell {
    match class {
        Class::Automatic => Cell::from("automatic"),
        Class::Guarded => Cell::new("guarded", Tone::Warn),
        Class::Human => Cell::new("human", Tone::Dim),
        Class::Diagnosis => Cell::new("diagnosis", Tone::Dim),
    }
}
