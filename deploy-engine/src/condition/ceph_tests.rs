use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    condition::{self, table::testing},
    probe::ceph::{Cluster, Osd},
};

const MEMBERS: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

/// Three members, each with a monitor and one OSD, all well.
struct World {
    cluster: Cluster,
    pgs: Option<&'static str>,
    states: [&'static str; 3],
    ok: bool,
    leaving: Vec<&'static str>,
}

fn well() -> World {
    let names = || MEMBERS.iter().map(|name| (*name).to_owned()).collect();
    let osd = |(id, host): (usize, &&str)| {
        let osd = Osd {
            host: Some((*host).to_owned()),
            up: true,
            is_in: true,
        };
        (id as u32, osd)
    };
    World {
        cluster: Cluster {
            monitors: names(),
            quorum: names(),
            epoch: 20,
            osds: MEMBERS.iter().enumerate().map(osd).collect(),
            ..Cluster::default()
        },
        pgs: Some("active+clean"),
        states: ["active"; 3],
        ok: true,
        leaving: Vec::new(),
    }
}

impl World {
    fn judge(&self, name: &str, about: &[&str]) -> (&'static str, String) {
        let mut readings = Readings::default();
        for (index, host) in MEMBERS.iter().enumerate() {
            testing::known(&mut readings, ceph::CLUSTER, host, &self.cluster);
            match self.pgs {
                Some(state) => {
                    let pgs = json!({"total": 17, "states": {state: 17}});
                    testing::known(&mut readings, ceph::PGS, host, &pgs);
                }
                None => testing::unknown(&mut readings, ceph::PGS, host),
            }
            match self.states[index] {
                "?" => testing::unknown(&mut readings, ceph::OSDS, host),
                "" => testing::known(&mut readings, ceph::OSDS, host, &json!({})),
                state => {
                    let states: BTreeMap<u32, &str> = [(index as u32, state)].into();
                    testing::known(&mut readings, ceph::OSDS, host, &states);
                }
            }
            testing::known(&mut readings, ceph::OK_TO_STOP, host, &self.ok);
            let there = self.cluster.quorum.contains(*host);
            let state = json!({"state": if there { "peon" } else { "probing" }});
            testing::known(&mut readings, ceph::MONITOR, host, &state);
        }
        let mut call = testing::call(name, "ceph", about, &MEMBERS);
        call.settings.insert(OSD_SETTING.to_owned(), json!("2"));
        call.settings
            .insert(LEAVING_SETTING.to_owned(), json!(self.leaving));
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

fn two_down(world: &mut World) {
    down(world);
    world.cluster.osds.get_mut(&0).unwrap().up = false;
}

/// It was emptied and stopped.
fn left(world: &mut World) {
    down(world);
    world.cluster.osds.get_mut(&2).unwrap().is_in = false;
    world.pgs = Some("active+clean");
    world.leaving = vec!["2"];
}

fn down(world: &mut World) {
    world.cluster.osds.get_mut(&2).unwrap().up = false;
    world.states[2] = "";
    world.pgs = Some("active+undersized");
}

#[rstest::rstest]
#[case::healthy("ceph.healthy", |_: &mut World| {}, "holds")]
#[case::scrubbing("ceph.healthy", |w: &mut World| w.pgs = Some("active+clean+scrubbing"), "holds")]
#[case::down("ceph.healthy", down, "not yet")]
#[case::out("ceph.healthy", |w: &mut World| w.cluster.osds.get_mut(&1).unwrap().is_in = false, "not yet")]
#[case::only_a_process("ceph.healthy", |w: &mut World| w.states[2] = "booting", "not yet")]
#[case::silent_osd("ceph.healthy", |w: &mut World| w.states[2] = "", "not yet")]
#[case::silent_host("ceph.healthy", |w: &mut World| w.states[2] = "?", "unknown")]
#[case::recovering("ceph.healthy", |w: &mut World| w.pgs = Some("active+recovering"), "not yet")]
#[case::no_manager("ceph.healthy", |w: &mut World| w.pgs = None, "unknown")]
#[case::monitor_away("ceph.healthy", |w: &mut World| { w.cluster.quorum.remove("ctl2"); }, "not yet")]
#[case::member("ceph.member_healthy", |_: &mut World| {}, "holds")]
#[case::member_of_others("ceph.member_healthy", |w: &mut World| { w.cluster.quorum.remove("ctl1"); }, "holds")]
#[case::member_without("ceph.member_healthy", |w: &mut World| { w.cluster.quorum.remove("ctl3"); }, "not yet")]
#[case::member_down("ceph.member_healthy", down, "not yet")]
#[case::member_with_a_new_osd("ceph.member_healthy", |w: &mut World| w.cluster.osds.get_mut(&0).unwrap().host = None, "not yet")]
#[case::member_with_one_that_left("ceph.member_healthy", left, "holds")]
#[case::member_with_one_that_should_be_in("ceph.member_healthy", |w: &mut World| { left(w); w.cluster.osds.get_mut(&2).unwrap().is_in = true; }, "not yet")]
#[case::may_stop("ceph.may_stop", |_: &mut World| {}, "holds")]
#[case::not_ok("ceph.may_stop", |w: &mut World| w.ok = false, "not yet")]
#[case::not_clean("ceph.may_stop", |w: &mut World| w.pgs = Some("active+undersized"), "not yet")]
#[case::previous_not_active("ceph.may_stop", |w: &mut World| w.states[0] = "booting", "not yet")]
#[case::previous_unknown("ceph.may_stop", |w: &mut World| w.states[0] = "?", "unknown")]
#[case::stop_blind("ceph.may_stop", |w: &mut World| w.pgs = None, "unknown")]
#[case::quorum_would_go("ceph.may_stop", |w: &mut World| { w.cluster.quorum.remove("ctl1"); }, "not yet")]
#[case::may_start("ceph.may_start_osd", down, "holds")]
#[case::start_what_is_up("ceph.may_start_osd", |_: &mut World| {}, "not yet")]
#[case::start_with_flag("ceph.may_start_osd", |w: &mut World| { down(w); w.cluster.flags.insert("noout".into()); }, "refuted")]
#[case::start_two("ceph.may_start_osd", two_down, "refuted")]
#[case::start_blind("ceph.may_start_osd", |w: &mut World| { down(w); w.pgs = None; }, "unknown")]
#[case::start_stranger("ceph.may_start_osd", |w: &mut World| drop(w.cluster.osds.remove(&2)), "refuted")]
#[case::start_monitor_away("ceph.may_start_osd", |w: &mut World| { down(w); w.cluster.quorum.remove("ctl1"); }, "refuted")]
#[case::active("ceph.osd_active", |_: &mut World| {}, "holds")]
#[case::up_but_silent("ceph.osd_active", |w: &mut World| w.states[2] = "", "not yet")]
#[case::inactive("ceph.osd_active", down, "not yet")]
#[case::in_quorum("ceph.in_quorum", |_: &mut World| {}, "holds")]
#[case::probing("ceph.in_quorum", |w: &mut World| { w.cluster.quorum.remove("ctl3"); }, "not yet")]
#[case::quorum_without("ceph.quorum_without", |w: &mut World| { w.cluster.quorum.remove("ctl3"); }, "holds")]
#[case::last_quorum("ceph.quorum_without", |w: &mut World| { w.cluster.quorum.remove("ctl1"); }, "not yet")]
#[case::manager("ceph.manager_answers", |_: &mut World| {}, "holds")]
#[case::manager_away("ceph.manager_answers", |w: &mut World| w.pgs = None, "not yet")]
fn about_the_third(#[case] name: &str, #[case] change: fn(&mut World), #[case] expected: &str) {
    let mut world = well();
    change(&mut world);
    let (found, why) = world.judge(name, &["ctl3"]);
    assert_eq!(found, expected, "{why}");
}

#[test]
fn never_two_hosts_at_once() {
    assert_eq!(
        well().judge("ceph.may_stop", &["ctl1", "ctl2"]).0,
        "refuted"
    );
}
