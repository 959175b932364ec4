//! What Prometheus' API answers: bytes in, values out. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use prometheus_http_query as promql;
use serde::{Deserialize, de::DeserializeOwned};

use super::{RuleState, Sample, ScrapeTarget};
use crate::{
    alert::{Alert, SourceName, Status, fingerprint},
    http::{Answer, SourceError},
    label::{ANNOTATION_LIMIT_BYTES, LABEL_VALUE_LIMIT_BYTES, tame},
    source::LONGEST_INTERVAL,
};

/// Alerts that fire, of an answer to `api/v1/alerts` received at `now`. Pending ones are not alerts yet.
pub fn alerts(
    answer: &Answer,
    source: &SourceName,
    now: Timestamp,
) -> Result<Vec<Alert>, SourceError> {
    let data: Alerts = open(answer)?;
    let firing = data
        .alerts
        .into_iter()
        .filter(|alert| alert.state == "firing");
    Ok(firing.map(|active| alert(source, active, now)).collect())
}

/// Every target, of an answer to `api/v1/targets`.
pub fn targets(answer: &Answer) -> Result<Vec<ScrapeTarget>, SourceError> {
    let data: Targets = open(answer)?;
    Ok(data.active_targets.into_iter().map(scrape_target).collect())
}

/// Every alerting rule, of an answer to `api/v1/rules`.
pub fn rules(answer: &Answer) -> Result<Vec<RuleState>, SourceError> {
    let data: Groups = open(answer)?;
    let rules = data.groups.into_iter().flat_map(|group| {
        let seconds = group.interval.clamp(0.0, LONGEST_INTERVAL.as_secs_f64());
        let interval = SignedDuration::from_secs_f64(seconds);
        group.rules.into_iter().map(move |rule| (interval, rule))
    });
    Ok(rules
        .filter(|(_, rule)| rule.kind == "alerting")
        .map(rule_state)
        .collect())
}

/// Of an answer to `api/v1/query`.
pub fn samples(answer: &Answer) -> Result<Vec<Sample>, SourceError> {
    use promql::response::Data;
    let result: promql::response::PromqlResult = open(answer)?;
    let time = |seconds: f64| {
        Timestamp::from_millisecond((seconds * 1_000.0) as i64).unwrap_or(Timestamp::UNIX_EPOCH)
    };
    match result.data() {
        Data::Vector(vector) => Ok(vector
            .iter()
            .map(|one| Sample {
                labels: one
                    .metric()
                    .iter()
                    .map(|(name, value)| (name.clone(), tame(value, LABEL_VALUE_LIMIT_BYTES)))
                    .collect(),
                value: one.sample().value(),
                at: time(one.sample().timestamp()),
            })
            .collect()),
        Data::Scalar(sample) => Ok(vec![Sample {
            labels: BTreeMap::new(),
            value: sample.value(),
            at: time(sample.timestamp()),
        }]),
        Data::Matrix(_) => Err(SourceError::Shape {
            asked: answer.asked.clone(),
            expected: "a vector or a scalar".to_owned(),
            found: "a matrix".to_owned(),
        }),
    }
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope<D> {
    Success {
        data: D,
    },
    Error {
        #[serde(rename = "errorType")]
        kind: String,
        error: String,
    },
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<ActiveAlert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActiveAlert {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    state: String,
    active_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    health: String,
    last_scrape: Timestamp,
    /// Absent before Prometheus 2.29.
    #[serde(default)]
    scrape_interval: String,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    interval: f64,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    state: String,
    health: String,
    #[serde(default)]
    last_error: String,
    last_evaluation: Timestamp,
}

/// What a successful answer holds.
fn open<D: DeserializeOwned>(answer: &Answer) -> Result<D, SourceError> {
    match answer.json()? {
        Envelope::Success { data } => Ok(data),
        Envelope::Error { kind, error } => Err(SourceError::Shape {
            asked: answer.asked.clone(),
            expected: "success".to_owned(),
            found: tame(&format!("{kind}: {error}"), LABEL_VALUE_LIMIT_BYTES),
        }),
    }
}

fn alert(source: &SourceName, active: ActiveAlert, now: Timestamp) -> Alert {
    let tamed = |texts: BTreeMap<String, String>, limit| {
        texts
            .into_iter()
            .map(|(name, value)| (name, tame(&value, limit)))
            .collect()
    };
    let name = active.labels.get("alertname").map_or("", String::as_str);
    Alert {
        source: source.clone(),
        fingerprint: fingerprint(&active.labels),
        name: tame(name, LABEL_VALUE_LIMIT_BYTES),
        annotations: tamed(active.annotations, ANNOTATION_LIMIT_BYTES),
        labels: tamed(active.labels, LABEL_VALUE_LIMIT_BYTES),
        status: Status::Firing,
        starts_at: active.active_at,
        ends_at: None,
        generator_url: String::new(),
        received_at: now,
    }
}

/// The usual interval, where Prometheus does not tell it.
const USUAL_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
fn scrape_target(target: Target) -> ScrapeTarget {
    let labels = target.labels.into_iter();
    ScrapeTarget {
        labels: labels
            .map(|(name, value)| (name, tame(&value, LABEL_VALUE_LIMIT_BYTES)))
            .collect(),
        up: match target.health.as_str() {
            "up" => Some(true),
            "down" => Some(false),
            _ => None,
        },
        last_scrape: target.last_scrape,
        interval: interval(&target.scrape_interval).unwrap_or(USUAL_INTERVAL),
    }
}

/// A length of time as Prometheus writes it: `15s`, `1m30s`.
fn interval(text: &str) -> Option<SignedDuration> {
    let (mut all, mut rest) = (SignedDuration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let letters = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let part = match &unit[..letters] {
            "ms" => SignedDuration::from_millis(number),
            "s" => SignedDuration::from_secs(number),
            "m" => SignedDuration::from_secs(number.checked_mul(60)?),
            "h" => SignedDuration::from_secs(number.checked_mul(3_600)?),
            "d" => SignedDuration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        all = all.checked_add(part)?;
        rest = &unit[letters..];
    }
    (all > SignedDuration::ZERO).then(|| all.min(LONGEST_INTERVAL))
}

fn rule_state((interval, rule): (SignedDuration, Rule)) -> RuleState {
    let error = (rule.health != "ok").then(|| match rule.last_error.as_str() {
        "" => format!("health is {}", tame(&rule.health, 80)),
        error => tame(error, LABEL_VALUE_LIMIT_BYTES),
    });
    RuleState {
        name: tame(&rule.name, LABEL_VALUE_LIMIT_BYTES),
        query: rule.query,
        firing: rule.state == "firing",
        last_evaluation: rule.last_evaluation,
        interval,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("15s", Some(15_000))]
    #[case("1m30s", Some(90_000))]
    #[case("250ms", Some(250))]
    #[case("1d", Some(86_400_000))]
    #[case("2d", Some(86_400_000))]
    #[case("9223372036854775807s", Some(86_400_000))]
    #[case("9223372036854775807s9223372036854775807s", None)]
    #[case("9223372036854775807m", None)]
    #[case("", None)]
    #[case("0s", None)]
    #[case("5", None)]
    #[case("5 weeks", None)]
    fn intervals(#[case] text: &str, #[case] millis: Option<i64>) {
        assert_eq!(interval(text), millis.map(SignedDuration::from_millis));
    }
}
