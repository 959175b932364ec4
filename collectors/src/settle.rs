//! How a source's whole state changes what is known of its alerts. Pure.
//!
//! The state is the source's own truth, so it is not compared by the times in it (a clock that was set back must not hide an
//! alert) but by when it was asked for: it judges what was heard before that, and nothing that was heard after.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{Alert, Change, Status, source::State};

/// An end that was told is believed for this long against a state that still names the alert: one of a pair of Alertmanagers
/// forgets an alert that Prometheus no longer sends to it after four evaluation intervals or its `resolve_timeout`, 5 min.
pub const LAG: SignedDuration = SignedDuration::from_mins(5);

/// An answer takes no longer than this: whatever was received later than that after the question comes from a clock of the bot
/// that was set back since, and is judged.
pub const ANSWERED: SignedDuration = SignedDuration::from_mins(2);

/// What changes: each alert that must replace what is known of it, with what that means. `known`: the alerts of this source, by
/// fingerprint; of those that it does not name only the firing ones matter.
pub fn settle(known: &BTreeMap<String, Alert>, state: &State) -> Vec<(Alert, Change)> {
    let mut named = BTreeMap::new();
    for alert in &state.firing {
        // Of two that a source names alike (a pair that disagrees) the one that began first tells more.
        let kept = named.entry(alert.fingerprint.as_str()).or_insert(alert);
        if alert.starts_at < kept.starts_at {
            *kept = alert;
        }
    }
    let firing = named.values().filter_map(|alert| {
        let change = fires(known.get(&alert.fingerprint), alert, state.asked_at)?;
        let received_at = state.asked_at;
        Some((
            Alert {
                received_at,
                ..(*alert).clone()
            },
            change,
        ))
    });
    let gone = known.values().filter(|alert| {
        alert.status == Status::Firing
            && !heard_since(alert, state.asked_at)
            && state.covers.covers(&alert.fingerprint)
            && !named.contains_key(alert.fingerprint.as_str())
    });
    let gone = gone.map(|alert| {
        let ended = Alert {
            status: Status::Resolved,
            ends_at: state.ended.get(&alert.fingerprint).copied(),
            received_at: state.asked_at,
            ..alert.clone()
        };
        (ended, Change::Resolved)
    });
    firing.chain(gone).collect()
}

fn heard_since(known: &Alert, asked_at: Timestamp) -> bool {
    let later = known.received_at.duration_since(asked_at);
    (SignedDuration::ZERO..=ANSWERED).contains(&later)
}

/// What it means that this one fires; none: nothing new.
fn fires(known: Option<&Alert>, alert: &Alert, asked_at: Timestamp) -> Option<Change> {
    let Some(known) = known else {
        return Some(Change::New);
    };
    if heard_since(known, asked_at) {
        return None;
    }
    match (known.status, known.ends_at) {
        (Status::Firing, _) => (alert.starts_at > known.starts_at).then_some(Change::Refiring),
        (Status::Resolved, Some(ended)) if alert.starts_at < ended => {
            let told_long_ago = asked_at.duration_since(known.received_at).abs() > LAG;
            told_long_ago.then_some(Change::Refiring)
        }
        (Status::Resolved, _) => Some(Change::Refiring),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        SourceName, fold,
        source::{Covers, State},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn firing(fingerprint: &str, starts: i64, received: i64) -> Alert {
        Alert {
            source: SourceName("s".into()),
            fingerprint: fingerprint.into(),
            name: "X".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            status: Status::Firing,
            starts_at: at(starts),
            ends_at: None,
            generator_url: String::new(),
            received_at: at(received),
        }
    }

    fn over(fingerprint: &str, starts: i64, ends: Option<i64>, received: i64) -> Alert {
        Alert {
            status: Status::Resolved,
            ends_at: ends.map(at),
            ..firing(fingerprint, starts, received)
        }
    }

    fn state(asked: i64, covers: Covers, firing: Vec<Alert>) -> State {
        State {
            asked_at: at(asked),
            covers,
            firing,
            ended: BTreeMap::new(),
            handled: BTreeMap::new(),
        }
    }

    fn known(alerts: Vec<Alert>) -> BTreeMap<String, Alert> {
        let named = alerts
            .into_iter()
            .map(|alert| (alert.fingerprint.clone(), alert));
        named.collect()
    }

    #[rstest::rstest]
    #[case::first(None, 5, Some(Change::New))]
    #[case::again(Some(firing("a", 5, 6)), 5, None)]
    #[case::merged_start(Some(firing("a", 5, 6)), 4, None)]
    #[case::end_was_missed(Some(firing("a", 5, 6)), 50, Some(Change::Refiring))]
    #[case::after_its_end(Some(over("a", 5, Some(40), 41)), 50, Some(Change::Refiring))]
    #[case::a_list_that_lags(Some(over("a", 5, Some(90), 91)), 5, None)]
    #[case::its_clock_was_set_back(Some(over("a", 900, Some(950), 1)), 5, Some(Change::Refiring))]
    #[case::ended_by_absence(Some(over("a", 5, None, 20)), 5, Some(Change::Refiring))]
    #[case::heard_since(Some(over("a", 5, Some(401), 401)), 5, None)]
    fn what_fires(
        #[case] before: Option<Alert>,
        #[case] starts: i64,
        #[case] expected: Option<Change>,
    ) {
        let known = known(before.into_iter().collect());
        // Asked 390 s after the clock began, so `LAG` after what was received before second 90.
        let state = state(390, Covers::Everything, vec![firing("a", starts, 0)]);
        let changes: Vec<_> = settle(&known, &state)
            .into_iter()
            .map(|(_, change)| change)
            .collect();
        assert_eq!(changes, Vec::from_iter(expected));
    }

    #[test]
    fn what_it_covers_and_does_not_name_has_ended() {
        let known = known(vec![
            firing("a", 1, 2),
            firing("b", 1, 2),
            firing("late", 1, 100),
            over("old", 1, Some(2), 2),
        ]);
        let ended = |covers: Covers| {
            let mut state = state(100, covers, Vec::new());
            state.ended.insert("a".into(), at(50));
            let ended = settle(&known, &state).into_iter();
            let ended = ended.map(|(alert, change)| {
                assert_eq!((alert.status, change), (Status::Resolved, Change::Resolved));
                (alert.fingerprint, alert.ends_at)
            });
            ended.collect::<Vec<_>>()
        };
        let (a, b) = (("a".to_owned(), Some(at(50))), ("b".to_owned(), None));
        assert_eq!(ended(Covers::Everything), [a, b.clone()]);
        let but_a = Covers::EverythingBut(["a".to_owned()].into());
        assert_eq!(ended(but_a), std::slice::from_ref(&b));
        assert_eq!(ended(Covers::These(["b".to_owned()].into())), [b]);
        assert_eq!(ended(Covers::WhatItNames), []);
    }

    #[test]
    fn a_clock_of_the_bot_that_was_set_back_hides_nothing() {
        let known = known(vec![firing("a", 1, 100), firing("b", 1, 10_000)]);
        let ended = settle(&known, &state(50, Covers::Everything, Vec::new()));
        let ended: Vec<_> = ended.iter().map(|(alert, _)| &alert.fingerprint).collect();
        assert_eq!(
            ended,
            ["b"],
            "a was heard of while the answer was on its way"
        );
    }

    #[test]
    fn a_message_after_an_end_by_absence_opens_it_again_and_an_older_one_does_not() {
        let before = known(vec![firing("a", 1, 2)]);
        let ended = settle(&before, &state(100, Covers::Everything, Vec::new()));
        let ended = &ended[0].0;
        assert_eq!(fold(Some(ended), &firing("a", 1, 99)), Change::Stale);
        assert_eq!(fold(Some(ended), &firing("a", 1, 101)), Change::Refiring);
        let told = over("a", 1, Some(60), 101);
        assert_eq!(fold(Some(ended), &told), Change::Resolved);
    }

    fn alerts() -> impl Strategy<Value = Vec<Alert>> {
        let one = (0..4_u8, any::<bool>(), 0..20_i64, 0..20_i64, 0..30_i64);
        let one = one.prop_map(|(name, fires, starts, lasts, received)| {
            let name = name.to_string();
            match fires {
                true => firing(&name, starts, received),
                false => over(&name, starts, Some(starts + lasts), received),
            }
        });
        prop::collection::vec(one, 0..8)
    }

    fn after(mut known: BTreeMap<String, Alert>, state: &State) -> BTreeMap<String, Alert> {
        let changes = settle(&known, state);
        known.extend(changes.into_iter().map(|(a, _)| (a.fingerprint.clone(), a)));
        known
    }

    proptest! {
        /// A crash after what was told is stored, and before the source knows: it is told again.
        #[test]
        fn told_twice_is_told_once(before in alerts(), now in alerts(), asked in 0..40_i64) {
            let state = state(asked, Covers::Everything, now.into_iter().filter(|a| a.status == Status::Firing).collect());
            let after = after(known(before), &state);
            prop_assert_eq!(settle(&after, &state), Vec::new());
        }

        /// However much was missed and whatever the clocks said: after `LAG` the source's truth is what is known.
        #[test]
        fn the_state_wins_in_the_end(before in alerts(), now in alerts()) {
            let now: Vec<_> = now.into_iter().filter(|a| a.status == Status::Firing).collect();
            let state = state(40 + LAG.as_secs(), Covers::Everything, now);
            let after = after(known(before), &state);
            for (name, alert) in &after {
                let named = state.firing.iter().any(|one| one.fingerprint == *name);
                prop_assert_eq!(alert.status == Status::Firing, named);
            }
        }

        #[test]
        fn what_was_heard_since_is_not_touched(before in alerts(), now in alerts()) {
            let state = state(0, Covers::Everything, now.into_iter().filter(|a| a.status == Status::Firing).collect());
            let before = known(before);
            let untouched = after(before.clone(), &state);
            for (name, alert) in before {
                prop_assert_eq!(&untouched[&name], &alert);
            }
        }
    }
}
