//! One SSH session to one host, with OpenSSH's own client and strict host keys.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder};

use super::HostError;
use crate::model::HostName;

/// From the first packet to the end of the key exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The whole login. Longer than [`CONNECT_TIMEOUT`], because authentication comes after it.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent host is asked this often; OpenSSH gives up after three of them, so a frozen host is noticed within 15 s.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The client process ends by itself so long after its owner is gone.
const ORPHAN_SECONDS: usize = 30;

/// Where a host is and how to log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: HostName,
    pub address: String,
    pub port: u16,
    pub user: String,
    /// Absent: what OpenSSH would use.
    pub identity: Option<PathBuf>,
    /// Absent: the user's own.
    pub known_hosts: Option<PathBuf>,
}

/// Opens a session whose control socket is below `control`.
pub async fn login(target: &Target, control: &Path) -> Result<Session, HostError> {
    let mut builder = SessionBuilder::default();
    builder
        .user(target.user.clone())
        .port(target.port)
        .known_hosts_check(KnownHosts::Strict)
        .connect_timeout(CONNECT_TIMEOUT)
        .server_alive_interval(ALIVE_INTERVAL)
        .control_directory(control);
    if let Some(seconds) = NonZeroUsize::new(ORPHAN_SECONDS) {
        builder.control_persist(ControlPersist::IdleFor(seconds));
    }
    if let Some(identity) = &target.identity {
        builder.keyfile(identity);
    }
    if let Some(known_hosts) = &target.known_hosts {
        builder.user_known_hosts_file(known_hosts);
    }
    match tokio::time::timeout(LOGIN_TIMEOUT, builder.connect_mux(&target.address)).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(classify(target, &words(&error))),
        Err(_) => Err(HostError::TimedOut {
            host: target.host.clone(),
            what: format!("to be logged in at {}:{}", target.address, target.port),
            limit_seconds: LOGIN_TIMEOUT.as_secs(),
        }),
    }
}

/// An error with its causes, in one line.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Tells by OpenSSH's words what is wrong. They have been the same for many years; anything else is "unreachable".
fn classify(target: &Target, found: &str) -> HostError {
    let host = target.host.clone();
    let address = format!("{}:{}", target.address, target.port);
    let path = |path: &Option<PathBuf>, default: &str| {
        path.as_ref()
            .map_or_else(|| default.to_owned(), |p| p.display().to_string())
    };
    let has = |words: &[&str]| words.iter().any(|word| found.contains(word));
    if has(&[
        "Host key verification failed",
        "HOST IDENTIFICATION HAS CHANGED",
        "host key is known",
    ]) {
        let known_hosts = path(&target.known_hosts, "~/.ssh/known_hosts");
        HostError::HostKey {
            host,
            address,
            known_hosts,
            found: found.to_owned(),
        }
    } else if has(&[
        "Permission denied",
        "Too many authentication failures",
        "bad permissions",
        "UNPROTECTED PRIVATE KEY",
    ]) {
        let identity = path(&target.identity, "OpenSSH's default keys");
        HostError::Auth {
            host,
            user: target.user.clone(),
            identity,
            found: found.to_owned(),
        }
    } else if has(&["timed out", "Timeout"]) {
        HostError::TimedOut {
            host,
            what: format!("SSH to answer at {address} ({found})"),
            limit_seconds: CONNECT_TIMEOUT.as_secs(),
        }
    } else {
        HostError::Unreachable {
            host,
            address,
            found: found.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opensshs_words_are_told_apart() {
        let target = Target {
            host: "ctl1".parse().unwrap(),
            address: "10.77.0.11".into(),
            port: 22,
            user: "root".into(),
            identity: Some("/keys/id".into()),
            known_hosts: Some("/keys/known".into()),
        };
        let kind = |found: &str| match classify(&target, found) {
            HostError::HostKey { known_hosts, .. } => format!("key {known_hosts}"),
            HostError::Auth { identity, .. } => format!("auth {identity}"),
            HostError::TimedOut { .. } => "time".to_owned(),
            HostError::Unreachable { .. } => "down".to_owned(),
            other => format!("{other:?}"),
        };
        for (found, expected) in [
            (
                "No ED25519 host key is known for [10.77.0.11]:22 and you have requested strict checking. Host key verification failed.",
                "key /keys/known",
            ),
            (
                "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@",
                "key /keys/known",
            ),
            (
                "root@10.77.0.11: Permission denied (publickey,password).",
                "auth /keys/id",
            ),
            (
                "connect to host 10.77.0.11 port 22: Connection timed out",
                "time",
            ),
            ("Connection timed out during banner exchange", "time"),
            (
                "connect to host 10.77.0.11 port 22: Connection refused",
                "down",
            ),
            (
                "connect to host 10.77.0.11 port 22: No route to host",
                "down",
            ),
            (
                "kex_exchange_identification: Connection closed by remote host",
                "down",
            ),
        ] {
            assert_eq!(kind(found), expected, "{found}");
        }
    }
}
