use std::collections::BTreeMap;

use super::*;
use crate::decide::HealPlan;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn plan() -> Box<HealPlan> {
    Box::new(HealPlan {
        runbook: crate::format::RunbookId("MEM-1".into()),
        title: "MEM-1".into(),
        why: "w".into(),
        scope: "domain:memcached".into(),
        roles: BTreeMap::new(),
        parameters: BTreeMap::new(),
        targets: vec![],
        steps: vec![],
        digest: "d1".into(),
        version: "v1".into(),
        decided_at: at(0),
    })
}

fn decided(decision: Decision) -> Event {
    Event::Decided { decision }
}

fn every_state() -> Vec<State> {
    vec![
        State::Open,
        State::Holding {
            until: at(1),
            why: "w".into(),
        },
        State::Asking {
            digest: "d1".into(),
            expires: at(10),
            why: "w".into(),
        },
        State::Approved {
            digest: "d1".into(),
            by: "ann".into(),
        },
        State::Acting { job: "j1".into() },
        State::Proving { job: "j1".into() },
        State::Healed {
            job: "j1".into(),
            at: at(0),
        },
        State::Shadow {
            would: "x".into(),
            again: at(5),
        },
        State::Refused {
            why: "w".into(),
            again: Some(at(5)),
            looks: 0,
        },
        State::TellOnly { why: "w".into() },
        State::Unproven {
            job: "j1".into(),
            why: "w".into(),
        },
        State::Resolved { how: "h".into() },
    ]
}

fn every_event() -> Vec<Event> {
    let plan = plan();
    vec![
        Event::AlertsChanged,
        Event::Tick,
        Event::Cleared {
            job: "j1".into(),
            by: "ann".into(),
        },
        decided(Decision::Act {
            plan: plan.clone(),
            why: "w".into(),
        }),
        decided(Decision::Ask {
            plan: plan.clone(),
            why: "w".into(),
        }),
        decided(Decision::Shadow {
            plan,
            why: "w".into(),
        }),
        decided(Decision::Hold {
            until: at(3),
            why: "w".into(),
        }),
        decided(Decision::Refuse {
            why: "w".into(),
            evidence: vec![],
        }),
        decided(Decision::TellOnly { why: "w".into() }),
        Event::Approved {
            by: "ann".into(),
            digest: "d1".into(),
        },
        Event::Denied { by: "ann".into() },
        Event::JobStarted { job: "j1".into() },
        Event::ProofStarted { job: "j1".into() },
        Event::JobEnded {
            job: "j1".into(),
            result: JobResult::Succeeded,
            acted: true,
        },
        Event::JobEnded {
            job: "j1".into(),
            result: JobResult::Failed { why: "w".into() },
            acted: false,
        },
        Event::JobEnded {
            job: "j1".into(),
            result: JobResult::Failed { why: "w".into() },
            acted: true,
        },
        Event::JobEnded {
            job: "j1".into(),
            result: JobResult::Refused { why: "w".into() },
            acted: true,
        },
        Event::JobEnded {
            job: "j1".into(),
            result: JobResult::Cancelled { by: "ann".into() },
            acted: true,
        },
    ]
}

/// The whole machine at one glance: every state × every event, alerts firing and not.
#[test]
fn the_whole_table() {
    let mut table = String::new();
    for state in every_state() {
        for event in every_event() {
            let text = serde_json::to_value(&event).unwrap();
            let acted = if text["acted"] == false {
                " (nothing done)"
            } else {
                ""
            };
            let detail = text
                .pointer("/decision/decision")
                .or_else(|| text.pointer("/result/result"));
            let event_name = format!(
                "{}{}{acted}",
                text["event"].as_str().unwrap(),
                detail
                    .map(|d| format!(" {}", d.as_str().unwrap()))
                    .unwrap_or_default()
            );
            let next = |firing| match state.clone().next(&event, firing, at(20)) {
                Ok(next) if next == state => "–".to_owned(),
                Ok(next) => next.name().to_owned(),
                Err(illegal) => format!("illegal ({})", illegal.why),
            };
            let (firing, quiet) = (next(true), next(false));
            let shown = if firing == quiet {
                firing
            } else {
                format!("{firing} | quiet: {quiet}")
            };
            table += &format!("{:10} {:31} {shown}\n", state.name(), event_name);
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn nothing_leaves_resolved_and_nothing_acts_after_a_failed_proof() {
    for event in every_event() {
        if let Ok(next) = (State::Resolved { how: "h".into() }).next(&event, true, at(20)) {
            assert_eq!(next.name(), "resolved", "{event:?}");
        }
        let other = Event::Cleared {
            job: "j0".into(),
            by: "ann".into(),
        };
        let failed = State::Unproven {
            job: "j1".into(),
            why: "w".into(),
        };
        let after = failed.next(&other, true, at(20)).unwrap();
        assert_eq!(after.name(), "unproven", "of another job");
        let unproven = State::Unproven {
            job: "j1".into(),
            why: "w".into(),
        };
        if let Ok(next) = unproven.next(&event, true, at(20)) {
            // Nothing but a person's own word leads on from there.
            let cleared = matches!(&event, Event::Cleared { job, .. } if job == "j1");
            let expected = if cleared { "open" } else { "unproven" };
            assert_eq!(next.name(), expected, "{event:?}");
        }
    }
}

#[test]
fn an_approval_is_of_one_plan_and_for_a_time() {
    let asking = State::Asking {
        digest: "d1".into(),
        expires: at(10),
        why: "w".into(),
    };
    let approve = |digest: &str, minute| {
        let event = Event::Approved {
            by: "ann".into(),
            digest: digest.into(),
        };
        asking
            .clone()
            .next(&event, true, at(minute))
            .map(|next| next.name())
            .map_err(|illegal| illegal.why)
    };
    assert_eq!(approve("d1", 9), Ok("approved"));
    assert_eq!(approve("d2", 9), Err("it is of another plan".to_owned()));
    assert_eq!(approve("d1", 10), Err("it has expired".to_owned()));
    assert_eq!(
        asking.next(&Event::Tick, true, at(10)).unwrap().name(),
        "refused"
    );
}

#[test]
fn alerts_that_go_on_after_a_proof_are_not_healed() {
    let healed = State::Healed {
        job: "j1".into(),
        at: at(0),
    };
    assert_eq!(
        healed.clone().next(&Event::Tick, true, at(14)).unwrap(),
        healed
    );
    assert_eq!(
        healed
            .clone()
            .next(&Event::Tick, true, at(15))
            .unwrap()
            .name(),
        "unproven"
    );
    assert_eq!(
        healed
            .next(&Event::AlertsChanged, false, at(2))
            .unwrap()
            .name(),
        "resolved"
    );
}

#[test]
fn a_refusal_is_looked_at_soon_and_then_less_often() {
    let refusal = decided(Decision::Refuse {
        why: "w".into(),
        evidence: vec![],
    });
    let (mut state, mut waits) = (State::Open, Vec::new());
    for _ in 0..7 {
        state = state.next(&refusal, true, at(0)).unwrap();
        let State::Refused { again, .. } = &state else {
            panic!("{state:?}");
        };
        waits.push(again.unwrap().duration_since(at(0)).as_secs());
    }
    assert_eq!(waits, [30, 60, 120, 240, 300, 300, 300]);
    let said_no = State::Refused {
        why: "denied".into(),
        again: None,
        looks: 0,
    };
    assert!(!said_no.is_due(at(1_000)));
}
