//! What can be understood of a document with errors, so that other checks need not wait until those are mended.

use std::collections::BTreeSet;

use jsonschema::{Validator, error::ValidationErrorKind as Kind};
use serde_json::Value;

use super::{Document, explain::segments};
use crate::model::diagnostic::{Diagnostics, nearest};

/// What is cut away may be missed one level higher, and so on up to the root.
const ROUNDS: usize = 64;

/// A document and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Partly<T> {
    /// Without its wrong parts; `None` when too little is left.
    pub document: Option<Document<T>>,
    /// Top-level keys of the format that may not say what was meant.
    pub doubtful: BTreeSet<String>,
    pub errors: Diagnostics,
}

impl<T> Partly<T> {
    pub(super) fn nothing(errors: Diagnostics) -> Self {
        Self {
            document: None,
            doubtful: BTreeSet::new(),
            errors,
        }
    }

    /// # Errors
    /// Whatever is wrong with it.
    pub fn whole(self) -> Result<Document<T>, Diagnostics> {
        self.errors.or(())?;
        self.document.ok_or_else(Diagnostics::default)
    }
}

/// Takes away what the schema refuses until it refuses nothing; gives the doubtful keys. `None`: nothing would be left.
pub(super) fn prune(
    value: &mut Value,
    validator: &Validator,
    schema: &Value,
) -> Option<BTreeSet<String>> {
    let known = schema.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = known
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
        .collect();
    let mut doubtful = BTreeSet::new();
    for _ in 0..ROUNDS {
        let wrong = wrong_paths(value, validator);
        if wrong.is_empty() {
            return Some(doubtful);
        }
        for path in wrong {
            let top = path.first()?;
            // An unknown key was probably meant to be a known one, whose value is then not the one meant.
            doubtful.extend(nearest(top, known.iter().copied()).map(str::to_owned));
            cut(value, &path);
        }
    }
    None
}

fn wrong_paths(value: &Value, validator: &Validator) -> Vec<Vec<String>> {
    let paths = validator.iter_errors(value).flat_map(|error| {
        let path = segments(error.instance_path());
        match error.kind() {
            Kind::AdditionalProperties { unexpected }
            | Kind::UnevaluatedProperties { unexpected } => unexpected
                .iter()
                .map(|key| [&path[..], std::slice::from_ref(key)].concat())
                .collect(),
            _ => vec![path],
        }
    });
    paths.collect()
}

/// Removes a key. Of a list also what follows, so that no entry gets another's place.
fn cut(value: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(value, |value, part| match value {
        Value::Array(list) => list.get_mut(part.parse::<usize>().ok()?),
        other => other.get_mut(part),
    });
    match parent {
        Some(Value::Object(keys)) => {
            keys.remove(last);
        }
        Some(Value::Array(list)) => list.truncate(last.parse().unwrap_or(0)),
        // It went with something else.
        _ => {}
    }
}
