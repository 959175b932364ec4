//! Each gate alone: it refuses or holds while all the others let the same repair pass.

use collectors::watchdog::Watchdog;
use jiff::SignedDuration;

use super::{
    Gate, GateId, GateInput, HeldLock, evaluate,
    maintenance::{Form, Sign},
    testing::{Site, now, spent},
    together,
};
use crate::{
    budget::RepairOutcome,
    decision::{Roles, testing::host},
    storm::Storm,
};

/// Only `gate` is against it, in the way and with the word that is expected; and so are all of them together.
fn only(
    gate: GateId,
    kind: &str,
    part: &str,
    prepare: impl FnOnce(&mut Site),
    change: impl FnOnce(&mut GateInput<'_>),
) {
    let untouched = Site::new();
    assert!(
        together(&evaluate(&untouched.input())).passes(),
        "the repair itself is fine"
    );
    let mut site = Site::new();
    prepare(&mut site);
    let mut input = site.input();
    change(&mut input);
    let answers = evaluate(&input);
    let against: Vec<GateId> = answers
        .iter()
        .filter(|one| !one.gate.passes())
        .map(|one| one.id)
        .collect();
    assert_eq!(against, [gate], "{answers:#?}");
    let said = together(&answers);
    let found = match &said {
        Gate::Pass { .. } => "pass",
        Gate::Hold { until, .. } => {
            assert!(*until > now(), "a hold has an end");
            "hold"
        }
        Gate::Refuse { .. } => "refuse",
    };
    assert_eq!(found, kind, "{said:?}");
    assert!(
        said.why().starts_with(&format!("{gate}: ")) && said.why().contains(part),
        "expected {part:?} in {said:?}"
    );
    let own = answers.iter().find(|one| one.id == gate).unwrap();
    assert!(!own.seen.is_empty(), "{gate} shows no evidence");
}

fn as_it_is(_: &mut Site) {}

#[test]
fn g1_refuses_an_answer_that_is_too_old() {
    only(GateId::G1, "refuse", "asked 31 s ago", as_it_is, |i| {
        i.evidence.direct[0].at = now() - SignedDuration::from_secs(31);
    });
}

#[test]
fn g1_waits_for_what_is_late_and_refuses_what_is_stale() {
    // Rule and scrape have an interval of 15 s, so they may be 30 s old.
    let kinds = [(31, "hold"), (60, "hold"), (61, "refuse")];
    for (seconds, kind) in kinds {
        let at = now() - SignedDuration::from_secs(seconds);
        let said = format!("was last evaluated {seconds}.0 s ago, its interval is 15 s");
        only(GateId::G1, kind, &said, as_it_is, |i| {
            i.evidence.metric.as_mut().unwrap()[0].last_evaluation = at;
        });
        let said = format!("was last scraped {seconds}.0 s ago, its interval is 15 s");
        only(GateId::G1, kind, &said, as_it_is, |i| {
            let scrapes = i.evidence.scrapes.as_mut().unwrap();
            scrapes.values_mut().for_each(|scrape| scrape.last = at);
        });
    }
}

#[test]
fn g2_refuses_two_sources_that_share_a_failure() {
    only(GateId::G2, "refuse", "that is one source", as_it_is, |i| {
        i.evidence.metric.as_mut().unwrap()[0].query = "haproxy_up == 0".into();
        for one in &mut i.evidence.direct {
            one.probe = "haproxy.info".into();
        }
    });
}

#[test]
fn g3_holds_without_a_watchdog() {
    only(GateId::G3, "hold", "Watchdog", as_it_is, |i| {
        i.monitoring.watchdog = Watchdog::Missing {
            since: Some(now() - SignedDuration::from_mins(3)),
        };
    });
}

#[test]
fn g4_holds_while_a_person_works_there() {
    only(GateId::G4, "hold", "disk swap", as_it_is, |i| {
        let sign = Sign::new("h1: disk swap");
        i.people.signs.insert(Form::Marker, Ok(vec![sign]));
    });
}

#[test]
fn g5_holds_while_another_repair_has_the_domain() {
    only(GateId::G5, "hold", "held by job j7", as_it_is, |i| {
        i.locks.held = Ok(vec![HeldLock {
            scope: "domain:memcached".into(),
            job: "j7".into(),
            hosts: [host("h9")].into(),
        }]);
    });
}

#[test]
fn g5_refuses_a_domain_that_was_not_left_in_proven_health() {
    let ledger = |site: &mut Site| {
        // Two days ago, by another runbook: no budget stands against this.
        let failed = spent(
            "j7",
            "MEM-9",
            "domain:memcached",
            2 * 24 * 60,
            RepairOutcome::Unverified,
        );
        site.ledger = vec![failed];
    };
    only(
        GateId::G5,
        "refuse",
        "job j7 was not proven",
        ledger,
        |_| (),
    );
}

#[test]
fn g6_refuses_to_go_below_the_majority() {
    only(
        GateId::G6,
        "refuse",
        "1 of 3 members would be left",
        as_it_is,
        |i| {
            i.blast.away.insert(host("h2"));
        },
    );
}

#[test]
fn g7_refuses_the_second_attempt() {
    let ledger = |site: &mut Site| {
        let done = RepairOutcome::Verified;
        site.ledger = vec![spent("j7", "MEM-1", "host:h1", 20, done)];
    };
    only(
        GateId::G7,
        "refuse",
        "repaired 1 times here",
        ledger,
        |_| (),
    );
}

#[test]
fn g8_holds_in_a_storm() {
    only(
        GateId::G8,
        "hold",
        "too much breaks at once",
        as_it_is,
        |i| {
            i.storm = Storm::Raging { since: now() };
        },
    );
}

#[test]
fn g9_refuses_when_the_state_before_would_be_kept_on_the_patient() {
    only(
        GateId::G9,
        "refuse",
        "which is the patient",
        as_it_is,
        |i| {
            i.plan.kept_on = Some(host("h1"));
        },
    );
}

#[test]
fn g10_refuses_an_empty_set_and_a_missing_member() {
    let empty = |site: &mut Site| site.roles = Roles::new();
    only(
        GateId::G10,
        "refuse",
        "which is not all of them",
        empty,
        |_| (),
    );
    only(
        GateId::G10,
        "refuse",
        "a member is missing",
        as_it_is,
        |i| {
            i.plan.unread.insert(host("h3"));
        },
    );
}

#[test]
fn g11_refuses_a_step_without_a_guard() {
    only(GateId::G11, "refuse", "\"start it\"", as_it_is, |i| {
        i.plan.unguarded.push("start it".into());
    });
}

#[test]
fn g12_refuses_a_second_try_after_one_that_was_not_proven() {
    only(GateId::G12, "refuse", "job j7 tried this", as_it_is, |i| {
        i.plan.unproven.push("j7".into());
    });
}

#[test]
fn g13_refuses_to_repair_what_the_bot_stands_on() {
    let needs = |site: &mut Site| {
        site.bot_needs.insert("memcached".parse().unwrap());
    };
    only(
        GateId::G13,
        "refuse",
        "cannot repair what it stands on",
        needs,
        |_| (),
    );
}
