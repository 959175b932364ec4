//! `kill -9` of the bot at random moments of a deploy and of a heal: it comes back, resumes, repeats nothing
//! and loses nothing. Needs root on Debian and fails without it.
//!
//! What happened on the hosts is counted by the hosts themselves: every start of a watched unit adds a line to a file.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::scenario::{Bot, Changes, Installation, Program, install, rewrite_site, with_packages};
use lab::{Fault, Lab, Mend, Progress, in_layered_lab, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Runs in which the bot is killed while it deploys, and while it heals.
const DEPLOYS: u32 = 20;
const HEALS: u32 = 12;
/// One run after a kill: what is left of the work, and what the alerting chain needs.
const END_LIMIT: Duration = Duration::from_secs(120);
/// Counts starts, before the unit's own program and whatever becomes of it.
const COUNT: &str = "[Service]\nExecStartPre=+/bin/sh -c \"echo start >> /var/lib/count-%p\"\n";

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

/// Host → starts of the unit so far.
fn starts(lab: &Lab, unit: &str) -> BTreeMap<String, usize> {
    let hosts = lab.hosts().unwrap();
    let count = |host: &str| {
        let file = format!("/var/lib/count-{unit}");
        lab.ssh_ok(host, &["cat", &file]).unwrap().lines().count()
    };
    hosts
        .iter()
        .map(|host| (host.name(), count(&host.name())))
        .collect()
}

fn site(services: &[&str], settings: Value) -> Changes {
    // A bot does not start with a source that its site does not have.
    let blind = (!services.contains(&"alertmanager")).then(|| ("sources".to_owned(), json!({})));
    Changes {
        config: blind.into_iter().collect(),
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        settings: serde_json::from_value(settings).unwrap(),
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
        let mut longest = Duration::from_secs(3);
        let mut interrupted = 0;
        for run in 0..DEPLOYS {
            rewrite_site(&installation, &changes(65 + run)).unwrap();
            let before = starts(lab, "memcached");
            let began = Instant::now();
            interrupted += u32::from(deploy_and_kill(
                &installation,
                random.random_range(0..longest.as_millis() as u64),
            ));
            longest = longest.max(began.elapsed().min(Duration::from_secs(10)));
            let after = starts(lab, "memcached");
            for (host, count) in &before {
                assert_eq!(
                    after[host],
                    count + 1,
                    "run {run}: starts of memcached on {host}"
                );
            }
            let plan = installation.plan("site").unwrap();
            assert_eq!(
                plan["steps"],
                json!([]),
                "run {run}: something is left to do"
            );
        }
        assert!(
            interrupted >= DEPLOYS / 3,
            "only {interrupted} of {DEPLOYS} kills met a running job"
        );
    });
}

/// One deploy; the bot is killed so many milliseconds after the approval and started again. True if a job was running.
fn deploy_and_kill(installation: &Installation, milliseconds: u64) -> bool {
    let bot = Bot::start(installation).unwrap();
    let known = jobs(installation).len();
    let answer = installation.ask(&["deploy", "site"]).unwrap();
    let approval = answer["data"]["approval"].as_str().unwrap().to_owned();
    let mut approve = spawn(installation, &["approve", &approval]);
    std::thread::sleep(Duration::from_millis(milliseconds));
    bot.kill().unwrap();
    approve.wait().unwrap();
    let bot = Bot::start(installation).unwrap();
    let running = jobs(installation)
        .first()
        .is_some_and(|job| job["finished_at"].is_null());
    let last = all_ended(installation);
    if jobs(installation).len() == known {
        // Killed before the approval was in the journal: nothing was done, and saying it again does it.
        installation.deploy_with_bot("site").unwrap();
    } else {
        let job = last.unwrap();
        assert_eq!(job["result"]["result"], "succeeded", "{job}");
        nothing_repeated(installation, &job);
    }
    bot.stop().unwrap();
    running
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
        for run in 0..HEALS {
            quiet(&installation);
            let before = starts(lab, "memcached");
            lab.fault(&"hold-down ctl2 memcached".parse::<Fault>().unwrap())
                .unwrap();
            let held = starts(lab, "memcached");
            lab.mend(&Mend::All).unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(0..20_000)));
            bot.kill().unwrap();
            bot = Bot::start(&installation).unwrap();
            healed(lab, &installation);
            let after = starts(lab, "memcached");
            // Starts that the fault itself made fail are not the bot's.
            assert_eq!(after["ctl2"], held["ctl2"] + 1, "run {run}: starts on ctl2");
            assert_eq!(
                after["ctl1"], before["ctl1"],
                "run {run}: ctl1 was not broken"
            );
            nothing_repeated(&installation, &all_ended(&installation).unwrap());
        }
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
