//! A burst of lines with one signature as one reading, and for how long it says something.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Fold, Line, signature::Match};
use crate::{SourceName, source::Reading};

/// Lines shown of one burst.
pub const SAMPLES_KEPT: usize = 3;
/// Shown of one of them, in bytes.
const SAMPLE_LIMIT_BYTES: usize = 400;
/// A longer silence ends a burst; the next line begins another.
pub const QUIET: SignedDuration = SignedDuration::from_mins(10);
/// For so long after its last line a reading is evidence for what is so now.
pub const EVIDENCE_FOR: SignedDuration = SignedDuration::from_mins(15);

/// Label: the host that wrote the lines, as it calls itself. Missing where lines of several are one burst.
pub const HOST: &str = "host";
/// Label: the service that the signature is about.
pub const SERVICE: &str = "service";
/// Label: what the signature tells apart, mostly nothing.
pub const ABOUT: &str = "about";
/// Label: the word of its severity.
pub const SEVERITY: &str = "severity";

/// What tells bursts of one signature apart: host and detail, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kind(pub u64);

impl Kind {
    /// All together; no line is of this kind by itself.
    pub const COARSE: Self = Self(0);

    fn of(host: &str, about: &str) -> Self {
        // 64-bit FNV-1a: the same for every version, for it is stored. A collision folds two bursts into one.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes = host.bytes().chain([255]).chain(about.bytes());
        let sum = bytes.fold(OFFSET, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        Self(sum.max(1))
    }
}

/// The reading of one line, and its kind.
pub(super) fn of_line(source: &SourceName, line: &Line, found: &Match<'_>) -> (Kind, Reading) {
    let signature = found.signature;
    let host = match signature.fold {
        Fold::Host => line.host.as_str(),
        Fold::Service => "",
    };
    let labels = [
        (HOST, host),
        (SERVICE, &signature.service),
        (ABOUT, &found.about),
    ];
    let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
    let reading = Reading {
        source: source.clone(),
        key: key(&signature.id, host, &found.about),
        name: signature.id.clone(),
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        count: 1,
        first: line.at,
        last: line.at,
        lag_millis: lag(line),
        samples: vec![sample(line)],
    };
    (Kind::of(host, &found.about), reading)
}

fn key(name: &str, host: &str, about: &str) -> String {
    [name, host, about]
        .join("/")
        .trim_end_matches('/')
        .to_owned()
}

/// A line as people may see it: when, who, what.
fn sample(line: &Line) -> String {
    let text = line.shown(SAMPLE_LIMIT_BYTES);
    format!("{:.3} {} {}: {text}", line.at, line.host, line.program)
}

/// How long it took a line into the store, where the store tells.
fn lag(line: &Line) -> Option<u64> {
    let ingested = line.ingested?;
    u64::try_from(ingested.duration_since(line.at).as_millis()).ok()
}

/// The same reading with hosts and details not told apart.
pub(super) fn coarse(mut reading: Reading) -> Reading {
    reading.labels = reading
        .labels
        .into_iter()
        .filter(|(name, _)| name == SERVICE || name == SEVERITY)
        .collect::<BTreeMap<_, _>>();
    reading.key = key(&reading.name, "", "");
    reading
}

/// Takes in lines of the same burst.
pub fn join(known: &mut Reading, other: Reading) {
    known.count = known.count.saturating_add(other.count);
    known.first = known.first.min(other.first);
    known.last = known.last.max(other.last);
    known.lag_millis = known.lag_millis.max(other.lag_millis);
    // They begin with their time, so they sort by it.
    known.samples.extend(other.samples);
    known.samples.sort();
    known.samples.dedup();
    let more = known.samples.len().saturating_sub(SAMPLES_KEPT);
    known.samples.drain(..more);
}

/// Pure: what is known of a burst after more lines of its kind. Lines after a long silence are another burst; late ones belong to the
/// one that is known, so that each is counted somewhere.
pub fn fold(known: Option<Reading>, fresh: Reading) -> Reading {
    match known {
        Some(mut known) if fresh.first.duration_since(known.last) <= QUIET => {
            join(&mut known, fresh);
            known
        }
        _ => fresh,
    }
}

/// What a reading is worth now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Evidence,
    /// It tells of the past. Not that all is well: that no line came since proves nothing.
    Aged {
        why: String,
    },
}

/// Pure.
pub fn standing(reading: &Reading, now: Timestamp) -> Standing {
    let age = now.duration_since(reading.last);
    if age <= EVIDENCE_FOR {
        return Standing::Evidence;
    }
    Standing::Aged {
        why: format!(
            "the last such line is {} min old, and only {} min count; that none came since proves nothing",
            age.as_mins(),
            EVIDENCE_FOR.as_mins()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn reading(second: i64) -> Reading {
        Reading {
            source: SourceName("logs".into()),
            key: "mariadb.sst_failed/ctl1".into(),
            name: "mariadb.sst_failed".into(),
            labels: [(HOST.to_owned(), "ctl1".to_owned())].into(),
            count: 1,
            first: at(second),
            last: at(second),
            lag_millis: None,
            samples: vec![format!("{:.3} ctl1 mariadb: {second}", at(second))],
        }
    }

    #[test]
    fn a_burst_is_one_reading_with_count_times_and_few_samples() {
        let mut known = None;
        for second in [5, 1, 9, 600, 30] {
            known = Some(fold(known, reading(second)));
        }
        let known = known.unwrap();
        assert_eq!((known.count, known.first, known.last), (5, at(1), at(600)));
        let shown: Vec<_> = known
            .samples
            .iter()
            .map(|one| one.rsplit(' ').next())
            .collect();
        assert_eq!(shown, [Some("9"), Some("30"), Some("600")]);
        let again = fold(Some(known), reading(1_201));
        assert_eq!((again.count, again.first), (1, at(1_201)));
        let late = fold(Some(again), reading(2));
        assert_eq!((late.count, late.first), (2, at(2)), "none is lost");
    }

    #[test]
    fn silence_ages_evidence_and_proves_nothing() {
        let one = reading(0);
        assert_eq!(standing(&one, at(900)), Standing::Evidence);
        assert_eq!(standing(&one, at(-60)), Standing::Evidence, "a clock ahead");
        let Standing::Aged { why } = standing(&one, at(901)) else {
            panic!("it is old");
        };
        assert!(why.contains("proves nothing"), "{why}");
    }
}
