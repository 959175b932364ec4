//! What all parts look at: the bot's answers, and what it says in the room.

use std::time::Duration;

use jiff::Timestamp;
use lab::{Lab, scenario::Installation, wait};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::human::{Human, Seen};

/// The person in the room.
pub const ANN: &str = "matrix:@ann:lab.test";
/// For anything that takes seconds on a machine that has nothing else to do.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Stage<'a> {
    pub installation: &'a Installation,
    pub human: &'a Human,
    pub room: &'a str,
    pub runtime: &'a Runtime,
}

impl Stage<'_> {
    pub fn lab(&self) -> &Lab {
        self.installation.lab()
    }

    /// What the bot answers on its command line.
    pub fn data(&self, words: &[&str]) -> Value {
        self.installation.ask(words).unwrap()["data"].take()
    }

    /// All incidents about a service or an alert's name, the oldest first.
    pub fn incidents_about(&self, name: &str) -> Vec<Value> {
        let mut all = match self.data(&["incidents"])["incidents"].take() {
            Value::Array(all) => all,
            other => panic!("expected a list of incidents, found {other}"),
        };
        all.retain(|one| one["domain"]["name"] == name);
        all.sort_by_key(|one| one["id"].to_string());
        all
    }

    /// Waits for the open incident about it whose firing alerts have these names.
    pub fn open_incident(&self, about: &str, firing: &[&str]) -> String {
        let what = format!("an open incident about {about} with {firing:?}");
        let found = wait::until(&what, LIMIT, || {
            let all = self.incidents_about(about);
            let open = all.iter().find(|one| one["closed_at"].is_null());
            let fires = |one: &&Value| {
                let names = one["names_firing"].as_array();
                firing
                    .iter()
                    .all(|name| names.is_some_and(|all| all.iter().any(|one| one == name)))
            };
            let id = open.filter(fires).and_then(|one| one["id"].as_str());
            id.map(str::to_owned).ok_or_else(|| format!("{all:?}"))
        });
        found.unwrap()
    }

    /// Waits until nothing about it is open.
    pub fn until_over(&self, about: &str, limit: Duration) {
        let what = format!("the end of the incident about {about}");
        let over = wait::until(&what, limit, || {
            let all = self.incidents_about(about);
            let open = all.iter().find(|one| one["closed_at"].is_null());
            open.map_or(Ok(()), |one| Err(one.to_string()))
        });
        over.unwrap();
    }

    /// Says a command in the room and waits for an answer with these words.
    pub fn say(&self, command: &str, expected: &str) {
        let said = self.human.say(self.room, command);
        let event = self.runtime.block_on(said);
        let answered = self.human.wait(LIMIT, |seen| {
            let mut answers = seen
                .iter()
                .filter(|one| one.answers.as_ref() == Some(&event));
            answers.any(|one| one.body.contains(expected))
        });
        assert!(
            self.runtime.block_on(answered),
            "{command}: expected an answer with {expected:?}; seen: {:#?}",
            self.seen()
        );
    }

    /// Waits until the message of an incident says so.
    pub fn until_told(&self, incident: &str, what: &str, says: impl Fn(&str) -> bool) {
        let told = self.human.wait(LIMIT, |seen| {
            message_of(seen, incident).is_some_and(|one| says(&one.body))
        });
        let told = self.runtime.block_on(told);
        let seen = self.seen();
        let last = message_of(&seen, incident);
        assert!(told, "waited {LIMIT:?} for {what}; last told: {last:?}");
    }

    pub fn each_incident_was_told_once(&self) {
        let seen = self.seen();
        let incidents = self.data(&["incidents"]);
        let incidents = incidents["incidents"].as_array().unwrap();
        assert!(!incidents.is_empty());
        for incident in incidents {
            let id = incident["id"].as_str().unwrap();
            let of_it = seen.iter().filter(|one| is_about(one, id));
            let messages = of_it.filter(|one| one.edits.is_none()).count();
            // What may have been a symptom and ended while it was gathered was never told of.
            let at = |field: &str| {
                incident[field]
                    .as_str()
                    .map(|at| at.parse::<Timestamp>().unwrap())
            };
            let gathered = at("closed_at").zip(at("gathers_until"));
            let least = usize::from(gathered.is_none_or(|(closed, told)| closed > told));
            assert!(
                (least..=1).contains(&messages),
                "{messages} messages about {incident}"
            );
        }
        println!(
            "{} incidents, none in more than one message",
            incidents.len()
        );
    }

    fn seen(&self) -> Vec<Seen> {
        self.runtime.block_on(self.human.seen())
    }
}

/// No answer to a command, and no detail.
fn is_about(one: &Seen, incident: &str) -> bool {
    one.thread.is_none()
        && one.answers.is_none()
        && one.body.contains(&format!("incident {incident} since"))
}

/// The message of an incident as it was last edited.
fn message_of<'a>(seen: &'a [Seen], incident: &str) -> Option<&'a Seen> {
    seen.iter().rfind(|one| is_about(one, incident))
}
