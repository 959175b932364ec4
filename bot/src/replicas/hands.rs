//! The hands of a bot: it takes batches of large jobs as it has room, and drives them, whether it leads or stands by.
//!
//! A batch is its driver's as long as that one lives; the leader puts back what bots that are gone have left. Whoever takes it
//! then has a newer token, finds in its journal how far it came, and asks the hosts.

use std::{collections::BTreeSet, time::Duration};

use deploy_engine::job::JobId;
use tokio_util::sync::CancellationToken;

use super::Lead;
use crate::{
    jobs::JobDesk,
    store::{OwnBatch, Store, StoreError},
};

/// Batches that one bot drives at once: with 16 hosts each, 64 SSH sessions at work, which a small machine carries. More hosts
/// at once take more bots.
pub const BATCHES_AT_ONCE: usize = 4;
/// How often is looked for batches when nothing wakes us.
const LOOK: Duration = Duration::from_secs(1);

/// Drives batches of the shared store.
pub struct Hands {
    pub store: Store,
    pub lead: Lead,
    pub desk: JobDesk,
    /// What this bot has read: [`model_digest`](super::model_digest).
    pub model: String,
}

impl Hands {
    /// Until told to stop.
    pub async fn work(self, stop: CancellationToken) {
        let mut woken = self.store.woken();
        let mut told = BTreeSet::new();
        loop {
            let finished = self.desk.finished();
            let taken = match stop.run_until_cancelled(self.round(&mut told)).await {
                None => return,
                Some(Ok(taken)) => taken,
                Some(Err(error)) => {
                    tracing::warn!(%error, "batches cannot be looked for");
                    0
                }
            };
            if taken > 0 {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = finished => {}
                _ = woken.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sees to the own batches, and takes one more if there is room: one at a time, so that bots that were woken by the same
    /// word get about as many. How many were taken.
    async fn round(&self, told: &mut BTreeSet<JobId>) -> Result<usize, StoreError> {
        let own = self.store.own_batches().await?;
        // First of all, so that nothing is begun of one that was cancelled while it waited.
        self.pass_on_cancels(&own, told).await;
        for batch in &own {
            let held_back = batch.cancel_by.is_some() && !told.contains(&batch.id);
            if !held_back {
                // Does nothing for one that is being driven.
                self.desk.drive(&batch.id);
            }
        }
        if !self.store.is_shared() || own.len() >= BATCHES_AT_ONCE || self.lead.may_help().is_err()
        {
            return Ok(0);
        }
        // One that nobody else may drive is the leader's, as everything that is left of a deploy.
        let model = (!self.lead.leads()).then_some(&*self.model);
        let taken = self.store.take_batches(model, 1).await?;
        for batch in &taken {
            tracing::info!(job = %batch, "takes a batch");
        }
        Ok(taken.len()) // and sees to them in the next round
    }

    async fn pass_on_cancels(&self, own: &[OwnBatch], told: &mut BTreeSet<JobId>) {
        told.retain(|id| own.iter().any(|batch| batch.id == *id));
        for batch in own {
            let Some(by) = batch
                .cancel_by
                .as_ref()
                .filter(|_| !told.contains(&batch.id))
            else {
                continue;
            };
            let asked = match self.desk.state(&batch.id).await {
                Ok(state) => state.job().is_some_and(|job| job.cancelled_by.is_some()),
                Err(_) => false,
            };
            let done = match asked {
                true => Ok(()),
                false => self.desk.cancel(&batch.id, by).await,
            };
            match done {
                Ok(()) => drop(told.insert(batch.id.clone())),
                Err(error) => {
                    tracing::warn!(job = %batch.id, %error, "a batch is not cancelled yet")
                }
            }
        }
    }
}
