//! How a job is driven until it comes to rest: begun, taken up after another driver, and driven on after what passes.

use std::time::Duration;

use deploy_engine::{
    job::{JobId, JobResult, JournalError, LeaseError},
    runner::RunError,
};
use tokio::sync::watch;

use super::{Ended, JobDesk};

/// Before a job is taken up again that could not be driven on: a take-over and a database that comes back take seconds.
const TAKE_UP_PAUSE: Duration = Duration::from_secs(1);

/// How long a job that is taken up waits for its hosts to be reached. A login takes less than a second; a host that is down must
/// not hold up a take-over.
const REACH_LIMIT: Duration = Duration::from_secs(3);

impl JobDesk {
    /// Drives a new job of the journal; does nothing when it is being driven.
    pub fn drive(&self, id: &JobId) {
        self.begin(id, false);
    }

    /// Drives a job that another bot, or an earlier life of this one, drove before.
    pub fn take_up(&self, id: &JobId) {
        self.begin(id, true);
    }

    fn begin(&self, id: &JobId, taken_up: bool) {
        {
            let mut ended = self.ended();
            if ended.contains_key(id) {
                return;
            }
            ended.insert(id.clone(), watch::Sender::new(None));
        }
        let (desk, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            let run = async {
                if taken_up {
                    desk.reach(&id).await;
                }
                desk.run(&id).await
            };
            let how = tokio::select! {
                how = run => how,
                () = desk.inner.stop.cancelled() => {
                    desk.settle(&id, Ended::Interrupted("the bot stops".to_owned()));
                    return;
                }
                // Not driven on when it is back, for it will not be: the next process takes it up.
                why = desk.inner.store.until_failed() => {
                    desk.settle(&id, Ended::Interrupted(why));
                    return;
                }
            };
            let how = match how {
                Ok(result) => Ended::Finished(result),
                Err(error) => {
                    tracing::error!(job = %id, %error, "a job is not driven any more");
                    Ended::Interrupted(error.to_string())
                }
            };
            desk.settle(&id, how);
        });
    }

    /// This bot may have no session to any host yet, and gates give hosts little time for an answer: their silence would stop
    /// a repair that nothing speaks against.
    async fn reach(&self, id: &JobId) {
        let (desk, id) = (self.clone(), id.clone());
        // Goes on beside the job when it takes longer.
        let reaching = tokio::spawn(async move { desk.runner().reach(&id).await });
        let _ = tokio::time::timeout(REACH_LIMIT, reaching).await;
    }

    /// Among several bots a job may be another one's by the time the store is back, or one that was given up may have had its last
    /// word in the journal: it goes on for as long as the store says that it is this bot's.
    async fn run(&self, id: &JobId) -> Result<JobResult, RunError> {
        let store = &self.inner.store;
        if !store.is_shared() {
            return self.runner().run_on(id).await;
        }
        loop {
            let error = match self.runner().run(id).await {
                Err(error) if may_be_ours(&error) => error,
                ended => return ended,
            };
            tokio::time::sleep(TAKE_UP_PAUSE).await;
            match store.driver(id).await {
                Ok(driver) if driver.as_deref() != Some(store.replica()) => return Err(error),
                // Not known while the store is away; then nothing can be begun either.
                _ => tracing::warn!(job = %id, %error, "the job is taken up again"),
            }
        }
    }

    fn settle(&self, id: &JobId, how: Ended) {
        let finished = matches!(how, Ended::Finished(_));
        if let Some(sender) = self.ended().remove(id) {
            sender.send_replace(Some(how));
        }
        if finished {
            self.inner.finished.notify_waiters();
        }
        self.inner.rested.notify_waiters();
    }
}

/// May a job be driven on after this by the bot that the store names as its driver? Whoever drove it before may have written, or
/// taken its lease, until a moment ago; the store may have been away.
fn may_be_ours(error: &RunError) -> bool {
    error.is_passing()
        || matches!(
            error,
            RunError::Journal(JournalError::Conflict { .. })
                | RunError::Lease(LeaseError::Lost { .. })
        )
}
