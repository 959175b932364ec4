//! What a source claims, its identity, and how a new message changes what is known.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The configured name of a source, for example `alertmanager`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceName(pub String);

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    Resolved,
}

/// One alert as a source tells it. Texts are shortened and freed of control characters where they enter; they are for
/// people and for exact comparison only, never arguments of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub source: SourceName,
    /// 16 hex digits over the labels as they were sent; see [`fingerprint`].
    pub fingerprint: String,
    /// The label `alertname`; empty when there is none.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub status: Status,
    pub starts_at: Timestamp,
    /// When it ended; only of a resolved alert. None of one that is over: nobody said when, a complete list of what fires
    /// does not name it ([`crate::settle`]).
    pub ends_at: Option<Timestamp>,
    pub generator_url: String,
    pub received_at: Timestamp,
}

impl Alert {
    /// Identity across sources: a fingerprint is unique only within one.
    pub fn key(&self) -> (SourceName, String) {
        (self.source.clone(), self.fingerprint.clone())
    }

    /// Over, because a complete list of what fires does not name it.
    fn is_presumed_over(&self) -> bool {
        self.status == Status::Resolved && self.ends_at.is_none()
    }

    /// When the thing it tells of happened (not when it was told), and at the same instant an end counts as later.
    fn moment(&self) -> (Timestamp, Status) {
        let at = match self.status {
            Status::Firing => self.starts_at,
            Status::Resolved => self.ends_at.unwrap_or(self.starts_at),
        };
        (at, self.status)
    }
}

/// What a message means, given what is known of the same alert. Everything but `Repeat` and `Stale` replaces what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Never heard of, and firing.
    New,
    /// Fires again after it ended (or a later start of one whose end was never heard).
    Refiring,
    /// Says again what is known: a re-send.
    Repeat,
    /// Ended. Also of an alert never heard of, so that its late "firing" cannot open anything.
    Resolved,
    /// Older than what is known: a late arrival.
    Stale,
}

impl Change {
    /// Must the incoming alert be kept in place of the known one?
    pub fn replaces(self) -> bool {
        !matches!(self, Self::Repeat | Self::Stale)
    }
}

/// Pure. Keeping the latest `moment` makes the result independent of order and repetition of messages. An end that nobody told
/// (see [`Alert::ends_at`]) is believed until the alert is heard of again.
pub fn fold(known: Option<&Alert>, incoming: &Alert) -> Change {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let Some(known) = known else {
        return match incoming.status {
            Status::Firing => Change::New,
            Status::Resolved => Change::Resolved,
        };
    };
    if incoming.status == Status::Firing && known.is_presumed_over() {
        let heard_since = incoming.received_at > known.received_at;
        return match incoming.starts_at >= known.starts_at && heard_since {
            true => Change::Refiring,
            false => Change::Stale,
        };
    }
    match (incoming.moment().cmp(&known.moment()), incoming.status) {
        (Less, _) => Change::Stale,
        (Equal, _) => Change::Repeat,
        (Greater, Status::Firing) => Change::Refiring,
        (Greater, Status::Resolved) => Change::Resolved,
    }
}

/// The fingerprint that Prometheus and Alertmanager give a label set: 64-bit FNV-1a over sorted names and values, each
/// followed by the byte 255 (`model.LabelSet.Fingerprint`; checked against payloads of Alertmanager 0.25).
pub fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut sum = OFFSET;
    let mut add = |byte: u8| sum = (sum ^ u64::from(byte)).wrapping_mul(PRIME);
    for (name, value) in labels {
        name.bytes().for_each(&mut add);
        add(255);
        value.bytes().for_each(&mut add);
        add(255);
    }
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn alert(status: Status, starts: i64, ends: Option<i64>) -> Alert {
        Alert {
            source: SourceName("am".into()),
            fingerprint: "00".into(),
            name: "X".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            status,
            starts_at: at(starts),
            ends_at: ends.map(at),
            generator_url: String::new(),
            received_at: at(1_000),
        }
    }

    #[rstest::rstest]
    #[case::first(None, alert(Status::Firing, 1, None), Change::New)]
    #[case::end_of_unknown(None, alert(Status::Resolved, 1, Some(2)), Change::Resolved)]
    #[case::resend(
        Some(alert(Status::Firing, 1, None)),
        alert(Status::Firing, 1, None),
        Change::Repeat
    )]
    #[case::end(
        Some(alert(Status::Firing, 1, None)),
        alert(Status::Resolved, 1, Some(5)),
        Change::Resolved
    )]
    #[case::end_with_merged_start(
        Some(alert(Status::Firing, 3, None)),
        alert(Status::Resolved, 1, Some(5)),
        Change::Resolved
    )]
    #[case::late_firing(
        Some(alert(Status::Resolved, 1, Some(5))),
        alert(Status::Firing, 1, None),
        Change::Stale
    )]
    #[case::again(
        Some(alert(Status::Resolved, 1, Some(5))),
        alert(Status::Firing, 7, None),
        Change::Refiring
    )]
    #[case::late_end(
        Some(alert(Status::Firing, 7, None)),
        alert(Status::Resolved, 1, Some(5)),
        Change::Stale
    )]
    #[case::end_again(
        Some(alert(Status::Resolved, 1, Some(5))),
        alert(Status::Resolved, 1, Some(5)),
        Change::Repeat
    )]
    fn folds(#[case] known: Option<Alert>, #[case] incoming: Alert, #[case] expected: Change) {
        assert_eq!(fold(known.as_ref(), &incoming), expected);
    }

    fn run(messages: &[Alert]) -> Option<(Timestamp, Status)> {
        let mut known: Option<Alert> = None;
        for message in messages {
            if fold(known.as_ref(), message).replaces() {
                known = Some(message.clone());
            }
        }
        known.map(|alert| alert.moment())
    }

    fn messages() -> impl Strategy<Value = Vec<Alert>> {
        let one = (any::<bool>(), 0i64..20, 0i64..10).prop_map(|(firing, starts, lasts)| {
            if firing {
                alert(Status::Firing, starts, None)
            } else {
                alert(Status::Resolved, starts, Some(starts + lasts))
            }
        });
        prop::collection::vec(one, 1..12)
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            original in messages(),
            shuffled in messages().prop_perturb(|_, mut rng| rng.random::<u64>()),
        ) {
            let mut other = original.clone();
            other.extend(original.iter().cloned());
            // A seeded rotation and swap is enough to reach any relative order over many cases.
            let length = other.len();
            for index in 0..length {
                other.swap(index, ((shuffled as usize).wrapping_mul(31).wrapping_add(index * 7)) % length);
            }
            prop_assert_eq!(run(&original), run(&other));
        }

        #[test]
        fn a_message_told_twice_changes_nothing_the_second_time(original in messages()) {
            let mut known: Option<Alert> = None;
            for message in &original {
                if fold(known.as_ref(), message).replaces() {
                    known = Some(message.clone());
                }
                let again = fold(known.as_ref(), message);
                prop_assert!(matches!(again, Change::Repeat | Change::Stale));
            }
        }
    }

    #[test]
    fn fingerprints_are_those_of_alertmanager() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(
            fingerprint(&labels(&[("alertname", "Many"), ("i", "2")])),
            "a5c7f511b5f6e8aa"
        );
        assert_eq!(
            fingerprint(&labels(&[
                ("alertname", "Many"),
                ("i", "1"),
                ("msg", "a\u{1b}[31m \u{202e} b\n$(reboot)")
            ])),
            "e7d6e5d23f61f41c"
        );
    }
}
