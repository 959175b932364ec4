//! What the bot serves over HTTP: webhooks, health, metrics.

mod figures;
mod token;
mod webhook;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use collectors::{Alert, Change};
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

pub use figures::Figures;
pub use token::Tokens;
pub use webhook::stored;

use crate::store::Store;

/// Webhooks that may wait for the healer. Each was stored before; past this senders are asked to come again, which they do.
pub const QUEUE: usize = 1_024;

/// What a webhook changed, in the order in which it was stored.
pub type Batch = Vec<(Alert, Change)>;

/// What the handlers share.
pub struct Web {
    pub store: Store,
    pub tokens: Tokens,
    pub batches: mpsc::Sender<Batch>,
    pub figures: Arc<Figures>,
}

/// Takes the address; fails at once when it is taken, before anything else starts.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("expected to listen on {address}, found: {error}"),
        )
    })
}

/// Serves until told to stop.
pub async fn serve(
    listener: TcpListener,
    web: Arc<Web>,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(web))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

fn router(web: Arc<Web>) -> Router {
    let limit = DefaultBodyLimit::max(collectors::alertmanager::BODY_LIMIT_BYTES);
    Router::new()
        .route("/v1/alertmanager", post(webhook::alertmanager).layer(limit))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(web)
}

/// Ready: what is asked of the bot can be kept.
async fn ready(State(web): State<Arc<Web>>) -> Response {
    match web.store.count_firing().await {
        Ok(_) if !web.batches.is_closed() => "ready\n".into_response(),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the healer has stopped\n").into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let text = web.figures.render(&web.store, Timestamp::now()).await;
    (
        [("content-type", "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests;
