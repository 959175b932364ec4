//! What is kept of readings: bursts added up, the oldest forgotten, and those that somebody should see as alerts. Pure; whoever calls
//! it writes all of it, and the place up to where was read, in one transaction.

use std::collections::BTreeMap;

use collectors::{
    Alert, Change, fold,
    logs::{page, reading},
    source::Reading,
};
use jiff::{SignedDuration, Timestamp};

/// Kept of one store of logs; in a flood of more the ones that ended first are forgotten.
const READINGS_KEPT: usize = 1_000;
/// A reading is shown so long after its last line.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What changes.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// Key → value; none: forgotten.
    pub values: BTreeMap<String, Option<String>>,
    /// Alerts that begin, and those whose lines are too old to say something of now.
    pub alerts: Vec<(Alert, Change)>,
}

/// `known`: what is kept, key → JSON. `alerts`: those of the source, by fingerprint.
pub fn hear(
    known: &BTreeMap<String, String>,
    alerts: &BTreeMap<String, Alert>,
    told: Vec<Reading>,
    now: Timestamp,
) -> Heard {
    let read =
        |(key, text): (&String, &String)| Some((key.clone(), serde_json::from_str(text).ok()?));
    let mut readings: BTreeMap<String, Reading> = known.iter().filter_map(read).collect();
    let mut heard = Heard::default();
    // Of another version: nobody can read it any more.
    let unreadable = known.keys().filter(|key| !readings.contains_key(*key));
    heard
        .values
        .extend(unreadable.map(|key| (key.clone(), None)));
    for fresh in told {
        let key = fresh.key.clone();
        let before = readings.remove(&key);
        let reading = reading::fold(before, fresh);
        let text = serde_json::to_string(&reading).unwrap_or_default();
        heard.values.insert(key.clone(), Some(text));
        readings.insert(key, reading);
    }
    for key in too_many(&readings, now) {
        readings.remove(&key);
        heard.values.insert(key, None);
    }
    let begin = readings.values().filter_map(|one| page::alert_of(one, now));
    let end = alerts
        .values()
        .filter_map(|one| page::aged(one, &readings, now));
    for alert in begin.chain(end) {
        let change = fold(alerts.get(&alert.fingerprint), &alert);
        if change.replaces() {
            heard.alerts.push((alert, change));
        }
    }
    heard
}

/// Keys of readings that are over for long, and of the oldest ones beyond those that are kept.
fn too_many(readings: &BTreeMap<String, Reading>, now: Timestamp) -> Vec<String> {
    let mut by_age: Vec<(&Timestamp, &String)> =
        readings.values().map(|one| (&one.last, &one.key)).collect();
    by_age.sort();
    let excess = by_age.len().saturating_sub(READINGS_KEPT);
    let old = |last: &Timestamp| now.duration_since(*last) > KEPT_FOR;
    let gone = by_age.iter().enumerate();
    let gone = gone.filter(|(place, (last, _))| *place < excess || old(last));
    gone.map(|(_, (_, key))| (*key).clone()).collect()
}

#[cfg(test)]
mod tests {
    use collectors::SourceName;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn reading(key: &str, second: i64) -> Reading {
        let labels = [("service", "host"), ("host", "ctl1"), ("severity", "page")];
        Reading {
            source: SourceName("logs".into()),
            key: key.into(),
            name: "host.oom_kill".into(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            count: 1,
            first: at(second),
            last: at(second),
            lag_millis: None,
            samples: vec![],
        }
    }

    /// What a store would hold.
    #[derive(Default)]
    struct Kept {
        values: BTreeMap<String, String>,
        alerts: BTreeMap<String, Alert>,
    }

    impl Kept {
        fn hear(&mut self, told: Vec<Reading>, second: i64) -> Vec<Change> {
            let heard = hear(&self.values, &self.alerts, told, at(second));
            for (key, value) in heard.values {
                match value {
                    Some(value) => self.values.insert(key, value),
                    None => self.values.remove(&key),
                };
            }
            for (alert, _) in &heard.alerts {
                self.alerts.insert(alert.fingerprint.clone(), alert.clone());
            }
            heard.alerts.into_iter().map(|(_, change)| change).collect()
        }

        fn count(&self, key: &str) -> u64 {
            serde_json::from_str::<Reading>(&self.values[key])
                .unwrap()
                .count
        }
    }

    #[test]
    fn a_burst_is_one_alert_that_ends_by_age() {
        let mut kept = Kept::default();
        assert_eq!(kept.hear(vec![reading("k", 0)], 1), [Change::New]);
        assert_eq!(kept.hear(vec![reading("k", 5), reading("k", 3)], 6), []);
        assert_eq!(kept.count("k"), 3);
        assert_eq!(kept.hear(vec![], 900), []);
        assert_eq!(kept.hear(vec![], 906), [Change::Resolved]);
        assert_eq!(kept.hear(vec![], 907), []);
        assert_eq!(
            kept.hear(vec![reading("k", 1_000)], 1_001),
            [Change::Refiring]
        );
        assert_eq!(kept.count("k"), 1, "another burst");
    }

    #[test]
    fn what_is_kept_is_bounded_and_ends() {
        let mut kept = Kept::default();
        let many = (0..1_200).map(|n| reading(&format!("k{n}"), n)).collect();
        kept.hear(many, 1_200);
        assert_eq!(kept.values.len(), READINGS_KEPT);
        assert!(!kept.values.contains_key("k0") && kept.values.contains_key("k1199"));
        kept.values
            .insert("odd".into(), "of another version".into());
        kept.hear(vec![], 1_200 + 25 * 3_600);
        assert_eq!(kept.values.len(), 0);
    }
}
