//! A bot that is killed at every point of a job, and again at every point of the recovery, comes to the same end as one
//! that lives: nothing is done twice, nothing is lost.

use std::mem::discriminant;

use super::*;
use crate::simulation::deed::Deed;

/// A job, what its hosts do, and how it must end.
struct Shape {
    name: &'static str,
    kind: JobKind,
    steps: Vec<Step>,
    scripts: Vec<(&'static str, Vec<Deed>)>,
    /// Cancelled this many seconds after each start of the bot.
    cancel_after: Option<u64>,
    effects: &'static [&'static str],
    result: JobResult,
}

fn failed() -> JobResult {
    JobResult::Failed { why: String::new() }
}

fn cancelled() -> JobResult {
    JobResult::Cancelled { by: String::new() }
}

fn once(step: Step) -> Step {
    Step {
        effect: Effect::Once,
        ..step
    }
}

fn undone_by(host: &str, line: &str, step: Step) -> Step {
    Step {
        undo: Some(on(host, line)),
        ..step
    }
}

fn diamond() -> Shape {
    Shape {
        name: "diamond",
        kind: deploy(),
        steps: vec![
            step(0, &[], snapshot("ctl1")),
            step(1, &[0], on("ctl1", "do a")),
            step(2, &[0], on("ctl2", "do b")),
            once(step(3, &[1, 2], on("ctl3", "do c"))),
        ],
        scripts: vec![],
        cancel_after: None,
        effects: &["a", "b", "c"],
        result: JobResult::Succeeded,
    }
}

fn waits_and_checks() -> Shape {
    let settled = CheckMode::Settled {
        settle: Secs(20),
        deadline: Secs(60),
    };
    let guarded = Step {
        guards: vec![condition("done:a")],
        unless: Some(condition("done:b")),
        ..step(3, &[2], on("ctl2", "do b"))
    };
    Shape {
        name: "waits and checks",
        kind: heal(),
        steps: vec![
            step(0, &[], on("ctl1", "do a")),
            step(1, &[0], wait(30)),
            step(
                2,
                &[1],
                check(
                    "after:40",
                    CheckMode::Within {
                        deadline: Secs(600),
                    },
                ),
            ),
            guarded,
            step(4, &[3], check("done:b", settled)),
        ],
        scripts: vec![],
        cancel_after: None,
        effects: &["a", "b"],
        result: JobResult::Succeeded,
    }
}

/// The second step fails half-way: both are taken back, in reverse.
fn repair_undone() -> Shape {
    Shape {
        name: "repair undone",
        kind: heal(),
        steps: vec![
            undone_by("ctl1", "undo a", once(step(0, &[], on("ctl1", "do a")))),
            undone_by("ctl2", "undo b", step(1, &[0], on("ctl2", "do b"))),
            step(2, &[1], on("ctl3", "do c")),
        ],
        scripts: vec![("do b", vec![Deed::failed_half_way()])],
        cancel_after: None,
        effects: &[],
        result: failed(),
    }
}

/// What needs the failed step stays away, the rest goes on, only the failed step is taken back.
fn deploy_with_a_failed_branch() -> Shape {
    Shape {
        name: "deploy with a failed branch",
        kind: deploy(),
        steps: vec![
            undone_by("ctl1", "undo a", step(0, &[], on("ctl1", "do a"))),
            undone_by("ctl2", "undo b", step(1, &[0], on("ctl2", "do b"))),
            step(2, &[1], on("ctl2", "do c")),
            step(3, &[0], on("ctl3", "do d")),
            step(4, &[3], on("ctl3", "do e")),
        ],
        scripts: vec![("do b", vec![Deed::failed_half_way()])],
        cancel_after: None,
        effects: &["a", "d", "e"],
        result: failed(),
    }
}

fn lost_and_found() -> Shape {
    let lost_once = Step {
        unless: Some(condition("done:b")),
        ..once(step(1, &[0], on("ctl2", "do b")))
    };
    Shape {
        name: "lost and found",
        kind: deploy(),
        steps: vec![
            step(0, &[], on("ctl1", "do a")),
            lost_once,
            step(2, &[1], on("ctl3", "do c")),
        ],
        scripts: vec![
            (
                "do a",
                vec![Deed::lost(false), Deed::lost(false), Deed::done(1)],
            ),
            ("do b", vec![Deed::lost(true)]),
        ],
        cancel_after: None,
        effects: &["a", "b", "c"],
        result: JobResult::Succeeded,
    }
}

fn lost_for_good() -> Shape {
    Shape {
        name: "lost for good",
        kind: deploy(),
        steps: vec![
            once(step(0, &[], on("ctl1", "do a"))),
            step(1, &[0], on("ctl2", "do b")),
        ],
        scripts: vec![("do a", vec![Deed::lost(true)])],
        cancel_after: None,
        effects: &["a"],
        result: failed(),
    }
}

/// The running step finishes, the long wait ends at once, the rest is not started, what was done is taken back.
fn repair_cancelled() -> Shape {
    Shape {
        name: "repair cancelled",
        kind: heal(),
        steps: vec![
            undone_by("ctl1", "undo a", step(0, &[], on("ctl1", "do a"))),
            undone_by("ctl2", "undo b", step(1, &[0], on("ctl2", "do b"))),
            step(2, &[0], wait(30_000)),
            step(3, &[1, 2], on("ctl3", "do c")),
        ],
        scripts: vec![("do b", vec![Deed::done(30)])],
        cancel_after: Some(5),
        effects: &[],
        result: cancelled(),
    }
}

fn shapes() -> Vec<Shape> {
    vec![
        diamond(),
        waits_and_checks(),
        repair_undone(),
        deploy_with_a_failed_branch(),
        lost_and_found(),
        lost_for_good(),
        repair_cancelled(),
    ]
}

impl Shape {
    fn stage(&self) -> Stage {
        let stage = Stage::new(self.kind.clone(), self.steps.clone());
        for (command, deeds) in &self.scripts {
            stage.world.script(command, deeds.clone());
        }
        stage
    }

    /// One life of a bot. `None`: it was killed.
    fn live(&self, stage: &Stage, killer: &Arc<Killer>) -> Option<JobResult> {
        let runner = stage.runner(killer);
        let canceller = async {
            if let Some(seconds) = self.cancel_after {
                stage
                    .clock
                    .sleep(std::time::Duration::from_secs(seconds))
                    .await;
                // It may have ended just now, or be cancelled already.
                let _ = runner.cancel(&stage.job, "alice").await;
            }
            std::future::pending::<()>().await;
        };
        let life = async {
            tokio::select! {
                biased;
                result = runner.run(&stage.job) => {
                    result.unwrap_or_else(|error| panic!("{}: {error}", self.name))
                }
                () = canceller => unreachable!("it waits for ever"),
            }
        };
        stage.clock.block_on(killer.mortal(life))
    }

    /// Lives that end at the given points, then one that does not. Returns the points of each life.
    fn live_through(&self, kills: &[u32], downtime: i64) -> Vec<u32> {
        let stage = self.stage();
        let mut points = Vec::new();
        for &kill in kills {
            let killer = stage.killer(Some(kill));
            let ended = self.live(&stage, &killer);
            points.push(killer.passed());
            if ended.is_none() {
                stage.clock.skip(downtime);
            }
        }
        let killer = stage.killer(None);
        let result = self
            .live(&stage, &killer)
            .expect("nobody kills the last one");
        points.push(killer.passed());
        self.check(
            &stage,
            &result,
            &format!("{}, killed at {kills:?}", self.name),
        );
        points
    }

    fn check(&self, stage: &Stage, result: &JobResult, case: &str) {
        assert_eq!(
            discriminant(result),
            discriminant(&self.result),
            "{case}: {result:?}"
        );
        assert_eq!(stage.world.effects(), self.effects, "{case}");
        for (command, times) in stage.world.executed() {
            let scripted = self.scripts.iter().find(|(name, _)| *name == command);
            let expected = scripted.map_or(1, |(_, deeds)| deeds.len() as u32);
            assert_eq!(times, expected, "{case}: {command}");
        }
        // The journal is whole, and the site is free for the next job.
        assert!(stage.state().result().is_some(), "{case}");
        let scope = stage.state().job().unwrap().scope.clone();
        let other = JobId("other".into());
        let now = stage.clock.now();
        let free = stage.journal.acquire(&scope, "bot2", &other, now);
        stage
            .clock
            .block_on(free)
            .unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

#[test]
fn a_killed_bot_resumes_at_every_point() {
    for shape in shapes() {
        let points = shape.live_through(&[], 0)[0];
        assert!(points >= 15, "{}: only {points} points", shape.name);
        for kill in 1..=points {
            for downtime in [0, 7, 3_600] {
                shape.live_through(&[kill], downtime);
            }
        }
    }
}

#[test]
fn a_bot_that_is_killed_again_while_it_recovers_resumes_too() {
    for shape in shapes() {
        let points = shape.live_through(&[], 0)[0];
        for first in 1..=points {
            let second_life = shape.live_through(&[first], 1)[1];
            for second in 1..=second_life {
                shape.live_through(&[first, second], 1);
            }
        }
    }
}
