//! [`Hosts`] over SSH: one warm connection a host, renewed when it breaks.

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::{
    HostError, Hosts, Observe, Observed, Secrets,
    control::ControlDir,
    conversation::{Broken, Replies},
    live::{Live, host_error},
    login::{Target, write_config},
};
use crate::{
    job::JobId,
    model::{HostName, Model, Secs},
    wire::{Event, Fence, Outcome, Probe, Progress, Reply, Request, StepKey, StepStatus, Work},
};

/// A question that changes nothing is asked again so often when its connection breaks.
const QUESTION_TRIES: usize = 3;
/// Pauses between the tries of a question.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// A step outlives its connection; for so long its host is tried to be reached again. The runner asks on afterwards.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE_LAST: Duration = Duration::from_secs(3);
/// A question about the spool.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Observing without resources, on top of the longest probe: a frozen host must not hold the evidence of the others.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(10);
/// With resources there are guards, SQL and package policies to be asked.
const OBSERVE_RESOURCES_TIMEOUT: Duration = Duration::from_secs(90);
/// On top of a step's own limit, before it is said that the host does not tell its outcome.
const OUTCOME_GRACE: Duration = Duration::from_secs(10);
/// An agent that does not even say hello within this is given up, with its connection.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// All hosts of a site.
pub struct SshHosts {
    hosts: BTreeMap<HostName, Host>,
    secrets: Arc<dyn Secrets>,
    control: ControlDir,
}

struct Host {
    target: Target,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<Live>>,
    /// Those who waited while a login failed share its failure instead of failing one after the other.
    failed: Option<(Instant, HostError)>,
}

/// How far a step has been followed.
#[derive(Default)]
struct Followed {
    /// The request that starts it was handed to a connection.
    sent: bool,
    /// Progress events passed on.
    seen: u64,
}

impl SshHosts {
    /// Reads where hosts are from the model; logs in nowhere yet.
    ///
    /// # Errors
    /// When there is no place for the sockets of the SSH client.
    pub fn new(model: &Model, secrets: Arc<dyn Secrets>) -> std::io::Result<Self> {
        let ssh = &model.site.ssh;
        let targets = model.site.hosts.iter().map(|(host, spec)| Target {
            host: host.clone(),
            address: spec.address.clone(),
            port: ssh.port,
            user: ssh.user.clone(),
            identity: ssh.identity.clone(),
            known_hosts: ssh.known_hosts.clone(),
        });
        Self::of(targets, secrets)
    }

    /// The same from targets.
    ///
    /// # Errors
    /// As [`SshHosts::new`].
    pub fn of(
        targets: impl IntoIterator<Item = Target>,
        secrets: Arc<dyn Secrets>,
    ) -> std::io::Result<Self> {
        let hosts = targets.into_iter().map(|target| {
            let slot = Mutex::default();
            (target.host.clone(), Host { target, slot })
        });
        let control = ControlDir::create()?;
        write_config(control.path())?;
        Ok(Self {
            hosts: hosts.collect(),
            secrets,
            control,
        })
    }

    /// Logs in everywhere at once, so that the first question is as fast as the later ones. Failures show with that question.
    pub async fn warm(&self) {
        futures::future::join_all(self.hosts.values().map(|host| self.live(host))).await;
    }

    /// Ends all sessions; a later call logs in again.
    pub async fn close(&self) {
        let all = self.hosts.values().map(|host| async {
            let live = host.slot.lock().await.live.take();
            if let Some(live) = live {
                live.conversation
                    .close("the connection was closed by this side");
                if let Some(live) = Arc::into_inner(live) {
                    live.close().await;
                }
            }
        });
        futures::future::join_all(all).await;
    }

    fn host(&self, name: &HostName) -> Result<&Host, HostError> {
        self.hosts
            .get(name)
            .ok_or_else(|| HostError::UnknownHost { host: name.clone() })
    }

    /// The warm connection, or a new one. Whoever comes meanwhile waits for the same one.
    async fn live(&self, host: &Host) -> Result<Arc<Live>, HostError> {
        let came = Instant::now();
        let mut slot = host.slot.lock().await;
        if let Some(live) = slot
            .live
            .as_ref()
            .filter(|live| live.conversation.is_open())
        {
            return Ok(live.clone());
        }
        if let Some((at, error)) = slot.failed.as_ref().filter(|(at, _)| *at > came) {
            tracing::debug!(host = %host.target.host, since = ?at.elapsed(), "shares a failed login");
            return Err(error.clone());
        }
        slot.live = None;
        match Live::open(&host.target, self.control.path(), self.secrets.clone()).await {
            Ok(live) => {
                let live = Arc::new(live);
                *slot = Slot {
                    live: Some(live.clone()),
                    failed: None,
                };
                Ok(live)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks something that may be asked twice.
    async fn question(
        &self,
        name: &HostName,
        request: Request,
        what: &str,
        limit: Duration,
    ) -> Result<Reply, HostError> {
        let host = self.host(name)?;
        let mut pauses = backoff(RETRY_FIRST, RETRY_LAST, QUESTION_TRIES - 1);
        loop {
            let error = match self.question_once(host, request.clone(), what, limit).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let again = matches!(error, HostError::Unreachable { .. });
            match pauses.next().filter(|_| again) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn question_once(
        &self,
        host: &Host,
        request: Request,
        what: &str,
        limit: Duration,
    ) -> Result<Reply, HostError> {
        let live = self.live(host).await?;
        match timeout(limit, live.conversation.ask_once(request)).await {
            Ok(Ok(Reply::Refused { why })) => Err(HostError::Refused {
                host: host.target.host.clone(),
                why,
            }),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(broken)) => Err(host_error(&host.target, broken)),
            Err(_) => {
                give_up_if_silent(&live).await;
                Err(timed_out(host, what, limit))
            }
        }
    }

    /// Sends the start once, then follows the step over as many connections as it takes.
    async fn run(
        &self,
        host: &Host,
        start: Request,
        key: &StepKey,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let mut followed = Followed::default();
        let mut broken_since: Option<Instant> = None;
        let mut pauses = backoff(RETRY_FIRST, RECONNECT_PAUSE_LAST, usize::MAX);
        loop {
            let request = if followed.sent {
                Request::Attach {
                    key: key.clone(),
                    seen: followed.seen,
                }
            } else {
                start.clone()
            };
            let before = followed.seen;
            let error = match self
                .follow_once(host, request, &mut followed, progress)
                .await
            {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            if !matches!(
                error,
                HostError::Unreachable { .. } | HostError::TimedOut { .. }
            ) {
                return Err(error);
            }
            if followed.seen > before {
                broken_since = None;
                pauses = backoff(RETRY_FIRST, RECONNECT_PAUSE_LAST, usize::MAX);
            }
            let since = *broken_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= RECONNECT_LIMIT
                || (!followed.sent && since.elapsed() >= RETRY_LAST)
            {
                return Err(if followed.sent {
                    error
                } else {
                    not_started(host, key, &error.to_string())
                });
            }
            tokio::time::sleep(pauses.next().unwrap_or(RECONNECT_PAUSE_LAST)).await;
        }
    }

    async fn follow_once(
        &self,
        host: &Host,
        request: Request,
        followed: &mut Followed,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let live = self.live(host).await?;
        let mut replies = match live.conversation.ask(request).await {
            Ok(replies) => replies,
            Err(broken) => return Err(host_error(&host.target, broken)),
        };
        followed.sent = true;
        loop {
            match next_reply(host, &mut replies).await? {
                Reply::Event {
                    event: Event::Finished { outcome },
                    ..
                } => return Ok(outcome),
                Reply::Event {
                    event: Event::Progress { progress: one },
                    ..
                } => {
                    followed.seen += 1;
                    // Bars may miss a line; the step must not wait for a screen.
                    let _ = progress.try_send(one);
                }
                Reply::Event {
                    event: Event::Started,
                    ..
                } => {}
                Reply::Status {
                    key,
                    status: StepStatus::NeverStarted,
                } => {
                    // Its worker may have died before it began, or the order is still under way in a connection that broke.
                    return Err(HostError::Protocol {
                        host: host.target.host.clone(),
                        expected: format!("the outcome of {key}"),
                        found: "the host has no record of it".to_owned(),
                    });
                }
                Reply::Refused { why } => {
                    return Err(HostError::Refused {
                        host: host.target.host.clone(),
                        why,
                    });
                }
                other => return Err(unexpected(host, "an event of the step", &other)),
            }
        }
    }
}

async fn next_reply(host: &Host, replies: &mut Replies) -> Result<Reply, HostError> {
    replies
        .next()
        .await
        .map_err(|broken: Broken| host_error(&host.target, broken))
}

fn backoff(first: Duration, last: Duration, tries: usize) -> impl Iterator<Item = Duration> {
    let builder = ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(last)
        .with_jitter();
    builder.with_max_times(tries).build()
}

/// One slow answer does not end the connection of others; an agent that says nothing at all does.
async fn give_up_if_silent(live: &Live) {
    if !live.answers(PING_TIMEOUT).await {
        live.conversation.close("the agent does not answer");
    }
}

fn timed_out(host: &Host, what: &str, limit: Duration) -> HostError {
    HostError::TimedOut {
        host: host.target.host.clone(),
        what: what.to_owned(),
        limit_seconds: limit.as_secs(),
    }
}

fn not_started(host: &Host, key: &StepKey, found: &str) -> HostError {
    HostError::NotStarted {
        host: host.target.host.clone(),
        key: key.to_string(),
        found: found.to_owned(),
    }
}

/// Names the kind of reply only: its texts may be long.
fn unexpected(host: &Host, expected: &str, reply: &Reply) -> HostError {
    let kind = match reply {
        Reply::Hello { .. } => "a greeting",
        Reply::Observed { .. } => "an observation",
        Reply::Event { .. } => "an event",
        Reply::Status { .. } => "a status",
        Reply::Ok => "a bare yes",
        Reply::Refused { .. } => "a refusal",
    };
    HostError::Protocol {
        host: host.target.host.clone(),
        expected: expected.to_owned(),
        found: kind.to_owned(),
    }
}

/// The longest time that the probes themselves may take; they run at once.
fn probe_time(probe: &Probe) -> Duration {
    match probe {
        Probe::Command { command } => Duration::from_secs(command.timeout_seconds.into()),
        Probe::Http { timeout_ms, .. }
        | Probe::Tcp { timeout_ms, .. }
        | Probe::Socket { timeout_ms, .. }
        | Probe::Resolve { timeout_ms, .. } => Duration::from_millis((*timeout_ms).into()),
        Probe::File { .. } | Probe::Pulse | Probe::Units { .. } => Duration::ZERO,
    }
}

/// Waits for `work` at most so long.
async fn within<T>(
    host: &Host,
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, HostError>>,
) -> Result<T, HostError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(timed_out(host, what, limit)))
}

#[async_trait]
impl Hosts for SshHosts {
    async fn observe(&self, name: &HostName, ask: Observe) -> Result<Observed, HostError> {
        let host = self.host(name)?;
        let base = if ask.resources.is_empty() {
            OBSERVE_TIMEOUT
        } else {
            OBSERVE_RESOURCES_TIMEOUT
        };
        let limit = base
            + ask
                .probes
                .values()
                .map(probe_time)
                .max()
                .unwrap_or_default();
        let request = Request::Observe {
            facts: ask.facts,
            resources: ask.resources,
            probes: ask.probes,
        };
        match self
            .question(name, request, "what was asked of it", limit)
            .await?
        {
            Reply::Observed {
                facts,
                observations,
                probes,
            } => Ok(Observed {
                facts,
                observations,
                probes,
            }),
            other => Err(unexpected(host, "an observation", &other)),
        }
    }

    async fn start(
        &self,
        name: &HostName,
        key: StepKey,
        fence: Fence,
        work: Work,
        timeout: Secs,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let host = self.host(name)?;
        let start = Request::Start {
            key: key.clone(),
            fence,
            work,
            timeout_seconds: timeout.0,
        };
        let limit = timeout.as_duration() + OUTCOME_GRACE;
        within(
            host,
            "the outcome of its step",
            limit,
            self.run(host, start, &key, &progress),
        )
        .await
    }

    async fn ask(&self, name: &HostName, key: &StepKey) -> Result<StepStatus, HostError> {
        let request = Request::Ask { key: key.clone() };
        match self
            .question(name, request, "the state of its step", ASK_TIMEOUT)
            .await?
        {
            Reply::Status { status, .. } => Ok(status),
            other => Err(unexpected(self.host(name)?, "a status", &other)),
        }
    }

    async fn cancel(&self, name: &HostName, key: &StepKey, fence: &Fence) -> Result<(), HostError> {
        let (key, fence) = (key.clone(), fence.clone());
        let request = Request::Cancel { key, fence };
        match self
            .question(name, request, "to take the cancellation", ASK_TIMEOUT)
            .await?
        {
            Reply::Ok => Ok(()),
            other => Err(unexpected(self.host(name)?, "a bare yes", &other)),
        }
    }

    async fn forget(&self, name: &HostName, job: &JobId, fence: &Fence) -> Result<(), HostError> {
        let request = Request::Forget {
            job: job.0.clone(),
            fence: fence.clone(),
        };
        match self
            .question(name, request, "to forget a job", ASK_TIMEOUT)
            .await?
        {
            Reply::Ok => Ok(()),
            other => Err(unexpected(self.host(name)?, "a bare yes", &other)),
        }
    }
}

/// Where the control sockets are, for messages and tests.
impl SshHosts {
    pub fn control_dir(&self) -> PathBuf {
        self.control.path().to_owned()
    }
}
