//! What a bot does as one of several, beside its duty, in each of its lives.

use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Hands, Keeper, Lead, host_name};
use crate::{halt::Halt, jobs::JobDesk, store::Store};

/// Times that jobs are taken from other bots, and wait to be driven; each beat makes at most one.
const TAKEN: usize = 64;

/// One of several bots, or the only one of an embedded store.
pub struct Member {
    pub store: Store,
    pub lead: Lead,
    pub halt: Halt,
    pub desk: JobDesk,
    /// What this bot has read: [`model_digest`](super::model_digest).
    pub model: String,
    /// The bot that had this state directory before: it is dead for sure.
    pub before: Option<String>,
}

impl Member {
    /// Takes its place, in tasks that end when they are told to.
    pub fn begin(self, parts: &mut JoinSet<()>, stop: &CancellationToken) {
        if self.store.is_shared() {
            let (send, mut taken) = mpsc::channel(TAKEN);
            let (store, lead) = (self.store.clone(), self.lead.clone());
            let keeper = Keeper::new(store, lead, self.halt, host_name(), self.before, send);
            parts.spawn(keeper.run(stop.clone()));
            let (desk, token) = (self.desk.clone(), stop.clone());
            parts.spawn(async move {
                while let Some(Some(jobs)) = token.run_until_cancelled(taken.recv()).await {
                    jobs.iter().for_each(|job| desk.take_up(job));
                }
            });
        }
        let hands = Hands {
            store: self.store,
            lead: self.lead,
            desk: self.desk,
            model: self.model,
        };
        parts.spawn(hands.work(stop.clone()));
    }
}
