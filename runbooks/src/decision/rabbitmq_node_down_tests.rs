use std::collections::BTreeMap;

use deploy_engine::probe::rabbitmq::{ClusterStatus, ClusterView};
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, filesystems, obeys_the_laws, unit};

/// `count` members, the last `down` of them stopped.
fn down(count: usize, down: usize) -> Case {
    let mut case = Case::new("rabbitmq.node_down", "rabbitmq", count)
        .setting("confirm", json!(30))
        .setting("min_free_percent", json!(20));
    let node = |n: usize| format!("rabbit@h{n}");
    for n in 1..=count {
        let name = format!("h{n}");
        let runs = n <= count - down;
        let running: Vec<String> = (1..=count - down).map(node).collect();
        let status = if runs {
            ClusterStatus::Running(ClusterView {
                cluster_name: "c".into(),
                disk_nodes: (1..=count).map(node).collect(),
                versions: running
                    .iter()
                    .map(|node| (node.clone(), "3.10.8".to_owned()))
                    .collect(),
                running_nodes: running,
                partitions: BTreeMap::new(),
                maintenance_status: BTreeMap::new(),
                alarms: vec![],
            })
        } else {
            ClusterStatus::NotRunning {
                error: "not running at all".into(),
            }
        };
        case.set(CLUSTER_STATUS, &name, &status);
        case.set(
            UNIT_STATE,
            &name,
            &unit(if runs { "active" } else { "failed" }),
        );
        case.set(FILESYSTEM, &name, &filesystems(50));
    }
    case
}

#[test]
fn laws() {
    let case = down(3, 1);
    assert_eq!(case.roles()["down"], ["h3"]);
    let spare = [
        (UNIT_STATE, "h1"),
        (UNIT_STATE, "h2"),
        (FILESYSTEM, "h1"),
        (FILESYSTEM, "h2"),
    ];
    obeys_the_laws(&case, &spare);
}

#[rstest::rstest]
#[case::all_run(|c: &mut Case| *c = down(3, 0), "elsewhere", "every node runs")]
#[case::no_majority(|c: &mut Case| *c = down(3, 2), "refuse", "1 of 3 nodes run")]
#[case::even_half(|c: &mut Case| *c = down(4, 2), "refuse", "2 of 4 nodes run")]
#[case::alone(|c: &mut Case| *c = down(1, 1), "refuse", "0 of 1 nodes run")]
#[case::booting(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/active", json!("activating")), "hold", "activating")]
#[case::paused(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/active", json!("active")), "refuse", "does not answer as it should")]
#[case::disabled(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/enabled", json!("disabled")), "refuse", "does not want it to run")]
#[case::full(|c: &mut Case| c.set(FILESYSTEM, "h3", &filesystems(19)), "refuse", "at least 20 % free")]
#[case::reset(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/disk_nodes", json!(["rabbit@h1", "rabbit@h2"])), "refuse", "reset or renamed")]
#[case::disagree(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/running_nodes", json!(["rabbit@h2"])), "elsewhere", "do not agree")]
#[case::upgrade(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/versions/rabbit@h2", json!("3.11.0")), "refuse", "an upgrade is under way")]
#[case::alarm(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/alarms", json!(["memory"])), "refuse", "resource alarm")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down(3, 1);
    change(&mut case);
    expect(&case, kind, part);
}
