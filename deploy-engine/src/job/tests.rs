//! The state machine: every pair of state and event is decided, and every graph of needs comes to its end in order.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::model::Secs;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn wait_step(id: u32, needs: &[u32]) -> Step {
    let action = Action::Wait {
        seconds: Secs(1),
        why: "test".into(),
    };
    Step {
        id: StepId(id),
        title: format!("step {id}"),
        service: None,
        undo: Some(action.clone()),
        action,
        effect: Effect::Converge,
        needs: needs.iter().map(|&need| StepId(need)).collect(),
        timeout: Secs(60),
        guards: vec![],
        unless: None,
    }
}

fn created(heal: bool, steps: Vec<Step>) -> JobEvent {
    let kind = match heal {
        true => JobKind::Heal {
            incident: "i1".into(),
            runbook: "GAL-1".into(),
        },
        false => JobKind::Deploy {
            plan_digest: "d".into(),
        },
    };
    JobEvent::Created {
        kind,
        title: "test".into(),
        requested_by: "alice".into(),
        scope: "site:demo".into(),
        steps,
    }
}

fn leased(token: u64) -> JobEvent {
    JobEvent::Leased {
        holder: "bot1".into(),
        token,
    }
}

fn started(step: u32, attempt: u32) -> JobEvent {
    JobEvent::StepStarted {
        step: StepId(step),
        attempt,
    }
}

fn ended(step: u32, attempt: u32, end: StepEnd) -> JobEvent {
    JobEvent::StepEnded {
        step: StepId(step),
        attempt,
        end,
    }
}

fn done() -> StepEnd {
    StepEnd::Done {
        changed: true,
        detail: String::new(),
    }
}

fn failed() -> StepEnd {
    let what = "exit 1".to_owned();
    StepEnd::Failed { what }
}

fn lost() -> StepEnd {
    let why = "power cut".to_owned();
    StepEnd::Lost { why }
}

fn finished(result: JobResult) -> JobEvent {
    JobEvent::Finished { result }
}

fn fold(events: &[JobEvent]) -> Result<JobState, IllegalEvent> {
    let mut state = JobState::new();
    for (second, event) in (0..).zip(events) {
        state = state.apply(at(second), event)?;
    }
    Ok(state)
}

fn chain() -> JobEvent {
    created(false, vec![wait_step(0, &[]), wait_step(1, &[0])])
}

#[rstest::rstest]
#[case::nothing_before_created(&[leased(1)], Illegal::NotCreated)]
#[case::created_once(&[chain(), chain()], Illegal::CreatedTwice)]
#[case::no_start_without_lease(&[chain(), started(0, 1)], Illegal::NoLease)]
#[case::tokens_grow(&[chain(), leased(5), leased(5)], Illegal::TokenNotGrowing { held: 5, found: 5 })]
#[case::needs_first(&[chain(), leased(1), started(1, 1)], Illegal::NeedNotDone { need: StepId(0) })]
#[case::attempts_count(&[chain(), leased(1), started(0, 2)], Illegal::WrongAttempt { expected: 1, found: 2 })]
#[case::no_such_step(&[chain(), leased(1), started(7, 1)], Illegal::UnknownStep { steps: 2 })]
#[case::started_once(&[chain(), leased(1), started(0, 1), started(0, 1)], Illegal::NotStartable)]
#[case::done_is_done(&[chain(), leased(1), started(0, 1), ended(0, 1, done()), started(0, 2)], Illegal::NotStartable)]
#[case::ends_once(&[chain(), leased(1), started(0, 1), ended(0, 1, failed()), ended(0, 1, done())], Illegal::NotStartable)]
#[case::no_change_without_start(&[chain(), leased(1), ended(0, 1, done())], Illegal::EndedWithoutStart)]
#[case::no_success_before_all(&[chain(), leased(1), finished(JobResult::Succeeded)], Illegal::NotSucceeded { step: StepId(0) })]
#[case::not_while_it_runs(
    &[chain(), leased(1), started(0, 1), finished(JobResult::Cancelled { by: String::new() })],
    Illegal::StillRunning { step: StepId(0) }
)]
#[case::no_start_after_cancel(
    &[chain(), leased(1), JobEvent::CancelRequested { by: "alice".into() }, started(0, 1)],
    Illegal::Stopping("the job is being cancelled")
)]
#[case::no_start_while_held(
    &[chain(), leased(1), JobEvent::Held { until: None, why: "halt".into() }, started(0, 1)],
    Illegal::Stopping("the job is held")
)]
#[case::release_needs_a_hold(&[chain(), JobEvent::HoldReleased], Illegal::NotHeld)]
#[case::nothing_after_the_end(
    &[chain(), finished(JobResult::Refused { why: String::new() }), leased(1)],
    Illegal::AlreadyFinished
)]
#[case::undo_needs_a_reason(
    &[chain(), leased(1), started(0, 1), ended(0, 1, done()), JobEvent::UndoStarted { step: StepId(0), attempt: 1 }],
    Illegal::NotUndoable
)]
#[case::needs_exist(
    &[created(false, vec![wait_step(0, &[4])])],
    Illegal::BadSteps("step 0 needs step 4, which does not exist: there are 1 steps".into())
)]
#[case::needs_do_not_circle(
    &[created(false, vec![wait_step(0, &[1]), wait_step(1, &[0])])],
    Illegal::BadSteps("step 0 (step 0) needs itself through its needs".into())
)]
fn illegal_events_are_errors(#[case] events: &[JobEvent], #[case] expected: Illegal) {
    assert_eq!(fold(events).unwrap_err().why, expected);
}

#[test]
fn an_illegal_event_names_event_and_state() {
    let error = fold(&[chain(), leased(1), started(1, 1)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "StepStarted of step 1 is illegal when the job is running: it needs step 0, which is not done"
    );
}

#[test]
fn a_lost_step_is_tried_again_until_its_limit_a_once_step_never() {
    let mut events = vec![created(false, vec![wait_step(0, &[])]), leased(1)];
    for attempt in 1..=LOST_ATTEMPTS {
        let state = fold(&events).unwrap();
        let step = StepId(0);
        assert_eq!(state.next(at(99)), [Next::Start { step, attempt }]);
        events.extend([started(0, attempt), ended(0, attempt, lost())]);
    }
    let next = fold(&events).unwrap().next(at(99));
    assert!(matches!(next[..], [Next::Undo { .. }]), "{next:?}");

    let once = Step {
        effect: Effect::Once,
        undo: None,
        ..wait_step(0, &[])
    };
    let events = [
        created(false, vec![once]),
        leased(1),
        started(0, 1),
        ended(0, 1, lost()),
    ];
    let next = fold(&events).unwrap().next(at(99));
    assert!(
        matches!(
            next[..],
            [Next::Finish {
                result: JobResult::Failed { .. }
            }]
        ),
        "{next:?}"
    );
}

#[test]
fn what_was_so_already_is_not_undone() {
    let so_already = StepEnd::Done {
        changed: false,
        detail: String::new(),
    };
    let steps = vec![wait_step(0, &[]), wait_step(1, &[]), wait_step(2, &[0, 1])];
    let events = [
        created(true, steps),
        leased(1),
        started(0, 1),
        ended(0, 1, so_already),
        started(1, 1),
        ended(1, 1, done()),
        started(2, 1),
        ended(2, 1, StepEnd::Refused { why: "no".into() }),
    ];
    let mut state = fold(&events).unwrap();
    let mut undone = Vec::new();
    while let [Next::Undo { step, attempt }] = state.next(at(99))[..] {
        undone.push(step.0);
        let end = done();
        state = state
            .apply(at(99), &JobEvent::UndoStarted { step, attempt })
            .unwrap();
        state = state
            .apply(at(99), &JobEvent::UndoEnded { step, attempt, end })
            .unwrap();
    }
    // Step 2 was started, so it may have begun: its undo is re-runnable and runs first.
    assert_eq!(undone, [2, 1]);
}

#[test]
fn a_hold_waits_and_then_asks_again() {
    let until = Some(at(100));
    let why = "settling".to_owned();
    let held = JobEvent::Held { until, why };
    let state = fold(&[chain(), leased(1), held]).unwrap();
    let next = state.next(at(99));
    assert!(
        matches!(&next[..], [Next::Wait { until, .. }] if *until == at(100)),
        "{next:?}"
    );
    let (step, attempt) = (StepId(0), 1);
    assert_eq!(state.next(at(100)), [Next::Start { step, attempt }]);
}

/// A clock that is out of all bounds is no reason to fall over.
#[test]
fn a_hold_at_the_end_of_time_can_be_looked_at() {
    let state = fold(&[chain(), leased(1)]).unwrap();
    let (until, why) = (None, "halt".to_owned());
    let held = state
        .apply(Timestamp::MAX, &JobEvent::Held { until, why })
        .unwrap();
    let next = held.next(at(0));
    assert!(matches!(next[..], [Next::Wait { .. }]), "{next:?}");
}

fn any_end() -> impl Strategy<Value = StepEnd> {
    prop_oneof![
        5 => Just(done()),
        1 => Just(StepEnd::Done { changed: false, detail: String::new() }),
        1 => Just(StepEnd::Refused { why: "no".into() }),
        1 => Just(failed()),
        1 => Just(StepEnd::Drifted { what: "other".into() }),
        1 => Just(lost()),
        1 => Just(StepEnd::Cancelled),
    ]
}

fn any_event() -> impl Strategy<Value = JobEvent> {
    let step = (0..6_u32).prop_map(StepId);
    let attempt = 1..4_u32;
    prop_oneof![
        4 => (0..4_u64).prop_map(leased),
        8 => (step.clone(), attempt.clone()).prop_map(|(step, attempt)| JobEvent::StepStarted { step, attempt }),
        8 => (step.clone(), attempt.clone(), any_end())
            .prop_map(|(step, attempt, end)| JobEvent::StepEnded { step, attempt, end }),
        2 => (step.clone(), attempt.clone()).prop_map(|(step, attempt)| JobEvent::UndoStarted { step, attempt }),
        2 => (step.clone(), attempt, any_end())
            .prop_map(|(step, attempt, end)| JobEvent::UndoEnded { step, attempt, end }),
        1 => step.prop_map(|step| JobEvent::Evidence { step, readings: Default::default() }),
        1 => Just(JobEvent::Held { until: None, why: "halt".into() }),
        1 => Just(JobEvent::HoldReleased),
        1 => Just(JobEvent::CancelRequested { by: "alice".into() }),
        1 => Just(finished(JobResult::Succeeded)),
        1 => Just(finished(JobResult::Refused { why: "no".into() })),
        1 => any_job().prop_map(|(heal, steps)| created(heal, steps)),
    ]
}

/// Steps need earlier ones only; every graph without circles can be numbered so.
fn any_job() -> impl Strategy<Value = (bool, Vec<Step>)> {
    let needs = proptest::collection::vec(
        proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        0..30,
    );
    (any::<bool>(), needs).prop_map(|(heal, needs)| {
        let steps = (0_u32..).zip(needs).map(|(id, needs)| {
            let mut needs: Vec<u32> = match id {
                0 => vec![],
                _ => needs
                    .iter()
                    .map(|need| need.index(id as usize) as u32)
                    .collect(),
            };
            needs.sort_unstable();
            needs.dedup();
            wait_step(id, &needs)
        });
        (heal, steps.collect())
    })
}

/// Drives a job as a runner would, with ends drawn from `ends`, and checks that needs are respected.
fn drive(heal: bool, steps: &[Step], ends: &[StepEnd], cancel_at: Option<usize>) -> JobState {
    let mut state = fold(&[created(heal, steps.to_vec()), leased(1)]).unwrap();
    let mut running: Vec<(StepId, u32, bool)> = Vec::new();
    let mut ends = ends.iter().cycle();
    // Each step is started and ended, and undone, at most three times each.
    let bound = steps.len() * 12 + 10;
    for turn in 0..bound {
        if cancel_at == Some(turn) && state.result().is_none() {
            let by = "alice".to_owned();
            state = state
                .apply(at(9), &JobEvent::CancelRequested { by })
                .unwrap();
        }
        for next in state.next(at(10)) {
            let event = match next {
                Next::Start { step, attempt } => {
                    let job = state.job().unwrap();
                    for need in &job.steps[step.0 as usize].needs {
                        assert!(job.runs[need.0 as usize].is_done());
                    }
                    running.push((step, attempt, false));
                    JobEvent::StepStarted { step, attempt }
                }
                Next::Undo { step, attempt } => {
                    running.push((step, attempt, true));
                    JobEvent::UndoStarted { step, attempt }
                }
                Next::Finish { result } => {
                    assert!(running.is_empty());
                    return state.apply(at(11), &finished(result)).unwrap();
                }
                Next::Continue { step, .. } => {
                    assert!(running.iter().any(|(known, ..)| *known == step));
                    continue;
                }
                Next::Lease | Next::Wait { .. } => panic!("expected neither: {next:?}"),
            };
            state = state.apply(at(10), &event).unwrap();
        }
        // The one that ends is not always the one that started first.
        let (step, attempt, undo) = running.swap_remove(turn % running.len());
        let end = ends.next().cloned().unwrap_or_else(done);
        let event = match undo {
            true => JobEvent::UndoEnded { step, attempt, end },
            false => JobEvent::StepEnded { step, attempt, end },
        };
        state = state.apply(at(10), &event).unwrap();
    }
    panic!("expected the job to end in {bound} turns: {state:?}");
}

proptest! {
    #[test]
    fn no_sequence_of_events_panics(
        (heal, steps) in any_job(),
        events in proptest::collection::vec(any_event(), 0..60),
    ) {
        let mut state = JobState::new().apply(at(0), &created(heal, steps)).unwrap();
        for event in events {
            state.next(at(1));
            let before = state.clone();
            // An illegal event leaves the caller with what it had.
            state = state.apply(at(1), &event).unwrap_or(before);
        }
        state.next(at(1) + SignedDuration::from_hours(1));
    }

    /// What a journal takes can be read back from any of its prefixes, to the state that its writer had then, and from there on to
    /// the end. What it does not take is an error that names the event, and leaves no trace.
    #[test]
    fn every_prefix_of_a_journal_folds_to_the_state_of_its_writer(
        (heal, steps) in any_job(),
        events in proptest::collection::vec(any_event(), 0..80),
    ) {
        let first = (at(0), created(heal, steps));
        let mut states = vec![JobState::fold([&first]).unwrap()];
        let mut journal = vec![first];
        for (second, event) in (1..).zip(events) {
            let entry = (at(second), event);
            let before = states[states.len() - 1].clone();
            match before.apply(entry.0, &entry.1) {
                Ok(after) => {
                    journal.push(entry);
                    states.push(after);
                }
                Err(illegal) => prop_assert!(!illegal.to_string().is_empty()),
            }
        }
        for (length, written) in (1..).zip(&states) {
            let read = JobState::fold(&journal[..length]).unwrap();
            prop_assert_eq!(&read, written);
            prop_assert_eq!(read.length(), length as u64);
            prop_assert_eq!(read.next(at(99)), written.next(at(99)));
            let rest = journal[length..].iter();
            let end = rest.fold(read, |state, (at, event)| state.apply(*at, event).unwrap());
            prop_assert_eq!(&end, &states[states.len() - 1]);
        }
    }

    #[test]
    fn nothing_follows_the_end_of_a_job(
        (heal, steps) in any_job(),
        ends in proptest::collection::vec(any_end(), 1..20),
        cancel_at in proptest::option::of(0..20_usize),
        event in any_event(),
    ) {
        let state = drive(heal, &steps, &ends, cancel_at);
        prop_assert!(state.result().is_some());
        prop_assert_eq!(state.next(at(99)), Vec::new());
        let illegal = state.apply(at(99), &event).unwrap_err();
        prop_assert_eq!(illegal.why, Illegal::AlreadyFinished);
    }

    /// Fencing numbers only grow, and nothing starts before there is one.
    #[test]
    fn tokens_only_grow_and_come_before_the_first_start(
        (heal, steps) in any_job(),
        events in proptest::collection::vec(any_event(), 0..80),
    ) {
        let mut state = JobState::new().apply(at(0), &created(heal, steps)).unwrap();
        let mut highest = None;
        for event in events {
            let before = state.clone();
            let Ok(after) = state.apply(at(1), &event) else {
                state = before;
                continue;
            };
            match event {
                JobEvent::Leased { token, .. } => {
                    prop_assert!(highest.is_none_or(|highest| token > highest));
                    highest = Some(token);
                }
                JobEvent::StepStarted { .. } | JobEvent::UndoStarted { .. } => {
                    prop_assert!(highest.is_some());
                }
                _ => {}
            }
            state = after;
        }
    }

    #[test]
    fn every_graph_of_needs_comes_to_its_end_in_order((heal, steps) in any_job()) {
        let state = drive(heal, &steps, &[done()], None);
        prop_assert_eq!(state.result(), Some(&JobResult::Succeeded));
    }

    #[test]
    fn whatever_fails_the_job_ends_and_a_deploy_does_all_that_needs_no_failed_step(
        (heal, steps) in any_job(),
        ends in proptest::collection::vec(any_end(), 1..20),
        cancel_at in proptest::option::of(0..20_usize),
    ) {
        let state = drive(heal, &steps, &ends, cancel_at);
        let job = state.job().unwrap();
        let all_done = job.runs.iter().all(|run| run.is_done());
        prop_assert_eq!(state.result() == Some(&JobResult::Succeeded), all_done);
        if !heal && job.cancelled_by.is_none() {
            for (run, blocked) in job.runs.iter().zip(job.blocked()) {
                prop_assert_eq!(run.end().is_none(), blocked);
            }
        }
    }

    #[test]
    fn a_job_reads_back_from_its_own_json((heal, steps) in any_job(), event in any_event()) {
        for event in [created(heal, steps), event] {
            let text = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<JobEvent>(&text).unwrap(), event);
        }
    }
}
