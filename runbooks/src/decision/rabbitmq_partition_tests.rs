use std::collections::BTreeMap;

use deploy_engine::probe::rabbitmq::{
    ClusterStatus, ClusterView, Listener, ObjectTotals, PeerPort,
};
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws};

fn node(n: usize) -> String {
    format!("rabbit@h{n}")
}

/// `sides`: who sees whom; everybody reports the partition as Mnesia does after the network is whole again.
fn split(sides: &[&[usize]]) -> Case {
    let count = sides.iter().map(|side| side.len()).sum();
    let mut case = Case::new("rabbitmq.partition", "rabbitmq", count)
        .site_setting("partition_handling", json!("ignore"))
        .setting("stable", json!(120))
        .setting("wait_pause_minority", json!(300))
        .setting("wait_autoheal", json!(600));
    for (at, side) in sides.iter().enumerate() {
        let running: Vec<String> = side.iter().map(|n| node(*n)).collect();
        let strangers: Vec<String> = (1..=count)
            .filter(|n| !side.contains(n))
            .map(node)
            .collect();
        for n in *side {
            let name = format!("h{n}");
            let partitions = if strangers.is_empty() {
                BTreeMap::new()
            } else {
                [(node(*n), strangers.clone())].into()
            };
            let view = ClusterView {
                cluster_name: "c".into(),
                disk_nodes: (1..=count).map(node).collect(),
                running_nodes: running.clone(),
                partitions,
                versions: running
                    .iter()
                    .map(|node| (node.clone(), "3.10.8".to_owned()))
                    .collect(),
                maintenance_status: running
                    .iter()
                    .map(|node| (node.clone(), "not under maintenance".into()))
                    .collect(),
                alarms: vec![],
            };
            case.set(CLUSTER_STATUS, &name, &ClusterStatus::Running(view));
            let peers: Vec<PeerPort> = (1..=count)
                .filter(|other| other != n)
                .flat_map(|other| [4369, 25672].map(|port| (other, port)))
                .map(|(other, port)| PeerPort {
                    address: format!("10.0.0.{other}"),
                    port,
                    open: true,
                    error: None,
                })
                .collect();
            case.set(PEERS_TCP, &name, &peers);
            case.set(QUEUES, &name, &json!([
                {"name": "q", "vhost": "/", "type": "quorum", "members": running, "online": running, "messages": 7},
                {"name": "reply", "vhost": "/", "type": "classic", "node": node(1), "auto_delete": true, "messages": 1},
            ]));
            case.set(
                QUORUM_CRITICAL,
                &name,
                &QuorumCritical {
                    critical: false,
                    queues: vec![],
                },
            );
            let overview = Overview {
                rabbitmq_version: "3.10.8".into(),
                erlang_version: "25".into(),
                cluster_name: "c".into(),
                node: node(*n),
                listeners: Vec::<Listener>::new(),
                object_totals: ObjectTotals {
                    connections: if at == 0 { 40 } else { 3 },
                    ..Default::default()
                },
            };
            case.set(OVERVIEW, &name, &overview);
        }
    }
    case
}

#[test]
fn the_smaller_side_loses() {
    for (sides, losers) in [
        (vec![&[1, 2][..], &[3]], vec!["h3"]),
        (vec![&[1, 3, 5][..], &[2, 4]], vec!["h2", "h4"]),
        (vec![&[1, 2, 3][..], &[4], &[5]], vec!["h4", "h5"]),
    ] {
        assert_eq!(split(&sides).roles()["losers"], losers);
    }
}

#[test]
fn laws() {
    // The larger side's own answer about its majority is not needed to restart the smaller one.
    obeys_the_laws(
        &split(&[&[1, 2], &[3]]),
        &[(QUORUM_CRITICAL, "h1"), (QUORUM_CRITICAL, "h2")],
    );
}

#[test]
fn sides_that_nobody_can_choose_between() {
    expect(
        &split(&[&[1, 2], &[3, 4]]),
        "refuse",
        "no side has a strict majority (3 of 4): h1, h2 | h3, h4",
    );
    expect(
        &split(&[&[1], &[2]]),
        "refuse",
        "2 nodes cannot have a strict majority",
    );
    expect(
        &split(&[&[1], &[2], &[3]]),
        "refuse",
        "no side has a strict majority",
    );
    expect(
        &split(&[&[1, 2, 3]]),
        "elsewhere",
        "all running nodes agree",
    );
}

#[rstest::rstest]
#[case::one_way_cut(|c: &mut Case| c.edit(PEERS_TCP, "h3", "/0/open", json!(false)), "hold", "still cut: h3 → h1:4369")]
#[case::not_asked(|c: &mut Case| c.set(PEERS_TCP, "h3", &Vec::<PeerPort>::new()), "refuse", "was not asked")]
#[case::mirrored(|c: &mut Case| c.set(QUEUES, "h1", &json!([{"name": "m", "vhost": "/", "type": "classic",
    "slave_nodes": ["rabbit@h3"], "node": "rabbit@h1", "messages": 1}])), "refuse", "mirrored classic queue with 1 messages")]
#[case::mirrored_unknown(|c: &mut Case| c.set(QUEUES, "h1", &json!([{"name": "m", "vhost": "/", "type": "classic",
    "slave_nodes": ["rabbit@h3"], "node": "rabbit@h1"}])), "refuse", "an unknown number")]
#[case::durable_on_loser(|c: &mut Case| c.set(QUEUES, "h3", &json!([{"name": "d", "vhost": "/", "type": "classic",
    "durable": true, "node": "rabbit@h3", "messages": 2}])), "refuse", "durable classic queue on the losing side")]
#[case::critical(|c: &mut Case| c.edit(QUORUM_CRITICAL, "h3", "/critical", json!(true)), "refuse", "needed for the majority")]
#[case::clients_on_both(|c: &mut Case| c.edit(OVERVIEW, "h3", "/object_totals/connections", json!(50)), "refuse", "each side has clients")]
#[case::alarm(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/alarms", json!(["disk"])), "refuse", "resource alarm")]
#[case::maintenance(|c: &mut Case| c.edit(CLUSTER_STATUS, "h2", "/maintenance_status/rabbit@h2", json!("under maintenance")), "refuse", "is under maintenance")]
#[case::upgrade(|c: &mut Case| c.edit(CLUSTER_STATUS, "h3", "/versions/rabbit@h3", json!("3.11.0")), "refuse", "one version")]
#[case::khepri(|c: &mut Case| for n in ["h1", "h2", "h3"] { c.edit(CLUSTER_STATUS, n, "/versions",
    json!({"rabbit@h1": "4.3.0"})); }, "refuse", "Khepri")]
#[case::one_stopped(|c: &mut Case| c.set(CLUSTER_STATUS, "h2", &ClusterStatus::NotRunning { error: "x".into() }), "refuse", "two faults")]
#[case::partial(|c: &mut Case| { *c = split(&[&[1, 2, 3]]); c.edit(CLUSTER_STATUS, "h1", "/running_nodes",
    json!(["rabbit@h1", "rabbit@h2"])); }, "refuse", "partial partition")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = split(&[&[1, 2], &[3]]);
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn modes_that_mend_themselves_come_first() {
    for mode in ["pause_minority", "autoheal"] {
        let one = split(&[&[1, 2], &[3]]).site_setting("partition_handling", json!(mode));
        assert_eq!(one.roles()["losers"], ["h3"], "it had its time");
        expect(
            &one.setting("wait_pause_minority", json!(7_200))
                .setting("wait_autoheal", json!(7_200)),
            "hold",
            "must stay",
        );
        let two = split(&[&[1, 2, 3], &[4, 5]]).site_setting("partition_handling", json!(mode));
        expect(&two, "refuse", "single stuck node");
    }
    let odd = split(&[&[1, 2], &[3]]).site_setting("partition_handling", json!("odd"));
    expect(&odd, "refuse", "partition_handling");
}

#[test]
fn a_network_that_comes_and_goes_is_not_repaired() {
    let case = split(&[&[1, 2], &[3]]);
    let facts = facts(&case.input(&Default::default()));
    let mut steady = crate::decision::Steady::default();
    for minute in (0..10).rev() {
        let mut seen = facts.clone();
        if minute % 2 == 1 {
            seen.insert("the network", "h1 → h3:4369".to_owned());
        }
        steady = steady.look(&seen, case.now - jiff::SignedDuration::from_mins(minute));
    }
    let verdict = DECISION.decide(&case.input(&steady));
    assert!(
        verdict.why().contains("the network keeps changing"),
        "{verdict:?}"
    );
}
