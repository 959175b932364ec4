//! The gates are asked again before every step, with the world as it is then; and what a person clears is tried again.

use std::{sync::Arc, time::Duration};

use collectors::{
    icinga2::{Held, HeldBy, Named},
    source::Care,
};
use deploy_engine::job::{JobEvent, JobId, JobKind, Journal};
use jiff::{SignedDuration, Timestamp};

use super::testing::{Stage, WorldNow, settings, start_with};
use crate::{
    budget::{Cleared, RepairOutcome, Spent},
    decision::testing::host,
    format::RunbookId,
    gate::GateId,
    incident::State,
    library::Library,
    trust::{self, Drilled, Mode},
};

const FIRST: &str = "record the state before";

/// A library whose MEM-1 forgets the failure first, and starts then: two steps that change something.
fn two_acts() -> Library {
    let text = include_str!("../../library/MEM-1.yaml");
    let forget = "  - title: forget the failure\n    on: down\n    run: [systemctl, reset-failed, memcached.service]\n    \
        effect: converge\n    timeout: 30s\n    guard: unit.startable\n    with: {unit: memcached.service}\n";
    let text = text.replace(
        "  - title: start memcached\n",
        &format!("{forget}  - title: start memcached\n"),
    );
    let folder = std::env::temp_dir().join(format!("nightshift-two-acts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("MEM-1.yaml"), text).unwrap();
    Library::load(&[folder]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn stage(library: Library) -> Stage {
    start_with(
        Arc::default(),
        Arc::default(),
        settings(Mode::Auto),
        library,
    )
}

/// Until the journal of the only job has an event.
async fn journaled(stage: &Stage, what: impl Fn(&JobEvent) -> bool) -> JobEvent {
    for _ in 0..300 {
        let jobs: Vec<String> = stage.world.now(|now| {
            let jobs = now.incidents.values().flat_map(|one| one.jobs.clone());
            jobs.collect()
        });
        for job in jobs {
            let events = stage.journal.load(&JobId(job)).await.unwrap_or_default();
            if let Some((_, event)) = events.into_iter().find(|(_, event)| what(event)) {
                return event;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the journal never had it; ran {:?}", stage.ran());
}

fn other_repair(now: &mut WorldNow) {
    now.ledger.push(Spent {
        job: "h0".into(),
        runbook: RunbookId("MEM-1".into()),
        targets: vec!["host:h3".into(), "domain:memcached".into()],
        at: Timestamp::now() - SignedDuration::from_mins(1),
        by: "ann".into(),
        outcome: Some(RepairOutcome::Unverified),
        ended_at: Some(Timestamp::now()),
        version: None,
        cleared: None,
    });
}

/// Nothing was changed yet: a gate that refuses between the first step and the second ends the repair.
#[rstest::rstest]
#[case::g1(|now: &mut WorldNow| now.firing = false, "G1: ")]
#[case::g3(|now: &mut WorldNow| now.alertmanager_ill = Some("refused".into()), "G3: Alertmanager is not well")]
#[case::g4(|now: &mut WorldNow| now.icinga = Some(Err("refused".into())), "G4: Icinga: unknown, refused")]
#[case::g5_and_g7(other_repair, "G7: MEM-1 did not prove itself here")]
#[tokio::test]
async fn a_gate_that_turns_to_refuse_between_two_steps_stops_the_repair(
    #[case] change: fn(&mut WorldNow),
    #[case] part: &str,
) {
    let stage = Stage::new(Mode::Auto);
    stage.world.now(|now| now.after = Some((FIRST, change)));
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let refused = stage.until("refused").await;
    let State::Refused { why, .. } = &refused.state else {
        unreachable!()
    };
    assert!(why.contains(part), "expected {part:?} in {why:?}");
    assert_eq!(refused.jobs.len(), 1, "it had begun");
    assert_eq!(stage.ran(), Vec::<String>::new());
    stage.world.now(|now| {
        let steps: Vec<&str> = now.judgements.iter().map(|one| one.step.as_str()).collect();
        assert_eq!(steps, [FIRST, "start memcached on h3"]);
        assert!(now.judgements.iter().all(|one| one.gates.len() == 13));
    });
}

/// What may pass by itself is waited for, with nothing done meanwhile.
#[tokio::test]
async fn a_gate_that_turns_to_hold_between_two_steps_keeps_the_repair_waiting() {
    let stage = Stage::new(Mode::Auto);
    let mark = |now: &mut WorldNow| drop(now.markers.insert(host("h3"), "kernel".into()));
    stage.world.now(|now| now.after = Some((FIRST, mark)));
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let held = journaled(&stage, |event| matches!(event, JobEvent::Held { .. })).await;
    let JobEvent::Held { why, until } = held else {
        unreachable!()
    };
    assert!(
        why.contains("G4: maintenance marker: h3 is marked: kernel"),
        "{why}"
    );
    assert!(until.is_some());
    assert_eq!(stage.ran(), Vec::<String>::new());
}

fn held(host: &str, service: Option<&str>, by: HeldBy) -> Held {
    Held {
        what: Named {
            host: host.into(),
            service: service.map(Into::into),
        },
        by,
        care: Care {
            id: "1".into(),
            by: "ann".into(),
            comment: "disks".into(),
            since: None,
            until: None,
        },
    }
}

#[rstest::rstest]
#[case::host_in_downtime(
    held("h3", None, HeldBy::Downtime),
    Some("downtime of h3 by ann: disks")
)]
#[case::by_address(
    held("10.0.0.3", None, HeldBy::Downtime),
    Some("downtime of 10.0.0.3 by ann: disks")
)]
#[case::service_in_downtime(
    held("h3", Some("ssh"), HeldBy::Downtime),
    Some("downtime of h3!ssh by ann: disks")
)]
#[case::host_acknowledged(
    held("h3", None, HeldBy::Acknowledgement),
    Some("acknowledgement of h3 by ann: disks")
)]
#[case::another_check_acknowledged(held("h3", Some("ssh"), HeldBy::Acknowledgement), None)]
#[case::another_host(held("h2", None, HeldBy::Downtime), None)]
#[case::a_host_of_another_site(held("h9", None, HeldBy::Downtime), None)]
#[tokio::test]
async fn what_is_held_in_icinga_is_left_alone(#[case] held: Held, #[case] expected: Option<&str>) {
    let stage = Stage::new(Mode::Auto);
    stage.world.now(|now| now.icinga = Some(Ok(vec![held])));
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let Some(expected) = expected else {
        stage.until("healed").await;
        return;
    };
    let expected = format!("G4: Icinga: {expected}");
    for _ in 0..300 {
        let held = stage.world.now(|now| {
            let mut incidents = now.incidents.values();
            incidents.any(|one| format!("{:?}", one.state).contains(&expected))
        });
        if held {
            assert_eq!(stage.ran(), Vec::<String>::new());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not held for {expected:?}");
}

/// Half-way a refusal holds: the second act waits until the doubt is gone, and then the repair goes on to its proof.
#[tokio::test]
async fn once_something_was_changed_a_refusal_holds_the_next_act() {
    let stage = stage(two_acts());
    let ill = |now: &mut WorldNow| now.alertmanager_ill = Some("refused".into());
    stage
        .world
        .now(|now| now.after = Some(("forget the failure", ill)));
    stage.watchdog().await;
    stage.break_cache("h3").await;
    let held = journaled(&stage, |event| matches!(event, JobEvent::Held { .. })).await;
    assert!(
        matches!(&held, JobEvent::Held { why, .. } if why.contains("G3: Alertmanager is not well")),
        "{held:?}"
    );
    let forgot = "h3: systemctl reset-failed memcached.service";
    assert_eq!(stage.ran(), [forgot]);
    stage.world.now(|now| now.alertmanager_ill = None);
    stage.until("healed").await;
    assert_eq!(
        stage.ran(),
        [forgot, "h3: systemctl start memcached.service"]
    );
}

/// Every step that acts is judged by all thirteen gates, and the hosts are asked again once something was changed.
#[tokio::test]
async fn every_step_that_acts_is_judged_with_fresh_answers() {
    let stage = stage(two_acts());
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("healed").await;
    let judgements = stage.world.now(|now| now.judgements.clone());
    let steps: Vec<&str> = judgements.iter().map(|one| one.step.as_str()).collect();
    assert_eq!(
        steps,
        [FIRST, "forget the failure on h3", "start memcached on h3"]
    );
    for judgement in &judgements {
        let ids: Vec<GateId> = judgement.gates.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), 13);
        assert!(judgement.gates.iter().all(|one| one.gate.passes()));
    }
}

#[tokio::test]
async fn auto_acts_only_when_it_was_earned() {
    let unearned = super::HealSettings {
        unearned: false,
        ..settings(Mode::Auto)
    };
    let library = || Library::embedded().unwrap();
    let stage = start_with(Arc::default(), Arc::default(), unearned.clone(), library());
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("asking").await;

    let version = trust::version(library().get(&RunbookId("MEM-1".into())).unwrap());
    let world: Arc<super::testing::World> = Arc::default();
    world.now(|now| {
        now.drilled = Some(Drilled {
            version: version.clone(),
            at: Timestamp::now(),
            by: "ann".into(),
            place: "lab".into(),
        });
        for n in 1..=3 {
            let at = Timestamp::now() - SignedDuration::from_hours(24 * n);
            now.ledger.insert(
                0,
                Spent {
                    job: format!("h{n}"),
                    runbook: RunbookId("MEM-1".into()),
                    targets: vec!["host:h1".into(), "domain:memcached".into()],
                    at,
                    by: "ann".into(),
                    outcome: Some(RepairOutcome::Verified),
                    ended_at: Some(at),
                    version: Some(version.clone()),
                    cleared: None,
                },
            );
        }
    });
    let stage = start_with(world, Arc::default(), unearned, library());
    stage.watchdog().await;
    stage.break_cache("h3").await;
    stage.until("healed").await;
}

/// Nothing but a person lifts an outcome that was not proven; after that it is decided anew.
#[tokio::test]
async fn a_person_clears_what_was_not_proven() {
    let stage = Stage::new(Mode::Auto);
    stage.watchdog().await;
    stage.world.now(|now| now.stuck = true);
    stage.break_cache("h3").await;
    let unproven = stage.until("unproven").await;
    let job = unproven.unproven[0].clone();
    stage.world.now(|now| {
        now.stuck = false;
        now.demoted = None;
        let of_job = now.ledger.iter_mut().find(|one| one.job == job).unwrap();
        of_job.cleared = Some(Cleared {
            by: "ann".into(),
            at: Timestamp::now(),
            why: "a full disk".into(),
        });
        // The budget of the target is a gate of its own.
        of_job.at -= SignedDuration::from_mins(31);
    });
    stage.handle.cleared(job, "ann".into()).await.unwrap();
    let healed = stage.until("healed").await;
    assert!(healed.unproven.is_empty());
    assert_eq!(healed.jobs.len(), 2);
}

/// What a person redeployed counts, and is settled when its job ends.
#[tokio::test]
async fn a_redeploy_is_settled_with_its_job() {
    let stage = Stage::new(Mode::Auto);
    let job = JobId("d1".into());
    let created = JobEvent::Created {
        kind: JobKind::Deploy {
            plan_digest: "d".into(),
        },
        title: "deploy memcached".into(),
        requested_by: "ann".into(),
        scope: "site:test".into(),
        steps: vec![],
    };
    let now = Timestamp::now();
    stage.journal.create(&job, now, &created).await.unwrap();
    stage.world.now(|now| {
        now.ledger.push(Spent {
            job: "d1".into(),
            runbook: RunbookId(crate::budget::REDEPLOY.into()),
            targets: vec!["domain:memcached".into()],
            at: Timestamp::now(),
            by: "ann".into(),
            outcome: None,
            ended_at: None,
            version: None,
            cleared: None,
        });
    });
    let finished = JobEvent::Finished {
        result: deploy_engine::job::JobResult::Succeeded,
    };
    stage.journal.append(&job, 1, now, &finished).await.unwrap();
    stage.handle.job_finished(&job);
    for _ in 0..300 {
        let outcome = stage.world.now(|now| now.ledger[0].outcome);
        if outcome == Some(RepairOutcome::Verified) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", stage.world.now(|now| now.ledger.clone()));
}
