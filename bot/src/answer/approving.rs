//! `approve` and `deny`.

use jiff::Timestamp;
use serde_json::json;

use super::{Answer, deploying::About, reach::covered};
use crate::{
    bot::{Asked, Bot},
    rights::{Agreed, Requester},
    store::{Approval, Vote, Voted},
    wording::{Message, Severity, ago},
};

/// The action of a vote in the audit log.
const VOTE: &str = "vote";

impl Bot {
    pub(super) async fn approve(&self, asked: &Asked, id: Option<&str>) -> Result<Answer, Answer> {
        let (approval, about) = self.waiting(id).await?;
        let agreed = self.may_vote(asked, &approval, &about).await?;
        if let Some(halted) = self.halt.now() {
            return Err(Answer::refused(format!(
                "Everything is {halted}; resume first"
            )));
        }
        let (approval, votes) = match self.vote(asked, &approval, agreed.votes).await? {
            Voted::Approved { approval, votes } => (approval, votes),
            Voted::Waiting { votes } => {
                return Ok(more_votes(&approval, &about, &votes, agreed.votes));
            }
        };
        let answer = match &about {
            About::Deploy { goal, rooms, .. } => {
                self.start_deploy(asked, &approval, goal, &self.rooms_with(asked, rooms))
                    .await
            }
            About::Repair { incident, .. } => self.start_repair(asked, &approval, incident).await,
        };
        answer.map(|answer| with_voters(answer, &votes))
    }

    /// Rights over what is asked for, and the rules about who has to agree to it.
    async fn may_vote(
        &self,
        asked: &Asked,
        approval: &Approval,
        about: &About,
    ) -> Result<Agreed, Answer> {
        let (subject, action) = self.requested_subject(about).await?;
        covered(&asked.permit, &subject)?;
        let mut agreed = self.people.access().agreed(&subject, action);
        if self.config.limits.two_people {
            agreed.requester = Requester::Excluded;
        }
        let (access, who) = (self.people.access(), asked.permit.who());
        agreed
            .may_vote(access, who, &approval.id, &approval.requested_by)
            .map_err(|why| Answer::refused(why.to_string()))?;
        Ok(agreed)
    }

    /// Counts a vote and records it; what cannot be recorded does not count.
    async fn vote(&self, asked: &Asked, approval: &Approval, needed: u32) -> Result<Voted, Answer> {
        let now = Timestamp::now();
        let vote = Vote {
            person: self.people.access().person(&asked.who()).to_owned(),
            who: asked.who(),
            at: now,
        };
        self.record_vote(asked, approval, "approve", needed).await?;
        self.store
            .vote(&approval.id, &vote, needed, now)
            .await
            .map_err(|error| Answer::refused(error.to_string()))
    }

    async fn record_vote(
        &self,
        asked: &Asked,
        approval: &Approval,
        word: &str,
        needed: u32,
    ) -> Result<(), Answer> {
        let body = json!({
            "word": word, "needed": needed, "digest": approval.digest, "requested_by": approval.requested_by,
            "about": approval.body,
        });
        let target = format!("approval:{}", approval.id);
        match self.record(asked.permit.who(), VOTE, &target, body).await {
            true => Ok(()),
            false => Err(Answer::failed(
                "the audit log cannot be written, so the vote does not count",
            )),
        }
    }

    pub(super) async fn deny(&self, asked: &Asked, id: Option<&str>) -> Result<Answer, Answer> {
        let (approval, about) = self.waiting(id).await?;
        let (subject, _) = self.requested_subject(&about).await?;
        covered(&asked.permit, &subject)?;
        self.record_vote(asked, &approval, "deny", 1).await?;
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

/// One vote of several; nothing is started yet.
fn more_votes(approval: &Approval, about: &About, votes: &[Vote], needed: u32) -> Answer {
    let title = format!("{} of {needed} votes: {}", votes.len(), about.summary());
    let minutes = approval
        .expires_at
        .duration_since(Timestamp::now())
        .as_mins();
    let message = Message::new(Severity::Attention, title)
        .line(format!("for it: {}", names(votes)))
        .hint(format!(
            "somebody else has to say approve {} within {minutes} min",
            approval.id
        ));
    Answer::new(message).with(json!({
        "approval": approval.id, "votes": votes, "needed": needed,
    }))
}

/// Where several agreed, all of them are named.
fn with_voters(answer: Answer, votes: &[Vote]) -> Answer {
    if votes.len() < 2 {
        return answer;
    }
    Answer {
        message: answer.message.line(format!("approved by {}", names(votes))),
        ..answer
    }
}

fn names(votes: &[Vote]) -> String {
    let names: Vec<&str> = votes.iter().map(|vote| vote.who.as_str()).collect();
    names.join(", ")
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
