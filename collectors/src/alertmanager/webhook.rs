//! The body of a webhook, version 4: bytes in, alerts out. Pure.
//!
//! Unknown fields are tolerated (later versions add some); a wrong type is an error that names the field. Every text is
//! tamed here, after the fingerprint was taken over the labels as sent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    alert::{Alert, SourceName, Status, fingerprint},
    label::{ANNOTATION_LIMIT_BYTES, LABEL_VALUE_LIMIT_BYTES, NAME_LIMIT_BYTES, tame},
};

/// The largest accepted body, in bytes. A message with a thousand alerts is near 1 MiB.
pub const BODY_LIMIT_BYTES: usize = 8 * 1024 * 1024;
/// The most alerts accepted in one message. A group is one route's `group_by`; more is a mistake in it (`max_alerts` helps).
pub const ALERTS_LIMIT: usize = 10_000;
/// The most labels, and the most annotations, of one alert.
pub const LABELS_LIMIT: usize = 64;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub alerts: Vec<Alert>,
    /// Alerts that Alertmanager left out because of its `max_alerts`: they exist, and only its API tells which.
    pub truncated: u64,
}

/// Why a body was not accepted as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("webhook body: expected at most {BODY_LIMIT_BYTES} bytes, found {found}")]
    TooLarge { found: usize },
    #[error("webhook body: expected JSON, found an error in it: {found}")]
    NotJson { found: String },
    #[error("webhook field `{field}`: expected {expected}, found {found}")]
    Field {
        field: String,
        expected: String,
        found: String,
    },
}

/// Parses a version 4 body of `source`, received at `now`.
pub fn parse_webhook(
    source: &SourceName,
    body: &[u8],
    now: Timestamp,
) -> Result<Webhook, WebhookError> {
    if body.len() > BODY_LIMIT_BYTES {
        return Err(WebhookError::TooLarge { found: body.len() });
    }
    let root: Value = serde_json::from_slice(body).map_err(|error| WebhookError::NotJson {
        found: error.to_string(),
    })?;
    if !root.is_object() {
        return Err(wrong("(body)", "an object", Some(&root)));
    }
    match root.get("version") {
        Some(Value::String(version)) if version == "4" => {}
        other => return Err(wrong("version", "\"4\"", other)),
    }
    let truncated = match root.get("truncatedAlerts") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_u64().ok_or_else(|| {
            wrong(
                "truncatedAlerts",
                "a whole number, not negative",
                Some(value),
            )
        })?,
    };
    let list = match root.get("alerts") {
        Some(Value::Array(list)) => list,
        other => return Err(wrong("alerts", "a list", other)),
    };
    if list.len() > ALERTS_LIMIT {
        let expected = format!("at most {ALERTS_LIMIT} alerts");
        return Err(field_error("alerts", &expected, list.len().to_string()));
    }
    let alerts = list
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("alerts[{index}]");
            parse_alert(source, &path, value, status(&path, value)?, now)
        })
        .collect::<Result<_, _>>()?;
    Ok(Webhook { alerts, truncated })
}

fn status(path: &str, value: &Value) -> Result<Status, WebhookError> {
    match value.get("status").and_then(Value::as_str) {
        Some("firing") => Ok(Status::Firing),
        Some("resolved") => Ok(Status::Resolved),
        _ if !value.is_object() => Err(wrong(path, "an object", Some(value))),
        _ => {
            let field = format!("{path}.status");
            let expected = "\"firing\" or \"resolved\"";
            Err(wrong(&field, expected, value.get("status")))
        }
    }
}

/// One alert, as webhooks and the API's lists say it, but for its status, which they say each in its own way.
pub(super) fn parse_alert(
    source: &SourceName,
    path: &str,
    value: &Value,
    status: Status,
    now: Timestamp,
) -> Result<Alert, WebhookError> {
    if !value.is_object() {
        return Err(wrong(path, "an object", Some(value)));
    }
    let sent = texts(path, "labels", value)?;
    let annotations = tamed(texts(path, "annotations", value)?, ANNOTATION_LIMIT_BYTES);
    let starts_at = time(path, "startsAt", value)?
        .ok_or_else(|| wrong(&format!("{path}.startsAt"), "a time", value.get("startsAt")))?;
    let ends_at = match status {
        Status::Firing => None,
        Status::Resolved => Some(time(path, "endsAt", value)?.unwrap_or(now)),
    };
    check_fingerprint(path, value)?;
    Ok(Alert {
        source: source.clone(),
        // Taken over the labels as sent, so that no message can claim another alert's identity.
        fingerprint: fingerprint(&sent),
        name: tame(
            sent.get("alertname").map_or("", String::as_str),
            LABEL_VALUE_LIMIT_BYTES,
        ),
        labels: tamed(sent, LABEL_VALUE_LIMIT_BYTES),
        annotations,
        status,
        starts_at,
        ends_at,
        generator_url: tame(
            &optional_text(path, "generatorURL", value)?,
            ANNOTATION_LIMIT_BYTES,
        ),
        received_at: now,
    })
}

/// Alertmanager's own field must be what it says it is; its value is derived, as versions before 0.17 do not send it.
fn check_fingerprint(path: &str, value: &Value) -> Result<(), WebhookError> {
    let given = optional_text(path, "fingerprint", value)?;
    let is_hex = given.len() == 16 && given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if given.is_empty() || is_hex {
        return Ok(());
    }
    Err(wrong(
        &format!("{path}.fingerprint"),
        "16 hex digits",
        value.get("fingerprint"),
    ))
}

fn texts(path: &str, name: &str, alert: &Value) -> Result<BTreeMap<String, String>, WebhookError> {
    let field = format!("{path}.{name}");
    let map = match alert.get(name) {
        Some(Value::Object(map)) => map,
        None | Some(Value::Null) if name == "annotations" => return Ok(BTreeMap::new()),
        other => return Err(wrong(&field, "an object of texts", other)),
    };
    if map.len() > LABELS_LIMIT {
        let expected = format!("at most {LABELS_LIMIT} entries");
        return Err(field_error(&field, &expected, map.len().to_string()));
    }
    let mut texts = BTreeMap::new();
    for (key, value) in map {
        if key.len() > NAME_LIMIT_BYTES {
            let expected = format!("names of at most {NAME_LIMIT_BYTES} bytes");
            return Err(field_error(
                &field,
                &expected,
                format!("{} bytes", key.len()),
            ));
        }
        let Value::String(text) = value else {
            let key = tame(key, NAME_LIMIT_BYTES);
            return Err(wrong(&format!("{field}.{key}"), "a text", Some(value)));
        };
        texts.insert(key.clone(), text.clone());
    }
    Ok(texts)
}

fn tamed(texts: BTreeMap<String, String>, limit_bytes: usize) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .map(|(name, value)| (tame(&name, NAME_LIMIT_BYTES), tame(&value, limit_bytes)))
        .collect()
}

fn optional_text(path: &str, name: &str, alert: &Value) -> Result<String, WebhookError> {
    match alert.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(wrong(&format!("{path}.{name}"), "a text", other)),
    }
}

/// None: absent, or Go's zero time (year 1), which says "not yet".
fn time(path: &str, name: &str, alert: &Value) -> Result<Option<Timestamp>, WebhookError> {
    let text = optional_text(path, name, alert)?;
    if text.is_empty() || text.starts_with("0001-01-01T") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        wrong(
            &format!("{path}.{name}"),
            "a time as in RFC 3339",
            alert.get(name),
        )
    })
}

fn wrong(field: &str, expected: &str, found: Option<&Value>) -> WebhookError {
    let found = match found {
        None => "nothing".to_owned(),
        Some(value @ (Value::Array(_) | Value::Object(_))) => {
            if value.is_array() {
                "a list".to_owned()
            } else {
                "an object".to_owned()
            }
        }
        Some(value) => tame(&value.to_string(), 80),
    };
    field_error(field, expected, found)
}

fn field_error(field: &str, expected: &str, found: String) -> WebhookError {
    WebhookError::Field {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &[u8]) -> Result<Webhook, WebhookError> {
        let now = Timestamp::from_second(1_795_378_000).unwrap();
        parse_webhook(&SourceName("am".into()), body, now)
    }

    #[test]
    fn captured_bodies_of_alertmanager_0_25() {
        let truncated = parse(include_bytes!("../testdata/webhook-truncated.json")).unwrap();
        assert_eq!((truncated.alerts.len(), truncated.truncated), (2, 1));
        assert_eq!(truncated.alerts[0].fingerprint, "a5c7f511b5f6e8aa");
        assert_eq!(truncated.alerts[0].ends_at, None);

        let watchdog = parse(include_bytes!("../testdata/webhook-watchdog.json")).unwrap();
        insta::assert_json_snapshot!(watchdog.alerts);

        let resolved = parse(include_bytes!("../testdata/webhook-resolved.json")).unwrap();
        let states: Vec<_> = resolved.alerts.iter().map(|alert| alert.status).collect();
        assert_eq!(states, [Status::Resolved, Status::Firing]);
        assert!(resolved.alerts[0].ends_at.is_some());
    }

    /// The fingerprint field of every captured alert is the one we derive.
    #[test]
    fn derived_fingerprints_are_the_given_ones() {
        for body in [
            include_bytes!("../testdata/webhook-truncated.json").as_slice(),
            include_bytes!("../testdata/webhook-resolved.json"),
            include_bytes!("../testdata/webhook-watchdog.json"),
        ] {
            let given: Value = serde_json::from_slice(body).unwrap();
            for (index, alert) in parse(body).unwrap().alerts.iter().enumerate() {
                assert_eq!(
                    given["alerts"][index]["fingerprint"],
                    alert.fingerprint.as_str()
                );
            }
        }
    }

    fn body(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut body = json!({"version": "4", "new": {"field": 1}, "alerts": [{
            "status": "firing", "labels": {"alertname": "A", "instance": "10.0.0.1:9100"}, "annotations": {},
            "startsAt": "2026-11-22T20:00:13.743891327Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "a5c7f511b5f6e8aa",
        }]});
        change(&mut body);
        serde_json::to_vec(&body).unwrap()
    }

    #[rstest::rstest]
    #[case(body(|b| b["version"] = json!(4)), "webhook field `version`: expected \"4\", found 4")]
    #[case(body(|b| b["alerts"] = json!({})), "webhook field `alerts`: expected a list, found an object")]
    #[case(body(|b| b["truncatedAlerts"] = json!(-1)), "webhook field `truncatedAlerts`: expected a whole number, not negative, found -1")]
    #[case(body(|b| b["alerts"][0] = json!(7)), "webhook field `alerts[0]`: expected an object, found 7")]
    #[case(body(|b| b["alerts"][0]["status"] = json!("odd")), "webhook field `alerts[0].status`: expected \"firing\" or \"resolved\", found \"odd\"")]
    #[case(body(|b| b["alerts"][0]["labels"]["instance"] = json!(1)), "webhook field `alerts[0].labels.instance`: expected a text, found 1")]
    #[case(body(|b| b["alerts"][0]["labels"] = json!(null)), "webhook field `alerts[0].labels`: expected an object of texts, found null")]
    #[case(body(|b| b["alerts"][0]["startsAt"] = json!("yesterday")), "webhook field `alerts[0].startsAt`: expected a time as in RFC 3339, found \"yesterday\"")]
    #[case(body(|b| b["alerts"][0]["fingerprint"] = json!("../x")), "webhook field `alerts[0].fingerprint`: expected 16 hex digits, found \"../x\"")]
    #[case(b"[]".to_vec(), "webhook field `(body)`: expected an object, found a list")]
    fn wrong_types_name_the_field(#[case] body: Vec<u8>, #[case] expected: &str) {
        assert_eq!(parse(&body).unwrap_err().to_string(), expected);
    }

    #[test]
    fn limits() {
        let huge = vec![b' '; BODY_LIMIT_BYTES + 1];
        assert_eq!(
            parse(&huge),
            Err(WebhookError::TooLarge {
                found: BODY_LIMIT_BYTES + 1
            })
        );
        let many = body(|b| b["alerts"] = vec![b["alerts"][0].clone(); ALERTS_LIMIT + 1].into());
        assert!(
            parse(&many)
                .unwrap_err()
                .to_string()
                .contains("at most 10000 alerts")
        );
        let labels = body(|b| {
            for index in 0..LABELS_LIMIT {
                b["alerts"][0]["labels"][format!("l{index}")] = json!("x");
            }
        });
        assert!(
            parse(&labels)
                .unwrap_err()
                .to_string()
                .contains("at most 64 entries, found 66")
        );
        assert!(
            parse(&[b'['; 5_000])
                .unwrap_err()
                .to_string()
                .contains("recursion limit")
        );
    }

    #[test]
    fn hostile_labels_are_tamed_but_keep_their_own_identity() {
        let hostile = |text: &str| {
            parse(&body(|b| {
                b["alerts"][0]["labels"]["instance"] = json!(text)
            }))
            .unwrap()
            .alerts[0]
                .clone()
        };
        let alert = hostile("ctl1\n!approve \u{1b}[2J\u{202e}");
        assert_eq!(
            alert.labels["instance"],
            "ctl1\\u{a}!approve \\u{1b}[2J\\u{202e}"
        );
        let (a, b) = (
            format!("{}a", "x".repeat(5_000)),
            format!("{}b", "x".repeat(5_000)),
        );
        assert!(hostile(&a).labels["instance"].len() < 1_100);
        assert_ne!(hostile(&a).fingerprint, hostile(&b).fingerprint);
    }

    #[test]
    fn a_given_fingerprint_cannot_claim_another_alert() {
        let alert = parse(&body(|_| ())).unwrap().alerts[0].clone();
        assert_eq!(alert.fingerprint, fingerprint(&alert.labels));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_a_result(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
