//! Answers frames: one thread a request, replies in whatever order they are ready.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use super::{
    apt,
    exec::Exec,
    facts, fence,
    observe::observe,
    probe,
    root::Root,
    spool::{Claim, Entry, Order, Spool},
    step_key,
};
use crate::wire::{
    self, Event, Fence, Frame, Outcome, PROTOCOL, Probe, Reply, Request, Resource, StepKey,
    StepStatus,
};

/// Requests answered at once on one connection; more are refused, so a runaway engine cannot exhaust the host.
const IN_FLIGHT_LIMIT: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Scopes of repairs begin so; those of deploys are `site:NAME`.
const REPAIR_SCOPE: &str = "domain:";
/// How often a step is looked at that another connection started.
const FOLLOW_POLL: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Server {
    root: Root,
    exec: Exec,
    output: Arc<Mutex<io::Stdout>>,
    in_flight: Arc<AtomicUsize>,
    /// Of this connection; part of every signature on it.
    nonce: Arc<str>,
}

/// `nightshift-agent serve`: until standard input ends.
pub fn serve(root: &Root) -> Result<(), String> {
    apt::remove_left_over(root);
    Spool::new(root).prune(SystemTime::now());
    let server = Server {
        root: root.clone(),
        exec: Exec::new(root.clone()),
        output: Arc::new(Mutex::new(io::stdout())),
        in_flight: Arc::default(),
        nonce: step_key::nonce()?.into(),
    };
    let mut input = io::stdin().lock();
    let mut buffer: Vec<u8> = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        while let Some((payload, used)) = wire::split(&buffer).map_err(|e| e.to_string())? {
            server.accept(payload)?;
            buffer.drain(..used);
        }
        match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("expected frames on standard input, found: {error}")),
        }
    }
}

impl Server {
    /// An error ends the conversation: there is no known frame to go on from.
    fn accept(&self, payload: &[u8]) -> Result<(), String> {
        let (json, signature) = wire::unseal(payload);
        let frame: Frame<Request> = wire::parse(json).map_err(|error| error.to_string())?;
        match self.obeyed(&frame.body, json, signature) {
            Ok(()) => self.take(frame),
            Err(why) => drop(self.reply(frame.id, Reply::Refused { why })),
        }
        Ok(())
    }

    /// Only greeting and enrolling need no signature. Looking needs one as well: a probe may be a program.
    fn obeyed(
        &self,
        request: &Request,
        json: &[u8],
        signature: Option<&str>,
    ) -> Result<(), String> {
        match request {
            Request::Hello { .. } | Request::Enrol { .. } => Ok(()),
            Request::Observe { .. }
            | Request::Start { .. }
            | Request::Ask { .. }
            | Request::Attach { .. }
            | Request::Cancel { .. }
            | Request::Forget { .. } => step_key::check(&self.root, &self.nonce, json, signature),
        }
    }

    fn take(&self, frame: Frame<Request>) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= IN_FLIGHT_LIMIT {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            let why =
                format!("expected at most {IN_FLIGHT_LIMIT} requests at once, found one more");
            self.reply(frame.id, Reply::Refused { why });
            return;
        }
        let server = self.clone();
        thread::spawn(move || {
            server.answer(frame.id, frame.body);
            server.in_flight.fetch_sub(1, Ordering::Relaxed);
            server.exec.systemd().end_when_idle();
        });
    }

    /// False: nobody listens any more.
    fn reply(&self, id: u64, body: Reply) -> bool {
        let bytes = wire::encode(&Frame { id, body }).or_else(|error| {
            let why = format!("the answer does not fit: {error}");
            wire::encode(&Frame {
                id,
                body: Reply::Refused { why },
            })
        });
        let mut output = self.output.lock().unwrap_or_else(|e| e.into_inner());
        bytes.is_ok_and(|bytes| {
            output
                .write_all(&bytes)
                .and_then(|()| output.flush())
                .is_ok()
        })
    }

    fn answer(&self, id: u64, request: Request) {
        let done = match request {
            Request::Hello { protocol } => self.hello(id, protocol),
            Request::Enrol { key } => step_key::enrol(&self.root, &key).map(|()| {
                self.reply(id, Reply::Ok);
            }),
            Request::Observe {
                facts,
                resources,
                probes,
            } => {
                self.observe(id, facts, &resources, &probes);
                Ok(())
            }
            Request::Start {
                key,
                fence,
                work,
                timeout_seconds,
            } => self.start(
                id,
                &key,
                Order {
                    work,
                    timeout_seconds,
                    fence,
                },
            ),
            Request::Ask { key } => self.ask(id, key),
            Request::Attach { key, seen } => Spool::new(&self.root)
                .entry(&key)
                .and_then(|entry| self.follow(id, &key, &entry, seen, None)),
            Request::Cancel { key, fence } => self.cancel(id, &key, &fence),
            Request::Forget { job, fence } => self.forget(id, &job, &fence),
        };
        if let Err(why) = done {
            self.reply(id, Reply::Refused { why });
        }
    }

    fn hello(&self, id: u64, protocol: u32) -> Result<(), String> {
        if protocol != PROTOCOL {
            return Err(format!("expected protocol {PROTOCOL}, found {protocol}"));
        }
        let boot_id = facts::boot_id(&self.root)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let obeys = step_key::read(&self.root)?.map(|key| key.id());
        self.reply(
            id,
            Reply::Hello {
                protocol: PROTOCOL,
                version,
                boot_id,
                nonce: self.nonce.to_string(),
                obeys,
            },
        );
        Ok(())
    }

    fn observe(
        &self,
        id: u64,
        with_facts: bool,
        resources: &[Resource],
        probes: &std::collections::BTreeMap<String, Probe>,
    ) {
        let reply = thread::scope(|scope| {
            let facts = with_facts.then(|| scope.spawn(|| facts::facts(&self.root, &self.exec)));
            let look = || observe(&self.root, &self.exec, resources);
            // A thread costs a tenth of what the shortest question costs.
            let observations = (!resources.is_empty()).then(|| scope.spawn(look));
            let probes = probe::all(&self.root, &self.exec, probes);
            let facts = facts.map(|thread| thread.join().unwrap_or_default());
            match observations.map_or(Ok(Vec::new()), |thread| thread.join()) {
                Ok(observations) => Reply::Observed {
                    facts,
                    observations,
                    probes,
                },
                Err(_) => Reply::Refused {
                    why: "the agent failed while it looked at the resources".to_owned(),
                },
            }
        });
        self.reply(id, reply);
    }

    fn ask(&self, id: u64, key: StepKey) -> Result<(), String> {
        let status = Spool::new(&self.root)
            .entry(&key)?
            .status(SystemTime::now())?;
        self.reply(id, Reply::Status { key, status });
        Ok(())
    }

    fn cancel(&self, id: u64, key: &StepKey, fence: &Fence) -> Result<(), String> {
        if let fence::Verdict::Refused { seen } = fence::admit(&self.root, fence)? {
            let Fence { scope, token } = fence;
            return Err(format!(
                "expected a holder of {scope} with the number {seen} or a later one, found {token}"
            ));
        }
        let entry = Spool::new(&self.root).entry(key)?;
        match entry.status(SystemTime::now())? {
            StepStatus::NeverStarted if entry.call_off()? => {}
            // Or it began just now.
            StepStatus::NeverStarted | StepStatus::Running { .. } => entry.request_cancel()?,
            StepStatus::Finished { .. } => {}
        }
        self.reply(id, Reply::Ok);
        Ok(())
    }

    fn forget(&self, id: u64, job: &str, fence: &Fence) -> Result<(), String> {
        // First, so that no start comes in between.
        fence::close(&self.root, fence)?;
        Spool::new(&self.root).forget(job)?;
        self.reply(id, Reply::Ok);
        Ok(())
    }

    fn start(&self, id: u64, key: &StepKey, order: Order) -> Result<(), String> {
        let (entry, fence) = (Spool::new(&self.root).entry(key)?, &order.fence);
        if entry.status(SystemTime::now())? == StepStatus::NeverStarted {
            // The worker looks again, and records it, before it acts.
            if let Some(seen) = fence::check(&self.root, fence)? {
                let event = Event::Finished {
                    outcome: Outcome::Fenced { seen },
                };
                self.reply(
                    id,
                    Reply::Event {
                        key: key.clone(),
                        event,
                    },
                );
                return Ok(());
            }
            // A person's word that came after the gates were asked, in the same exchange as the act (gates G4, G11). A deploy is
            // a person's own doing and was prechecked, and what a repair left half-done is taken back all the same.
            if let Some(marker) = facts::maintenance_marker(&self.root)
                .filter(|_| fence.scope.starts_with(REPAIR_SCOPE) && !key.is_undo())
            {
                return Err(format!(
                    "this host is marked as in maintenance ({marker}): nothing is repaired on it"
                ));
            }
            if let Claim::Taken(lock) = entry.claim(&order)? {
                let mut worker = self.spawn(key, lock)?;
                let waker = worker.stdout.take();
                let followed = self.follow(id, key, &entry, 0, waker);
                // Ended, or somebody else follows: reaped either way, in the background if need be.
                thread::spawn(move || worker.wait());
                return followed;
            }
        }
        self.follow(id, key, &entry, 0, None)
    }

    /// The worker gets the entry's lock as its standard input, and holds it as long as it lives.
    fn spawn(&self, key: &StepKey, lock: std::fs::File) -> Result<Child, String> {
        std::process::Command::new(PathBuf::from("/proc/self/exe"))
            .arg("--root")
            .arg(self.root.dir())
            .args(["work", &key.0])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(lock))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("expected to start a worker for {key}, found: {error}"))
    }

    /// Sends what happens to a step until it is finished, without the first `seen` events.
    fn follow(
        &self,
        id: u64,
        key: &StepKey,
        entry: &Entry,
        seen: u64,
        mut waker: Option<ChildStdout>,
    ) -> Result<(), String> {
        let (mut offset, mut skip, mut told_started) = (0, seen, seen > 0);
        let send = |event| {
            self.reply(
                id,
                Reply::Event {
                    key: key.clone(),
                    event,
                },
            )
        };
        loop {
            // In this order: what is finished has all its events written.
            let status = entry.status(SystemTime::now())?;
            if status == StepStatus::NeverStarted {
                self.reply(
                    id,
                    Reply::Status {
                        key: key.clone(),
                        status,
                    },
                );
                return Ok(());
            }
            if !told_started && entry.started()?.is_some() {
                told_started = true;
                send(Event::Started);
            }
            let (events, end) = entry.events_from(offset);
            offset = end;
            for event in events {
                if skip > 0 {
                    skip -= 1;
                } else if !send(event) {
                    return Ok(());
                }
            }
            if let StepStatus::Finished { outcome } = status {
                send(Event::Finished { outcome });
                return Ok(());
            }
            wait(&mut waker);
        }
    }
}

/// Until the worker says that something happened, or a moment if this process did not start it.
fn wait(waker: &mut Option<ChildStdout>) {
    let mut bytes = [0; 256];
    match waker.as_mut().map(|pipe| pipe.read(&mut bytes)) {
        Some(Ok(count)) if count > 0 => {}
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Some(_) => *waker = None,
        None => thread::sleep(FOLLOW_POLL),
    }
}
