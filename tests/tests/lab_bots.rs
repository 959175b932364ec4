//! Two bots on one PostgreSQL, with real hosts: whoever drives a repair is killed in the middle of it, or stands still and goes on
//! later. Needs root on Debian and fails without it.
//!
//! What happened on the hosts is counted by the hosts themselves: every start of the watched unit adds a line to a file.
//! `NIGHTSHIFT_TAKE_OVERS=10` asks for more killed leaders than a usual run has.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::postgres::Postgres;
use lab::scenario::{Bot, Changes, Installation, Program, install, with_packages};
use lab::{Fault, Lab, Mend, Progress, in_layered_lab, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Leaders that are killed in a usual run.
const RUNS: usize = 4;
const RUNS_VARIABLE: &str = "NIGHTSHIFT_TAKE_OVERS";
/// What a take-over may take.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// The alerting chain, the runbook's own times, a take-over and the proof.
const LIMIT: Duration = Duration::from_secs(180);
/// Counts starts, before the unit's own program and whatever becomes of it.
const COUNT: &str =
    "[Service]\nExecStartPre=+/bin/sh -c \"echo start >> /var/lib/count-memcached\"\n";
/// Where the bots listen, in the lab's network.
const PORTS: [u16; 2] = [9480, 9481];

/// Two bots, of which one leads.
struct Two {
    installations: [Installation; 2],
    running: [Option<Bot>; 2],
    postgres: Postgres,
}

fn changes(config: Value) -> Changes {
    let urls = PORTS.map(|port| format!("http://10.77.0.1:{port}/v1/alertmanager"));
    let settings = json!({
        "prometheus": {"scrape_interval": 1, "alert_for": 1},
        "alertmanager": {
            "group_wait": 1, "group_interval": 2, "watchdog_interval": 5, "webhook_url": urls.join(" "),
        },
    });
    let services = [
        "memcached",
        "node_exporter",
        "signs_exporter",
        "prometheus",
        "alertmanager",
    ];
    Changes {
        config: serde_json::from_value(config).unwrap(),
        services: services.map(str::to_owned).into(),
        settings: serde_json::from_value(settings).unwrap(),
        ..Changes::default()
    }
}

impl Two {
    /// A site that a first bot deployed alone, with its own store; then two bots share a copy of that.
    fn start(lab: &Lab) -> Two {
        let postgres = Postgres::start().unwrap();
        postgres.database("bots").unwrap();
        let program = Program::build(false).unwrap();
        let folder = lab.folder().join("bot0");
        let alone = install(lab, program.clone(), &folder, &changes(json!({}))).unwrap();
        alone.deploy_alone("site").unwrap();
        count_starts(lab);
        let installations = [0, 1].map(|number| {
            let folder = lab.folder().join(format!("bot{number}"));
            fs::create_dir_all(folder.join("state")).unwrap();
            let password = folder.join("store-password");
            fs::write(&password, postgres.password()).unwrap();
            fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
            let store = json!({"postgres": {
                "url": postgres.url("bots"), "password": {"file": "store-password"},
            }});
            let listen = format!("10.77.0.1:{}", PORTS[number]);
            let changes = changes(json!({"store": store, "listen": listen}));
            install(lab, program.clone(), &folder, &changes).unwrap()
        });
        let migrate = ["store", "migrate", "--from", "embedded", "--to", "postgres"];
        let answer = installations[0].ask(&migrate).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        let state = |number: usize| installations[number].folder().join("state");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(state(0).join("secrets"))
            .arg(state(1))
            .status();
        assert!(copied.unwrap().success());
        let running = [0, 1].map(|number| Some(Bot::start(&installations[number]).unwrap()));
        Two {
            installations,
            running,
            postgres,
        }
    }

    fn ask(&self, number: usize, words: &[&str]) -> Result<Value, String> {
        let answer = self.installations[number].ask(words);
        answer.map_err(|error| format!("{error:#}"))
    }

    /// The bot that drives a job, and the token it does so with.
    fn driver(&self, ask: usize, job: &str) -> Result<(usize, u64), String> {
        let state = self.ask(ask, &["job", job])?;
        let lease = &state["data"]["job"]["lease"];
        let holder = lease["holder"].as_str().ok_or("nobody drives it")?;
        let process = holder.split(':').nth(1).unwrap_or_default();
        let of = |bot: &Option<Bot>| {
            bot.as_ref()
                .is_some_and(|bot| bot.id().to_string() == process)
        };
        let number = self.running.iter().position(of);
        let token = lease["token"].as_u64().ok_or("no token")?;
        Ok((number.ok_or(format!("{holder} is gone"))?, token))
    }

    /// Breaks memcached on ctl2 and waits until its repair runs. The job, its driver, and the token.
    fn break_and_wait(&self, lab: &Lab) -> (String, usize, u64) {
        lab.fault(&"hold-down ctl2 memcached".parse::<Fault>().unwrap())
            .unwrap();
        lab.mend(&Mend::All).unwrap();
        wait::until("a repair that runs", LIMIT, || {
            std::thread::sleep(Duration::from_millis(100));
            let jobs = self.ask(0, &["jobs"])?;
            let newest = jobs["data"][0].clone();
            if newest["kind"] != "heal" || !newest["finished_at"].is_null() {
                return Err(newest.to_string());
            }
            let job = newest["id"].as_str().unwrap_or_default().to_owned();
            let (driver, token) = self.driver(0, &job)?;
            Ok((job, driver, token))
        })
        .unwrap()
    }

    /// Waits until another bot has the job. How long it took.
    fn taken_over(&self, by: usize, job: &str, before: u64, since: Instant) -> Duration {
        wait::until("another driver", LIMIT, || match self.driver(by, job)? {
            (driver, token) if token > before && driver == by => Ok(since.elapsed()),
            other => Err(format!("{other:?}")),
        })
        .unwrap()
    }

    /// The repair is proven, and nothing fires or is open any more.
    fn until_quiet(&self, ask: usize, job: &str) {
        wait::until("the proof and silence", LIMIT, || {
            std::thread::sleep(Duration::from_millis(200));
            let state = self.ask(ask, &["job", job])?;
            let alerts = self.ask(ask, &["alerts"])?;
            let incidents = self.ask(ask, &["incidents"])?;
            let firing = alerts["data"]["firing"].as_array().into_iter().flatten();
            let firing = firing.filter(|alert| alert["name"] != "Watchdog").count();
            let open = incidents["data"]["incidents"].as_array();
            let open = open.into_iter().flatten();
            let open = open.filter(|one| one["closed_at"].is_null()).count();
            let runs = state["data"]["job"]["runs"].as_array().cloned();
            let once = runs.iter().flatten().all(|run| run["attempts"] == 1);
            let result = &state["data"]["job"]["finished"][1]["result"];
            match (result.as_str(), firing, open) {
                (Some("succeeded"), 0, 0) => {
                    assert!(once, "a step ran again: {state}");
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.told(ask, job)));
    }

    /// What the bots say, for whoever has to understand why something did not happen.
    fn told(&self, ask: usize, job: &str) -> String {
        let words: [&[&str]; 5] = [
            &["job", job],
            &["jobs"],
            &["alerts"],
            &["incidents"],
            &["status"],
        ];
        let answers = words.map(|words| format!("{words:?}: {:?}\n", self.ask(ask, words)));
        let logs = self.running.iter().flatten().map(Bot::whole_log);
        answers.into_iter().chain(logs).collect()
    }
}

fn count_starts(lab: &Lab) {
    for host in ["ctl1", "ctl2"] {
        let folder = "/etc/systemd/system/memcached.service.d";
        lab.ssh_ok(host, &["mkdir", "-p", folder]).unwrap();
        let file = format!("{folder}/count.conf");
        let limit = Duration::from_secs(30);
        let written = lab.ssh_limited(host, &["tee", &file], COUNT.as_bytes(), limit);
        assert!(written.unwrap().status.success());
        lab.ssh_ok(host, &["touch", "/var/lib/count-memcached"])
            .unwrap();
        lab.ssh_ok(host, &["systemctl", "daemon-reload"]).unwrap();
    }
}

fn starts(lab: &Lab, host: &str) -> usize {
    let text = lab.ssh_ok(host, &["cat", "/var/lib/count-memcached"]);
    text.unwrap().lines().count()
}

fn in_bots_lab(name: &str, test: impl FnOnce(&Lab) + Send) {
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    in_layered_lab(name, 2, Some(&layer), test);
}

fn runs() -> usize {
    let text = std::env::var(RUNS_VARIABLE);
    text.map_or(RUNS, |text| {
        text.parse().expect("NIGHTSHIFT_TAKE_OVERS=RUNS")
    })
}

#[test]
fn whoever_drives_a_repair_is_killed_and_the_other_one_goes_on() {
    in_bots_lab("botskill", |lab| {
        let mut two = Two::start(lab);
        let mut random = StdRng::seed_from_u64(4);
        let mut times = Vec::new();
        for run in 0..runs() {
            let before = [starts(lab, "ctl1"), starts(lab, "ctl2")];
            let (job, driver, token) = two.break_and_wait(lab);
            // Somewhere between the step and the end of its proof.
            std::thread::sleep(Duration::from_millis(random.random_range(0..4_000)));
            let other = 1 - driver;
            two.running[driver].take().unwrap().kill().unwrap();
            let took = two.taken_over(other, &job, token, Instant::now());
            println!(
                "run {run}: bot {other} has the repair {:.2} s after bot {driver} was killed",
                took.as_secs_f64()
            );
            times.push(took);
            two.until_quiet(other, &job);
            assert_eq!(
                starts(lab, "ctl1"),
                before[0],
                "run {run}: ctl1 was not broken"
            );
            two.running[driver] = Some(Bot::start(&two.installations[driver]).unwrap());
        }
        times.sort();
        let seconds: Vec<String> = times
            .iter()
            .map(|t| format!("{:.2}", t.as_secs_f64()))
            .collect();
        println!("take-over, s: {}", seconds.join(" "));
        assert!(times.iter().all(|took| *took <= TAKE_OVER), "{seconds:?}");
    });
}

#[test]
fn a_leader_that_stood_still_finds_another_one_and_stands_by() {
    in_bots_lab("botsstill", |lab| {
        let mut two = Two::start(lab);
        let (job, driver, token) = two.break_and_wait(lab);
        let (other, held) = (1 - driver, starts(lab, "ctl2"));
        two.running[driver].as_ref().unwrap().pause().unwrap();
        two.taken_over(other, &job, token, Instant::now());
        two.running[driver].as_ref().unwrap().go_on().unwrap();
        wait::until("the old leader to stand by", LIMIT, || {
            let refused = two.ask(driver, &["resume"]).err().unwrap_or_default();
            match refused.contains("leads: say it to the bot that leads") {
                true => Ok(()),
                false => Err(refused),
            }
        })
        .unwrap();
        two.until_quiet(other, &job);
        assert!(
            starts(lab, "ctl2") <= held + 1,
            "memcached was started twice"
        );

        // Without the store the leader begins nothing; the other one cannot begin anything either.
        two.postgres.kill();
        wait::until("the leader to say so", LIMIT, || {
            let status = two.ask(other, &["status"])?.to_string();
            match status.contains("the store is away") {
                true => Ok(()),
                false => Err(status),
            }
        })
        .unwrap();
        two.postgres.resume().unwrap();
        let (job, _, _) = two.break_and_wait(lab);
        two.until_quiet(other, &job);
        for bot in two.running.iter_mut().filter_map(Option::take) {
            bot.stop().unwrap();
        }
    });
}
