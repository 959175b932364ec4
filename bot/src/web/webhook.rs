//! Alertmanager's webhook: durable before the answer.
//!
//! Everything of a message is stored in one transaction, shared with other messages that came meanwhile, and given to the healer;
//! then the sender gets its 2xx. So whatever was answered is stored and known to the healer; no room or a full disk makes the
//! sender come again, and nothing of its message was taken. After a crash the healer begins with what is stored.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use collectors::{
    Alert, SourceName, Status,
    alertmanager::{BODY_LIMIT_BYTES, parse_webhook},
    fold,
};
use futures::StreamExt;
use indexmap::IndexMap;
use jiff::Timestamp;
use tokio::sync::SemaphorePermit;

use super::{Batch, Peer, Web, intake::IntakeError, signature};
use crate::store::{AlertKey, AlertRow, Folded, Store, StoreError};

/// What a sender is told to wait when the bot has no room, in seconds.
const RETRY_AFTER: &str = "5";
/// What is read of a refused body and dropped, in bytes.
const DROPPED_LIMIT_BYTES: usize = 64 * 1024 * 1024;

pub async fn alertmanager(
    State(web): State<Arc<Web>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let now = Timestamp::now();
    let (source, body, _room) = match admitted(&web, peer, request, now).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    if let Err(wait) = web.door.pace.taken.check(source) {
        return shed(
            &web,
            source,
            &format!("too fast; come again in {} ms", wait.as_millis()),
        );
    }
    let text = String::from_utf8_lossy(&body);
    let clean = web.door.redactor.text(&text);
    let webhook = match parse_webhook(source, clean.as_bytes(), now) {
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

/// A sender, its message, and the room that this takes until it is dropped.
type Admitted<'w> = (&'w SourceName, Bytes, SemaphorePermit<'w>);

/// Who sent this, and its body.
async fn admitted<'w>(
    web: &'w Web,
    peer: Peer,
    request: Request,
    now: Timestamp,
) -> Result<Admitted<'w>, Response> {
    if web.door.certified && !peer.certified {
        let why = "expected a client certificate of the configured authority\n";
        return Err(unauthorised(web, peer, request, why, now).await);
    }
    if request.headers().contains_key(signature::SIGNATURE) {
        return signed(web, peer, request, now).await;
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let Some(source) = web.door.tokens.source(authorization) else {
        let why = "expected the bearer token of a configured source\n";
        return Err(unauthorised(web, peer, request, why, now).await);
    };
    let room = room(web, &request).ok_or_else(|| shed(web, source, NO_ROOM))?;
    Ok((source, known_body(web, source, request).await?, room))
}

/// The signature covers the body, so it is read before anything is known; only if the rest of the signature is in order.
async fn signed<'w>(
    web: &'w Web,
    peer: Peer,
    request: Request,
    now: Timestamp,
) -> Result<Admitted<'w>, Response> {
    let why = "expected a fresh signature of a configured source\n";
    let Some(claim) = web.door.signers.claim(request.headers(), now) else {
        return Err(unauthorised(web, peer, request, why, now).await);
    };
    let room = room(web, &request).ok_or_else(|| shed(web, claim.source(), NO_ROOM))?;
    let body = known_body(web, claim.source(), request).await?;
    match claim.proven(&body) {
        Some(source) => Ok((source, body, room)),
        None => Err(refused(web, peer, why, now)),
    }
}

/// Before anything of it is read: bodies of many senders at once must not fill the memory. `None`: there is no room now.
fn room<'w>(web: &'w Web, request: &Request) -> Option<SemaphorePermit<'w>> {
    let bytes = said_length(request.headers()).unwrap_or(BODY_LIMIT_BYTES);
    let kib = u32::try_from(bytes.min(BODY_LIMIT_BYTES) / 1024 + 1).ok()?;
    web.bodies.try_acquire_many(kib).ok()
}

/// What a sender is told for whose body there is no room.
const NO_ROOM: &str = "too many bodies at once";

async fn known_body(web: &Web, source: &SourceName, request: Request) -> Result<Bytes, Response> {
    body(request).await.inspect_err(|refusal| {
        web.figures.webhook_refused();
        tracing::warn!(%source, status = %refusal.status(), "a webhook was not taken in");
    })
}

/// Refuses whoever has no right, and does not even read what comes too fast.
async fn unauthorised(
    web: &Web,
    peer: Peer,
    request: Request,
    why: &str,
    now: Timestamp,
) -> Response {
    let refusal = refused(web, peer, why, now);
    match refusal.status() {
        StatusCode::UNAUTHORIZED => unread(request, StatusCode::UNAUTHORIZED, why.to_owned()).await,
        _ => refusal,
    }
}

fn refused(web: &Web, peer: Peer, why: &str, now: Timestamp) -> Response {
    web.figures.webhook_unauthorised(now);
    match web.door.pace.wrong.check(&peer.address) {
        Ok(()) => (StatusCode::UNAUTHORIZED, why.to_owned()).into_response(),
        Err(wait) => {
            let seconds = (wait.as_secs() + 1).to_string();
            (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, seconds)],
                "too fast\n",
            )
                .into_response()
        }
    }
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

/// Folds alerts into the store; durable after the next [`Store::durable`]. Repeats are in the batch too: they say that the
/// source lives. In a store that bots share the batch is left there for the one that leads, and nothing of it is returned.
pub async fn keep(store: &Store, alerts: Vec<Alert>, now: Timestamp) -> Result<Batch, StoreError> {
    let keys: Vec<_> = alerts.iter().map(AlertKey::of).collect();
    let shared = store.is_shared();
    store
        .fold_alerts_in_order(&keys, |rows| {
            let known: HashMap<AlertKey, Alert> = rows
                .into_iter()
                .filter_map(|(key, row)| Some((key, serde_json::from_str(&row.body).ok()?)))
                .collect();
            let mut batch = Batch::with_capacity(alerts.len());
            // Of each alert that is not as it is known: where in the batch it is told as it is now.
            let mut newest: IndexMap<&AlertKey, usize> = IndexMap::new();
            for (alert, key) in alerts.into_iter().zip(&keys) {
                let before = match newest.get(key) {
                    Some(place) => Some(&batch[*place].0),
                    None => known.get(key),
                };
                let change = fold(before, &alert);
                if change.replaces() {
                    newest.insert(key, batch.len());
                }
                batch.push((alert, change));
            }
            let changed = newest
                .into_iter()
                .map(|(key, place)| alert_row(key, &batch[place].0, now))
                .collect();
            let parcel = shared.then(|| (now, serde_json::to_value(&batch).unwrap_or_default()));
            Folded {
                changed,
                answer: if shared { Batch::new() } else { batch },
                parcel,
            }
        })
        .await
}

/// As it is stored.
pub fn alert_row(key: &AlertKey, alert: &Alert, now: Timestamp) -> AlertRow {
    AlertRow {
        key: key.clone(),
        name: alert.name.clone(),
        firing: alert.status == Status::Firing,
        starts_at: alert.starts_at,
        updated_at: now,
        body: serde_json::to_string(alert).unwrap_or_default(),
    }
}

/// Alerts as they were stored, for the healer's start.
pub fn stored(rows: Vec<AlertRow>) -> Vec<Alert> {
    rows.into_iter()
        .filter_map(|row| serde_json::from_str(&row.body).ok())
        .collect()
}
