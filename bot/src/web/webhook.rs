//! Alertmanager's webhook: durable before the answer.
//!
//! Everything of a message is stored in one transaction, shared with other messages that came meanwhile, and given to the healer;
//! then the sender gets its 2xx. So whatever was answered is stored and known to the healer; no room or a full disk makes the
//! sender come again, and nothing of its message was taken. After a crash the healer begins with what is stored.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use collectors::{
    Alert, SourceName, Status,
    alertmanager::{BODY_LIMIT_BYTES, parse_webhook},
    fold,
};
use futures::StreamExt;
use jiff::Timestamp;

use super::{Batch, Web, intake::IntakeError};
use crate::store::{AlertKey, AlertRow, Folded, Store, StoreError};

/// What a sender is told to wait when the bot has no room, in seconds.
const RETRY_AFTER: &str = "5";
/// What is read of a refused body and dropped, in bytes.
const DROPPED_LIMIT_BYTES: usize = 64 * 1024 * 1024;

pub async fn alertmanager(State(web): State<Arc<Web>>, request: Request) -> Response {
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let now = Timestamp::now();
    let Some(source) = web.tokens.source(authorization) else {
        web.figures.webhook_unauthorised(now);
        let why = "expected the bearer token of a configured source\n";
        return unread(request, StatusCode::UNAUTHORIZED, why.to_owned()).await;
    };
    // Before anything of it is read: bodies of many senders at once must not fill the memory.
    let kib = said_length(request.headers())
        .unwrap_or(BODY_LIMIT_BYTES)
        .min(BODY_LIMIT_BYTES)
        / 1024
        + 1;
    let room = u32::try_from(kib)
        .ok()
        .and_then(|kib| web.bodies.try_acquire_many(kib).ok());
    let Some(_room) = room else {
        return shed(&web, source, "too many bodies at once");
    };
    let body = match body(request).await {
        Ok(body) => body,
        Err(refusal) => {
            web.figures.webhook_refused();
            tracing::warn!(%source, status = %refusal.status(), "a webhook was not taken in");
            return refusal;
        }
    };
    let webhook = match parse_webhook(source, &body, now) {
        Ok(webhook) => webhook,
        Err(error) => {
            web.figures.webhook_refused();
            tracing::warn!(%source, %error, "a webhook was not understood");
            return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
        }
    };
    let (count, truncated) = (webhook.alerts.len(), webhook.truncated);
    if !web.pending.has_room(count) {
        return shed(&web, source, "the healer is behind");
    }
    match web.intake.take(webhook.alerts).await {
        Ok(()) => {}
        Err(IntakeError::Store(why)) => return busy(format!("{why}\n")),
        Err(why) => return shed(&web, source, &why.to_string()),
    }
    web.figures.webhook_taken(source, count, truncated, now);
    if truncated > 0 {
        tracing::warn!(%source, truncated, "the sender left alerts out; raise its max_alerts");
    }
    (StatusCode::OK, "stored\n").into_response()
}

/// The body of a known sender.
async fn body(request: Request) -> Result<Bytes, Response> {
    if said_length(request.headers()).is_some_and(|length| length > BODY_LIMIT_BYTES) {
        let why = format!("expected at most {BODY_LIMIT_BYTES} bytes\n");
        return Err(unread(request, StatusCode::PAYLOAD_TOO_LARGE, why).await);
    }
    let body = Bytes::from_request(request, &()).await;
    body.map_err(IntoResponse::into_response)
}

/// Refuses without keeping any of the body. A sender that does not wait for leave to send it would meet a closed connection
/// half-way and never read why, so it may finish first.
async fn unread(request: Request, status: StatusCode, why: String) -> Response {
    if !request.headers().contains_key(header::EXPECT) {
        let mut left = DROPPED_LIMIT_BYTES;
        let mut parts = request.into_body().into_data_stream();
        while let Some(Ok(part)) = parts.next().await {
            let Some(less) = left.checked_sub(part.len()) else {
                break;
            };
            left = less;
        }
    }
    (status, why).into_response()
}

fn said_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// No room now. Counted, and said in the log once in a while: a storm must not fill the log as well.
fn shed(web: &Web, source: &SourceName, why: &str) -> Response {
    if web.figures.webhook_shed() {
        tracing::warn!(%source, why, "a webhook was put off; the sender is asked to come again");
    }
    busy(format!("{why}\n"))
}

fn busy(why: String) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::RETRY_AFTER, RETRY_AFTER)],
        why,
    )
        .into_response()
}

/// Folds alerts into the store; durable when it returns. Repeats are in the batch too: they say that the source lives. In a
/// store that bots share the batch is left there for the one that leads, and nothing of it is returned.
pub async fn keep(store: &Store, alerts: Vec<Alert>, now: Timestamp) -> Result<Batch, StoreError> {
    let keys: Vec<_> = alerts.iter().map(AlertKey::of).collect();
    let shared = store.is_shared();
    store
        .fold_alerts(&keys, move |rows| {
            let mut known: std::collections::HashMap<AlertKey, Alert> = rows
                .into_iter()
                .filter_map(|(key, row)| Some((key, serde_json::from_value(row.body).ok()?)))
                .collect();
            let mut changed = std::collections::BTreeMap::new();
            let mut batch = Batch::new();
            for alert in alerts {
                let key = AlertKey::of(&alert);
                let change = fold(known.get(&key), &alert);
                if change.replaces() {
                    changed.insert(key.clone(), row(&alert, now));
                    known.insert(key, alert.clone());
                }
                batch.push((alert, change));
            }
            let parcel = shared.then(|| (now, serde_json::to_value(&batch).unwrap_or_default()));
            Folded {
                changed: changed.into_values().collect(),
                answer: if shared { Batch::new() } else { batch },
                parcel,
            }
        })
        .await
}

fn row(alert: &Alert, now: Timestamp) -> AlertRow {
    AlertRow {
        key: AlertKey::of(alert),
        name: alert.name.clone(),
        firing: alert.status == Status::Firing,
        starts_at: alert.starts_at,
        updated_at: now,
        body: serde_json::to_value(alert).unwrap_or_default(),
    }
}

/// Alerts as they were stored, for the healer's start.
pub fn stored(rows: Vec<AlertRow>) -> Vec<Alert> {
    rows.into_iter()
        .filter_map(|row| serde_json::from_value(row.body).ok())
        .collect()
}
