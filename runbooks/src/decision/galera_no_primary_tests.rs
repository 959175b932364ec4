use serde_json::json;

use super::*;
use crate::decision::{
    galera_node_down::tests::{CLUSTER, a_server, answering, stopped, wsrep},
    testing::{Case, expect, obeys_the_laws},
};

/// Positions of members that answer outside a primary component; `None`: stopped, with 30 recovered.
fn lost(positions: &[Option<i64>]) -> Case {
    let mut case =
        Case::new("galera.no_primary", "mariadb", positions.len()).setting("remerge", json!(120));
    let size = positions.iter().flatten().count() as u32;
    for (n, position) in positions.iter().enumerate() {
        let name = format!("h{}", n + 1);
        match position {
            Some(position) => {
                let one = Wsrep {
                    cluster_status: ClusterStatus::NonPrimary,
                    local_state: deploy_engine::probe::galera::LocalState::Undefined,
                    ready: false,
                    ..wsrep(size, *position)
                };
                case.set(STATUS, &name, &answering(one));
                case.set(PROCESSES, &name, &a_server());
            }
            None => {
                stopped(&mut case, &name);
                case.set(
                    RECOVERED,
                    &name,
                    &Recovered {
                        uuid: CLUSTER.into(),
                        seqno: 30,
                    },
                );
            }
        }
    }
    case
}

#[test]
fn the_most_advanced_is_chosen_and_a_tie_goes_to_the_first_name() {
    let case = lost(&[Some(40), Some(42), None]);
    assert_eq!(
        case.roles(),
        [
            ("chosen".to_owned(), vec!["h2".to_owned()]),
            ("others".into(), vec!["h1".into()]),
            ("stopped".into(), vec!["h3".into()]),
        ]
        .into()
    );
    assert_eq!(lost(&[Some(42), Some(42)]).roles()["chosen"], ["h1"]);
    assert_eq!(
        lost(&[Some(37), None]).roles().keys().collect::<Vec<_>>(),
        ["chosen", "stopped"]
    );
}

#[test]
fn laws() {
    obeys_the_laws(&lost(&[Some(40), Some(42), None]), &[(GRASTATE, "h3")]);
}

#[test]
fn stopped_members_are_asked_for_their_position_only_when_all_else_is_clear() {
    let mut case = lost(&[Some(40), Some(42), None]);
    case.readings.by_probe.remove(RECOVERED);
    let Verdict::More { asks, .. } = case.verdict() else {
        panic!("{:?}", case.verdict())
    };
    assert_eq!(asks.len(), 1);
    assert_eq!(
        (asks[0].probe.as_str(), asks[0].host.as_str()),
        (RECOVERED, "h3")
    );
    assert!(matches!(
        case.verdict_at_first_sight(),
        Verdict::Hold { .. }
    ));
}

#[rstest::rstest]
#[case::primary(|c: &mut Case| for n in ["h1", "h2"] { c.edit(STATUS, n, "/wsrep/cluster_status", json!("primary")) }, "elsewhere", "in a primary component")]
#[case::one_primary(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/cluster_status", json!("primary")), "refuse", "a network problem")]
#[case::all_stopped(|c: &mut Case| *c = lost(&[None, None, None]), "elsewhere", "no member answers")]
#[case::unreachable(|c: &mut Case| c.lose(STATUS, "h3"), "refuse", "unknown is not down")]
#[case::other_state(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/local_state_uuid", json!("x")), "refuse", "same state")]
#[case::zero_state(|c: &mut Case| for n in ["h1", "h2"] { c.edit(STATUS, n, "/wsrep/local_state_uuid", json!(ZERO_UUID)) }, "refuse", "same state")]
#[case::cut(|c: &mut Case| c.edit(STATUS, "h1", "/wsrep/cluster_size", json!(1)), "hold", "network between them is not whole")]
#[case::stopped_is_ahead(|c: &mut Case| c.edit(RECOVERED, "h3", "/seqno", json!(43)), "refuse", "ahead")]
#[case::stopped_is_other(|c: &mut Case| c.edit(RECOVERED, "h3", "/uuid", json!(ZERO_UUID)), "refuse", "the others are of")]
#[case::stopped_unproven(|c: &mut Case| c.edit(RECOVERED, "h3", "/seqno", json!(-1)), "refuse", "the others are of")]
#[case::stopped_starts(|c: &mut Case| c.set(PROCESSES, "h3", &a_server()), "hold", "a server runs on h3")]
#[case::no_position(|c: &mut Case| for n in ["h1", "h2"] { c.edit(STATUS, n, "/wsrep/last_committed", json!(-1)) }, "refuse", "does not know its own position")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = lost(&[Some(40), Some(42), None]);
    change(&mut case);
    expect(&case, kind, part);
}
