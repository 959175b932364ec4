//! `cargo demo`: hosts, bot and console with one command. The lab comes up while the bot still builds.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::scenario::{Changes, Installation, Program, install};
use crate::{Lab, LabOptions, Progress};

/// What the demo is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {
    /// Hosts; one gets every service in its single form.
    #[arg(long, default_value_t = 3)]
    hosts: u8,
    /// Run the chat lines of this file instead of asking you, then take the lab down.
    #[arg(long)]
    script: Option<PathBuf>,
    /// Leave the lab up at the end, with all that was deployed.
    #[arg(long)]
    keep: bool,
    /// Saved layer below the hosts' disks, with packages already installed.
    #[arg(long)]
    layer: Option<String>,
}

/// How long each part took.
#[derive(Debug, Default)]
struct Times(Vec<(&'static str, Duration)>);

/// Runs the demo on lab `lab`. Ctrl-C ends it and takes the lab down, whatever was going on.
pub fn run(demo: &Demo, lab: &Lab, progress: &Progress) -> anyhow::Result<()> {
    let script = demo.script.as_deref().map(open_script).transpose()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    // The terminal sends Ctrl-C to whatever runs in front, too: that ends, and we clean up after it.
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted.clone())?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, interrupted.clone())?;
    let mut times = Times::default();
    let result = played(demo, lab, script, &interrupted, &mut times, progress);
    let start = Instant::now();
    if demo.keep {
        progress.say(&format!(
            "the lab is still up: `cargo lab --lab {} down` removes it",
            lab.name()
        ));
    } else {
        let phase = progress.phase("take the lab down");
        lab.down()?;
        phase.done();
        times.add("take the lab down", start);
    }
    times.tell(progress);
    let status = result?;
    ensure!(!interrupted.load(Ordering::SeqCst), "interrupted");
    ensure!(
        status.success(),
        "the console ended with {status}: a command failed"
    );
    Ok(())
}

fn played(
    demo: &Demo,
    lab: &Lab,
    script: Option<File>,
    interrupted: &AtomicBool,
    times: &mut Times,
    progress: &Progress,
) -> anyhow::Result<ExitStatus> {
    let start = Instant::now();
    let installation = prepare(demo, lab, times, progress)?;
    times.add("everything ready", start);
    if interrupted.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    if script.is_none() && std::io::stdin().is_terminal() {
        println!("{}", welcome(lab, demo.hosts));
    }
    let start = Instant::now();
    let mut console = installation.contained(&["serve", "--console"])?;
    if let Some(file) = script {
        console.stdin(Stdio::from(file));
    }
    let status = console.status().context("start the bot")?;
    times.add("the console", start);
    Ok(status)
}

/// Lab and bot at the same time; both are told when they are done.
fn prepare(
    demo: &Demo,
    lab: &Lab,
    times: &mut Times,
    progress: &Progress,
) -> anyhow::Result<Installation> {
    let options = LabOptions {
        name: lab.name().clone(),
        hosts: demo.hosts,
        layer: demo.layer.clone(),
    };
    let start = Instant::now();
    let (lab, program) = std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            let phase = progress.phase("build the bot");
            let program = Program::build(false);
            program.map(|program| {
                phase.done();
                (program, start.elapsed())
            })
        });
        let up = Lab::up(&options, progress).map(|lab| (lab, start.elapsed()));
        let built = build
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (up, built)
    });
    // The lab's error says more when both failed: without root nothing else matters.
    let ((lab, up), (program, built)) = (lab?, program?);
    times.0.push(("hosts up", up));
    times.0.push(("bot built", built));
    install(
        &lab,
        program,
        &lab.folder().join("demo"),
        &Changes::default(),
    )
}

fn open_script(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("script {}", path.display()))
}

impl Times {
    fn add(&mut self, what: &'static str, start: Instant) {
        self.0.push((what, start.elapsed()));
    }

    fn tell(&self, progress: &Progress) {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(what, took)| format!("{what} {:.1} s", took.as_secs_f64()))
            .collect();
        progress.say(&format!("times: {}", parts.join(", ")));
    }
}

/// What a newcomer sees first.
fn welcome(lab: &Lab, hosts: u8) -> String {
    let (name, other) = (lab.name(), "cargo lab");
    let fault = format!("{other} --lab {name} fault");
    let mend = format!("{other} --lab {name} mend all");
    let walk = if hosts == 1 {
        format!(
            "   {fault} hold-down ctl1 memcached     killed, and held down\n   \
             {mend}                          it could start now; with one host the bot says why it does not\n   \
             {fault} hold-down ctl1 haproxy       and the load balancer"
        )
    } else {
        format!(
            "   {fault} hold-down ctl2 memcached     killed, and held down\n   \
             {mend}                          it could start now, but does not by itself\n   \
             {fault} partition ctl1,ctl2 / ctl3   split the RabbitMQ cluster, wait half a minute, then\n   \
             {mend}                          heal the network; RabbitMQ stays split\n   \
             {fault} hold-down ctl2 mariadb       a member of the database"
        )
    };
    format!(
        "\n\
Nightshift looks after {hosts} real Debian host{s}. The bot listens below; commands start with `!`.\n\n\
 1. Deploy the site:\n   !deploy site      shows every change\n   !approve          runs it\n   !plan site        nothing left to change\n   !status           asks the hosts\n\n\
 2. Break it, from a second terminal:\n{walk}\n\n\
 3. Watch it heal:\n   !incidents        what is wrong, and what was decided\n   !why ID           evidence, gates, steps, proof\n   !halt / !resume   stop all automation at once, and go on\n\n\
!help lists everything. Ctrl-D ends the demo and takes the hosts down.\n",
        s = if hosts == 1 { "" } else { "s" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    #[test]
    fn the_walk_names_faults_that_exist() {
        let lab = Lab::named("demo".parse().unwrap());
        for hosts in [1, 3] {
            let text = welcome(&lab, hosts);
            let faults = text
                .lines()
                .filter_map(|line| line.split_once("--lab demo fault "));
            let mut count = 0;
            for (_, words) in faults {
                let words = words.split("   ").next().unwrap();
                words.trim().parse::<Fault>().unwrap();
                count += 1;
            }
            assert!(count >= 2, "{text}");
        }
    }
}
