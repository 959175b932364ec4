//! What can go wrong in the lab, with what was expected and what was found.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Result of every lab operation.
pub type Result<T> = std::result::Result<T, LabError>;

/// Failure of a lab operation. `Display` does not repeat the source; print the chain (`{:#}` of `anyhow`).
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine cannot run a lab; nothing was changed.
    #[error("this machine cannot run the lab, and nothing was changed. Missing:\n  - {}", .0.join("\n  - "))]
    Missing(Vec<String>),
    /// The request makes no sense here; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// A system call on a file or socket failed.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// An external program failed; `output` is the end of what it printed.
    #[error("`{argv}` {how}{}", if output.is_empty() { String::new() } else { format!(":\n{output}") })]
    Command {
        argv: String,
        how: String,
        output: String,
    },
    /// A condition did not come true in time.
    #[error("waited {waited:.1?} for {what}; last seen: {last}")]
    Timeout {
        what: String,
        waited: Duration,
        last: String,
    },
    /// A fault was applied and the check afterwards did not see its effect.
    #[error("fault `{fault}` did not take effect: expected {expected}, found {found}")]
    NoEffect {
        fault: String,
        expected: String,
        found: String,
    },
}

impl LabError {
    /// A refusal from any text.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        LabError::Refused(why.into())
    }
}

/// Names the operation and the path in an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T>;
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> Result<T> {
        self.doing(format!("{doing} {}", path.display()))
    }

    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| LabError::Io {
            what: what.into(),
            source: source.into(),
        })
    }
}
