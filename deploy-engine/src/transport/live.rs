//! A host's warm connection: the session, the agent on it, and the conversation with that agent.

use std::{path::Path, sync::Arc, time::Duration};

use openssh::{OwningCommand, Session, Stdio};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    HostError, Secrets,
    agent::{AGENT, agent_path, agent_sha256},
    conversation::{Broken, Conversation},
    login::{Target, login, words},
};
use crate::wire::{HostKey, PROTOCOL, Reply, Request, STEP_SECRET};

/// From starting the agent to its greeting. It answers in milliseconds; a host under a heavy load may need seconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// From bringing the host its key to its word that it keeps it.
const ENROL_TIMEOUT: Duration = Duration::from_secs(10);
/// The upload of two megabytes over a slow line.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The check and the rename of an uploaded agent.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(20);
/// After this a session that does not close is left to its own end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A login shell says this when a program is there but cannot be run: a half copy.
const CANNOT_RUN: i32 = 126;

type Child = openssh::Child<Arc<Session>>;

pub struct Live {
    pub conversation: Conversation,
    session: Arc<Session>,
    child: Child,
}

enum Greeting {
    Live(Box<Live>),
    /// The agent is not on the host.
    Missing,
}

impl Live {
    /// Logs in and starts the agent, which is installed first if the host does not have this version.
    pub async fn open(
        target: &Target,
        control: &Path,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, HostError> {
        let key = host_key(target, &*secrets)?;
        let session = Arc::new(login(target, control).await?);
        match Self::greet(target, &key, session.clone(), secrets.clone()).await? {
            Greeting::Live(live) => return Ok(*live),
            Greeting::Missing => install(target, &key, &session).await?,
        }
        match Self::greet(target, &key, session, secrets).await? {
            Greeting::Live(live) => Ok(*live),
            Greeting::Missing => Err(HostError::AgentInstall {
                host: target.host.clone(),
                path: agent_path(),
                found: "it cannot be run although it was just put there (mounted noexec?)"
                    .to_owned(),
            }),
        }
    }

    /// Starts the agent and says hello in one exchange; a host that obeys nobody yet gets its key.
    async fn greet(
        target: &Target,
        key: &HostKey,
        session: Arc<Session>,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Greeting, HostError> {
        let protocol = |expected: &str, found: String| HostError::Protocol {
            host: target.host.clone(),
            expected: expected.to_owned(),
            found,
        };
        let mut command: OwningCommand<Arc<Session>> = session.clone().arc_command(agent_path());
        command
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .await
            .map_err(|error| protocol("to start the agent", words(&error)))?;
        let (Some(input), Some(output)) = (child.stdin().take(), child.stdout().take()) else {
            return Err(protocol("pipes to the agent", "none".to_owned()));
        };
        let conversation = Conversation::new(input, output, secrets);
        let hello = timeout(
            HELLO_TIMEOUT,
            conversation.ask_once(Request::Hello { protocol: PROTOCOL }),
        )
        .await;
        match hello {
            Ok(Ok(Reply::Hello {
                protocol: PROTOCOL,
                nonce,
                obeys,
                ..
            })) => {
                conversation.sign_with(key.clone(), nonce);
                if obeys.as_deref() != Some(key.id().as_str()) {
                    enrol(target, key, &conversation).await?;
                }
                Ok(Greeting::Live(Box::new(Self {
                    conversation,
                    session,
                    child,
                })))
            }
            Ok(Ok(Reply::Refused { why })) => Err(protocol("the agent's hello", why)),
            Ok(Ok(_)) => Err(protocol("the agent's hello", "another reply".to_owned())),
            Ok(Err(_)) => match timeout(HELLO_TIMEOUT, child.wait()).await {
                Ok(ended) if is_missing(&ended) => Ok(Greeting::Missing),
                Ok(Ok(status)) => Err(protocol(
                    "the agent's hello",
                    format!("its end with {status}"),
                )),
                Ok(Err(error)) => Err(protocol("the agent's hello", words(&error))),
                Err(_) => Err(protocol(
                    "the agent's hello",
                    "its closed output".to_owned(),
                )),
            },
            Err(_) => Err(HostError::TimedOut {
                host: target.host.clone(),
                what: "the agent's hello".to_owned(),
                limit_seconds: HELLO_TIMEOUT.as_secs(),
            }),
        }
    }

    /// Whether a request could get an answer at all: an agent that answers nothing else still answers this.
    pub async fn answers(&self, within: Duration) -> bool {
        let hello = self
            .conversation
            .ask_once(Request::Hello { protocol: PROTOCOL });
        matches!(timeout(within, hello).await, Ok(Ok(Reply::Hello { .. })))
    }

    /// Lets the agent end and closes the session, so that no process of it stays.
    pub async fn close(self) {
        drop(self.conversation);
        let _ = timeout(CLOSE_TIMEOUT, self.child.wait()).await;
        if let Some(session) = Arc::into_inner(self.session) {
            let _ = timeout(CLOSE_TIMEOUT, session.close()).await;
        }
    }
}

/// Whether the shell found no program that it can run. The client library turns 127 into an error of its own.
fn is_missing(ended: &Result<std::process::ExitStatus, openssh::Error>) -> bool {
    match ended {
        Ok(status) => status.code() == Some(CANNOT_RUN),
        Err(openssh::Error::Remote(error)) => error.kind() == std::io::ErrorKind::NotFound,
        Err(_) => false,
    }
}

/// The key of this host.
fn host_key(target: &Target, secrets: &dyn Secrets) -> Result<HostKey, HostError> {
    let secret = secrets
        .reveal(STEP_SECRET)
        .ok_or_else(|| HostError::UnknownSecret {
            host: target.host.clone(),
            name: STEP_SECRET.to_owned(),
        })?;
    Ok(HostKey::derive(&secret, target.host.as_str()))
}

/// A host that obeys another key says so, and how to make it obey this one.
async fn enrol(
    target: &Target,
    key: &HostKey,
    conversation: &Conversation,
) -> Result<(), HostError> {
    let host = || target.host.clone();
    let request = Request::Enrol { key: key.clone() };
    match timeout(ENROL_TIMEOUT, conversation.ask_once(request)).await {
        Ok(Ok(Reply::Ok)) => {
            tracing::info!(host = %target.host, key = key.id(), "the host obeys this key from now on");
            Ok(())
        }
        Ok(Ok(Reply::Refused { why })) => Err(HostError::Refused { host: host(), why }),
        Ok(Ok(_)) => Err(HostError::Protocol {
            host: host(),
            expected: "a bare yes to its key".to_owned(),
            found: "another reply".to_owned(),
        }),
        Ok(Err(broken)) => Err(host_error(target, broken)),
        Err(_) => Err(HostError::TimedOut {
            host: host(),
            what: "to take its key".to_owned(),
            limit_seconds: ENROL_TIMEOUT.as_secs(),
        }),
    }
}

/// Uploads the agent aside; the copy itself then checks its digest and takes its place. Its name carries the signature by which a
/// host knows whose agent it is.
async fn install(target: &Target, key: &HostKey, session: &Arc<Session>) -> Result<(), HostError> {
    let fail = |found: String| HostError::AgentInstall {
        host: target.host.clone(),
        path: agent_path(),
        found,
    };
    let signature = key.sign_agent(agent_sha256());
    let random = rand::random::<u64>();
    let aside = format!("{}.new-{signature}-{random:016x}", agent_path());
    // `install` makes the directories and copies its standard input. Others may run the program, the signs exporter under its own
    // user does; only root may write it.
    run(
        session,
        &["install", "-D", "-m", "0755", "/dev/stdin", &aside],
        Some(AGENT),
        UPLOAD_TIMEOUT,
    )
    .await
    .map_err(|found| fail(format!("uploading it: {found}")))?;
    run(
        session,
        &[&aside, "install", agent_sha256()],
        None,
        INSTALL_TIMEOUT,
    )
    .await
    .map_err(|found| fail(format!("checking it: {found}")))
}

async fn run(
    session: &Arc<Session>,
    argv: &[&str],
    input: Option<&'static [u8]>,
    limit: Duration,
) -> Result<(), String> {
    let work = async {
        let mut command = session.clone().arc_command(argv[0].to_owned());
        command.args(argv[1..].iter().copied());
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().await.map_err(|error| words(&error))?;
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin().take()) {
            // A remote program that ends early says why on its standard error.
            let _ = pipe.write_all(bytes).await;
            let _ = pipe.shutdown().await;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(|error| words(&error))?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "`{}` ended with {}: {}",
                argv.join(" "),
                output.status,
                said.trim()
            ))
        }
    };
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "`{}` did not end within {} s",
            argv.join(" "),
            limit.as_secs()
        )),
    }
}

/// What a broken conversation means for a request to this host.
pub fn host_error(target: &Target, broken: Broken) -> HostError {
    let host = target.host.clone();
    match broken {
        Broken::Stream { found } => HostError::Unreachable {
            host,
            address: format!("{}:{}", target.address, target.port),
            found: format!("a connection that broke: {found}"),
        },
        Broken::UnknownSecret { name } => HostError::UnknownSecret { host, name },
        Broken::TooLarge { found } => HostError::Protocol {
            host,
            expected: "a request that fits a frame".to_owned(),
            found,
        },
    }
}
