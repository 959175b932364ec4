use deploy_engine::probe::galera::{Server, ServerProcess};
use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, filesystems, obeys_the_laws, unit};

pub(in crate::decision) const CLUSTER: &str = "11111111-2222-3333-4444-555555555555";

pub(in crate::decision) fn wsrep(size: u32, committed: i64) -> Wsrep {
    Wsrep {
        cluster_status: ClusterStatus::Primary,
        local_state: LocalState::Synced,
        ready: true,
        connected: true,
        cluster_size: size,
        cluster_state_uuid: CLUSTER.into(),
        local_state_uuid: CLUSTER.into(),
        cluster_conf_id: 7,
        last_committed: committed,
        recv_queue: 0,
        flow_control_paused: 0.0,
        desync_count: 0,
        incoming_addresses: vec![],
    }
}

pub(in crate::decision) fn answering(wsrep: Wsrep) -> Status {
    Status::Answering(Server {
        version: "10.11.19".into(),
        uptime_seconds: 500,
        wsrep: Some(wsrep),
    })
}

pub(in crate::decision) fn silent() -> Status {
    Status::NotAnswering {
        error: "ERROR 2002 (HY000)".into(),
    }
}

/// What a stopped member shows.
pub(in crate::decision) fn stopped(case: &mut Case, name: &str) {
    case.set(STATUS, name, &silent());
    case.set(UNIT_STATE, name, &unit("failed"));
    case.set(PROCESSES, name, &Processes::default());
    case.set(SST_MARKER, name, &false);
    case.set(BOOTSTRAP_LEFTOVERS, name, &BootstrapLeftovers::default());
    case.set(BOOTSTRAP_ENVIRONMENT, name, &BootstrapLeftovers::default());
    case.set(BOOTSTRAP_FILE, name, &BootstrapLeftovers::default());
    let state = Grastate::Present {
        uuid: CLUSTER.into(),
        seqno: -1,
        safe_to_bootstrap: false,
    };
    case.set(GRASTATE, name, &state);
}

pub(in crate::decision) fn a_server() -> Processes {
    let server = ServerProcess {
        pid: 9,
        running_seconds: 20,
        new_cluster: false,
        recovering: false,
    };
    Processes {
        servers: vec![server],
        transfers: vec![],
    }
}

fn down(count: usize, down: usize) -> Case {
    let mut case = Case::new("galera.node_down", "mariadb", count).setting("confirm", json!(30));
    for n in 1..=count {
        let name = format!("h{n}");
        case.set(FILESYSTEM, &name, &filesystems(50));
        if n > count - down {
            stopped(&mut case, &name);
        } else {
            case.set(STATUS, &name, &answering(wsrep((count - down) as u32, 40)));
            case.set(PROCESSES, &name, &a_server());
            case.set(DATA_SIZE, &name, &1_000_000_000_u64);
        }
    }
    case
}

#[test]
fn laws() {
    let case = down(3, 1);
    assert_eq!(
        case.roles(),
        [
            ("down".into(), vec!["h3".into()]),
            ("synced".into(), vec!["h1".into(), "h2".into()])
        ]
        .into()
    );
    obeys_the_laws(&case, &[(FILESYSTEM, "h1"), (FILESYSTEM, "h2")]);
}

#[rstest::rstest]
#[case::all_up(|c: &mut Case| *c = down(3, 0), "elsewhere", "every member answers")]
#[case::single(|c: &mut Case| *c = down(1, 1), "elsewhere", "no cluster")]
#[case::none_up(|c: &mut Case| *c = down(3, 3), "elsewhere", "no member is in a primary component")]
#[case::minority(|c: &mut Case| *c = down(3, 2), "refuse", "1 of 3 members serve")]
#[case::two_members(|c: &mut Case| *c = down(2, 1), "refuse", "1 of 2 members serve")]
#[case::donor(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/local_state", json!("donor")), "hold", "state transfer or a backup")]
#[case::not_primary(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/cluster_status", json!("non_primary")), "refuse", "expected every answering member")]
#[case::not_ready(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/ready", json!(false)), "refuse", "ready false")]
#[case::two_clusters(|c: &mut Case| c.edit(STATUS, "h2", "/wsrep/cluster_state_uuid", json!("x")), "refuse", "different components")]
#[case::two_memberships(|c: &mut Case| c.edit(STATUS, "h2", "/wsrep/cluster_conf_id", json!(8)), "refuse", "different components")]
#[case::no_replication(|c: &mut Case| c.edit(STATUS, "h2", "/wsrep", json!(null)), "refuse", "wsrep_on")]
#[case::backup(|c: &mut Case| c.edit(PROCESSES, "h1", "/transfers", json!(["mariabackup"])), "hold", "mariabackup runs on h1")]
#[case::starting(|c: &mut Case| c.set(PROCESSES, "h3", &a_server()), "hold", "a server runs on h3")]
#[case::changing(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/active", json!("activating")), "hold", "activating")]
#[case::disabled(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/enabled", json!("disabled")), "refuse", "does not want it")]
#[case::broken_sst(|c: &mut Case| c.set(SST_MARKER, "h3", &true), "refuse", "interrupted")]
#[case::leftover(|c: &mut Case| c.edit(BOOTSTRAP_LEFTOVERS, "h3", "/found", json!(["wsrep_new_cluster is set"])), "refuse", "cluster of its own")]
#[case::leftover_environment(|c: &mut Case| c.edit(BOOTSTRAP_ENVIRONMENT, "h3", "/found", json!(["x"])), "refuse", "cluster of its own")]
#[case::leftover_file(|c: &mut Case| c.edit(BOOTSTRAP_FILE, "h3", "/found", json!(["x"])), "refuse", "cluster of its own")]
#[case::other_cluster(|c: &mut Case| c.edit(GRASTATE, "h3", "/uuid", json!("99999999-2222-3333-4444-555555555555")), "refuse", "another cluster")]
#[case::disk(|c: &mut Case| c.set(FILESYSTEM, "h3", &filesystems(1)), "refuse", "bytes free")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down(3, 1);
    change(&mut case);
    expect(&case, kind, part);
}
