//! A job over many hosts, shared out over two bots.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    time::{Duration, Instant},
};

use deploy_engine::job::{JobEvent, JobId, JobResult, JobState, Journal, Step, share_out};

use super::{Bench, InProcess, Way, World, life::MODEL, loopback::Loopback, step};

const HOSTS: usize = 300;
/// Sixteen hosts at the most in each.
const BATCHES: usize = 19;
/// What one bot drives at once.
const AT_ONCE: usize = bot::replicas::BATCHES_AT_ONCE;
/// Hundreds of logins on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    lab::wait::until(what, LIMIT, look).unwrap()
}

fn host(number: usize) -> String {
    format!("h{number:03}")
}

/// One batch, as the store has it.
#[derive(Debug)]
struct Batch {
    id: JobId,
    /// Empty: it waits.
    driver: String,
    /// Who drove it, one after another, each with its token.
    leases: Vec<(String, u64)>,
    result: Option<JobResult>,
}

impl Batch {
    /// Who drove it, one after another; a bot that took it up again after a moment without the store counts once.
    fn drivers(&self) -> Vec<&str> {
        let mut drivers: Vec<&str> = self.leases.iter().map(|(bot, _)| &**bot).collect();
        drivers.dedup();
        drivers
    }

    /// In its job, from 0.
    fn number(&self) -> usize {
        let (_, number) = self.id.0.rsplit_once('x').unwrap();
        number.parse().unwrap()
    }
}

impl InProcess {
    /// A job over many hosts, as a deploy makes it.
    fn start_shared(&self, steps: Vec<Step>) -> JobId {
        self.start_steps(share_out(steps, MODEL)).unwrap()
    }

    /// The batches of a job, in their order.
    fn batches(&self, job: &JobId) -> Vec<Batch> {
        let load = async {
            let mut batches = Vec::new();
            for (id, driver) in self.store.batches_of(job).await.unwrap() {
                let events = self.store.load(&id).await.unwrap();
                let leases = events.iter().filter_map(|(_, event)| match event {
                    JobEvent::Leased { holder, token } => Some((holder.clone(), *token)),
                    _ => None,
                });
                batches.push(Batch {
                    leases: leases.collect(),
                    result: JobState::fold(&events).unwrap().result().cloned(),
                    driver,
                    id,
                });
            }
            batches
        };
        self.on(load)
    }
}

/// The batch that a host is in, and whether it is the first of its batch.
fn place(number: usize) -> (usize, bool) {
    let batch = |number: usize| number * BATCHES / HOSTS;
    (
        batch(number),
        number == 0 || batch(number - 1) != batch(number),
    )
}

/// Two steps on each host, the second of which takes as long as the test wants on the first host of each batch.
fn on_paper() -> Vec<Step> {
    let steps = (0..HOSTS).flat_map(|number| {
        let (host, id) = (host(number), 2 * u32::try_from(number).unwrap());
        let second = match place(number).1 {
            true => format!("slow-{host}"),
            false => format!("second-{host}"),
        };
        [
            step(id, &host, &[&format!("first-{host}")], &[]),
            step(id + 1, &host, &[&second], &[id]),
        ]
    });
    steps.collect()
}

fn of<'a>(batches: &'a [Batch], bot: &InProcess) -> Vec<&'a Batch> {
    let driver = bot.store.replica();
    batches
        .iter()
        .filter(|batch| batch.driver == driver)
        .collect()
}

/// Waits until both bots have their hands full, and each of their batches is where the test holds it.
fn until_both_are_busy(one: &InProcess, two: &InProcess, job: &JobId, world: &World) {
    until("both bots to be busy", || {
        let batches = one.batches(job);
        let busy = (of(&batches, one).len(), of(&batches, two).len());
        let held = world.all_executed("slow").len();
        match (busy, held) == ((AT_ONCE, AT_ONCE), 2 * AT_ONCE) {
            true => Ok(()),
            false => Err(format!("{busy:?} batches, {held} held")),
        }
    });
}

fn finished(bot: &InProcess, job: &JobId) -> JobResult {
    until("the end of the job", || {
        let job = bot.on(bot.store.job(job)).map_err(|e| e.to_string())?;
        job.and_then(|job| job.result).ok_or("it runs".to_owned())
    })
}

/// Each batch was driven by one bot, or first by the killed one and then by the other, each time with a newer token. How many were
/// taken over.
fn check_leases(batches: &[Batch], killed: &str) -> usize {
    let mut taken_over = 0;
    for batch in batches {
        let newer = batch.leases.windows(2).all(|two| two[0].1 < two[1].1);
        assert!(newer, "{batch:?}");
        match &batch.drivers()[..] {
            [_] => {}
            [first, second] => {
                assert_eq!(*first, killed, "{batch:?}");
                assert_ne!(*second, killed, "{batch:?}");
                taken_over += 1;
            }
            other => panic!("{}: {other:?}", batch.id),
        }
        assert_eq!(batch.result, Some(JobResult::Succeeded), "{batch:?}");
    }
    taken_over
}

#[test]
fn when_the_leader_dies_with_batches_in_hand_nothing_is_lost_and_nothing_repeated() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let two = InProcess::start(&bench, &database, &world, Way::Straight);
    let job = one.start_shared(on_paper());
    until_both_are_busy(&one, &two, &job, &world);

    let killed = one.store.replica().to_owned();
    one.kill();
    until("its batches to wait for another bot", || {
        let left = two.batches(&job);
        match left.iter().filter(|batch| batch.driver == killed).count() {
            0 => Ok(()),
            left => Err(format!("{left} are its own")),
        }
    });
    world.release();
    assert_eq!(finished(&two, &job), JobResult::Succeeded);
    let batches = two.batches(&job);
    assert_eq!(batches.len(), BATCHES);
    assert_eq!(check_leases(&batches, &killed), AT_ONCE);
    let executed = world.all_executed("");
    assert_eq!(executed.len(), 2 * HOSTS);
    let repeated: Vec<_> = executed.iter().filter(|(_, times)| **times != 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}

#[test]
fn a_cancel_of_the_job_ends_its_batches_on_every_bot() {
    let bench = Bench::new();
    let (world, database) = bench.fresh();
    let one = InProcess::start(&bench, &database, &world, Way::Straight);
    one.until_leading();
    let two = InProcess::start(&bench, &database, &world, Way::Straight);
    let mut steps = on_paper();
    // Something that must not begin any more.
    let last = u32::try_from(steps.len()).unwrap();
    steps.push(step(last, &host(0), &["never"], &[1]));
    let job = one.start_shared(steps);
    until_both_are_busy(&one, &two, &job, &world);

    one.cancel(&job);
    until("every bot to know", || {
        let told = |bot: &InProcess| {
            let own = bot.on(bot.store.own_batches()).unwrap();
            own.iter().all(|batch| bot.is_cancelled(&batch.id))
        };
        match (told(&one), told(&two)) {
            (true, true) => Ok(()),
            told => Err(format!("{told:?}")),
        }
    });
    let before = world.all_executed("");
    world.release();
    let result = finished(&one, &job);
    assert_eq!(result, JobResult::Cancelled { by: "alice".into() });
    assert_eq!(world.all_executed(""), before, "nothing else was begun");
    // What was in hand may have begun its last step before; the others never began.
    let batches = one.batches(&job);
    assert!(
        batches.iter().all(|batch| batch.result.is_some()),
        "{batches:?}"
    );
    let cancelled = |batch: &&Batch| matches!(batch.result, Some(JobResult::Cancelled { .. }));
    let cancelled = batches.iter().filter(cancelled).count();
    assert!(cancelled >= BATCHES - 2 * AT_ONCE, "{batches:?}");
}

/// As [`on_paper`], with real programs. What is held waits for the lock of its batch.
fn on_hosts() -> Vec<Step> {
    let write = "echo \"$0\" >> /srv/log";
    let steps = (0..HOSTS).flat_map(|number| {
        let (host, id) = (host(number), 2 * u32::try_from(number).unwrap());
        let (first, second) = (format!("{host} first"), format!("{host} second"));
        let (batch, held) = place(number);
        let lock = format!("/srv/lock{batch}");
        let mut argv = vec!["sh", "-c", write, &second];
        if held {
            argv.splice(0..0, ["flock", "--shared", &lock]);
        }
        [
            step(id, &host, &["sh", "-c", write, &first], &[]),
            step(id + 1, &host, &argv, &[id]),
        ]
    });
    steps.collect()
}

#[test]
fn three_hundred_hosts_behind_one_sshd_are_shared_by_two_bots_one_of_which_is_killed() {
    let bench = Bench::new();
    let (_, database) = bench.fresh();
    let loopback = Loopback::start();
    let mut locks: BTreeMap<usize, File> = BTreeMap::new();
    for batch in 0..BATCHES {
        let file = File::create(loopback.shared(&format!("lock{batch}"))).unwrap();
        file.lock().unwrap();
        locks.insert(batch, file);
    }
    let bot = || {
        let hosts = loopback.hosts((0..HOSTS).map(host));
        InProcess::start_on(&bench, &database, hosts, Way::Straight)
    };
    let one = bot();
    one.until_leading();
    let two = bot();
    let began = Instant::now();
    let job = one.start_shared(on_hosts());

    // Everything of the batches in hand is done but what the test holds.
    let mine = until("both bots to be busy", || {
        let batches = one.batches(&job);
        let numbers = |bot: &InProcess| -> BTreeSet<usize> {
            of(&batches, bot).into_iter().map(Batch::number).collect()
        };
        let (mine, other) = (numbers(&one), numbers(&two));
        let in_hand: BTreeSet<usize> = mine.union(&other).copied().collect();
        let hosts = (0..HOSTS).filter(|host| in_hand.contains(&place(*host).0));
        let (expected, found) = (
            2 * hosts.count() - in_hand.len(),
            loopback.lines("log").len(),
        );
        match (mine.len(), other.len(), found) == (AT_ONCE, AT_ONCE, expected) {
            true => Ok(mine),
            false => Err(format!(
                "{mine:?} and {other:?}, {found} of {expected} steps"
            )),
        }
    });
    println!("half way: {:.1} s", began.elapsed().as_secs_f64());

    let killed = two.store.replica().to_owned();
    let left: BTreeSet<usize> = of(&one.batches(&job), &two)
        .into_iter()
        .map(Batch::number)
        .collect();
    let kill = Instant::now();
    two.kill();
    // The one that is left gets its hands free; what the other one had in hand runs on.
    locks.retain(|batch, _| left.contains(batch));
    assert!(mine.is_disjoint(&left));
    until("the other bot to take over", || {
        let batches = one.batches(&job);
        let over = batches.iter().filter(|batch| {
            left.contains(&batch.number()) && batch.drivers() == [&*killed, one.store.replica()]
        });
        match over.count() {
            count if count == left.len() => Ok(()),
            count => Err(format!("{count} of {}", left.len())),
        }
    });
    println!(
        "taken over: {:.1} s after the kill",
        kill.elapsed().as_secs_f64()
    );
    locks.clear();

    assert_eq!(finished(&one, &job), JobResult::Succeeded);
    println!(
        "all done: {:.1} s; the bot that was left began anew: {:?}",
        began.elapsed().as_secs_f64(),
        one.over()
    );
    let batches = one.batches(&job);
    assert_eq!(check_leases(&batches, &killed), AT_ONCE);
    let expected: Vec<String> = (0..HOSTS)
        .flat_map(|number| ["first", "second"].map(|step| format!("{} {step}", host(number))))
        .collect();
    assert_eq!(loopback.lines("log"), expected, "each step exactly once");
}
