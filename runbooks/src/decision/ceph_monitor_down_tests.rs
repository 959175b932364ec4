use deploy_engine::probe::ceph::Cluster;
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, filesystems, obeys_the_laws, unit};

const UNIT: &str = "host.unit/ceph-mon@h3.service";

/// Three monitors, the one of h3 is down.
fn down() -> Case {
    let mut case = Case::new("ceph.monitor_down", "ceph", 3)
        .setting("confirm", json!(30))
        .setting("min_free_percent", json!(15));
    let cluster = Cluster {
        monitors: ["h1", "h2", "h3"].map(str::to_owned).into(),
        quorum: ["h1", "h2"].map(str::to_owned).into(),
        epoch: 24,
        versions: [("mon".to_owned(), [("16.2.15".to_owned(), 2)].into())].into(),
        ..Cluster::default()
    };
    for name in ["h1", "h2", "h3"] {
        case.set(CLUSTER, name, &cluster);
        let state = unit(if name == "h3" { "failed" } else { "active" });
        let units = BTreeMap::from([(format!("ceph-mon@{name}.service"), state)]);
        case.set(UNITS, name, &units);
        case.set(FILESYSTEM, name, &filesystems(50));
    }
    case.set(UNIT, "h3", &unit("failed"));
    case
}

#[test]
fn systemd_is_asked_by_name() {
    let mut case = down();
    case.readings.by_probe.remove(UNIT);
    expect(&case, "more", "systemd was not asked");
}

#[test]
fn laws() {
    assert_eq!(down().act().parameters["unit"], "ceph-mon@h3.service");
    assert_eq!(down().roles()["down"], ["h3"]);
    let spare = [
        (UNITS, "h1"),
        (UNITS, "h2"),
        (UNITS, "h3"),
        (FILESYSTEM, "h1"),
        (FILESYSTEM, "h2"),
    ];
    obeys_the_laws(&down(), &spare);
}

fn everywhere(case: &mut Case, path: &str, new: serde_json::Value) {
    for name in ["h1", "h2", "h3"] {
        case.edit(CLUSTER, name, path, new.clone());
    }
}

#[rstest::rstest]
#[case::all_there(|c: &mut Case| everywhere(c, "/quorum", json!(["h1", "h2", "h3"])), "elsewhere", "every monitor is in the quorum")]
#[case::two_down(|c: &mut Case| everywhere(c, "/quorum", json!(["h1"])), "refuse", "2 monitors are not in the quorum")]
#[case::flag(|c: &mut Case| everywhere(c, "/flags", json!(["noup"])), "refuse", "flag noup")]
#[case::skew(|c: &mut Case| everywhere(c, "/checks", json!({"MON_CLOCK_SKEW": {"severity": "HEALTH_WARN", "message": "clock skew detected on mon.h3", "muted": false, "details": []}})), "refuse", "CEPH-7")]
#[case::synchronizing(|c: &mut Case| c.edit(UNIT, "h3", "/active", json!("active")), "refuse", "does not answer as it should")]
#[case::starting(|c: &mut Case| c.edit(UNIT, "h3", "/active", json!("activating")), "hold", "activating")]
#[case::disabled(|c: &mut Case| c.edit(UNIT, "h3", "/enabled", json!("disabled")), "refuse", "does not want it to run")]
#[case::full(|c: &mut Case| c.set(FILESYSTEM, "h3", &filesystems(14)), "refuse", "at least 15 % free")]
#[case::stranger(|c: &mut Case| everywhere(c, "/monitors", json!(["h1", "h2", "h9"])), "refuse", "is on no member")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down();
    change(&mut case);
    expect(&case, kind, part);
}
