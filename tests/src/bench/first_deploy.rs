//! First deploy of the demo's site on fresh hosts, and the same by a hand-written parallel shell script.
//!
//! Nightshift goes first in each round; the script gets the configuration files that Nightshift wrote, so
//! that both install the same packages, write the same files and start the same services.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Run;
use super::report::Report;
use crate::scenario::{Changes, Program, capture, install, workspace};
use crate::{Host, Lab, LabOptions};

const HOSTS: u8 = 3;
const OURS: &str = "nightshift";
const SCRIPT: &str = "shell script";
const CASE: &str = "first deploy";
/// What Nightshift writes for the demo's services, as far as it is there on a host.
const WRITTEN: [&str; 16] = [
    "etc/hosts",
    "etc/mysql/mariadb.conf.d",
    "etc/rabbitmq",
    "var/lib/rabbitmq/.erlang.cookie",
    "etc/memcached.conf",
    "etc/haproxy/haproxy.cfg",
    "etc/keepalived",
    "etc/sysctl.d",
    "etc/default/prometheus",
    "etc/default/prometheus-alertmanager",
    "etc/default/prometheus-node-exporter",
    "etc/default/prometheus-mysqld-exporter",
    "etc/prometheus",
    "etc/nightshift",
    "etc/systemd/system/nightshift-signs.service",
    // The signs exporter is the agent itself.
    "var/lib/nightshift/agent",
];

pub(super) fn run(run: &Run) -> anyhow::Result<Report> {
    let work = tempfile::tempdir().context("make a folder for the configurations")?;
    let setting = format!(
        "the demo's site on {HOSTS} fresh hosts, packages from the lab's cache, {} build",
        run.build
    );
    let mut report = Report::new("first-deploy", setting, SCRIPT);
    for round in 0..=run.rounds {
        // The first round fills the package cache for both and is not counted.
        let title = match round {
            0 => "warm-up".to_owned(),
            n => format!("round {n} of {}", run.rounds),
        };
        for tool in [OURS, SCRIPT] {
            run.go_on()?;
            let title = format!("{title}: {tool}");
            let took = on_fresh_hosts(run, &title, |lab| match tool {
                OURS => ours(lab, run.program.clone(), work.path()),
                _ => by_script(lab, work.path()),
            })?;
            if round > 0 {
                report.add(CASE, tool, took);
            }
        }
    }
    report.aim_within(CASE, OURS, 1.1);
    Ok(report)
}

fn on_fresh_hosts(
    run: &Run,
    title: &str,
    work: impl FnOnce(&Lab) -> anyhow::Result<Duration>,
) -> anyhow::Result<Duration> {
    run.lab.down()?;
    let options = LabOptions {
        name: run.lab.name().clone(),
        hosts: HOSTS,
        layer: None,
    };
    let lab = Lab::up(&options, &run.progress)?;
    let phase = run.progress.phase(title);
    let took = work(&lab)?;
    phase.done();
    let phase = run.progress.phase("look at what was deployed");
    serves(&lab).with_context(|| title.to_owned())?;
    phase.done();
    Ok(took)
}

fn ours(lab: &Lab, program: Program, work: &Path) -> anyhow::Result<Duration> {
    let installation = install(
        lab,
        program,
        &lab.folder().join("bench"),
        &Changes::default(),
    )?;
    // The plan counts too: it brings the agent to the hosts.
    let start = Instant::now();
    installation.deploy_alone("site")?;
    let took = start.elapsed();
    for host in lab.hosts()? {
        save_configuration(lab, host, &archive(work, host))?;
    }
    Ok(took)
}

fn by_script(lab: &Lab, work: &Path) -> anyhow::Result<Duration> {
    let script = workspace().join("tests/bench/first-deploy/deploy.sh");
    let mut command = lab.command("bash")?;
    command.arg(script).arg(lab.ssh_config()).arg(work);
    command.args(lab.hosts()?.iter().map(|host| host.name()));
    let start = Instant::now();
    capture(&mut command)?;
    Ok(start.elapsed())
}

fn archive(work: &Path, host: Host) -> PathBuf {
    work.join(format!("{host}.tar"))
}

fn save_configuration(lab: &Lab, host: Host, file: &Path) -> anyhow::Result<()> {
    let target = fs::File::create(file).with_context(|| format!("create {}", file.display()))?;
    let mut ssh = lab.ssh_command(&host.name())?;
    ssh.args(["tar", "-C", "/", "--ignore-failed-read", "-cf", "-"]);
    ssh.args(WRITTEN);
    let status = ssh
        .stdout(target)
        .stderr(std::process::Stdio::null())
        .status()?;
    // tar says 2 for files that are not on this host; an archive without the database's file is none.
    let mut list = Command::new("tar");
    let names = capture(list.arg("-tf").arg(file))?;
    ensure!(
        names.contains("70-nightshift.cnf"),
        "{host}: tar ended with {status} and saved only:\n{names}"
    );
    Ok(())
}

/// The result is a site that works, whoever made it.
fn serves(lab: &Lab) -> anyhow::Result<()> {
    let count = lab.hosts()?.len().to_string();
    for host in lab.hosts()? {
        let name = host.name();
        let size = lab.ssh_ok(
            &name,
            &["mariadb", "-Ne", "SHOW STATUS LIKE 'wsrep_cluster_size'"],
        )?;
        ensure!(
            size.ends_with(&format!("\t{count}\n")),
            "{host}: MariaDB says {size}"
        );
        let nodes = [
            "rabbitmqctl",
            "-q",
            "eval",
            "length(mnesia:system_info(running_db_nodes)).",
        ];
        let nodes = lab.ssh_ok(&name, &nodes)?;
        ensure!(
            nodes.trim() == count,
            "{host}: RabbitMQ says {nodes} nodes run"
        );
        for unit in ["memcached", "haproxy", "keepalived", "nightshift-signs"] {
            lab.ssh_ok(&name, &["systemctl", "is-active", unit])?;
        }
    }
    Ok(())
}
