//! The bot's ear for one source: what it tells goes through the intake like a webhook, how it is goes to the senses.

use std::sync::Arc;

use async_trait::async_trait;
use collectors::{
    SourceName,
    source::{Ear, NotKept, Progress, Told},
};

use tokio::sync::Notify;

use super::redact::redacted;
use crate::{
    audit::Redactor,
    heal::Senses,
    store::Store,
    web::{Intake, Pending},
};

pub struct StoreEar {
    /// Whose alerts these are.
    pub source: SourceName,
    /// The name under which its health is kept.
    pub sense: SourceName,
    pub store: Store,
    pub intake: Intake,
    pub pending: Arc<Pending>,
    pub senses: Arc<Senses>,
    pub redactor: Redactor,
    pub handling: Arc<Notify>,
}

#[async_trait]
impl Ear for StoreEar {
    async fn tell(&self, told: Told, progress: Option<Progress>) -> Result<(), NotKept> {
        let alerts = match &told {
            Told::Alerts(alerts) => alerts.len(),
            Told::State(state) => state.firing.len(),
            Told::Readings(_) => 0,
        };
        if !self.pending.has_room(alerts) {
            return Err(NotKept::Full);
        }
        let told = redacted(&self.redactor, told);
        let heard = self.intake.hear(self.source.clone(), told, progress);
        if heard.await? {
            self.handling.notify_one();
        }
        Ok(())
    }

    async fn cursor(&self) -> Result<Option<String>, NotKept> {
        let cursor = self.store.cursor(&self.source.0).await;
        cursor.map_err(|error| NotKept::Store(error.to_string()))
    }

    fn works(&self) {
        self.senses.works(&self.sense);
    }

    fn fails(&self, why: &str) {
        tracing::debug!(source = %self.sense, why, "a source fails");
        self.senses.fails(&self.sense, &self.redactor.text(why));
    }
}
