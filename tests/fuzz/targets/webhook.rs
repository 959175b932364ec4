//! Alertmanager's webhook: no panic, every alert within its limits, and telling it twice changes nothing.
#![no_main]

use collectors::{
    Change, SourceName,
    alertmanager::{ALERTS_LIMIT, parse_webhook},
    fold,
};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let source = SourceName("am".to_owned());
    let Ok(webhook) = parse_webhook(&source, body, Timestamp::UNIX_EPOCH) else {
        return;
    };
    assert!(webhook.alerts.len() <= ALERTS_LIMIT);
    for alert in &webhook.alerts {
        assert!(!alert.name.chars().any(char::is_control));
        assert!(matches!(fold(Some(alert), alert), Change::Repeat));
        assert!(matches!(fold(None, alert), Change::New | Change::Resolved));
    }
});
