//! The drills that must heal and those that must refuse, through Prometheus, Alertmanager and the webhook; what the bot does about
//! the first is told in an encrypted room of a real homeserver. Needs root on Debian and fails without it. All drills:
//! `nightshift-lab drill --all --fresh`.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail
#![recursion_limit = "256"]

mod support;

use std::{
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
use support::human::{Human, Seen};

const PASSWORD: &str = "a password for tests";
const BOT: &str = "nightshift";
/// Words wait for their turn within the homeserver's rate limit: 0.2 a second.
const TOLD_LIMIT: Duration = Duration::from_secs(180);
/// Counter-drills of a usual run. All take half an hour: `nightshift-lab drill --all --fresh`.
const USUAL_REFUSALS: [&str; 6] = [
    "deploy-running",
    "gal-crash-member-unreachable",
    "gal-donor-during-sst",
    "halted",
    "rmq-even-split",
    "silenced",
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
fn heals_and_tells_it_in_an_encrypted_room() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let drills = chosen(|drill| !drill.is_counter(), 9);
    let progress = Progress::to_stderr();
    let layer = with_packages(&progress).unwrap();
    let program = Program::build(false).unwrap();
    // From its registry, which is not reached from inside a lab.
    Synapse::prepare().unwrap();
    in_layered_lab("heal", 3, Some(&layer), |lab| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let synapse = Synapse::start(Limits::DEFAULT).unwrap();
        let (human, room) = runtime.block_on(room(&synapse));
        let changes = in_room(lab.folder().as_path(), &synapse, &room);
        let (installation, bot) = drill::deployed(lab, program, &changes, &progress).unwrap();
        let user = format!("@{BOT}:{}", lab::synapse::SERVER_NAME);
        assert!(runtime.block_on(human.until_joined(&room, &user, TOLD_LIMIT)));
        let outcomes = drill::on_running(&drills, &installation, &progress).unwrap();
        all_passed(&drills, &outcomes);
        runtime.block_on(all_told(&installation, &human));
        is_silenced_by_a_word(lab, &installation);
        bot.stop().unwrap();
    });
}

/// A person in an encrypted room, into which the bot is invited.
async fn room(synapse: &Synapse) -> (Human, String) {
    let bot = synapse.register(BOT, PASSWORD).unwrap();
    synapse.register("ann", PASSWORD).unwrap();
    let human = Human::log_in(&synapse.url(), "ann", PASSWORD).await;
    let room = human.make_encrypted_room(&[&bot]).await;
    (human, room)
}

/// The demo's configuration with that room.
fn in_room(folder: &Path, synapse: &Synapse, room: &str) -> Changes {
    let password = folder.join("matrix-password");
    std::fs::write(&password, PASSWORD).unwrap();
    support::only_for_owner(&password);
    let limits = Limits::DEFAULT;
    let chat = json!({"matrix": {
        "homeserver": synapse.url(),
        "user": format!("@{BOT}:{}", lab::synapse::SERVER_NAME),
        "password": {"file": password},
        "rooms": [{"room": room}],
        "messages_per_second": limits.per_second,
        "burst": limits.burst,
    }});
    Changes {
        config: [("chat".to_owned(), chat)].into(),
        ..Changes::default()
    }
}

/// Every incident that was repaired has one message in the room, and its last edit says how it ended.
async fn all_told(installation: &Installation, human: &Human) {
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
    assert!(repaired.len() >= 9, "{} repairs", repaired.len());
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
            .filter(|one| one.edits.is_none() && one.body.contains(incident))
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
        let found = all.find(|one| one["closed_at"].is_null() && one["alerts_firing"] != 0);
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
    let about = |one: &&Seen| one.thread.is_none() && one.body.contains(incident);
    seen.iter().rfind(about).map(|one| one.body.as_str())
}
