//! Up to where a store of logs was read, so that no line is skipped or counted twice: over restarts, late arrivals, and copies of
//! the store that lag behind each other.
//!
//! Time is cut into buckets. A bucket is read again whenever it holds another number of lines than were read of it, until it is older
//! than the latest arrival that is waited for. Lines are only ever added, so of each kind of line exactly what a bucket has more than
//! before is new: no line needs to be remembered by itself, and the cursor stays small in any flood.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::reading::Kind;

/// Width of a bucket, in seconds: what is read again for one late line.
pub const BUCKET_SECONDS: i64 = 10;
/// Read at once after a long absence, in seconds; the rest follows at once.
const SPAN_SECONDS: i64 = 2 * 60 * 60;
/// Kinds of lines told apart in one bucket; of the signatures with most of them, hosts and details are not. Keeps the cursor small.
const KINDS_KEPT: usize = 32;

/// For how long, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// A line may become searchable so long after its own time; a later one is not seen.
    pub late: SignedDuration,
    /// Lines may be so far ahead of the bot's clock; one that is further ahead is read when its time has come so near.
    pub ahead: SignedDuration,
    /// Older lines are not read after an absence, and that is said.
    pub catch_up: SignedDuration,
}

impl Default for Window {
    /// Kolla's fluentd flushes every 15 s, and tries again for minutes when a node restarts.
    fn default() -> Self {
        Self {
            late: SignedDuration::from_mins(3),
            ahead: SignedDuration::from_mins(1),
            catch_up: SignedDuration::from_hours(24),
        }
    }
}

/// Lines with a signature: its id → their kind → how many.
pub(super) type Matched = BTreeMap<String, BTreeMap<u64, u64>>;

/// What was read of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bucket {
    /// Lines.
    pub lines: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matched: Matched,
}

/// Seconds since the epoch at which a bucket begins.
pub type Start = i64;

/// The start of the bucket that a time is in.
pub fn bucket_of(at: Timestamp) -> Start {
    at.as_second().div_euclid(BUCKET_SECONDS) * BUCKET_SECONDS
}

fn time_of(start: Start) -> Timestamp {
    let end = match start {
        ..0 => Timestamp::MIN,
        _ => Timestamp::MAX,
    };
    Timestamp::from_second(start).unwrap_or(end)
}

/// Times of buckets that follow each other: from, and up to but without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Lines that are said to be in it.
    pub lines: u64,
}

/// Up to where was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Nothing older is looked at any more.
    from: Start,
    /// Buckets since then that were read.
    buckets: BTreeMap<Start, Bucket>,
}

impl Cursor {
    /// Of a store that was never read: what is older than the latest arrival waited for is not news.
    pub fn new(now: Timestamp, window: &Window) -> Self {
        Self {
            from: bucket_of(back(now, window.late)),
            buckets: BTreeMap::new(),
        }
    }

    /// Nothing older is looked at any more.
    pub fn from(&self) -> Timestamp {
        time_of(self.from)
    }

    /// Gives up what is too old to be caught up with; says from when to when.
    pub fn give_up(&mut self, now: Timestamp, window: &Window) -> Option<(Timestamp, Timestamp)> {
        let first = bucket_of(back(now, window.catch_up.max(window.late)));
        let given_up = (self.from < first).then(|| (self.from(), time_of(first)));
        self.forget_before(first);
        given_up
    }

    /// What to look at now: from, and up to but without.
    pub fn span(&self, now: Timestamp, window: &Window) -> (Timestamp, Timestamp) {
        let ahead = bucket_of(now.saturating_add(window.ahead).unwrap_or(now)) + BUCKET_SECONDS;
        let to = ahead
            .min(self.from.saturating_add(SPAN_SECONDS))
            .max(self.from.saturating_add(BUCKET_SECONDS));
        (self.from(), time_of(to))
    }

    /// Pure: ranges that hold another number of lines than were read of them, each of about `lines_at_once` lines or one bucket.
    pub fn changed(&self, counts: &BTreeMap<Start, u64>, lines_at_once: u64) -> Vec<Range> {
        let read = |start: &Start| self.buckets.get(start).map_or(0, |bucket| bucket.lines);
        let changed = counts
            .iter()
            .filter(|(start, lines)| **start >= self.from && **lines != read(start));
        let mut ranges: Vec<Range> = Vec::new();
        for (start, lines) in changed {
            let (from, to) = (
                time_of(*start),
                time_of(start.saturating_add(BUCKET_SECONDS)),
            );
            match ranges.last_mut() {
                Some(last) if last.to == from && last.lines + lines <= lines_at_once => {
                    (last.to, last.lines) = (to, last.lines + lines);
                }
                _ => ranges.push(Range {
                    from,
                    to,
                    lines: *lines,
                }),
            }
        }
        ranges
    }

    /// Records what a bucket holds; what it holds more than before. A copy of the store that lags behind takes nothing away: what
    /// was counted stays counted.
    pub(super) fn take(&mut self, start: Start, mut bucket: Bucket) -> Matched {
        let known = self.buckets.entry(start).or_default();
        known.lines = bucket.lines;
        while kinds(&bucket.matched) > KINDS_KEPT && coarsen_most(&mut bucket.matched) {}
        let mut more = Matched::new();
        for (signature, mut now) in bucket.matched {
            let before = known.matched.entry(signature.clone()).or_default();
            if is_coarse(before) != is_coarse(&now) {
                coarsen(before);
                coarsen(&mut now);
            }
            for (kind, count) in now {
                let before = before.entry(kind).or_default();
                if count > *before {
                    more.entry(signature.clone())
                        .or_default()
                        .insert(kind, count - *before);
                    *before = count;
                }
            }
        }
        more
    }

    /// After everything up to `to` was read but for what begins at `unread`: moves to the oldest time at which a line may still
    /// arrive. `asked`: when the reading began, by the bot's clock.
    pub fn close(
        &mut self,
        asked: Timestamp,
        to: Timestamp,
        unread: Option<Timestamp>,
        window: &Window,
    ) {
        let settled = back(asked, window.late).min(to);
        let first = bucket_of(unread.map_or(settled, |unread| unread.min(settled)));
        self.forget_before(first);
    }

    fn forget_before(&mut self, first: Start) {
        if first > self.from {
            self.from = first;
            self.buckets = self.buckets.split_off(&first);
        }
    }
}

fn back(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

fn kinds(matched: &Matched) -> usize {
    matched.values().map(BTreeMap::len).sum()
}

fn is_coarse(kinds: &BTreeMap<u64, u64>) -> bool {
    kinds.contains_key(&Kind::COARSE.0)
}

/// Not told apart any more.
fn coarsen(kinds: &mut BTreeMap<u64, u64>) {
    let sum: u64 = kinds.values().sum();
    if sum > 0 {
        *kinds = [(Kind::COARSE.0, sum)].into();
    }
}

/// False: no signature tells more than one kind apart.
fn coarsen_most(matched: &mut Matched) -> bool {
    let most = matched.values_mut().max_by_key(|kinds| kinds.len());
    match most {
        Some(kinds) if kinds.len() > 1 => {
            coarsen(kinds);
            true
        }
        _ => false,
    }
}
