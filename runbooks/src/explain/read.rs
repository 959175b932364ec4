//! Alerts and alerting rules out of whatever people have: bodies of webhooks, answers of APIs, rule files, objects of Icinga.
//! Shapes are told apart by what is in them, not by names of files.

use std::collections::BTreeMap;

use deploy_engine::model::{Document, parse_document};
use serde_json::{Map, Value};

/// An alert or a rule that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    /// None: a rule, of which labels are only known when it fires.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Seen {
    /// As a person says it: a name, then labels as `label=value`.
    pub fn said<S: AsRef<str>>(words: &[S]) -> Self {
        let mut words = words.iter().map(AsRef::as_ref);
        let name = words.next().unwrap_or_default().to_owned();
        let labels: BTreeMap<String, String> = words
            .filter_map(|word| word.split_once('='))
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .collect();
        Self {
            name,
            labels: (!labels.is_empty()).then_some(labels),
        }
    }
}

/// What one text holds, and what of it cannot be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub seen: Vec<Seen>,
    pub errors: Vec<String>,
}

/// Deeper than this is no alert; JSON's own reader stops at 128.
const DEPTH_LIMIT: usize = 64;
/// Marks of templates that were not filled in: of Jinja, Go and Helm, of this program's services, of jsonnet and Python.
const TEMPLATE_MARKS: [&str; 5] = ["{{", "{%", "[[", "%(", "${"];

/// Pure. `file` names it in errors.
pub fn read(file: &str, text: &str) -> Read {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    match start.starts_with(['{', '['])
        && !TEMPLATE_MARKS.iter().any(|mark| start.starts_with(mark))
    {
        true => json(start),
        false => yaml(file, text),
    }
}

fn json(text: &str) -> Read {
    let mut read = Read::default();
    match serde_json::from_str::<Value>(text) {
        Ok(value) => walk(&value, 0, &mut read),
        // A stream of events: one object a line.
        Err(whole) => {
            let lines = text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty());
            for (number, line) in lines {
                match serde_json::from_str::<Value>(line) {
                    Ok(value) => walk(&value, 0, &mut read),
                    Err(_) if number == 0 => {
                        read.errors = vec![format!("expected JSON; found an error in it: {whole}")];
                        return read;
                    }
                    Err(error) => read.errors.push(format!("line {}: {error}", number + 1)),
                }
            }
        }
    }
    nothing_found(&mut read, "alerts");
    read
}

fn yaml(file: &str, text: &str) -> Read {
    let mut read = Read::default();
    for document in documents(text) {
        match parse_document::<Value>(file, &document) {
            Ok(Document { value, .. }) => walk(&value, 0, &mut read),
            Err(errors) => {
                let template = text.contains("{%") || text.contains("{{-");
                let hint = match template {
                    true => " (it looks like a template: render it first)",
                    false => "",
                };
                let first = errors.0.first();
                read.errors.push(first.map_or_else(
                    || "it cannot be read".to_owned(),
                    |error| format!("line {}: {}{hint}", error.line, error.message),
                ));
            }
        }
    }
    nothing_found(&mut read, "alerting rules");
    read
}

/// The documents of a YAML text, each at its own lines.
fn documents(text: &str) -> Vec<String> {
    let (mut all, mut current, mut before) = (Vec::new(), String::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let separates = line == "---" || line.starts_with("--- ") || line == "...";
        if separates {
            all.push((before, std::mem::take(&mut current)));
            before = number + 1;
            continue;
        }
        current.push_str(line);
        current.push('\n');
    }
    all.push((before, current));
    let said = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    all.retain(|(_, text)| text.lines().any(said));
    all.into_iter()
        .map(|(before, text)| format!("{}{text}", "\n".repeat(before)))
        .collect()
}

fn nothing_found(read: &mut Read, what: &str) {
    if read.seen.is_empty() && read.errors.is_empty() {
        read.errors.push(format!("expected {what}; found none"));
    }
}

fn walk(value: &Value, depth: usize, read: &mut Read) {
    if depth > DEPTH_LIMIT {
        return;
    }
    match value {
        Value::Array(all) => all.iter().for_each(|one| walk(one, depth + 1, read)),
        Value::Object(object) => match alert_in(object) {
            Some(seen) => keep(seen, read),
            None => object.values().for_each(|one| walk(one, depth + 1, read)),
        },
        // A rule file as a text within another, as in a ConfigMap of Kubernetes.
        Value::String(text)
            if text.contains("alert:") && text.contains("expr:") && text.contains('\n') =>
        {
            for document in documents(text) {
                if let Ok(inner) = parse_document::<Value>("", &document) {
                    walk(&inner.value, depth + 1, read);
                }
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn keep(seen: Seen, read: &mut Read) {
    match TEMPLATE_MARKS.iter().any(|mark| seen.name.contains(mark)) {
        true => read.errors.push(format!(
            "a name is a template that was not filled in: {:?}",
            seen.name
        )),
        false => read.seen.push(seen),
    }
}

/// The object is an alert or a rule, and nothing in it is another one.
fn alert_in(object: &Map<String, Value>) -> Option<Seen> {
    rule(object)
        .or_else(|| firing(object))
        .or_else(|| icinga_object(object))
        .or_else(|| icinga_event(object))
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(str::to_owned)
}

/// In a file (`alert`, `expr`), or as Prometheus' API tells it (`type: alerting`, `name`, `query`).
fn rule(object: &Map<String, Value>) -> Option<Seen> {
    let in_file = object
        .contains_key("expr")
        .then(|| text(object, "alert"))
        .flatten();
    let told = || {
        let is_alerting = object.get("type")?.as_str()? == "alerting";
        (is_alerting && object.contains_key("query")).then(|| text(object, "name"))?
    };
    let name = in_file.or_else(told)?;
    Some(Seen { name, labels: None })
}

/// As Alertmanager and Prometheus tell it.
fn firing(object: &Map<String, Value>) -> Option<Seen> {
    let labels = object.get("labels")?.as_object()?;
    let is_alert = ["startsAt", "activeAt", "fingerprint"]
        .iter()
        .any(|key| object.contains_key(*key));
    if !is_alert && !labels.contains_key("alertname") {
        return None;
    }
    let labels: BTreeMap<String, String> = labels
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let name = labels.get("alertname").cloned().unwrap_or_default();
    Some(Seen {
        name,
        labels: Some(labels),
    })
}

/// `/v1/objects/hosts` and `/v1/objects/services`.
fn icinga_object(object: &Map<String, Value>) -> Option<Seen> {
    let kind = object.get("type")?.as_str()?;
    let attrs = object.get("attrs")?.as_object()?;
    let host = match kind {
        "Host" => text(attrs, "name").or_else(|| text(object, "name"))?,
        "Service" => text(attrs, "host_name")?,
        _ => return None,
    };
    let service = (kind == "Service").then(|| text(attrs, "name")).flatten();
    Some(icinga(host, service, text(attrs, "check_command")))
}

/// `/v1/events`.
fn icinga_event(object: &Map<String, Value>) -> Option<Seen> {
    let kind = object.get("type")?.as_str()?;
    let events = ["StateChange", "CheckResult", "Notification", "Flapping"];
    if !events.iter().any(|event| kind.starts_with(event)) {
        return None;
    }
    let host = text(object, "host")?;
    Some(icinga(
        host,
        text(object, "service"),
        text(object, "check_command"),
    ))
}

fn icinga(host: String, service: Option<String>, check_command: Option<String>) -> Seen {
    let name = service.clone().unwrap_or_else(|| host.clone());
    let labels = [
        ("host", Some(host)),
        ("service", service),
        ("check_command", check_command),
    ];
    let labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Seen {
        name,
        labels: Some(labels),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
