//! The healer in the bot: its records in the store, its news in the chat, its jobs on the job desk.

mod earned;
mod kept;
mod listed;
mod news;
mod notes;
mod observer;
mod past;
mod records;
mod replaying;
mod senses;
mod settings;
mod why;
mod wording;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use deploy_engine::{
    job::{JobEvent, JobId, JobResult, JobState, Journal},
    runner::RunError,
};
use jiff::Timestamp;
use runbooks::healer::{HealerHandle, Jobs};

pub use earned::{Standing, TrustKey, grant, granted, trust_table};
pub use listed::{Listed, listed, whole};
pub use news::{ACKS, News, tell_all};
pub use notes::{clear, drilled_of, ledger_of, record_drill};
pub use observer::HealObserver;
pub use past::pasts;
pub use records::{BotRecords, decision_of, history_of, incident_of, judgement_of};
pub use replaying::replay_message;
pub use senses::{Senses, metrics, silences};
pub use settings::{configured, heal_settings, heal_settings_on};
pub use why::{decision_message, gates_table, judgement_table};
pub use wording::{history_table, incident_message, incidents_table, repairs_table};

use crate::{
    chat::Room,
    jobs::{Ended, JobDesk},
    store::Store,
};

/// Repairs on the job desk, told in the team's rooms.
pub struct DeskJobs {
    pub desk: JobDesk,
    pub store: Store,
    pub rooms: Vec<Room>,
}

#[async_trait]
impl Jobs for DeskJobs {
    async fn create(&self, job: &JobId, created: &JobEvent, at: Timestamp) -> Result<(), String> {
        self.desk
            .told_in(job, &self.rooms)
            .await
            .map_err(|error| error.to_string())?;
        self.store
            .create(job, at, created)
            .await
            .map_err(|error| error.to_string())
    }

    async fn run(&self, job: &JobId) -> Result<JobResult, String> {
        self.desk.drive(job);
        match self.desk.wait(job).await {
            Ok(Ended::Finished(result)) => Ok(result),
            Ok(Ended::Interrupted(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn state(&self, job: &JobId) -> Result<Option<JobState>, String> {
        match self.desk.state(job).await {
            Ok(state) => Ok(Some(state)),
            Err(RunError::Journal(deploy_engine::job::JournalError::Unknown(_))) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The healer's ear, once it listens.
pub type Ear = Arc<OnceLock<HealerHandle>>;
