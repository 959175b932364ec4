//! What the bot serves over HTTP: webhooks, health, metrics.

mod figures;
mod intake;
mod listener;
mod pending;
mod signature;
mod tls;
mod token;
mod webhook;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State, connect_info::Connected},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::{IncomingStream, Listener},
};
use collectors::{Alert, Change, SourceName};
use governor::Quota;
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

pub use figures::Figures;
pub use intake::Intake;
use listener::Bounded;
pub use pending::Pending;
pub use signature::Signers;
use tls::TlsListener;
pub use tls::settings as tls_settings;
pub use token::Tokens;
pub use webhook::{alert_row, stored};

use crate::{audit::Redactor, pace::Senders, store::Store};

/// Webhooks without a right, from one address: at once, and a second. A sender with a wrong token tries once a minute; whoever
/// guesses does not get far.
const WRONG_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const WRONG_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;

/// Bodies of webhooks that are read or waited for at once, in KiB: eight of the largest, thousands of usual ones.
pub const BODIES_KIB: usize = 8 * collectors::alertmanager::BODY_LIMIT_BYTES / 1024 + 8;

/// What a webhook changed, in the order in which it was stored.
pub type Batch = Vec<(Alert, Change)>;

/// What the handlers share.
pub struct Web {
    pub store: Store,
    pub door: Door,
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
        door: Door,
        pending: Arc<Pending>,
        figures: Arc<Figures>,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (intake, committing) = Intake::new(store.clone(), pending.clone(), figures.clone());
        let web = Self {
            store,
            door,
            intake,
            pending,
            bodies: Semaphore::new(BODIES_KIB),
            figures,
        };
        (Arc::new(web), committing)
    }
}

/// Who may send webhooks, and what of them comes in.
pub struct Door {
    pub tokens: Tokens,
    pub signers: Signers,
    /// Webhooks need a client certificate, too.
    pub certified: bool,
    pub pace: WebPace,
    /// An alert may quote a secret; it is not kept.
    pub redactor: Redactor,
}

/// How fast webhooks may come.
pub struct WebPace {
    /// Of each source.
    taken: Senders<SourceName>,
    /// Of each address without a right.
    wrong: Senders<IpAddr>,
}

impl WebPace {
    /// Twice as many at once.
    pub fn new(webhooks_per_second: u32) -> Self {
        let rate = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let taken = Quota::per_second(rate(webhooks_per_second))
            .allow_burst(rate(webhooks_per_second.saturating_mul(2)));
        let wrong = Quota::per_second(WRONG_PER_SECOND).allow_burst(WRONG_AT_ONCE);
        Self {
            taken: Senders::new(taken),
            wrong: Senders::new(wrong),
        }
    }
}

/// Who is at the other end, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: IpAddr,
    /// It has a certificate that the configured authority signed.
    certified: bool,
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self {
            address: stream.remote_addr().ip(),
            certified: false,
        }
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, session) = stream.io().get_ref();
        Self {
            address: stream.remote_addr().ip(),
            // A certificate that nobody vouches for ends the handshake.
            certified: session
                .peer_certificates()
                .is_some_and(|chain| !chain.is_empty()),
        }
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

/// Serves until told to stop; with `tls` nothing but HTTPS.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    web: Arc<Web>,
    stop: CancellationToken,
) -> io::Result<()> {
    let bounded = Bounded::new(listener);
    match tls {
        None => serve_on(bounded, web, stop).await,
        Some(settings) => serve_on(TlsListener::new(bounded, settings)?, web, stop).await,
    }
}

async fn serve_on<L>(listener: L, web: Arc<Web>, stop: CancellationToken) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    for<'s> Peer: Connected<IncomingStream<'s, L>>,
{
    let app = router(web).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, app)
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
