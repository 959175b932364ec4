//! One loader for every YAML format of the house: site, service, runbook, configuration.
//!
//! The JSON Schema made from the Rust type is what an editor completes with and what is enforced here, so both agree.
//! All errors are reported at once, each with its line and column.

mod explain;
mod partly;
mod tree;

use std::{
    any::TypeId,
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::diagnostic::{Diagnostic, Diagnostics, Source};
pub use explain::short;
pub use partly::Partly;
pub use tree::{Node, Place};

/// The largest file that is read, in bytes: far above any site, far below what hurts.
pub const DOCUMENT_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// A value and where each part of it was written.
#[derive(Clone, Debug)]
pub struct Document<T> {
    pub value: T,
    pub source: Source,
    pub root: Node,
}

impl<T> Document<T> {
    /// An error about the value under `path` (keys, and list positions as numbers).
    pub fn error_at<S: AsRef<str>>(&self, path: &[S], message: impl Into<String>) -> Diagnostic {
        at(&self.source, self.root.place(path), message)
    }

    /// An error about the last key of `path` itself.
    pub fn error_at_key<S: AsRef<str>>(
        &self,
        path: &[S],
        message: impl Into<String>,
    ) -> Diagnostic {
        at(&self.source, self.root.key_place(path), message)
    }

    /// The same document with its value turned into another.
    pub fn map<U>(self, turn: impl FnOnce(T) -> U) -> Document<U> {
        Document {
            value: turn(self.value),
            source: self.source,
            root: self.root,
        }
    }
}

fn at(source: &Source, place: Place, message: impl Into<String>) -> Diagnostic {
    source.at(place.line, place.column, place.width, message)
}

/// The JSON Schema (2020-12) of a format, for editors.
pub fn schema<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// Reads and checks one file.
///
/// # Errors
/// All that is wrong with it; a file that cannot be read is one diagnostic.
pub fn load_document<T: DeserializeOwned + JsonSchema + 'static>(
    path: &Path,
) -> Result<Document<T>, Diagnostics> {
    load_partly(path).whole()
}

/// Reads and checks one file, and keeps what can be understood of a wrong one.
pub fn load_partly<T: DeserializeOwned + JsonSchema + 'static>(path: &Path) -> Partly<T> {
    match read_text(path) {
        Ok(text) => parse_partly(&path.display().to_string(), &text),
        Err(errors) => Partly::nothing(errors),
    }
}

/// The text of a file that a person wrote.
///
/// # Errors
/// One diagnostic: it cannot be read, is too large, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Diagnostics> {
    let name = path.display().to_string();
    let refuse =
        |error: std::io::Error| Diagnostic::whole_file(&name, format!("cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(refuse)?.len();
    if size > DOCUMENT_LIMIT_BYTES {
        return Err(Diagnostic::whole_file(&name, "the file is too large")
            .expected(format!("at most {DOCUMENT_LIMIT_BYTES} bytes"))
            .found(format!("{size} bytes"))
            .into());
    }
    Ok(std::fs::read_to_string(path).map_err(refuse)?)
}

/// Checks `text`, called `name` in errors.
///
/// # Errors
/// All that is wrong with it.
pub fn parse_document<T: DeserializeOwned + JsonSchema + 'static>(
    name: &str,
    text: &str,
) -> Result<Document<T>, Diagnostics> {
    parse_partly(name, text).whole()
}

/// Checks `text`, called `name` in errors, and keeps what can be understood of it.
fn parse_partly<T: DeserializeOwned + JsonSchema + 'static>(name: &str, text: &str) -> Partly<T> {
    let source = Source::new(name, text);
    let (root, mut errors) = tree::parse(&source, text);
    let Some(root) = root else {
        return Partly::nothing(errors);
    };
    let format = match Format::of::<T>() {
        Ok(format) => format,
        Err(why) => return Partly::nothing(Diagnostic::whole_file(name, why).into()),
    };
    let mut value = root.to_value();
    for error in format.validator.iter_errors(&value) {
        explain::explain(&error, &format.schema, &source, &root, &mut errors);
    }
    let Some(doubtful) = partly::prune(&mut value, &format.validator, &format.schema) else {
        return Partly::nothing(errors);
    };
    match serde_json::from_value(value) {
        Ok(value) => Partly {
            document: Some(Document {
                value,
                source,
                root,
            }),
            doubtful,
            errors,
        },
        Err(error) => {
            errors.push(Diagnostic::whole_file(name, error.to_string()));
            Partly::nothing(errors)
        }
    }
}

/// A format's schema, ready to be enforced.
struct Format {
    schema: Value,
    validator: jsonschema::Validator,
}

impl Format {
    /// Made once in a process: dozens of files have one format, and making its validator takes longer than checking a file.
    fn of<T: JsonSchema + 'static>() -> Result<Arc<Self>, String> {
        static MADE: Mutex<BTreeMap<TypeId, Arc<Format>>> = Mutex::new(BTreeMap::new());
        // An entry is whole or not there, whoever panicked.
        let mut made = MADE.lock().unwrap_or_else(|held| held.into_inner());
        if let Some(format) = made.get(&TypeId::of::<T>()) {
            return Ok(format.clone());
        }
        let schema = schema::<T>();
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| format!("the format's own schema is wrong: {error}"))?;
        let format = Arc::new(Self { schema, validator });
        made.insert(TypeId::of::<T>(), format.clone());
        Ok(format)
    }
}

#[cfg(test)]
mod tests;
