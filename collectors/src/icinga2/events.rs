//! The event stream: one JSON object a line, of which only the name of its object is read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Named;
use crate::{SourceError, api::Opened};

/// What is worth reading objects again for. Versions that do not know one of these leave it out.
pub(super) const TYPES: [&str; 11] = [
    "StateChange",
    "AcknowledgementSet",
    "AcknowledgementCleared",
    "DowntimeAdded",
    "DowntimeRemoved",
    "DowntimeStarted",
    "DowntimeTriggered",
    "Flapping",
    "ObjectCreated",
    "ObjectModified",
    "ObjectDeleted",
];

/// The longest line, in bytes: an event holds the output of a check, which Icinga does not bound.
const LINE_LIMIT_BYTES: usize = 1024 * 1024;

/// The lines of a stream.
pub(super) struct Lines {
    opened: Opened,
    begun: Vec<u8>,
}

impl Lines {
    pub fn new(opened: Opened) -> Self {
        Self {
            opened,
            begun: Vec::new(),
        }
    }

    /// Objects of the next lines, at least one line. Cancel safe: what was read is kept.
    ///
    /// # Errors
    /// The stream has ended or broken, or says what it should not.
    pub async fn next(&mut self) -> Result<BTreeSet<Named>, SourceError> {
        loop {
            let mut touched = BTreeSet::new();
            let mut seen = false;
            while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                touched.extend(touched_by(&line).map_err(|found| self.shape(found))?);
                seen = true;
            }
            if seen {
                return Ok(touched);
            }
            if self.begun.len() > LINE_LIMIT_BYTES {
                return Err(SourceError::TooLarge {
                    asked: self.opened.asked().to_owned(),
                    limit_bytes: LINE_LIMIT_BYTES,
                });
            }
            match self.opened.next().await? {
                Some(bytes) => self.begun.extend(bytes),
                None if self.begun.is_empty() => return Err(self.shape("its end".to_owned())),
                // What it ended with says more, if it is no event.
                None => {
                    let said = touched_by(&self.begun).err();
                    return Err(self.shape(said.unwrap_or_else(|| "its end".to_owned())));
                }
            }
        }
    }

    fn shape(&self, found: String) -> SourceError {
        SourceError::Shape {
            asked: self.opened.asked().to_owned(),
            expected: "an answer of its API: a stream of events".to_owned(),
            found,
        }
    }
}

/// The object that an event is about; none that could be checked: None. Pure.
///
/// # Errors
/// No event.
pub fn touched_by(line: &[u8]) -> Result<Option<Named>, String> {
    let shown = || {
        let text: String = String::from_utf8_lossy(line).chars().take(200).collect();
        crate::label::tame(text.trim(), 400)
    };
    let event: Value =
        serde_json::from_slice(line).map_err(|error| format!("{error}: {}", shown()))?;
    let kind = event.get("type").and_then(Value::as_str);
    let kind = kind.ok_or_else(|| format!("no type of event: {}", shown()))?;
    let text = |at: &str| event.pointer(at).and_then(Value::as_str);
    let named = |host: &str, service: &str| {
        let host = text(host).filter(|host| !host.is_empty())?;
        let service = text(service).filter(|service| !service.is_empty());
        Some(Named {
            host: host.to_owned(),
            service: service.map(str::to_owned),
        })
    };
    let touched = if kind.starts_with("Downtime") {
        named("/downtime/host_name", "/downtime/service_name")
    } else if kind.starts_with("Object") {
        let is_checkable = matches!(text("/object_type"), Some("Host" | "Service"));
        let name = text("/object_name").filter(|_| is_checkable);
        return Ok(name.map(Named::of_full));
    } else {
        named("/host", "/service")
    };
    match touched {
        Some(named) => Ok(Some(named)),
        None => Err(format!("an event that names no host: {}", shown())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str, service: Option<&str>) -> Named {
        Named {
            host: host.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[rstest::rstest]
    #[case(r#"{"type": "StateChange", "host": "ctl1", "service": "memcached", "state": 2.0, "state_type": 1.0}"#, Some(named("ctl1", Some("memcached"))))]
    #[case(
        r#"{"type": "StateChange", "host": "ctl1", "state": 1}"#,
        Some(named("ctl1", None))
    )]
    #[case(
        r#"{"type": "AcknowledgementSet", "host": "ctl1", "service": "", "author": "ann"}"#,
        Some(named("ctl1", None))
    )]
    #[case(
        r#"{"type": "DowntimeStarted", "downtime": {"host_name": "ctl1", "service_name": "x"}}"#,
        Some(named("ctl1", Some("x")))
    )]
    #[case(
        r#"{"type": "ObjectDeleted", "object_type": "Service", "object_name": "ctl1!x!y"}"#,
        Some(named("ctl1", Some("x!y")))
    )]
    #[case(
        r#"{"type": "ObjectModified", "object_type": "Endpoint", "object_name": "ctl1"}"#,
        None
    )]
    fn events_name_their_object(#[case] line: &str, #[case] expected: Option<Named>) {
        assert_eq!(touched_by(line.as_bytes()), Ok(expected));
    }

    #[rstest::rstest]
    #[case("<html>Sign in</html>", "<html>Sign in</html>")]
    #[case("7", "no type of event: 7")]
    #[case(r#"{"type": "StateChange", "host": 7}"#, "an event that names no host")]
    fn others_are_errors(#[case] line: &str, #[case] expected: &str) {
        let error = touched_by(line.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_a_result(bytes: Vec<u8>) {
            let _ = touched_by(&bytes);
        }
    }
}
