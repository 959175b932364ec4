use deploy_engine::probe::elasticsearch::{Shards, Status};
use serde_json::json;

use super::*;
use crate::{
    decision::testing::{Case, expect, host, unit},
    topology::Deployed,
};

/// Two hosts; on the second one lines wait. `h9` is the server, and in a cluster.
fn waits() -> Case {
    let mut case = Case::new("rsyslog.queue_waits", "rsyslog", 2);
    let server = Deployed {
        members: vec![host("h9")],
        settings: BTreeMap::new(),
    };
    case.topology
        .services
        .insert(SERVERS.parse().unwrap(), server);
    for (name, size) in [("h1", 0), ("h2", 3_000)] {
        let queue = Queue {
            size,
            on_disk: size,
            delivered: 2_899,
            ..Queue::default()
        };
        case.set(QUEUE, name, &queue);
        case.set(UNIT_STATE, name, &unit("active"));
    }
    let health = Health::Formed(Shards {
        status: Status::Green,
        number_of_nodes: 1,
        active_shards: 1,
        relocating_shards: 0,
        initializing_shards: 0,
        unassigned_shards: 0,
        delayed_unassigned_shards: 0,
    });
    case.set(HEALTH, "h9", &health);
    case
}

fn evidence(case: &Case) -> String {
    match case.verdict() {
        Verdict::Page { evidence, .. } => evidence.join("\n"),
        other => panic!("expected a page; found {other:?}"),
    }
}

#[rstest::rstest]
#[case::waits(|_: &mut Case| (), "page", "lines wait on h2 and no server takes any")]
#[case::drains(|c: &mut Case| c.edit(QUEUE, "h2", "/delivered_lately", json!(1)), "elsewhere", "servers take its lines")]
#[case::empty(|c: &mut Case| c.edit(QUEUE, "h2", "/size", json!(0)), "elsewhere", "every queue is empty")]
#[case::lost(|c: &mut Case| { c.edit(QUEUE, "h2", "/size", json!(0)); c.edit(QUEUE, "h1", "/discarded", json!(7)) }, "page", "7 lines were lost")]
#[case::both(|c: &mut Case| c.edit(QUEUE, "h2", "/discarded", json!(7)), "page", "no server takes any; 7 were lost")]
#[case::unknown(|c: &mut Case| c.lose(QUEUE, "h2"), "page", "the queue of a host is not known")]
#[case::not_asked(|c: &mut Case| { c.readings.by_probe.remove(HEALTH); }, "more", "are the servers there?")]
fn queues(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = waits();
    change(&mut case);
    expect(&case, kind, part);
}

/// A restart is named only where a server is known to be there.
#[rstest::rstest]
#[case::there(|_: &mut Case| (), true, "h9 is in a cluster")]
#[case::masterless(|c: &mut Case| c.set(HEALTH, "h9", &Health::NoMaster), false, "h9 knows no master")]
#[case::silent(|c: &mut Case| c.lose(HEALTH, "h9"), false, "leave rsyslog alone")]
#[case::others(|c: &mut Case| *c = waits().site_setting("servers", json!(["10.9.9.9"])), false, "not of this site")]
#[case::none(|c: &mut Case| { c.topology.services.remove(&SERVERS.parse::<deploy_engine::model::ServiceName>().unwrap()); }, false, "not of this site")]
fn what_the_servers_say(#[case] change: fn(&mut Case), #[case] restart: bool, #[case] part: &str) {
    let mut case = waits();
    change(&mut case);
    let said = evidence(&case);
    assert!(said.contains(part), "{said}");
    assert_eq!(
        said.contains("may restart rsyslog.service once"),
        restart,
        "{said}"
    );
    assert!(
        said.contains("h2: 3000 lines wait (3000 on the disk)"),
        "{said}"
    );
    assert!(said.contains("never: deleting files"), "{said}");
}

#[test]
fn a_silent_host_is_told_with_its_unit() {
    let mut case = waits();
    case.lose(QUEUE, "h1");
    case.set(UNIT_STATE, "h1", &unit("failed"));
    let said = evidence(&case);
    assert!(said.contains("rsyslog.service on h1 is failed"), "{said}");
}
