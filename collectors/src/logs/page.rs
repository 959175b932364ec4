//! Readings that somebody should see even if nothing else says so, as alerts that are only ever told. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Severity, Standing,
    reading::{SEVERITY, standing},
};
use crate::{Alert, Status, fingerprint, source::Reading};

/// Label of every alert that is made here, and its value.
const EVIDENCE: (&str, &str) = ("evidence", "log line");
/// Annotation: the key of the reading.
const READING: &str = "reading";

/// Is it a line of a log that says so, and nothing else?
pub fn is_line(alert: &Alert) -> bool {
    alert
        .labels
        .get(EVIDENCE.0)
        .is_some_and(|value| value == EVIDENCE.1)
}

/// The alert of a reading, if it is one for people and of now.
pub fn alert_of(reading: &Reading, now: Timestamp) -> Option<Alert> {
    let pages = reading
        .labels
        .get(SEVERITY)
        .is_some_and(|word| word == Severity::Page.word());
    if !pages || standing(reading, now) != Standing::Evidence {
        return None;
    }
    let mut labels = reading.labels.clone();
    labels.insert("alertname".to_owned(), reading.name.clone());
    labels.insert(EVIDENCE.0.to_owned(), EVIDENCE.1.to_owned());
    let annotations = [
        (READING, reading.key.clone()),
        (
            "summary",
            reading.samples.last().cloned().unwrap_or_default(),
        ),
    ];
    Some(Alert {
        source: reading.source.clone(),
        fingerprint: fingerprint(&labels),
        name: reading.name.clone(),
        labels,
        annotations: annotations
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        status: Status::Firing,
        starts_at: reading.first,
        ends_at: None,
        generator_url: String::new(),
        received_at: now,
    })
}

/// The end of such an alert, once its reading has aged. `readings`: by key. It says why, and not that all is well.
pub fn aged(alert: &Alert, readings: &BTreeMap<String, Reading>, now: Timestamp) -> Option<Alert> {
    if !is_line(alert) || alert.status != Status::Firing {
        return None;
    }
    let reading = alert
        .annotations
        .get(READING)
        .and_then(|key| readings.get(key));
    let why = match reading.map(|reading| standing(reading, now)) {
        Some(Standing::Evidence) => return None,
        Some(Standing::Aged { why }) => why,
        None => "what was read is not kept any more".to_owned(),
    };
    let mut ended = alert.clone();
    ended.status = Status::Resolved;
    ended.ends_at = Some(now.max(alert.starts_at));
    ended.received_at = now;
    ended.annotations.insert("ended".to_owned(), why);
    Some(ended)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{Change, SourceName, fold, logs::reading::EVIDENCE_FOR};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn reading(severity: &str) -> Reading {
        let labels = [("host", "ctl1"), (SEVERITY, severity)];
        Reading {
            source: SourceName("logs".into()),
            key: "host.oom_kill/ctl1".into(),
            name: "host.oom_kill".into(),
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            count: 1,
            first: at(0),
            last: at(0),
            lag_millis: None,
            samples: vec!["x".into()],
        }
    }

    #[test]
    fn only_what_is_for_people_and_of_now_becomes_an_alert() {
        let one = alert_of(&reading("page"), at(60)).unwrap();
        assert!(is_line(&one));
        assert_eq!((one.name.as_str(), one.starts_at), ("host.oom_kill", at(0)));
        assert_eq!(alert_of(&reading("warning"), at(60)), None);
        assert_eq!(
            alert_of(
                &reading("page"),
                at(0) + EVIDENCE_FOR + SignedDuration::from_secs(1)
            ),
            None
        );
    }

    #[test]
    fn it_is_new_once_and_ends_by_age_with_the_reason() {
        let mut known = reading("page");
        let first = alert_of(&known, at(1)).unwrap();
        assert_eq!(fold(None, &first), Change::New);
        known.last = at(500);
        let again = alert_of(&known, at(501)).unwrap();
        assert_eq!(fold(Some(&first), &again), Change::Repeat);
        let readings = [(known.key.clone(), known)].into();
        assert_eq!(aged(&first, &readings, at(1_400)), None);
        let ended = aged(&first, &readings, at(1_401)).unwrap();
        assert_eq!(fold(Some(&first), &ended), Change::Resolved);
        assert!(ended.annotations["ended"].contains("proves nothing"));
        assert_eq!(aged(&ended, &readings, at(1_500)), None);
        let gone = aged(&first, &BTreeMap::new(), at(5)).unwrap();
        assert_eq!(gone.status, Status::Resolved);
    }
}
