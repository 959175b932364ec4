use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect};

/// Two masters with 100 checks, of which so many are late.
fn late(count: u64) -> Case {
    let mut case =
        Case::new("icinga2.late", "icinga2", 2).site_setting("check_interval", json!(60));
    for host in ["h1", "h2"] {
        let status = Status {
            node_name: host.to_owned(),
            version: "r2.13.6-1".to_owned(),
            uptime_seconds: 3_600.0,
            services: 100,
            active_service_checks_1min: 40.0,
            max_latency_seconds: 95.0,
            avg_latency_seconds: 40.5,
            checks_enabled: true,
        };
        case.set(STATUS, host, &Heard::Answers(status));
        let late = Late {
            count,
            some: vec!["h2!ssh".to_owned()],
        };
        case.set(LATE, host, &Heard::Answers(late));
    }
    case
}

fn silent(case: &mut Case, host: &str) {
    let silent: Heard<Status> = Heard::Silent {
        why: "no answer".to_owned(),
    };
    case.set(STATUS, host, &silent);
}

#[test]
fn late_checks_are_named_and_nothing_is_done() {
    let Verdict::Page { why, evidence } = late(6).verdict() else {
        panic!("expected a page");
    };
    assert!(
        why.contains("older than 2 intervals counts for nothing"),
        "{why}"
    );
    assert_eq!(
        evidence[0],
        "h1: 6 of 100 checks are late (h2!ssh); 40 checks in the last minute, begun 40.5 s late on average and 95.0 s at most"
    );
}

#[rstest::rstest]
#[case::few(|c: &mut Case| *c = late(5), "elsewhere", "5 of 100 checks are late")]
#[case::just_started(|c: &mut Case| c.edit(STATUS, "h2", "/uptime_seconds", json!(119.0)), "hold", "first checks are still to come")]
#[case::one_silent(|c: &mut Case| silent(c, "h1"), "page", "counts for nothing")]
#[case::nobody(|c: &mut Case| { silent(c, "h1"); silent(c, "h2") }, "page", "h1, h2 does not answer")]
#[case::unknown(|c: &mut Case| c.lose(LATE, "h2"), "refuse", "unknown is not down")]
#[case::off(|c: &mut Case| c.edit(STATUS, "h1", "/checks_enabled", json!(false)), "page", "counts for nothing")]
fn other_situations(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = late(6);
    change(&mut case);
    expect(&case, kind, part);
}
