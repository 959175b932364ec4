//! The same 40 resources on the same three hosts: nothing to change, and one file to change.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Run;
use super::peers::{Changes, Peers, RESOURCES};
use super::report::Report;
use crate::scenario::{Bot, Deployed, Installation, Program, workspace};
use crate::{Lab, LabOptions};

const HOSTS: u8 = 3;
/// A new process that logs in everywhere, as both peers are.
const COLD: &str = "nightshift";
/// The command line asks a running bot, which has its sessions open.
const WARM: &str = "nightshift, warm";
const ANSIBLE: &str = "ansible-core";
const PYINFRA: &str = "pyinfra";
/// No tool: `ssh HOST true` on all hosts at once, which no tool with new connections can beat by much.
const LOGIN: &str = "bare ssh login";
const TOOLS: [&str; 4] = [COLD, WARM, ANSIBLE, PYINFRA];
const SAME: &str = "nothing to change";
const ONE: &str = "one file to change";
/// Runs that are not measured.
const FIRST: u32 = u32::MAX;

pub(super) fn run(run: &Run) -> anyhow::Result<Report> {
    let options = LabOptions {
        name: run.lab.name().clone(),
        hosts: HOSTS,
        layer: None,
    };
    let lab = Lab::up(&options, &run.progress)?;
    let peers = Peers::prepare(&lab, &run.progress)?;
    let tools = Tools::write(&lab, peers, &run.program)?;
    let phase = run.progress.phase("bring the resources to the hosts");
    tools.all_agree()?;
    phase.done();
    let setting = format!(
        "{RESOURCES} resources on each of {HOSTS} hosts, {} build, {}",
        run.build,
        Peers::versions()
    );
    let mut report = Report::new("converge", setting, COLD);
    for round in 0..run.rounds {
        report.add(SAME, LOGIN, tools.login()?);
        for tool in TOOLS {
            run.go_on()?;
            let title = format!("round {} of {}: {tool}", round + 1, run.rounds);
            let phase = run.progress.phase(&title);
            let content = tools.content()?;
            report.add(SAME, tool, tools.timed(tool, &content, round * 2, 0)?);
            let content = format!("round {round} by {tool}");
            report.add(ONE, tool, tools.timed(tool, &content, round * 2 + 1, 1)?);
            phase.done();
        }
    }
    report.aim_faster_than(SAME, ANSIBLE, 50.0);
    report.aim_faster_than(SAME, PYINFRA, 13.0);
    report.aim_seconds(SAME, COLD, 0.45);
    report.aim_seconds(SAME, WARM, 0.13);
    Ok(report)
}

/// Every way to bring the resources to the hosts.
struct Tools {
    lab: Lab,
    peers: Peers,
    /// Has a state directory of its own: a command that finds no running bot does the work itself.
    cold: Installation,
    warm: Installation,
}

impl Tools {
    fn write(lab: &Lab, peers: Peers, program: &Program) -> anyhow::Result<Tools> {
        let installation = |name: &str, port: u16| {
            let folder = lab.folder().join(name);
            let config = config(port);
            Installation::write(lab, program.clone(), &folder, &site(lab, "hello")?, &config)
        };
        Ok(Tools {
            lab: lab.clone(),
            peers,
            cold: installation("cold", 9480)?,
            warm: installation("warm", 9481)?,
        })
    }

    /// First run of each tool, untimed: installs what is missing, and the last one has nothing to do.
    fn all_agree(&self) -> anyhow::Result<()> {
        for tool in TOOLS {
            self.converge(tool, "hello", FIRST)
                .with_context(|| format!("first run of {tool}"))?;
        }
        self.timed(COLD, "hello", FIRST, 0).map(drop)
    }

    fn login(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut sessions = Vec::new();
        for host in self.lab.hosts()? {
            let mut ssh = self.lab.ssh_command(&host.name())?;
            sessions.push(ssh.arg("true").spawn().context("start ssh")?);
        }
        for mut session in sessions {
            ensure!(session.wait()?.success(), "`ssh HOST true` failed");
        }
        Ok(start.elapsed())
    }

    /// What stands in the one changing file now.
    fn content(&self) -> anyhow::Result<String> {
        // Nothing was deployed yet: then it has no content.
        let text = self.lab.ssh("ctl1", &["cat", "/opt/bench/greeting"])?;
        Ok(text.stdout.trim_end().to_owned())
    }

    /// One run of `tool`, which must change `expected` resources on each host and leave `content` there.
    fn timed(
        &self,
        tool: &str,
        content: &str,
        run: u32,
        expected: u64,
    ) -> anyhow::Result<Duration> {
        let (took, changes) = self.converge(tool, content, run)?;
        for host in self.lab.hosts()? {
            let found = changes.get(&host.name()).copied();
            ensure!(
                found == Some(expected),
                "{tool} was expected to change {expected} resources on {host}, and reported {changes:?}"
            );
            let text = self
                .lab
                .ssh_ok(&host.name(), &["cat", "/opt/bench/greeting"])?;
            ensure!(
                text == format!("{content}\n"),
                "{tool} left `{text}` on {host}, expected `{content}`"
            );
        }
        Ok(took)
    }

    fn converge(&self, tool: &str, content: &str, run: u32) -> anyhow::Result<(Duration, Changes)> {
        let site = site(&self.lab, content)?;
        self.cold.write_site(&site)?;
        self.warm.write_site(&site)?;
        let deployed = match tool {
            COLD if self.content()? == content => self.cold.deploy_nothing("site")?,
            COLD => self.cold.deploy_alone("site")?,
            WARM => self.by_bot()?,
            _ => return self.by_peer(tool, content, run),
        };
        let hosts = self.lab.hosts()?;
        let changes = hosts.iter().map(|host| {
            let name = host.name();
            let count = deployed.changes_on(&name) as u64;
            (name, count)
        });
        Ok((deployed.took, changes.collect()))
    }

    /// A bot reads the site when it starts. Its first plan, which opens the sessions, is not measured.
    fn by_bot(&self) -> anyhow::Result<Deployed> {
        share_secrets(&self.cold, &self.warm)?;
        let bot = Bot::start(&self.warm)?;
        self.warm.plan("site")?;
        let deployed = self.warm.deploy_with_bot("site");
        bot.stop()?;
        deployed
    }

    fn by_peer(&self, tool: &str, content: &str, run: u32) -> anyhow::Result<(Duration, Changes)> {
        let start = Instant::now();
        let changes = match tool {
            ANSIBLE => self.peers.ansible(&self.lab, content, run)?,
            _ => self.peers.pyinfra(&self.lab, content)?,
        };
        Ok((start.elapsed(), changes))
    }
}

/// Hosts obey one site's secrets: those that `from` generated when it first ran.
fn share_secrets(from: &Installation, to: &Installation) -> anyhow::Result<()> {
    let folder = |of: &Installation| of.folder().join("state/secrets");
    let (from, to) = (folder(from), folder(to));
    if to.exists() {
        return Ok(());
    }
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    let entries = fs::read_dir(&from).with_context(|| format!("read {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let copy = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &copy).with_context(|| format!("copy {}", path.display()))?;
    }
    Ok(())
}

/// The site of the benchmark: its three hosts with one service of forty resources.
fn site(lab: &Lab, greeting: &str) -> anyhow::Result<String> {
    let hosts: BTreeMap<String, Value> = lab
        .hosts()?
        .iter()
        .map(|host| {
            (
                host.name(),
                json!({"address": host.address(), "groups": ["all"]}),
            )
        })
        .collect();
    // JSON is YAML.
    Ok(serde_json::to_string_pretty(&json!({
        "site": "bench",
        "ssh": {"user": "root", "identity": lab.identity(), "known_hosts": lab.known_hosts()},
        "hosts": hosts,
        "services": {"bench": {"on": "all", "settings": {"greeting": greeting}}},
    }))?)
}

fn config(port: u16) -> String {
    let services = workspace().join("tests/bench/converge/services");
    json!({
        "site": "site.yaml",
        "state_dir": "state",
        "service_dirs": [services],
        "listen": format!("127.0.0.1:{port}"),
    })
    .to_string()
}
