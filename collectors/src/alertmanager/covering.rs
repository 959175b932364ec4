//! Silences by the labels that they are about: in a storm there may be one for each of very many alerts, and asking each of them about
//! each alert costs the product of both.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Matcher, Silence};

/// Silences, each found by the rarest label that it wants.
#[derive(Debug)]
pub struct SilenceIndex {
    all: Vec<Silence>,
    /// Label → value → which of `all`.
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// Those that want no label to be just something: expressions, negations, absent labels.
    others: Vec<usize>,
}

/// An alert without the label cannot be covered.
fn wants(matcher: &Matcher) -> bool {
    matcher.is_equal && !matcher.is_regex && !matcher.value.is_empty()
}

impl From<Vec<Silence>> for SilenceIndex {
    fn from(all: Vec<Silence>) -> Self {
        let mut wanted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for matcher in all.iter().flat_map(|one| &one.matchers) {
            *wanted.entry((&matcher.name, &matcher.value)).or_default() += 1;
        }
        let (mut by_label, mut others) = (BTreeMap::<String, BTreeMap<_, Vec<_>>>::new(), vec![]);
        for (place, silence) in all.iter().enumerate() {
            let wants = silence.matchers.iter().filter(|one| wants(one));
            let rarest = wants.min_by_key(|one| wanted.get(&(one.name.as_str(), &one.value)));
            match rarest {
                Some(Matcher { name, value, .. }) => {
                    let values = by_label.entry(name.clone()).or_default();
                    values.entry(value.clone()).or_default().push(place);
                }
                None => others.push(place),
            }
        }
        Self {
            all,
            by_label,
            others,
        }
    }
}

impl SilenceIndex {
    /// Those that cover an alert with these labels at `now`, in the order in which they were given.
    pub fn covering(&self, labels: &BTreeMap<String, String>, now: Timestamp) -> Vec<&Silence> {
        let named = labels
            .iter()
            .filter_map(|(name, value)| self.by_label.get(name)?.get(value));
        let mut places: Vec<usize> = named.flatten().chain(&self.others).copied().collect();
        places.sort_unstable();
        let some = places.into_iter().filter_map(|place| self.all.get(place));
        some.filter(|one| one.covers(labels, now)).collect()
    }

    pub fn of_id(&self, id: &str) -> Option<&Silence> {
        self.all.iter().find(|one| one.id == id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alertmanager::SilenceState;

    fn silence(id: usize, matchers: Vec<Matcher>) -> Silence {
        Silence {
            id: id.to_string(),
            status: SilenceState::Active,
            created_by: String::new(),
            comment: String::new(),
            starts_at: Timestamp::UNIX_EPOCH,
            ends_at: Timestamp::MAX,
            matchers,
        }
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        let parts = ("[ab]", "[xy]?|x\\|y", any::<bool>(), any::<bool>());
        parts.prop_map(|(name, value, is_regex, is_equal)| Matcher {
            name,
            value,
            is_regex,
            is_equal,
        })
    }

    proptest! {
        /// Found are exactly those that asking each of them finds.
        #[test]
        fn none_is_missed_and_none_is_added(
            all in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 0..12),
            labels in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        ) {
            let all: Vec<Silence> = all.into_iter().enumerate().map(|(id, one)| silence(id, one)).collect();
            let now = Timestamp::from_second(1).unwrap();
            let expected: Vec<&Silence> = all.iter().filter(|one| one.covers(&labels, now)).collect();
            let silences = SilenceIndex::from(all.clone());
            prop_assert_eq!(silences.covering(&labels, now), expected);
            prop_assert_eq!(silences.of_id("0"), all.first());
        }
    }
}
