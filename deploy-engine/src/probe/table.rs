//! How a probe file lists its probes, and how parsers take the answer that they expect.

use serde::Serialize;

use super::{NamedProbe, ProbeContext};
use crate::wire::{self, CommandOutput, Exit, ProbeResult};

/// One probe of a table: a question and the pure parser of its answer.
pub struct Entry {
    pub name: &'static str,
    pub service: Option<&'static str>,
    pub request: fn(&ProbeContext<'_>) -> wire::Probe,
    pub parse: fn(&ProbeResult) -> Result<serde_json::Value, String>,
}

impl NamedProbe for Entry {
    fn name(&self) -> &'static str {
        self.name
    }

    fn service(&self) -> Option<&'static str> {
        self.service
    }

    fn is_about_one(&self) -> bool {
        self.name == super::host::UNIT
    }

    fn request(&self, context: &ProbeContext<'_>) -> wire::Probe {
        (self.request)(context)
    }

    fn parse(&self, result: &ProbeResult) -> Result<serde_json::Value, String> {
        (self.parse)(result)
    }
}

/// Most of what a probe prints is a few kilobytes; lists of queues or units are the largest.
pub const OUTPUT_LIMIT_BYTES: u32 = 64 * 1024;
/// For lists that grow with the site (queues, units, processes).
pub const LIST_LIMIT_BYTES: u32 = 4 * 1024 * 1024;
/// A local server that does not answer in this time is not answering.
pub const LOCAL_TIMEOUT_MS: u32 = 5_000;

/// A command as root without input.
pub fn command(argv: &[&str], timeout_seconds: u32, output_limit_bytes: u32) -> wire::Probe {
    wire::Probe::Command {
        command: wire::Command {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: [("LC_ALL".to_owned(), "C".to_owned())].into(),
            stdin: None,
            user: None,
            timeout_seconds,
            output_limit_bytes,
        },
    }
}

/// A plain `GET` without credentials.
pub fn http(address: &str, port: u16, path: &str) -> wire::Probe {
    wire::Probe::Http {
        address: address.to_owned(),
        port,
        path: path.to_owned(),
        user: None,
        password: None,
        timeout_ms: LOCAL_TIMEOUT_MS,
        limit_bytes: OUTPUT_LIMIT_BYTES,
    }
}

/// The value that a [`NamedProbe`] returns.
pub fn value<T: Serialize>(parsed: Result<T, String>) -> Result<serde_json::Value, String> {
    serde_json::to_value(parsed?).map_err(|error| format!("cannot be written as JSON: {error}"))
}

/// A command that ran to its end with its whole output. A command that was not found, was killed or printed too much says nothing.
pub fn ended(result: &ProbeResult) -> Result<(i32, &CommandOutput), String> {
    let output = match result {
        ProbeResult::Command { output } => output,
        other => return Err(unexpected("a command's output", other)),
    };
    if output.truncated {
        return Err("expected the whole output; found more than the limit".to_owned());
    }
    match output.exit {
        Exit::Code(code) => Ok((code, output)),
        other => Err(format!(
            "expected the command to end by itself; found {other:?}: {}",
            last_line(&output.stderr)
        )),
    }
}

/// Standard output of a command that exited with 0.
pub fn succeeded(result: &ProbeResult) -> Result<&str, String> {
    match ended(result)? {
        (0, output) => Ok(&output.stdout),
        (code, output) => Err(format!(
            "expected exit status 0; found {code}: {}",
            last_line(&output.stderr)
        )),
    }
}

/// Status and body of an HTTP answer.
pub fn answered(result: &ProbeResult) -> Result<(u16, &str), String> {
    match result {
        ProbeResult::Http { status, body } => Ok((*status, body)),
        other => Err(unexpected("an HTTP answer", other)),
    }
}

/// Body of an HTTP answer with status 200.
pub fn answered_ok(result: &ProbeResult) -> Result<&str, String> {
    match answered(result)? {
        (200, body) => Ok(body),
        (status, body) => Err(format!(
            "expected HTTP status 200; found {status}: {}",
            last_line(body)
        )),
    }
}

/// What a socket answered.
pub fn spoken(result: &ProbeResult) -> Result<&str, String> {
    match result {
        ProbeResult::Socket { answer } => Ok(answer),
        other => Err(unexpected("a socket's answer", other)),
    }
}

/// A file's content, or `None` when there is no such file.
pub fn file(result: &ProbeResult) -> Result<Option<&str>, String> {
    match result {
        ProbeResult::File { content } => Ok(content.as_deref()),
        other => Err(unexpected("a file", other)),
    }
}

/// Says why an answer of another kind is not understood; a failed probe says why itself.
pub fn unexpected(expected: &str, found: &ProbeResult) -> String {
    match found {
        ProbeResult::Failed { why } => failed(why),
        other => format!("expected {expected}; found {other:?}"),
    }
}

/// Why a probe could not be made. "Unknown" without a reason helps nobody.
pub fn failed(why: &str) -> String {
    if why.trim().is_empty() {
        "the probe could not be made, and the host did not say why".to_owned()
    } else {
        why.to_owned()
    }
}

/// JSON of a known shape.
pub fn json<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("expected JSON of another shape: {error}"))
}

/// The last line that is not empty: programs put their reason there.
pub fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("(no output)")
}

#[cfg(test)]
pub mod testing {
    //! Answers as captured from real programs.

    use crate::wire::{CommandOutput, Exit, ProbeResult};

    pub fn exited(code: i32, stdout: &str, stderr: &str) -> ProbeResult {
        ProbeResult::Command {
            output: CommandOutput {
                exit: Exit::Code(code),
                stdout: stdout.to_owned(),
                stderr: stderr.to_owned(),
                truncated: false,
                took_ms: 12,
            },
        }
    }

    pub fn http(status: u16, body: &str) -> ProbeResult {
        ProbeResult::Http {
            status,
            body: body.to_owned(),
        }
    }

    pub fn file(content: Option<&str>) -> ProbeResult {
        ProbeResult::File {
            content: content.map(str::to_owned),
        }
    }

    pub fn failed() -> ProbeResult {
        ProbeResult::Failed {
            why: "connection refused".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_failed_without_a_word_still_has_a_reason() {
        for why in ["", " \n"] {
            let result = ProbeResult::Failed {
                why: why.to_owned(),
            };
            for probe in crate::probe::registry() {
                // Where a daemon is asked, its silence is known, with the same reason.
                let reason = match probe.parse(&result) {
                    Err(why) => why,
                    Ok(said) => said["why"].as_str().unwrap_or_default().to_owned(),
                };
                assert!(!reason.trim().is_empty(), "{}", probe.name());
            }
        }
        assert_eq!(failed("connection refused"), "connection refused");
    }
}
