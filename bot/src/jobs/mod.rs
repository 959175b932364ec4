//! Jobs in the bot: started, watched, told of. The engine's runner drives them.

mod driving;
mod projector;
mod wording;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use deploy_engine::{
    job::{JobEvent, JobId, JobKind, JobResult, Journal, JournalError, Step},
    runner::{RunError, Runner},
};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use projector::{Projection, projection};
pub use wording::{finished_line, job as job_message, result_word, short as short_id, steps_table};

use crate::{
    chat::Room,
    store::{Store, StoreError},
};

/// The space of the store that remembers in which rooms a job is told.
const ROOMS_SPACE: &str = "job_rooms";

/// How a job came to rest, as far as this bot is concerned.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Finished(JobResult),
    /// It is not being driven any more; the next start of the bot takes it up.
    Interrupted(String),
}

/// Starts jobs and knows which run. Cheap to clone.
#[derive(Clone)]
pub struct JobDesk {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    runner: OnceLock<Runner>,
    ended: Mutex<HashMap<JobId, watch::Sender<Option<Ended>>>>,
    /// Told whenever a job has come to rest.
    rested: Notify,
    /// Told whenever one has finished.
    finished: Notify,
    stop: CancellationToken,
}

impl JobDesk {
    pub fn new(store: Store, stop: CancellationToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                runner: OnceLock::new(),
                ended: Mutex::default(),
                rested: Notify::new(),
                finished: Notify::new(),
                stop,
            }),
        }
    }

    /// The runner needs gates that need this desk: it comes second, once.
    pub fn set_runner(&self, runner: Runner) {
        assert!(
            self.inner.runner.set(runner).is_ok(),
            "the runner is set once"
        );
    }

    fn runner(&self) -> &Runner {
        self.inner
            .runner
            .get()
            .expect("serve sets the runner before anything can start a job")
    }

    /// Puts a new job into the journal and drives it. It is told in `rooms`.
    ///
    /// # Errors
    /// The journal's; then no job was started.
    pub async fn start(&self, new: NewJob, rooms: &[Room]) -> Result<JobId, JournalError> {
        let id = new.id;
        let storage = |error: StoreError| JournalError::Storage(error.to_string());
        self.told_in(&id, rooms).await.map_err(storage)?;
        let created = JobEvent::Created {
            kind: new.kind,
            title: new.title,
            requested_by: new.requested_by,
            scope: new.scope,
            steps: new.steps,
        };
        self.inner
            .store
            .create(&id, Timestamp::now(), &created)
            .await?;
        self.drive(&id);
        Ok(id)
    }

    /// Takes up every job that an earlier run of the bot left unfinished; among several bots, those that are this one's.
    pub async fn resume_all(&self) -> Result<Vec<JobId>, JournalError> {
        let store = &self.inner.store;
        let unfinished = match store.is_shared() {
            false => store.unfinished().await?,
            true => {
                let own = store.own_jobs().await;
                own.map_err(|error| JournalError::Storage(error.to_string()))?
            }
        };
        for id in &unfinished {
            tracing::info!(job = %id, "taking up an unfinished job");
            self.take_up(id);
        }
        Ok(unfinished)
    }

    /// Waits until a job has come to rest.
    pub async fn wait(&self, id: &JobId) -> Result<Ended, RunError> {
        let receiver = self.ended().get(id).map(watch::Sender::subscribe);
        if let Some(mut receiver) = receiver
            && let Ok(ended) = receiver.wait_for(Option::is_some).await
            && let Some(ended) = ended.clone()
        {
            return Ok(ended);
        }
        let state = self.runner().state(id).await?;
        Ok(match state.result() {
            Some(result) => Ended::Finished(result.clone()),
            None => Ended::Interrupted("nobody drives it".to_owned()),
        })
    }

    /// See [`Runner::cancel`].
    pub async fn cancel(&self, id: &JobId, by: &str) -> Result<(), RunError> {
        self.runner().cancel(id, by).await
    }

    /// See [`Runner::state`].
    pub async fn state(&self, id: &JobId) -> Result<deploy_engine::job::JobState, RunError> {
        self.runner().state(id).await
    }

    /// Remembers in which rooms a job is told.
    pub async fn told_in(&self, id: &JobId, rooms: &[Room]) -> Result<(), StoreError> {
        let names: Vec<String> = rooms.iter().map(Room::to_string).collect();
        self.inner
            .store
            .put_in_order(ROOMS_SPACE, &id.0, &names.join(" "))
            .await
    }

    /// Waits until some job has finished after now.
    pub fn finished(&self) -> impl Future<Output = ()> + use<'_> {
        self.inner.finished.notified()
    }

    /// Waits until no job is driven any more; call after stopping.
    pub async fn rest(&self) {
        loop {
            let rested = self.inner.rested.notified();
            if self.ended().is_empty() {
                return;
            }
            rested.await;
        }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, watch::Sender<Option<Ended>>>> {
        self.inner
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that is about to enter the journal.
pub struct NewJob {
    pub id: JobId,
    pub kind: JobKind,
    pub title: String,
    pub requested_by: String,
    pub scope: String,
    pub steps: Vec<Step>,
}

/// A new, time-ordered id: the first characters differ from those of jobs of other seconds.
pub fn new_job_id() -> JobId {
    JobId(uuid::Uuid::now_v7().simple().to_string())
}

/// The rooms in which a job is told.
pub async fn rooms_of(store: &Store, id: &JobId) -> Result<Vec<Room>, StoreError> {
    let names = store.get(ROOMS_SPACE, &id.0).await?.unwrap_or_default();
    Ok(names
        .split_whitespace()
        .filter_map(|name| name.parse().ok())
        .collect())
}
