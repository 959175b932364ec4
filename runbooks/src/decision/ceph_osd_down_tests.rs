use deploy_engine::probe::{
    Reading,
    ceph::{Check, Cluster, NO_MANAGER, Osd},
};
use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, host, obeys_the_laws, unit};

const UNIT: &str = "host.unit/ceph-osd@4.service";

/// Three members with a monitor and two OSDs each; osd.4 on h3 is down.
fn down() -> Case {
    let mut case = Case::new("ceph.osd_down", "ceph", 3)
        .setting("confirm", json!(30))
        .setting("crashes", json!(2))
        .setting("crash_window", json!(86_400));
    let names: std::collections::BTreeSet<String> = ["h1", "h2", "h3"].map(str::to_owned).into();
    let version = |count: u32| BTreeMap::from([("16.2.15".to_owned(), count)]);
    let osd = |id: u32| {
        let osd = Osd {
            host: Some(format!("h{}", id / 2 + 1)),
            up: id != 4,
            is_in: true,
        };
        (id, osd)
    };
    let cluster = Cluster {
        monitors: names.clone(),
        quorum: names,
        epoch: 24,
        osds: (0..6).map(osd).collect(),
        versions: [
            ("mon".to_owned(), version(3)),
            ("osd".to_owned(), version(5)),
        ]
        .into(),
        ..Cluster::default()
    };
    for (index, name) in ["h1", "h2", "h3"].into_iter().enumerate() {
        case.set(CLUSTER, name, &cluster);
        case.set(
            PGS,
            name,
            &json!({"total": 32, "states": {"active+undersized": 20, "active+clean": 12}}),
        );
        let of = [index as u32 * 2, index as u32 * 2 + 1];
        let units: BTreeMap<String, _> = of
            .map(|id| (unit_of(id), unit(if id == 4 { "failed" } else { "active" })))
            .into();
        case.set(UNITS, name, &units);
        case.set(DEVICE_ERRORS, name, &json!([]));
        case.set(CRASHES, name, &json!([]));
    }
    case.set(UNIT, "h3", &unit("failed"));
    case
}

#[test]
fn laws() {
    let act = down().act();
    assert_eq!(act.parameters["osd"], "4");
    assert_eq!(act.parameters["unit"], "ceph-osd@4.service");
    assert_eq!(down().roles()["down"], ["h3"]);
    let mut spare = vec![(UNITS, "h3")];
    for host in ["h1", "h2"] {
        spare.extend([(UNITS, host), (DEVICE_ERRORS, host), (CRASHES, host)]);
    }
    obeys_the_laws(&down(), &spare);
}

fn everywhere(case: &mut Case, probe: &str, path: &str, new: serde_json::Value) {
    for name in ["h1", "h2", "h3"] {
        case.edit(probe, name, path, new.clone());
    }
}

fn no_manager(case: &mut Case, hosts: &[&str]) {
    for name in hosts {
        let reading = Reading::Unknown {
            why: NO_MANAGER.to_owned(),
            at: case.now,
        };
        case.readings.insert(PGS, host(name), reading);
    }
}

fn groups(case: &mut Case, state: &str) {
    everywhere(case, PGS, "/states", json!({state: 32}));
}

fn crashed(case: &mut Case, times: usize, hours_ago: i64, daemon: &str) {
    let at = case.now - SignedDuration::from_hours(hours_ago);
    let one = json!({"id": "x", "daemon": daemon, "at": at.to_string()});
    case.set(CRASHES, "h3", &vec![one; times]);
}

#[rstest::rstest]
#[case::all_up(|c: &mut Case| everywhere(c, CLUSTER, "/osds/4/up", json!(true)), "elsewhere", "every OSD is up")]
#[case::second_elsewhere(|c: &mut Case| everywhere(c, CLUSTER, "/osds/0/up", json!(false)), "refuse", "2 OSDs are down: osd.0 on h1, osd.4 on h3")]
#[case::second_here(|c: &mut Case| everywhere(c, CLUSTER, "/osds/5/up", json!(false)), "refuse", "2 OSDs are down")]
#[case::newest_map_counts(|c: &mut Case| { c.edit(CLUSTER, "h2", "/epoch", json!(25)); c.edit(CLUSTER, "h2", "/osds/4/up", json!(true)); }, "elsewhere", "every OSD is up")]
#[case::noout(|c: &mut Case| everywhere(c, CLUSTER, "/flags", json!(["noout"])), "refuse", "somebody has set the flag noout")]
#[case::monitor_away(|c: &mut Case| everywhere(c, CLUSTER, "/quorum", json!(["h1", "h2"])), "refuse", "missing: h3")]
#[case::upgrade(|c: &mut Case| everywhere(c, CLUSTER, "/versions/osd", json!({"16.2.15": 4, "17.2.1": 1})), "refuse", "an upgrade is under way")]
#[case::no_manager(|c: &mut Case| no_manager(c, &["h1", "h2", "h3"]), "elsewhere", "no active manager answers: CEPH-8")]
#[case::manager_silent_to_two(|c: &mut Case| no_manager(c, &["h1", "h2"]), "refuse", "unknown is not down")]
#[case::blind(|c: &mut Case| { for h in ["h1", "h2", "h3"] { c.lose(PGS, h) } }, "refuse", "unknown is not down")]
#[case::inactive(|c: &mut Case| groups(c, "undersized+degraded"), "refuse", "cannot be used")]
#[case::peering(|c: &mut Case| groups(c, "peering"), "refuse", "worse off than one copy short")]
#[case::moving(|c: &mut Case| groups(c, "active+remapped+backfilling"), "refuse", "worse off")]
#[case::inconsistent(|c: &mut Case| groups(c, "active+clean+inconsistent"), "refuse", "worse off")]
#[case::none(|c: &mut Case| everywhere(c, PGS, "/total", json!(0)), "refuse", "worse off")]
#[case::full(|c: &mut Case| {
    let check = Check { severity: "HEALTH_ERR".into(), message: "1 full osd(s)".into(), muted: false, details: vec![] };
    everywhere(c, CLUSTER, "/checks", json!({"OSD_FULL": check}));
}, "refuse", "1 full osd(s)")]
#[case::medium_error(|c: &mut Case| c.set(DEVICE_ERRORS, "h3", &json!(["sd 0:0:0:0: [sdb] Sense Key : Medium Error"])), "refuse", "CEPH-14")]
#[case::others_disk(|c: &mut Case| c.set(DEVICE_ERRORS, "h1", &json!(["Medium Error"])), "act", "")]
#[case::crashes(|c: &mut Case| crashed(c, 2, 1, "osd.4"), "refuse", "crashed 2 times within 24 h")]
#[case::one_crash(|c: &mut Case| crashed(c, 1, 1, "osd.4"), "act", "")]
#[case::old_crashes(|c: &mut Case| crashed(c, 5, 30, "osd.4"), "act", "")]
#[case::others_crashes(|c: &mut Case| crashed(c, 5, 1, "osd.5"), "act", "")]
#[case::odd_time(|c: &mut Case| c.set(CRASHES, "h3", &json!([{"id": "x", "daemon": "osd.4", "at": "yesterday"}])), "refuse", "expected the time of a crash")]
#[case::gave_up(|c: &mut Case| c.edit(UNIT, "h3", "/result", json!("start-limit-hit")), "refuse", "again and again")]
#[case::memory(|c: &mut Case| c.edit(UNIT, "h3", "/result", json!("oom-kill")), "refuse", "lack of memory")]
#[case::starting(|c: &mut Case| c.edit(UNIT, "h3", "/active", json!("activating")), "hold", "activating")]
#[case::runs(|c: &mut Case| c.edit(UNIT, "h3", "/active", json!("active")), "refuse", "does not answer as it should")]
#[case::masked(|c: &mut Case| c.edit(UNIT, "h3", "/enabled", json!("masked")), "refuse", "does not want it to run")]
#[case::nowhere(|c: &mut Case| everywhere(c, CLUSTER, "/osds/4/host", json!(null)), "refuse", "no host in the CRUSH map")]
#[case::stranger(|c: &mut Case| everywhere(c, CLUSTER, "/osds/4/host", json!("h9")), "refuse", "no member")]
fn verdicts(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down();
    change(&mut case);
    expect(&case, kind, part);
}
