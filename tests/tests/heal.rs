//! The drills that must heal and those that must refuse, through Prometheus, Alertmanager and the webhook; what the bot does about
//! the first is told in an encrypted room of a real homeserver. Needs root on Debian and fails without it. All drills:
//! `nightshift-lab drill --all --fresh`.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail
#![recursion_limit = "256"]

mod support;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lab::{
    Lab, Progress,
    drill::{self, Drill, Outcome, load_all},
    in_layered_lab,
    scenario::{Changes, Installation, Program, with_packages},
    synapse::{Limits, Synapse},
    testing::test_name,
    wait,
};
use serde_json::json;
use support::{
    human::{Human, Seen},
    room,
};

/// Words wait for their turn within the homeserver's rate limit: 0.2 a second.
const TOLD_LIMIT: Duration = Duration::from_secs(180);
/// Drills of a usual run on the demo's site, and counter-drills. All of them: `nightshift-lab drill --all --fresh`.
const USUAL_HEALS: [&str; 6] = [
    "gal-cluster-crash",
    "gal-node-down",
    "mem-down",
    "rmq-node-down",
    "rmq-partition",
    "vip-missing",
];
const USUAL_REFUSALS: [&str; 5] = [
    "deploy-running",
    "gal-crash-member-unreachable",
    "halted",
    "rmq-even-split",
    "silenced",
];
/// Drills on Ceph of a usual run.
const USUAL_OF_CEPH: [&str; 4] = [
    "ceph-mon-down",
    "ceph-osd-down",
    "ceph-osd-noout",
    "ceph-osd-second-down",
];
/// One site at a time on two cores: the drills have limits.
static ALONE: Mutex<()> = Mutex::new(());

fn chosen(wanted: impl Fn(&Drill) -> bool, least: usize) -> Vec<Drill> {
    let drills: Vec<Drill> = load_all().unwrap().into_iter().filter(wanted).collect();
    assert!(drills.len() >= least, "{} drills", drills.len());
    drills
}

fn all_passed(drills: &[Drill], outcomes: &[Outcome]) {
    assert_eq!(outcomes.len(), drills.len());
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn refuses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = |drill: &Drill| drill.is_counter() && USUAL_REFUSALS.contains(&&*drill.drill);
    let drills = chosen(usual, USUAL_REFUSALS.len());
    let lab = Lab::named(test_name("refuse").unwrap());
    let outcomes = drill::on_fresh_hosts(&drills, &lab, &Progress::to_stderr()).unwrap();
    all_passed(&drills, &outcomes);
}

#[test]
fn ceph_heals_and_refuses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = |drill: &Drill| USUAL_OF_CEPH.contains(&&*drill.drill);
    let drills = chosen(usual, USUAL_OF_CEPH.len());
    let lab = Lab::named(test_name("ceph").unwrap());
    let outcomes = drill::on_fresh_hosts(&drills, &lab, &Progress::to_stderr()).unwrap();
    all_passed(&drills, &outcomes);
}

#[test]
fn heals_and_tells_it_in_an_encrypted_room() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = |drill: &Drill| USUAL_HEALS.contains(&&*drill.drill);
    let drills = chosen(usual, USUAL_HEALS.len());
    let progress = Progress::to_stderr();
    let layer = with_packages(&progress).unwrap();
    let program = Program::build(false).unwrap();
    // From its registry, which is not reached from inside a lab.
    Synapse::prepare().unwrap();
    in_layered_lab("heal", 3, Some(&layer), |lab| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let synapse = Synapse::start(Limits::DEFAULT).unwrap();
        let (human, room) = runtime.block_on(room::room(&synapse));
        let changes = in_room(lab.folder().as_path(), &synapse, &room);
        let (installation, bot) = drill::deployed(lab, program, &changes, &progress).unwrap();
        assert!(runtime.block_on(human.until_joined(&room, &room::bot(), TOLD_LIMIT)));
        let outcomes = drill::on_running(&drills, &installation, &progress).unwrap();
        all_passed(&drills, &outcomes);
        runtime.block_on(all_told(&installation, &human, drills.len()));
        is_silenced_by_a_word(lab, &installation);
        bot.stop().unwrap();
    });
}

/// One cache is down, and 200 alerts say so: of Prometheus and of a prober through Alertmanager, and of Icinga.
#[test]
fn one_cause_of_two_hundred_alerts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let progress = Progress::to_stderr();
    let layer = with_packages(&progress).unwrap();
    let program = Program::build(false).unwrap();
    Synapse::prepare().unwrap();
    in_layered_lab("cause", 3, Some(&layer), |lab| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let synapse = Synapse::start(Limits::DEFAULT).unwrap();
        let (human, room) = runtime.block_on(room::room(&synapse));
        let mut changes = in_room(lab.folder().as_path(), &synapse, &room);
        changes.services = OF_ONE_CAUSE.map(str::to_owned).into();
        changes.config.insert("sources".to_owned(), all_sources());
        let (installation, bot) = drill::deployed(lab, program, &changes, &progress).unwrap();
        assert!(runtime.block_on(human.until_joined(&room, &room::bot(), TOLD_LIMIT)));
        let data = |words: &[&str]| installation.ask(words).unwrap()["data"].take();
        wait::until("a site on which nothing fires", TOLD_LIMIT, || {
            let alerts = data(&["alerts"]);
            let firing = names_of(&alerts);
            let quiet = firing.iter().all(|name| name == "Watchdog") && !firing.is_empty();
            quiet.then_some(()).ok_or_else(|| alerts.to_string())
        })
        .unwrap();
        let before = runtime.block_on(human.seen()).len();
        // systemd would start a killed one again before anybody notices.
        lab.ssh_ok("ctl2", &["systemctl", "stop", "memcached.service"])
            .unwrap();
        let began = jiff::Timestamp::now();
        runtime.block_on(probes_fail(began, None));
        let incident = wait::until("the proof", TOLD_LIMIT, || {
            let incidents = data(&["incidents"]);
            let all = incidents["incidents"].as_array().unwrap();
            let proven = |one: &&serde_json::Value| {
                let state = one["state"]["state"].as_str().unwrap_or_default();
                one["jobs"] != json!([]) && ["healed", "resolved"].contains(&state)
            };
            let repaired = all.iter().find(proven);
            repaired.cloned().ok_or_else(|| incidents.to_string())
        })
        .unwrap();
        let id = incident["id"].as_str().unwrap();
        let why = data(&["why", id]);
        let (own, explained) = (&why["incident"]["alerts"], &why["incident"]["explained"]);
        let own = own.as_object().unwrap();
        let of: BTreeSet<&str> = own
            .values()
            .filter_map(|alert| alert["source"].as_str())
            .collect();
        assert_eq!(of, ["alertmanager", "icinga2"].into(), "{own:?}");
        assert_eq!(explained.as_object().unwrap().len(), PROBES, "{explained}");
        runtime.block_on(probes_fail(began, Some(jiff::Timestamp::now())));
        wait::until("nothing open", TOLD_LIMIT, || {
            let incidents = data(&["incidents"]);
            let mut all = incidents["incidents"].as_array().unwrap().iter();
            let over = all.all(|one| !one["closed_at"].is_null());
            over.then_some(()).ok_or_else(|| incidents.to_string())
        })
        .unwrap();
        let incidents = data(&["incidents"]);
        let all = incidents["incidents"].as_array().unwrap().iter();
        // What Icinga said of the deploy is over.
        let since = |one: &&serde_json::Value| {
            let at: jiff::Timestamp = one["opened_at"].as_str().unwrap().parse().unwrap();
            at >= began
        };
        // Symptoms that were heard of first were gathered for some seconds, and nobody was told of them.
        let is_symptom = |one: &&serde_json::Value| {
            let how = one["state"]["how"].as_str().unwrap_or_default();
            how == format!("it was a symptom of incident {id}")
        };
        let (symptoms, causes): (Vec<_>, Vec<_>) = all.filter(since).partition(is_symptom);
        assert_eq!(causes.len(), 1, "{incidents}");
        assert_eq!(causes[0]["jobs"].as_array().unwrap().len(), 1);
        assert!(symptoms.iter().all(|one| one["jobs"] == json!([])));
        let seen = runtime.block_on(human.seen());
        let messages = seen[before..].iter().filter(|one| one.edits.is_none());
        let messages: Vec<&str> = messages.map(|one| one.body.as_str()).collect();
        println!("{} messages: {messages:#?}", messages.len());
        assert!(messages.len() <= 10, "{messages:#?}");
        bot.stop().unwrap();
    });
}

const ALERTMANAGER: &str = "10.77.0.11:9093";
/// With Prometheus' alert and Icinga's that is 200.
const PROBES: usize = 198;
const OF_ONE_CAUSE: [&str; 6] = [
    "memcached",
    "icinga2",
    "prometheus",
    "alertmanager",
    "node_exporter",
    "signs_exporter",
];
fn all_sources() -> serde_json::Value {
    json!({
        "alertmanager": [{"name": "alertmanager", "url": format!("http://{ALERTMANAGER}")}],
        "prometheus": [{"name": "prometheus", "url": "http://10.77.0.11:9090"}],
        "icinga2": [{"name": "icinga2"}],
    })
}

/// The probes of the one cache, as a prober tells Alertmanager.
async fn probes_fail(began: jiff::Timestamp, ended: Option<jiff::Timestamp>) {
    let alerts: Vec<_> = (0..PROBES)
        .map(|number| {
            let labels = json!({
                "alertname": "BlackboxProbeFailed", "instance": "10.77.0.12:11211", "probe": number.to_string(),
            });
            match ended {
                None => json!({"labels": labels, "startsAt": began}),
                Some(ended) => json!({"labels": labels, "startsAt": began, "endsAt": ended}),
            }
        })
        .collect();
    let answer = reqwest::Client::new()
        .post(format!("http://{ALERTMANAGER}/api/v2/alerts"))
        .json(&alerts)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

fn names_of(alerts: &serde_json::Value) -> Vec<String> {
    let firing = alerts["firing"].as_array().into_iter().flatten();
    let names = firing.filter_map(|alert| alert["name"].as_str());
    names.map(str::to_owned).collect()
}

/// The demo's configuration with that room.
fn in_room(folder: &Path, synapse: &Synapse, room: &str) -> Changes {
    let chat = room::chat(folder, synapse, room, Limits::DEFAULT);
    Changes {
        config: [("chat".to_owned(), chat)].into(),
        ..Changes::default()
    }
}

/// Every incident that was repaired has one message in the room, and its last edit says how it ended. `least` repairs: one a drill.
async fn all_told(installation: &Installation, human: &Human, least: usize) {
    let answer = installation.ask(&["incidents"]).unwrap();
    let incidents = answer["data"]["incidents"].as_array().unwrap();
    let repaired: Vec<&str> = incidents
        .iter()
        .filter(|incident| {
            incident["jobs"]
                .as_array()
                .is_some_and(|jobs| !jobs.is_empty())
        })
        .filter_map(|incident| incident["id"].as_str())
        .collect();
    assert!(repaired.len() >= least, "{} repairs", repaired.len());
    for incident in repaired {
        let told = human
            .wait(TOLD_LIMIT, |seen| {
                last_words(seen, incident).is_some_and(|words| words.contains("proven"))
            })
            .await;
        let seen = human.seen().await;
        assert!(told, "{incident}: {:?}", last_words(&seen, incident));
        let messages = seen
            .iter()
            .filter(|one| one.edits.is_none() && is_about(one, incident))
            .count();
        assert!(messages <= 1, "{incident} was told in {messages} messages");
        println!("{}\n", last_words(&seen, incident).unwrap_or_default());
    }
}

/// A person silences an open incident in the real Alertmanager, finds it listed, and ends it again.
fn is_silenced_by_a_word(lab: &Lab, installation: &Installation) {
    let data = |words: &[&str]| installation.ask(words).unwrap()["data"].take();
    data(&["halt", "somebody looks"]);
    lab.ssh_ok("ctl1", &["systemctl", "stop", "memcached.service"])
        .unwrap();
    let id = wait::until("an open incident of memcached", TOLD_LIMIT, || {
        let incidents = data(&["incidents"]);
        let mut all = incidents["incidents"].as_array().into_iter().flatten();
        let found = all.find(|one| {
            let is_cache = one["domain"]["name"] == "memcached";
            is_cache && one["closed_at"].is_null() && one["alerts_firing"] != 0
        });
        let id = found.and_then(|one| one["id"].as_str().map(str::to_owned));
        id.ok_or_else(|| incidents.to_string())
    });
    let made = data(&["silence", &id.unwrap(), "1h", "a test"]);
    let silence = made["silences"][0].as_str().unwrap();
    let listed = data(&["silences"]);
    let all = listed["silences"].as_array().unwrap();
    let ours = all.iter().find(|one| one["id"] == silence).unwrap();
    assert!(ours["comment"].as_str().unwrap().starts_with("a test"));
    let name =
        json!({"name": "alertname", "value": "MemcachedDown", "isRegex": false, "isEqual": true});
    assert!(
        ours["matchers"].as_array().unwrap().contains(&name),
        "{ours}"
    );
    data(&["unsilence", silence]);
    let listed = data(&["silences"]);
    let mut all = listed["silences"].as_array().unwrap().iter();
    assert!(all.all(|one| one["id"] != silence), "{listed}");
    data(&["resume"]);
}

/// What the message about an incident says by now.
fn last_words<'a>(seen: &'a [Seen], incident: &str) -> Option<&'a str> {
    let about = |one: &&Seen| one.thread.is_none() && is_about(one, incident);
    seen.iter().rfind(about).map(|one| one.body.as_str())
}

/// Another one may name it as what explains it.
fn is_about(seen: &Seen, incident: &str) -> bool {
    seen.body.contains(&format!("incident {incident} since"))
}
