use super::*;
use crate::condition::{find, table::testing};

/// Two masters that share two hosts.
fn healthy() -> Readings {
    let mut readings = Readings::default();
    for (host, other) in [("ctl1", "ctl2"), ("ctl2", "ctl1")] {
        said_by(&mut readings, icinga2::STATUS, host, status(host, 100));
        said_by(
            &mut readings,
            icinga2::ZONES,
            host,
            zones(host, &[other], 0.0),
        );
        said_by(
            &mut readings,
            icinga2::AUTHORITY,
            host,
            authority(&[host], &[other]),
        );
        said_by(&mut readings, icinga2::LATE, host, late(0));
        let valid = Valid {
            valid: true,
            message: String::new(),
        };
        testing::known(&mut readings, icinga2::CONFIG_CHECK, host, &valid);
    }
    readings
}

fn said_by<T: serde::Serialize>(readings: &mut Readings, probe: &str, host: &str, value: T) {
    testing::known(readings, probe, host, &Heard::Answers(value));
}

fn silent(readings: &mut Readings, probe: &str, host: &str) {
    let silent: Heard<Status> = Heard::Silent {
        why: "no answer".to_owned(),
    };
    testing::known(readings, probe, host, &silent);
}

fn status(node_name: &str, services: u64) -> Status {
    Status {
        node_name: node_name.to_owned(),
        version: "r2.13.6-1".to_owned(),
        uptime_seconds: 500.0,
        services,
        active_service_checks_1min: 10.0,
        max_latency_seconds: 0.1,
        avg_latency_seconds: 0.1,
        checks_enabled: true,
    }
}

fn zones(identity: &str, connected: &[&str], log_lag_seconds: f64) -> Zones {
    Zones {
        identity: identity.to_owned(),
        connected: connected.iter().map(|name| (*name).to_owned()).collect(),
        not_connected: Vec::new(),
        zones_lost: Vec::new(),
        log_lag_seconds,
    }
}

fn authority(checks: &[&str], leaves: &[&str]) -> Authority {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Authority {
        checks: names(checks),
        leaves: names(leaves),
    }
}

fn late(count: u64) -> Late {
    Late {
        count,
        some: Vec::new(),
    }
}

fn judged(name: &str, about: &[&str], readings: &Readings) -> (&'static str, String) {
    let call = testing::call(name, "icinga2", about, &["ctl1", "ctl2"]);
    let judgement = find(name).expect("a condition").judge(&call, readings);
    let word = match judgement {
        Judgement::Holds { .. } => "holds",
        Judgement::NotYet { .. } => "not yet",
        Judgement::Refuted { .. } => "refuted",
        Judgement::Unknown { .. } => "unknown",
    };
    (word, judgement.why().to_owned())
}

type Change = fn(&mut Readings);

#[rstest::rstest]
#[case::well("icinga2.running", |_: &mut Readings| (), "holds", "up 500 s")]
#[case::silent("icinga2.running", |r: &mut Readings| silent(r, icinga2::STATUS, "ctl1"), "not yet", "does not answer")]
#[case::lost("icinga2.running", |r: &mut Readings| testing::unknown(r, icinga2::STATUS, "ctl1"), "unknown", "timed out")]
#[case::another("icinga2.running", |r: &mut Readings| said_by(r, icinga2::STATUS, "ctl1", status("ctl2", 9)), "refuted", "expected the endpoint ctl1")]
#[case::connected("icinga2.connected", |_: &mut Readings| (), "holds", "2 hosts are shared out")]
#[case::one_way("icinga2.connected", |r: &mut Readings| said_by(r, icinga2::ZONES, "ctl2", zones("ctl2", &[], 0.0)), "not yet", "ctl2 is not connected to ctl1")]
#[case::replays("icinga2.connected", |r: &mut Readings| said_by(r, icinga2::ZONES, "ctl2", zones("ctl2", &["ctl1"], 300.0)), "not yet", "300 s of its log")]
#[case::split("icinga2.connected", |r: &mut Readings| said_by(r, icinga2::AUTHORITY, "ctl2", authority(&["ctl1", "ctl2"], &[])), "not yet", "ctl1 is checked by several")]
#[case::nobody("icinga2.connected", |r: &mut Readings| said_by(r, icinga2::AUTHORITY, "ctl2", authority(&[], &["ctl1", "ctl2"])), "not yet", "ctl2 is checked by nobody")]
#[case::other_silent("icinga2.connected", |r: &mut Readings| silent(r, icinga2::STATUS, "ctl2"), "not yet", "on ctl2 does not answer")]
#[case::view_unknown("icinga2.connected", |r: &mut Readings| testing::unknown(r, icinga2::AUTHORITY, "ctl2"), "unknown", "timed out")]
#[case::restart("icinga2.may_restart", |_: &mut Readings| (), "holds", "ctl2 checks meanwhile")]
#[case::both_gone("icinga2.may_restart", |r: &mut Readings| silent(r, icinga2::STATUS, "ctl2"), "not yet", "on ctl2 does not answer")]
#[case::other_unknown("icinga2.may_restart", |r: &mut Readings| testing::unknown(r, icinga2::STATUS, "ctl2"), "unknown", "timed out")]
#[case::on_time("icinga2.checks_on_time", |r: &mut Readings| said_by(r, icinga2::LATE, "ctl1", late(5)), "holds", "5 of 100")]
#[case::late("icinga2.checks_on_time", |r: &mut Readings| said_by(r, icinga2::LATE, "ctl1", late(6)), "not yet", "6 of 100")]
#[case::nothing("icinga2.checks_on_time", |r: &mut Readings| said_by(r, icinga2::STATUS, "ctl1", status("ctl1", 0)), "not yet", "0 of 0")]
fn judgements(
    #[case] name: &str,
    #[case] change: Change,
    #[case] expected: &str,
    #[case] part: &str,
) {
    let mut readings = healthy();
    change(&mut readings);
    let (word, why) = judged(name, &["ctl1"], &readings);
    assert_eq!(word, expected, "{why}");
    assert!(why.contains(part), "expected {part:?} in {why:?}");
}

#[test]
fn an_invalid_configuration_would_not_start_again() {
    let mut readings = healthy();
    let invalid = Valid {
        valid: false,
        message: "syntax error".to_owned(),
    };
    testing::known(&mut readings, icinga2::CONFIG_CHECK, "ctl1", &invalid);
    let (word, why) = judged("icinga2.may_restart", &["ctl1"], &readings);
    assert_eq!(word, "refuted");
    assert!(why.contains("syntax error"), "{why}");
}
