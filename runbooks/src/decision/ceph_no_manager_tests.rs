use deploy_engine::probe::{Reading, ceph::Cluster};
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, host, unit};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// Three managers; those named are stopped. Without one left, none answers.
fn stopped(names: &[&str]) -> Case {
    let mut case = Case::new("ceph.no_manager", "ceph", 3).setting("confirm", json!(10));
    let all: std::collections::BTreeSet<String> = HOSTS.map(str::to_owned).into();
    let cluster = Cluster {
        monitors: all.clone(),
        quorum: all,
        epoch: 24,
        ..Cluster::default()
    };
    for name in HOSTS {
        case.set(CLUSTER, name, &cluster);
        let state = unit(if names.contains(&name) {
            "failed"
        } else {
            "active"
        });
        case.set(&asked(name), name, &state);
        match names.len() {
            3 => silent(&mut case, name),
            _ => case.set(
                PGS,
                name,
                &json!({"total": 1, "states": {"active+clean": 1}}),
            ),
        }
    }
    case
}

fn asked(name: &str) -> String {
    format!("host.unit/ceph-mgr@{name}.service")
}

fn silent(case: &mut Case, name: &str) {
    let reading = Reading::Unknown {
        why: NO_MANAGER.to_owned(),
        at: case.now,
    };
    case.readings.insert(PGS, host(name), reading);
}

#[test]
fn one_is_started_when_none_answers_or_one_is_stopped() {
    let case = stopped(&HOSTS);
    assert_eq!(case.roles()["down"], ["h1"]);
    assert_eq!(case.act().parameters["unit"], "ceph-mgr@h1.service");
    assert_eq!(stopped(&["h2"]).roles()["down"], ["h2"]);
    assert!(matches!(
        case.verdict_at_first_sight(),
        Verdict::Hold { .. }
    ));
}

#[rstest::rstest]
#[case::all_run(&[], |_: &mut Case| {}, "elsewhere", "every manager runs")]
#[case::hangs(&[], |c: &mut Case| HOSTS.iter().for_each(|h| silent(c, h)), "refuse", "one hangs")]
#[case::takes_over(&["h1"], |c: &mut Case| HOSTS.iter().for_each(|h| silent(c, h)), "hold", "taking over")]
#[case::no_quorum(&HOSTS, |c: &mut Case| HOSTS.iter().for_each(|h| c.edit(CLUSTER, h, "/quorum", json!(["h1"]))), "refuse", "no quorum")]
#[case::blind(&HOSTS, |c: &mut Case| HOSTS.iter().for_each(|h| c.lose(CLUSTER, h)), "refuse", "unknown is not down")]
#[case::one_host_unknown(&HOSTS, |c: &mut Case| c.lose(&asked("h3"), "h3"), "refuse", "unknown is not down")]
#[case::not_asked(&HOSTS, |c: &mut Case| c.lose(PGS, "h3"), "refuse", "unknown is not down")]
#[case::masked(&HOSTS, |c: &mut Case| c.edit(&asked("h1"), "h1", "/load", json!("masked")), "refuse", "does not want it to run")]
#[case::starting(&HOSTS, |c: &mut Case| c.edit(&asked("h1"), "h1", "/active", json!("activating")), "hold", "activating")]
fn refusals(
    #[case] names: &[&str],
    #[case] change: fn(&mut Case),
    #[case] kind: &str,
    #[case] part: &str,
) {
    let mut case = stopped(names);
    change(&mut case);
    expect(&case, kind, part);
}
