//! Several bots on one PostgreSQL, in this process: one leads, another takes over, nothing is done twice. Hosts are such as
//! remember what they started and refuse an older token.
//! Needs root on Debian to install PostgreSQL, and fails without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

mod bots;

use std::time::{Duration, Instant};

use bot::{
    replicas::{DEAD_AFTER, Standing},
    wording::{Message, Severity},
};
use bots::{Bench, InProcess, Way, parcels, post_webhook};
use deploy_engine::job::{JobEvent, JobId, JobResult, Journal, JournalError, LeaseError};
use jiff::Timestamp;

/// Take-overs that are measured.
const RUNS: usize = 10;
/// What a take-over may take.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// Anything else that a test waits for; far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    lab::wait::until(what, LIMIT, look).unwrap()
}

#[test]
fn a_killed_leader_is_replaced_within_ten_seconds_and_nothing_is_done_twice() {
    let bench = Bench::new();
    let mut times = Vec::new();
    for run in 0..RUNS {
        let (world, database) = bench.fresh();
        let one = InProcess::start(&bench, &database, &world, Way::Straight);
        one.until_leading();
        let two = InProcess::start(&bench, &database, &world, Way::Straight);
        let job = one.start_job();
        until("the first step to run", || world.runs("slow"));
        let first = world.newest_token();
        assert!(!two.lead().leads());
        assert!(!world.asked("h1"), "a new job goes straight on");
        // At any point of a beat.
        std::thread::sleep(Duration::from_millis(97 * run as u64));

        let killed = Instant::now();
        one.kill();
        until("another bot at the host", || world.contact_after(first));
        let took = world.first_contact(first).duration_since(killed);
        times.push(took);
        assert_eq!(world.executed("slow"), 1, "it was attached to");
        assert!(world.asked("h1"), "reached before the job was taken up");

        world.release();
        assert_eq!(two.until_finished(&job), JobResult::Succeeded);
        let counts = (world.executed("slow"), world.executed("fast"));
        assert_eq!(counts, (1, 1), "run {run}");
        let Standing::Leads { from, .. } = two.lead().state().standing else {
            panic!("it leads")
        };
        assert!(from.is_some(), "it knows whom it replaced");
        two.kill();
    }
    times.sort();
    let shown: Vec<String> = times
        .iter()
        .map(|time| format!("{:.2}", time.as_secs_f64()))
        .collect();
    println!(
        "kill -> another bot at the running step, s: {}",
        shown.join(" ")
    );
    assert!(times.iter().all(|time| *time <= TAKE_OVER), "{shown:?}");
}

#[test]
fn a_bot_that_leaves_is_replaced_at_once() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let two = InProcess::start(&bench, &database, &world, Way::Straight);
    let job = one.start_job();
    until("the first step to run", || world.runs("slow"));
    let first = world.newest_token();
    let left = Instant::now();
    one.leave();
    until("another bot at the host", || world.contact_after(first));
    let took = left.elapsed();
    println!(
        "leave -> another bot at the running step: {:.2} s",
        took.as_secs_f64()
    );
    assert!(
        took < DEAD_AFTER,
        "nobody had to wait until it was taken for dead: {took:?}"
    );
    world.release();
    assert_eq!(two.until_finished(&job), JobResult::Succeeded);
    assert_eq!((world.executed("slow"), world.executed("fast")), (1, 1));
}

#[test]
fn a_leader_that_is_cut_off_begins_nothing_and_is_refused_afterwards() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Wire);
    one.until_leading();
    let two = InProcess::start(&bench, &database, &world, Way::Straight);
    let job = one.start_job();
    until("the first step to run", || world.runs("slow"));
    let (old, length) = (one.lease(&job), one.length(&job));

    // Its network to the store is gone, the one to the hosts is not.
    one.wire().cut(true);
    until("it to notice", || match one.lead().may_act() {
        Err(_) => Ok(()),
        Ok(()) => Err("it thinks that it leads".to_owned()),
    });
    assert!(!two.lead().leads(), "it stopped before another one began");
    until("another bot at the host", || world.contact_after(old.token));
    two.until_leading();
    // It wants to go on: the host has seen a newer token.
    let refused = world.try_as(&old);
    assert!(matches!(refused, deploy_engine::wire::Outcome::Fenced { seen } if seen > old.token));

    one.wire().cut(false);
    let why = one.until_over();
    assert!(why.contains("another bot leads"), "{why}");
    // And so has the store.
    let finished = JobEvent::Finished {
        result: JobResult::Succeeded,
    };
    let now = Timestamp::now();
    let late = one.on(one.store.append(&job, length, now, &finished));
    assert!(
        matches!(late, Err(JournalError::Conflict { .. })),
        "{late:?}"
    );
    let lost = one.on(one.store.renew(&old, now));
    assert!(matches!(lost, Err(LeaseError::Lost { .. })), "{lost:?}");

    world.release();
    assert_eq!(two.until_finished(&job), JobResult::Succeeded);
    assert_eq!((world.executed("slow"), world.executed("fast")), (1, 1));
}

#[test]
fn without_the_store_nothing_is_begun_words_wait_and_all_goes_on_when_it_is_back() {
    let mut bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let job = one.start_job();
    until("the first step to run", || world.runs("slow"));

    bench.postgres.kill();
    until("it to notice", || match one.lead().may_act() {
        Err(_) => Ok(()),
        Ok(()) => Err("it thinks that it leads".to_owned()),
    });
    until("it to know since when", || {
        one.lead().state().away.ok_or("it does not".to_owned())
    });
    // Words wait, bounded; the newest of each message win.
    for text in ["first", "second"] {
        one.say("incident:i1", text).unwrap();
    }
    // One of the thousand is the one above.
    for said in one.say_all((0..999).map(|number| format!("incident:many{number}"))) {
        said.unwrap();
    }
    assert!(one.say("incident:toomany", "words").is_err());
    one.say("incident:i1", "third").unwrap();
    // And one thing is said past the store.
    let away = Message::new(Severity::Bad, "The store is away");
    one.on(one.office.announce(&one.rooms(), &away));
    assert_eq!(one.paper.titles(), ["The store is away"]);
    // The step ends meanwhile; the next is not begun.
    world.release();
    let refused = one.try_start_job();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(world.executed("fast"), 0);

    bench.postgres.resume().unwrap();
    let why = one.until_over();
    assert!(why.contains("the store was away"), "{why}");
    one.on(one.office.catch_up()).unwrap();
    assert_eq!(one.wanted("incident:i1").as_deref(), Some("third"));
    // It has begun anew, as after a crash: the job goes on where it stands.
    assert_eq!(one.until_finished(&job), JobResult::Succeeded);
    assert_eq!((world.executed("slow"), world.executed("fast")), (1, 1));
}

#[test]
fn a_webhook_to_a_bot_that_stands_by_reaches_the_one_that_leads() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let two = InProcess::start(&bench, &database, &world, Way::Straight);
    for _ in 0..2 {
        assert_eq!(two.on(post_webhook(&two.store)), 200);
    }
    let alerts = until("the parcels", || {
        let parcels = one.on(one.store.inbox(10)).unwrap();
        match parcels.len() {
            2 => Ok(parcels),
            found => Err(format!("{found}")),
        }
    });
    let changes: Vec<String> = parcels(&alerts)
        .iter()
        .map(|(alert, change)| format!("{} {change:?}", alert.name))
        .collect();
    assert_eq!(changes, ["Watchdog New", "Watchdog Repeat"]);
}

#[test]
fn a_job_that_nobody_knows_has_no_driver() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    let unknown = one.on(one.store.driver(&JobId("none".into())));
    assert_eq!(unknown.unwrap(), None);
}

#[test]
fn a_last_word_of_a_bot_that_was_replaced_does_not_end_a_job() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let job = one.start_job();
    until("the first step to run", || world.runs("slow"));
    // It was on its way while the bot that leads read the journal.
    let word = JobEvent::Held {
        until: None,
        why: "this bot stands by".into(),
    };
    let (length, now) = (one.length(&job), Timestamp::now());
    one.on(one.store.append(&job, length, now, &word)).unwrap();
    world.release();
    assert_eq!(one.until_finished(&job), JobResult::Succeeded);
    assert_eq!((world.executed("slow"), world.executed("fast")), (1, 1));
    assert_eq!(one.over(), Vec::<String>::new());
}
