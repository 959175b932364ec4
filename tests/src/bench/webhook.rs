//! Webhooks as Alertmanager sends them, on a kept connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Of alerts that fire: Go's zero time.
const NO_END: &str = "0001-01-01T00:00:00Z";

/// One alert of a webhook; `ends`: when it was over.
pub(super) fn alert(
    labels: Value,
    annotations: Value,
    fingerprint: &str,
    starts: &str,
    ends: Option<&str>,
) -> Value {
    json!({
        "status": status(ends.is_none()), "labels": labels, "annotations": annotations,
        "startsAt": starts, "endsAt": ends.unwrap_or(NO_END),
        "generatorURL": "http://prometheus.example.org/graph?g0.expr=x", "fingerprint": fingerprint,
    })
}

/// The body of a webhook.
pub(super) fn body(alerts: &[Value], firing: bool) -> String {
    let body = json!({
        "receiver": "nightshift", "status": status(firing), "alerts": alerts, "groupLabels": {}, "commonLabels": {},
        "commonAnnotations": {}, "externalURL": "http://alertmanager.example.org", "version": "4", "groupKey": "{}",
        "truncatedAlerts": 0,
    });
    body.to_string()
}

fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

/// One kept connection to whoever takes webhooks.
pub(super) struct Sender {
    stream: TcpStream,
    token: String,
}

impl Sender {
    /// `address`: with the port.
    pub(super) fn connect(address: &str, token: &str) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        let token = token.to_owned();
        Ok(Sender { stream, token })
    }

    /// True: taken (by Nightshift: durable). False: it asks to come again.
    pub(super) fn send(&mut self, body: &str) -> anyhow::Result<bool> {
        let head = format!(
            "POST /v1/alertmanager HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        self.stream
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let answer = self.answer()?;
        match answer.get(9..12) {
            Some("200") => Ok(true),
            Some("503") => Ok(false),
            _ => anyhow::bail!("expected 200 or 503, found: {answer}"),
        }
    }

    /// One whole answer: both sides give every one a length, and a line's end at its end.
    fn answer(&mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        loop {
            let mut part = [0; 1024];
            let read = self.stream.read(&mut part)?;
            ensure!(read > 0, "the connection was closed");
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer);
            if text
                .split_once("\r\n\r\n")
                .is_some_and(|(_, body)| body.ends_with('\n'))
            {
                return Ok(text.into_owned());
            }
        }
    }
}

/// The body of what a plain `GET` answers.
pub(super) fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("reach {address}"))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    // HTTP/1.0: the answer ends with the connection, and is in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let first = head.lines().next().unwrap_or_default();
    ensure!(
        first.contains(" 200 "),
        "GET {path}: expected 200, found {first}"
    );
    Ok(body.to_owned())
}
