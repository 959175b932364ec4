use deploy_engine::probe::ceph::{Check, Osd};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const ID: &str = "2027-01-15T05:10:08.076744Z_1f4a7f0c-7d39-4d0a-9a5a-1e52a8c3a111";

fn crash(case: &Case, hours: i64) -> Value {
    let at = case.now - SignedDuration::from_hours(hours);
    json!({"id": ID, "daemon": "osd.1", "at": at.to_string()})
}

/// Three members with one OSD each; osd.1 crashed three hours ago, and all is well since.
fn over() -> Case {
    let mut case = Case::new("ceph.crash_over", "ceph", 3)
        .setting("confirm", json!(30))
        .setting("over", json!(1800))
        .setting("crash_window", json!(86_400));
    let names: BTreeSet<String> = HOSTS.map(str::to_owned).into();
    let osd = |(id, host): (usize, &&str)| {
        let osd = Osd {
            host: Some((*host).to_owned()),
            up: true,
            is_in: true,
        };
        (id as u32, osd)
    };
    let check = Check {
        severity: "HEALTH_WARN".into(),
        message: "1 daemons have recently crashed".into(),
        muted: false,
        details: vec![],
    };
    let cluster = Cluster {
        monitors: names.clone(),
        quorum: names,
        epoch: 24,
        osds: HOSTS.iter().enumerate().map(osd).collect(),
        checks: [("RECENT_CRASH".to_owned(), check)].into(),
        versions: [("mon".to_owned(), [("16.2.15".to_owned(), 3)].into())].into(),
        ..Cluster::default()
    };
    let report = crash(&case, 3);
    for name in HOSTS {
        case.set(CLUSTER, name, &cluster);
        case.set(
            PGS,
            name,
            &json!({"total": 17, "states": {"active+clean": 17}}),
        );
        case.set(NEW_CRASHES, name, &json!([report]));
        case.set(CRASHES, name, &json!([]));
    }
    case.set(CRASHES, "h2", &json!([report]));
    case
}

#[test]
fn laws() {
    assert_eq!(over().act().parameters["crash"], ID);
    assert_eq!(over().roles()["reporter"], ["h1"]);
    obeys_the_laws(&over(), &[]);
}

fn everywhere(case: &mut Case, probe: &str, path: &str, new: &Value) {
    for name in HOSTS {
        case.edit(probe, name, path, new.clone());
    }
}

fn again(case: &mut Case) {
    let (first, second) = (crash(case, 3), crash(case, 20));
    case.set(CRASHES, "h2", &json!([first, second]));
}

fn just_now(case: &mut Case) {
    let report = crash(case, 0);
    for name in HOSTS {
        case.set(NEW_CRASHES, name, &json!([report]));
    }
}

fn two(case: &mut Case) {
    let mut other = crash(case, 4);
    other["daemon"] = json!("osd.2");
    let both = json!([crash(case, 3), other]);
    case.set(NEW_CRASHES, "h3", &both);
}

#[rstest::rstest]
#[case::none(|c: &mut Case| everywhere(c, CLUSTER, "/checks", &json!({})), "elsewhere", "no crash")]
#[case::flag(|c: &mut Case| everywhere(c, CLUSTER, "/flags", &json!(["noout"])), "refuse", "flag noout")]
#[case::quorum(|c: &mut Case| everywhere(c, CLUSTER, "/quorum", &json!(["h1", "h2"])), "refuse", "missing: h3")]
#[case::osd_down(|c: &mut Case| everywhere(c, CLUSTER, "/osds/1/up", &json!(false)), "refuse", "osd.1 is not up and in")]
#[case::something_else(|c: &mut Case| everywhere(c, CLUSTER, "/checks/SLOW_OPS", &json!({"severity": "HEALTH_WARN", "message": "slow", "muted": false, "details": []})), "refuse", "may not be over: SLOW_OPS")]
#[case::unclean(|c: &mut Case| everywhere(c, PGS, "/states", &json!({"active+undersized": 17})), "refuse", "at rest")]
#[case::two(two, "refuse", "found 2 of osd.1, osd.2")]
#[case::odd_name(|c: &mut Case| everywhere(c, NEW_CRASHES, "/0/id", &json!("20; rm -rf /")), "refuse", "expected the name of a report")]
#[case::again(again, "refuse", "crashed 2 times within 24 h")]
#[case::just_now(just_now, "hold", "is seen later")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = over();
    change(&mut case);
    expect(&case, kind, part);
}
