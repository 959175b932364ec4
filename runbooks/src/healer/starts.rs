//! How many alerts began lately, for the storm gate. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::storm;

/// More than any limit of a storm.
const KEPT: usize = 10_000;

/// Alerts that another incident explains do not count; those that may turn out to be so count when it has not come to that.
#[derive(Default)]
pub(super) struct Starts {
    began: VecDeque<Timestamp>,
    /// In the order in which they are due.
    waiting: VecDeque<(Timestamp, String)>,
}

impl Starts {
    pub fn began(&mut self, at: Timestamp) {
        self.began.push_back(at);
        if self.began.len() > KEPT {
            self.began.pop_front();
        }
    }

    pub fn may_be_symptom(&mut self, until: Timestamp, key: String) {
        // So many at once are a storm, whatever they are.
        match self.waiting.len() < KEPT {
            true => self.waiting.push_back((until, key)),
            false => self.began(until),
        }
    }

    pub fn count(&mut self, now: Timestamp, is_explained: impl Fn(&str) -> bool) -> usize {
        while let Some((at, key)) = self.waiting.pop_front_if(|(at, _)| *at <= now) {
            if !is_explained(&key) {
                self.began(at);
            }
        }
        let old = |at: &mut Timestamp| now.duration_since(*at) > storm::WINDOW;
        while self.began.pop_front_if(old).is_some() {}
        self.began.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symptom_counts_only_if_nothing_explains_it_in_time() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut starts = Starts::default();
        starts.began(at(0));
        starts.may_be_symptom(at(30), "a".into());
        starts.may_be_symptom(at(31), "b".into());
        assert_eq!(starts.count(at(1), |_| false), 1);
        assert_eq!(starts.count(at(30), |key| key == "a"), 1);
        assert_eq!(starts.count(at(31), |key| key == "a"), 2);
        assert_eq!(starts.count(at(301), |_| false), 1, "the first is old");
        assert_eq!(starts.count(at(400), |_| false), 0);
    }
}
