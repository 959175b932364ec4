use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws, unit};

/// `count` masters of which the last one's daemon hangs.
fn hangs(count: usize) -> Case {
    let mut case =
        Case::new("icinga2.disconnected", "icinga2", count).setting("confirm", json!(30));
    let name = |n: usize| format!("h{n}");
    for n in 1..=count {
        let host = name(n);
        let others: Vec<String> = (1..count).filter(|other| *other != n).map(name).collect();
        if n == count {
            silence(&mut case, &host);
        } else {
            case.set(STATUS, &host, &Heard::Answers(status(&host)));
            let zones = Zones {
                identity: host.clone(),
                connected: others,
                not_connected: vec![name(count)],
                zones_lost: Vec::new(),
                log_lag_seconds: 83.0,
            };
            case.set(ZONES, &host, &Heard::Answers(zones));
            let authority = Authority {
                checks: vec![host.clone()],
                leaves: Vec::new(),
            };
            case.set(AUTHORITY, &host, &Heard::Answers(authority));
        }
        let valid = Valid {
            valid: true,
            message: String::new(),
        };
        case.set(CERTIFICATE, &host, &valid);
        case.set(CONFIG_CHECK, &host, &valid);
        case.set(UNIT_STATE, &host, &unit("active"));
        let peers = Peers {
            open: count as u64 - 1,
            closed: BTreeMap::new(),
        };
        case.set(PEERS_TCP, &host, &peers);
    }
    case
}

fn status(host: &str) -> Status {
    Status {
        node_name: host.to_owned(),
        version: "r2.13.6-1".to_owned(),
        uptime_seconds: 3_600.0,
        services: 12,
        active_service_checks_1min: 12.0,
        max_latency_seconds: 0.1,
        avg_latency_seconds: 0.1,
        checks_enabled: true,
    }
}

fn silence(case: &mut Case, host: &str) {
    let silent: Heard<Status> = Heard::Silent {
        why: "no answer".to_owned(),
    };
    for probe in [STATUS, ZONES, AUTHORITY] {
        case.set(probe, host, &silent);
    }
}

/// The last one answers as well; `sees`: whom it is connected to.
fn answers(case: &mut Case, host: &str, sees: &[&str]) {
    case.set(STATUS, host, &Heard::Answers(status(host)));
    let zones = Zones {
        identity: host.to_owned(),
        connected: sees.iter().map(|name| (*name).to_owned()).collect(),
        not_connected: Vec::new(),
        zones_lost: Vec::new(),
        log_lag_seconds: 0.0,
    };
    case.set(ZONES, host, &Heard::Answers(zones));
    let authority = Authority {
        checks: vec![host.to_owned()],
        leaves: Vec::new(),
    };
    case.set(AUTHORITY, host, &Heard::Answers(authority));
}

/// Both masters answer and see each other.
fn connected(case: &mut Case) {
    answers(case, "h2", &["h1"]);
    answers(case, "h1", &["h2"]);
}

fn closed(case: &mut Case, on: &str, address: &str, why: &str) {
    let peers = Peers {
        open: 0,
        closed: [(address.to_owned(), why.to_owned())].into(),
    };
    case.set(PEERS_TCP, on, &peers);
}

/// The daemon of h2 is down, so its port is closed.
fn down(case: &mut Case) {
    case.set(UNIT_STATE, "h2", &unit("failed"));
    closed(case, "h1", "10.0.0.2", "refused");
}

#[test]
fn laws() {
    let case = hangs(2);
    assert_eq!(case.roles()["target"], ["h2"]);
    let spare = [
        (ZONES, "h2"),
        (AUTHORITY, "h1"),
        (AUTHORITY, "h2"),
        (CONFIG_CHECK, "h1"),
        (UNIT_STATE, "h1"),
    ];
    obeys_the_laws(&case, &spare);
}

#[test]
fn a_daemon_that_is_down_and_one_that_lost_the_others_are_restarted() {
    let mut case = hangs(2);
    down(&mut case);
    assert_eq!(case.roles()["target"], ["h2"]);
    let mut case = hangs(2);
    answers(&mut case, "h2", &[]);
    assert_eq!(case.roles()["target"], ["h2"], "the first keeps checking");
    let mut case = hangs(3);
    answers(&mut case, "h3", &[]);
    assert_eq!(case.roles()["target"], ["h3"]);
}

#[rstest::rstest]
#[case::alone(|c: &mut Case| *c = hangs(1), "elsewhere", "one master alone")]
#[case::all_connected(connected, "elsewhere", "every master is connected")]
#[case::split(|c: &mut Case| { connected(c); c.edit(AUTHORITY, "h2", "/checks", json!(["h1", "h2"])) }, "refuse", "Icinga's word counts for nothing")]
#[case::nobody(|c: &mut Case| silence(c, "h1"), "refuse", "no master answers")]
#[case::two_silent(|c: &mut Case| { *c = hangs(3); silence(c, "h2") }, "refuse", "h2, h3 do not answer")]
#[case::others_lost_too(|c: &mut Case| { *c = hangs(3); c.edit(ZONES, "h1", "/connected", json!([])) }, "refuse", "h1 is not connected to h2 either")]
#[case::many_zones(|c: &mut Case| c.edit(ZONES, "h1", "/zones_lost", json!(["master", "east"])), "refuse", "lost the zones master, east")]
#[case::not_noticed(|c: &mut Case| c.edit(ZONES, "h1", "/connected", json!(["h2"])), "hold", "still connected to it")]
#[case::certificate(|c: &mut Case| c.edit(CERTIFICATE, "h2", "/valid", json!(false)), "refuse", "the certificate of h2 does not hold")]
#[case::own_certificate(|c: &mut Case| c.edit(CERTIFICATE, "h1", "/valid", json!(false)), "refuse", "the certificate of h1 does not hold")]
#[case::config(|c: &mut Case| c.edit(CONFIG_CHECK, "h2", "/valid", json!(false)), "refuse", "would not start")]
#[case::network(|c: &mut Case| closed(c, "h1", "10.0.0.2", "timed out"), "refuse", "the network, not a daemon")]
#[case::refused_though_active(|c: &mut Case| closed(c, "h1", "10.0.0.2", "refused"), "refuse", "the network, not a daemon")]
#[case::down_but_cut_off(|c: &mut Case| { down(c); closed(c, "h1", "10.0.0.2", "timed out") }, "refuse", "the network, not a daemon")]
#[case::back_way(|c: &mut Case| closed(c, "h2", "10.0.0.1", "timed out"), "refuse", "h2 does not reach 10.0.0.1")]
#[case::masked(|c: &mut Case| c.edit(UNIT_STATE, "h2", "/enabled", json!("masked")), "refuse", "does not want it to run")]
#[case::disabled_and_down(|c: &mut Case| { down(c); c.edit(UNIT_STATE, "h2", "/enabled", json!("disabled")) }, "refuse", "does not want it to run")]
#[case::starting(|c: &mut Case| { down(c); c.edit(UNIT_STATE, "h2", "/active", json!("activating")) }, "hold", "activating")]
#[case::upgrade(|c: &mut Case| { *c = hangs(3); c.edit(STATUS, "h2", "/version", json!("r2.14.0-1")) }, "refuse", "an upgrade is under way")]
#[case::off(|c: &mut Case| c.edit(STATUS, "h1", "/checks_enabled", json!(false)), "refuse", "somebody switched checks off")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = hangs(2);
    change(&mut case);
    expect(&case, kind, part);
}
