//! `approve` and `deny`.

use jiff::Timestamp;
use serde_json::json;

use super::{Answer, deploying::About};
use crate::{
    bot::{Asked, Bot},
    store::Approval,
    wording::{Message, Severity, ago},
};

impl Bot {
    pub(super) async fn approve(&self, asked: &Asked, id: Option<&str>) -> Result<Answer, Answer> {
        let (approval, about) = self.waiting(id).await?;
        if self.config.limits.two_people && approval.requested_by == asked.who() {
            return Err(Answer::refused(format!(
                "You asked for {} yourself: here somebody else has to approve",
                approval.id
            )));
        }
        if let Some(halted) = self.halt.now() {
            return Err(Answer::refused(format!(
                "Everything is {halted}; resume first"
            )));
        }
        let approval = self
            .store
            .decide(&approval.id, true, &asked.who(), Timestamp::now())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        match &about {
            About::Deploy { goal, rooms, .. } => {
                self.start_deploy(asked, &approval, goal, &self.rooms_with(asked, rooms))
                    .await
            }
            About::Repair { incident, .. } => self.start_repair(asked, &approval, incident).await,
        }
    }

    pub(super) async fn deny(&self, asked: &Asked, id: Option<&str>) -> Result<Answer, Answer> {
        let (approval, about) = self.waiting(id).await?;
        self.store
            .decide(&approval.id, false, &asked.who(), Timestamp::now())
            .await
            .map_err(|error| Answer::refused(error.to_string()))?;
        if let About::Repair { incident, .. } = &about {
            self.deny_repair(asked, incident).await?;
        }
        let message = Message::new(Severity::Good, format!("Denied: {}", about.summary()))
            .line("Nothing was changed.");
        Ok(Answer::new(message).with(json!({ "approval": approval.id })))
    }

    /// What waits for approval: the named one, or the only one.
    async fn waiting(&self, id: Option<&str>) -> Result<(Approval, About), Answer> {
        let now = Timestamp::now();
        let pending = self.store.open_approvals(now).await?;
        let approval = match id {
            Some(id) => self.named(id, pending).await?,
            None => only(pending, now)?,
        };
        let about = serde_json::from_value(approval.body.clone()).map_err(|error| {
            Answer::failed(format!("request {} cannot be read: {error}", approval.id))
        })?;
        Ok((approval, about))
    }

    async fn named(&self, id: &str, pending: Vec<Approval>) -> Result<Approval, Answer> {
        // People paste what they see: the plan's digest names its approval too.
        let named = |approval: &Approval| {
            approval.id == id || (id.len() >= 8 && approval.digest.starts_with(id))
        };
        if let Some(found) = pending.into_iter().find(named) {
            return Ok(found);
        }
        match self.store.approval(id).await? {
            // Deciding says why it cannot be decided any more.
            Some(old) => Ok(old),
            None => Err(Answer::refused(format!("There is no request {id}"))),
        }
    }

    fn rooms_with(&self, asked: &Asked, rooms: &[crate::chat::Room]) -> Vec<crate::chat::Room> {
        let mut all = rooms.to_vec();
        all.extend(asked.place.rooms.iter().cloned());
        all.sort();
        all.dedup();
        all
    }
}

fn only(mut pending: Vec<Approval>, now: Timestamp) -> Result<Approval, Answer> {
    match pending.len() {
        0 => Err(Answer::refused("Nothing waits for approval")),
        1 => Ok(pending.remove(0)),
        count => {
            let mut message = Message::new(
                Severity::Refused,
                format!("{count} requests wait: say which one"),
            );
            for approval in &pending {
                let about = serde_json::from_value::<About>(approval.body.clone());
                let summary = about
                    .map(|about| about.summary().to_owned())
                    .unwrap_or_default();
                let by = &approval.requested_by;
                let asked = ago(approval.created_at, now);
                message = message.line(format!("{}: {summary} ({by}, {asked})", approval.id));
            }
            Err(Answer {
                ok: false,
                ..Answer::new(message)
            })
        }
    }
}
