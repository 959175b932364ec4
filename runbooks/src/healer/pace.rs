//! How often incidents whose alerts change again and again are put on record. Pure.
//!
//! The alerts themselves are in the store before the healer hears of them, and a restart reads them from there; so in a storm an
//! incident of hundreds of alerts need not be written anew for every message, and all of them are written together.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::incident::IncidentId;

/// Between two records of one incident that differ in nothing but its alerts.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The same of one with more alerts than it keeps whole: its record is some 50 KiB, and a storm has a hundred of them.
const PAUSE_IN_STORM: SignedDuration = SignedDuration::from_secs(10);

struct Next {
    at: Timestamp,
    /// Something changed that is not on record.
    waits: bool,
}

/// Incidents whose alerts changed, or were put on record a moment ago.
#[derive(Default)]
pub(super) struct Pace(BTreeMap<IncidentId, Next>);

impl Pace {
    /// Its alerts changed: [`Pace::due`] names it now or in a moment.
    pub fn changed(&mut self, id: &IncidentId, now: Timestamp) {
        let next = self.0.entry(id.clone()).or_insert(Next {
            at: now,
            waits: true,
        });
        next.waits = true;
    }

    /// Incidents that are to be put on record now. Whoever changes no more is forgotten. `is_large`: it has very many alerts.
    pub fn due(
        &mut self,
        now: Timestamp,
        is_large: impl Fn(&IncidentId) -> bool,
    ) -> Vec<IncidentId> {
        let mut due = Vec::new();
        self.0.retain(|id, next| {
            if now < next.at {
                return true;
            }
            if next.waits {
                due.push(id.clone());
                let pause = match is_large(id) {
                    true => PAUSE_IN_STORM,
                    false => PAUSE,
                };
                *next = Next {
                    at: now + pause,
                    waits: false,
                };
                return true;
            }
            false
        });
        due
    }

    /// When the next one waits for its record.
    pub fn next_at(&self) -> Option<Timestamp> {
        let waiting = self.0.values().filter(|next| next.waits);
        waiting.map(|next| next.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_at_once_the_rest_together_and_nothing_stays_behind() {
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let (one, other) = (IncidentId("i1".into()), IncidentId("i2".into()));
        let due = |pace: &mut Pace, now| pace.due(now, |_| false);
        let mut pace = Pace::default();
        pace.changed(&one, at(0));
        pace.changed(&one, at(0));
        assert_eq!(due(&mut pace, at(0)), vec![one.clone()]);
        assert_eq!(pace.next_at(), None);
        (1..100).for_each(|ms| pace.changed(&one, at(ms)));
        assert_eq!(due(&mut pace, at(100)), vec![]);
        pace.changed(&other, at(100));
        assert_eq!(due(&mut pace, at(100)), vec![other]);
        assert_eq!(pace.next_at(), Some(at(1_000)));
        assert_eq!(due(&mut pace, at(999)), vec![]);
        assert_eq!(due(&mut pace, at(1_000)), vec![one.clone()]);
        pace.changed(&one, at(1_500));
        assert_eq!(due(&mut pace, at(2_000)), vec![one.clone()]);
        assert_eq!(due(&mut pace, at(9_000)), vec![]);
        assert!(pace.0.is_empty());
    }

    #[test]
    fn a_large_one_is_recorded_less_often() {
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let one = IncidentId("i1".into());
        let mut pace = Pace::default();
        pace.changed(&one, at(0));
        assert_eq!(pace.due(at(0), |_| true), vec![one.clone()]);
        pace.changed(&one, at(1));
        assert_eq!(pace.next_at(), Some(at(10_000)));
        assert_eq!(pace.due(at(9_999), |_| true), vec![]);
        assert_eq!(pace.due(at(10_000), |_| true), vec![one]);
    }
}
