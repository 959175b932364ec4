use deploy_engine::probe::{ceph::Osd, host::unit_probe};
use serde_json::{Value, json};

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws, unit};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

fn own_unit(osd: u32) -> String {
    unit_probe(&unit_of(osd))
}

/// Three members with one OSD each; requests of osd.0 and osd.2 wait for osd.1 (h2), which does not answer.
fn slow() -> Case {
    let mut case = Case::new("ceph.slow_osd", "ceph", 3)
        .setting("confirm", json!(30))
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
        message: "3 slow ops, oldest one blocked for 40 sec, daemons [osd.0,osd.2] have slow ops."
            .into(),
        muted: false,
        details: vec![],
    };
    let cluster = Cluster {
        monitors: names.clone(),
        quorum: names,
        epoch: 24,
        osds: HOSTS.iter().enumerate().map(osd).collect(),
        checks: [(CHECK.to_owned(), check)].into(),
        versions: [("mon".to_owned(), [("16.2.15".to_owned(), 3)].into())].into(),
        ..Cluster::default()
    };
    for (id, name) in HOSTS.into_iter().enumerate() {
        case.set(CLUSTER, name, &cluster);
        case.set(
            PGS,
            name,
            &json!({"total": 17, "states": {"active+clean": 17}}),
        );
        case.set(DEVICE_ERRORS, name, &json!([]));
        case.set(CRASHES, name, &json!([]));
        let blocked = match id {
            1 => {
                json!([{"osd": 1, "answers": false, "blocked": 0, "oldest_seconds": 0, "waits": [], "more": false}])
            }
            // Of its two copies one has answered.
            _ => {
                let wait = json!({"on": [1, 2 - id], "silent": 1});
                json!([{"osd": id, "answers": true, "blocked": 2, "oldest_seconds": 40.1, "waits": [wait], "more": false}])
            }
        };
        case.set(BLOCKED, name, &blocked);
    }
    case.set(&own_unit(1), "h2", &unit("active"));
    case
}

#[test]
fn laws() {
    let act = slow().act();
    assert_eq!(act.parameters["osd"], "1");
    assert_eq!(act.parameters["unit"], "ceph-osd@1.service");
    assert_eq!(slow().roles()["slow"], ["h2"]);
    let spare = [
        (DEVICE_ERRORS, "h1"),
        (DEVICE_ERRORS, "h3"),
        (CRASHES, "h1"),
        (CRASHES, "h3"),
    ];
    obeys_the_laws(&slow(), &spare);
}

fn everywhere(case: &mut Case, path: &str, new: &Value) {
    for name in HOSTS {
        case.edit(CLUSTER, name, path, new.clone());
    }
}

fn groups(case: &mut Case, states: &Value) {
    for name in HOSTS {
        case.edit(PGS, name, "/states", states.clone());
    }
}

fn quiet(case: &mut Case, osd: usize) {
    let quiet = json!([{"osd": osd, "answers": true, "blocked": 0, "oldest_seconds": 0, "waits": [], "more": false}]);
    case.set(BLOCKED, HOSTS[osd], &quiet);
}

fn over(case: &mut Case) {
    for osd in 0..3 {
        quiet(case, osd);
    }
}

/// All answer, and of two copies one has not, whichever.
fn unclear(case: &mut Case) {
    quiet(case, 1);
    quiet(case, 2);
}

#[rstest::rstest]
#[case::none(|c: &mut Case| everywhere(c, "/checks", &json!({})), "elsewhere", "no slow request")]
#[case::flag(|c: &mut Case| everywhere(c, "/flags", &json!(["nodown"])), "refuse", "flag nodown")]
#[case::quorum(|c: &mut Case| everywhere(c, "/quorum", &json!(["h1", "h2"])), "refuse", "missing: h3")]
#[case::osd_down(|c: &mut Case| everywhere(c, "/osds/0/up", &json!(false)), "refuse", "osd.0 is not up and in")]
#[case::monitor(|c: &mut Case| everywhere(c, "/checks/SLOW_OPS/message", &json!("1 slow ops, mon.h1 has slow ops")), "refuse", "a monitor is slow")]
#[case::moving(|c: &mut Case| groups(c, &json!({"active+remapped+backfilling": 17})), "refuse", "at rest")]
#[case::two(|c: &mut Case| c.edit(BLOCKED, "h1", "/0/waits/0/silent", json!(2)), "refuse", "not a single one's fault")]
#[case::another(|c: &mut Case| c.edit(BLOCKED, "h3", "/0/waits/0/on", json!([0])), "refuse", "not a single one's fault")]
#[case::very_many(|c: &mut Case| c.edit(BLOCKED, "h3", "/0/more", json!(true)), "refuse", "very many")]
#[case::unclear(unclear, "refuse", "which of the OSDs [1, 2]")]
#[case::only_silent(|c: &mut Case| { quiet(c, 0); quiet(c, 2); }, "refuse", "no other one waits for them")]
#[case::another_is_silent(|c: &mut Case| c.edit(BLOCKED, "h3", "/0/answers", json!(false)), "refuse", "not a single one's fault")]
#[case::over(over, "hold", "any more")]
#[case::medium_error(|c: &mut Case| c.set(DEVICE_ERRORS, "h2", &json!(["medium error"])), "refuse", "CEPH-14")]
#[case::crashed(|c: &mut Case| c.set(CRASHES, "h2", &json!([{"id": "a", "daemon": "osd.1", "at": "2027-01-15T07:00:00Z"}])), "refuse", "crashed at")]
#[case::stopped(|c: &mut Case| c.edit(&own_unit(1), "h2", "/active", json!("failed")), "refuse", "does not run")]
#[case::masked(|c: &mut Case| c.edit(&own_unit(1), "h2", "/enabled", json!("masked")), "refuse", "does not want it to run")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = slow();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn one_that_answers_and_waits_for_itself_is_restarted_too_and_systemd_is_asked_by_name() {
    let mut case = slow();
    let itself = json!([{"osd": 1, "answers": true, "blocked": 2, "oldest_seconds": 40.1, "waits": [{"on": [1], "silent": 1}], "more": false}]);
    case.set(BLOCKED, "h2", &itself);
    assert_eq!(case.roles()["slow"], ["h2"]);
    case.readings.by_probe.remove(&own_unit(1));
    expect(&case, "more", "systemd was not asked");
}
