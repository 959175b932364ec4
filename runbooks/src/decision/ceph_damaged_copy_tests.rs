use deploy_engine::probe::ceph::{Check, Osd};
use serde_json::{Value, json};

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// Three members with one OSD each; of one object the copy on osd.1 (h2) cannot be read.
fn rotten() -> Case {
    let mut case = Case::new("ceph.damaged_copy", "ceph", 3)
        .setting("confirm", json!(30))
        .setting("groups", json!(2));
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
        severity: "HEALTH_ERR".into(),
        message: "Possible data damage: 1 pg inconsistent".into(),
        muted: false,
        details: vec!["pg 2.3 is active+clean+inconsistent, acting [1,2,0]".into()],
    };
    let cluster = Cluster {
        monitors: names.clone(),
        quorum: names,
        epoch: 24,
        osds: HOSTS.iter().enumerate().map(osd).collect(),
        checks: [("PG_DAMAGED".to_owned(), check)].into(),
        versions: [("mon".to_owned(), [("16.2.15".to_owned(), 3)].into())].into(),
        pools: vec![Pool {
            number: 2,
            name: "images".into(),
            size: 3,
            min_size: 2,
            erasure: false,
        }],
        ..Cluster::default()
    };
    for name in HOSTS {
        case.set(CLUSTER, name, &cluster);
        case.set(
            PGS,
            name,
            &json!({"total": 17, "states": {"active+clean": 16, "active+clean+inconsistent": 1}}),
        );
        case.set(DEVICE_ERRORS, name, &json!([]));
    }
    case.set(DAMAGE, "h1", &damage());
    case
}

fn damage() -> Value {
    let good =
        |osd: u32| json!({"osd": osd, "errors": [], "size": 262_144, "data_digest": "0xd8c9b2d4"});
    let store = json!({"store": "bluestore", "repaired": 0});
    json!({
        "count": 1,
        "groups": [{"group": "2.3", "state": "active+clean+inconsistent", "count": 1, "objects": [{
            "name": "rotten", "head": true, "errors": [], "authority": true,
            "copies": [good(0), {"osd": 1, "errors": ["read_error"], "size": 262_144}, good(2)],
        }]}],
        "osds": {"0": store, "1": store, "2": store},
    })
}

#[test]
fn laws() {
    assert_eq!(rotten().act().parameters["group"], "2.3");
    assert_eq!(rotten().roles()["bad"], ["h2"]);
    obeys_the_laws(&rotten(), &[]);
}

#[test]
fn the_copies_are_asked_for() {
    let mut case = rotten();
    case.readings.by_probe.remove(DAMAGE);
    expect(&case, "more", "not asked yet");
}

fn everywhere(case: &mut Case, path: &str, new: &Value) {
    for name in HOSTS {
        case.edit(CLUSTER, name, path, new.clone());
    }
}

fn object(case: &mut Case, path: &str, new: Value) {
    case.edit(DAMAGE, "h1", &format!("/groups/0/objects/0{path}"), new);
}

fn groups(case: &mut Case, states: Value) {
    for name in HOSTS {
        case.edit(PGS, name, "/states", states.clone());
    }
}

fn bad_again(case: &mut Case) {
    let mut object = damage()["groups"][0]["objects"][0].clone();
    object["copies"] = json!([{"osd": 0, "errors": ["read_error"], "size": 1}, object["copies"][0], object["copies"][2]]);
    object["copies"][1]["osd"] = json!(1);
    let both = json!([damage()["groups"][0]["objects"][0], object]);
    case.edit(DAMAGE, "h1", "/groups/0/objects", both);
    case.edit(DAMAGE, "h1", "/groups/0/count", json!(2));
}

#[rstest::rstest]
#[case::none(|c: &mut Case| everywhere(c, "/checks", &json!({})), "elsewhere", "no damaged data")]
#[case::flag(|c: &mut Case| everywhere(c, "/flags", &json!(["noscrub"])), "refuse", "flag noscrub")]
#[case::quorum(|c: &mut Case| everywhere(c, "/quorum", &json!(["h1", "h2"])), "refuse", "missing: h3")]
#[case::osd_down(|c: &mut Case| everywhere(c, "/osds/0/up", &json!(false)), "refuse", "osd.0 is not up and in")]
#[case::osd_out(|c: &mut Case| everywhere(c, "/osds/2/in", &json!(false)), "refuse", "osd.2 is not up and in")]
#[case::too_many(|c: &mut Case| everywhere(c, "/checks/OSD_TOO_MANY_REPAIRS", &json!({"severity": "HEALTH_WARN", "message": "Too many repaired reads on 1 OSDs", "muted": false, "details": []})), "refuse", "CEPH-14")]
#[case::moving(|c: &mut Case| groups(c, json!({"active+remapped+backfilling": 17})), "refuse", "at rest")]
#[case::not_clean(|c: &mut Case| groups(c, json!({"active+inconsistent": 17})), "refuse", "at rest")]
#[case::repairs(|c: &mut Case| groups(c, json!({"active+clean+scrubbing+deep+inconsistent+repair": 17})), "hold", "under way")]
#[case::three(|c: &mut Case| c.edit(DAMAGE, "h1", "/count", json!(3)), "refuse", "3 placement groups are damaged")]
#[case::odd_name(|c: &mut Case| c.edit(DAMAGE, "h1", "/groups/0/group", json!("2.3; reboot")), "refuse", "expected a placement group")]
#[case::old_scrub(|c: &mut Case| c.edit(DAMAGE, "h1", "/groups/0/objects", json!([])), "refuse", "a deep scrub has to tell")]
#[case::not_all_shown(|c: &mut Case| c.edit(DAMAGE, "h1", "/groups/0/count", json!(21)), "refuse", "1 of 21 damaged objects")]
#[case::snapshot(|c: &mut Case| object(c, "/head", json!(false)), "refuse", "a snapshot")]
#[case::no_authority(|c: &mut Case| object(c, "/authority", json!(false)), "refuse", "trusts none")]
#[case::omap(|c: &mut Case| object(c, "/errors", json!(["omap_digest_mismatch"])), "refuse", "omap_digest_mismatch")]
#[case::size(|c: &mut Case| object(c, "/errors", json!(["size_mismatch"])), "refuse", "size_mismatch")]
#[case::two_bad(|c: &mut Case| object(c, "/copies/0/errors", json!(["read_error"])), "refuse", "2 of its copies are bad")]
#[case::none_bad(|c: &mut Case| object(c, "/copies/1/errors", json!([])), "refuse", "0 of its copies are bad")]
#[case::missing(|c: &mut Case| object(c, "/copies/1/errors", json!(["missing"])), "refuse", "osd.1 is bad")]
#[case::others_differ(|c: &mut Case| object(c, "/copies/0/data_digest", json!("0x0")), "refuse", "do not agree")]
#[case::no_digest(|c: &mut Case| object(c, "/copies/0/data_digest", Value::Null), "refuse", "do not agree")]
#[case::two_copies(|c: &mut Case| object(c, "/copies", json!([damage()["groups"][0]["objects"][0]["copies"][0], damage()["groups"][0]["objects"][0]["copies"][1]])), "refuse", "it has 2 copies")]
#[case::two_osds(bad_again, "refuse", "bad copies are on the OSDs [0, 1]")]
#[case::pool_of_two(|c: &mut Case| everywhere(c, "/pools/0/size", &json!(2)), "refuse", "expected 3 copies in the pool images; found 2")]
#[case::erasure(|c: &mut Case| everywhere(c, "/pools/0/erasure", &json!(true)), "refuse", "erasure coded")]
#[case::no_pool(|c: &mut Case| everywhere(c, "/pools/0/number", &json!(9)), "refuse", "no pool is known")]
#[case::filestore(|c: &mut Case| c.edit(DAMAGE, "h1", "/osds/0/store", json!("filestore")), "refuse", "no checksums")]
#[case::repaired_before(|c: &mut Case| c.edit(DAMAGE, "h1", "/osds/1/repaired", json!(1)), "refuse", "repaired 1 times: CEPH-14")]
#[case::repairs_unknown(|c: &mut Case| c.edit(DAMAGE, "h1", "/osds/1/repaired", Value::Null), "refuse", "is unknown")]
#[case::other_disk(|c: &mut Case| c.set(DEVICE_ERRORS, "h3", &json!(["medium error"])), "refuse", "the kernel of h3")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = rotten();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn a_checksum_that_differs_is_a_proof_as_well_and_so_is_the_kernel_of_the_bad_host() {
    let mut case = rotten();
    object(&mut case, "/errors", json!(["data_digest_mismatch"]));
    object(
        &mut case,
        "/copies/1/errors",
        json!(["data_digest_mismatch_info"]),
    );
    assert_eq!(case.roles()["bad"], ["h2"]);
    case.set(
        DEVICE_ERRORS,
        "h2",
        &json!(["critical medium error, dev sdb"]),
    );
    assert_eq!(case.roles()["bad"], ["h2"]);
}
