//! A step that is a batch: a job of its own in the same journal, made once, waited for, and told to end.
//!
//! Its journal has one writer, which is whoever drives it, on this bot or another. The batch's steps ask the gate themselves.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::ports::Clock;
use crate::job::{
    JobEvent, JobId, JobResult, JobState, Journal, JournalError, Step, StepEnd, StepPhase,
};

/// How often a batch is looked at: soon enough for people, and a read of one row.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a batch that was told to end may take beyond its longest step: a bot that dies with it is replaced within seconds, and its
/// steps are asked for on their hosts.
const END_GRACE: SignedDuration = SignedDuration::from_secs(300);

/// Who cancels a batch, as its journal says.
const BY_ITS_JOB: &str = "the job that it is a part of";

/// One batch.
pub struct BatchTask {
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub id: JobId,
    pub created: JobEvent,
    /// When it is told to end, if it has not by then.
    pub until: Timestamp,
    pub stop: CancellationToken,
}

/// What was done so far.
#[derive(Default)]
struct Done {
    made: bool,
    told_to_end: bool,
}

impl BatchTask {
    /// Waits for its end, whatever happens in between. Nothing is given up that may still act: a batch that was made is over, or
    /// its outcome is unknown.
    pub async fn run(self) -> StepEnd {
        let given_up = self.until + self.longest_step() + END_GRACE;
        let mut done = Done::default();
        loop {
            let now = self.clock.now();
            let end_it = self.stop.is_cancelled() || now >= self.until;
            let trouble = match self.look(&mut done, end_it).await {
                Ok(Some(end)) => return end,
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if now >= given_up {
                let why = trouble
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default();
                return StepEnd::Lost {
                    why: format!("job {} does not end{why}", self.id),
                };
            }
            tokio::select! {
                () = self.clock.sleep(LOOK_EVERY) => {}
                () = self.stop.cancelled(), if !end_it => {}
            }
        }
    }

    async fn look(&self, done: &mut Done, end_it: bool) -> Result<Option<StepEnd>, JournalError> {
        if !done.made {
            // Also when it is to end at once: an order to make it that is still under way then finds that it was.
            match self
                .journal
                .create(&self.id, self.clock.now(), &self.created)
                .await
            {
                Ok(()) | Err(JournalError::Exists(_)) => done.made = true,
                Err(error) => return Err(error),
            }
        }
        if end_it && !done.told_to_end {
            self.journal.ask_to_cancel(&self.id, BY_ITS_JOB).await?;
            done.told_to_end = true;
        }
        match self.journal.result(&self.id).await? {
            None => Ok(None),
            Some(result) => self.end(result).await.map(Some),
        }
    }

    async fn end(&self, result: JobResult) -> Result<StepEnd, JournalError> {
        Ok(match result {
            JobResult::Succeeded => {
                let events = self.journal.load(&self.id).await?;
                let changed = changed(&events).map_err(|why| JournalError::Corrupt {
                    job: self.id.clone(),
                    position: 0,
                    why,
                })?;
                StepEnd::Done {
                    changed: changed > 0,
                    detail: format!("{changed} steps changed something"),
                }
            }
            JobResult::Failed { why } => StepEnd::Failed { what: why },
            JobResult::Refused { why } => StepEnd::Refused { why },
            JobResult::Cancelled { .. } => StepEnd::Cancelled,
        })
    }

    fn longest_step(&self) -> SignedDuration {
        let steps: &[Step] = match &self.created {
            JobEvent::Created { steps, .. } => steps,
            _ => &[],
        };
        let longest = steps.iter().map(|step| step.timeout.0).max();
        SignedDuration::from_secs(i64::from(longest.unwrap_or(0)))
    }
}

fn changed(events: &[(Timestamp, JobEvent)]) -> Result<usize, String> {
    let state = JobState::fold(events).map_err(|illegal| illegal.to_string())?;
    let runs = state.job().map_or(&[][..], |job| &job.runs);
    let changed = runs.iter().filter(|run| {
        let StepPhase::Ended { end, .. } = &run.phase else {
            return false;
        };
        matches!(end, StepEnd::Done { changed: true, .. })
    });
    Ok(changed.count())
}
