//! Webhooks become durable in groups: whatever came while the disk was busy is written with the next commit.
//!
//! One commit costs the same whether it holds one alert or thousands, so a storm is taken in as fast as it can be read.

use std::sync::Arc;

use collectors::Alert;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Figures, Pending, webhook::keep};
use crate::store::Store;

/// Webhooks that may wait for their commit. Their bodies are bounded by [`super::BODIES_KIB`]; this bounds the rest.
const QUEUE: usize = 4_096;
/// Alerts in one commit: some 50 ms of work, so that a sender's answer never waits for long.
const COMMIT_ALERTS: usize = 2_000;

struct Waiting {
    alerts: Vec<Alert>,
    reply: oneshot::Sender<Result<(), String>>,
}

/// Where webhooks bring their alerts. Cheap to clone.
#[derive(Clone)]
pub struct Intake(mpsc::Sender<Waiting>);

/// Why alerts were not taken; nothing of them was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    #[error("too many webhooks wait")]
    Full,
    #[error("{0}")]
    Store(String),
    #[error("the bot is stopping")]
    Stopped,
}

impl Intake {
    /// The intake, and what commits; to be spawned. It ends with the last clone.
    pub fn new(
        store: Store,
        pending: Arc<Pending>,
        figures: Arc<Figures>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (send, waiting) = mpsc::channel(QUEUE);
        (Self(send), commit_all(store, pending, figures, waiting))
    }

    /// Durable, and known to the healer, when it returns.
    pub async fn take(&self, alerts: Vec<Alert>) -> Result<(), IntakeError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.try_send(Waiting { alerts, reply });
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IntakeError::Full,
            mpsc::error::TrySendError::Closed(_) => IntakeError::Stopped,
        })?;
        let stored = answer.await.map_err(|_| IntakeError::Stopped)?;
        stored.map_err(IntakeError::Store)
    }
}

async fn commit_all(
    store: Store,
    pending: Arc<Pending>,
    figures: Arc<Figures>,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    while let Some(first) = waiting.recv().await {
        let mut alerts = first.alerts;
        let mut replies = vec![first.reply];
        while alerts.len() < COMMIT_ALERTS {
            let Ok(next) = waiting.try_recv() else { break };
            alerts.extend(next.alerts);
            replies.push(next.reply);
        }
        let kept = keep(&store, alerts, Timestamp::now()).await;
        figures.committed(replies.len());
        let answer = match kept {
            Ok(batch) => {
                pending.put(batch);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, webhooks = replies.len(), "alerts could not be stored; the senders are asked to come again");
                Err(error.to_string())
            }
        };
        for reply in replies {
            // A sender that went away comes again, and finds its alerts known.
            let _ = reply.send(answer.clone());
        }
    }
}
