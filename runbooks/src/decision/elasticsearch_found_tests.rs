use deploy_engine::probe::elasticsearch::{Health, Node, Shards};
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect};

/// Three nodes in one yellow cluster whose shard was given up, with room on every disk and in every heap.
fn yellow(name: &str) -> Case {
    let mut case = Case::new(name, "elasticsearch", 3).setting("heap_percent", json!(90));
    let health = Health::Formed(Shards {
        status: Status::Yellow,
        number_of_nodes: 3,
        active_shards: 5,
        relocating_shards: 0,
        initializing_shards: 0,
        unassigned_shards: 1,
        delayed_unassigned_shards: 0,
    });
    let nodes: Vec<Node> = ["h1", "h2", "h3"].map(node).into();
    let first = Unassigned {
        index: "flog-1".to_owned(),
        shard: 0,
        primary: false,
        reason: "ALLOCATION_FAILED".to_owned(),
        failed_attempts: 5,
        can_allocate: "no".to_owned(),
        explanation: "cannot allocate".to_owned(),
    };
    let marks = Watermarks {
        enabled: true,
        low: "85%".to_owned(),
        high: "90%".to_owned(),
        flood_stage: "95%".to_owned(),
        blocked: vec![],
    };
    let index = Index {
        name: "flog-1".to_owned(),
        health: Some(Status::Yellow),
    };
    for host in ["h1", "h2", "h3"] {
        case.set(HEALTH, host, &health);
        case.set(NODES, host, &nodes);
        case.set(ALLOCATION, host, &Some(first.clone()));
        case.set(WATERMARKS, host, &marks);
        case.set(INDICES, host, &std::slice::from_ref(&index));
        case.set(BLOCKS, host, &BTreeMap::<String, Vec<String>>::new());
    }
    case
}

fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        ip: "10.0.0.1".to_owned(),
        version: "2.19.6".to_owned(),
        heap_percent: Some(40.0),
        disk_used_percent: Some(50.0),
    }
}

/// The same part of every node's answer becomes another.
fn all(case: &mut Case, probe: &str, path: &str, new: serde_json::Value) {
    for host in ["h1", "h2", "h3"] {
        case.edit(probe, host, path, new.clone());
    }
}

fn lose(case: &mut Case, probe: &str) {
    for host in ["h1", "h2", "h3"] {
        case.lose(probe, host);
    }
}

fn red_case() -> Case {
    let mut case = yellow("elasticsearch.red");
    all(&mut case, HEALTH, "/status", json!("red"));
    all(&mut case, INDICES, "/0/health", json!("red"));
    case
}

fn evidence(case: &Case) -> String {
    match case.verdict() {
        Verdict::Page { evidence, .. } => evidence.join("\n"),
        other => panic!("expected a page; found {other:?}"),
    }
}

#[rstest::rstest]
#[case::itself(|_: &mut Case| (), "page", "red, 1 shards are unassigned: flog-1 cannot be read or written whole")]
#[case::not_red(|c: &mut Case| all(c, HEALTH, "/status", json!("green")), "elsewhere", "says green")]
#[case::indices_unknown(|c: &mut Case| lose(c, INDICES), "page", "it is not known which indices")]
#[case::one_silent(|c: &mut Case| c.lose(HEALTH, "h1"), "page", "flog-1 cannot be read")]
#[case::all_silent(|c: &mut Case| lose(c, HEALTH), "page", "it may have no master")]
#[case::no_master(|c: &mut Case| for host in ["h1", "h2", "h3"] { c.set(HEALTH, host, &Health::NoMaster) }, "page", "it may have no master")]
fn a_red_cluster(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = red_case();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn a_red_cluster_with_a_node_missing_waits_for_it_and_gives_up_no_data() {
    let mut case = red_case();
    assert!(evidence(&case).contains("no member is known to be missing"));
    for host in ["h1", "h2"] {
        case.set(NODES, host, &["h1", "h2"].map(node));
    }
    case.lose(HEALTH, "h3");
    let said = evidence(&case);
    assert!(said.contains("h3 is not in the cluster"), "{said}");
    assert!(
        said.contains("elasticsearch.health on h3 is unknown"),
        "{said}"
    );
    assert!(said.contains("replica of shard 0 of flog-1"), "{said}");
    assert!(
        said.contains("never: having the cluster take a stale or an empty copy"),
        "{said}"
    );
}

#[rstest::rstest]
#[case::given_up(|_: &mut Case| (), "page", "tried too often and is given up")]
#[case::others(|c: &mut Case| all(c, ALLOCATION, "/reason", json!("NODE_LEFT")), "page", "its node left")]
#[case::fewer_attempts(|c: &mut Case| all(c, ALLOCATION, "/failed_attempts", json!(4)), "page", "not for failed attempts")]
#[case::no_reason(|c: &mut Case| lose(c, ALLOCATION), "page", "why is not known")]
#[case::none(|c: &mut Case| all(c, HEALTH, "/unassigned_shards", json!(0)), "elsewhere", "no shard is unassigned")]
#[case::red(|c: &mut Case| all(c, HEALTH, "/status", json!("red")), "elsewhere", "ES-1")]
#[case::all_silent(|c: &mut Case| lose(c, HEALTH), "page", "it may have no master")]
fn unassigned_shards(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = yellow("elasticsearch.unassigned");
    change(&mut case);
    expect(&case, kind, part);
}

/// The command is named always; that it is time for it, only when all is known to be well.
#[rstest::rstest]
#[case::well(|_: &mut Case| (), true)]
#[case::full(|c: &mut Case| all(c, NODES, "/1/disk_used_percent", json!(85)), false)]
#[case::disk_unknown(|c: &mut Case| all(c, NODES, "/1/disk_used_percent", json!(null)), false)]
#[case::nodes_unknown(|c: &mut Case| lose(c, NODES), false)]
#[case::marks_unknown(|c: &mut Case| lose(c, WATERMARKS), false)]
#[case::marks_are_room(|c: &mut Case| all(c, WATERMARKS, "/low", json!("5gb")), false)]
#[case::another_is_missing(|c: &mut Case| all(c, NODES, "/2/name", json!("stranger")), false)]
#[case::moving(|c: &mut Case| all(c, HEALTH, "/relocating_shards", json!(1)), false)]
#[case::coming(|c: &mut Case| all(c, HEALTH, "/initializing_shards", json!(1)), false)]
fn time_to_try_again(#[case] change: fn(&mut Case), #[case] ready: bool) {
    let mut case = yellow("elasticsearch.unassigned").site_setting("port", json!(9201));
    change(&mut case);
    let said = evidence(&case);
    let command =
        "curl -X POST 'http://10.0.0.1:9201/_cluster/reroute?retry_failed=true&dry_run=true'";
    assert!(said.contains(command), "{said}");
    assert_eq!(
        said.contains("when the cause is gone, once:"),
        ready,
        "{said}"
    );
    assert_eq!(said.contains("not yet"), !ready, "{said}");
}

#[rstest::rstest]
#[case::room(|_: &mut Case| (), "elsewhere", "below the low watermark")]
#[case::low(|c: &mut Case| all(c, NODES, "/1/disk_used_percent", json!(85)), "page", "h2: disk 85 % used, above the low watermark (85%)")]
#[case::flood(|c: &mut Case| all(c, NODES, "/1/disk_used_percent", json!(96)), "page", "above the flood-stage watermark (95%)")]
#[case::read_only(|c: &mut Case| all(c, BLOCKS, "/flog-1", json!(["read_only_allow_delete"])), "page", "1 indices are blocked: flog-1")]
#[case::whole(|c: &mut Case| all(c, WATERMARKS, "/blocked", json!(["create_index"])), "page", "the whole cluster is blocked: create_index")]
#[case::nodes_unknown(|c: &mut Case| lose(c, NODES), "page", "it is not known")]
#[case::marks_unknown(|c: &mut Case| lose(c, WATERMARKS), "page", "it is not known")]
#[case::marks_are_room(|c: &mut Case| all(c, WATERMARKS, "/high", json!("5gb")), "page", "it is not known")]
#[case::blocks_unknown(|c: &mut Case| lose(c, BLOCKS), "page", "it is not known")]
#[case::all_silent(|c: &mut Case| lose(c, HEALTH), "page", "it may have no master")]
fn full_disks(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = yellow("elasticsearch.disk");
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn a_full_disk_is_never_answered_by_mass_deletion() {
    let mut case = yellow("elasticsearch.disk");
    all(&mut case, NODES, "/1/disk_used_percent", json!(91));
    let said = evidence(&case);
    assert!(
        said.contains("watermarks: low 85%, high 90%, flood stage 95%"),
        "{said}"
    );
    assert!(said.contains("h1: disk 50 % used"), "{said}");
    assert!(said.contains("never: deleting by a pattern"), "{said}");
}

#[rstest::rstest]
#[case::room(|_: &mut Case| (), "elsewhere", "heap 40 % used")]
#[case::full(|c: &mut Case| all(c, NODES, "/1/heap_percent", json!(90)), "page", "the heap of h2 is nearly full")]
#[case::one_unknown(|c: &mut Case| all(c, NODES, "/1/heap_percent", json!(null)), "page", "not known")]
#[case::nodes_unknown(|c: &mut Case| lose(c, NODES), "page", "not known")]
#[case::all_silent(|c: &mut Case| lose(c, HEALTH), "page", "it may have no master")]
fn full_heaps(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = yellow("elasticsearch.heap");
    change(&mut case);
    expect(&case, kind, part);
}
