//! Runs one program: an argument vector, a fixed environment, limits on time and output.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ChildStdin, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use super::{Root, collect, output::HeadTail, resource::accounts::Accounts, systemd};
use crate::wire::{Command, CommandOutput, Exit};

/// After its time is up a process group gets this long to end on `SIGTERM` before `SIGKILL`.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// A daemon may inherit the pipes of the program that started it: this long after the program ended they are let go.
const DRAIN: Duration = Duration::from_millis(300);
/// How often a running program looks whether its step was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// Output kept of the agent's own helpers (systemctl, apt-get, ...), in bytes: enough for any error that people read.
const HELPER_OUTPUT_BYTES: u32 = 256 * 1024;

/// How programs are run on this host: where they are looked up, and when they must stop.
#[derive(Clone)]
pub struct Exec {
    root: Root,
    cancelled: Arc<AtomicBool>,
    deadline: Option<Instant>,
    systemd: systemd::Kept,
}

/// A stream of lines beside standard output, for example apt's status.
pub struct StatusPipe<'a> {
    pub reader: OwnedFd,
    /// The child's end; closed here once the child has it.
    pub writer: OwnedFd,
    pub on_line: &'a mut dyn FnMut(&str),
}

struct Stream {
    fd: OwnedFd,
    kept: HeadTail,
    open: bool,
}

impl Exec {
    pub fn new(root: Root) -> Self {
        Self {
            root,
            cancelled: Arc::default(),
            deadline: None,
            systemd: systemd::Kept::default(),
        }
    }

    pub fn systemd(&self) -> &systemd::Kept {
        &self.systemd
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The same, ending everything at `deadline` or when `cancelled` is set.
    pub fn bounded(mut self, deadline: Instant, cancelled: Arc<AtomicBool>) -> Self {
        self.deadline = Some(deadline);
        self.cancelled = cancelled;
        self
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Time left for the step; `None`: it has no limit.
    pub fn out_of_time(&self) -> bool {
        self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Runs a helper of the agent's own with the given limit.
    pub fn helper(&self, argv: &[&str], timeout: Duration) -> Result<CommandOutput, String> {
        self.helper_with(argv, None, &[], timeout)
    }

    pub fn helper_with(
        &self,
        argv: &[&str],
        stdin: Option<&str>,
        env: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<CommandOutput, String> {
        self.run(&Command {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            env: collect::map(env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()))),
            stdin: stdin.map(str::to_owned),
            user: None,
            timeout_seconds: timeout.as_secs().try_into().unwrap_or(u32::MAX),
            output_limit_bytes: HELPER_OUTPUT_BYTES,
        })
    }

    /// The standard output of a helper that must succeed; the error names the command, its exit and its last words.
    pub fn text(&self, argv: &[&str], timeout: Duration) -> Result<String, String> {
        let output = self.helper(argv, timeout)?;
        if output.ok() {
            Ok(output.stdout)
        } else {
            Err(failure(argv, &output))
        }
    }

    pub fn run(&self, command: &Command) -> Result<CommandOutput, String> {
        self.run_with_status(command, None)
    }

    /// An error: the program could not be started for another reason than that it does not exist.
    pub fn run_with_status<'a>(
        &'a self,
        command: &'a Command,
        status: Option<StatusPipe<'a>>,
    ) -> Result<CommandOutput, String> {
        let began = Instant::now();
        let child = match self.spawn(command) {
            Ok(child) => child,
            Err(SpawnError::NotFound) => return Ok(not_found(began)),
            Err(SpawnError::Other(why)) => return Err(why),
        };
        let own = began + Duration::from_secs(command.timeout_seconds.into());
        let deadline = self.deadline.map_or(own, |d| d.min(own));
        Watch::new(child, command, status, deadline, &self.cancelled)?.finish(began)
    }

    fn spawn(&self, command: &Command) -> Result<Child, SpawnError> {
        let (program, arguments) = command.argv.split_first().ok_or_else(|| {
            SpawnError::Other("expected a program to run, found an empty argument vector".into())
        })?;
        let mut process = std::process::Command::new(program);
        process
            .args(arguments)
            .env_clear()
            .envs(self.environment(&command.env))
            .process_group(0)
            .stdin(if command.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        process.current_dir("/");
        if let Some(user) = &command.user {
            let account = Accounts::read(&self.root)
                .and_then(|accounts| {
                    accounts.user(user).cloned().ok_or_else(|| {
                        format!("expected the user {user} to run {program} as, found no such user")
                    })
                })
                .map_err(SpawnError::Other)?;
            process
                .uid(account.uid)
                .gid(account.gid)
                .env("HOME", &account.home);
        }
        process.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SpawnError::NotFound,
            _ => SpawnError::Other(format!("expected to run {program}, found: {error}")),
        })
    }

    fn environment(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = collect::map([
            ("PATH".to_owned(), self.root.search_path()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ]);
        all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
        all
    }
}

enum SpawnError {
    NotFound,
    Other(String),
}

fn not_found(began: Instant) -> CommandOutput {
    CommandOutput {
        exit: Exit::NotFound,
        stdout: String::new(),
        stderr: String::new(),
        truncated: false,
        took_ms: millis(began),
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A running child with its pipes.
struct Watch<'a> {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    input: &'a [u8],
    streams: [Stream; 2],
    status: Option<Lines<'a>>,
    deadline: Instant,
    cancelled: &'a AtomicBool,
    /// When its end was asked for, and whether by the clock.
    ending: Cell<Option<(Instant, bool)>>,
    killed: Cell<bool>,
}

impl<'a> Watch<'a> {
    fn new(
        mut child: Child,
        command: &'a Command,
        status: Option<StatusPipe<'a>>,
        deadline: Instant,
        cancelled: &'a AtomicBool,
    ) -> Result<Self, String> {
        let lost = |what: &str| format!("expected {what} of {:?}, found none", command.argv);
        let limit = command.output_limit_bytes as usize;
        let stdout = child.stdout.take().ok_or_else(|| lost("standard output"))?;
        let stderr = child.stderr.take().ok_or_else(|| lost("standard error"))?;
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            rustix::io::ioctl_fionbio(stdin, true).map_err(|error| error.to_string())?;
        }
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| format!("expected a handle of process {pid:?}, found: {error}"))?;
        Ok(Self {
            pid,
            pidfd,
            stdin,
            input: command.stdin.as_deref().unwrap_or_default().as_bytes(),
            streams: [
                Stream::new(stdout.into(), limit),
                Stream::new(stderr.into(), limit),
            ],
            status: status.map(Lines::new),
            deadline,
            cancelled,
            ending: Cell::new(None),
            killed: Cell::new(false),
            child,
        })
    }

    fn finish(mut self, began: Instant) -> Result<CommandOutput, String> {
        let mut exited: Option<(std::process::ExitStatus, Instant)> = None;
        loop {
            self.end_if_due();
            if let Some((_, at)) = exited
                && (self.streams.iter().all(|s| !s.open) || at.elapsed() >= DRAIN)
            {
                break;
            }
            let ended = self.wait_and_move(exited.is_some())?;
            if ended && exited.is_none() {
                let status = self
                    .child
                    .wait()
                    .map_err(|error| format!("expected the program's exit, found: {error}"))?;
                exited = Some((status, Instant::now()));
            }
        }
        let [stdout, stderr] = self.streams;
        let timed_out = matches!(self.ending.get(), Some((_, true)));
        let exit = match exited {
            _ if timed_out => Exit::TimedOut,
            Some((status, _)) => status
                .code()
                .map(Exit::Code)
                .or_else(|| status.signal().map(Exit::Signal))
                .unwrap_or(Exit::Signal(0)),
            None => Exit::Signal(0),
        };
        Ok(CommandOutput {
            exit,
            truncated: stdout.kept.truncated() || stderr.kept.truncated(),
            stdout: stdout.kept.into_text(),
            stderr: stderr.kept.into_text(),
            took_ms: millis(began),
        })
    }

    /// Asks the process group to end when its time is up or its step was cancelled; kills it when it does not.
    fn end_if_due(&self) {
        let now = Instant::now();
        let late = now >= self.deadline;
        match self.ending.get() {
            None if late || self.cancelled.load(Ordering::Relaxed) => {
                self.ending.set(Some((now, late)));
                let _ = kill_process_group(self.pid, Signal::TERM);
            }
            Some((at, _)) if now.duration_since(at) >= KILL_GRACE && !self.killed.get() => {
                self.killed.set(true);
                let _ = kill_process_group(self.pid, Signal::KILL);
            }
            _ => {}
        }
    }

    /// Waits until something can be read, written or reaped, and moves the bytes. True: the child has ended.
    fn wait_and_move(&mut self, exited: bool) -> Result<bool, String> {
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let mut ready = [false; 5];
        {
            let mut fds: Vec<(usize, PollFd<'_>)> = Vec::with_capacity(5);
            for (index, stream) in self.streams.iter().enumerate().filter(|(_, s)| s.open) {
                fds.push((index, PollFd::from_borrowed_fd(stream.fd.as_fd(), readable)));
            }
            if let Some(lines) = self.status.as_ref().filter(|lines| lines.open) {
                fds.push((2, PollFd::from_borrowed_fd(lines.fd.as_fd(), readable)));
            }
            if let Some(stdin) = &self.stdin {
                fds.push((3, PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT)));
            }
            if !exited {
                fds.push((
                    4,
                    PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN),
                ));
            }
            let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(_, fd)| fd.clone()).collect();
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(CANCEL_POLL.as_nanos()).unwrap_or(0),
            };
            match poll(&mut polled, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(format!("expected to wait for a program, found: {error}"));
                }
            }
            for ((index, _), fd) in fds.iter().zip(&polled) {
                ready[*index] = !fd.revents().is_empty();
            }
        }
        for (stream, _) in self.streams.iter_mut().zip(ready).filter(|(_, r)| *r) {
            stream.read();
        }
        if let Some(lines) = self.status.as_mut().filter(|_| ready[2]) {
            lines.read();
        }
        if ready[3] {
            self.write_input();
        }
        Ok(ready[4])
    }

    fn write_input(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(self.input) {
            Ok(count) => self.input = &self.input[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => self.input = &[],
        }
        if self.input.is_empty() {
            self.stdin = None;
        }
    }
}

impl Stream {
    fn new(fd: OwnedFd, limit: usize) -> Self {
        Self {
            fd,
            kept: HeadTail::new(limit),
            open: true,
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(count) if count > 0 => self.kept.push(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            _ => self.open = false,
        }
    }
}

/// The status pipe while it is read.
struct Lines<'a> {
    fd: OwnedFd,
    line: Vec<u8>,
    on_line: &'a mut dyn FnMut(&str),
    open: bool,
}

impl<'a> Lines<'a> {
    /// Closes this side's copy of the writing end: the child has its own by now.
    fn new(pipe: StatusPipe<'a>) -> Self {
        drop(pipe.writer);
        Self {
            fd: pipe.reader,
            line: Vec::new(),
            on_line: pipe.on_line,
            open: true,
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(0) | Err(_) => self.open = false,
            Ok(count) => {
                for &byte in &buffer[..count] {
                    if byte == b'\n' {
                        (self.on_line)(&String::from_utf8_lossy(&self.line));
                        self.line.clear();
                    } else {
                        self.line.push(byte);
                    }
                }
            }
        }
    }
}

/// What people read when a command failed: its words, how it ended, its last lines.
pub fn failure(argv: &[&str], output: &CommandOutput) -> String {
    let how = match output.exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::TimedOut => format!("no end after {} s (killed)", output.took_ms / 1000),
        Exit::NotFound => "no such program".to_owned(),
    };
    let said = if output.stderr.trim().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let last = last_lines(said, 10);
    let command = argv.join(" ");
    if last.is_empty() {
        format!("`{command}`: {how}")
    } else {
        format!("`{command}`: {how}: {last}")
    }
}

/// The last `count` lines, in one text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec() -> Exec {
        Exec::new(Root::new("/"))
    }

    fn command(argv: &[&str], timeout_seconds: u32, output_limit_bytes: u32) -> Command {
        Command {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            env: BTreeMap::new(),
            stdin: None,
            user: None,
            timeout_seconds,
            output_limit_bytes,
        }
    }

    #[test]
    fn ends_are_told_apart() {
        for (argv, exit) in [
            (vec!["true"], Exit::Code(0)),
            (vec!["sh", "-c", "exit 7"], Exit::Code(7)),
            (vec!["sh", "-c", "kill -9 $$"], Exit::Signal(9)),
            (vec!["no-such-program-here"], Exit::NotFound),
        ] {
            assert_eq!(
                exec().run(&command(&argv, 5, 100)).unwrap().exit,
                exit,
                "{argv:?}"
            );
        }
        assert!(exec().run(&command(&[], 5, 100)).is_err());
    }

    #[test]
    fn environment_and_input_are_ours() {
        let mut asked = command(&["sh", "-c", "echo $PATH $LC_ALL $X; cat"], 5, 1000);
        asked.env.insert("X".into(), "y".into());
        asked.stdin = Some("z".repeat(300_000));
        asked.output_limit_bytes = 1_000_000;
        let output = exec().run(&asked).unwrap();
        let path = Root::new("/").search_path();
        assert!(
            output.stdout.starts_with(&format!("{path} C y\nzzz")),
            "{}",
            &output.stdout[..200]
        );
        assert_eq!(output.stdout.len(), path.len() + 5 + 300_000);
    }

    #[test]
    fn output_keeps_its_ends() {
        let output = exec().run(&command(&["seq", "100000"], 10, 20)).unwrap();
        assert!(
            output.truncated
                && output.stdout.starts_with("1\n2\n3\n")
                && output.stdout.ends_with("100000\n")
        );
    }

    #[test]
    fn time_is_limited_for_the_whole_process_group() {
        let began = Instant::now();
        let output = exec()
            .run(&command(&["sh", "-c", "sleep 31 & sleep 30"], 1, 100))
            .unwrap();
        assert_eq!(output.exit, Exit::TimedOut);
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_daemon_that_keeps_the_pipes_does_not_hold_the_command() {
        let began = Instant::now();
        let output = exec()
            .run(&command(&["sh", "-c", "sleep 3 & echo done"], 20, 100))
            .unwrap();
        assert_eq!(
            (output.exit, output.stdout.as_str()),
            (Exit::Code(0), "done\n")
        );
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }

    #[test]
    fn a_cancelled_step_ends_its_program() {
        let flag = Arc::new(AtomicBool::new(false));
        let bounded = exec().bounded(Instant::now() + Duration::from_secs(30), flag.clone());
        let began = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            flag.store(true, Ordering::Relaxed);
        });
        let output = bounded.run(&command(&["sleep", "20"], 30, 100)).unwrap();
        assert_eq!(output.exit, Exit::Signal(15));
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
}
