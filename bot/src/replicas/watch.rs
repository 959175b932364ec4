//! Whose count stands still. Pure: times are handed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::DEAD_AFTER;

/// Who did not look for so long was asleep, or its store was: what it then sees says nothing about the time between.
const GAP: Duration = Duration::from_secs(4);

/// Counts as they were last seen to change, by our own clock.
#[derive(Debug, Default)]
pub struct Watch {
    seen: HashMap<String, (i64, Instant)>,
    looked: Option<Instant>,
}

impl Watch {
    /// What counts stand at now. Those that are not named any more are forgotten.
    pub fn observe<'a>(&mut self, counts: impl IntoIterator<Item = (&'a str, i64)>, now: Instant) {
        let gap = self.looked.map(|at| now.saturating_duration_since(at));
        if gap.is_some_and(|gap| gap >= GAP) {
            self.blind(now);
        }
        self.looked = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        for (name, count) in counts {
            let since = match before.remove(name) {
                Some((same, since)) if same == count => since,
                _ => now,
            };
            self.seen.insert(name.to_owned(), (count, since));
        }
    }

    /// Nothing could be seen: everybody gets the full time again, because they could not say that they live either.
    pub fn blind(&mut self, now: Instant) {
        for (_, since) in self.seen.values_mut() {
            *since = now;
        }
    }

    /// Did its count stand still for long enough? Not of one that was never seen.
    pub fn is_dead(&self, name: &str, now: Instant) -> bool {
        self.seen
            .get(name)
            .is_some_and(|(_, since)| now.saturating_duration_since(*since) >= DEAD_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dead_is_whose_count_stands_still_while_we_could_see_it() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        watch.observe([("a", 1), ("b", 1)], at(0));
        watch.observe([("a", 1), ("b", 1)], at(2));
        watch.observe([("a", 2), ("b", 1)], at(4));
        assert!(!watch.is_dead("b", at(4)), "not yet");
        assert!(watch.is_dead("b", at(5)));
        assert!(!watch.is_dead("a", at(8)), "it counted at 4");
        assert!(!watch.is_dead("c", at(99)), "never seen is not dead");

        // The store was away: nobody could count.
        watch.blind(at(8));
        assert!(!watch.is_dead("b", at(12)));
        assert!(watch.is_dead("b", at(13)));

        // A count that went back is a change, too: it was made anew.
        watch.observe([("b", 0)], at(14));
        assert!(!watch.is_dead("b", at(15)));
        assert!(!watch.is_dead("a", at(99)), "not named any more");

        // We slept: whoever counts once a second gets the time to show it.
        watch.observe([("b", 0)], at(30));
        assert!(!watch.is_dead("b", at(34)));
        assert!(watch.is_dead("b", at(35)));
    }
}
