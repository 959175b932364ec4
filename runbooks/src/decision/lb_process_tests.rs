use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    decision::testing::{Case, expect, obeys_the_laws, unit},
    topology::Deployed,
};

fn one_down() -> Case {
    let mut case = Case::new("lb.process", "haproxy", 3).setting("confirm", json!(30));
    let keepalived = Deployed {
        members: case.members.clone(),
        settings: BTreeMap::new(),
    };
    case.topology
        .services
        .insert("keepalived".parse().unwrap(), keepalived);
    for (n, runs) in [(1, true), (2, true), (3, false)] {
        let name = format!("h{n}");
        case.set(
            UNIT_STATE,
            &name,
            &unit(if runs { "active" } else { "failed" }),
        );
        case.set(
            VIP_HOLDERS,
            &name,
            &VipOnHost {
                holds: n == 1,
                interfaces: BTreeMap::new(),
            },
        );
        if runs {
            case.set(
                INFO,
                &name,
                &Info {
                    version: "2.6".into(),
                    pid: 1,
                    uptime_seconds: 9,
                    curr_conns: 0,
                    stopping: false,
                },
            );
        } else {
            case.set(
                CONFIG_CHECK,
                &name,
                &ConfigCheck {
                    valid: true,
                    message: String::new(),
                },
            );
        }
    }
    case
}

#[test]
fn laws() {
    assert_eq!(one_down().roles()["down"], ["h3"]);
    obeys_the_laws(&one_down(), &[]);
}

#[rstest::rstest]
#[case::runs(|c: &mut Case| c.set(UNIT_STATE, "h3", &unit("active")), "elsewhere", "runs on every member")]
#[case::invalid(|c: &mut Case| c.edit(CONFIG_CHECK, "h3", "/valid", json!(false)), "refuse", "would not start")]
#[case::no_holder(|c: &mut Case| c.edit(VIP_HOLDERS, "h1", "/holds", json!(false)), "hold", "repaired first")]
#[case::holder_is_down(|c: &mut Case| { c.edit(VIP_HOLDERS, "h1", "/holds", json!(false)); c.edit(VIP_HOLDERS, "h3", "/holds", json!(true)) }, "hold", "still on h3")]
#[case::two_holders(|c: &mut Case| c.edit(VIP_HOLDERS, "h2", "/holds", json!(true)), "refuse", "at once")]
#[case::masked(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/enabled", json!("masked")), "refuse", "does not want it")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = one_down();
    change(&mut case);
    expect(&case, kind, part);
}
