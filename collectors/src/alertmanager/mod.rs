//! Alertmanager: its webhook (pure parser) and its API version 2 (client).

mod client;
mod webhook;

pub use client::{
    AlertmanagerClient, AmStatus, Matcher, Silence, SilenceState, read_silences, read_status,
};
pub use webhook::{
    ALERTS_LIMIT, BODY_LIMIT_BYTES, LABELS_LIMIT, Webhook, WebhookError, parse_webhook,
};
