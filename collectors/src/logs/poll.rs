//! One look at a store of logs: counts first, then the lines of whatever changed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Cursor, Line, Signatures, Window,
    cursor::{BUCKET_SECONDS, Bucket, Matched, Range, Start, bucket_of},
    reading::{Kind, coarse, join, of_line},
};
use crate::{SourceError, SourceName, source::Reading};

/// Lines read in one go; a cursor is kept after each. A few seconds of reading.
pub const LINES_PER_POLL: u64 = 200_000;
/// Lines of one range: what is read again when a poll is cut short.
const LINES_PER_RANGE: u64 = 50_000;

/// What a store says it holds, of all that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Lines by bucket; only those of programs that have signatures, if the store can tell them apart.
    pub buckets: BTreeMap<Start, u64>,
    /// The newest line of any program.
    pub newest: Option<Timestamp>,
}

/// Some lines of a range, in the store's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page<After> {
    pub lines: Vec<Line>,
    /// Where the next page begins; none: this is the last.
    pub after: Option<After>,
    /// Lines that are too large to be read; they are in `lines` without their text.
    pub too_large: u64,
}

/// A store of logs, as it is at one moment if it can do that.
pub trait Shelf {
    type After;

    /// How many lines there are from `from` up to but without `to`.
    ///
    /// # Errors
    /// Also when the store could not look everywhere: a part is never taken for the whole.
    fn count(
        &mut self,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Future<Output = Result<Count, SourceError>> + Send;

    /// The next lines of a range.
    ///
    /// # Errors
    /// As for [`Shelf::count`].
    fn page(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Self::After>,
    ) -> impl Future<Output = Result<Page<Self::After>, SourceError>> + Send;
}

/// What one look found. What it tells and the cursor belong into one transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Polled {
    pub cursor: Cursor,
    /// Only what is new.
    pub readings: Vec<Reading>,
    /// Lines that were read.
    pub lines: u64,
    /// Those that were too large to be read.
    pub too_large: u64,
    /// The newest line in the store, and how long ago that was written: the lag of the way there, or silence.
    pub newest: Option<Timestamp>,
    pub lag: Option<SignedDuration>,
    /// There is more to be read at once.
    pub more: bool,
    /// Not read and never will be: too old to be caught up with.
    pub given_up: Option<(Timestamp, Timestamp)>,
}

/// Reads what is new. `now`: before the store is asked, by the bot's clock.
///
/// # Errors
/// When anything could not be read: then nothing of this look counts, and the cursor stays.
pub async fn poll<S: Shelf>(
    shelf: &mut S,
    source: &SourceName,
    cursor: &Cursor,
    signatures: &Signatures,
    window: &Window,
    now: Timestamp,
) -> Result<Polled, SourceError> {
    let mut cursor = cursor.clone();
    let given_up = cursor.give_up(now, window);
    let (from, to) = cursor.span(now, window);
    let count = shelf.count(from, to).await?;
    let mut polled = Polled {
        cursor,
        readings: Vec::new(),
        lines: 0,
        too_large: 0,
        newest: count.newest,
        lag: count.newest.map(|newest| now.duration_since(newest)),
        more: false,
        given_up,
    };
    let (mut fresh, mut unread) = (BTreeMap::new(), None);
    for range in polled.cursor.changed(&count.buckets, LINES_PER_RANGE) {
        if polled.lines >= LINES_PER_POLL {
            unread = Some(range.from);
            break;
        }
        let read = read(shelf, source, range, signatures).await?;
        polled.lines += read.lines;
        polled.too_large += read.too_large;
        for (start, bucket) in read.buckets {
            take(&mut polled.cursor, start, &bucket, &mut fresh);
        }
    }
    polled.readings = fresh.into_values().collect();
    polled.cursor.close(now, to, unread, window);
    polled.more = unread.is_some() || to <= now;
    Ok(polled)
}

/// What was read of one range.
#[derive(Default)]
struct Read {
    buckets: BTreeMap<Start, Found>,
    lines: u64,
    too_large: u64,
}

/// Kinds of lines held apart while one bucket is read; in a flood of more, none are.
const KINDS_HELD: usize = 1_000;

/// What was found in one bucket.
#[derive(Default)]
struct Found {
    lines: u64,
    readings: BTreeMap<(String, Kind), Reading>,
    coarse: bool,
}

impl Found {
    fn add(&mut self, kind: Kind, reading: Reading) {
        let (kind, reading) = match self.coarse {
            true => (Kind::COARSE, coarse(reading)),
            false => (kind, reading),
        };
        let key = (reading.name.clone(), kind);
        match self.readings.get_mut(&key) {
            Some(known) => join(known, reading),
            None => drop(self.readings.insert(key, reading)),
        }
        if !self.coarse && self.readings.len() > KINDS_HELD {
            self.coarse = true;
            let fine = std::mem::take(&mut self.readings);
            fine.into_values()
                .for_each(|reading| self.add(Kind::COARSE, reading));
        }
    }

    fn bucket(&self) -> Bucket {
        let mut matched = Matched::new();
        for ((signature, kind), reading) in &self.readings {
            let kinds = matched.entry(signature.clone()).or_default();
            kinds.insert(kind.0, reading.count);
        }
        Bucket {
            lines: self.lines,
            matched,
        }
    }

    /// The reading of a kind, or of all that are not told apart.
    fn of(&self, signature: &str, kind: Kind) -> Option<Reading> {
        if let Some(reading) = self.readings.get(&(signature.to_owned(), kind)) {
            return Some(reading.clone());
        }
        let same = self
            .readings
            .iter()
            .filter(|((name, _), _)| name == signature);
        let mut all = same.map(|(_, reading)| coarse(reading.clone()));
        let mut joined = all.next()?;
        all.for_each(|reading| join(&mut joined, reading));
        Some(joined)
    }
}

async fn read<S: Shelf>(
    shelf: &mut S,
    source: &SourceName,
    range: Range,
    signatures: &Signatures,
) -> Result<Read, SourceError> {
    let mut read = Read::default();
    // A bucket that turns out empty was read, too.
    let mut start = bucket_of(range.from);
    while start < range.to.as_second() {
        read.buckets.insert(start, Found::default());
        start += BUCKET_SECONDS;
    }
    let mut after = None;
    loop {
        let page = shelf.page(range.from, range.to, after.as_ref()).await?;
        read.lines += page.lines.len() as u64;
        read.too_large += page.too_large;
        for line in &page.lines {
            // What was not asked for is not counted: it would be again in its own range.
            let Some(found) = read.buckets.get_mut(&bucket_of(line.order)) else {
                continue;
            };
            found.lines += 1;
            for one in signatures.of(line) {
                let (kind, reading) = of_line(source, line, &one);
                found.add(kind, reading);
            }
        }
        after = page.after;
        if after.is_none() {
            return Ok(read);
        }
    }
}

/// Counts what a bucket has more than was known of it.
fn take(cursor: &mut Cursor, start: Start, found: &Found, fresh: &mut BTreeMap<String, Reading>) {
    for (signature, kinds) in cursor.take(start, found.bucket()) {
        for (kind, more) in kinds {
            let Some(mut reading) = found.of(&signature, Kind(kind)) else {
                continue;
            };
            reading.count = more;
            match fresh.get_mut(&reading.key) {
                // Within one look they are one burst, however far apart.
                Some(known) => join(known, reading),
                None => drop(fresh.insert(reading.key.clone(), reading)),
            }
        }
    }
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
