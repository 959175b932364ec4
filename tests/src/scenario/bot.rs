//! The running bot: started inside the lab's namespace and control group, so that `down` ends it too.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Installation;
use crate::wait;

/// From start to the first answer: opens the store, reads the site, resumes jobs.
const START_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to the end: steps that run on hosts are left running there, so nothing long is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Lines of the log that an error shows.
const LOG_LINES: usize = 15;

/// `nightshift serve` without a chat; killed when dropped.
#[derive(Debug)]
pub struct Bot {
    child: Child,
    log: PathBuf,
    /// Its control group.
    group: PathBuf,
}

impl Bot {
    /// Starts it and waits until it answers its command line.
    ///
    /// # Errors
    /// With the end of its log, if it ends or stays silent.
    pub fn start(installation: &Installation) -> anyhow::Result<Bot> {
        Bot::spawn(installation)?.answering(installation)
    }

    /// As [`Bot::start`], and it has the first processor alone: what it cannot do in time is seen at once.
    ///
    /// # Errors
    /// As of [`Bot::start`].
    pub fn start_on_one_processor(installation: &Installation) -> anyhow::Result<Bot> {
        let serve = installation.contained(&["serve"])?;
        let mut pinned = Command::new("taskset");
        pinned
            .current_dir(installation.folder())
            .args(["--cpu-list", "0"])
            .arg(serve.get_program())
            .args(serve.get_args());
        Bot::run(pinned, installation)?.answering(installation)
    }

    fn answering(self, installation: &Installation) -> anyhow::Result<Bot> {
        let mut bot = self;
        let result = wait::until("the bot's first answer", START_LIMIT, || {
            if let Ok(Some(status)) = bot.child.try_wait() {
                return Ok(Err(status));
            }
            installation
                .ask(&["whoami"])
                .map(Ok)
                .map_err(|e| format!("{e:#}"))
        });
        match result {
            Ok(Ok(_)) => Ok(bot),
            Ok(Err(status)) => bail!(
                "the bot ended with {status}; end of its log:\n{}",
                bot.log()
            ),
            Err(error) => bail!("{error}; end of its log:\n{}", bot.log()),
        }
    }

    /// Starts it and waits for nothing.
    pub fn spawn(installation: &Installation) -> anyhow::Result<Bot> {
        Bot::run(installation.contained(&["serve"])?, installation)
    }

    fn run(mut command: Command, installation: &Installation) -> anyhow::Result<Bot> {
        let log = installation.folder().join("bot.log");
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("start the bot")?;
        let group = installation.control_group()?;
        Ok(Bot { child, log, group })
    }

    /// Ends it as an operator would, and waits for it.
    ///
    /// # Errors
    /// If it has to be killed after all, or had ended before.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let child = &mut self.child;
        let ended = wait::until("the end of the bot", STOP_LIMIT, || {
            match child.try_wait() {
                Ok(Some(status)) => Ok(status),
                other => Err(format!("{other:?}")),
            }
        });
        Ok(ended?)
    }

    /// `kill -9`, as the kernel's OOM killer does it.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().context("wait for the killed bot")?;
        Ok(())
    }

    /// Process id, which is part of the bot's name among others.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the clock for it, as a hypervisor does that moves its machine.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Bot::pause`].
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// All of its log.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills its SSH connections, which are processes of their own beside it. Says how many.
    pub fn kill_sessions(&self) -> anyhow::Result<usize> {
        let mut killed = 0;
        let processes = self.group.join("cgroup.procs");
        let processes = fs::read_to_string(&processes)
            .with_context(|| format!("read {}", processes.display()))?;
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let pid = Pid::from_raw(pid).filter(|_| name.trim() == "ssh");
            // One that has just ended is as good as killed.
            killed += usize::from(pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
        }
        Ok(killed)
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// End of its log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("the bot has no process id")?, signal).context("signal the bot")
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
