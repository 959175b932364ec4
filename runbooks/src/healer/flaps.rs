//! Alerts that come and go: while they do, their ends are not believed, so that one thing that flaps is one incident and one
//! message, and not one for every time.

use std::collections::{BTreeMap, HashMap};

use collectors::{
    Alert,
    flap::{self, Flap},
};
use jiff::{SignedDuration, Timestamp};

use crate::incident::alert_key;

/// Alerts whose changes are remembered; in a storm of more nothing is folded.
const KEPT: usize = 10_000;
/// Old changes are looked for so often at the most.
const PRUNE: SignedDuration = SignedDuration::from_mins(1);

#[derive(Default)]
pub(super) struct Flaps {
    changes: HashMap<String, Vec<Timestamp>>,
    pruned_at: Option<Timestamp>,
    /// Ends that are not believed yet, and until when.
    held: BTreeMap<String, (Timestamp, Alert)>,
}

impl Flaps {
    /// It fires, again or for the first time.
    pub fn began(&mut self, key: &str, now: Timestamp) {
        self.held.remove(key);
        if let Some(changes) = self.changes.get_mut(key) {
            remember(changes, now);
        }
    }

    /// It has ended.
    pub fn ended(&mut self, key: &str, started: Timestamp, now: Timestamp) -> Flap {
        self.prune(now);
        if self.changes.len() >= KEPT && !self.changes.contains_key(key) {
            return Flap::Steady;
        }
        let fresh = || vec![started];
        let changes = self.changes.entry(key.to_owned()).or_insert_with(fresh);
        remember(changes, now);
        flap::judge(changes, now)
    }

    pub fn hold(&mut self, until: Timestamp, alert: &Alert) {
        self.held.insert(alert_key(alert), (until, alert.clone()));
    }

    /// Ends that are to be believed now: the alert has not come again, or `at_once`.
    pub fn due(&mut self, now: Timestamp, at_once: impl Fn(&str) -> bool) -> Vec<Alert> {
        let due = self
            .held
            .extract_if(.., |key, (until, _)| *until <= now || at_once(key));
        due.map(|(_, (_, alert))| alert).collect()
    }

    pub fn next_at(&self) -> Option<Timestamp> {
        self.held.values().map(|(until, _)| *until).min()
    }

    fn prune(&mut self, now: Timestamp) {
        if self
            .pruned_at
            .is_some_and(|at| now.duration_since(at) < PRUNE)
        {
            return;
        }
        self.pruned_at = Some(now);
        let recent = |at: &Timestamp| now.duration_since(*at) < flap::WINDOW;
        self.changes.retain(|_, all| all.iter().any(recent));
    }
}

fn remember(changes: &mut Vec<Timestamp>, at: Timestamp) {
    changes.push(at);
    if changes.len() > flap::HISTORY {
        changes.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_not_believed_while_it_flaps() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let mut flaps = Flaps::default();
        assert_eq!(flaps.ended("a", at(0), at(1)), Flap::Steady);
        flaps.began("a", at(2));
        let Flap::Flapping { until, .. } = flaps.ended("a", at(2), at(3)) else {
            panic!("fire, end, fire, end")
        };
        assert_eq!(until, at(30), "when the first of the four is old");
        assert_eq!(flaps.ended("b", at(0), at(3)), Flap::Steady);
        assert_eq!(flaps.ended("b", at(0), at(90)), Flap::Steady, "long ago");
        assert!(flaps.changes.len() == 1, "what is old is forgotten");
    }

    #[test]
    fn very_many_are_not_remembered() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut flaps = Flaps::default();
        for n in 0..KEPT + 10 {
            flaps.ended(&n.to_string(), at(0), at(1));
        }
        assert_eq!(flaps.changes.len(), KEPT);
    }
}
