//! What is fuzzed: one function a door through which something comes from outside. Each takes any bytes and panics when what
//! must hold does not.
//!
//! The fuzzer calls them from `targets/`; `tests/tests/fuzz_corpus.rs` calls the same functions with the kept corpus in every
//! ordinary `cargo test`.

use std::collections::BTreeMap;

use bot::{
    command::{self, Vocabulary},
    rights::Role,
    wording::{Message, Severity, render},
};
use collectors::{
    Answer, Change, SourceName,
    alertmanager::{self, ALERTS_LIMIT, parse_webhook},
    elasticsearch, fold, icinga2, logs,
    prometheus::answer,
};
use deploy_engine::{
    condition::{self, ConditionCall},
    job::{JobEvent, JobState},
    model::{HostName, ServiceName, ServiceSpec, SiteFile, parse_document},
    probe::{self, Reading, Readings},
    wire::{CommandOutput, Event, Exit, Frame, ProbeResult, Reply, Request, decode, encode},
};
use jiff::Timestamp;
use runbooks::{
    format::Runbook,
    incident::{self, Incident},
    library,
    signatures::SignatureFile,
};
use serde::{Serialize, de::DeserializeOwned};

/// Takes any bytes; panics when what must hold does not.
pub type Door = fn(&[u8]);

/// Every target by its name: its folder in `corpus/`, its program in `targets/`.
pub const TARGETS: [(&str, Door); 10] = [
    ("api", api),
    ("chat", chat),
    ("frame", frame),
    ("icinga", icinga),
    ("journal", journal),
    ("logs", log_store),
    ("probe", probe),
    ("runbook", runbook),
    ("site", site),
    ("webhook", webhook),
];

/// Answers of Prometheus and Alertmanager: no panic, nothing that moves a cursor, times that can be reckoned with.
pub fn api(bytes: &[u8]) {
    let reply = Answer {
        asked: "GET http://source/".to_owned(),
        body: bytes.to_vec(),
    };
    let now = Timestamp::UNIX_EPOCH;
    let source = SourceName("am".to_owned());
    for alert in answer::alerts(&reply, &source, now).unwrap_or_default() {
        harmless(&alert.name);
        alert.labels.values().for_each(|value| harmless(value));
        assert!(matches!(fold(Some(&alert), &alert), Change::Repeat));
    }
    for target in answer::targets(&reply).unwrap_or_default() {
        // The gate multiplies it by its patience.
        let _ = target.interval * 1_000;
        target.labels.values().for_each(|value| harmless(value));
    }
    for rule in answer::rules(&reply).unwrap_or_default() {
        let _ = rule.interval * 1_000;
        harmless(&rule.name);
    }
    for sample in answer::samples(&reply).unwrap_or_default() {
        sample.labels.values().for_each(|value| harmless(value));
    }
    let labels = BTreeMap::from([("instance".to_owned(), "ctl1:9100".to_owned())]);
    for silence in alertmanager::read_silences(&reply).unwrap_or_default() {
        harmless(&silence.comment);
        let _ = silence.covers(&labels, now);
        let _ = silence.covers_host(&["ctl1", "10.0.0.1"], now);
    }
    match alertmanager::read_status(&reply) {
        Ok(status) => harmless(&status.version),
        Err(error) => harmless(&error.to_string()),
    }
}

/// Answers and events of Icinga: no panic, nothing that moves a cursor, times that can be reckoned with.
pub fn icinga(bytes: &[u8]) {
    let reply = Answer {
        asked: "POST https://icinga/v1/objects/services".to_owned(),
        body: bytes.to_vec(),
    };
    let now = Timestamp::UNIX_EPOCH;
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Err(why) = icinga2::answer::touched_by(line) {
            harmless(&why);
        }
    }
    for check in icinga2::answer::checks(&reply).unwrap_or_default() {
        // As of a scrape.
        let _ = check.interval * 1_000;
        harmless(&check.command);
    }
    let mut held = icinga2::answer::acknowledgements(&reply).unwrap_or_default();
    held.extend(icinga2::answer::downtimes(&reply, now).unwrap_or_default());
    for one in &held {
        harmless(&one.care.by);
        harmless(&one.care.comment);
    }
    let source = SourceName("icinga2".to_owned());
    let problems = icinga2::answer::problems(&reply, held, &source, now);
    for alert in problems.map(|state| state.firing).unwrap_or_default() {
        harmless(&alert.name);
        alert.labels.values().for_each(|value| harmless(value));
        assert!(matches!(fold(Some(&alert), &alert), Change::Repeat));
    }
}

/// Lines that people say: a command about things that exist, or a refusal that can be shown as it is.
pub fn chat(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    let names = vocabulary();
    let shown = match command::parse(&line, &names) {
        Ok((spec, understood)) => {
            only_known_names(&understood, &names);
            assert_eq!(
                command::spec_of(spec.name).map(|own| own.name),
                Some(spec.name)
            );
            command::help(spec, Role::Viewer, false, "!")
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2 * command::LINE_LIMIT_BYTES);
            let message = Message::new(Severity::Refused, text);
            let bare = Message::new(Severity::Refused, "");
            let tags = |message| render::html(message).matches('<').count();
            assert_eq!(tags(&message), tags(&bare), "words became HTML");
            harmless(render::plain(&message).trim_end());
            message
        }
    };
    assert!(!render::plain(&shown).is_empty());
    assert!(!render::ansi(&shown, 80).is_empty());
}

fn vocabulary() -> Vocabulary {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Vocabulary {
        services: ["mariadb", "rabbitmq"].map(service).into(),
        hosts: ["ctl1", "ctl2"].map(host).into(),
        runbooks: names(&["RMQ-1", "GAL-4"]),
        groups: names(&["control", "compute"]),
    }
}

fn only_known_names(understood: &command::Command, names: &Vocabulary) {
    use command::{Command, Target};
    match understood {
        Command::Plan { target } | Command::Deploy { target } => match target {
            Target::Site => {}
            Target::Service(service) => assert!(names.services.contains(service)),
        },
        Command::Remove { service } | Command::Redeploy { service } => {
            assert!(names.services.contains(service));
        }
        Command::Run { runbook, hosts } => {
            assert!(names.runbooks.contains(runbook));
            assert!(hosts.iter().all(|host| names.hosts.contains(host)));
        }
        _ => {}
    }
}

/// Frames between engine and agent, both ways: what was read is written the same.
pub fn frame(bytes: &[u8]) {
    read_and_write::<Request>(bytes);
    read_and_write::<Reply>(bytes);
    read_and_write::<Event>(bytes);
}

fn read_and_write<B: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, used))) = decode::<B>(rest) {
        let written = encode(&frame).expect("what was read can be written");
        let again: Frame<B> = decode(&written).expect("and read").expect("whole").0;
        assert_eq!(encode(&again).ok(), Some(written));
        rest = &rest[used..];
    }
}

/// Journals, one event a line: of a job, or of an incident. An event that cannot follow is refused with words and leaves no trace.
pub fn journal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut job = JobState::new();
    let mut about = open_incident();
    for line in text.lines() {
        if let Ok((at, event)) = serde_json::from_str::<(Timestamp, JobEvent)>(line) {
            job = match job.clone().apply(at, &event) {
                Ok(next) => next,
                Err(illegal) => {
                    assert!(!illegal.to_string().is_empty());
                    job
                }
            };
            for now in [Timestamp::MIN, at, Timestamp::MAX] {
                let _ = job.next(now);
            }
            same_when_read_again(&event);
        } else if let Ok((at, event)) = serde_json::from_str::<(Timestamp, incident::Event)>(line) {
            let before = about.clone();
            if about.apply(&event, at).is_err() {
                assert_eq!(about, before);
            }
            same_when_read_again(&event);
        }
    }
}

/// What a restart reads is what was written.
fn same_when_read_again<E: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(event: &E) {
    let written = serde_json::to_string(event).expect("an event can be written");
    let again: E = serde_json::from_str(&written).expect("and read");
    assert_eq!(&again, event);
}

/// Answers of stores of logs, files of signatures, and cursors: no panic, lines within their limits, samples that move nothing, and
/// what is read twice is new once.
pub fn log_store(bytes: &[u8]) {
    let reply = Answer {
        asked: "POST http://store/_search".to_owned(),
        body: bytes.to_vec(),
    };
    let program = ["programname".to_owned()];
    let _ = elasticsearch::Dialect::read(&reply).map(|dialect| {
        let frozen = dialect.snapshot() != elasticsearch::Snapshot::None;
        (dialect.tiebreak(frozen), dialect.interval())
    });
    let _ = elasticsearch::answer::exact_fields(&reply, &program);
    let _ = elasticsearch::answer::snapshot(&reply);
    if let Ok((count, _)) = elasticsearch::answer::count(&reply) {
        let now = count.newest.unwrap_or(Timestamp::UNIX_EPOCH);
        let window = logs::Window::default();
        let cursor = logs::Cursor::new(now, &window);
        let (from, to) = cursor.span(now, &window);
        assert!(from < to);
        for range in cursor.changed(&count.buckets, 1_000) {
            assert!(range.from < range.to);
        }
    }
    let fields = elasticsearch::Fields::default();
    let found = elasticsearch::answer::found(&reply);
    for hit in found.map(|found| found.hits).unwrap_or_default() {
        let Ok(line) = elasticsearch::answer::line(&reply, &hit, &fields) else {
            continue;
        };
        assert!(line.text.len() <= logs::LINE_LIMIT_BYTES);
        for name in [&line.host, &line.program, &line.level] {
            harmless(name);
        }
        harmless(&line.shown(400));
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(cursor) = serde_json::from_str::<logs::Cursor>(&text) {
        let again = serde_json::to_string(&cursor).expect("a cursor can be written");
        assert_eq!(
            serde_json::from_str::<logs::Cursor>(&again).ok(),
            Some(cursor)
        );
    }
    if let Err(errors) = parse_document::<SignatureFile>("signatures.yaml", &text) {
        assert!(!errors.to_string().is_empty());
    }
}

fn open_incident() -> Incident {
    let opened = serde_json::json!({
        "id": "i1", "domain": {"domain": "service", "name": "rabbitmq"}, "opened_at": "2026-11-22T21:00:00Z", "closed_at": null,
        "state": {"state": "open"}, "since": "2026-11-22T21:00:00Z", "alerts": {}, "subjects": [], "runbooks": ["RMQ-1"],
        "steady": {}, "unproven": [], "under": null, "tell_only": null,
    });
    serde_json::from_value(opened).expect("an incident")
}

/// What a host answers, to every probe of the registry, and every condition with what was read. The first byte chooses the kind
/// of answer (`0` to `7`). What nobody could read never lets a condition hold.
pub fn probe(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let result = probed(*kind, &String::from_utf8_lossy(text));
    let at = Timestamp::UNIX_EPOCH;
    let members = ["ctl1", "ctl2", "ctl3"].map(host);
    let mut readings = Readings::default();
    let mut understood = false;
    for probe in probe::registry() {
        let reading = match probe.parse(&result) {
            Ok(value) => {
                understood = true;
                let _ = probe::words(probe.name(), &value);
                Reading::Known { value, at }
            }
            Err(why) => {
                assert!(!why.is_empty(), "{} gives no reason", probe.name());
                Reading::Unknown { why, at }
            }
        };
        for member in &members {
            readings.insert(probe.name(), member.clone(), reading.clone());
        }
    }
    let failed = matches!(result, ProbeResult::Failed { .. });
    for condition in condition::registry() {
        let call = ConditionCall {
            name: condition.name().to_owned(),
            service: service("rabbitmq"),
            hosts: members[..1].to_vec(),
            members: members.to_vec(),
            settings: BTreeMap::new(),
        };
        let judgement = condition.judge(&call, &readings);
        assert!(!judgement.why().is_empty(), "{} gives no reason", call.name);
        let unknown = failed || !understood;
        assert!(
            !(unknown && judgement.holds()),
            "{} holds, though nothing is known",
            call.name
        );
    }
}

fn probed(kind: u8, text: &str) -> ProbeResult {
    let output = |code| CommandOutput {
        exit: Exit::Code(code),
        stdout: text.to_owned(),
        stderr: text.to_owned(),
        truncated: false,
        took_ms: 1,
    };
    let http = |status| ProbeResult::Http {
        status,
        body: text.to_owned(),
    };
    match kind % 8 {
        0 => ProbeResult::Command { output: output(0) },
        1 => ProbeResult::Command { output: output(1) },
        2 => http(200),
        3 => http(503),
        4 => ProbeResult::Socket {
            answer: text.to_owned(),
        },
        5 => ProbeResult::File {
            content: Some(text.to_owned()),
        },
        6 => ProbeResult::Units {
            properties: [("a.service".to_owned(), properties(text))].into(),
        },
        // Anything else that the wire can carry.
        _ => serde_json::from_str(text).unwrap_or_else(|_| ProbeResult::Failed {
            why: text.to_owned(),
        }),
    }
}

fn properties(text: &str) -> BTreeMap<String, String> {
    let property = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(property).collect()
}

/// Runbook files: understood and checked, or refused with words.
pub fn runbook(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_document::<Runbook>("runbook.yaml", &text) {
        Ok(document) => drop(library::check_document(&document).to_string()),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// Site and service files: understood, or refused with words.
pub fn site(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(errors) = parse_document::<SiteFile>("site.yaml", &text) {
        assert!(!errors.to_string().is_empty());
    }
    if let Err(errors) = parse_document::<ServiceSpec>("service.yaml", &text) {
        assert!(!errors.to_string().is_empty());
    }
}

/// Alertmanager's webhook: limits kept, nothing that moves a cursor, and telling it twice changes nothing.
pub fn webhook(bytes: &[u8]) {
    let source = SourceName("am".to_owned());
    let webhook = match parse_webhook(&source, bytes, Timestamp::UNIX_EPOCH) {
        Ok(webhook) => webhook,
        Err(error) => return harmless(&error.to_string()),
    };
    assert!(webhook.alerts.len() <= ALERTS_LIMIT);
    for alert in &webhook.alerts {
        harmless(&alert.name);
        let texts = alert.labels.iter().chain(&alert.annotations);
        texts
            .flat_map(|(name, value)| [name, value])
            .for_each(|text| harmless(text));
        assert!(matches!(fold(Some(alert), alert), Change::Repeat));
        assert!(matches!(fold(None, alert), Change::New | Change::Resolved));
    }
}

/// Texts from outside are tamed before anybody sees them.
fn harmless(text: &str) {
    let moves =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.contains(moves), "{text:?}");
}

fn host(name: &str) -> HostName {
    name.parse().expect("a name of a host")
}

fn service(name: &str) -> ServiceName {
    name.parse().expect("a name of a service")
}
