//! What the bot does for each command: one file a family.

#[cfg(test)]
mod access_tests;
mod approving;
mod deploying;
mod halting;
mod logs;
mod looking;
mod overriding;
mod reach;
mod repairing;
mod replaying;
mod silencing;
mod status;
mod trusting;

use deploy_engine::job::JobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use deploying::{About, plan_message};

use crate::{
    bot::{Asked, Bot},
    command::{self, Command, CommandSpec},
    rights::{Spot, permit},
    wording::{Message, Severity},
};

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Was it done? Decides the exit status of the command line.
    pub ok: bool,
    pub message: Message,
    /// The same for programs.
    #[serde(default)]
    pub data: Value,
    /// The job that was started: whoever waits for the command waits for its end.
    #[serde(default)]
    pub follow: Option<JobId>,
}

impl Answer {
    pub fn new(message: Message) -> Self {
        Self {
            ok: true,
            message,
            data: Value::Null,
            follow: None,
        }
    }

    /// Nothing was done, on purpose.
    pub fn refused(why: impl Into<String>) -> Self {
        Self {
            ok: false,
            ..Self::new(Message::new(Severity::Refused, why))
        }
    }

    /// It did not work.
    pub fn failed(why: impl Into<String>) -> Self {
        Self {
            ok: false,
            ..Self::new(Message::new(Severity::Bad, why))
        }
    }

    #[must_use]
    pub fn with(mut self, data: impl Serialize) -> Self {
        self.data = serde_json::to_value(data).unwrap_or_default();
        self
    }
}

/// A store that cannot be used is told as it is.
impl From<crate::store::StoreError> for Answer {
    fn from(error: crate::store::StoreError) -> Self {
        Self::failed(error.to_string())
    }
}

/// `?` in answers: both ways out are an answer.
pub(crate) fn settled(result: Result<Answer, Answer>) -> Answer {
    result.unwrap_or_else(|answer| answer)
}

impl Bot {
    /// Does what a permitted person asks.
    pub async fn answer(&self, asked: &Asked, command: Command) -> Answer {
        match command {
            Command::Help { about } => self.help(asked, about.as_deref()),
            Command::Whoami => self.whoami(asked),
            Command::Services => self.services(),
            Command::Status { service } => self.status(service.as_ref()).await,
            Command::Alerts => settled(self.alerts().await),
            Command::Logs {
                about,
                since,
                query,
            } => self.logs(&about, since, query).await,
            Command::Jobs => settled(self.list_jobs().await),
            Command::Job { id } => settled(self.show_job(&id).await),
            Command::Cancel { id } => settled(self.cancel(asked, id.as_deref()).await),
            Command::Halt { why } => settled(self.halt_all(asked, why).await),
            Command::Resume => settled(self.resume(asked).await),
            Command::Plan { target } => settled(self.plan(target).await),
            Command::Deploy { target } => settled(self.deploy(asked, target).await),
            Command::Redeploy { service } => settled(self.redeploy(asked, service).await),
            Command::Remove { service } => settled(self.remove(asked, service).await),
            Command::Approve { id } => settled(self.approve(asked, id.as_deref()).await),
            Command::Deny { id } => settled(self.deny(asked, id.as_deref()).await),
            Command::Incidents => settled(self.incidents().await),
            Command::Ack { id } => settled(self.ack(asked, &id).await),
            Command::Unack { id } => settled(self.unack(asked, &id).await),
            Command::Silence { id, length, why } => {
                settled(self.silence(asked, &id, length, &why).await)
            }
            Command::Silences => self.silences().await,
            Command::Unsilence { id } => settled(self.unsilence(asked, &id).await),
            Command::Why { id } => settled(self.why(&id).await),
            Command::Run { runbook, hosts } => settled(self.run_runbook(&runbook, &hosts).await),
            Command::Override { gate, id, reason } => {
                settled(self.override_gate(asked, gate, &id, reason).await)
            }
            Command::Reviews => settled(self.reviews().await),
            Command::Review { id, note } => settled(self.review(asked, &id, &note).await),
            Command::Runbooks => self.runbooks(),
            Command::Explain { what } => self.explain(&what),
            Command::Drill => self.drills(),
            Command::Trust { about, change } => settled(self.trust(asked, about, change).await),
            Command::Clear { job, why } => settled(self.clear(asked, &job, why).await),
            Command::Drilled {
                runbook,
                version,
                place,
            } => settled(self.drilled(asked, &runbook, version, place).await),
            Command::Replay { since } => settled(self.replay(since.as_deref()).await),
        }
    }

    fn help(&self, asked: &Asked, about: Option<&str>) -> Answer {
        let (role, prefix) = (asked.permit.role(), asked.place.prefix.as_str());
        let spot = Spot {
            ceiling: asked.place.ceiling,
            name: &asked.place.name,
        };
        let may = |spec: &CommandSpec| permit(&self.people, asked.permit.who(), spot, spec).is_ok();
        Answer::new(match about.and_then(command::spec_of) {
            Some(spec) => command::help(spec, role, may(spec), prefix),
            None => command::overview(role, may, prefix),
        })
    }
}
