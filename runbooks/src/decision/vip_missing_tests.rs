use deploy_engine::probe::haproxy::Info;
use serde_json::json;

use super::*;
use crate::{
    decision::testing::{Case, expect, interfaces, obeys_the_laws, unit},
    topology::Deployed,
};

/// Three members, nobody has the address. `keepalived`, `haproxy`: does it run there?
fn missing(keepalived: [bool; 3], haproxy: [bool; 3]) -> Case {
    let mut case = Case::new("vip.missing", "keepalived", 3).setting("confirm", json!(30));
    let haproxy_service = Deployed {
        members: case.members.clone(),
        settings: BTreeMap::new(),
    };
    case.topology
        .services
        .insert("haproxy".parse().unwrap(), haproxy_service);
    let word = |runs: bool| if runs { "active" } else { "failed" };
    for n in 0..3 {
        let name = format!("h{}", n + 1);
        case.set(
            VIP_HOLDERS,
            &name,
            &VipOnHost {
                holds: false,
                interfaces: BTreeMap::new(),
            },
        );
        case.set(STATE, &name, &unit(word(keepalived[n])));
        case.set(
            ADDRESSES,
            &name,
            &interfaces(&format!("10.0.0.{}", n + 1), "UP"),
        );
        case.set(UNIT_STATE, &name, &unit(word(haproxy[n])));
        if haproxy[n] {
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
                    message: "valid".into(),
                },
            );
        }
    }
    case
}

#[test]
fn who_takes_it_first() {
    let all_stopped = missing([false; 3], [true; 3]).roles();
    assert_eq!(
        (&all_stopped["first"], &all_stopped["others"]),
        (&vec!["h1".to_owned()], &vec!["h2".to_owned(), "h3".into()])
    );
    let balancers_down = missing([true; 3], [false, false, true]).roles();
    assert_eq!(
        (&balancers_down["first"], &balancers_down["balancers"]),
        (&vec!["h3".to_owned()], &vec!["h1".to_owned(), "h2".into()])
    );
    assert!(!balancers_down.contains_key("others"));
}

#[test]
fn laws() {
    obeys_the_laws(&missing([false; 3], [true, true, false]), &[]);
}

#[rstest::rstest]
#[case::there(|c: &mut Case| c.edit(VIP_HOLDERS, "h2", "/holds", json!(true)), "elsewhere", "h2 has the virtual address")]
#[case::twice(|c: &mut Case| for n in ["h1", "h2"] { c.edit(VIP_HOLDERS, n, "/holds", json!(true)) }, "refuse", "at once")]
#[case::link(|c: &mut Case| c.edit(ADDRESSES, "h3", "/eth0/state", json!("DOWN")), "refuse", "the interface eth0 is DOWN")]
#[case::no_address(|c: &mut Case| c.edit(ADDRESSES, "h3", "/eth0/addresses", json!([])), "refuse", "no interface has its address")]
#[case::stuck(|c: &mut Case| c.lose(INFO, "h1"), "refuse", "does not answer on its socket")]
#[case::invalid(|c: &mut Case| c.edit(CONFIG_CHECK, "h3", "/valid", json!(false)), "refuse", "would not start")]
#[case::disabled(|c: &mut Case| c.edit(STATE, "h1", "/enabled", json!("disabled")), "refuse", "does not want it")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = missing([false; 3], [true, true, false]);
    change(&mut case);
    expect(&case, kind, part);
}
