//! How long something has been so. A single look can hit the one quiet second of a flapping network.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What a decision wants to stay the same: name → a text that changes when it changes.
pub type Facts = BTreeMap<&'static str, String>;

/// Changes of one fact within [`FLAP_WINDOW`] from which it counts as flapping.
pub const FLAPS: usize = 4;
/// Longer than detection, confirmation and one repair together.
pub const FLAP_WINDOW: SignedDuration = SignedDuration::from_mins(30);
/// A pause between two looks longer than this breaks "all the time": nobody looked.
pub const LOOK_GAP: SignedDuration = SignedDuration::from_secs(90);

/// One fact as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    pub value: String,
    pub since: Timestamp,
    pub seen: Timestamp,
    /// When it changed, newest last; at most [`FLAPS`].
    pub changes: Vec<Timestamp>,
}

/// Facts over time; kept with the incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub BTreeMap<String, Since>);

impl Steady {
    /// Takes in what was seen at `now`. A fact that could not be told this time starts anew.
    pub fn look(mut self, facts: &Facts, now: Timestamp) -> Self {
        for (name, since) in &mut self.0 {
            if !facts.contains_key(name.as_str()) && since.value != UNTOLD {
                since.change(UNTOLD, now);
            }
        }
        for (name, value) in facts {
            let fresh = || Since {
                value: value.clone(),
                since: now,
                seen: now,
                changes: Vec::new(),
            };
            let since = self.0.entry((*name).to_owned()).or_insert_with(fresh);
            if since.value != *value {
                since.change(value, now);
            } else if now.duration_since(since.seen) > LOOK_GAP {
                since.since = now;
            }
            since.seen = now;
        }
        self
    }

    /// Since when the fact is as it is.
    pub fn since(&self, name: &str) -> Option<Timestamp> {
        self.0
            .get(name)
            .filter(|since| since.value != UNTOLD)
            .map(|since| since.since)
    }

    /// Changed so often lately that it says nothing.
    pub fn flaps(&self, name: &str, now: Timestamp) -> bool {
        let recent = |at: &&Timestamp| now.duration_since(**at) < FLAP_WINDOW;
        self.0
            .get(name)
            .is_some_and(|since| since.changes.iter().filter(recent).count() >= FLAPS)
    }
}

/// The value of a fact that could not be told.
const UNTOLD: &str = "\u{0}unknown";

impl Since {
    fn change(&mut self, value: &str, now: Timestamp) {
        // Learning what was unknown, or losing sight of it, is no change of the thing itself.
        if value != UNTOLD && self.value != UNTOLD {
            self.changes.push(now);
            let keep = self.changes.len().saturating_sub(FLAPS);
            self.changes.drain(..keep);
        }
        value.clone_into(&mut self.value);
        self.since = now;
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(value: &str) -> Facts {
        [("x", value.to_owned())].into()
    }

    #[test]
    fn a_change_an_unknown_and_a_gap_start_anew() {
        let steady = Steady::default()
            .look(&facts("a"), at(0))
            .look(&facts("a"), at(60));
        assert_eq!(steady.since("x"), Some(at(0)));
        let changed = steady.clone().look(&facts("b"), at(61));
        assert_eq!(changed.since("x"), Some(at(61)));
        let unknown = steady.clone().look(&Facts::new(), at(61));
        assert_eq!(unknown.since("x"), None);
        assert_eq!(unknown.look(&facts("a"), at(62)).since("x"), Some(at(62)));
        assert_eq!(steady.look(&facts("a"), at(200)).since("x"), Some(at(200)));
    }

    #[test]
    fn four_changes_flap_until_they_are_old() {
        let mut steady = Steady::default();
        for (second, value) in ["a", "b", "a", "b", "a"].iter().enumerate() {
            steady = steady.look(&facts(value), at(second as i64));
        }
        assert!(steady.flaps("x", at(5)));
        assert!(!steady.flaps("x", at(5_000)));
        assert!(!steady.flaps("y", at(5)));
    }
}
