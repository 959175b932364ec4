//! What Icinga's objects say: bytes in, state out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    Alert, Answer, SourceError, SourceName, Status, fingerprint,
    label::{ANNOTATION_LIMIT_BYTES, LABEL_VALUE_LIMIT_BYTES, tame},
    source::{Care, Covers, Handling, LONGEST_INTERVAL, State},
};

/// The name of the alert of a host that is down.
pub const HOST_DOWN: &str = "HostDown";
/// The name of the alert of a check that cannot say how things are: it says nothing about what it checks, so it does not have
/// that one's name.
pub const UNKNOWN: &str = "IcingaCheckUnknown";
/// A custom variable of a service: the name of its alert, if it shall not be that of the service.
const NAME_VARIABLE: &str = "alertname";
/// A custom variable of a service: the service of the site that the check is about. It becomes a label of the same name. Others do
/// not: there are passwords among them.
const SERVICE_VARIABLE: &str = "nightshift_service";

/// A host, or one service of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    pub host: String,
    pub service: Option<String>,
}

impl Named {
    /// As Icinga names it: `HOST` or `HOST!SERVICE`.
    pub fn full(&self) -> String {
        match &self.service {
            None => self.host.clone(),
            Some(service) => format!("{}!{service}", self.host),
        }
    }

    pub(super) fn of_full(name: &str) -> Self {
        match name.split_once('!') {
            None => Self {
                host: name.to_owned(),
                service: None,
            },
            Some((host, service)) => Self {
                host: host.to_owned(),
                service: Some(service.to_owned()),
            },
        }
    }

    /// Of its alert.
    pub fn fingerprint(&self) -> String {
        let mut identity = BTreeMap::from([("icinga2_host".to_owned(), self.host.clone())]);
        if let Some(service) = &self.service {
            identity.insert("icinga2_service".to_owned(), service.clone());
        }
        fingerprint(&identity)
    }
}

/// Hosts or services, and how they are asked for. Names are values of a filter, never part of it.
pub(super) struct Kind {
    pub path: &'static str,
    pub problems: &'static str,
    pub named: &'static str,
    pub attributes: &'static [&'static str],
    services: bool,
}

impl Kind {
    /// Values for its filter: the names that are of this kind; none: there are none.
    pub fn names(&self, all: &BTreeSet<Named>) -> Option<Value> {
        let of_kind = all
            .iter()
            .filter(|one| self.services == one.service.is_some());
        let names: Vec<_> = of_kind.map(Named::full).collect();
        (!names.is_empty()).then(|| serde_json::json!({ "names": names }))
    }
}

pub(super) static HOST: Kind = Kind {
    path: "v1/objects/hosts",
    problems: "host.state != 0",
    named: "host.__name in names",
    attributes: &[
        "name",
        "address",
        "check_command",
        "display_name",
        "flapping",
        "last_check_result",
        "last_hard_state_change",
        "last_reachable",
        "state",
        "state_type",
        "acknowledgement",
        "acknowledgement_expiry",
        "downtime_depth",
        "vars",
    ],
    services: false,
};

pub(super) static SERVICE: Kind = Kind {
    path: "v1/objects/services",
    problems: "service.state != 0",
    named: "service.__name in names",
    attributes: &[
        "name",
        "host_name",
        "check_command",
        "display_name",
        "flapping",
        "last_check_result",
        "last_hard_state_change",
        "last_reachable",
        "state",
        "state_type",
        "acknowledgement",
        "acknowledgement_expiry",
        "downtime_depth",
        "vars",
    ],
    services: true,
};

#[derive(Deserialize)]
struct Results<T> {
    results: Vec<T>,
}

#[derive(Deserialize)]
struct Object<T> {
    attrs: T,
}

/// A host or a service. Numbers come as `2` or `2.0`, by version.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Checkable {
    name: String,
    /// Only of a service.
    host_name: Option<String>,
    address: Option<String>,
    check_command: String,
    display_name: String,
    flapping: Option<bool>,
    last_check_result: Option<CheckResult>,
    last_hard_state_change: f64,
    last_reachable: Option<bool>,
    state: f64,
    state_type: f64,
    acknowledgement: f64,
    acknowledgement_expiry: f64,
    downtime_depth: f64,
    vars: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize)]
struct CheckResult {
    output: String,
}

#[derive(Deserialize)]
struct Comment {
    name: String,
    host_name: String,
    service_name: String,
    author: String,
    text: String,
    entry_type: f64,
    entry_time: f64,
    expire_time: f64,
}

#[derive(Deserialize)]
struct Downtime {
    name: String,
    host_name: String,
    service_name: String,
    author: String,
    comment: String,
    entry_time: f64,
    start_time: f64,
    end_time: f64,
    fixed: bool,
    duration: f64,
    trigger_time: f64,
}

/// A host or a service, as Icinga last checked it: evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckState {
    pub what: Named,
    /// The name of its check command.
    pub command: String,
    /// It is a problem, and that is hard.
    pub firing: bool,
    pub last_check: Timestamp,
    /// Between two checks of something that is well.
    pub interval: SignedDuration,
}

/// What a [`CheckState`] is read from.
pub(super) const CHECK_ATTRIBUTES: [&str; 7] = [
    "name",
    "host_name",
    "check_command",
    "check_interval",
    "last_check",
    "state",
    "state_type",
];

#[derive(Deserialize)]
struct Checked {
    name: String,
    host_name: Option<String>,
    check_command: String,
    check_interval: f64,
    last_check: f64,
    state: f64,
    state_type: f64,
}

/// Those that have been checked.
///
/// # Errors
/// No answer of its API.
pub fn checks(answer: &Answer) -> Result<Vec<CheckState>, SourceError> {
    let checks = attributes::<Checked>(answer)?.into_iter();
    let checks = checks.filter_map(|one| {
        Some(CheckState {
            what: what(&one.name, one.host_name.as_deref()),
            command: tame(&one.check_command, LABEL_VALUE_LIMIT_BYTES),
            firing: one.state != 0.0 && one.state_type == HARD,
            last_check: time(one.last_check)?,
            interval: SignedDuration::from_secs_f64(
                one.check_interval
                    .clamp(0.0, LONGEST_INTERVAL.as_secs_f64()),
            ),
        })
    });
    Ok(checks.collect())
}

/// `StateTypeHard`.
const HARD: f64 = 1.0;

fn what(name: &str, host: Option<&str>) -> Named {
    match host {
        None => Named {
            host: name.to_owned(),
            service: None,
        },
        Some(host) => Named {
            host: host.to_owned(),
            service: Some(name.to_owned()),
        },
    }
}

/// Somebody takes care of a host or a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub what: Named,
    pub by: HeldBy,
    pub care: Care,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    Acknowledgement,
    Downtime,
}

fn attributes<T: DeserializeOwned>(answer: &Answer) -> Result<Vec<T>, SourceError> {
    let results: Results<Object<T>> = answer.json()?;
    Ok(results.results.into_iter().map(|one| one.attrs).collect())
}

/// What is so, by an answer to the question for everything that is not OK.
///
/// # Errors
/// No answer of its API.
pub fn problems(
    answer: &Answer,
    held: Vec<Held>,
    source: &SourceName,
    asked_at: Timestamp,
) -> Result<State, SourceError> {
    let part = Part {
        asked_at,
        named: None,
        checkables: checkables(answer)?,
        held,
    };
    Ok(part.state(source))
}

pub(super) fn checkables(answer: &Answer) -> Result<Vec<Checkable>, SourceError> {
    attributes(answer)
}

fn time(seconds: f64) -> Option<Timestamp> {
    if seconds <= 0.0 {
        return None;
    }
    Timestamp::from_microsecond((seconds * 1e6) as i64).ok()
}

fn named(host: String, service: String) -> Named {
    Named {
        host,
        service: Some(service).filter(|service| !service.is_empty()),
    }
}

/// Of an answer to a question for comments; only those that acknowledge.
///
/// # Errors
/// No answer of its API.
pub fn acknowledgements(answer: &Answer) -> Result<Vec<Held>, SourceError> {
    /// `CommentAcknowledgement`.
    const ACKNOWLEDGEMENT: f64 = 4.0;
    let comments = attributes::<Comment>(answer)?.into_iter();
    let acknowledgements = comments.filter(|one| one.entry_type == ACKNOWLEDGEMENT);
    let held = acknowledgements.map(|one| Held {
        what: named(one.host_name, one.service_name),
        by: HeldBy::Acknowledgement,
        care: Care {
            id: tame(&one.name, LABEL_VALUE_LIMIT_BYTES),
            by: tame(&one.author, LABEL_VALUE_LIMIT_BYTES),
            comment: tame(&one.text, ANNOTATION_LIMIT_BYTES),
            since: time(one.entry_time),
            until: time(one.expire_time),
        },
    });
    Ok(held.collect())
}

/// Downtimes that are in effect at `now` (by the bot's clock, so one that is about to begin within the clocks' difference may count
/// already). A flexible one begins with the first problem in its window.
///
/// # Errors
/// No answer of its API.
pub fn downtimes(answer: &Answer, now: Timestamp) -> Result<Vec<Held>, SourceError> {
    let now = now.as_microsecond() as f64 / 1e6;
    let held = attributes::<Downtime>(answer)?
        .into_iter()
        .filter_map(|one| {
            let (begins, ends) = match one.fixed {
                true => (one.start_time, one.end_time),
                false if one.trigger_time > 0.0 => {
                    (one.trigger_time, one.trigger_time + one.duration)
                }
                false => return None,
            };
            (begins <= now && now < ends).then(|| Held {
                what: named(one.host_name, one.service_name),
                by: HeldBy::Downtime,
                care: Care {
                    id: tame(&one.name, LABEL_VALUE_LIMIT_BYTES),
                    by: tame(&one.author, LABEL_VALUE_LIMIT_BYTES),
                    comment: tame(&one.comment, ANNOTATION_LIMIT_BYTES),
                    since: time(begins).or_else(|| time(one.entry_time)),
                    until: time(ends),
                },
            })
        });
    Ok(held.collect())
}

/// How Icinga itself is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Vitals {
    hosts: u64,
    problems: u64,
    /// By its clock.
    pub now: Timestamp,
}

/// Of answers to `v1/status/CIB` and `v1/status/IcingaApplication`.
pub(super) fn vitals(counts: &Answer, app: &Answer) -> Result<Vitals, SourceError> {
    let number = |answer: &Answer, at: &str| {
        let root: Value = answer.json()?;
        let found = root.pointer(at).and_then(Value::as_f64);
        found.ok_or_else(|| SourceError::Shape {
            asked: answer.asked.clone(),
            expected: format!("a number at {at}, an answer of its API"),
            found: tame(&root.to_string().chars().take(200).collect::<String>(), 400),
        })
    };
    let count = |name: &str| number(counts, &format!("/results/0/status/{name}"));
    let mut hosts = 0.0;
    for name in ["num_hosts_up", "num_hosts_down", "num_hosts_pending"] {
        hosts += count(name)?;
    }
    let mut problems = count("num_hosts_down")?;
    for name in ["warning", "critical", "unknown"] {
        problems += count(&format!("num_services_{name}"))?;
    }
    let started = number(app, "/results/0/status/icingaapplication/app/program_start")?;
    let now = time(started + count("uptime")?);
    Ok(Vitals {
        hosts: hosts as u64,
        problems: problems as u64,
        now: now.unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

impl Vitals {
    /// Can this be everything? An Icinga without a host, or one that counts problems and shows none, does not show all: its user
    /// may not see it, or its configuration is not loaded.
    pub fn fit(&self, part: &Part) -> Result<(), String> {
        if self.hosts == 0 {
            return Err("expected an Icinga that has hosts, found none".to_owned());
        }
        if self.problems > 0 && part.checkables.is_empty() {
            return Err(format!(
                "expected to see the {} problems that it counts, found none: may the API user see all hosts and services?",
                self.problems
            ));
        }
        Ok(())
    }
}

/// What was read at once.
pub(super) struct Part {
    pub asked_at: Timestamp,
    /// None: everything that is not OK was asked for.
    pub named: Option<BTreeSet<Named>>,
    pub checkables: Vec<Checkable>,
    pub held: Vec<Held>,
}

impl Part {
    pub fn state(&self, source: &SourceName) -> State {
        let (mut firing, mut ended, mut handled) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut undecided = BTreeSet::new();
        for one in &self.checkables {
            let fingerprint = one.what().fingerprint();
            match one.judge() {
                Judged::Fires => {
                    firing.push(one.alert(source, self.asked_at));
                    let handling = one.handling(&self.held);
                    if !handling.is_nobody() {
                        handled.insert(fingerprint, handling);
                    }
                }
                Judged::Fine => {
                    ended.extend(Some(fingerprint).zip(time(one.last_hard_state_change)));
                }
                Judged::Undecided => drop(undecided.insert(fingerprint)),
            }
        }
        let covers = match &self.named {
            None => Covers::EverythingBut(undecided),
            Some(named) => {
                let named = named.iter().map(Named::fingerprint);
                Covers::These(named.filter(|one| !undecided.contains(one)).collect())
            }
        };
        State {
            asked_at: self.asked_at,
            covers,
            firing,
            ended,
            handled,
        }
    }
}

enum Judged {
    Fires,
    Fine,
    /// A problem that is not one for sure yet, or no result at all.
    Undecided,
}

impl Checkable {
    fn what(&self) -> Named {
        what(&self.name, self.host_name.as_deref())
    }

    fn judge(&self) -> Judged {
        match (&self.last_check_result, self.state == 0.0) {
            (None, _) => Judged::Undecided,
            (Some(_), true) => Judged::Fine,
            (Some(_), false) if self.state_type == HARD => Judged::Fires,
            (Some(_), false) => Judged::Undecided,
        }
    }

    /// The state and how bad that is.
    fn state(&self) -> (&'static str, &'static str) {
        match (self.host_name.is_some(), self.state as u8) {
            (true, 1) => ("WARNING", "warning"),
            (true, 2) => ("CRITICAL", "critical"),
            (true, _) => ("UNKNOWN", "warning"),
            (false, _) => ("DOWN", "critical"),
        }
    }

    /// What is checked, by name.
    fn checked(&self) -> &str {
        if self.host_name.is_none() {
            return HOST_DOWN;
        }
        self.variable(NAME_VARIABLE).unwrap_or(&self.name)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.vars.as_ref()?.get(name)?.as_str()?;
        Some(value).filter(|value| !value.is_empty())
    }

    fn alert(&self, source: &SourceName, received_at: Timestamp) -> Alert {
        let (state, severity) = self.state();
        let what = self.what();
        let checked = tame(self.checked(), LABEL_VALUE_LIMIT_BYTES);
        let name = match state {
            "UNKNOWN" => UNKNOWN.to_owned(),
            _ => checked.clone(),
        };
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| {
            let value = tame(value, LABEL_VALUE_LIMIT_BYTES);
            labels.insert(name.to_owned(), value);
        };
        label("alertname", &name);
        label("host", &what.host);
        if let Some(service) = &what.service {
            label("icinga_service", service);
            label("check", &checked);
        }
        if let Some(service) = self.variable(SERVICE_VARIABLE) {
            label(SERVICE_VARIABLE, service);
        }
        label("check_command", &self.check_command);
        label("state", state);
        label("severity", severity);
        if let Some(address) = self.address.as_deref().filter(|one| !one.is_empty()) {
            label("address", address);
        }
        if self.last_reachable == Some(false) {
            label("reachable", "false");
        }
        if self.flapping == Some(true) {
            label("flapping", "true");
        }
        let output = self
            .last_check_result
            .as_ref()
            .map(|result| &*result.output);
        let annotations = [
            ("summary", format!("{} is {state}", self.display_name)),
            ("description", output.unwrap_or_default().to_owned()),
        ];
        Alert {
            source: source.clone(),
            fingerprint: what.fingerprint(),
            name,
            labels,
            annotations: annotations
                .map(|(name, text)| (name.to_owned(), tame(&text, ANNOTATION_LIMIT_BYTES)))
                .into(),
            status: Status::Firing,
            // Not the time of the question: that would be another start with each.
            starts_at: time(self.last_hard_state_change).unwrap_or(Timestamp::UNIX_EPOCH),
            ends_at: None,
            generator_url: String::new(),
            received_at,
        }
    }

    /// The object says whether, the comments and downtimes say who.
    fn handling(&self, held: &[Held]) -> Handling {
        let what = self.what();
        let of = |by: HeldBy| {
            let of_this = held.iter().filter(|one| one.what == what);
            of_this.filter(move |one| one.by == by)
        };
        let latest = of(HeldBy::Acknowledgement).max_by_key(|one| one.care.since);
        let nameless = || Care {
            id: String::new(),
            by: String::new(),
            comment: String::new(),
            since: None,
            until: time(self.acknowledgement_expiry),
        };
        let acknowledged = (self.acknowledgement > 0.0)
            .then(|| latest.map_or_else(nameless, |one| one.care.clone()));
        let mut downtimes: Vec<Care> = of(HeldBy::Downtime).map(|one| one.care.clone()).collect();
        if downtimes.is_empty() && self.downtime_depth > 0.0 {
            downtimes.push(Care {
                until: None,
                ..nameless()
            });
        }
        Handling {
            acknowledged,
            downtimes,
            silences: Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
