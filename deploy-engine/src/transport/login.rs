//! One SSH session to one host, with OpenSSH's own client and strict host keys.

use std::{
    io,
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

/// File beside the control sockets with what OpenSSH must not do, whatever the user's own configuration says.
const CONFIG_FILE: &str = "config";
/// The first value of an option counts, so these come before what is included. A host gets no way back into this machine, no key
/// agent above all, and what it sends cannot change `known_hosts`.
const NEVER: &str = "\
ForwardAgent no
ForwardX11 no
ForwardX11Trusted no
ClearAllForwardings yes
Tunnel no
PermitLocalCommand no
UpdateHostKeys no
StrictHostKeyChecking yes
";
/// What is left as the machine says: jump hosts, ciphers, addresses.
const INCLUDED: [&str; 2] = ["~/.ssh/config", "/etc/ssh/ssh_config"];

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

/// The configuration of OpenSSH's client for every login.
fn config(included: &[&str]) -> String {
    let include = |file: &&str| format!("Include {file}\n");
    NEVER.to_owned() + &included.iter().map(include).collect::<String>()
}

/// Writes it below `control`, once, before the first login.
pub fn write_config(control: &Path) -> io::Result<()> {
    std::fs::write(control.join(CONFIG_FILE), config(&INCLUDED))
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
        .control_directory(control)
        .config_file(control.join(CONFIG_FILE));
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

    /// As OpenSSH itself understands it.
    #[test]
    fn no_agent_and_nothing_else_is_forwarded_whatever_the_users_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users");
        std::fs::write(
            &users,
            "ForwardAgent yes\nForwardX11 yes\nLocalForward 1 h:1\nRemoteForward 2 h:2\nTunnel yes\n\
             PermitLocalCommand yes\nStrictHostKeyChecking no\nUpdateHostKeys yes\nProxyJump bastion\n",
        )
        .unwrap();
        let file = dir.path().join(CONFIG_FILE);
        std::fs::write(&file, config(&[users.to_str().unwrap()])).unwrap();
        let output = std::process::Command::new("ssh")
            .arg("-G")
            .arg("-F")
            .arg(&file)
            .arg("ctl1")
            .output();
        let output = output.expect("OpenSSH's client, without which there is no way to hosts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        for expected in [
            "forwardagent no",
            "forwardx11 no",
            "clearallforwardings yes",
            "tunnel false",
            "permitlocalcommand no",
            "stricthostkeychecking true",
            "updatehostkeys false",
            "proxyjump bastion",
        ] {
            assert!(lines.contains(&expected), "no {expected:?} in\n{said}");
        }
    }

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
