//! Kills at random moments of a deploy and of a heal: the bot, the agent on a host, the bot's SSH sessions, a whole host. What was
//! going on resumes or is mended by saying it again; nothing is repeated and nothing is lost. Needs root on Debian and fails without it.
//!
//! What happened on the hosts is counted by the hosts themselves: every start of a watched unit adds its boot to a file.
//! `NIGHTSHIFT_KILLS=60,45` asks for more kills (of deploys, of heals) than a usual run makes.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::scenario::{Bot, Changes, Installation, Program, install, rewrite_site, with_packages};
use lab::{Fault, Lab, Mend, Progress, in_layered_lab, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Runs in which something is killed during a deploy, and during a heal.
const KILLS: (u32, u32) = (10, 6);
const KILLS_VARIABLE: &str = "NIGHTSHIFT_KILLS";
/// One run after a kill: what is left of the work, and what the alerting chain needs.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Counts starts, before the unit's own program and whatever becomes of it.
const COUNT: &str = "[Service]\nExecStartPre=+/bin/sh -c \"cat /proc/sys/kernel/random/boot_id >> /var/lib/count-%p\"\n";

fn kills() -> (u32, u32) {
    let Ok(text) = std::env::var(KILLS_VARIABLE) else {
        return KILLS;
    };
    let (deploys, heals) = text
        .split_once(',')
        .expect("NIGHTSHIFT_KILLS=DEPLOYS,HEALS");
    (deploys.parse().unwrap(), heals.parse().unwrap())
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    /// `kill -9`, then a new one is started.
    Bot,
    /// All processes of the agent on a host, those that do a step included.
    Agent,
    /// The SSH connections of the bot.
    Sessions,
    /// A host loses its power, and comes back.
    Power,
}

/// One kill, for the table at the end.
struct Killed {
    victim: Victim,
    host: String,
    after: Duration,
    /// A job was running.
    met: bool,
    end: String,
}

fn print(title: &str, kills: &[Killed]) {
    println!(
        "{title}: {} kills, {} met a running job",
        kills.len(),
        kills.iter().filter(|one| one.met).count()
    );
    println!(
        "{:>4}  {:<9} {:<5} {:>9}  {:<4}  end",
        "run", "killed", "host", "after ms", "met"
    );
    for (run, one) in kills.iter().enumerate() {
        let (victim, met) = (
            format!("{:?}", one.victim),
            if one.met { "yes" } else { "no" },
        );
        println!(
            "{run:>4}  {victim:<9} {:<5} {:>9}  {met:<4}  {}",
            one.host,
            one.after.as_millis(),
            one.end
        );
    }
}

/// Kills; gives the bot that is there afterwards.
fn strike(installation: &Installation, bot: Bot, victim: Victim, host: &str) -> Bot {
    let lab = installation.lab();
    match victim {
        Victim::Bot => {
            bot.kill().unwrap();
            Bot::start(installation).unwrap()
        }
        Victim::Agent => {
            // Exits with 1 when there is none, which is a kill that met nothing.
            let pattern = "[n]ightshift-agent.* (serve|work)";
            lab.ssh(host, &["pkill", "-KILL", "-f", pattern]).unwrap();
            bot
        }
        Victim::Sessions => {
            bot.kill_sessions().unwrap();
            bot
        }
        Victim::Power => {
            lab.fault(&format!("power-cut {host}").parse::<Fault>().unwrap())
                .unwrap();
            lab.mend(&Mend::All).unwrap();
            bot
        }
    }
}

fn count_starts(lab: &Lab, unit: &str) {
    for host in lab.hosts().unwrap() {
        let host = host.name();
        let folder = format!("/etc/systemd/system/{unit}.service.d");
        lab.ssh_ok(&host, &["mkdir", "-p", &folder]).unwrap();
        let file = format!("{folder}/count.conf");
        let limit = Duration::from_secs(30);
        let written = lab
            .ssh_limited(&host, &["tee", &file], COUNT.as_bytes(), limit)
            .unwrap();
        assert!(written.status.success(), "{}", written.stderr);
        lab.ssh_ok(&host, &["touch", &format!("/var/lib/count-{unit}")])
            .unwrap();
        lab.ssh_ok(&host, &["systemctl", "daemon-reload"]).unwrap();
    }
}

/// Host → the boot of each start of the unit so far, in order.
fn starts(lab: &Lab, unit: &str) -> BTreeMap<String, Vec<String>> {
    let hosts = lab.hosts().unwrap();
    let read = |host: &str| {
        let file = format!("/var/lib/count-{unit}");
        let text = lab.ssh_ok(host, &["cat", &file]).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    hosts
        .iter()
        .map(|host| (host.name(), read(&host.name())))
        .collect()
}

/// Starts that a boot of the host does not explain: each boot starts an enabled unit once by itself.
fn own_starts(before: &[String], after: &[String], known_boot: &str) -> usize {
    let new = &after[before.len()..];
    let booted: BTreeSet<&String> = new.iter().filter(|boot| *boot != known_boot).collect();
    new.len() - booted.len()
}

fn boots(lab: &Lab) -> BTreeMap<String, String> {
    let boot = |host: &str| {
        lab.ssh_ok(host, &["cat", "/proc/sys/kernel/random/boot_id"])
            .unwrap()
            .trim()
            .to_owned()
    };
    lab.hosts()
        .unwrap()
        .iter()
        .map(|host| (host.name(), boot(&host.name())))
        .collect()
}

fn site(services: &[&str], settings: Value) -> Changes {
    // A bot does not start with a source that its site does not have.
    let blind = (!services.contains(&"alertmanager")).then(|| ("sources".to_owned(), json!({})));
    Changes {
        config: blind.into_iter().collect(),
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        settings: serde_json::from_value(settings).unwrap(),
        ..Changes::default()
    }
}

fn in_crash_lab(name: &str, test: impl FnOnce(&Lab) + Send) {
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    in_layered_lab(name, 2, Some(&layer), test);
}

/// A command that is not waited for: the bot is killed under it.
fn spawn(installation: &Installation, words: &[&str]) -> Child {
    let mut command = installation.cli(words).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn jobs(installation: &Installation) -> Vec<Value> {
    let answer = installation.ask(&["jobs"]).unwrap();
    answer["data"].as_array().unwrap().clone()
}

/// The id of the newest job. `jobs` lists the last ones only: how many there are says nothing.
fn newest(installation: &Installation) -> Value {
    let newest = jobs(installation).first().cloned();
    newest.unwrap_or_default()["id"].clone()
}

/// Waits until no job runs, and gives the newest.
fn all_ended(installation: &Installation) -> Option<Value> {
    let ended = wait::until("the end of every job", END_LIMIT, || {
        let jobs = jobs(installation);
        let running = jobs.iter().find(|job| job["finished_at"].is_null());
        match running {
            None => Ok(jobs.first().cloned()),
            Some(job) => {
                std::thread::sleep(Duration::from_millis(200));
                Err(job.to_string())
            }
        }
    });
    ended.unwrap()
}

/// Every step ran once: an attempt more than the first is only right for a step whose outcome was lost with its host.
fn nothing_repeated(installation: &Installation, job: &Value) {
    let id = job["id"].as_str().unwrap();
    let state = installation.ask(&["job", id]).unwrap();
    for (number, run) in state["data"]["job"]["runs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        assert_eq!(run["attempts"], 1, "step {number} of job {id}: {run}");
    }
}

#[test]
fn killed_while_it_deploys() {
    in_crash_lab("crashdeploy", |lab| {
        let changes = |memory: u32| {
            let settings = json!({"memcached": {"memory_megabytes": memory}, "haproxy": {"max_connections": 1000 + memory}});
            site(&["memcached", "haproxy", "node_exporter"], settings)
        };
        let program = Program::build(false).unwrap();
        let installation =
            install(lab, program, &lab.folder().join("crash"), &changes(64)).unwrap();
        installation.deploy_alone("site").unwrap();
        count_starts(lab, "memcached");
        let mut random = StdRng::seed_from_u64(1);
        rewrite_site(&installation, &changes(65)).unwrap();
        let undisturbed = undisturbed(&installation);
        let mut killed: Vec<Killed> = Vec::new();
        let victims = [
            Victim::Bot,
            Victim::Agent,
            Victim::Sessions,
            Victim::Bot,
            Victim::Power,
        ];
        for run in 0..kills().0 {
            let memory = 66 + run;
            rewrite_site(&installation, &changes(memory)).unwrap();
            let (before, known) = (starts(lab, "memcached"), boots(lab));
            let victim = victims[run as usize % victims.len()];
            let host = ["ctl1", "ctl2"][random.random_range(0..2)];
            let after = undisturbed.mul_f64(random.random_range(0.0..1.0));
            killed.push(deploy_and_kill(&installation, victim, host, after));
            let after = starts(lab, "memcached");
            for (host, before) in &before {
                let own = own_starts(before, &after[host], &known[host]);
                // A host that lost its power may have started the unit with what was written before.
                let right = own == 1 || (own == 0 && boots(lab)[host] != known[host]);
                assert!(
                    right,
                    "run {run} ({victim:?}): {own} starts of memcached on {host}: {before:?}, {:?}",
                    after[host]
                );
                let runs = lab.ssh_ok(host, &["pgrep", "-a", "memcached"]).unwrap();
                assert!(
                    runs.contains(&format!("-m {memory} ")),
                    "run {run}: {host} runs {runs}"
                );
            }
            let plan = installation.plan("site").unwrap();
            assert_eq!(
                plan["steps"],
                json!([]),
                "run {run}: something is left to do"
            );
        }
        print("deploy", &killed);
        let met = killed.iter().filter(|one| one.met).count();
        assert!(
            met >= killed.len() / 2,
            "only {met} of {} kills met a running job",
            killed.len()
        );
    });
}

/// From the approval to the end of a deploy that nothing happens to: kills fall within this time.
fn undisturbed(installation: &Installation) -> Duration {
    let bot = Bot::start(installation).unwrap();
    let answer = installation.ask(&["deploy", "site"]).unwrap();
    let approval = answer["data"]["approval"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let approved = spawn(installation, &["approve", &approval]).wait();
    assert!(approved.unwrap().success());
    let took = began.elapsed();
    bot.stop().unwrap();
    took
}

/// One deploy, in which something is killed so long after the approval. A job that fails for it is mended by saying it again.
fn deploy_and_kill(
    installation: &Installation,
    victim: Victim,
    host: &str,
    after: Duration,
) -> Killed {
    let bot = Bot::start(installation).unwrap();
    let known = newest(installation);
    let answer = installation.ask(&["deploy", "site"]).unwrap();
    let approval = answer["data"]["approval"].as_str().unwrap().to_owned();
    let mut approve = spawn(installation, &["approve", &approval]);
    std::thread::sleep(after);
    let running = || {
        jobs(installation)
            .first()
            .is_some_and(|job| job["finished_at"].is_null())
    };
    // A bot that is gone cannot be asked; the new one says what it took up.
    let mut met = victim != Victim::Bot && running();
    let bot = strike(installation, bot, victim, host);
    if victim == Victim::Bot {
        approve.wait().unwrap();
        met = running();
    }
    let last = all_ended(installation);
    approve.wait().unwrap();
    let again = || drop(installation.deploy_with_bot("site").unwrap());
    let end = if newest(installation) == known {
        // Killed before the approval was in the journal: nothing was done, and saying it again does it.
        again();
        "never began, said again".to_owned()
    } else {
        let job = last.unwrap();
        let result = job["result"]["result"].as_str().unwrap().to_owned();
        if result == "succeeded" {
            if matches!(victim, Victim::Bot | Victim::Sessions) {
                nothing_repeated(installation, &job);
            }
            result
        } else {
            assert!(
                matches!(victim, Victim::Power | Victim::Agent),
                "{victim:?}: {job}"
            );
            again();
            format!("{result}, said again")
        }
    };
    bot.stop().unwrap();
    Killed {
        victim,
        host: host.to_owned(),
        after,
        met,
        end,
    }
}

#[test]
fn killed_while_it_heals() {
    in_crash_lab("crashheal", |lab| {
        let services = [
            "memcached",
            "node_exporter",
            "signs_exporter",
            "prometheus",
            "alertmanager",
        ];
        let settings = json!({
            "prometheus": {"scrape_interval": 1, "alert_for": 1},
            "alertmanager": {"group_wait": 1, "group_interval": 2, "watchdog_interval": 5},
        });
        let program = Program::build(false).unwrap();
        let folder = lab.folder().join("crash");
        let installation = install(lab, program, &folder, &site(&services, settings)).unwrap();
        installation.deploy_alone("site").unwrap();
        count_starts(lab, "memcached");
        let mut bot = Bot::start(&installation).unwrap();
        let mut random = StdRng::seed_from_u64(2);
        let victims = [Victim::Bot, Victim::Agent, Victim::Sessions];
        let mut killed = Vec::new();
        for run in 0..kills().1 {
            quiet(&installation);
            let (before, known) = (starts(lab, "memcached"), boots(lab));
            lab.fault(&"hold-down ctl2 memcached".parse::<Fault>().unwrap())
                .unwrap();
            let held = starts(lab, "memcached");
            lab.mend(&Mend::All).unwrap();
            let victim = victims[run as usize % victims.len()];
            let after = Duration::from_millis(random.random_range(0..20_000));
            std::thread::sleep(after);
            let met = jobs(&installation)
                .first()
                .is_some_and(|job| job["finished_at"].is_null());
            bot = strike(&installation, bot, victim, "ctl2");
            healed(lab, &installation);
            killed.push(Killed {
                victim,
                host: "ctl2".to_owned(),
                after,
                met,
                end: "proven".to_owned(),
            });
            let after = starts(lab, "memcached");
            // Starts that the fault itself made fail are not the bot's.
            let own = own_starts(&held["ctl2"], &after["ctl2"], &known["ctl2"]);
            assert_eq!(own, 1, "run {run} ({victim:?}): starts on ctl2");
            assert_eq!(
                after["ctl1"], before["ctl1"],
                "run {run}: ctl1 was not broken"
            );
            if victim != Victim::Agent {
                nothing_repeated(&installation, &all_ended(&installation).unwrap());
            }
        }
        print("heal", &killed);
        bot.stop().unwrap();
    });
}

/// No alert fires and no incident is open.
fn quiet(installation: &Installation) {
    let silent = wait::until("a silent site", END_LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let alerts = installation.ask(&["alerts"]).unwrap();
        let incidents = installation.ask(&["incidents"]).unwrap();
        let firing = alerts["data"]["firing"].as_array().into_iter().flatten();
        let firing = firing.filter(|alert| alert["name"] != "Watchdog").count();
        let open = incidents["data"]["incidents"]
            .as_array()
            .into_iter()
            .flatten();
        let open = open
            .filter(|incident| incident["closed_at"].is_null())
            .count();
        if firing + open == 0 {
            Ok(())
        } else {
            Err(format!("{alerts} {incidents}"))
        }
    });
    silent.unwrap();
}

/// The last repair is proven, and memcached runs.
fn healed(lab: &Lab, installation: &Installation) {
    let done = wait::until("the proof", END_LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let last = jobs(installation).first().cloned().unwrap_or_default();
        let active = lab
            .ssh("ctl2", &["systemctl", "is-active", "memcached"])
            .unwrap();
        let well = active.stdout.trim() == "active" && last["result"]["result"] == "succeeded";
        if well { Ok(()) } else { Err(last.to_string()) }
    });
    done.unwrap();
}
