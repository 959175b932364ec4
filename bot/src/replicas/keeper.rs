//! Says that this bot lives, sees who else does, and takes or keeps the lead.

use std::time::Instant;

use deploy_engine::job::JobId;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{BEAT, Lead, Standing, watch::Watch};
use crate::{
    halt::Halt,
    store::{Leadership, Store, StoreError},
    wording::duration,
};

/// Jobs that are taken from one driver at once; the rest follows with the next beat.
const JOBS_AT_ONCE: u32 = 1_000;

/// Keeps one bot's place among the others.
pub struct Keeper {
    store: Store,
    lead: Lead,
    halt: Halt,
    /// For people.
    host: String,
    /// The bot that had this state directory before: it is dead for sure, because its lock is ours.
    before: Option<String>,
    bots: Watch,
    leaders: Watch,
    /// Failures of the store when this bot took the lead.
    troubles: u64,
    /// Jobs that are this bot's to drive now.
    jobs: mpsc::Sender<Vec<JobId>>,
}

impl Keeper {
    pub fn new(
        store: Store,
        lead: Lead,
        halt: Halt,
        host: String,
        before: Option<String>,
        jobs: mpsc::Sender<Vec<JobId>>,
    ) -> Self {
        let store = store.vital();
        let troubles = store.troubles();
        Self {
            store,
            lead,
            halt,
            host,
            before,
            bots: Watch::default(),
            leaders: Watch::default(),
            troubles,
            jobs,
        }
    }

    /// Until told to stop, or until this bot must begin anew.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut woken = self.store.woken();
        loop {
            let began = Instant::now();
            match self.beat(began).await {
                Ok(()) => self.lead.change(|state| state.away = None),
                Err(error) => self.away(&error),
            }
            if matches!(self.lead.state().standing, Standing::Over { .. }) {
                return;
            }
            let next = tokio::time::Instant::from_std(began + BEAT);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
                // A bot that leaves says so: nobody has to wait for the next beat.
                _ = woken.changed(), if !self.lead.leads() => {}
            }
        }
    }

    fn away(&mut self, error: &StoreError) {
        let now = Instant::now();
        self.bots.blind(now);
        self.leaders.blind(now);
        self.lead.change(|state| {
            if state.away.is_none() {
                tracing::error!(%error, "the store is away: nothing is begun");
            }
            state.away.get_or_insert(Timestamp::now());
        });
    }

    async fn beat(&mut self, now: Instant) -> Result<(), StoreError> {
        self.store.beat(&self.host, Timestamp::now()).await?;
        self.lead.change(|state| state.beaten = Some(now));
        match self.lead.state().standing {
            Standing::Leads { token, from, .. } => self.keep(token, from, now).await?,
            _ => self.look(now).await?,
        }
        let bots = self.store.replicas().await?;
        let counts = bots.iter().map(|bot| (bot.id.as_str(), bot.beat));
        self.bots.observe(counts, Instant::now());
        if !self.lead.leads() {
            return Ok(());
        }
        self.halt.look().await?;
        for bot in bots {
            if self.bots.is_dead(&bot.id, Instant::now()) {
                self.store.forget_replica(&bot.id).await?;
            }
        }
        let freed = self.store.free_batches().await?;
        if !freed.is_empty() {
            tracing::warn!(batches = freed.len(), "batches wait for another bot");
        }
        let jobs = self.take_jobs().await?;
        self.drive(jobs);
        Ok(())
    }

    /// The leader drives every job but batches: what another bot was driving it does not drive any more.
    async fn take_jobs(&self) -> Result<Vec<JobId>, StoreError> {
        let mut taken = Vec::new();
        for driver in self.store.drivers().await? {
            if driver == self.store.replica() {
                continue;
            }
            let jobs = self.store.take_jobs(&driver, JOBS_AT_ONCE).await?;
            if !jobs.is_empty() {
                tracing::warn!(from = driver, jobs = jobs.len(), "jobs are taken over");
            }
            taken.extend(jobs);
        }
        Ok(taken)
    }

    fn drive(&self, jobs: Vec<JobId>) {
        if !jobs.is_empty() {
            // Full: they are this bot's by now, and found among its own when it is on duty.
            let _ = self.jobs.try_send(jobs);
        }
    }

    async fn keep(
        &mut self,
        token: i64,
        from: Option<String>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let standing = if !self.store.keep_leading(token).await? {
            Standing::Over {
                why: "another bot leads".to_owned(),
            }
        } else if self.store.troubles() != self.troubles {
            // Something could not be recorded, and nobody remembers it but what runs now.
            Standing::Over {
                why: self.was_away(),
            }
        } else {
            Standing::Leads {
                token,
                confirmed: now,
                from,
            }
        };
        if let Standing::Over { why } = &standing {
            tracing::warn!(why, "begins anew");
        }
        self.lead.change(|state| state.standing = standing);
        Ok(())
    }

    fn was_away(&self) -> String {
        let length = match self.lead.state().away {
            Some(since) => duration(Timestamp::now().duration_since(since)),
            None => "a moment".to_owned(),
        };
        let found = self.store.last_trouble();
        let found = found.map(|found| format!(" ({found})"));
        format!(
            "the store was away for {length}{}",
            found.unwrap_or_default()
        )
    }

    async fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        let seen = self.store.leadership().await?;
        let count = seen.as_ref().map(|seen| (name_of(seen), seen.beat));
        let counts = count.iter().map(|(name, beat)| (name.as_str(), *beat));
        self.leaders.observe(counts, Instant::now());
        let free = seen.as_ref().is_none_or(|seen| self.is_free(seen));
        // Counted from before it is asked, so that a failure meanwhile is not overlooked.
        let troubles = self.store.troubles();
        let taken = match free {
            true => self.store.lead(seen.as_ref()).await?,
            false => None,
        };
        // Before anybody hears that this bot leads: only the driver of a job gets its lease. If it fails, the lead is taken again
        // with the next beat.
        let jobs = match taken {
            Some(_) => self.take_jobs().await?,
            None => vec![],
        };
        let standing = match taken {
            Some(token) => {
                tracing::info!(token, "this bot leads");
                self.troubles = troubles;
                let other = |name: &String| !name.is_empty() && name != self.store.replica();
                Standing::Leads {
                    token,
                    confirmed: now,
                    from: seen.map(|seen| seen.holder).filter(other),
                }
            }
            None => Standing::StandBy {
                leader: seen.map(|seen| seen.holder).filter(|name| !name.is_empty()),
            },
        };
        self.lead.change(|state| state.standing = standing);
        self.drive(jobs);
        Ok(())
    }

    fn is_free(&self, seen: &Leadership) -> bool {
        let ours = seen.holder == self.store.replica();
        let before = self.before.as_ref() == Some(&seen.holder);
        let dead = self.leaders.is_dead(&name_of(seen), Instant::now());
        seen.holder.is_empty() || ours || before || dead
    }
}

/// One who took the lead again is watched anew.
fn name_of(leadership: &Leadership) -> String {
    format!("{}/{}", leadership.holder, leadership.token)
}
