//! How often incidents whose alerts change again and again are put on record. Pure.
//!
//! The alerts themselves are in the store before the healer hears of them, and a restart reads them from there; so in a storm an
//! incident of hundreds of alerts need not be written anew for every message, and all of them are written together.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::incident::IncidentId;

/// Between two records of one incident that differ in nothing but its alerts.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);

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

    /// Incidents that are to be put on record now. Whoever changes no more is forgotten.
    pub fn due(&mut self, now: Timestamp) -> Vec<IncidentId> {
        let mut due = Vec::new();
        self.0.retain(|id, next| {
            if now < next.at {
                return true;
            }
            if next.waits {
                due.push(id.clone());
                *next = Next {
                    at: now + PAUSE,
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
        let mut pace = Pace::default();
        pace.changed(&one, at(0));
        pace.changed(&one, at(0));
        assert_eq!(pace.due(at(0)), vec![one.clone()]);
        assert_eq!(pace.next_at(), None);
        (1..100).for_each(|ms| pace.changed(&one, at(ms)));
        assert_eq!(pace.due(at(100)), vec![]);
        pace.changed(&other, at(100));
        assert_eq!(pace.due(at(100)), vec![other]);
        assert_eq!(pace.next_at(), Some(at(1_000)));
        assert_eq!(pace.due(at(999)), vec![]);
        assert_eq!(pace.due(at(1_000)), vec![one.clone()]);
        pace.changed(&one, at(1_500));
        assert_eq!(pace.due(at(2_000)), vec![one.clone()]);
        assert_eq!(pace.due(at(9_000)), vec![]);
        assert!(pace.0.is_empty());
    }
}
