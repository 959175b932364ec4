//! The same 40 resources on the same three hosts: nothing to change, and one file to change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::Rounds;
use super::peers::{Changes, Peers, RESOURCES};
use super::report::Report;
use crate::scenario::{Bot, Installation, Program, workspace};
use crate::{Lab, LabOptions, Progress};

const HOSTS: u8 = 3;
const COLD: &str = "nightshift";
const WARM: &str = "nightshift, warm";
const ANSIBLE: &str = "ansible-core";
const PYINFRA: &str = "pyinfra";
const SAME: &str = "nothing to change";
const ONE: &str = "one file to change";

pub fn run(rounds: &Rounds, lab: &Lab, progress: &Progress) -> anyhow::Result<Report> {
    let phase = progress.phase("build the bot");
    let program = Program::build(!rounds.dev)?;
    phase.done();
    let options = LabOptions {
        name: lab.name().clone(),
        hosts: HOSTS,
        layer: None,
    };
    let lab = Lab::up(&options, progress)?;
    let result = measure(rounds, &lab, program, progress);
    lab.down()?;
    result
}

fn measure(
    rounds: &Rounds,
    lab: &Lab,
    program: Program,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let peers = Peers::prepare(lab, progress)?;
    let tools = Tools::start(lab, peers, program)?;
    let build = if rounds.dev { "development" } else { "release" };
    let setting = format!("{RESOURCES} resources on each of {HOSTS} hosts, {build} build");
    let mut report = Report::new("converge", setting, COLD);
    let phase = progress.phase("bring the resources to the hosts");
    tools.all_agree()?;
    phase.done();
    for round in 0..rounds.rounds {
        let phase = progress.phase(&format!("round {} of {}", round + 1, rounds.rounds));
        for tool in [COLD, WARM, ANSIBLE, PYINFRA] {
            let content = tools.content()?;
            report.add(SAME, tool, tools.timed(tool, &content, round * 2, 0)?);
            let content = format!("round {round} by {tool}");
            report.add(ONE, tool, tools.timed(tool, &content, round * 2 + 1, 1)?);
        }
        phase.done();
    }
    tools.bot.stop()?;
    Ok(report)
}

/// Every way to bring the resources to the hosts.
struct Tools {
    lab: Lab,
    peers: Peers,
    /// Has a state directory of its own: a command that finds no running bot does the work itself.
    cold: Installation,
    warm: Installation,
    bot: Bot,
}

impl Tools {
    fn start(lab: &Lab, peers: Peers, program: Program) -> anyhow::Result<Tools> {
        let installation = |name: &str, port: u16| {
            let folder = lab.folder().join(name);
            let config = config(port);
            Installation::write(lab, program.clone(), &folder, &site(lab, "hello")?, &config)
        };
        let (cold, warm) = (installation("cold", 9480)?, installation("warm", 9481)?);
        let bot = Bot::start(&warm)?;
        Ok(Tools {
            lab: lab.clone(),
            peers,
            cold,
            warm,
            bot,
        })
    }

    /// First run of each tool, untimed: installs what is missing, and the last one has nothing to do.
    fn all_agree(&self) -> anyhow::Result<()> {
        for tool in [COLD, WARM, ANSIBLE, PYINFRA] {
            self.converge(tool, "hello", u32::MAX)
                .with_context(|| format!("first run of {tool}"))?;
        }
        self.timed(COLD, "hello", u32::MAX, 0).map(drop)
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
            WARM => self.warm.deploy_with_bot("site")?,
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

    fn by_peer(&self, tool: &str, content: &str, run: u32) -> anyhow::Result<(Duration, Changes)> {
        let start = Instant::now();
        let changes = match tool {
            ANSIBLE => self.peers.ansible(&self.lab, content, run)?,
            _ => self.peers.pyinfra(&self.lab, content)?,
        };
        Ok((start.elapsed(), changes))
    }
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
