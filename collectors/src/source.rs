//! What a source is: one file that follows one monitoring system and tells what it sees, and nothing else.
//!
//! A source decides nothing and stores nothing. It tells an [`Ear`], which answers when what was told is on the disk; so a
//! crash at any point neither skips nor doubles anything, by one of two ways:
//! - What can be read again as a whole (Icinga, Alertmanager) is told as [`State`]: telling it twice changes nothing
//!   ([`crate::settle`]), and whatever was missed is in the next one.
//! - What can only be read on from a place (logs) is told with [`Progress`]: the place is stored in the same transaction, and
//!   only if it still is where the source began, so that of two bots one tells it.
//!
//! Rules for every source; `conformance` holds each to them:
//! 1. A bad answer (down, slow, cut off, another schema, HTML, a redirect, no right, a certificate that has ended) tells nothing
//!    but [`Ear::fails`]. It never becomes "nothing fires": [`State`] comes from complete, well-formed answers alone.
//! 2. It backs off by [`Pace`], and goes on for as long as it is not told to stop. It never panics on what it reads.
//! 3. What [`Ear::tell`] does not take is not skipped: the source asks again, and tells what is so by then.
//! 4. Every buffer, line and answer has a limit.

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{Alert, SourceName};

/// Nothing that is looked at less often than once a day is evidence; a longer interval is a mistake or hostile, and would make times
/// overflow.
pub(crate) const LONGEST_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Follows one monitoring system.
#[async_trait]
pub trait Source: Send + Sync {
    fn name(&self) -> &SourceName;

    /// Tells what it sees until told to stop; returns for no other reason.
    async fn follow(&self, ear: Arc<dyn Ear>, stop: CancellationToken);
}

/// Hears one source.
#[async_trait]
pub trait Ear: Send + Sync {
    /// Durable when it returns, together with the progress.
    ///
    /// # Errors
    /// Nothing of it was taken.
    async fn tell(&self, told: Told, progress: Option<Progress>) -> Result<(), NotKept>;

    /// How far the source got before; none: it begins.
    ///
    /// # Errors
    /// [`NotKept::Store`]: it is unknown, so the source must not begin anew.
    async fn cursor(&self) -> Result<Option<String>, NotKept>;

    /// The source answered as it should.
    fn works(&self);

    /// It did not, and why, for people.
    fn fails(&self, why: &str);
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Single alerts, in any order, perhaps again ([`crate::fold`]).
    Alerts(Vec<Alert>),
    /// How things are: the source's own truth, of all of it or a part.
    State(State),
    /// What is no alert by itself: evidence (log lines, folded).
    Readings(Vec<Reading>),
}

/// How things were when the source was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// When the question was asked, by the bot's clock. What was heard after that is not judged by this answer.
    pub asked_at: Timestamp,
    pub covers: Covers,
    /// What fires.
    pub firing: Vec<Alert>,
    /// Fingerprint → when it ended, by the source's clock, for what does not fire and of which the source knows that.
    pub ended: BTreeMap<String, Timestamp>,
    /// Fingerprint → who handles it. What fires or is covered and is not named here, nobody handles.
    pub handled: BTreeMap<String, Handling>,
}

/// What a [`State`] is about. What it covers and does not name has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// Everything that the source knows.
    Everything,
    /// Everything but the alerts with these fingerprints: of them it cannot say whether they fire (a check without a result).
    EverythingBut(BTreeSet<String>),
    /// The alerts with these fingerprints.
    These(BTreeSet<String>),
    /// Nothing but what it names: the source cannot say yet what has ended (it started a moment ago).
    WhatItNames,
}

impl State {
    /// Does it say who handles this alert?
    pub fn judges_handling_of(&self, fingerprint: &str) -> bool {
        let fires = || self.firing.iter().any(|one| one.fingerprint == fingerprint);
        self.covers.covers(fingerprint) || fires()
    }
}

impl Covers {
    pub fn covers(&self, fingerprint: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::EverythingBut(those) => !those.contains(fingerprint),
            Self::These(these) => these.contains(fingerprint),
            Self::WhatItNames => false,
        }
    }
}

/// Who takes care of an alert, by what was said in the monitoring system itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    pub acknowledged: Option<Care>,
    /// Those in effect.
    pub downtimes: Vec<Care>,
    pub silences: Vec<Care>,
}

impl Handling {
    pub fn is_nobody(&self) -> bool {
        self.acknowledged.is_none() && self.downtimes.is_empty() && self.silences.is_empty()
    }
}

/// One such word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Care {
    /// Its name there: a comment, a downtime, a silence.
    pub id: String,
    /// Empty: the source does not say.
    pub by: String,
    pub comment: String,
    pub since: Option<Timestamp>,
    /// None: until somebody ends it, or the alert ends.
    pub until: Option<Timestamp>,
}

/// Evidence that is no alert: alike lines of a log, folded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub source: SourceName,
    /// Readings with the same key tell of the same and may be added up.
    pub key: String,
    /// What was seen, by the name in the source's table: `rabbitmq.inconsistent_database`.
    pub name: String,
    /// What it is about: `host`, `service`, ….
    pub labels: BTreeMap<String, String>,
    /// How often it was seen between `first` and `last`, by the clocks of those who wrote it.
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// The longest time between an event and when the source showed it, in milliseconds; none: the source does not say.
    pub lag_millis: Option<u64>,
    /// A few of them, tamed.
    pub samples: Vec<String>,
}

/// How far a source has read: stored only if the cursor is still `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub from: Option<String>,
    /// Opaque to everybody but the source; at most [`CURSOR_LIMIT_BYTES`].
    pub to: String,
}

/// The longest cursor, in bytes: ten minutes of logs in a flood of kinds of lines.
pub const CURSOR_LIMIT_BYTES: usize = 256 * 1024;

/// Why nothing of what was told was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The bot is behind. Wait, and ask again.
    #[error("there is no room for more alerts now")]
    Full,
    /// Wait, and ask again.
    #[error("it could not be stored: {0}")]
    Store(String),
    /// Somebody else read on meanwhile: begin again from [`Ear::cursor`].
    #[error("another bot has read on from the same place")]
    Moved,
}

/// How fast a source is asked, and how it backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two questions that went well.
    pub every: Duration,
    /// Before the first attempt after a failure; doubled with each further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Pace {
    /// For a source that is asked: three answers may be missed within the time after which it counts as blind (100 s).
    pub const ASKED: Self = Self {
        every: Duration::from_secs(30),
        first_pause: Duration::from_secs(1),
        // A source that is back is seen again within a minute, and one that is overloaded is not asked more than once in one.
        longest_pause: Duration::from_secs(60),
    };

    /// The pause after so many failures in a row (at least one).
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause
            .saturating_mul(doubled)
            .min(self.longest_pause)
    }
}

/// Drives a source that is asked again and again: one round after another, with the pauses of `pace`, until told to stop. `round`
/// says why it did not go well, for people.
pub(crate) async fn rounds<F, Fut>(
    ear: &dyn Ear,
    pace: &Pace,
    stop: &CancellationToken,
    mut round: F,
) where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    let mut failures = 0;
    loop {
        let Some(how) = stop.run_until_cancelled(round()).await else {
            return;
        };
        let pause = match how {
            Ok(()) => {
                failures = 0;
                ear.works();
                pace.every
            }
            Err(why) => {
                failures += 1;
                ear.fails(&why);
                pace.pause(failures)
            }
        };
        let sleep = tokio::time::sleep(pause);
        if stop.run_until_cancelled(sleep).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |failures| Pace::ASKED.pause(failures).as_secs();
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, 1_000].map(seconds).into();
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60]);
    }
}
