//! Who takes care: said in the room, in Icinga and in Alertmanager, and everywhere the same; where people disagree nobody wins by guess.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lab::{Lab, wait};
use serde_json::{Value, json};

use crate::{
    icinga::{self, BOB},
    stage::{ANN, LIMIT, Stage},
};

/// What is broken, and by whom it is told.
const WHAT: (&str, &str) = ("ctl3", "memcached");
/// How Icinga and Alertmanager are called.
const ICINGA: &str = "icinga2";
const ALERTMANAGER: &str = "alertmanager";
/// What is silenced ends by Alertmanager's list alone, which is believed five minutes after its start; and one look.
const LISTED: Duration = Duration::from_secs(360);

pub fn play(stage: &Stage<'_>) {
    let lab = stage.lab();
    // Somebody looks, so that nothing is repaired under their hands.
    stage.data(&["halt", "somebody looks"]);
    lab.ssh_ok(WHAT.0, &["systemctl", "stop", "memcached.service"])
        .unwrap();
    let id = stage.open_incident(WHAT.1, &[WHAT.1, "MemcachedDown"]);
    icinga::until_hard(lab, WHAT, 2.0);

    a_word_here_is_said_there(stage, &id);
    what_somebody_takes_back_there_is_not_said_again(stage, &id);
    a_word_given_back_here_ends_there(stage, &id);
    words_of_others_are_shown_and_left_alone(stage, &id);
    it_ends_with_the_alerts(stage, &id);
    stage.data(&["resume"]);
}

fn a_word_here_is_said_there(stage: &Stage<'_>, id: &str) {
    let lab = stage.lab();
    stage.say(&format!("!ack {id}"), "is yours");
    until_held_for(lab, ANN);
    stage.until_told(id, "both words of ann", |words| {
        [ICINGA, ALERTMANAGER]
            .iter()
            .all(|there| words.contains(&format!("acknowledged in {there} for {ANN}")))
    });
    // Somebody makes the silence shorter (or half an hour has gone): it is made longer while the alert fires.
    let mut ours = silence_of(lab, ANN).unwrap();
    let soon = Timestamp::now() + SignedDuration::from_mins(10);
    ours["endsAt"] = json!(soon);
    let changed = icinga::silence(lab, &ours);
    wait::until("a silence that is made longer", LIMIT, || {
        let silence = silence_of(lab, ANN)?;
        let ends: Timestamp = silence["endsAt"].as_str().unwrap().parse().unwrap();
        let is_longer = ends.duration_since(Timestamp::now()) > SignedDuration::from_mins(50);
        is_longer.then_some(()).ok_or_else(|| silence.to_string())
    })
    .unwrap();
    assert_eq!(icinga::silences(lab).len(), 1, "of {changed}");
}

fn what_somebody_takes_back_there_is_not_said_again(stage: &Stage<'_>, id: &str) {
    let lab = stage.lab();
    icinga::order(lab, "remove-acknowledgement", WHAT, json!({}));
    stage.until_told(id, "that it was removed", |words| {
        words.contains(&format!(
            "the acknowledgement of {ANN} was removed in {ICINGA}"
        ))
    });
    assert_eq!(icinga::acknowledgements(lab, WHAT), []);
    assert!(silence_of(lab, ANN).is_ok(), "there nobody took it back");
    stage.say(&format!("!ack {id}"), "is yours");
    until_held_for(lab, ANN);
}

fn a_word_given_back_here_ends_there(stage: &Stage<'_>, id: &str) {
    stage.say(&format!("!unack {id}"), "is nobody's");
    until_not_held_for(stage.lab(), ANN, LIMIT);
    stage.until_told(id, "nobody's word", |words| {
        !words.contains("acknowledged in")
    });
}

fn words_of_others_are_shown_and_left_alone(stage: &Stage<'_>, id: &str) {
    let lab = stage.lab();
    let theirs = others_speak(lab);
    stage.until_told(id, "the words of bob and carl", |words| {
        words.contains("acknowledged in icinga2 by bob: bob has it")
            && words.contains("in downtime in icinga2 by bob")
            && words.contains("silenced in alertmanager by carl")
    });
    // Ann takes it as well: two have it, and both are named.
    stage.say(&format!("!ack {id}"), "is yours");
    stage.until_told(id, "that two have it", |words| {
        words.contains(&format!(
            "two have it: {ANN} here, bob in {ICINGA}: bob has it"
        )) && words.contains(&format!("two have it: {ANN} here, carl in {ALERTMANAGER}"))
    });
    let bobs = [(BOB.to_owned(), "bob has it".to_owned())];
    assert_eq!(icinga::acknowledgements(lab, WHAT), bobs);
    // She gives it back; theirs stand.
    stage.say(&format!("!unack {id}"), "is nobody's");
    stage.until_told(id, "their words alone", |words| {
        !words.contains("two have it")
            && words.contains("acknowledged in icinga2 by bob: bob has it")
    });
    let not_hers = "here; acknowledged in icinga2 by bob: bob has it";
    stage.say(&format!("!unack {id}"), not_hers);
    assert_eq!(icinga::acknowledgements(lab, WHAT), bobs);
    let standing = icinga::silences(lab);
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0]["id"], *theirs);
    // They take theirs back.
    icinga::order(lab, "remove-acknowledgement", WHAT, json!({}));
    icinga::order(lab, "remove-downtime", WHAT, json!({}));
    icinga::end_silence(lab, &theirs);
    stage.until_told(id, "nobody's word", |words| {
        ["acknowledged in", "in downtime in", "silenced in"]
            .iter()
            .all(|word| !words.contains(word))
    });
}

/// An acknowledgement and a downtime of bob's, a silence of carl's; its id.
fn others_speak(lab: &Lab) -> String {
    let now = Timestamp::now();
    let until = now + SignedDuration::from_hours(1);
    let word = json!({"comment": "bob has it", "sticky": true, "notify": false});
    icinga::order(lab, "acknowledge-problem", WHAT, word);
    let downtime = json!({
        "comment": "new memory", "fixed": true, "start_time": now.as_second(), "end_time": until.as_second(),
    });
    icinga::order(lab, "schedule-downtime", WHAT, downtime);
    let matcher =
        json!({"name": "alertname", "value": "MemcachedDown", "isRegex": false, "isEqual": true});
    let silence = json!({
        "matchers": [matcher], "startsAt": now, "endsAt": until, "createdBy": "carl", "comment": "carl knows",
    });
    icinga::silence(lab, &silence)
}

fn it_ends_with_the_alerts(stage: &Stage<'_>, id: &str) {
    let lab = stage.lab();
    stage.say(&format!("!ack {id}"), "is yours");
    until_held_for(lab, ANN);
    lab.ssh_ok(WHAT.0, &["systemctl", "start", "memcached.service"])
        .unwrap();
    stage.until_over(WHAT.1, LISTED);
    until_not_held_for(lab, ANN, LISTED);
    stage.until_told(id, "that it is over", |words| words.contains("over: "));
}

/// Acknowledged in Icinga and silenced in Alertmanager, each once.
fn until_held_for(lab: &Lab, who: &str) {
    let what = format!("an acknowledgement and a silence for {who}");
    wait::until(&what, LIMIT, || {
        let held = icinga::acknowledgements(lab, WHAT);
        let acknowledged = icinga::check(lab, WHAT)["acknowledgement"] != 0.0;
        silence_of(lab, who)?;
        match &held[..] {
            [(by, _)] if by == who && acknowledged => Ok(()),
            _ => Err(format!("{held:?}")),
        }
    })
    .unwrap();
}

fn until_not_held_for(lab: &Lab, who: &str, limit: Duration) {
    let what = format!("neither an acknowledgement nor a silence for {who}");
    wait::until(&what, limit, || {
        let held = icinga::acknowledgements(lab, WHAT);
        let silence = silence_of(lab, who).ok();
        match held.is_empty() && silence.is_none() {
            true => Ok(()),
            false => Err(format!("{held:?} {silence:?}")),
        }
    })
    .unwrap();
}

/// The silence of somebody; there is one.
fn silence_of(lab: &Lab, who: &str) -> Result<Value, String> {
    let mut all = icinga::silences(lab);
    all.retain(|one| one["createdBy"] == who);
    match all.len() {
        1 => Ok(all.remove(0)),
        count => Err(format!("{count} silences of {who}")),
    }
}
