use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws, unit};

/// `count` members of which the last `down` do not answer; the units of those are down.
fn down(count: usize, down: usize) -> Case {
    let mut case =
        Case::new("alertmanager.down", "alertmanager", count).setting("confirm", json!(30));
    for n in 1..=count {
        let name = format!("h{n}");
        if n <= count - down {
            serves(&mut case, &name, "ready", count - down);
            continue;
        }
        let silent: Heard<AlertmanagerCluster> = Heard::Silent {
            why: "connection refused".into(),
        };
        case.set(ALERTMANAGER_CLUSTER, &name, &silent);
        case.set(UNIT_STATE, &name, &unit("failed"));
        valid(&mut case, &name, true);
    }
    case
}

fn serves(case: &mut Case, name: &str, status: &str, peers: usize) {
    let cluster = AlertmanagerCluster {
        status: status.into(),
        peers: (1..=peers).map(|n| format!("10.0.0.{n}:9094")).collect(),
    };
    case.set(ALERTMANAGER_CLUSTER, name, &Heard::Answers(cluster));
}

fn valid(case: &mut Case, name: &str, valid: bool) {
    let message = if valid { "" } else { "no route provided" }.to_owned();
    case.set(ALERTMANAGER_CONFIG, name, &ConfigCheck { valid, message });
}

#[test]
fn laws() {
    for count in [2, 3] {
        let case = down(count, 1);
        assert_eq!(case.roles()["down"], [format!("h{count}")]);
        obeys_the_laws(&case, &[]);
    }
}

#[test]
fn one_that_hangs_is_restarted_too() {
    let mut case = down(2, 1);
    case.set(UNIT_STATE, "h2", &unit("active"));
    assert_eq!(case.roles()["down"], ["h2"]);
    obeys_the_laws(&case, &[]);
}

#[rstest::rstest]
#[case::all_well(|c: &mut Case| *c = down(2, 0), "elsewhere", "sees all others")]
#[case::they_do_not_see_each_other(|c: &mut Case| { *c = down(2, 0); serves(c, "h2", "ready", 1) }, "refuse", "do not see each other")]
#[case::settling(|c: &mut Case| { *c = down(2, 0); serves(c, "h2", "settling", 1) }, "hold", "gossip of h2 settles")]
#[case::both_down(|c: &mut Case| *c = down(2, 2), "refuse", "h1, h2 of 2 do not answer")]
#[case::two_of_three(|c: &mut Case| *c = down(3, 2), "refuse", "h2, h3 of 3 do not answer")]
#[case::the_only_one(|c: &mut Case| *c = down(1, 1), "refuse", "the only Alertmanager")]
#[case::peer_starts(|c: &mut Case| serves(c, "h1", "settling", 1), "hold", "no other member is known to serve")]
#[case::invalid(|c: &mut Case| valid(c, "h2", false), "refuse", "would not start: no route provided")]
#[case::not_wanted(|c: &mut Case| c.edit(UNIT_STATE, "h2", "/enabled", json!("masked")), "refuse", "does not want it")]
#[case::not_wanted_and_hangs(|c: &mut Case| { c.set(UNIT_STATE, "h2", &unit("active")); c.edit(UNIT_STATE, "h2", "/enabled", json!("disabled")) }, "refuse", "does not want it")]
#[case::starting(|c: &mut Case| c.edit(UNIT_STATE, "h2", "/active", json!("activating")), "hold", "activating")]
#[case::memory(|c: &mut Case| c.edit(UNIT_STATE, "h2", "/result", json!("oom-kill")), "refuse", "lack of memory")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down(2, 1);
    change(&mut case);
    expect(&case, kind, part);
}
