//! What the bot serves over HTTP: webhooks, health, metrics.

mod figures;
mod intake;
mod listener;
mod pending;
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
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

pub use figures::Figures;
pub use intake::Intake;
pub use pending::Pending;
pub use token::Tokens;
pub use webhook::stored;

use crate::store::Store;

/// Bodies of webhooks that are read or waited for at once, in KiB: eight of the largest, thousands of usual ones.
pub const BODIES_KIB: usize = 8 * collectors::alertmanager::BODY_LIMIT_BYTES / 1024 + 8;

/// What a webhook changed, in the order in which it was stored.
pub type Batch = Vec<(Alert, Change)>;

/// What the handlers share.
pub struct Web {
    pub store: Store,
    pub tokens: Tokens,
    pub intake: Intake,
    pub pending: Arc<Pending>,
    /// [`BODIES_KIB`] of them.
    pub bodies: Semaphore,
    pub figures: Arc<Figures>,
}

impl Web {
    /// With the intake's loop, to be spawned.
    pub fn new(
        store: Store,
        tokens: Tokens,
        pending: Arc<Pending>,
        figures: Arc<Figures>,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (intake, committing) = Intake::new(store.clone(), pending.clone(), figures.clone());
        let web = Self {
            store,
            tokens,
            intake,
            pending,
            bodies: Semaphore::new(BODIES_KIB),
            figures,
        };
        (Arc::new(web), committing)
    }
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
    axum::serve(listener::Bounded::new(listener), router(web))
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
        Ok(_) if !web.pending.is_closed() => "ready\n".into_response(),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the healer has stopped\n").into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let text = web
        .figures
        .render(&web.store, &web.pending, Timestamp::now())
        .await;
    (
        [("content-type", "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests;
