//! Alertmanager's API version 2: silences that people set (a reason to stand down) and whether it is well.

use std::collections::BTreeMap;

use jiff::Timestamp;
use regex::Regex;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::{
    SourceName,
    http::{self, Answer, SourceError, asked, with_retries},
    label::{ANNOTATION_LIMIT_BYTES, tame},
};

/// Labels that name a host, in the vocabularies of common exporters.
const HOST_LABELS: [&str; 5] = ["instance", "host", "hostname", "node", "nodename"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Matcher {
    pub name: String,
    pub value: String,
    pub is_regex: bool,
    /// Absent before Alertmanager 0.22: equal.
    #[serde(default = "yes")]
    pub is_equal: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilenceState {
    Active,
    Pending,
    Expired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    pub id: String,
    #[serde(with = "state")]
    pub status: SilenceState,
    pub created_by: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub matchers: Vec<Matcher>,
}

/// `status` is an object with one field on the wire.
mod state {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::SilenceState;

    #[derive(Serialize, Deserialize)]
    struct Status {
        state: SilenceState,
    }

    pub(super) fn serialize<S: Serializer>(state: &SilenceState, to: S) -> Result<S::Ok, S::Error> {
        Status { state: *state }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<SilenceState, D::Error> {
        Status::deserialize(from).map(|status| status.state)
    }
}

impl Matcher {
    /// As Alertmanager does: an absent label is empty, an expression matches the whole value. An expression that cannot be
    /// read counts as matching: whoever wrote it wanted something left alone.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        self.value_matches(value)
    }

    fn value_matches(&self, value: &str) -> bool {
        if !self.is_regex {
            return (self.value == value) == self.is_equal;
        }
        match Regex::new(&format!("^(?:{})$", self.value)) {
            Ok(expression) => expression.is_match(value) == self.is_equal,
            Err(_) => true,
        }
    }
}

impl Silence {
    fn in_force(&self, now: Timestamp) -> bool {
        self.status != SilenceState::Expired && self.starts_at <= now && now < self.ends_at
    }

    /// Does it silence an alert with these labels at `now`?
    pub fn covers(&self, labels: &BTreeMap<String, String>, now: Timestamp) -> bool {
        self.in_force(now)
            && !self.matchers.is_empty()
            && self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// Is it about a whole host, known under these names and addresses (with any port)? True when nothing but labels that
    /// name hosts are matched, and each matches.
    pub fn covers_host(&self, names: &[&str], now: Timestamp) -> bool {
        /// Ports under which exporters and services commonly name an instance; written out because a silence's
        /// expression is matched against whole values.
        const PORTS: [u16; 6] = [9_100, 9_104, 15_692, 9_150, 9_101, 9_090];
        let spelled = |name: &str| {
            let with_port = PORTS.iter().map(move |port| format!("{name}:{port}"));
            std::iter::once(name.to_owned())
                .chain(with_port)
                .collect::<Vec<_>>()
        };
        let names_host = |matcher: &Matcher| {
            HOST_LABELS.contains(&matcher.name.as_str())
                && matcher.is_equal
                && names
                    .iter()
                    .any(|name| spelled(name).iter().any(|v| matcher.value_matches(v)))
        };
        self.in_force(now) && !self.matchers.is_empty() && self.matchers.iter().all(names_host)
    }
}

/// How Alertmanager is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmStatus {
    pub version: String,
    /// `ready`, `settling` or `disabled` (it runs alone).
    pub cluster: String,
    pub started_at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    cluster: WireCluster,
    uptime: Timestamp,
    version_info: WireVersion,
}

#[derive(Deserialize)]
struct WireCluster {
    status: String,
}

#[derive(Deserialize)]
struct WireVersion {
    version: String,
}

/// Silences that are not expired, from an answer to `api/v2/silences`. Pure.
pub fn read_silences(answer: &Answer) -> Result<Vec<Silence>, SourceError> {
    let silences: Vec<Silence> = answer.json()?;
    let kept = silences
        .into_iter()
        .filter(|one| one.status != SilenceState::Expired);
    Ok(kept
        .map(|silence| Silence {
            comment: tame(&silence.comment, ANNOTATION_LIMIT_BYTES),
            created_by: tame(&silence.created_by, 200),
            ..silence
        })
        .collect())
}

/// From an answer to `api/v2/status`. Pure.
pub fn read_status(answer: &Answer) -> Result<AmStatus, SourceError> {
    let status: WireStatus = answer.json()?;
    Ok(AmStatus {
        version: tame(&status.version_info.version, 80),
        cluster: tame(&status.cluster.status, 80),
        started_at: status.uptime,
    })
}

/// A client for one Alertmanager.
#[derive(Clone)]
pub struct AlertmanagerClient {
    name: SourceName,
    base: Url,
    http: Client,
}

impl AlertmanagerClient {
    /// `address`: for example `http://10.77.0.11:9093`.
    pub fn new(name: SourceName, address: &str) -> Result<Self, SourceError> {
        Ok(Self {
            name,
            base: http::base(address)?,
            http: http::client()?,
        })
    }

    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// All silences that are not expired.
    pub async fn silences(&self) -> Result<Vec<Silence>, SourceError> {
        read_silences(&self.get("api/v2/silences").await?)
    }

    pub async fn status(&self) -> Result<AmStatus, SourceError> {
        read_status(&self.get("api/v2/status").await?)
    }

    /// Acknowledges by silencing exactly these labels until `ends_at`; returns the silence's id. Not retried: a silence whose
    /// answer was lost would be set twice.
    pub async fn silence(
        &self,
        labels: &BTreeMap<String, String>,
        created_by: &str,
        comment: &str,
        now: Timestamp,
        ends_at: Timestamp,
    ) -> Result<String, SourceError> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "silenceID")]
            id: String,
        }
        let url = self.url("api/v2/silences")?;
        let asked = asked("POST", &url);
        if labels.is_empty() {
            return Err(SourceError::Shape {
                asked,
                expected: "at least one label to silence".to_owned(),
                found: "none (it would silence everything)".to_owned(),
            });
        }
        let matchers: Vec<_> = labels
            .iter()
            .map(|(name, value)| Matcher {
                name: name.clone(),
                value: value.clone(),
                is_regex: false,
                is_equal: true,
            })
            .collect();
        let body = serde_json::json!({
            "matchers": matchers, "startsAt": now, "endsAt": ends_at, "createdBy": created_by, "comment": comment,
        });
        let answer = http::answer(&asked, self.http.post(url).json(&body)).await?;
        let created: Created = answer.json()?;
        Ok(created.id)
    }

    /// Lets a silence end later; returns its id. Safe to repeat.
    ///
    /// # Errors
    /// It is unknown whether it ends later.
    pub async fn extend(
        &self,
        silence: &Silence,
        ends_at: Timestamp,
    ) -> Result<String, SourceError> {
        #[derive(Deserialize)]
        struct Extended {
            #[serde(rename = "silenceID")]
            id: String,
        }
        let url = self.url("api/v2/silences")?;
        let asked = asked("POST", &url);
        let body = serde_json::json!({
            "id": silence.id, "matchers": silence.matchers, "startsAt": silence.starts_at, "endsAt": ends_at,
            "createdBy": silence.created_by, "comment": silence.comment,
        });
        let answer = http::answer(&asked, self.http.post(url).json(&body)).await?;
        let extended: Extended = answer.json()?;
        Ok(extended.id)
    }

    /// Ends a silence that [`AlertmanagerClient::silence`] set.
    pub async fn expire(&self, id: &str) -> Result<(), SourceError> {
        let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !is_id {
            return Err(SourceError::Shape {
                asked: "DELETE api/v2/silence".to_owned(),
                expected: "a silence id (hex digits and '-')".to_owned(),
                found: tame(id, 80),
            });
        }
        let url = self.url(&format!("api/v2/silence/{id}"))?;
        let asked = asked("DELETE", &url);
        with_retries(|| async {
            let sent = self.http.delete(url.clone()).send().await;
            http::read(
                &asked,
                sent.map_err(|error| http::transport(&asked, &error))?,
            )
            .await
        })
        .await
        .map(drop)
    }

    async fn get(&self, path: &str) -> Result<Answer, SourceError> {
        let url = self.url(path)?;
        let asked = asked("GET", &url);
        with_retries(|| http::answer(&asked, self.http.get(url.clone()))).await
    }

    fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.base.join(path).map_err(|error| SourceError::Address {
            found: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{body_partial_json, method, path},
    };

    use super::*;

    const SILENCES: &str = include_str!("../testdata/alertmanager-silences.json");
    const STATUS: &str = include_str!("../testdata/alertmanager-status.json");

    fn now() -> Timestamp {
        "2026-11-22T21:00:00Z".parse().unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn silence(matchers: serde_json::Value) -> Silence {
        let mut all: Vec<serde_json::Value> = serde_json::from_str(SILENCES).unwrap();
        all[0]["matchers"] = matchers;
        serde_json::from_value(all.remove(0)).unwrap()
    }

    #[tokio::test]
    async fn silences_and_status_of_alertmanager_0_25() {
        let server = MockServer::start().await;
        for (at, body) in [("/api/v2/silences", SILENCES), ("/api/v2/status", STATUS)] {
            Mock::given(method("GET"))
                .and(path(at))
                .respond_with(ResponseTemplate::new(200).set_body_raw(body, "application/json"))
                .mount(&server)
                .await;
        }
        let client = AlertmanagerClient::new(SourceName("am".into()), &server.uri()).unwrap();
        let silences = client.silences().await.unwrap();
        let down = labels(&[("alertname", "TargetDown"), ("instance", "127.0.0.1:19091")]);
        assert!(silences[0].covers(&down, now()));
        let other = labels(&[("alertname", "TargetDown"), ("instance", "10.0.0.1:9100")]);
        assert!(!silences[0].covers(&other, now()));
        assert!(
            !silences[0].covers(&down, "2099-01-01T00:00:00Z".parse().unwrap()),
            "it has ended"
        );
        let status = client.status().await.unwrap();
        assert_eq!(
            (status.version.as_str(), status.cluster.as_str()),
            ("0.25.0", "disabled")
        );
    }

    #[rstest::rstest]
    #[case(serde_json::json!([{"name": "a", "value": "x", "isRegex": false, "isEqual": false}]), true)]
    #[case(serde_json::json!([{"name": "missing", "value": "", "isRegex": false}]), true)]
    #[case(serde_json::json!([{"name": "a", "value": "z|y", "isRegex": true}]), true)]
    #[case(serde_json::json!([{"name": "a", "value": "yy?", "isRegex": true, "isEqual": false}]), false)]
    #[case(serde_json::json!([{"name": "a", "value": "(", "isRegex": true}]), true)]
    #[case(serde_json::json!([]), false)]
    fn matching(#[case] matchers: serde_json::Value, #[case] covers: bool) {
        assert_eq!(
            silence(matchers).covers(&labels(&[("a", "y")]), now()),
            covers
        );
    }

    #[test]
    fn a_silence_of_a_whole_host() {
        let host = |name: &str, value: &str| {
            silence(serde_json::json!([{"name": name, "value": value, "isRegex": true}]))
        };
        let names = ["ctl1", "10.77.0.11"];
        assert!(host("instance", "10.77.0.11:.*").covers_host(&names, now()));
        assert!(host("hostname", "ctl1").covers_host(&names, now()));
        assert!(!host("instance", "ctl12:.*").covers_host(&names, now()));
        assert!(!host("alertname", "ctl1").covers_host(&names, now()));
    }

    #[tokio::test]
    async fn an_acknowledgement_silences_exactly_these_labels() {
        let server = MockServer::start().await;
        let wanted = serde_json::json!({"createdBy": "ann", "matchers": [
            {"name": "alertname", "value": "X", "isRegex": false, "isEqual": true}]});
        Mock::given(method("POST"))
            .and(body_partial_json(wanted))
            .respond_with(
                ResponseTemplate::new(200).set_body_json(serde_json::json!({"silenceID": "ab-1"})),
            )
            .expect(1)
            .mount(&server)
            .await;
        let client = AlertmanagerClient::new(SourceName("am".into()), &server.uri()).unwrap();
        let one = labels(&[("alertname", "X")]);
        let id = client
            .silence(&one, "ann", "working on it", now(), now())
            .await
            .unwrap();
        assert_eq!(id, "ab-1");
        let empty = client
            .silence(&BTreeMap::new(), "ann", "", now(), now())
            .await;
        assert!(
            empty
                .unwrap_err()
                .to_string()
                .contains("silence everything")
        );
        assert!(client.expire("../status").await.is_err());
    }
}
