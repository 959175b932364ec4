use deploy_engine::probe::elasticsearch::Status;
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, filesystems, obeys_the_laws, unit};

/// `count` members, the last `down` of them stopped; the others are in one yellow cluster.
fn down(count: usize, down: usize) -> Case {
    let mut case = Case::new("elasticsearch.node_down", "elasticsearch", count)
        .setting("confirm", json!(30))
        .setting("min_free_percent", json!(15));
    for n in 1..=count {
        let name = format!("h{n}");
        let runs = n <= count - down;
        if runs {
            let health = Health::Formed(Shards {
                status: Status::Yellow,
                number_of_nodes: count - down,
                active_shards: 2,
                relocating_shards: 0,
                initializing_shards: 0,
                unassigned_shards: 1,
                delayed_unassigned_shards: 1,
            });
            case.set(HEALTH, &name, &health);
        } else {
            case.lose(HEALTH, &name);
        }
        let state = if runs { "active" } else { "failed" };
        case.set(UNIT_STATE, &name, &unit(state));
        case.set(FILESYSTEM, &name, &filesystems(50));
    }
    case
}

#[test]
fn laws() {
    let case = down(3, 1);
    assert_eq!(case.roles()["down"], ["h3"]);
    // What the node that is down says of the cluster, and the disks of those that run.
    let spare = [(HEALTH, "h3"), (FILESYSTEM, "h1"), (FILESYSTEM, "h2")];
    obeys_the_laws(&case, &spare);
    assert_eq!(down(1, 1).roles()["down"], ["h1"]);
}

#[test]
fn a_red_cluster_may_miss_the_shard_that_is_on_the_node() {
    let mut case = down(3, 1);
    for name in ["h1", "h2"] {
        case.edit(HEALTH, name, "/status", json!("red"));
    }
    assert_eq!(case.roles()["down"], ["h3"]);
}

#[rstest::rstest]
#[case::all_up(|c: &mut Case| *c = down(3, 0), "elsewhere", "active on every member")]
#[case::no_majority(|c: &mut Case| *c = down(3, 2), "refuse", "1 of 3 nodes run")]
#[case::all_down(|c: &mut Case| *c = down(3, 3), "refuse", "0 of 3 nodes run")]
#[case::no_master(|c: &mut Case| c.set(HEALTH, "h2", &Health::NoMaster), "refuse", "h2 runs and knows no master")]
#[case::just_now(|c: &mut Case| c.edit(HEALTH, "h1", "/number_of_nodes", json!(3)), "hold", "still counts 3 nodes")]
#[case::two_clusters(|c: &mut Case| c.edit(HEALTH, "h1", "/number_of_nodes", json!(1)), "refuse", "do not see each other")]
#[case::full_disk(|c: &mut Case| c.set(FILESYSTEM, "h3", &filesystems(9)), "refuse", "at least 15 % free")]
#[case::not_wanted(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/enabled", json!("masked")), "refuse", "does not want it")]
#[case::crashes(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/result", json!("start-limit-hit")), "refuse", "would not mend that")]
#[case::memory(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/result", json!("oom-kill")), "refuse", "would not mend that")]
#[case::starting(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/active", json!("activating")), "hold", "activating")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down(3, 1);
    change(&mut case);
    expect(&case, kind, part);
}
