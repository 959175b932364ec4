//! What the bot cannot see right now. Silence of a blind source is not good news.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::SourceName;

/// So many failures one after another are no hiccup: the source is named although its last success is not old yet.
const FAILURES: u32 = 3;

/// How it went with a source so far. Kept by whoever asks it (or receives from it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceHealth {
    pub source: SourceName,
    /// What it shows when it works, for people: `alerts of Alertmanager`.
    pub shows: String,
    /// A success at least this often, or it is blind.
    pub expected_every: SignedDuration,
    pub last_success: Option<Timestamp>,
    pub last_error: Option<(Timestamp, String)>,
    /// One after another, since the last success.
    pub failures: u32,
}

impl SourceHealth {
    pub fn succeeded(&mut self, now: Timestamp) {
        self.last_success = Some(now);
        self.failures = 0;
    }

    pub fn failed(&mut self, now: Timestamp, error: &str) {
        self.last_error = Some((now, error.to_owned()));
        self.failures = self.failures.saturating_add(1);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlindSpot {
    pub source: SourceName,
    pub shows: String,
    /// None: it never worked since the bot knows it.
    pub since: Option<Timestamp>,
    pub why: String,
}

impl fmt::Display for BlindSpot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): blind ", self.shows, self.source)?;
        match self.since {
            Some(since) => write!(f, "since {since:.0}")?,
            None => f.write_str("from the start")?,
        }
        write!(f, ": {}", self.why)
    }
}

/// Pure: the sources whose last success is too old, or that fail again and again, with the last error if it came after it.
pub fn report<'a>(
    sources: impl IntoIterator<Item = &'a SourceHealth>,
    now: Timestamp,
) -> Vec<BlindSpot> {
    let blind = |health: &&SourceHealth| {
        let is_old = |at| now.duration_since(at) > health.expected_every;
        health.failures >= FAILURES || health.last_success.is_none_or(is_old)
    };
    let spot = |health: &SourceHealth| BlindSpot {
        source: health.source.clone(),
        shows: health.shows.clone(),
        since: health.last_success,
        why: match &health.last_error {
            Some((at, error)) if health.last_success.is_none_or(|success| *at >= success) => {
                format!("{error} (at {at:.0})")
            }
            _ => "nothing was heard".to_owned(),
        },
    };
    sources.into_iter().filter(blind).map(spot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_success_is_blind_and_says_why() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut health = SourceHealth {
            source: SourceName("prom".into()),
            shows: "metrics".into(),
            expected_every: SignedDuration::from_secs(60),
            last_success: None,
            last_error: None,
            failures: 0,
        };
        assert_eq!(report([&health], at(0))[0].why, "nothing was heard");
        health.failed(at(5), "connection refused");
        assert_eq!(
            report([&health], at(6))[0].to_string(),
            "metrics (prom): blind from the start: connection refused (at 1970-01-01T00:00:05Z)"
        );
        health.succeeded(at(10));
        assert_eq!(report([&health], at(70)), []);
        assert_eq!(report([&health], at(71))[0].since, Some(at(10)));
        assert_eq!(report([&health], at(71))[0].why, "nothing was heard");
    }

    #[test]
    fn a_source_that_says_that_it_fails_is_named_before_its_success_is_old() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut health = SourceHealth {
            source: SourceName("icinga2".into()),
            shows: "hosts and services".into(),
            expected_every: SignedDuration::from_secs(200),
            last_success: Some(at(0)),
            last_error: None,
            failures: 0,
        };
        for second in 1..FAILURES {
            health.failed(at(i64::from(second)), "expected JSON, found HTML");
            assert_eq!(report([&health], at(5)), []);
        }
        health.failed(at(4), "expected JSON, found HTML");
        let spots = report([&health], at(5));
        assert!(spots[0].why.starts_with("expected JSON, found HTML"));
        health.succeeded(at(6));
        assert_eq!(report([&health], at(6)), []);
    }
}
