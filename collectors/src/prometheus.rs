//! Prometheus: what fires, what a query says and how old that is, and whether its own view can be trusted.

pub mod answer;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use prometheus_http_query as promql;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::{
    alert::{Alert, SourceName},
    http::{self, Answer, SourceError, asked, with_retries},
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
        let answer = self.get("api/v1/alerts", &[]).await?;
        answer::alerts(&answer, &self.name, now)
    }

    /// An instant query. `expression` comes from our own data files, never from outside.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, SourceError> {
        let url = self.url("api/v1/query")?;
        let asked = asked("GET", &url);
        let answer = with_retries(|| async {
            let response = self
                .promql
                .query(expression)
                .get_raw()
                .await
                .map_err(|error| SourceError::Unreachable {
                    asked: asked.clone(),
                    found: error.to_string(),
                })?;
            Ok(Answer {
                body: http::read(&asked, response).await?,
                asked: asked.clone(),
            })
        })
        .await?;
        answer::samples(&answer)
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
        answer::targets(&self.get("api/v1/targets", &[("state", "active")]).await?)
    }

    /// Every alerting rule with its state; a rule whose `error` is set sees nothing.
    pub async fn alerting_rules(&self) -> Result<Vec<RuleState>, SourceError> {
        answer::rules(&self.get("api/v1/rules", &[("type", "alert")]).await?)
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

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, SourceError> {
        let url = self.url(path)?;
        let asked = asked("GET", &url);
        with_retries(|| http::answer(&asked, self.http.get(url.clone()).query(parameters))).await
    }

    fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.base.join(path).map_err(|error| SourceError::Address {
            found: error.to_string(),
        })
    }
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
