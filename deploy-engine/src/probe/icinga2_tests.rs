//! Answers as a cluster of two masters gave them.

use super::*;
use crate::probe::table::testing::{exited, failed};

fn answer<T>(text: &str, read: fn(&str) -> Result<T, String>) -> T {
    match heard(&exited(0, text, ""), read) {
        Ok(Heard::Answers(value)) => value,
        Ok(Heard::Silent { why }) | Err(why) => panic!("{why}"),
    }
}

#[test]
fn the_status_of_a_daemon() {
    let status = answer(include_str!("captured/icinga2-status.json"), read_status);
    assert_eq!(status.node_name, "ctl1");
    assert_eq!(status.version, "r2.13.6-1");
    assert_eq!(status.services, 12);
    assert!(status.checks_enabled && status.uptime_seconds > 60.0);
    assert!(status.max_latency_seconds < 5.0, "{status:?}");
}

#[test]
fn a_cluster_that_is_connected_and_one_that_is_not() {
    let zones = answer(include_str!("captured/icinga2-zones.json"), read_zones);
    assert_eq!(
        (zones.identity.as_str(), &zones.connected[..]),
        ("ctl1", &["ctl2".to_owned()][..])
    );
    assert!(zones.not_connected.is_empty() && zones.zones_lost.is_empty());
    assert_eq!(zones.log_lag_seconds, 0.0);
    let lost = answer(include_str!("captured/icinga2-zones-lost.json"), read_zones);
    assert_eq!(lost.not_connected, ["ctl2"]);
    assert_eq!(lost.zones_lost, ["master"]);
    assert!(lost.log_lag_seconds > 80.0, "{lost:?}");
}

#[test]
fn two_masters_share_the_hosts() {
    let authority = answer(
        include_str!("captured/icinga2-authority.json"),
        read_authority,
    );
    assert_eq!(authority.checks, ["ctl1"]);
    assert_eq!(authority.leaves, ["ctl2"]);
}

#[test]
fn late_checks_are_counted_and_some_are_named() {
    let late = answer(include_str!("captured/icinga2-late.json"), read_late);
    assert_eq!((late.count, late.some.len()), (7, 7));
    assert_eq!(late.some[0], "ctl1!cluster");
    let none = answer(r#"{"results":[]}"#, read_late);
    assert_eq!((none.count, none.some.len()), (0, 0));
}

/// As curl said it of a stopped daemon, of one that is not there, of a wrong password and of a foreign certificate.
#[rstest::rstest]
#[case::no_answer(28, "curl: (28) Connection timed out after 8001 milliseconds", true)]
#[case::refused(
    7,
    "curl: (7) Failed to connect to ctl2 port 5665 after 0 ms: Couldn't connect to server",
    true
)]
#[case::password(22, "curl: (22) The requested URL returned error: 401", false)]
#[case::certificate(
    60,
    "curl: (60) SSL certificate problem: unable to get local issuer certificate",
    false
)]
fn silence_is_a_fact_and_a_refusal_is_not(
    #[case] code: i32,
    #[case] error: &str,
    #[case] silent: bool,
) {
    match heard(&exited(code, "", error), read_zones) {
        Ok(Heard::Silent { why }) => assert!(silent && why == error, "{why}"),
        Err(why) => assert!(!silent && why.contains(error), "{why}"),
        Ok(Heard::Answers(zones)) => panic!("{zones:?}"),
    }
    assert!(heard(&failed(), read_zones).is_err());
}

#[test]
fn answers_of_another_shape_are_errors() {
    for text in [
        "",
        "<html>",
        "{}",
        r#"{"results":[]}"#,
        r#"{"results":[{"name":"CIB","status":{}}]}"#,
    ] {
        assert!(read_status(text).is_err(), "{text}");
        assert!(read_zones(text).is_err(), "{text}");
    }
    let half = r#"{"results":[{"name":"ctl1","attrs":{}}]}"#;
    assert!(read_authority(half).is_err());
}

#[test]
fn certificates() {
    let good = exited(0, "/var/lib/icinga2/certs/ctl2.crt: OK\n", "");
    assert!(parse_certificate(&good).unwrap().valid);
    let foreign = "CN = ctl2\nerror 62 at 0 depth lookup: hostname mismatch\nerror /var/lib/icinga2/certs/ctl2.crt: verification failed\n";
    let found = parse_certificate(&exited(2, "", foreign)).unwrap();
    assert_eq!(
        (found.valid, found.message.as_str()),
        (false, "error 62 at 0 depth lookup: hostname mismatch")
    );
    let gone = parse_certificate(&exited(
        2,
        "",
        "Could not open file\nUnable to load certificate file\n",
    ));
    assert_eq!(gone.unwrap().message, "Unable to load certificate file");
}

#[test]
fn configurations() {
    let good = "[2026-11-26 05:10:51 +0000] information/cli: Finished validating the configuration file(s).\n";
    assert!(parse_config_check(&exited(0, good, "")).unwrap().valid);
    let bad = include_str!("captured/icinga2-config-bad.txt");
    let found = parse_config_check(&exited(1, bad, "")).unwrap();
    assert_eq!(
        (found.valid, found.message.as_str()),
        (
            false,
            "config: Error: syntax error, unexpected end of file, expecting '}'"
        )
    );
}

#[test]
fn peers_that_cannot_be_reached_are_named() {
    let answer = |address: &str, error: Option<&str>| wire::TcpAnswer {
        target: TcpTarget {
            address: address.to_owned(),
            port: 5665,
        },
        open: error.is_none(),
        error: error.map(str::to_owned),
    };
    let answers = vec![
        answer("10.0.0.1", None),
        answer("10.0.0.2", Some("timed out")),
    ];
    let peers = parse_peers(&ProbeResult::Tcp { answers }).unwrap();
    assert_eq!(peers.open, 1);
    assert_eq!(peers.closed["10.0.0.2"], "timed out");
}
