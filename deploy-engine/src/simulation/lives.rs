//! Which bots are alive, and which are born when.

use std::collections::BTreeSet;

use futures::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;

use crate::{job::JobResult, runner::RunError};

/// The last one drives the rival.
pub const BOTS: [&str; 3] = ["bot0", "bot1", "bot2"];
pub const RIVAL: usize = 2;

/// How a life ended.
pub enum End {
    Finished(JobResult),
    Error(RunError),
    Killed,
    /// Killed, and with it everything that runs on its host.
    PowerCut,
    /// The rival's job has ended, or is left to people.
    Rival,
}

pub type Life<'s> = LocalBoxFuture<'s, (usize, End)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Birth {
    at: Timestamp,
    bot: usize,
    /// Only if nobody else drives the job.
    if_needed: bool,
}

#[derive(Default)]
pub struct Lives<'s> {
    running: FuturesUnordered<Life<'s>>,
    alive: BTreeSet<usize>,
    births: Vec<Birth>,
    /// The rival's job has been begun and has not ended.
    rival_is_open: bool,
}

impl<'s> Lives<'s> {
    pub fn expect(&mut self, bot: usize, at: Timestamp) {
        self.plan(bot, at, false);
    }

    pub fn expect_if_needed(&mut self, bot: usize, at: Timestamp) {
        self.plan(bot, at, true);
    }

    fn plan(&mut self, bot: usize, at: Timestamp, if_needed: bool) {
        self.births.push(Birth { at, bot, if_needed });
        // The next one last.
        self.births.sort_by(|one, other| other.cmp(one));
    }

    pub fn next_birth(&self) -> Option<Timestamp> {
        self.births.last().map(|birth| birth.at)
    }

    /// Whose birth it is, unless it is not needed any more.
    pub fn take_birth(&mut self) -> Option<usize> {
        let birth = self.births.pop()?;
        let driven = self.alive.iter().any(|bot| *bot != RIVAL);
        (!birth.if_needed || !driven).then_some(birth.bot)
    }

    pub fn begin(&mut self, bot: usize, life: Life<'s>) {
        self.alive.insert(bot);
        self.rival_is_open |= bot == RIVAL;
        self.running.push(life);
    }

    /// Whose life ends next, and how. `None`: nobody lives.
    pub async fn next_end(&mut self) -> Option<(usize, End)> {
        let (bot, end) = self.running.next().await?;
        self.alive.remove(&bot);
        self.rival_is_open &= !matches!(end, End::Rival);
        Some((bot, end))
    }

    /// All of them end now, and come back later; nobody is born before.
    pub fn end_all(&mut self, back_at: Timestamp) {
        self.running.clear();
        for birth in &mut self.births {
            birth.at = birth.at.max(back_at);
        }
        for bot in std::mem::take(&mut self.alive) {
            self.expect(bot, back_at);
        }
    }

    /// Nobody lives, and no rival is to come back.
    pub fn is_over(&self) -> bool {
        self.running.is_empty() && !self.rival_is_open
    }
}
