//! `tests/drills/NAME.yaml`: what is broken, what must be detected and decided, and what proves it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::scenario::Changes;
use crate::{Fault, Host, Mend};

/// One drill.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// The name of the file, without `.yaml`.
    pub drill: String,
    /// For people, one line.
    pub title: String,
    pub runbook: String,
    /// Hosts that the lab must have.
    #[serde(default = "three")]
    pub hosts: u8,
    /// What of the demo's site and configuration is different here; with anything here the drill has a lab of its own.
    #[serde(default)]
    pub site: Changes,
    /// Before the clock starts: data to lose, states to be in.
    #[serde(default)]
    pub prepare: Vec<Act>,
    /// The fault. The clock starts when the last fault of these took effect; without one, when the last act did.
    #[serde(rename = "break")]
    pub break_it: Vec<Act>,
    pub expect: Expect,
    /// What must be true at the end.
    #[serde(default)]
    pub check: Vec<Run>,
    /// Brings the lab back to where it was; also after a failure. Faults are mended anyway.
    #[serde(default)]
    pub clean: Vec<Act>,
}

fn three() -> u8 {
    3
}

/// One thing that a drill does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// In the words of `nightshift-lab fault`.
    Fault(Fault),
    /// In the words of `nightshift-lab mend`.
    Mend(MendText),
    Run(Run),
    /// Words to the running bot, answered at once.
    Bot(Vec<String>),
    /// Words to the running bot that take long; nobody waits before the end of the drill.
    BotInBackground(Vec<String>),
}

/// [`Mend`] in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MendText(pub Mend);

impl TryFrom<String> for MendText {
    type Error = crate::LabError;

    fn try_from(text: String) -> crate::Result<MendText> {
        text.parse().map(MendText)
    }
}

/// A program on a host, run again until it shows what is expected.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub on: Host,
    pub argv: Vec<String>,
    /// Part of its standard output; absent: an exit of zero is enough.
    #[serde(default)]
    pub shows: Option<String>,
    /// Seconds to wait for that; 0: the first run decides.
    #[serde(default)]
    pub within: u64,
}

/// What must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Names of alerts of which one must arrive through the webhook.
    pub alerts: Vec<String>,
    pub decision: Decision,
    /// Part of the reason that must be given; needed unless the decision is to act.
    #[serde(default)]
    pub because: Option<String>,
    pub within: Deadlines,
}

/// What the bot decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Act,
    Ask,
    Shadow,
    Hold,
    Refuse,
    TellOnly,
}

/// Seconds, each from the one before; `alert` from the fault.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    pub alert: u64,
    pub decision: u64,
    #[serde(default)]
    pub first_step: Option<u64>,
    #[serde(default)]
    pub proven: Option<u64>,
    /// A decision not to act must stay one for so long.
    #[serde(default)]
    pub quiet: Option<u64>,
}

impl Drill {
    /// Reads one file.
    ///
    /// # Errors
    /// With file, line and column; or what contradicts itself in it.
    pub fn load(path: &Path) -> anyhow::Result<Drill> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let drill: Drill =
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        drill
            .check_itself(path)
            .with_context(|| path.display().to_string())?;
        Ok(drill)
    }

    fn check_itself(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        ensure!(
            self.drill == name,
            "`drill: {}`: expected `{name}`, as the file is named",
            self.drill
        );
        ensure!(
            !self.break_it.is_empty(),
            "`break`: expected something to break"
        );
        ensure!(
            !self.expect.alerts.is_empty(),
            "`alerts`: expected at least one"
        );
        let within = &self.expect.within;
        if self.expect.decision == Decision::Act {
            ensure!(
                within.first_step.is_some() && within.proven.is_some(),
                "`within`: a drill that acts needs `first_step` and `proven`"
            );
        } else {
            ensure!(
                self.expect.because.is_some(),
                "`because`: a drill that does not act needs the reason"
            );
            ensure!(
                within.quiet.is_some(),
                "`within`: a drill that does not act needs `quiet`"
            );
        }
        let hosts: Vec<Host> = Host::all().take(self.hosts.into()).collect();
        for host in self.mentioned() {
            ensure!(
                hosts.contains(&host),
                "{host}: the drill has {} hosts",
                self.hosts
            );
        }
        Ok(())
    }

    fn mentioned(&self) -> Vec<Host> {
        let acts = self.prepare.iter().chain(&self.break_it).chain(&self.clean);
        let of_acts = acts.flat_map(|act| match act {
            Act::Fault(fault) => fault.hosts(),
            Act::Run(run) => vec![run.on],
            Act::Mend(_) | Act::Bot(_) | Act::BotInBackground(_) => Vec::new(),
        });
        of_acts.chain(self.check.iter().map(|run| run.on)).collect()
    }

    /// Is this a drill in which nothing must be done?
    pub fn is_counter(&self) -> bool {
        self.expect.decision != Decision::Act
    }
}

impl Deadlines {
    pub fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }
}

/// All drills, by name.
pub fn load_all() -> anyhow::Result<Vec<Drill>> {
    let folder = crate::scenario::workspace().join("tests/drills");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Drill::load(path)).collect()
}
