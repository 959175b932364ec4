//! Prometheus: what fires, what a query says and how old that is, and whether its own view can be trusted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use prometheus_http_query as promql;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    alert::{Alert, SourceName, Status, fingerprint},
    http::{self, SourceError, asked, with_retries},
    label::{ANNOTATION_LIMIT_BYTES, LABEL_VALUE_LIMIT_BYTES, tame},
};

/// One series of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    /// When Prometheus evaluated it. The age of the underlying sample is told by [`PrometheusSource::sample_times`].
    pub at: Timestamp,
}

/// How many scrape targets Prometheus reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    pub up: u32,
    pub down: u32,
    /// Not scraped yet.
    pub unknown: u32,
}

impl TargetHealth {
    /// The share of targets that are down, 0 to 1; none when there is no target, which is not "all is well".
    pub fn share_down(&self) -> Option<f64> {
        let all = self.up + self.down + self.unknown;
        (all > 0).then(|| f64::from(self.down) / f64::from(all))
    }
}

/// One target as Prometheus scrapes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrapeTarget {
    pub labels: BTreeMap<String, String>,
    /// None: not scraped yet.
    pub up: Option<bool>,
    pub last_scrape: Timestamp,
    pub interval: SignedDuration,
}

impl TargetHealth {
    pub fn of(targets: &[ScrapeTarget]) -> Self {
        let count = |up| targets.iter().filter(|target| target.up == up).count() as u32;
        Self {
            up: count(Some(true)),
            down: count(Some(false)),
            unknown: count(None),
        }
    }
}

/// An alerting rule as Prometheus last evaluated it: the metric path of the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleState {
    pub name: String,
    /// Its expression: tells which exporters it leans on. Compared with our own table only, never run.
    #[serde(default)]
    pub query: String,
    pub firing: bool,
    pub last_evaluation: Timestamp,
    /// Of its group.
    pub interval: SignedDuration,
    /// Why it could not be evaluated.
    pub error: Option<String>,
}

/// A client for one server.
#[derive(Clone)]
pub struct PrometheusSource {
    name: SourceName,
    base: Url,
    http: Client,
    promql: promql::Client,
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

impl PrometheusSource {
    /// `address`: for example `http://10.77.0.11:9090`, with a path prefix if it is served under one.
    pub fn new(name: SourceName, address: &str) -> Result<Self, SourceError> {
        let base = http::base(address)?;
        let http = http::client()?;
        let promql = promql::Client::from(http.clone(), base.as_str()).map_err(|error| {
            SourceError::Address {
                found: error.to_string(),
            }
        })?;
        Ok(Self {
            name,
            base,
            http,
            promql,
        })
    }

    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Alerts that fire now (pending ones are not alerts yet), with `now` as the time they were received.
    pub async fn active_alerts(&self, now: Timestamp) -> Result<Vec<Alert>, SourceError> {
        let data: Alerts = self.get("api/v1/alerts", &[]).await?;
        let firing = data
            .alerts
            .into_iter()
            .filter(|alert| alert.state == "firing");
        Ok(firing.map(|alert| self.alert(alert, now)).collect())
    }

    fn alert(&self, active: ActiveAlert, now: Timestamp) -> Alert {
        let tamed = |texts: BTreeMap<String, String>, limit| {
            texts
                .into_iter()
                .map(|(name, value)| (name, tame(&value, limit)))
                .collect()
        };
        let name = active.labels.get("alertname").map_or("", String::as_str);
        Alert {
            source: self.name.clone(),
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

    /// An instant query. `expression` comes from our own data files, never from outside.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, SourceError> {
        let url = self.url("api/v1/query")?;
        let asked = asked("GET", &url);
        let data: promql::response::PromqlResult = with_retries(|| async {
            let response = self
                .promql
                .query(expression)
                .get_raw()
                .await
                .map_err(|error| SourceError::Unreachable {
                    asked: asked.clone(),
                    found: error.to_string(),
                })?;
            open(&asked, http::read_json(&asked, response).await)
        })
        .await?;
        samples(&asked, data.data())
    }

    /// The time of the newest sample of each series of a plain selector, for example `up{job="node"}`.
    pub async fn sample_times(
        &self,
        selector: &str,
    ) -> Result<Vec<(BTreeMap<String, String>, Timestamp)>, SourceError> {
        let samples = self.query(&format!("timestamp({selector})")).await?;
        let time = |sample: Sample| {
            let at = Timestamp::from_millisecond((sample.value * 1_000.0) as i64).ok()?;
            Some((sample.labels, at))
        };
        Ok(samples.into_iter().filter_map(time).collect())
    }

    pub async fn target_health(&self) -> Result<TargetHealth, SourceError> {
        Ok(TargetHealth::of(&self.scrape_targets().await?))
    }

    /// Every target that is to be scraped now.
    pub async fn scrape_targets(&self) -> Result<Vec<ScrapeTarget>, SourceError> {
        let data: Targets = self.get("api/v1/targets", &[("state", "active")]).await?;
        Ok(data.active_targets.into_iter().map(scrape_target).collect())
    }

    /// Every alerting rule with its state; a rule whose `error` is set sees nothing.
    pub async fn alerting_rules(&self) -> Result<Vec<RuleState>, SourceError> {
        let data: Groups = self.get("api/v1/rules", &[("type", "alert")]).await?;
        let rules = data.groups.into_iter().flat_map(|group| {
            let interval = SignedDuration::from_secs_f64(group.interval.clamp(0.0, 86_400.0));
            group.rules.into_iter().map(move |rule| (interval, rule))
        });
        Ok(rules
            .filter(|(_, rule)| rule.kind == "alerting")
            .map(rule_state)
            .collect())
    }

    /// Is it up and past the replay of its log?
    pub async fn ready(&self) -> Result<(), SourceError> {
        let url = self.url("-/ready")?;
        let asked = asked("GET", &url);
        let response = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| http::transport(&asked, &error))?;
        http::read(&asked, response).await.map(drop)
    }

    async fn get<D: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<D, SourceError> {
        let url = self.url(path)?;
        let asked = asked("GET", &url);
        with_retries(|| async {
            let request = self.http.get(url.clone()).query(parameters);
            open(&asked, http::json(&asked, request).await)
        })
        .await
    }

    fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.base.join(path).map_err(|error| SourceError::Address {
            found: error.to_string(),
        })
    }
}

fn open<D>(asked: &str, envelope: Result<Envelope<D>, SourceError>) -> Result<D, SourceError> {
    match envelope? {
        Envelope::Success { data } => Ok(data),
        Envelope::Error { kind, error } => Err(SourceError::Shape {
            asked: asked.to_owned(),
            expected: "success".to_owned(),
            found: tame(&format!("{kind}: {error}"), LABEL_VALUE_LIMIT_BYTES),
        }),
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
        all += match &unit[..letters] {
            "ms" => SignedDuration::from_millis(number),
            "s" => SignedDuration::from_secs(number),
            "m" => SignedDuration::from_secs(number.checked_mul(60)?),
            "h" => SignedDuration::from_secs(number.checked_mul(3_600)?),
            "d" => SignedDuration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        rest = &unit[letters..];
    }
    (all > SignedDuration::ZERO).then_some(all)
}

fn rule_state((interval, rule): (SignedDuration, Rule)) -> RuleState {
    let error = (rule.health != "ok").then(|| match rule.last_error.as_str() {
        "" => format!("health is {}", tame(&rule.health, 80)),
        error => tame(error, LABEL_VALUE_LIMIT_BYTES),
    });
    RuleState {
        name: rule.name,
        query: rule.query,
        firing: rule.state == "firing",
        last_evaluation: rule.last_evaluation,
        interval,
        error,
    }
}

fn samples(asked: &str, data: &promql::response::Data) -> Result<Vec<Sample>, SourceError> {
    use promql::response::Data;
    let time = |seconds: f64| {
        Timestamp::from_millisecond((seconds * 1_000.0) as i64).unwrap_or(Timestamp::UNIX_EPOCH)
    };
    match data {
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
            asked: asked.to_owned(),
            expected: "a vector or a scalar".to_owned(),
            found: "a matrix".to_owned(),
        }),
    }
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
