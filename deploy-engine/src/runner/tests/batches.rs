//! A job whose hosts are shared out: its batches are jobs of their own, driven by another bot.

use std::{pin::pin, time::Duration};

use futures::future::{Either, select};

use super::*;
use crate::{job::Job, simulation::deed::Deed};

/// Two batches of one host each, and one step that needs both.
fn shared() -> Vec<Step> {
    let batch = |number: u32| Action::Batch {
        number,
        model: "m".to_owned(),
        steps: vec![
            step(
                0,
                &[],
                on(&format!("ctl{number}"), &format!("do a{number}")),
            ),
            step(
                1,
                &[0],
                on(&format!("ctl{number}"), &format!("do b{number}")),
            ),
        ],
    };
    let once = |id, action| Step {
        effect: Effect::Once,
        ..step(id, &[], action)
    };
    vec![
        once(0, batch(1)),
        once(1, batch(2)),
        step(2, &[0, 1], on("ctl3", "do last")),
    ]
}

/// Drives batches as they come, and passes on who wants them cancelled. Never ends.
async fn other_bot(stage: &Stage) {
    let runner = stage.immortal();
    loop {
        for id in stage.journal.unfinished().await.unwrap() {
            if id == stage.job {
                continue;
            }
            let told = pin!(async {
                while stage.journal.asked_to_cancel(&id).is_none() {
                    stage.clock.sleep(Duration::from_secs(1)).await;
                }
                runner.cancel(&id, "its job").await.unwrap();
                std::future::pending::<()>().await
            });
            // In this order: nothing is begun of one that was cancelled while it waited.
            select(told, pin!(runner.run(&id))).await;
        }
        stage.clock.sleep(Duration::from_secs(1)).await;
    }
}

async fn beside<T>(stage: &Stage, work: impl Future<Output = T>) -> T {
    match select(pin!(work), pin!(other_bot(stage))).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => unreachable!("the other bot never ends"),
    }
}

fn batches(stage: &Stage) -> Vec<JobState> {
    let ids = [0, 1].map(|step| Job::batch_id(&stage.job, StepId(step)));
    let loaded = ids.map(|id| stage.clock.block_on(stage.journal.load(&id)));
    let events = loaded.into_iter().flatten();
    events
        .map(|events| JobState::fold(&events).unwrap())
        .collect()
}

#[test]
fn batches_are_done_by_another_bot_and_waited_for() {
    let stage = Stage::new(deploy(), shared());
    let runner = stage.immortal();
    let result = stage.clock.block_on(beside(&stage, runner.run(&stage.job)));
    assert_eq!(result.unwrap(), JobResult::Succeeded);
    assert_eq!(stage.world.effects(), ["a1", "a2", "b1", "b2", "last"]);
    let scopes: Vec<String> = batches(&stage)
        .iter()
        .map(|state| state.job().unwrap().scope.clone())
        .collect();
    assert_eq!(scopes, ["batch:demo:1", "batch:demo:2"]);
}

#[test]
fn a_bot_that_dies_at_any_second_leaves_batches_that_are_made_once_and_waited_for_by_the_next() {
    for seconds in 0..24 {
        let stage = Stage::new(deploy(), shared());
        let result = stage.clock.block_on(beside(&stage, async {
            let first = stage.immortal();
            let death = stage.clock.sleep(Duration::from_secs(seconds));
            drop(select(pin!(first.run(&stage.job)), death).await);
            stage.immortal().run(&stage.job).await
        }));
        assert_eq!(result.unwrap(), JobResult::Succeeded, "{seconds}");
        for effect in ["a1", "a2", "b1", "b2", "last"] {
            assert_eq!(stage.world.times(&format!("do {effect}")), 1, "{seconds}");
        }
        assert_eq!(batches(&stage).len(), 2);
    }
}

#[test]
fn a_cancel_ends_the_batches_between_their_steps() {
    let stage = Stage::new(deploy(), shared());
    let runner = stage.immortal();
    let result = stage.clock.block_on(beside(&stage, async {
        let cancel = async {
            stage.clock.sleep(Duration::from_secs(2)).await;
            runner.cancel(&stage.job, "alice").await.unwrap();
        };
        futures::join!(runner.run(&stage.job), cancel).0
    }));
    assert!(matches!(result.unwrap(), JobResult::Cancelled { by } if by == "alice"));
    // What ran when it was cancelled ended; nothing else began.
    assert_eq!(stage.world.effects(), ["a1"]);
    for batch in batches(&stage) {
        assert!(matches!(batch.result(), Some(JobResult::Cancelled { .. })));
    }
}

#[test]
fn what_fails_in_a_batch_keeps_back_what_needs_it_and_says_why() {
    let stage = Stage::new(deploy(), shared());
    stage.world.script("do b2", vec![Deed::failed_half_way()]);
    let runner = stage.immortal();
    let result = stage.clock.block_on(beside(&stage, runner.run(&stage.job)));
    let Ok(JobResult::Failed { why }) = result else {
        panic!("expected a failure, found {result:?}")
    };
    assert!(
        why.contains("step 1") && why.contains("1 steps were not run"),
        "{why}"
    );
    assert_eq!(
        stage.world.times("do b1"),
        1,
        "the other batch is not held up"
    );
    assert_eq!(stage.world.times("do last"), 0);
}

#[test]
fn a_batch_that_does_not_end_is_told_to_and_then_given_up() {
    let mut steps = shared();
    steps[0].timeout = Secs(60);
    let stage = Stage::new(deploy(), steps);
    // Nobody drives it.
    let Ok(JobResult::Failed { why }) = stage.run() else {
        panic!("expected a failure")
    };
    assert!(why.contains("job j1x0 does not end"), "{why}");
    let asked = stage.journal.asked_to_cancel(&JobId("j1x0".into()));
    assert_eq!(asked.as_deref(), Some("the job that it is a part of"));
}
