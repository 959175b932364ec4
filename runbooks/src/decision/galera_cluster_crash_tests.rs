use serde_json::json;

use super::*;
use crate::decision::{
    galera_node_down::tests::{CLUSTER, a_server, answering, stopped, wsrep},
    testing::{Case, expect, obeys_the_laws},
};

fn crashed(positions: &[i64]) -> Case {
    let mut case =
        Case::new("galera.cluster_crash", "mariadb", positions.len()).setting("observe", json!(60));
    for (n, position) in positions.iter().enumerate() {
        let name = format!("h{}", n + 1);
        stopped(&mut case, &name);
        case.set(GVWSTATE, &name, &Gvwstate::Missing);
        case.set(
            RECOVERED,
            &name,
            &Recovered {
                uuid: CLUSTER.into(),
                seqno: *position,
            },
        );
    }
    case
}

fn remember(case: &mut Case, name: &str, members: u32) {
    case.set(
        GVWSTATE,
        name,
        &Gvwstate::Present {
            my_uuid: CLUSTER.into(),
            members,
        },
    );
}

#[test]
fn the_highest_proven_position_starts_and_a_tie_goes_to_the_first_name() {
    let case = crashed(&[14, 18, 17]);
    assert_eq!(
        case.roles(),
        [
            ("chosen".to_owned(), vec!["h2".to_owned()]),
            ("others".into(), vec!["h1".into(), "h3".into()])
        ]
        .into()
    );
    assert_eq!(crashed(&[14, 18, 18]).roles()["chosen"], ["h2"]);
    assert_eq!(crashed(&[0, 0, 0]).roles()["chosen"], ["h1"]);
}

#[test]
fn laws() {
    obeys_the_laws(&crashed(&[14, 18, 17]), &[]);
}

#[test]
fn members_that_remember_each_other_are_just_started() {
    let mut case = crashed(&[14, 18, 17]);
    case.readings.by_probe.remove(RECOVERED);
    for name in ["h1", "h2", "h3"] {
        remember(&mut case, name, 3);
    }
    assert_eq!(
        case.roles(),
        [(
            "together".to_owned(),
            vec!["h1".to_owned(), "h2".into(), "h3".into()]
        )]
        .into()
    );
    obeys_the_laws(&case, &[]);
    remember(&mut case, "h3", 2);
    assert!(
        matches!(case.verdict(), Verdict::More { asks, .. } if asks.len() == 3),
        "one saw a smaller component"
    );
}

#[test]
fn data_is_asked_for_its_position_only_when_nothing_runs() {
    let mut case = crashed(&[14, 18, 17]);
    case.readings.by_probe.remove(RECOVERED);
    assert!(matches!(case.verdict(), Verdict::More { asks, .. } if asks.len() == 3));
    case.set(PROCESSES, "h2", &a_server());
    assert!(matches!(case.verdict(), Verdict::Hold { .. }));
}

#[rstest::rstest]
#[case::one_answers(|c: &mut Case| c.set(STATUS, "h1", &answering(wsrep(1, 20))), "elsewhere", "h1 answer")]
#[case::unreachable(|c: &mut Case| c.lose(GRASTATE, "h3"), "refuse", "galera.grastate on h3 is unknown")]
#[case::position_unknown(|c: &mut Case| c.lose(RECOVERED, "h3"), "refuse", "galera.recovered on h3 is unknown")]
#[case::no_position(|c: &mut Case| c.edit(RECOVERED, "h3", "/seqno", json!(-1)), "refuse", "proves no position")]
#[case::zero_recovered(|c: &mut Case| c.edit(RECOVERED, "h3", "/uuid", json!(ZERO_UUID)), "refuse", "its state file says")]
#[case::zero_state(|c: &mut Case| c.edit(GRASTATE, "h3", "/uuid", json!(ZERO_UUID)), "refuse", "without identity")]
#[case::no_state(|c: &mut Case| c.set(GRASTATE, "h3", &Grastate::Missing), "refuse", "no state file")]
#[case::other_cluster(|c: &mut Case| c.edit(GRASTATE, "h3", "/uuid", json!("x")), "refuse", "different clusters")]
#[case::marked_is_behind(|c: &mut Case| c.edit(GRASTATE, "h1", "/safe_to_bootstrap", json!(true)), "refuse", "not the most advanced")]
#[case::two_marked(|c: &mut Case| for n in ["h1", "h2"] { c.edit(GRASTATE, n, "/safe_to_bootstrap", json!(true)) }, "refuse", "all marked")]
#[case::running(|c: &mut Case| c.set(PROCESSES, "h2", &a_server()), "hold", "a server runs on h2")]
#[case::transfer(|c: &mut Case| c.edit(PROCESSES, "h2", "/transfers", json!(["wsrep_sst_rsync"])), "hold", "wsrep_sst_rsync runs")]
#[case::broken_sst(|c: &mut Case| c.set(SST_MARKER, "h2", &true), "refuse", "interrupted")]
#[case::leftover(|c: &mut Case| c.edit(BOOTSTRAP_LEFTOVERS, "h2", "/found", json!(["x"])), "refuse", "cluster of its own")]
#[case::leftover_file(|c: &mut Case| c.edit(BOOTSTRAP_FILE, "h2", "/found", json!(["x"])), "refuse", "cluster of its own")]
#[case::disabled(|c: &mut Case| c.edit(UNIT_STATE, "h2", "/enabled", json!("masked")), "refuse", "does not want it")]
#[case::single(|c: &mut Case| *c = crashed(&[5]), "elsewhere", "no cluster")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = crashed(&[14, 18, 17]);
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn a_marked_member_that_is_the_most_advanced_is_taken() {
    let mut case = crashed(&[18, 18, 17]);
    case.edit(GRASTATE, "h2", "/safe_to_bootstrap", json!(true));
    assert_eq!(case.roles()["chosen"], ["h2"]);
}

proptest::proptest! {
    /// Nobody with fewer commits than another is ever chosen, and nobody is chosen when a position is not proven.
    #[test]
    fn no_commit_is_lost(positions in proptest::collection::vec(-1_i64..6, 2..6)) {
        let case = crashed(&positions);
        match case.verdict() {
            Verdict::Act(act) => {
                let chosen = act.roles["chosen"][0].as_str();
                let n: usize = chosen[1..].parse().unwrap();
                proptest::prop_assert!(positions.iter().all(|one| *one >= 0 && *one <= positions[n - 1]));
                proptest::prop_assert_eq!(act.roles["others"].len(), positions.len() - 1);
            }
            Verdict::Refuse { .. } => proptest::prop_assert!(positions.contains(&-1)),
            other => panic!("{other:?}"),
        }
    }
}
