//! Chat as a projection of the journal: every event of a job becomes an edit of its one message, and lines in its thread.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deploy_engine::{
    job::{JobEvent, JobId, JobState, StepProgress},
    runner::JobObserver,
    wire::Progress,
};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::{rooms_of, wording};
use crate::{
    chat::{Room, Subject, office::Office},
    store::Store,
};

/// Events that may wait to be told. A job of a large site has a few thousand; past this, telling is skipped, never doing.
const QUEUE: usize = 16_384;
/// A running package installation reports many times a second; once in this time is enough for people.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How long a finished command waits for the last words about its job.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

enum Told {
    Event {
        job: JobId,
        state: Box<JobState>,
        event: Box<JobEvent>,
    },
    Progress(StepProgress),
}

/// The observer's end: never waits.
pub struct Projection {
    queue: mpsc::Sender<Told>,
    /// Events that were handed over, and those that were told.
    queued: AtomicU64,
    told: watch::Receiver<u64>,
}

impl Projection {
    fn hand_over(&self, told: Told) -> bool {
        // Counted first: whoever waits may wait for one too many for a moment, never for one too few.
        self.queued.fetch_add(1, Ordering::SeqCst);
        let taken = self.queue.try_send(told).is_ok();
        if !taken {
            self.queued.fetch_sub(1, Ordering::SeqCst);
        }
        taken
    }

    /// Waits until everything that has happened so far was told: after a job's end its last words.
    pub async fn caught_up(&self) {
        let queued = self.queued.load(Ordering::SeqCst);
        let mut told = self.told.clone();
        let caught_up = told.wait_for(|told| *told >= queued);
        if tokio::time::timeout(CATCH_UP_LIMIT, caught_up)
            .await
            .is_err()
        {
            tracing::warn!("telling is behind");
        }
    }
}

impl JobObserver for Projection {
    fn event(&self, job: &JobId, state: &JobState, event: &JobEvent) {
        let told = Told::Event {
            job: job.clone(),
            state: Box::new(state.clone()),
            event: Box::new(event.clone()),
        };
        if !self.hand_over(told) {
            tracing::warn!(%job, "too much to tell; the next event of the job tells the whole state again");
        }
    }

    fn progress(&self, progress: StepProgress) {
        // Losing progress loses nothing.
        let _ = self.hand_over(Told::Progress(progress));
    }
}

/// The observer and the loop that tells; the loop ends when the observer is dropped.
pub fn projection(store: Store, office: Office) -> (Arc<Projection>, impl Future<Output = ()>) {
    let (queue, next) = mpsc::channel(QUEUE);
    let (count, told) = watch::channel(0);
    let projection = Projection {
        queue,
        queued: AtomicU64::new(0),
        told,
    };
    let teller = Teller {
        store,
        office,
        jobs: HashMap::new(),
        count,
    };
    (Arc::new(projection), teller.run(next))
}

struct Teller {
    store: Store,
    office: Office,
    jobs: HashMap<JobId, Watched>,
    count: watch::Sender<u64>,
}

struct Watched {
    rooms: Vec<Room>,
    state: JobState,
    /// What running steps last reported.
    reports: HashMap<u32, String>,
    told_at: Timestamp,
}

impl Teller {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        while let Some(next) = told.recv().await {
            match next {
                Told::Event { job, state, event } => self.event(job, *state, &event).await,
                Told::Progress(progress) => self.progress(progress).await,
            }
            self.count.send_modify(|count| *count += 1);
        }
    }

    async fn event(&mut self, job: JobId, state: JobState, event: &JobEvent) {
        if !self.jobs.contains_key(&job) {
            let rooms = rooms_of(&self.store, &job).await.unwrap_or_default();
            let watched = Watched {
                rooms,
                state: JobState::new(),
                reports: HashMap::new(),
                told_at: Timestamp::MIN,
            };
            self.jobs.insert(job.clone(), watched);
        }
        let Some(watched) = self.jobs.get_mut(&job) else {
            return;
        };
        watched.state = state;
        if let JobEvent::StepEnded { step, .. } = event {
            watched.reports.remove(&step.0);
        }
        let subject = Subject::job(&job);
        if let Some(line) = wording::detail(&watched.state, event) {
            let title = format!("Details of job {}", wording::short(&job));
            let told = self
                .office
                .detail(&watched.rooms, &subject, &title, line)
                .await;
            log(&job, told);
        }
        self.tell(&job).await;
        if matches!(event, JobEvent::Finished { .. }) {
            self.jobs.remove(&job);
        }
    }

    async fn progress(&mut self, progress: StepProgress) {
        let Some(watched) = self.jobs.get_mut(&progress.job) else {
            return;
        };
        let report = match progress.progress {
            Progress::Advance { done, total } => format!("{done} of {total}"),
            Progress::ResourceStarted { id } => id.to_string(),
            Progress::ResourceDone { .. } | Progress::Line { .. } => return,
        };
        watched.reports.insert(progress.step.0, report);
        let since = Timestamp::now().duration_since(watched.told_at);
        if since.unsigned_abs() >= PROGRESS_EVERY {
            self.tell(&progress.job).await;
        }
    }

    async fn tell(&mut self, job: &JobId) {
        let Some(watched) = self.jobs.get_mut(job) else {
            return;
        };
        watched.told_at = Timestamp::now();
        let Some(message) = wording::job(job, &watched.state, &watched.reports) else {
            return;
        };
        let told = self
            .office
            .say(&watched.rooms, &Subject::job(job), &message)
            .await;
        log(job, told);
    }
}

fn log(job: &JobId, told: Result<(), crate::store::StoreError>) {
    if let Err(error) = told {
        tracing::error!(%job, %error, "a job could not be told");
    }
}
