//! Icinga 2: its hosts and services as alerts, and who takes care of them.
//!
//! The event stream says *that* something changed, the objects say *what* is so. So it does not matter whether an event was
//! missed, came twice or came late, and nothing depends on what an event holds beyond the name of its object. Each connection
//! opens the stream first and reads everything then; what changes in between is in one of both.
//!
//! A problem is an alert once its state is hard, and until its state is OK; a soft state changes nothing. An object without a check
//! result (Icinga lost its state, or has just got the object) says nothing.
//!
//! Least rights of the API user: `events/*`, `status/query`, `objects/query/Host`, `…/Service`, `…/Comment`, `…/Downtime`; to
//! write back ([`actions`]) `actions/acknowledge-problem`, `…/remove-acknowledgement`, `…/schedule-downtime`,
//! `…/remove-downtime`, `…/add-comment`.

pub mod actions;
mod client;
mod events;
mod objects;
#[cfg(test)]
mod rig;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How its answers and events are read; pure.
pub mod answer {
    pub use super::{
        events::touched_by,
        objects::{acknowledgements, checks, downtimes, problems},
    };
}

pub use client::Icinga2Client;
pub use objects::{CheckState, Held, HeldBy, Named};

use crate::{
    SourceName,
    source::{Ear, Pace, Source, State, Told},
};
use client::Master;

/// The usual pace: everything is read once a minute, in case the stream is deaf and does not know it.
pub const PACE: Pace = Pace {
    every: Duration::from_secs(60),
    ..Pace::ASKED
};
/// Changes are gathered for so long before their objects are read, so that a storm is read in few questions.
const GATHER: Duration = Duration::from_millis(200);
/// More objects than these are not asked for by name: everything is read.
const NAMED_MAX: usize = 200;
/// From so much on its clock is wrong, or the bot's: more than any answer takes.
const CLOCK_OFF: SignedDuration = SignedDuration::from_secs(60);

/// Follows one Icinga, or the masters of one zone, which show the same objects.
pub struct Icinga2 {
    client: Icinga2Client,
    /// Which of the masters is followed next.
    turn: AtomicUsize,
    pace: Pace,
}

impl Icinga2 {
    pub fn new(client: Icinga2Client, pace: Pace) -> Self {
        Self {
            client,
            turn: AtomicUsize::new(0),
            pace,
        }
    }

    /// Follows one master until something fails; `worked` is set once it has worked.
    async fn connection(&self, ear: &dyn Ear, worked: &mut bool) -> Result<(), String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let master = self.client.master(turn).ok_or("no address is configured")?;
        let mut lines = master.events().await.map_err(|error| error.to_string())?;
        let mut touched: BTreeSet<Named> = BTreeSet::new();
        let (mut some_next, mut all_next) = (None, Instant::now());
        loop {
            let next = some_next.map_or(all_next, |at: Instant| at.min(all_next));
            tokio::select! {
                biased;
                () = sleep_until(next) => {
                    let named = std::mem::take(&mut touched);
                    some_next = None;
                    if next < all_next && named.len() <= NAMED_MAX {
                        self.tell_some(master, ear, &named).await?;
                        ear.works();
                        continue;
                    }
                    match self.tell_all(master, ear).await? {
                        None => ear.works(),
                        Some(complaint) => ear.fails(&complaint),
                    }
                    *worked = true;
                    all_next = Instant::now() + self.pace.every;
                }
                more = lines.next() => {
                    touched.extend(more.map_err(|error| error.to_string())?);
                    if !touched.is_empty() {
                        some_next = some_next.or_else(|| Some(Instant::now() + GATHER));
                    }
                }
            }
        }
    }

    /// What is wrong although it answered, if anything is.
    async fn tell_all(&self, master: &Master, ear: &dyn Ear) -> Result<Option<String>, String> {
        let vitals = master.vitals().await.map_err(|error| error.to_string())?;
        let ahead = vitals.now.duration_since(Timestamp::now());
        let part = master.read(None).await.map_err(|error| error.to_string())?;
        vitals.fit(&part).map_err(|why| master.says(&why))?;
        self.tell(ear, part.state(self.name())).await?;
        Ok((ahead.abs() > CLOCK_OFF).then(|| {
            let seconds = ahead.as_secs();
            master.says(&format!(
                "expected its clock to be right, found it {seconds} s ahead of the bot's"
            ))
        }))
    }

    async fn tell_some(
        &self,
        master: &Master,
        ear: &dyn Ear,
        named: &BTreeSet<Named>,
    ) -> Result<(), String> {
        let part = master.read(Some(named)).await;
        let part = part.map_err(|error| error.to_string())?;
        self.tell(ear, part.state(self.name())).await
    }

    async fn tell(&self, ear: &dyn Ear, state: State) -> Result<(), String> {
        let told = ear.tell(Told::State(state), None).await;
        told.map_err(|why| why.to_string())
    }
}

#[async_trait]
impl Source for Icinga2 {
    fn name(&self) -> &SourceName {
        self.client.name()
    }

    async fn follow(&self, ear: Arc<dyn Ear>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let mut worked = false;
            let connection = self.connection(&*ear, &mut worked);
            let Some(how) = stop.run_until_cancelled(connection).await else {
                return;
            };
            failures = if worked { 1 } else { failures + 1 };
            if let Err(why) = how {
                ear.fails(&why);
            }
            let pause = tokio::time::sleep(self.pace.pause(failures));
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "icinga2/tests.rs"]
mod tests;
