//! Doing what a drill file says.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::file::{Act, Run};
use crate::scenario::{Installation, capture};
use crate::{Lab, Mend, wait};

/// What a background command of a drill may take after everything else is done.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(600);

/// A drill at work on a lab with a running bot.
#[derive(Debug)]
pub struct Stage<'a> {
    pub lab: &'a Lab,
    pub installation: &'a Installation,
    background: Vec<Child>,
}

impl<'a> Stage<'a> {
    pub fn new(installation: &'a Installation) -> Stage<'a> {
        Stage {
            lab: installation.lab(),
            installation,
            background: Vec::new(),
        }
    }

    pub fn act(&mut self, act: &Act) -> anyhow::Result<()> {
        match act {
            Act::Fault(fault) => self.lab.fault(fault).map(drop).map_err(Into::into),
            Act::Mend(mend) => self.lab.mend(&mend.0).map(drop).map_err(Into::into),
            Act::Run(run) => self.run(run),
            Act::Bot(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                capture(&mut self.installation.cli(&words)?)
                    .map(drop)
                    .map_err(Into::into)
            }
            Act::BotInBackground(words) => self.start(words),
        }
    }

    /// Runs a program until it shows what is expected, or its time is over.
    pub fn run(&self, run: &Run) -> anyhow::Result<()> {
        let argv: Vec<&str> = run.argv.iter().map(String::as_str).collect();
        let what = format!("`{}` on {}", run.argv.join(" "), run.on);
        let look = || {
            let output = self
                .lab
                .ssh(&run.on.name(), &argv)
                .map_err(|e| e.to_string())?;
            let shown = format!("{}: {}{}", output.status, output.stdout, output.stderr);
            let good = output.status.success()
                && run
                    .shows
                    .as_ref()
                    .is_none_or(|part| output.stdout.contains(part));
            if good {
                Ok(())
            } else {
                Err(shown.trim_end().to_owned())
            }
        };
        if run.within == 0 {
            let expected = run.shows.as_deref().unwrap_or("an exit of zero");
            return look()
                .map_err(|found| anyhow::anyhow!("{what}: expected {expected}, found {found}"));
        }
        wait::until(&what, Duration::from_secs(run.within), look).map_err(Into::into)
    }

    fn start(&mut self, words: &[String]) -> anyhow::Result<()> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.installation.cli(&words)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.background
            .push(child.spawn().context("start the bot's command line")?);
        Ok(())
    }

    /// Waits for what runs in the background.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        for mut child in self.background.drain(..) {
            let ended = wait::until(
                "a command in the background",
                BACKGROUND_LIMIT,
                || match child.try_wait() {
                    Ok(Some(status)) => Ok(status),
                    other => Err(format!("{other:?}")),
                },
            )?;
            ensure!(
                ended.success(),
                "a command in the background ended with {ended}"
            );
        }
        Ok(())
    }

    /// Mends every fault and does what the drill says to come back; goes on after failures and tells the first.
    pub fn clean(&mut self, acts: &[Act]) -> anyhow::Result<()> {
        let mut first = self
            .lab
            .mend(&Mend::All)
            .map(drop)
            .map_err(anyhow::Error::from);
        for act in acts {
            // Mended above already.
            if matches!(act, Act::Mend(_)) {
                continue;
            }
            let done = self.act(act);
            first = first.and(done);
        }
        let finished = self.finish();
        first.and(finished)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        for child in &mut self.background {
            // Already gone is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
