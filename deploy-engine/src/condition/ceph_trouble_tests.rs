use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    condition::{self, table::testing},
    probe::ceph::{Check, Osd},
};

const MEMBERS: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

/// Three members, each with a monitor and one OSD. One placement group is damaged; a report of a crash is new; a request waits.
struct World {
    cluster: Cluster,
    state: &'static str,
    damage: Value,
    crashes: Value,
    ok: Value,
    osds: Value,
}

fn world() -> World {
    let names = || MEMBERS.iter().map(|name| (*name).to_owned()).collect();
    let osd = |(id, host): (usize, &&str)| {
        let osd = Osd {
            host: Some((*host).to_owned()),
            up: true,
            is_in: true,
        };
        (id as u32, osd)
    };
    let slow = Check {
        severity: "HEALTH_WARN".into(),
        message: "2 slow ops, oldest one blocked for 40 sec, osd.0 has slow ops".into(),
        muted: false,
        details: vec![],
    };
    World {
        cluster: Cluster {
            monitors: names(),
            quorum: names(),
            epoch: 20,
            osds: MEMBERS.iter().enumerate().map(osd).collect(),
            checks: [("SLOW_OPS".to_owned(), slow)].into(),
            ..Cluster::default()
        },
        state: "active+clean",
        damage: json!({"count": 1, "osds": {}, "groups": [{"group": "2.3", "state": "active+clean+inconsistent", "count": 1, "objects": []}]}),
        crashes: json!([{"id": "2026-a_b", "daemon": "osd.1", "at": "2026-11-26T05:10:08Z"}]),
        ok: json!(true),
        osds: json!({"2": "active"}),
    }
}

impl World {
    /// About ctl3, which holds osd.2.
    fn judge(&self, name: &str) -> (&'static str, String) {
        let mut readings = Readings::default();
        for host in MEMBERS {
            testing::known(&mut readings, ceph::CLUSTER, host, &self.cluster);
            let pgs = json!({"total": 17, "states": {self.state: 17}});
            testing::known(&mut readings, ceph::PGS, host, &pgs);
            for (probe, value) in [
                (DAMAGE, &self.damage),
                (ceph::NEW_CRASHES, &self.crashes),
                (ceph::OK_TO_STOP, &self.ok),
                (ceph::OSDS, &self.osds),
            ] {
                match value.is_null() {
                    true => testing::unknown(&mut readings, probe, host),
                    false => testing::known(&mut readings, probe, host, value),
                }
            }
        }
        let mut call = testing::call(name, "ceph", &["ctl3"], &MEMBERS);
        for (setting, value) in [
            ("osd", "2"),
            (GROUP_SETTING, "2.3"),
            (CRASH_SETTING, "2026-a_b"),
        ] {
            call.settings.insert(setting.to_owned(), json!(value));
        }
        let judgement = condition::find(name).unwrap().judge(&call, &readings);
        let word = match judgement {
            Judgement::Holds { .. } => "holds",
            Judgement::NotYet { .. } => "not yet",
            Judgement::Refuted { .. } => "refuted",
            Judgement::Unknown { .. } => "unknown",
        };
        (word, judgement.why().to_owned())
    }
}

fn none_damaged(world: &mut World) {
    world.damage = json!({"count": 0, "osds": {}, "groups": []});
}

fn many_damaged(world: &mut World) {
    world.damage["groups"][0]["group"] = json!("2.4");
    world.damage["count"] = json!(9);
}

fn one_down(world: &mut World) {
    world.cluster.osds.get_mut(&0).unwrap().up = false;
}

fn flag(world: &mut World) {
    world.cluster.flags.insert("noscrub".into());
}

fn archived(world: &mut World) {
    world.crashes = json!([]);
}

#[rstest]
#[case("ceph.may_repair_group", |_: &mut World| {}, "holds", "3 OSDs are up")]
#[case("ceph.may_repair_group", none_damaged, "not yet", "not damaged")]
#[case("ceph.may_repair_group", many_damaged, "unknown", "9 placement groups")]
#[case("ceph.may_repair_group", one_down, "refuted", "osd.0 is not up and in")]
#[case("ceph.may_repair_group", flag, "refuted", "flag noscrub")]
#[case("ceph.may_repair_group", |w: &mut World| w.state = "active+undersized", "not yet", "active+undersized")]
#[case("ceph.may_repair_group", |w: &mut World| w.damage = Value::Null, "unknown", "")]
#[case("ceph.may_repair_group", |w: &mut World| { w.cluster.quorum.remove("ctl1"); }, "refuted", "ctl1 not in the quorum")]
#[case("ceph.group_consistent", none_damaged, "holds", "agree")]
#[case("ceph.group_consistent", |_: &mut World| {}, "not yet", "inconsistent")]
#[case("ceph.group_consistent", many_damaged, "unknown", "9 placement groups")]
#[case("ceph.group_consistent", |w: &mut World| { none_damaged(w); w.state = "active+clean+scrubbing+deep+repair"; }, "not yet", "repair")]
#[case("ceph.group_consistent", |w: &mut World| w.damage = Value::Null, "unknown", "")]
#[case("ceph.may_restart_osd", |_: &mut World| {}, "holds", "may stop")]
#[case("ceph.may_restart_osd", |w: &mut World| w.ok = json!(false), "not yet", "may not stop")]
#[case("ceph.may_restart_osd", |w: &mut World| w.ok = Value::Null, "unknown", "")]
#[case("ceph.may_restart_osd", one_down, "refuted", "osd.0 is not up and in")]
#[case("ceph.may_restart_osd", flag, "refuted", "flag noscrub")]
#[case("ceph.may_restart_osd", |w: &mut World| w.state = "active+clean+remapped", "not yet", "remapped")]
#[case("ceph.may_restart_osd", |w: &mut World| { w.cluster.osds.remove(&2); }, "refuted", "no osd.2")]
#[case("ceph.quick", |_: &mut World| {}, "not yet", "oldest one blocked for 40 sec")]
#[case("ceph.quick", |w: &mut World| w.cluster.checks.clear(), "holds", "no request waits")]
#[case("ceph.quick", |w: &mut World| { w.cluster.checks.clear(); w.osds = json!({}); }, "not yet", "does not answer")]
#[case("ceph.crash_is_new", |_: &mut World| {}, "holds", "")]
#[case("ceph.crash_is_new", archived, "not yet", "is archived")]
#[case("ceph.crash_is_new", |w: &mut World| w.crashes = Value::Null, "unknown", "")]
#[case("ceph.crash_archived", archived, "holds", "")]
#[case("ceph.crash_archived", |_: &mut World| {}, "not yet", "not archived")]
#[case("ceph.crash_archived", |w: &mut World| w.crashes = Value::Null, "unknown", "")]
#[case("ceph.no_crash_reported", archived, "holds", "no report")]
#[case("ceph.no_crash_reported", |_: &mut World| {}, "not yet", "osd.1 crashed")]
#[case("ceph.no_crash_reported", |w: &mut World| w.crashes = Value::Null, "unknown", "")]
fn conditions(
    #[case] name: &str,
    #[case] change: fn(&mut World),
    #[case] word: &str,
    #[case] part: &str,
) {
    let mut world = world();
    change(&mut world);
    let (found, why) = world.judge(name);
    assert_eq!(found, word, "{why}");
    assert!(why.contains(part), "{why}");
}
