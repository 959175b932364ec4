//! What the runner does in one life.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::*;
use crate::{
    job::{StepEnd, StepPhase},
    runner::GateVerdict,
    simulation::{clock::start, deed::Deed},
};

fn why(result: &JobResult) -> &str {
    match result {
        JobResult::Failed { why } | JobResult::Refused { why } => why,
        other => panic!("expected a reason, found {other:?}"),
    }
}

fn seconds_taken(stage: &Stage) -> i64 {
    stage.clock.now().duration_since(start()).as_secs()
}

#[test]
fn independent_steps_run_at_once() {
    let steps = (0..9)
        .map(|n| step(n, &[], on(&format!("ctl{}", n % 3), &format!("do s{n}"))))
        .collect();
    let stage = Stage::new(deploy(), steps);
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    assert_eq!(stage.world.effects().len(), 9);
    assert_eq!(seconds_taken(&stage), 3, "each takes three seconds");
    assert_eq!(
        stage.world.forgotten().len(),
        3,
        "each host forgets the job"
    );
}

#[test]
fn one_host_does_four_steps_at_once() {
    let steps = (0..8)
        .map(|n| step(n, &[], on("ctl1", &format!("do s{n}"))))
        .collect();
    let stage = Stage::new(deploy(), steps);
    stage.run().unwrap();
    assert_eq!(seconds_taken(&stage), 6);
}

#[test]
fn guarded_steps_of_one_service_take_turns() {
    let guarded = |n: u32| Step {
        guards: vec![condition("after:0")],
        ..step(n, &[], on(&format!("ctl{n}"), &format!("do s{n}")))
    };
    let stage = Stage::new(deploy(), (0..3).map(guarded).collect());
    stage.run().unwrap();
    assert_eq!(seconds_taken(&stage), 9);
}

#[test]
fn a_guard_that_does_not_hold_refuses_and_nothing_is_done() {
    for name in ["never", "unknown", "impossible"] {
        let guarded = Step {
            guards: vec![condition(name)],
            ..step(0, &[], on("ctl1", "do a"))
        };
        let stage = Stage::new(heal(), vec![guarded, step(1, &[], wait(2))]);
        let result = stage.run().unwrap();
        assert!(
            matches!(result, JobResult::Refused { .. }),
            "{name}: {result:?}"
        );
        assert!(why(&result).contains(name), "{name}: {result:?}");
        assert_eq!(stage.world.times("do a"), 0);
    }
}

#[test]
fn what_holds_already_is_not_done() {
    let already = Step {
        unless: Some(condition("after:0")),
        ..step(0, &[], on("ctl1", "do a"))
    };
    let stage = Stage::new(deploy(), vec![already]);
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    assert_eq!(stage.world.times("do a"), 0);
}

#[test]
fn a_failure_names_the_step_and_its_host() {
    let stage = Stage::new(
        deploy(),
        vec![step(0, &[], on("ctl1", "do a")), step(1, &[0], wait(1))],
    );
    stage.world.script("do a", vec![Deed::failed_half_way()]);
    let result = stage.run().unwrap();
    assert_eq!(
        why(&result),
        "step 0: ctl1: `do a`: exit code 1; 1 steps were not run"
    );
}

#[test]
fn an_unreachable_host_fails_its_steps_and_no_others() {
    let steps = vec![
        step(0, &[], on("ctl1", "do a")),
        step(1, &[], on("ctl2", "do b")),
    ];
    let stage = Stage::new(deploy(), steps);
    stage.world.cut_off("ctl1", true);
    let result = stage.run().unwrap();
    assert!(
        why(&result).contains("ctl1: expected SSH to answer"),
        "{result:?}"
    );
    assert_eq!(stage.world.effects(), ["b"]);
}

#[test]
fn a_connection_that_breaks_and_returns_repeats_nothing() {
    let stage = Stage::new(deploy(), vec![step(0, &[], on("ctl1", "do a"))]);
    stage.world.script("do a", vec![Deed::done(10)]);
    let runner = stage.immortal();
    let result = stage.clock.block_on(async {
        let weather = async {
            stage.clock.sleep(Duration::from_secs(2)).await;
            stage.world.cut_off("ctl1", true);
            stage.clock.sleep(Duration::from_secs(20)).await;
            stage.world.cut_off("ctl1", false);
        };
        futures::join!(runner.run(&stage.job), weather).0
    });
    assert_eq!(result.unwrap(), JobResult::Succeeded);
    assert_eq!(stage.world.times("do a"), 1);
}

#[test]
fn a_snapshot_is_kept_in_the_journal_and_needs_at_least_one_reading() {
    let stage = Stage::new(heal(), vec![step(0, &[], snapshot("ctl1"))]);
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    let kept = |(_, event): &(_, JobEvent)| matches!(event, JobEvent::Evidence { .. });
    assert!(stage.events().iter().any(kept));

    let stage = Stage::new(heal(), vec![step(0, &[], snapshot("ctl1"))]);
    stage.world.cut_off("ctl1", true);
    assert!(why(&stage.run().unwrap()).contains("no reading could be taken"));
}

#[test]
fn a_health_gate_that_never_holds_fails_at_its_deadline() {
    let gate = check(
        "never",
        CheckMode::Within {
            deadline: Secs(300),
        },
    );
    let stage = Stage::new(
        deploy(),
        vec![step(0, &[], gate), step(1, &[0], on("ctl1", "do a"))],
    );
    let result = stage.run().unwrap();
    assert!(
        why(&result).contains("expected it within 5 min"),
        "{result:?}"
    );
    assert_eq!(seconds_taken(&stage), 300);
    assert_eq!(stage.world.times("do a"), 0);
}

#[test]
fn a_restart_does_not_extend_a_deadline() {
    let gate = check(
        "never",
        CheckMode::Within {
            deadline: Secs(300),
        },
    );
    let stage = Stage::new(deploy(), vec![step(0, &[], gate)]);
    let runner = stage.immortal();
    stage.clock.block_on(async {
        tokio::select! {
            result = runner.run(&stage.job) => panic!("expected it to wait, found {result:?}"),
            () = stage.clock.sleep(Duration::from_secs(200)) => {}
        }
    });
    drop(runner);
    stage.run().unwrap();
    assert_eq!(seconds_taken(&stage), 300);
}

#[test]
fn a_cancel_ends_what_only_waits_within_a_second() {
    let stage = Stage::new(
        deploy(),
        vec![step(0, &[], wait(500)), step(1, &[0], on("ctl1", "do a"))],
    );
    let runner = stage.immortal();
    let result = stage.clock.block_on(async {
        let cancel = async {
            stage.clock.sleep(Duration::from_secs(10)).await;
            runner.cancel(&stage.job, "alice").await.unwrap();
        };
        futures::join!(runner.run(&stage.job), cancel).0
    });
    assert_eq!(result.unwrap(), JobResult::Cancelled { by: "alice".into() });
    assert_eq!(seconds_taken(&stage), 10);
    assert_eq!(stage.world.times("do a"), 0);
    let again = stage.clock.block_on(runner.cancel(&stage.job, "bob"));
    assert!(
        matches!(again, Err(RunError::AlreadyFinished(_))),
        "{again:?}"
    );
}

#[test]
fn a_job_that_was_cancelled_in_the_queue_does_nothing() {
    let stage = Stage::new(deploy(), vec![step(0, &[], on("ctl1", "do a"))]);
    let runner = stage.immortal();
    stage
        .clock
        .block_on(runner.cancel(&stage.job, "alice"))
        .unwrap();
    assert_eq!(
        stage.run().unwrap(),
        JobResult::Cancelled { by: "alice".into() }
    );
    assert_eq!(stage.world.times("do a"), 0);
}

#[test]
fn an_observing_command_is_ended_on_its_host_by_a_cancel() {
    let watching = Step {
        effect: Effect::Observe,
        ..step(0, &[], on("ctl1", "do a"))
    };
    let stage = Stage::new(heal(), vec![watching]);
    stage.world.script("do a", vec![Deed::done(100)]);
    let runner = stage.immortal();
    let result = stage.clock.block_on(async {
        let cancel = async {
            stage.clock.sleep(Duration::from_secs(5)).await;
            runner.cancel(&stage.job, "alice").await.unwrap();
        };
        futures::join!(runner.run(&stage.job), cancel).0
    });
    assert_eq!(result.unwrap(), JobResult::Cancelled { by: "alice".into() });
    assert!(seconds_taken(&stage) <= 6);
}

#[test]
fn a_busy_site_refuses_the_second_job() {
    let stage = Stage::new(deploy(), vec![step(0, &[], on("ctl1", "do a"))]);
    let second = JobId("j2".into());
    stage.create(&second, heal(), vec![step(0, &[], on("ctl2", "do b"))]);
    let runner = stage.immortal();
    let result = stage.clock.block_on(async {
        let second = async {
            stage.clock.sleep(Duration::from_secs(1)).await;
            runner.run(&second).await
        };
        futures::join!(runner.run(&stage.job), second).1
    });
    let result = result.unwrap();
    assert!(
        why(&result).contains("site:demo is held by job j1 on bot1"),
        "{result:?}"
    );
    assert_eq!(stage.world.effects(), ["a"]);
}

#[test]
fn two_runners_cannot_both_drive_a_job() {
    let stage = Stage::new(
        deploy(),
        vec![
            step(0, &[], on("ctl1", "do a")),
            step(1, &[0], on("ctl1", "do b")),
        ],
    );
    let (one, two) = (stage.immortal(), stage.immortal());
    let (first, second) = stage.clock.block_on(async {
        let late = async {
            stage.clock.sleep(Duration::from_secs(1)).await;
            two.run(&stage.job).await
        };
        futures::join!(one.run(&stage.job), late)
    });
    assert!(matches!(first, Err(RunError::Journal(_))), "{first:?}");
    assert_eq!(second.unwrap(), JobResult::Succeeded);
    assert_eq!(stage.world.executed().values().copied().max(), Some(1));
}

/// Says one thing after the other.
struct Scripted {
    verdicts: Mutex<Vec<GateVerdict>>,
    asked: AtomicU32,
}

#[async_trait]
impl StepGate for Scripted {
    async fn before(&self, _: &JobId, _: &JobState, _: &Step, _: Timestamp) -> GateVerdict {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.verdicts
            .lock()
            .unwrap()
            .pop()
            .unwrap_or(GateVerdict::Pass)
    }
}

fn hold(until: Option<Timestamp>) -> GateVerdict {
    let why = "halted by alice".into();
    GateVerdict::Hold { until, why }
}

#[test]
fn a_held_job_asks_its_gate_again_and_says_so_once() {
    let mut stage = Stage::new(heal(), vec![step(0, &[], on("ctl1", "do a"))]);
    let gate = Arc::new(Scripted {
        verdicts: Mutex::new(vec![hold(None), hold(None), hold(None)]),
        asked: AtomicU32::new(0),
    });
    stage.gate = gate.clone();
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    assert_eq!(gate.asked.load(Ordering::SeqCst), 4);
    let events = stage.events();
    let held = events
        .iter()
        .filter(|(_, event)| matches!(event, JobEvent::Held { .. }));
    assert_eq!(held.count(), 1);
    assert!(
        (15..=17).contains(&(seconds_taken(&stage) - 3)),
        "asked every five seconds"
    );
}

#[test]
fn a_held_job_waits_for_the_time_it_was_given() {
    let mut stage = Stage::new(heal(), vec![step(0, &[], on("ctl1", "do a"))]);
    let until = start() + jiff::SignedDuration::from_secs(900);
    stage.gate = Arc::new(Scripted {
        verdicts: Mutex::new(vec![hold(Some(until))]),
        asked: AtomicU32::new(0),
    });
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    assert_eq!(seconds_taken(&stage), 903);
}

#[test]
fn a_gate_that_refuses_in_the_middle_of_a_repair_has_it_taken_back() {
    let first = Step {
        undo: Some(on("ctl1", "undo a")),
        ..step(0, &[], on("ctl1", "do a"))
    };
    let mut stage = Stage::new(heal(), vec![first, step(1, &[0], on("ctl2", "do b"))]);
    let why_not = "silenced by bob".to_owned();
    stage.gate = Arc::new(Scripted {
        verdicts: Mutex::new(vec![
            GateVerdict::Refuse { why: why_not },
            GateVerdict::Pass,
        ]),
        asked: AtomicU32::new(0),
    });
    let result = stage.run().unwrap();
    assert_eq!(why(&result), "step 1: silenced by bob");
    assert_eq!(stage.world.effects(), [""; 0]);
    let job = stage.state();
    let phase = &job.job().unwrap().runs[0].phase;
    assert!(
        matches!(
            phase,
            StepPhase::Undone {
                undo: StepEnd::Done { .. },
                ..
            }
        ),
        "{phase:?}"
    );
}

#[test]
fn a_host_that_saw_a_newer_holder_refuses() {
    let stage = Stage::new(deploy(), vec![step(0, &[], on("ctl1", "do a"))]);
    // A newer bot with another journal has been here.
    let newer = u64::try_from(start().as_second()).unwrap() + 1_000;
    let fence = crate::wire::Fence {
        scope: "site:demo".into(),
        token: newer,
    };
    use crate::transport::Hosts;
    let (send, _keep) = tokio::sync::mpsc::channel(1);
    let host = "ctl1".parse().unwrap();
    let key = crate::wire::StepKey("x.0.1".into());
    let other = stage.network();
    let other = other.start(&host, key, fence, command("do x"), Secs(10), send);
    stage.clock.block_on(other).unwrap();
    let result = stage.run().unwrap();
    assert!(
        why(&result).contains(&format!("token {newer}")),
        "{result:?}"
    );
    assert_eq!(stage.world.times("do a"), 0);
}
