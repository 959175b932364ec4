use super::*;
use crate::{
    compile::compile,
    decision::testing::host,
    library::Library,
    topology::{Deployed, Topology},
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn act(on: &str) -> Act {
    Act {
        roles: [("down".to_owned(), vec![host(on)])].into(),
        parameters: BTreeMap::new(),
        why: "it is down".into(),
    }
}

fn opinion(id: &str, verdict: Verdict) -> Opinion {
    Opinion {
        runbook: RunbookId(id.into()),
        verdict,
    }
}

fn elsewhere() -> Verdict {
    Verdict::Elsewhere {
        why: "not here".into(),
    }
}

fn refuse() -> Verdict {
    Verdict::Refuse {
        why: "no".into(),
        evidence: vec!["e".into()],
    }
}

#[test]
fn one_runbook_acts_only_when_no_other_objects() {
    let choice = |verdicts: Vec<Verdict>| {
        choose(
            verdicts
                .into_iter()
                .enumerate()
                .map(|(n, verdict)| opinion(&format!("X-{n}"), verdict))
                .collect(),
        )
    };
    let hold = Verdict::Hold {
        until: now(),
        why: "wait".into(),
    };
    let acts = Verdict::Act(act("h1"));
    assert_eq!(
        choice(vec![elsewhere(), acts.clone()]),
        Choice::Act(RunbookId("X-1".into()), act("h1"))
    );
    let decided = |verdicts| match choice(verdicts) {
        Choice::Decided(decision) => decision,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(decided(vec![acts.clone(), refuse()]), Decision::Refuse { why, evidence } if why == "X-1: no" && evidence == ["e"])
    );
    assert!(
        matches!(decided(vec![acts.clone(), hold.clone()]), Decision::Hold { why, .. } if why == "X-1: wait")
    );
    assert!(matches!(
        decided(vec![hold, refuse()]),
        Decision::Refuse { .. }
    ));
    assert!(
        matches!(decided(vec![acts.clone(), acts]), Decision::Refuse { why, .. } if why.starts_with("several runbooks"))
    );
    assert!(
        matches!(decided(vec![elsewhere()]), Decision::Refuse { why, .. } if why == "no runbook's situation: X-0: not here")
    );
    assert!(matches!(decided(vec![]), Decision::TellOnly { .. }));
}

#[test]
fn a_diagnosis_is_in_nobodys_way_and_is_told_when_nothing_else_is_done() {
    let choice = |verdicts: Vec<Verdict>| {
        let named = |(n, verdict)| opinion(&format!("X-{n}"), verdict);
        choose(verdicts.into_iter().enumerate().map(named).collect())
    };
    let page = || Verdict::Page {
        why: "nearly full".into(),
        evidence: vec!["91 %".into()],
    };
    assert_eq!(
        choice(vec![page(), Verdict::Act(act("h1"))]),
        Choice::Act(RunbookId("X-1".into()), act("h1"))
    );
    for others in [vec![], vec![elsewhere()]] {
        let told = choice([vec![page()], others].concat());
        let Choice::Decided(Decision::Refuse { why, evidence }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(
            (why.as_str(), evidence),
            ("X-0: nearly full", vec!["91 %".to_owned()])
        );
    }
    let Choice::Decided(Decision::Refuse { why, evidence }) = choice(vec![page(), refuse()]) else {
        panic!("it is refused");
    };
    assert_eq!(why, "X-1: no");
    assert_eq!(evidence, ["X-0: nearly full", "e", "91 %"]);
}

fn a_plan(on: &str) -> HealPlan {
    let library = Library::embedded().unwrap();
    let runbook = library.get(&RunbookId("MEM-1".into())).unwrap();
    let members = vec![host("h1"), host("h2")];
    let topology = Topology {
        hosts: members
            .iter()
            .map(|host| (host.clone(), String::new()))
            .collect(),
        services: [(
            "memcached".parse().unwrap(),
            Deployed {
                members,
                settings: BTreeMap::new(),
            },
        )]
        .into(),
        ..Topology::default()
    };
    let act = act(on);
    let domain = Domain::Service("memcached".parse().unwrap());
    plan(
        runbook,
        &act,
        compile(runbook, &act, &topology),
        &domain,
        now(),
    )
    .unwrap()
}

#[test]
fn a_digest_is_of_what_is_done_and_to_whom() {
    let one = a_plan("h1");
    assert_eq!(one.digest.len(), 16);
    assert_eq!(one.targets, ["host:h1", "domain:memcached"]);
    assert_ne!(one.digest, a_plan("h2").digest);
    let later = HealPlan {
        decided_at: Timestamp::MAX,
        why: "other words".into(),
        ..one.clone()
    };
    assert_eq!(digest(&later), one.digest);
}

#[rstest::rstest]
#[case(Class::Automatic, Mode::Auto, false, "act")]
#[case(Class::Automatic, Mode::Ask, true, "ask")]
#[case(Class::Automatic, Mode::Shadow, true, "shadow")]
#[case(Class::Guarded, Mode::Auto, false, "ask")]
#[case(Class::Guarded, Mode::Auto, true, "act")]
#[case(Class::Guarded, Mode::Shadow, true, "shadow")]
#[case(Class::Human, Mode::Auto, true, "ask")]
fn class_opt_in_and_mode(
    #[case] class: Class,
    #[case] mode: Mode,
    #[case] opted_in: bool,
    #[case] expected: &str,
) {
    let passing = [Answer {
        id: crate::gate::GateId::G1,
        gate: Gate::pass("ok"),
        seen: Vec::new(),
    }];
    let permission = Permission {
        class,
        mode,
        opted_in,
        earned: true,
    };
    let unearned = Permission {
        earned: false,
        ..permission
    };
    assert!(unearned.mode() <= Mode::Ask, "auto is earned");
    let decision = conclude(a_plan("h1"), &passing, permission, None);
    assert_eq!(
        serde_json::to_value(&decision).unwrap()["decision"],
        expected
    );
    // A button lifts the mode, never a gate, and only for the plan that it was pressed for.
    let plan = a_plan("h1");
    let approved = conclude(plan.clone(), &passing, permission, Some(&plan.digest));
    assert_eq!(
        matches!(approved, Decision::Act { .. }),
        mode != Mode::Shadow
    );
    let stale = conclude(plan.clone(), &passing, permission, Some("d0"));
    assert!(!matches!(stale, Decision::Act { .. }));
    let refused = [Answer {
        id: crate::gate::GateId::G5,
        gate: Gate::refuse("held"),
        seen: Vec::new(),
    }];
    assert!(
        matches!(conclude(plan.clone(), &refused, permission, Some(&plan.digest)), Decision::Refuse { why, .. } if why == "G5: held")
    );
    assert!(matches!(
        conclude(plan.clone(), &[], permission, Some(&plan.digest)),
        Decision::Refuse { .. }
    ));
}
