//! `override`, `reviews` and `review`: break-glass.
//!
//! An override lets one repair of one incident pass one gate, within half an hour. It cannot make a repair of class N: there is
//! none to let pass.

use jiff::{SignedDuration, Timestamp};
use runbooks::{gate::GateId, incident::Incident};
use serde_json::json;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    chat::Subject,
    store::Override,
    wording::{Message, Severity, Table, ago},
};

/// An override that was not used by then is over: what the person saw grows old.
const VALID: SignedDuration = SignedDuration::from_mins(30);
/// The shortest reason, in characters: whoever reviews it has only this.
const REASON_MIN_CHARS: usize = 8;
/// The action of an override and of its review in the audit log.
const OVERRIDDEN: &str = "overridden";
const REVIEWED: &str = "reviewed";

impl Bot {
    pub(super) async fn override_gate(
        &self,
        asked: &Asked,
        gate: GateId,
        id: &str,
        reason: String,
    ) -> Result<Answer, Answer> {
        let incident = self.open_incident(id).await?;
        let incident = incident.ok_or_else(|| {
            Answer::refused(format!("There is no open incident {id}, or more than one"))
        })?;
        if reason.chars().count() < REASON_MIN_CHARS {
            return Err(Answer::refused(format!(
                "Say why in at least {REASON_MIN_CHARS} characters: the review rests on it"
            )));
        }
        let now = Timestamp::now();
        let before = self.store.overrides_of(&incident.id.0).await?;
        if let Some(one) = before.iter().find(|one| one.counts(None, now)) {
            return Err(Answer::refused(format!(
                "{} overrides {} for incident {} already: one gate at a time",
                one.made_by, one.gate, incident.id
            )));
        }
        let made = Override {
            id: super::deploying::new_approval_id(),
            incident: incident.id.0.clone(),
            gate: gate.to_string(),
            made_by: asked.who(),
            reason: self.redactor.text(&reason).into_owned(),
            made_at: now,
            expires_at: now + VALID,
            used_by_job: None,
            used_at: None,
            reviewed_by: None,
            reviewed_at: None,
            review: None,
        };
        self.recorded(asked, OVERRIDDEN, &made).await?;
        self.store.put_override(&made).await?;
        self.page(&made, &incident).await?;
        if let Some(healer) = self.ear.get() {
            // The override stands; without a healer it just is not used.
            let _ = healer.look(incident.id.clone()).await;
        }
        let title = format!("{gate} is overridden once for incident {}", incident.id);
        let message = Message::new(Severity::Attention, title)
            .line(format!(
                "until {:.0}, for the next repair of it",
                made.expires_at
            ))
            .line("All other gates hold. What no runbook may do stays out of reach.")
            .hint(format!(
                "review {} NOTE by somebody else closes it",
                made.id
            ));
        Ok(Answer::new(message).with(&made))
    }

    async fn recorded(&self, asked: &Asked, action: &str, made: &Override) -> Result<(), Answer> {
        let target = format!("incident:{}", made.incident);
        let written = self
            .record(asked.permit.who(), action, &target, json!(made))
            .await;
        written
            .then_some(())
            .ok_or_else(|| Answer::failed("the audit log cannot be written, so nothing was done"))
    }

    /// Rings in every room of the team, whoever has the incident.
    async fn page(&self, made: &Override, incident: &Incident) -> Result<(), Answer> {
        let title = format!(
            "BREAK-GLASS: {} overrides {} for incident {} ({})",
            made.made_by, made.gate, incident.id, incident.domain
        );
        let message = Message::new(Severity::Bad, title)
            .line(format!("because: {}", made.reason))
            .line(format!("once, until {:.0}", made.expires_at))
            .hint(format!("waits for a review: {}", made.id));
        let subject = Subject(format!("override:{}", made.id));
        self.office
            .say(&self.team_rooms(), &subject, &message)
            .await?;
        Ok(())
    }

    pub(super) async fn reviews(&self) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        let waiting = self.store.overrides_to_review().await?;
        if waiting.is_empty() {
            let message = Message::new(Severity::Good, "No override waits for a review");
            return Ok(Answer::new(message).with(json!({ "reviews": [] })));
        }
        let mut table = Table::new(&[
            "id",
            "gate",
            "incident",
            "by",
            "when",
            "used by job",
            "because",
        ]);
        for one in &waiting {
            table.row([
                one.id.clone().into(),
                one.gate.clone().into(),
                one.incident.clone().into(),
                one.made_by.clone().into(),
                ago(one.made_at, now).into(),
                one.used_by_job
                    .clone()
                    .unwrap_or_else(|| "not used".to_owned())
                    .into(),
                one.reason.clone().into(),
            ]);
        }
        let title = format!("{} overrides wait for a review", waiting.len());
        let message = Message::new(Severity::Attention, title)
            .table(table)
            .hint("review ID NOTE closes one; whoever made it cannot");
        Ok(Answer::new(message).with(json!({ "reviews": waiting })))
    }

    pub(super) async fn review(
        &self,
        asked: &Asked,
        id: &str,
        note: &str,
    ) -> Result<Answer, Answer> {
        let waiting = self.store.overrides_to_review().await?;
        let one = waiting.iter().find(|one| one.id == id).ok_or_else(|| {
            Answer::refused(format!("There is no override {id} that waits for a review"))
        })?;
        let access = self.people.access();
        if access.person(&one.made_by) == access.person(&asked.who()) {
            return Err(Answer::refused(
                "You made it yourself: somebody else has to review it",
            ));
        }
        let note = self.redactor.text(note).into_owned();
        let reviewed = Override {
            reviewed_by: Some(asked.who()),
            reviewed_at: Some(Timestamp::now()),
            review: Some(note.clone()),
            ..one.clone()
        };
        self.recorded(asked, REVIEWED, &reviewed).await?;
        self.store
            .review_override(id, &asked.who(), &note, Timestamp::now())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        let message = Message::new(
            Severity::Good,
            format!("The review of override {id} is closed"),
        );
        Ok(Answer::new(message).with(&reviewed))
    }
}
