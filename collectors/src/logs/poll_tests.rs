//! The same reading against a store that lags, loses answers and is restarted upon: each planted line is counted exactly once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::logs::{Fold, Pattern, Severity, Signature};

const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

#[derive(Clone, Debug)]
struct Written {
    at: i64,
    /// Searchable on the first copy from then on.
    arrives: i64,
    host: usize,
    planted: bool,
}

/// A store with two copies of which the second lags behind, without snapshots, that grows while it is read.
struct Store {
    all: Vec<Written>,
    now: i64,
    /// How far the second copy lags.
    lag: i64,
    page: usize,
    /// Calls so far; chooses the copy, and which call fails.
    calls: usize,
    fails: Vec<usize>,
    /// Of all programs, or only those with signatures?
    filtered: bool,
}

impl Store {
    fn seen(&mut self) -> Result<Vec<(usize, Written)>, SourceError> {
        self.calls += 1;
        if self.fails.contains(&self.calls) {
            return Err(SourceError::Unreachable {
                asked: "the store".into(),
                found: "nobody".into(),
            });
        }
        // Time passes while the store is asked.
        self.now += 1;
        let now = self.now
            - if self.calls.is_multiple_of(2) {
                self.lag
            } else {
                0
            };
        let all = self.all.iter().cloned().enumerate();
        let seen = all.filter(|(_, one)| one.arrives <= now && (one.planted || !self.filtered));
        let mut seen: Vec<_> = seen.collect();
        seen.sort_by_key(|(index, one)| (one.at, *index));
        Ok(seen)
    }
}

impl Shelf for Store {
    type After = (i64, usize);

    async fn count(&mut self, from: Timestamp, to: Timestamp) -> Result<Count, SourceError> {
        let mut count = Count::default();
        for (_, one) in self.seen()? {
            if (from..to).contains(&at(one.at)) {
                *count.buckets.entry(bucket_of(at(one.at))).or_default() += 1;
                count.newest = count.newest.max(Some(at(one.at)));
            }
        }
        Ok(count)
    }

    async fn page(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        after: Option<&(i64, usize)>,
    ) -> Result<Page<(i64, usize)>, SourceError> {
        let size = self.page;
        let seen = self.seen()?.into_iter();
        let rest = seen.filter(|(index, one)| {
            (from..to).contains(&at(one.at)) && after.is_none_or(|after| (one.at, *index) > *after)
        });
        let page: Vec<_> = rest.take(size).collect();
        let last = page.last().map(|(index, one)| (one.at, *index));
        let line = |(index, one): (usize, Written)| Line {
            order: at(one.at),
            at: at(one.at),
            ingested: None,
            host: format!("ctl{}", one.host),
            program: "mariadb".into(),
            level: String::new(),
            text: format!(
                "{} number {index}",
                if one.planted { "SST failed" } else { "well" }
            ),
        };
        Ok(Page {
            after: last.filter(|_| page.len() == size),
            lines: page.into_iter().map(line).collect(),
            too_large: 0,
        })
    }
}

fn signatures(fold: Fold) -> Signatures {
    Signatures::new(vec![Signature {
        id: "mariadb.sst_failed".into(),
        service: "mariadb".into(),
        programs: vec!["mariadb".into()],
        pattern: Pattern::Phrase("SST failed".into()),
        severity: Severity::Warning,
        feeds: vec![],
        fold,
        means: String::new(),
    }])
    .unwrap()
}

/// What came of it all: host → lines counted; and how many lines were read.
struct Told {
    counted: BTreeMap<String, u64>,
    lines: u64,
}

/// Polls until long after the last arrival. `steps`: seconds between polls, and whether the bot dies before what it found was stored.
fn run(mut store: Store, fold: Fold, steps: &[(i64, bool)]) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (signatures, window) = (signatures(fold), Window::default());
    let name = SourceName("logs".into());
    let mut kept = serde_json::to_string(&Cursor::new(at(0), &window)).unwrap();
    let mut told = Told {
        counted: BTreeMap::new(),
        lines: 0,
    };
    let last = store.all.iter().map(|one| one.arrives).max().unwrap_or(0);
    let end = last + window.late.as_secs() + 200;
    let mut steps = steps.iter().chain(std::iter::repeat(&(30, false)));
    while store.now < end {
        // Every poll is a restart: what counts is what was stored.
        let cursor: Cursor = serde_json::from_str(&kept).unwrap();
        let now = at(store.now);
        let polled = runtime.block_on(poll(&mut store, &name, &cursor, &signatures, &window, now));
        let (pause, dies) = steps.next().unwrap();
        store.now += pause;
        let Ok(polled) = polled else { continue };
        told.lines += polled.lines;
        if *dies {
            continue;
        }
        kept = serde_json::to_string(&polled.cursor).unwrap();
        for reading in polled.readings {
            assert_eq!(polled.given_up, None);
            let host = reading.labels.get("host").cloned().unwrap_or_default();
            *told.counted.entry(host).or_default() += reading.count;
        }
    }
    told
}

fn planted(store: &[Written], in_time: impl Fn(&Written) -> bool) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for one in store.iter().filter(|one| one.planted && in_time(one)) {
        *counts.entry(format!("ctl{}", one.host)).or_default() += 1;
    }
    counts
}

fn written() -> impl Strategy<Value = Vec<Written>> {
    let one = (0i64..900, 0i64..260, 0usize..3, prop::bool::weighted(0.3));
    let one = one.prop_map(|(at, late, host, planted)| Written {
        at,
        arrives: at + late,
        host,
        planted,
    });
    prop::collection::vec(one, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_planted_line_is_counted_exactly_once(
        all in written(),
        steps in prop::collection::vec((1i64..60, prop::bool::weighted(0.2)), 0..40),
        fails in prop::collection::vec(1usize..150, 0..20),
        page in 1usize..9,
        lag in 0i64..25,
        filtered: bool,
    ) {
        let store = Store { all: all.clone(), now: 0, lag, page, calls: 0, fails, filtered };
        // What every copy shows within the window, and well before the look at which the window has moved on.
        let sure = Window::default().late.as_secs() - lag - 1;
        let must = planted(&all, |one| one.arrives - one.at <= sure);
        let may = planted(&all, |_| true);
        let told = run(store, Fold::Host, &steps);
        for (host, count) in &told.counted {
            prop_assert!(count <= &may[host], "{host}: {count} of {may:?}");
        }
        for (host, count) in &must {
            let counted = told.counted.get(host).copied().unwrap_or(0);
            prop_assert!(counted >= *count, "{host}: {counted} of at least {count}");
        }
    }

    #[test]
    fn what_is_in_time_is_counted_to_the_line(
        mut all in written(),
        steps in prop::collection::vec((1i64..60, prop::bool::weighted(0.2)), 0..40),
        page in 1usize..9,
    ) {
        for one in &mut all {
            one.arrives = one.at + (one.arrives - one.at).min(150);
        }
        let store = Store { all: all.clone(), now: 0, lag: 20, page, calls: 0, fails: vec![], filtered: false };
        prop_assert_eq!(run(store, Fold::Host, &steps).counted, planted(&all, |_| true));
    }
}

fn store(all: Vec<Written>) -> Store {
    Store {
        all,
        now: 0,
        lag: 0,
        page: 1_000,
        calls: 0,
        fails: vec![],
        filtered: false,
    }
}

#[test]
fn a_line_is_read_again_only_when_its_bucket_changes() {
    let line = |second: i64| Written {
        at: second,
        arrives: second,
        host: 0,
        planted: false,
    };
    let all: Vec<_> = (0..600).map(line).collect();
    let told = run(store(all), Fold::Host, &[(30, false); 20]);
    // Every 30 s, with buckets of 10 s: some are read when they are half full, and again.
    assert!((600..900).contains(&told.lines), "{}", told.lines);
}

#[test]
fn lines_of_all_peers_are_one_reading_where_the_signature_says_so() {
    let line = |host: usize| Written {
        at: 10,
        arrives: 10,
        host,
        planted: true,
    };
    let told = run(store((0..3).map(line).collect()), Fold::Service, &[]);
    assert_eq!(told.counted, [(String::new(), 3)].into());
}

#[test]
fn a_flood_of_names_is_counted_to_the_line_and_not_told_apart() {
    let line = |host: usize| Written {
        at: 10 + (host as i64 % 3),
        arrives: 10 + (host as i64 % 50),
        host,
        planted: true,
    };
    let told = run(
        store((0..2_000).map(line).collect()),
        Fold::Host,
        &[(7, false); 20],
    );
    assert_eq!(told.counted.values().sum::<u64>(), 2_000);
    assert!(told.counted.contains_key(""));
}

#[test]
fn a_long_absence_is_caught_up_with_and_a_longer_one_is_named() {
    let window = Window::default();
    let cursor = Cursor::new(at(0), &window);
    let hour = 3_600;
    let (from, to) = cursor.span(at(10 * hour), &window);
    assert_eq!((from, to), (at(-180), at(2 * hour - 180)));
    let mut late = cursor.clone();
    assert_eq!(late.give_up(at(20 * hour), &window), None);
    let given_up = late.give_up(at(25 * hour), &window).unwrap();
    assert_eq!(given_up, (at(-180), at(hour)));
    assert_eq!(late.from(), at(hour));
    let mut closed = cursor;
    closed.close(at(10 * hour), to, None, &window);
    assert_eq!(closed.from(), to, "all of it is too old to change any more");
    closed.close(
        at(10 * hour),
        at(10 * hour + 60),
        Some(at(3 * hour)),
        &window,
    );
    assert_eq!(closed.from(), at(3 * hour), "not past what was not read");
}
