//! Alertmanager: its webhook (pure parser), its API version 2 (client), and what of it no webhook brought (source).

mod client;
mod covering;
mod reconcile;
mod webhook;

pub use client::{
    AlertmanagerClient, AmStatus, Matcher, Silence, SilenceState, read_silences, read_status,
};
pub use covering::SilenceIndex;
pub use reconcile::Reconcile;
pub use webhook::{
    ALERTS_LIMIT, BODY_LIMIT_BYTES, LABELS_LIMIT, Webhook, WebhookError, parse_webhook,
};
