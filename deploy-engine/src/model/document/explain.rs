//! A schema's complaint → a diagnostic in plain words.

use jsonschema::{ValidationError, error::ValidationErrorKind as Kind};
use serde_json::Value;

use super::tree::{Node, Place};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, nearest};
use crate::model::resource::MODE_PATTERN;

/// Values longer than this are cut in messages, in characters.
const FOUND_LIMIT: usize = 60;

pub fn explain(
    error: &ValidationError<'_>,
    schema: &Value,
    source: &Source,
    root: &Node,
    into: &mut Diagnostics,
) {
    let path = segments(error.instance_path());
    let rule = parent_rule(error, schema);
    let at =
        |place: Place, message: String| source.at(place.line, place.column, place.width, message);
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            for key in unexpected {
                let mut full = path.clone();
                full.push(key.clone());
                into.push(unknown_key(key, rule, |message| {
                    at(root.key_place(&full), message)
                }));
            }
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let place = root.key_place(&path);
            let doc = rule
                .pointer(&format!("/properties/{name}/description"))
                .and_then(Value::as_str)
                .map(|doc| format!(": {doc}"));
            into.push(
                at(place, format!("`{name}` is missing{}", inside(&path)))
                    .expected(format!("`{name}`{}", doc.unwrap_or_default())),
            );
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            explain_choice(error, context, schema, source, root, into);
        }
        kind => {
            let place = root.place(&path);
            let message = format!("{} is wrong", subject(&path));
            into.push(
                at(place, message)
                    .expected(wanted(kind, rule, schema))
                    .found(short(error.instance())),
            );
        }
    }
}

/// One of several forms was expected: tell what is wrong with the form that was most likely meant.
fn explain_choice(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    schema: &Value,
    source: &Source,
    root: &Node,
    into: &mut Diagnostics,
) {
    let path = segments(error.instance_path());
    let here = path.len();
    // A form whose own type or tag does not fit was not meant.
    let meant: Vec<_> = context
        .iter()
        .filter(|errors| !errors.iter().any(|e| wrong_form(e, here)))
        .collect();
    let best = meant.iter().min_by_key(|errors| weight(errors));
    let close =
        best.filter(|best| meant.len() == 1 || shares_a_key(best, error.instance(), schema));
    if let Some(best) = close {
        for inner in best.iter() {
            explain(inner, schema, source, root, into);
        }
        return;
    }
    let place = root.place(&path);
    let rule = parent_rule(error, schema);
    let forms: Vec<String> = ["anyOf", "oneOf"]
        .iter()
        .filter_map(|keyword| rule.get(keyword)?.as_array())
        .flatten()
        .filter_map(|form| form_words(form, schema))
        .collect();
    let message = format!("{} is wrong", subject(&path));
    let diagnostic = source
        .at(place.line, place.column, place.width, message)
        .expected(one_of(&forms))
        .found(short(error.instance()));
    into.push(suggest_form(diagnostic, error.instance(), &forms));
}

/// A key close to the one that names a form was probably meant to be it.
fn suggest_form(diagnostic: Diagnostic, found: &Value, forms: &[String]) -> Diagnostic {
    let names: Vec<&str> = forms
        .iter()
        .filter_map(|form| form.split('`').nth(1))
        .collect();
    let slips = found.as_object().into_iter().flat_map(|keys| keys.keys());
    let near = slips
        .filter_map(|key| nearest(key, names.iter().copied()))
        .next();
    match near {
        Some(near) => diagnostic.suggestion(format!("did you mean `{near}`?")),
        None => diagnostic,
    }
}

fn wrong_form(error: &ValidationError<'_>, depth: usize) -> bool {
    let here = segments(error.instance_path()).len();
    match error.kind() {
        Kind::Type { .. } | Kind::Enum { .. } | Kind::Pattern { .. } => here == depth,
        Kind::Constant { .. } => here <= depth + 1,
        _ => false,
    }
}

/// The fewer complaints, the more likely it was meant.
fn weight(errors: &[ValidationError<'_>]) -> usize {
    errors
        .iter()
        .map(|error| match error.kind() {
            Kind::AdditionalProperties { unexpected } => unexpected.len() * 2,
            _ => 1,
        })
        .sum()
}

/// Does the form require a key that is there?
fn shares_a_key(errors: &[ValidationError<'_>], found: &Value, schema: &Value) -> bool {
    let Some(found) = found.as_object() else {
        return true;
    };
    let missing = |key: &str| {
        errors.iter().any(
            |error| matches!(error.kind(), Kind::Required { property } if property.as_str() == Some(key)),
        )
    };
    errors.iter().all(|error| {
        let required = parent_rule(error, schema).get("required");
        let required = required.and_then(Value::as_array);
        required.is_none_or(|keys| {
            keys.first()
                .and_then(Value::as_str)
                .is_none_or(|key| found.contains_key(key) && !missing(key))
        })
    })
}

fn unknown_key(key: &str, rule: &Value, at: impl Fn(String) -> Diagnostic) -> Diagnostic {
    let known: Vec<&str> = rule
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if let Some(patterns) = rule.get("patternProperties").and_then(Value::as_object) {
        let patterns: Vec<String> = patterns.keys().map(|p| pattern_words(p)).collect();
        let words = rule.pointer("/propertyNames/description");
        let words = words.and_then(Value::as_str).map(str::to_owned);
        return at(format!("`{key}` cannot be a name here"))
            .expected(words.unwrap_or_else(|| patterns.join(" or ")))
            .found(format!("`{key}`"));
    }
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    at(format!("unknown key `{key}`"))
        .expected(one_of(&quoted))
        .did_you_mean(key, known)
}

fn wanted(kind: &Kind, rule: &Value, schema: &Value) -> String {
    match kind {
        Kind::Type { .. } | Kind::Minimum { .. } | Kind::Maximum { .. } => {
            form_words(rule, schema).unwrap_or_else(|| "another type".to_owned())
        }
        Kind::Enum { options } => {
            let options: Vec<String> = options
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|option| format!("`{option}`"))
                .collect();
            one_of(&options)
        }
        Kind::Constant { expected_value } => short(expected_value),
        Kind::Pattern { pattern } => pattern_words(pattern),
        Kind::MinItems { limit } => format!("at least {limit} entries"),
        Kind::MaxItems { limit } => format!("at most {limit} entries"),
        Kind::MinLength { limit } => format!("at least {limit} characters"),
        Kind::MaxLength { limit } => format!("at most {limit} characters"),
        Kind::MinProperties { limit } => format!("at least {limit} entries"),
        Kind::UniqueItems => "every entry once".to_owned(),
        other => format!("what the rule `{}` allows", other.keyword()),
    }
}

/// A schema in words: `a whole number from 1 to 65535`.
fn form_words(rule: &Value, schema: &Value) -> Option<String> {
    if let Some(reference) = rule.get("$ref").and_then(Value::as_str) {
        return form_words(schema.pointer(reference.strip_prefix('#')?)?, schema);
    }
    if let Some(constant) = rule.get("const") {
        return Some(short(constant));
    }
    if let Some(options) = rule.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = options.iter().map(short).collect();
        return Some(one_of(&words));
    }
    if let Some(pattern) = rule.get("pattern").and_then(Value::as_str) {
        return Some(pattern_words(pattern));
    }
    let range = match (rule.get("minimum"), rule.get("maximum")) {
        (Some(low), Some(high)) => format!(" from {low} to {high}"),
        (Some(low), None) => format!(" of at least {low}"),
        (None, Some(high)) => format!(" of at most {high}"),
        (None, None) => String::new(),
    };
    let types = match rule.get("type")? {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let words: Vec<String> = types
        .into_iter()
        .filter_map(|name| {
            Some(match name {
                "integer" => format!("a whole number{range}"),
                "number" => format!("a number{range}"),
                "string" => "text".to_owned(),
                "boolean" => "true or false".to_owned(),
                "array" => "a list".to_owned(),
                "object" => object_words(rule),
                _ => return None,
            })
        })
        .collect();
    (!words.is_empty()).then(|| one_of(&words))
}

fn object_words(rule: &Value) -> String {
    let required = rule.get("required").and_then(Value::as_array);
    match required
        .and_then(|keys| keys.first())
        .and_then(Value::as_str)
    {
        Some(key) => format!("a mapping with `{key}`"),
        None => "a mapping".to_owned(),
    }
}

fn pattern_words(pattern: &str) -> String {
    match pattern {
        crate::model::name::NAME_PATTERN => {
            "a name: at most 63 lower-case letters, digits, `-` and `_`, starting with a letter"
                .to_owned()
        }
        MODE_PATTERN => "an octal mode in quotes, for example \"0644\"".to_owned(),
        other => format!("text matching {other}"),
    }
}

/// The schema object whose keyword complained.
fn parent_rule<'s>(error: &ValidationError<'_>, schema: &'s Value) -> &'s Value {
    let pointer = error.schema_path().as_str();
    let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    schema.pointer(parent).unwrap_or(&Value::Null)
}

pub(super) fn segments(path: &jsonschema::paths::Location) -> Vec<String> {
    path.into_iter()
        .map(|segment| segment.to_string())
        .collect()
}

fn subject(path: &[String]) -> String {
    match path.last() {
        None => "the document".to_owned(),
        Some(last) if last.parse::<usize>().is_ok() => match path.iter().rev().nth(1) {
            Some(list) => format!("an entry of `{list}`"),
            None => "an entry".to_owned(),
        },
        Some(last) => format!("`{last}`"),
    }
}

fn inside(path: &[String]) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" in {}", subject(path))
    }
}

/// `a`, `b` or `c`; a beginning that all but the first share with it is said once.
fn one_of(words: &[String]) -> String {
    const SHARED: &str = "a mapping with ";
    let mut seen = false;
    let words: Vec<String> = words
        .iter()
        .map(|word| match word.strip_prefix(SHARED) {
            Some(rest) if std::mem::replace(&mut seen, true) => rest.to_owned(),
            _ => word.clone(),
        })
        .collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

/// The value as it would be written, cut to a readable length.
pub fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(entries) => format!("a list of {}", entries.len()),
        Value::Object(entries) => {
            let keys: Vec<&str> = entries.keys().map(String::as_str).collect();
            format!("a mapping with {}", keys.join(", "))
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(FOUND_LIMIT) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}
