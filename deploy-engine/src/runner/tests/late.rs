//! Orders that arrive late, and words that grew old. Each of these was found by the simulation (`docs/simulation.md`).

use std::{ops::Range, sync::Mutex, time::Duration};

use async_trait::async_trait;

use super::*;
use crate::{
    job::{JournalError, Lease, LeaseError, StepEnd},
    simulation::{clock::after, deed::Deed, facts::What},
    transport::Hosts,
    wire::{Fence, Outcome, StepKey},
};

/// Sends the order of a step again, as a connection does that was stuck.
fn arrives_late(stage: &Stage, host: &str, key: &str, line: &str) -> Outcome {
    let token = stage.state().job().unwrap().lease.as_ref().unwrap().token;
    let scope = stage.state().job().unwrap().scope.clone();
    let (send, _keep) = tokio::sync::mpsc::channel(1);
    let (host, key) = (host.parse().unwrap(), StepKey(key.into()));
    let network = stage.network();
    let fence = Fence { scope, token };
    let start = network.start(&host, key, fence, command(line), Secs(60), send);
    stage.clock.block_on(start).unwrap()
}

/// Runs the job while its host is cut off between these seconds.
fn run_cut_off(stage: &Stage, host: &str, from: u64, to: u64) -> JobResult {
    let runner = stage.immortal();
    let weather = async {
        stage.clock.until(after(from)).await;
        stage.world.cut_off(host, true);
        stage.clock.until(after(to)).await;
        stage.world.cut_off(host, false);
    };
    let run = async { futures::join!(runner.run(&stage.job), weather).0 };
    stage.clock.block_on(run).unwrap()
}

#[test]
fn a_step_that_is_given_up_is_called_off_on_its_host() {
    let guarded = Step {
        guards: vec![condition("flag:0")],
        ..step(0, &[], on("ctl1", "do a"))
    };
    // Forgetting would close the host; the word of the step itself has to be enough.
    let steps = vec![guarded, step(1, &[], wait(100))];
    let stage = Stage::with_flags(deploy(), steps, vec![vec![after(1)]]);
    let runner = stage.immortal();
    stage.world.cut_off("ctl1", true);
    let weather = async {
        stage.clock.until(after(5)).await;
        stage.world.cut_off("ctl1", false);
        stage.clock.until(after(50)).await;
    };
    let run = async {
        tokio::select! {
            result = runner.run(&stage.job) => panic!("expected it to wait, found {result:?}"),
            () = weather => {}
        }
    };
    stage.clock.block_on(run);
    let state = stage.state();
    let end = state.job().unwrap().runs[0].end();
    assert!(matches!(end, Some(StepEnd::Refused { .. })), "{end:?}");
    let late = arrives_late(&stage, "ctl1", "j1.0.1", "do a");
    assert_eq!(late, Outcome::CalledOff);
    assert_eq!(stage.world.times("do a"), 0);
}

#[test]
fn a_lost_attempt_is_over_before_the_next_one_begins() {
    let stage = Stage::new(
        deploy(),
        vec![Step {
            timeout: Secs(600),
            ..step(0, &[], on("ctl1", "do a"))
        }],
    );
    stage.world.script("do a", vec![Deed::done(500)]);
    // Out of reach for longer than the transport and the runner are patient, and back while the work goes on.
    assert_eq!(run_cut_off(&stage, "ctl1", 1, 100), JobResult::Succeeded);
    assert_eq!(stage.world.times("do a"), 2);
    let ends: Vec<_> = stage
        .events()
        .into_iter()
        .filter_map(|(_, event)| match event {
            JobEvent::StepEnded { end, .. } => Some(end),
            _ => None,
        })
        .collect();
    assert!(
        matches!(ends[..], [StepEnd::Lost { .. }, StepEnd::Done { .. }]),
        "{ends:?}"
    );
    assert!(
        stage.clock.now() < after(200),
        "the first one was not waited for"
    );
}

#[test]
fn a_lost_attempt_that_cannot_be_called_off_keeps_back_the_next_one_and_the_undo() {
    let lost = Step {
        undo: Some(on("ctl1", "undo a")),
        timeout: Secs(600),
        ..step(0, &[], on("ctl1", "do a"))
    };
    let stage = Stage::new(heal(), vec![lost]);
    stage.world.script("do a", vec![Deed::done(500)]);
    let result = run_cut_off(&stage, "ctl1", 1, 400);
    let JobResult::Failed { why } = &result else {
        panic!("{result:?}")
    };
    assert!(
        why.contains("could not be undone: an earlier attempt may not be over"),
        "{why}"
    );
    let executed = stage.world.executed();
    assert_eq!(executed, [("do a".to_owned(), 1)].into());
}

#[test]
fn an_order_that_arrives_after_the_end_finds_a_closed_host() {
    let stage = Stage::new(deploy(), vec![step(0, &[], on("ctl1", "do a"))]);
    assert_eq!(stage.run().unwrap(), JobResult::Succeeded);
    let late = arrives_late(&stage, "ctl1", "j1.0.1", "do a");
    assert!(matches!(late, Outcome::Fenced { .. }), "{late:?}");
    assert_eq!(stage.world.times("do a"), 1);
}

/// A disk that takes its time for the start of one step, or is full for a while.
struct BadDisk {
    journal: Arc<MemoryJournal>,
    clock: Arc<VirtualClock>,
    slow: Mutex<Option<(StepId, Duration)>>,
    /// Seconds from the start.
    full: Range<u64>,
}

#[async_trait]
impl Journal for BadDisk {
    async fn create(&self, job: &JobId, at: Timestamp, e: &JobEvent) -> Result<(), JournalError> {
        self.journal.create(job, at, e).await
    }

    async fn append(
        &self,
        job: &JobId,
        length: u64,
        at: Timestamp,
        event: &JobEvent,
    ) -> Result<(), JournalError> {
        let slow = match event {
            JobEvent::StepStarted { step, .. } => {
                let mut slow = self.slow.lock().unwrap();
                slow.take_if(|(slow, _)| slow == step)
            }
            _ => None,
        };
        if let Some((_, length)) = slow {
            self.clock.pause(length).await;
        }
        if (after(self.full.start)..after(self.full.end)).contains(&self.clock.now()) {
            return Err(JournalError::Storage("no space left on device".into()));
        }
        self.journal.append(job, length, at, event).await
    }

    async fn load(&self, job: &JobId) -> Result<Vec<(Timestamp, JobEvent)>, JournalError> {
        self.journal.load(job).await
    }

    async fn unfinished(&self) -> Result<Vec<JobId>, JournalError> {
        self.journal.unfinished().await
    }

    async fn acquire(
        &self,
        scope: &str,
        holder: &str,
        job: &JobId,
        now: Timestamp,
    ) -> Result<Lease, LeaseError> {
        self.journal.acquire(scope, holder, job, now).await
    }

    async fn renew(&self, lease: &Lease, now: Timestamp) -> Result<(), LeaseError> {
        self.journal.renew(lease, now).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.journal.release(lease).await
    }
}

/// The guard holds when it is judged, and no longer when a slow disk has written the start of `slow`.
fn guarded_over_a_slow_disk(slow: u32) -> Stage {
    let guarded = |id: u32| Step {
        guards: vec![condition("flag:0")],
        ..step(id, &[], on("ctl1", &format!("do s{id}")))
    };
    let other = step(1, &[], on("ctl2", "do s1"));
    let stage = Stage::with_flags(deploy(), vec![guarded(0), other], vec![vec![after(5)]]);
    let slow = Some((StepId(slow), Duration::from_secs(40)));
    let runner = on_a_bad_disk(&stage, slow, 0..0);
    stage.clock.block_on(runner.run(&stage.job)).unwrap();
    stage
}

fn on_a_bad_disk(stage: &Stage, slow: Option<(StepId, Duration)>, full: Range<u64>) -> Runner {
    let journal = BadDisk {
        journal: stage.journal.clone(),
        clock: stage.clock.clone(),
        slow: Mutex::new(slow),
        full,
    };
    let network = stage.network();
    Runner::new(Context {
        journal: Arc::new(journal),
        hosts: network.clone(),
        evidence: network,
        gate: stage.gate.clone(),
        observer: Arc::new(NoObserver),
        clock: stage.clock.clone(),
        holder: "bot1".into(),
    })
}

#[test]
fn a_guard_is_judged_again_after_a_slow_write() {
    let stage = guarded_over_a_slow_disk(0);
    assert_eq!(stage.world.times("do s0"), 0);
    assert_eq!(stage.world.times("do s1"), 1);
}

#[test]
fn a_slow_write_for_one_step_does_not_hold_up_another() {
    let stage = guarded_over_a_slow_disk(1);
    let world = stage.world.now();
    let sent = world.facts.iter().find_map(|fact| match &fact.what {
        What::Started { key, sent_at, .. } if key.0 == "j1.0.1" => Some(*sent_at),
        _ => None,
    });
    assert!(sent.is_some_and(|sent| sent < after(5)), "{sent:?}");
}

#[test]
fn a_job_goes_on_when_its_store_can_be_used_again() {
    let steps = vec![
        step(0, &[], on("ctl1", "do a")),
        step(1, &[0], on("ctl1", "do b")),
    ];
    let stage = Stage::new(deploy(), steps);
    stage.world.script("do a", vec![Deed::done(10)]);
    // Full while the first step runs, and for long after its end.
    let runner = on_a_bad_disk(&stage, None, 5..120);
    let once = stage.clock.block_on(runner.run(&stage.job)).unwrap_err();
    assert!(once.is_passing(), "{once}");
    assert_eq!(stage.world.times("do b"), 0);
    let result = stage.clock.block_on(runner.run_on(&stage.job)).unwrap();
    assert_eq!(result, JobResult::Succeeded);
    assert!(stage.clock.now() < after(130));
    assert_eq!(
        (stage.world.times("do a"), stage.world.times("do b")),
        (1, 1)
    );
}
