use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, obeys_the_laws, unit};

fn down(count: usize, down: usize) -> Case {
    let mut case = Case::new("memcached.down", "memcached", count)
        .setting("confirm", json!(30))
        .setting("quiet", json!(1_800));
    for n in 1..=count {
        let name = format!("h{n}");
        let runs = n <= count - down;
        case.set(
            UNIT_STATE,
            &name,
            &unit(if runs { "active" } else { "inactive" }),
        );
        if runs {
            let stats = Stats {
                version: "1.6.18".into(),
                uptime_seconds: 9_000,
                curr_connections: 1,
                max_connections: 1_024,
                bytes: 0,
                limit_maxbytes: 64,
                evictions: 0,
            };
            case.set(STATS, &name, &stats);
        }
    }
    case
}

#[test]
fn laws() {
    assert_eq!(down(3, 1).roles()["down"], ["h3"]);
    assert_eq!(down(1, 1).roles()["down"], ["h1"]);
    obeys_the_laws(&down(3, 1), &[]);
}

#[rstest::rstest]
#[case::all_up(|c: &mut Case| *c = down(3, 0), "elsewhere", "active on every member")]
#[case::two_down(|c: &mut Case| *c = down(3, 2), "refuse", "h2, h3 of 3 are down")]
#[case::cold(|c: &mut Case| c.edit(STATS, "h1", "/uptime_seconds", json!(60)), "hold", "the cache on h1 is cold")]
#[case::disabled(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/enabled", json!("disabled")), "refuse", "does not want it")]
#[case::starting(|c: &mut Case| c.edit(UNIT_STATE, "h3", "/active", json!("activating")), "hold", "activating")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = down(3, 1);
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn a_cold_neighbour_is_waited_for_exactly() {
    let mut case = down(3, 1);
    case.edit(STATS, "h1", "/uptime_seconds", json!(600));
    let Verdict::Hold { until, .. } = case.verdict() else {
        panic!()
    };
    assert_eq!(until, case.now + SignedDuration::from_secs(1_200));
}
