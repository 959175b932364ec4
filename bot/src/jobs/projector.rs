//! Chat as a projection of the journal: every event of a job becomes an edit of its one message, and lines in its thread.

use std::{collections::HashMap, sync::Arc, time::Duration};

use deploy_engine::{
    job::{JobEvent, JobId, JobState, StepProgress},
    runner::JobObserver,
    wire::Progress,
};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{rooms_of, wording};
use crate::{
    chat::{Room, Subject, office::Office},
    store::Store,
};

/// Events that may wait to be told. A job of a large site has a few thousand; past this, telling is skipped, never doing.
const QUEUE: usize = 16_384;
/// A running package installation reports many times a second; once in this time is enough for people.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

enum Told {
    Event {
        job: JobId,
        state: JobState,
        event: JobEvent,
    },
    Progress(StepProgress),
}

/// The observer's end: never waits.
pub struct Projection {
    queue: mpsc::Sender<Told>,
}

impl JobObserver for Projection {
    fn event(&self, job: &JobId, state: &JobState, event: &JobEvent) {
        let told = Told::Event {
            job: job.clone(),
            state: state.clone(),
            event: event.clone(),
        };
        if self.queue.try_send(told).is_err() {
            tracing::warn!(%job, "too much to tell; the next event of the job tells the whole state again");
        }
    }

    fn progress(&self, progress: StepProgress) {
        // Losing progress loses nothing.
        let _ = self.queue.try_send(Told::Progress(progress));
    }
}

/// The observer and the loop that tells; the loop ends when the observer is dropped.
pub fn projection(store: Store, office: Office) -> (Arc<Projection>, impl Future<Output = ()>) {
    let (queue, told) = mpsc::channel(QUEUE);
    (
        Arc::new(Projection { queue }),
        Teller {
            store,
            office,
            jobs: HashMap::new(),
        }
        .run(told),
    )
}

struct Teller {
    store: Store,
    office: Office,
    jobs: HashMap<JobId, Watched>,
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
                Told::Event { job, state, event } => self.event(job, state, &event).await,
                Told::Progress(progress) => self.progress(progress).await,
            }
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
