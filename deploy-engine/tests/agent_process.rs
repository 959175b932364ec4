//! The agent as real processes, over its standard input and output: what survives which death.
#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use deploy_engine::wire::{
    self, Event, Exit, Fence, Frame, HostKey, Outcome, PROTOCOL, Progress, Reply, Request, StepKey,
    StepStatus, Work,
};
use sha2::{Digest, Sha256};

struct Agent {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    buffer: Vec<u8>,
    signer: Option<(HostKey, String)>,
}

fn key() -> HostKey {
    HostKey::derive("the site's secret", "ctl1")
}

impl Agent {
    /// Greeted and enrolled.
    fn start(root: &Path) -> Self {
        let mut agent = Self::bare(root);
        let (nonce, _) = agent.greet();
        agent.signer = Some((key(), nonce));
        assert_eq!(agent.ask(Request::Enrol { key: key() }), Reply::Ok);
        agent
    }

    /// Its nonce, and whom the host obeys.
    fn greet(&mut self) -> (String, Option<String>) {
        match self.ask(Request::Hello { protocol: PROTOCOL }) {
            Reply::Hello { nonce, obeys, .. } => (nonce, obeys),
            other => panic!("expected a greeting, found {other:?}"),
        }
    }

    fn bare(root: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"))
            .arg("--root")
            .arg(root)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
            buffer: vec![],
            signer: None,
        }
    }

    /// The payload of a request as this connection's key signs it.
    fn sealed(&self, id: u64, body: Request) -> Vec<u8> {
        let json = wire::payload(&Frame { id, body }).unwrap();
        match &self.signer {
            None => json.into_bytes(),
            Some((key, nonce)) => wire::seal(json.as_bytes(), &key.sign(nonce, json.as_bytes())),
        }
    }

    fn send_payload(&mut self, payload: &[u8]) {
        self.input
            .write_all(&wire::enclose(payload).unwrap())
            .unwrap();
    }

    fn send(&mut self, id: u64, body: Request) {
        let payload = self.sealed(id, body);
        self.send_payload(&payload);
    }

    fn refused(&mut self) -> String {
        match self.next().body {
            Reply::Refused { why } => why,
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    fn next(&mut self) -> Frame<Reply> {
        loop {
            if let Some((frame, used)) = wire::decode(&self.buffer).unwrap() {
                self.buffer.drain(..used);
                return frame;
            }
            let mut chunk = [0; 4096];
            let count = self.output.read(&mut chunk).unwrap();
            assert!(count > 0, "the agent ended");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    fn ask(&mut self, body: Request) -> Reply {
        self.send(1, body);
        self.next().body
    }

    fn status(&mut self, key: &str) -> StepStatus {
        match self.ask(Request::Ask {
            key: StepKey(key.into()),
        }) {
            Reply::Status { status, .. } => status,
            other => panic!("expected a status, found {other:?}"),
        }
    }

    /// Reads events up to the outcome.
    fn outcome(&mut self) -> (Vec<Event>, Outcome) {
        let mut events = vec![];
        loop {
            match self.next().body {
                Reply::Event {
                    event: Event::Finished { outcome },
                    ..
                } => return (events, outcome),
                Reply::Event { event, .. } => events.push(event),
                other => panic!("expected events, found {other:?}"),
            }
        }
    }

    fn until_started(&mut self) {
        let reply = self.next().body;
        assert!(
            matches!(
                reply,
                Reply::Event {
                    event: Event::Started,
                    ..
                }
            ),
            "{reply:?}"
        );
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
    fs::write(
        dir.path().join("proc/sys/kernel/random/boot_id"),
        "boot-1\n",
    )
    .unwrap();
    dir
}

fn fence(token: u64) -> Fence {
    Fence {
        scope: "site:test".into(),
        token,
    }
}

fn run(key: &str, token: u64, argv: &[&str], timeout_seconds: u32) -> Request {
    Request::Start {
        key: StepKey(key.into()),
        fence: fence(token),
        work: Work::Run {
            command: wire::Command {
                argv: argv.iter().map(|&a| a.to_owned()).collect(),
                env: BTreeMap::new(),
                stdin: None,
                user: None,
                timeout_seconds: 60,
                output_limit_bytes: 4096,
            },
        },
        timeout_seconds,
    }
}

fn worker_pid(root: &Path, key: &str) -> i32 {
    let path = root
        .join("var/lib/nightshift/spool")
        .join(key)
        .join("started");
    let started: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    started["pid"].as_i64().unwrap().try_into().unwrap()
}

fn kill_9(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "expected that {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn hello_tells_the_protocol_and_the_boot() {
    let root = root();
    let mut agent = Agent::bare(root.path());
    let reply = agent.ask(Request::Hello { protocol: PROTOCOL });
    assert!(
        matches!(reply, Reply::Hello { protocol: PROTOCOL, boot_id, .. } if boot_id == "boot-1")
    );
    assert!(matches!(
        agent.ask(Request::Hello { protocol: 99 }),
        Reply::Refused { .. }
    ));
}

#[test]
fn a_step_runs_once_and_its_outcome_is_kept_without_its_request() {
    let root = root();
    let mut agent = Agent::start(root.path());
    let marks = root.path().join("marks").display().to_string();
    let request = || {
        run(
            "job1.0.1",
            1,
            &["sh", "-c", "echo x >> \"$0\"; echo said", &marks],
            30,
        )
    };
    for _ in 0..3 {
        agent.send(7, request());
        let (events, outcome) = agent.outcome();
        assert_eq!(events, [Event::Started]);
        let Outcome::Done {
            output: Some(output),
            ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (output.exit, output.stdout.as_str()),
            (Exit::Code(0), "said\n")
        );
    }
    assert_eq!(
        fs::read_to_string(root.path().join("marks")).unwrap(),
        "x\n"
    );
    let entry = root.path().join("var/lib/nightshift/spool/job1.0.1");
    assert!(!entry.join("request").exists() && entry.join("outcome").exists());
    let fence = fence(1);
    let job = "job1".into();
    assert_eq!(agent.ask(Request::Forget { job, fence }), Reply::Ok);
    assert_eq!(agent.status("job1.0.1"), StepStatus::NeverStarted);
    // A start that comes late finds no key, and a closed fence.
    agent.send(9, request());
    assert_eq!(agent.outcome(), (vec![], Outcome::Fenced { seen: 2 }));
}

#[test]
fn the_worker_outlives_the_agent_and_the_next_agent_attaches() {
    let root = root();
    let mut first = Agent::start(root.path());
    first.send(
        1,
        run("job2.0.1", 1, &["sh", "-c", "sleep 1; echo done"], 30),
    );
    first.until_started();
    first.child.kill().unwrap();
    let mut second = Agent::start(root.path());
    assert!(matches!(
        second.status("job2.0.1"),
        StepStatus::Running { .. }
    ));
    second.send(
        2,
        Request::Attach {
            key: StepKey("job2.0.1".into()),
            seen: 0,
        },
    );
    let (_, outcome) = second.outcome();
    assert!(
        matches!(&outcome, Outcome::Done { output: Some(o), .. } if o.stdout == "done\n"),
        "{outcome:?}"
    );
    assert_eq!(second.status("job2.0.1"), StepStatus::Finished { outcome });
}

#[test]
fn a_killed_worker_is_lost_and_never_repeated() {
    let root = root();
    let mut agent = Agent::start(root.path());
    let mark = root.path().join("mark");
    let name = mark.display().to_string();
    let request = || {
        let program = ["sh", "-c", "touch \"$0\"; sleep 5", &name];
        run("job3.0.1", 1, &program, 30)
    };
    agent.send(1, request());
    while !mark.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_9(worker_pid(root.path(), "job3.0.1"));
    // Its program goes on, so the step is not over.
    let status = Agent::start(root.path()).status("job3.0.1");
    assert!(matches!(status, StepStatus::Running { .. }), "{status:?}");
    let (_, outcome) = agent.outcome();
    assert!(
        matches!(&outcome, Outcome::Lost { why } if why.contains("boot-1")),
        "{outcome:?}"
    );
    let mut later = Agent::start(root.path());
    later.send(1, request());
    assert!(matches!(later.outcome(), (_, Outcome::Lost { .. })));
}

#[test]
fn a_cancelled_step_ends_its_programs() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job4.0.1", 1, &["sleep", "20"], 30));
    agent.until_started();
    let began = Instant::now();
    agent.send(
        2,
        Request::Cancel {
            key: StepKey("job4.0.1".into()),
            fence: fence(1),
        },
    );
    let mut replies = [agent.next(), agent.next()];
    replies.sort_by_key(|frame| frame.id);
    assert!(matches!(
        &replies[0].body,
        Reply::Event {
            event: Event::Finished {
                outcome: Outcome::Cancelled
            },
            ..
        }
    ));
    assert_eq!(replies[1].body, Reply::Ok);
    assert!(began.elapsed() < Duration::from_secs(5));
    let unknown = agent.ask(Request::Cancel {
        key: StepKey("job4.9.1".into()),
        fence: fence(1),
    });
    assert_eq!(unknown, Reply::Ok);
    // A start that comes after its cancel begins nothing.
    let marks = root.path().join("marks").display().to_string();
    agent.send(4, run("job4.9.1", 1, &["touch", &marks], 30));
    assert_eq!(agent.outcome(), (vec![], Outcome::CalledOff));
    assert!(!root.path().join("marks").exists());
}

/// A bot that was cut off and came back must not end what its successor does.
#[test]
fn a_holder_that_was_replaced_ends_nothing() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job4.1.1", 2, &["sleep", "20"], 30));
    agent.until_started();
    let cancel = |token| Request::Cancel {
        key: StepKey("job4.1.1".into()),
        fence: fence(token),
    };
    let mut other = Agent::start(root.path());
    let late = other.ask(cancel(1));
    assert!(
        matches!(&late, Reply::Refused { why } if why.contains("site:test with the number 2")),
        "{late:?}"
    );
    assert!(matches!(
        other.status("job4.1.1"),
        StepStatus::Running { .. }
    ));
    assert_eq!(other.ask(cancel(2)), Reply::Ok);
    assert_eq!(agent.outcome(), (vec![], Outcome::Cancelled));
}

#[test]
fn the_steps_own_time_limit_ends_it() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job5.0.1", 1, &["sleep", "20"], 1));
    let (_, outcome) = agent.outcome();
    let Outcome::Failed {
        what,
        output: Some(output),
        ..
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(
        what.contains("time was up") && output.exit == Exit::TimedOut,
        "{what}"
    );
}

#[test]
fn a_lower_token_is_refused_before_anything_is_recorded() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job6.0.1", 5, &["true"], 30));
    assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
    agent.send(1, run("job7.0.1", 4, &["true"], 30));
    assert_eq!(agent.outcome(), (vec![], Outcome::Fenced { seen: 5 }));
    assert_eq!(agent.status("job7.0.1"), StepStatus::NeverStarted);
    // What is known already may still be asked for.
    agent.send(1, run("job6.0.1", 4, &["true"], 30));
    assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
}

/// A person's marker that appears after the gates were asked: the host itself says no, in the same exchange as the act.
#[test]
fn a_repair_is_refused_on_a_host_that_was_marked_in_between() {
    let root = root();
    let repair = |key: &str| match run(key, 1, &["true"], 30) {
        Request::Start {
            key,
            work,
            timeout_seconds,
            ..
        } => Request::Start {
            key,
            work,
            timeout_seconds,
            fence: Fence {
                scope: "domain:rabbitmq".into(),
                token: 1,
            },
        },
        other => other,
    };
    let mut agent = Agent::start(root.path());
    agent.send(1, repair("h1.0.1"));
    assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
    fs::create_dir_all(root.path().join("etc/nightshift")).unwrap();
    fs::write(
        root.path().join("etc/nightshift/maintenance"),
        "disk swap\n",
    )
    .unwrap();
    match agent.ask(repair("h1.1.1")) {
        Reply::Refused { why } => assert!(why.contains("maintenance (disk swap)"), "{why}"),
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(agent.status("h1.1.1"), StepStatus::NeverStarted);
    // What is taken back is not left half-done, and a deploy is a person's own doing.
    agent.send(1, repair("h1.0.u1"));
    assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
    agent.send(1, run("d1.0.1", 1, &["true"], 30));
    assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
}

#[test]
fn requests_do_not_wait_for_each_other() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job8.0.1", 1, &["sleep", "2"], 30));
    agent.until_started();
    let began = Instant::now();
    assert!(matches!(
        agent.ask(Request::Hello { protocol: PROTOCOL }),
        Reply::Hello { .. }
    ));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn progress_comes_while_it_runs_and_can_be_taken_up_where_it_was() {
    let root = root();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    for file in ["etc/passwd", "etc/group"] {
        fs::write(root.path().join(file), "").unwrap();
    }
    let owner = rustix::process::getuid().as_raw().to_string();
    let resources = ["/etc/a", "/etc/b"].map(|path| wire::Resource::File {
        path: path.into(),
        content: "x\n".into(),
        mode: "0600".into(),
        owner: owner.clone(),
        group: rustix::process::getgid().as_raw().to_string(),
        validate: None,
        sensitive: false,
        absent: false,
    });
    let mut agent = Agent::start(root.path());
    let key = StepKey("job9.0.1".into());
    agent.send(
        1,
        Request::Start {
            key: key.clone(),
            fence: fence(1),
            work: Work::Apply {
                resources: resources.to_vec(),
                expected: BTreeMap::new(),
            },
            timeout_seconds: 30,
        },
    );
    let (events, outcome) = agent.outcome();
    assert!(matches!(outcome, Outcome::Done { changed, .. } if changed.len() == 2));
    let done = events.iter().filter(|e| {
        matches!(
            e,
            Event::Progress {
                progress: Progress::ResourceDone { changed: true, .. }
            }
        )
    });
    assert_eq!((done.count(), events.len()), (2, 5));
    agent.send(2, Request::Attach { key, seen: 3 });
    assert_eq!(agent.outcome().0.as_slice(), &events[4..]);
}

#[test]
fn a_damaged_stream_ends_the_agent_but_not_its_worker() {
    let root = root();
    let mut agent = Agent::start(root.path());
    agent.send(1, run("job10.0.1", 1, &["sleep", "1"], 30));
    agent.until_started();
    agent.input.write_all(b"\xff\xff\xff\xffgarbage").unwrap();
    let status = agent.child.wait().unwrap();
    assert!(!status.success() && status.signal().is_none(), "{status:?}");
    let mut next = Agent::start(root.path());
    eventually("the worker finishes", || {
        matches!(
            next.status("job10.0.1"),
            StepStatus::Finished {
                outcome: Outcome::Done { .. }
            }
        )
    });
}

#[test]
fn keys_that_are_paths_are_refused() {
    let root = root();
    let mut agent = Agent::start(root.path());
    for key in ["../../etc/x", "a/b", "", "-rf", ".."] {
        let reply = agent.ask(run(key, 1, &["true"], 5));
        assert!(matches!(reply, Reply::Refused { .. }), "{key}: {reply:?}");
    }
}

#[test]
fn two_starts_of_one_key_at_once_run_it_once() {
    let root = root();
    let marks = root.path().join("marks").display().to_string();
    let mut agents: Vec<Agent> = (0..4).map(|_| Agent::start(root.path())).collect();
    for agent in &mut agents {
        agent.send(
            1,
            run(
                "job11.0.1",
                1,
                &["sh", "-c", "echo x >> \"$0\"; sleep 1", &marks],
                30,
            ),
        );
    }
    for agent in &mut agents {
        assert!(matches!(agent.outcome(), (_, Outcome::Done { .. })));
    }
    assert_eq!(fs::read_to_string(&marks).unwrap(), "x\n");
}

/// Everything that an agent may be asked but to greet and to enrol.
fn all_requests() -> Vec<Request> {
    let key = StepKey("job12.0.1".into());
    vec![
        Request::Observe {
            facts: false,
            resources: vec![],
            probes: BTreeMap::new(),
        },
        run("job12.0.1", 1, &["true"], 5),
        Request::Ask { key: key.clone() },
        Request::Attach {
            key: key.clone(),
            seen: 0,
        },
        Request::Cancel {
            key,
            fence: fence(1),
        },
        Request::Forget {
            job: "job12".into(),
            fence: fence(1),
        },
    ]
}

#[test]
fn nothing_is_done_on_a_host_that_was_never_enrolled() {
    let root = root();
    let mut agent = Agent::bare(root.path());
    let (nonce, obeys) = agent.greet();
    assert_eq!(obeys, None);
    agent.signer = Some((key(), nonce));
    for request in all_requests() {
        agent.send(1, request);
        let why = agent.refused();
        assert!(why.contains("enrol"), "{why}");
    }
    assert!(!root.path().join("var/lib/nightshift/spool").exists());
}

#[test]
fn requests_without_the_hosts_signature_are_refused_and_nothing_is_recorded() {
    let root = root();
    drop(Agent::start(root.path()));
    let mut agent = Agent::bare(root.path());
    let (nonce, obeys) = agent.greet();
    assert_eq!(obeys, Some(key().id()));
    let mut elsewhere = Agent::bare(root.path());
    let signers = [
        (None, "no signature"),
        (
            Some((HostKey::derive("another secret", "ctl1"), nonce.clone())),
            "another signature",
        ),
        (
            Some((HostKey::derive("the site's secret", "ctl2"), nonce.clone())),
            "another signature",
        ),
        (Some((key(), elsewhere.greet().0)), "another signature"),
    ];
    for (signer, part) in signers {
        agent.signer = signer;
        for request in all_requests() {
            agent.send(1, request);
            let why = agent.refused();
            assert!(why.contains(part), "{why}");
        }
    }
    agent.signer = Some((key(), nonce));
    assert_eq!(agent.status("job12.0.1"), StepStatus::NeverStarted);
}

#[test]
fn a_request_that_was_changed_or_recorded_is_refused() {
    let root = root();
    let mut agent = Agent::start(root.path());
    let payload = agent.sealed(1, run("job13.0.1", 1, &["sleep", "5"], 30));
    for (old, new) in [
        ("sleep", "false"),
        ("\"token\":1", "\"token\":9"),
        (":30}", ":31}"),
        ("job13.0.1", "job13.0.2"),
    ] {
        let changed = String::from_utf8(payload.clone())
            .unwrap()
            .replace(old, new);
        assert_ne!(changed.as_bytes(), payload, "{old}");
        agent.send_payload(changed.as_bytes());
        assert!(agent.refused().contains("another signature"), "{old}");
    }
    // The same bytes on the next connection.
    let mut next = Agent::start(root.path());
    next.send_payload(&payload);
    assert!(next.refused().contains("another signature"));
    assert_eq!(next.status("job13.0.1"), StepStatus::NeverStarted);
}

#[test]
fn a_host_obeys_the_first_key_and_says_how_to_change_it() {
    let root = root();
    drop(Agent::start(root.path()));
    let other = HostKey::derive("another secret", "ctl1");
    let mut thief = Agent::bare(root.path());
    thief.greet();
    thief.send(1, Request::Enrol { key: other.clone() });
    let why = thief.refused();
    let file = root.path().join("var/lib/nightshift/step-key");
    assert!(
        why.contains("step-key") && why.contains(&other.id()),
        "{why}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), key().to_hex());
    assert!(!why.contains(&key().to_hex()) && !why.contains(&other.to_hex()));
    fs::remove_file(file).unwrap();
    assert_eq!(thief.ask(Request::Enrol { key: other }), Reply::Ok);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// What sshd does with a key that has the gate as its forced command.
fn gate(root: &Path, original: Option<&str>, input: &[u8]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"));
    command
        .arg("--root")
        .arg(root)
        .arg("gate")
        .env_remove("SSH_ORIGINAL_COMMAND");
    if let Some(line) = original {
        command.env("SSH_ORIGINAL_COMMAND", line);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// An uploaded agent: its upload and its installation as the engine asks for them.
fn renewal(program: &[u8], key: &HostKey) -> (String, [String; 2]) {
    let sha = sha256(program);
    let folder = format!("/var/lib/nightshift/agent/{sha}");
    let aside = format!(
        "{folder}/nightshift-agent.new-{}-{:016x}",
        key.sign_agent(&sha),
        7
    );
    let commands = [
        format!("install -D -m 0755 /dev/stdin {aside}"),
        format!("{aside} install {sha}"),
    ];
    (format!("{folder}/nightshift-agent"), commands)
}

#[test]
fn the_gate_renews_and_starts_the_agent_and_runs_nothing_else() {
    let root = root();
    let program = b"#!/bin/sh\necho agent \"$@\" $SSH_ORIGINAL_COMMAND\n";
    let (place, [upload, install]) = renewal(program, &key());
    // Nobody is obeyed yet: nothing new is taken.
    let said = gate(root.path(), Some(&upload), program);
    assert!(!said.status.success());
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("enrolled"),
        "{said:?}"
    );
    drop(Agent::start(root.path()));

    let missing = gate(root.path(), Some(&format!("{place} serve")), b"");
    assert_eq!(
        missing.status.code(),
        Some(127),
        "as a shell says it: {missing:?}"
    );
    assert!(gate(root.path(), Some(&upload), program).status.success());
    assert!(gate(root.path(), Some(&install), b"").status.success());
    let served = gate(root.path(), Some(&format!("{place} serve")), b"");
    let said = String::from_utf8(served.stdout).unwrap();
    assert_eq!(
        said,
        format!("agent --root {} serve\n", root.path().display())
    );
    let current = fs::read_link(root.path().join("var/lib/nightshift/agent/current")).unwrap();
    assert_eq!(current.to_str(), Some(sha256(program).as_str()));

    let mark = root.path().join("mark");
    for line in [
        None,
        Some(""),
        Some("id"),
        Some(&*format!("touch {}", mark.display())),
        Some(&*format!("{place} serve; touch {}", mark.display())),
    ] {
        let said = gate(root.path(), line, b"");
        assert_eq!(said.status.code(), Some(1), "{said:?}");
    }
    assert!(!mark.exists());
}

#[test]
fn the_gate_takes_no_agent_that_is_unsigned_or_not_what_was_signed() {
    let root = root();
    drop(Agent::start(root.path()));
    let program = b"#!/bin/sh\ntouch /tmp/never\n";
    let (_, [upload, install]) = renewal(program, &HostKey::derive("another secret", "ctl1"));
    for line in [&upload, &install] {
        let said = gate(root.path(), Some(line), program);
        assert!(!said.status.success());
        assert!(
            String::from_utf8_lossy(&said.stderr).contains("another signature"),
            "{said:?}"
        );
    }
    let (place, [upload, install]) = renewal(program, &key());
    let short = &program[..program.len() - 1];
    assert!(gate(root.path(), Some(&upload), short).status.success());
    let said = gate(root.path(), Some(&install), b"");
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("expected the digest"),
        "{said:?}"
    );
    assert!(!root.path().join(place.trim_start_matches('/')).exists());
    let folder = root
        .path()
        .join("var/lib/nightshift/agent")
        .join(sha256(program));
    assert_eq!(
        fs::read_dir(folder).unwrap().count(),
        0,
        "what is refused does not stay"
    );
}
