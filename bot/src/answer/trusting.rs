//! `trust`, `clear`, `drilled`: what runbooks have earned here, and what people take on themselves.

use jiff::Timestamp;
use runbooks::{
    budget::{Cleared, LEDGER_SPAN, RepairOutcome, Spent},
    format::{Runbook, RunbookId},
    trust::{self, Drilled, Mode, Record},
};
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    command,
    heal::{self, Standing, TrustKey},
    store::Trust,
    wording::{Cell, Message, Severity, Table, Tone, ago},
};

/// Entries of a runbook's history that are shown.
const HISTORY_SHOWN: u32 = 20;

impl Bot {
    pub(super) async fn trust(
        &self,
        asked: &Asked,
        about: Option<String>,
        change: Option<(command::Trust, String)>,
    ) -> Result<Answer, Answer> {
        let about = about.as_deref().map(TrustKey::parse);
        if let (Some(key), Some((mode, why))) = (&about, change) {
            self.set_trust(asked, key, heal::configured(mode), &why)
                .await?;
        }
        let now = Timestamp::now();
        let standings = self.standings(about.as_ref()).await?;
        let title = match &about {
            None => "How far runbooks are trusted here".to_owned(),
            Some(key) => format!("How far {} is trusted here", key.runbook),
        };
        let mut message =
            Message::new(Severity::Info, title).table(heal::trust_table(&standings, now));
        let mut history = Vec::new();
        if let Some(key) = &about {
            let target = format!("runbook:{}", key.runbook);
            history = self.store.audit_log(Some(&target), HISTORY_SHOWN).await?;
            if !history.is_empty() {
                message = message.table(history_table(&history, now));
            }
        } else {
            message = message.hint("trust RUNBOOK shows its history");
        }
        Ok(Answer::new(message).with(json!({ "trust": standings, "history": history })))
    }

    /// More is granted for what was earned only; less always.
    async fn set_trust(
        &self,
        asked: &Asked,
        key: &TrustKey,
        mode: Mode,
        why: &str,
    ) -> Result<(), Answer> {
        if mode == Mode::Auto && !self.healing.unearned {
            let ledger = self.ledger().await?;
            let runbook = self.runbook(&key.runbook)?;
            let (_, record, _) = self.earned(runbook, &ledger).await?;
            record.earned().map_err(|missing| {
                let message = Message::new(
                    Severity::Refused,
                    format!("{} has not earned `auto` here: {missing}", key.runbook),
                )
                .line("It asks before it acts until then.")
                .hint(
                    "`drill` lists the drills and versions; `drilled` records one that has passed",
                );
                Answer {
                    ok: false,
                    ..Answer::new(message)
                }
            })?;
        }
        heal::grant(&self.store, key, mode, &asked.who(), why, Timestamp::now()).await?;
        Ok(())
    }

    async fn ledger(&self) -> Result<Vec<Spent>, Answer> {
        Ok(heal::ledger_of(&self.store, Timestamp::now() - LEDGER_SPAN).await?)
    }

    fn runbook(&self, id: &RunbookId) -> Result<&Runbook, Answer> {
        self.library
            .get(id)
            .ok_or_else(|| Answer::refused(format!("There is no runbook {id}")))
    }

    async fn earned(
        &self,
        runbook: &Runbook,
        ledger: &[Spent],
    ) -> Result<(String, Record, Option<Drilled>), Answer> {
        let version = trust::version(runbook);
        let drilled = heal::drilled_of(&self.store, &runbook.runbook).await?;
        let record = Record::of(&runbook.runbook, &version, ledger, drilled.as_ref());
        Ok((version, record, drilled))
    }

    /// One for each runbook and for each class of targets that has a word of its own.
    async fn standings(&self, about: Option<&TrustKey>) -> Result<Vec<Standing>, Answer> {
        let rows: Vec<(TrustKey, Trust)> = self
            .store
            .trust()
            .await?
            .into_iter()
            .map(|row| (TrustKey::parse(&row.runbook), row))
            .collect();
        let ledger = self.ledger().await?;
        let mut standings = Vec::new();
        for runbook in self.library.repairs() {
            let id = &runbook.runbook;
            if about.is_some_and(|about| about.runbook != *id) {
                continue;
            }
            let (version, record, drilled) = self.earned(runbook, &ledger).await?;
            let general = TrustKey {
                runbook: id.clone(),
                class: None,
            };
            let classes = rows
                .iter()
                .filter(|(key, _)| key.runbook == *id && key.class.is_some())
                .map(|(key, _)| key.clone());
            for key in std::iter::once(general).chain(classes) {
                let row = rows.iter().find(|(own, _)| *own == key);
                standings.push(Standing::new(
                    runbook,
                    &self.healing,
                    key.clone(),
                    row.map(|(_, row)| row),
                    (version.clone(), record.clone(), drilled.clone()),
                ));
            }
        }
        Ok(standings)
    }

    pub(super) async fn clear(
        &self,
        asked: &Asked,
        word: &str,
        why: String,
    ) -> Result<Answer, Answer> {
        let job = self.find_job(word).await?;
        let ledger = self.ledger().await?;
        let spent = ledger.iter().find(|one| one.job == job.0);
        let spent = match spent {
            Some(spent) if spent.outcome == Some(RepairOutcome::Unverified) => spent,
            Some(_) | None => {
                return Err(Answer::refused(format!(
                    "Job {job} is no repair that was not proven: there is nothing to clear"
                )));
            }
        };
        if let Some(cleared) = &spent.cleared {
            return Err(Answer::refused(format!(
                "Job {job} was cleared by {} already: {}",
                cleared.by, cleared.why
            )));
        }
        let cleared = Cleared {
            by: asked.who(),
            at: Timestamp::now(),
            why: why.clone(),
        };
        heal::clear(&self.store, &job.0, cleared).await?;
        // The record counts; the healer hears of it so that its incident is decided anew at once.
        self.healer()?
            .cleared(job.0.clone(), asked.who())
            .await
            .map_err(|error| Answer::failed(format!("it is on record, but: {error}")))?;
        let message = Message::new(
            Severity::Good,
            format!("Cleared: {} (job {job})", spent.runbook),
        )
        .line(why)
        .line("Its lock is released and it may be tried again, within its budget.");
        Ok(Answer::new(message).with(json!({ "job": job, "by": asked.who() })))
    }

    pub(super) async fn drilled(
        &self,
        asked: &Asked,
        runbook: &str,
        version: String,
        place: String,
    ) -> Result<Answer, Answer> {
        let id = RunbookId(runbook.to_owned());
        let own = trust::version(self.runbook(&id)?);
        if version != own {
            return Err(Answer::refused(format!(
                "{id} is version {own} here, and {version} was drilled: that says nothing about this one"
            )));
        }
        let drilled = Drilled {
            version,
            at: Timestamp::now(),
            by: asked.who(),
            place,
        };
        heal::record_drill(&self.store, &id, &drilled).await?;
        let message = Message::new(
            Severity::Good,
            format!(
                "On record: the drill of {id} {} has passed",
                drilled.version
            ),
        );
        Ok(Answer::new(message).with(json!({ "runbook": id, "drilled": drilled })))
    }
}

fn history_table(history: &[crate::store::AuditEntry], now: Timestamp) -> Table {
    let mut table = Table::new(&["when", "who", "what", "why"]);
    for entry in history {
        let text = |field: &str| entry.body[field].as_str().unwrap_or_default().to_owned();
        let (what, why, tone) = match entry.action.as_str() {
            "trust" => (
                format!("{} → {}", text("key"), text("mode")),
                text("why"),
                match entry.body["mode"].as_str() {
                    Some("auto") => Tone::Good,
                    _ => Tone::Warn,
                },
            ),
            "drilled" => (
                format!("drill of {} passed", text("version")),
                text("place"),
                Tone::Good,
            ),
            other => (other.to_owned(), String::new(), Tone::Plain),
        };
        table.row([
            ago(entry.at, now).into(),
            entry.who.clone().into(),
            Cell::new(what, tone),
            why.into(),
        ]);
    }
    table
}
