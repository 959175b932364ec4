//! Why a host could not be asked or told.

use crate::model::HostName;

/// Every variant names the host, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("{host}: expected SSH to answer at {address}, found: {found}")]
    Unreachable {
        host: HostName,
        address: String,
        found: String,
    },
    #[error(
        "{host}: expected the host key that {known_hosts} holds for {address}, found another or none: {found}"
    )]
    HostKey {
        host: HostName,
        address: String,
        known_hosts: String,
        found: String,
    },
    #[error("{host}: expected to log in as {user} with {identity}, found: {found}")]
    Auth {
        host: HostName,
        user: String,
        identity: String,
        found: String,
    },
    #[error("{host}: expected {what} within {limit_seconds} s, found no answer")]
    TimedOut {
        host: HostName,
        what: String,
        limit_seconds: u64,
    },
    #[error("{host}: expected {expected}, found {found}")]
    Protocol {
        host: HostName,
        expected: String,
        found: String,
    },
    #[error("{host}: expected to install the agent at {path}, found: {found}")]
    AgentInstall {
        host: HostName,
        path: String,
        found: String,
    },
    /// The agent understood the request to be wrong; nothing was done.
    #[error("{host}: the agent refused: {why}")]
    Refused { host: HostName, why: String },
    /// No connection could be had: the order was never sent, and certainly did nothing.
    #[error("{host}: expected {key} to start, found no way to send it: {found}")]
    NotStarted {
        host: HostName,
        key: String,
        found: String,
    },
    /// A text refers to a secret that the store does not hold; nothing was sent.
    #[error("{host}: expected a secret named {name} in the store, found none; nothing was sent")]
    UnknownSecret { host: HostName, name: String },
    /// The site has no such host.
    #[error("{host}: expected a host of the site, found none of that name")]
    UnknownHost { host: HostName },
}

impl HostError {
    pub fn host(&self) -> &HostName {
        match self {
            Self::Unreachable { host, .. }
            | Self::HostKey { host, .. }
            | Self::Auth { host, .. }
            | Self::TimedOut { host, .. }
            | Self::Protocol { host, .. }
            | Self::AgentInstall { host, .. }
            | Self::Refused { host, .. }
            | Self::NotStarted { host, .. }
            | Self::UnknownSecret { host, .. }
            | Self::UnknownHost { host } => host,
        }
    }
}
