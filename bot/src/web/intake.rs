//! What webhooks bring and sources tell becomes durable in one order; webhooks in groups: whatever came while the disk was busy
//! is written with the next commit.
//!
//! One commit costs the same whether it holds one alert or thousands, so a storm is taken in as fast as it can be read. While one
//! waits for the disk the next is made; whatever was committed by then shares the next wait.

use std::sync::Arc;

use collectors::{
    Alert, SourceName,
    source::{NotKept, Progress, Told},
};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Figures, Pending, webhook::keep};
use crate::{sources, store::Store};

/// Webhooks that may wait for their commit. Their bodies are bounded by [`super::BODIES_KIB`]; this bounds the rest.
const QUEUE: usize = 4_096;
/// Alerts in one commit: some 50 ms of work, so that a sender's answer never waits for long.
const COMMIT_ALERTS: usize = 2_000;

/// Commits that wait for the disk together.
const COMMITS: usize = 8;

type Reply = oneshot::Sender<Result<(), String>>;
type SourceReply = oneshot::Sender<Result<bool, NotKept>>;

enum Waiting {
    Webhook {
        alerts: Vec<Alert>,
        reply: Reply,
    },
    /// What a source told; in a commit of its own.
    Source {
        source: SourceName,
        told: Told,
        progress: Option<Progress>,
        reply: SourceReply,
    },
}

/// A commit that is not on the disk yet, or one that failed.
struct Committed {
    kept: Result<Batch, String>,
    to: To,
}

/// Who waits for it.
enum To {
    Webhooks(Vec<Reply>),
    /// With what it is told if all is well.
    Source(SourceReply, bool),
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
        let (commits, committed) = mpsc::channel(COMMITS);
        let committing = commit_all(store.clone(), figures, waiting, commits);
        let answering = answer_all(store, pending, committed);
        let both = async move {
            tokio::join!(committing, answering);
        };
        (Self(send), both)
    }

    /// Durable, and known to the healer, when it returns.
    pub async fn take(&self, alerts: Vec<Alert>) -> Result<(), IntakeError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.try_send(Waiting::Webhook { alerts, reply });
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IntakeError::Full,
            mpsc::error::TrySendError::Closed(_) => IntakeError::Stopped,
        })?;
        let stored = answer.await.map_err(|_| IntakeError::Stopped)?;
        stored.map_err(IntakeError::Store)
    }

    /// What a source told: durable, and known to the healer, when it returns. True: who handles an alert has changed.
    ///
    /// # Errors
    /// Nothing of it was taken.
    pub async fn hear(
        &self,
        source: SourceName,
        told: Told,
        progress: Option<Progress>,
    ) -> Result<bool, NotKept> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting::Source {
            source,
            told,
            progress,
            reply,
        };
        let stopped = || NotKept::Store("the bot is stopping".to_owned());
        self.0.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotKept::Full,
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

async fn commit_all(
    store: Store,
    figures: Arc<Figures>,
    mut waiting: mpsc::Receiver<Waiting>,
    commits: mpsc::Sender<Committed>,
) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(first) => Some(first),
            None => waiting.recv().await,
        };
        let committed = match first {
            None => return,
            Some(Waiting::Source {
                source,
                told,
                progress,
                reply,
            }) => match sources::keep(&store, &source, told, progress, Timestamp::now()).await {
                Ok(kept) => Committed {
                    kept: Ok(kept.batch),
                    to: To::Source(reply, kept.handling),
                },
                Err(error) => {
                    // A source that went away asks again.
                    let _ = reply.send(Err(error));
                    continue;
                }
            },
            Some(Waiting::Webhook { mut alerts, reply }) => {
                // Webhooks that are about to be read share this commit, too.
                tokio::task::yield_now().await;
                let mut replies = vec![reply];
                while alerts.len() < COMMIT_ALERTS {
                    match waiting.try_recv() {
                        Ok(Waiting::Webhook {
                            alerts: more,
                            reply,
                        }) => {
                            alerts.extend(more);
                            replies.push(reply);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let kept = keep(&store, alerts, Timestamp::now()).await;
                figures.committed(replies.len());
                Committed {
                    kept: kept.map_err(|error| error.to_string()),
                    to: To::Webhooks(replies),
                }
            }
        };
        if commits.send(committed).await.is_err() {
            return;
        }
    }
}

/// The healer hears of alerts, and their senders have their answer, when they are on the disk, in the order of the commits.
async fn answer_all(store: Store, pending: Arc<Pending>, mut committed: mpsc::Receiver<Committed>) {
    let mut group = Vec::with_capacity(COMMITS);
    while committed.recv_many(&mut group, COMMITS).await > 0 {
        let durable = store.durable().await.map_err(|error| error.to_string());
        for Committed { kept, to } in group.drain(..) {
            let answer = durable.clone().and(kept).map(|batch| pending.put(batch));
            if let Err(error) = &answer {
                tracing::error!(%error, "alerts could not be stored; the senders are asked to come again");
            }
            // A sender that went away comes again, and finds its alerts known.
            match to {
                To::Webhooks(replies) => {
                    for reply in replies {
                        let _ = reply.send(answer.clone());
                    }
                }
                To::Source(reply, handling) => {
                    let answer = answer.map(|()| handling);
                    let _ = reply.send(answer.map_err(NotKept::Store));
                }
            }
        }
    }
}
