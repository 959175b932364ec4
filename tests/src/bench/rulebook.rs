//! ansible-rulebook from PyPI, as it runs beside a lab: it listens for webhooks and runs one command on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::peers::install;
use crate::scenario::{capture, workspace};
use crate::{Lab, Progress, Store, wait};

/// Versions that the figures in the documentation were measured with.
const REQUIREMENTS: [&str; 4] = [
    "ansible-core==2.19.14",
    "ansible-rulebook==1.3.2",
    "ansible-runner==2.4.3",
    "aiohttp==3.14.5",
];
/// Where its source listens: see `bench/react/rulebook.yml`.
pub(super) const ADDRESS: &str = "127.0.0.1:5001";
/// From start to an open port: Python, Java and the rule engine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Debian's Java, which its rule engine needs.
const JAVA: &str = "default-jre-headless";

/// What is installed, for people.
pub(super) fn version() -> String {
    REQUIREMENTS[1].replace("==", " ")
}

/// Installs it, once per store. PyPI is not reached from inside a lab.
pub(super) fn prepare(progress: &Progress) -> anyhow::Result<()> {
    java()?;
    install(&folder(), &REQUIREMENTS, progress)
}

fn folder() -> PathBuf {
    Store::from_environment().root().join("rulebook")
}

/// A running ansible-rulebook; killed when dropped.
pub(super) struct Rulebook {
    child: Child,
    log: PathBuf,
}

impl Rulebook {
    /// Starts it inside the lab and waits until it listens. Call inside the lab's namespace, after [`prepare`].
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Rulebook> {
        let venv = folder();
        let work = lab.folder().join("rulebook");
        fs::create_dir_all(&work)?;
        // Naming the interpreter spares Ansible the search for one.
        let hosts: String = lab.hosts()?.iter().map(|h| format!("{h}\n")).collect();
        let variables =
            "[all:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\n";
        let inventory = work.join("inventory.ini");
        fs::write(&inventory, format!("[all]\n{hosts}{variables}"))?;
        let log = work.join("rulebook.log");
        let out = fs::File::create(&log)?;
        let files = workspace().join("tests/bench/react");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = lab
            .command(&venv.join("bin/ansible-rulebook").to_string_lossy())?
            .current_dir(&work)
            .env("PATH", format!("{}:{path}", venv.join("bin").display()))
            .env("ANSIBLE_PIPELINING", "True")
            .env("ANSIBLE_HOME", work.join("ansible"))
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", work.join("cp"))
            .env("ANSIBLE_SSH_ARGS", ssh_arguments(lab))
            .arg("--rulebook")
            .arg(files.join("rulebook.yml"))
            .arg("--inventory")
            .arg(&inventory)
            .arg("--source-dir")
            .arg(files)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("start ansible-rulebook")?;
        let rulebook = Rulebook { child, log };
        let listens = wait::until("ansible-rulebook's open port", START_LIMIT, || {
            std::net::TcpStream::connect(ADDRESS).map_err(|error| error.to_string())
        });
        listens.with_context(|| rulebook.log())?;
        Ok(rulebook)
    }

    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Rulebook {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections are kept for the whole run: its host is as warm as ours.
fn ssh_arguments(lab: &Lab) -> String {
    let config = lab.ssh_config();
    format!(
        "-F {} -o ControlMaster=auto -o ControlPersist=600s",
        config.display()
    )
}

fn java() -> anyhow::Result<()> {
    if Path::new("/usr/bin/java").exists() {
        return Ok(());
    }
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y"])
        .args(["--no-install-recommends", JAVA])
        .env("DEBIAN_FRONTEND", "noninteractive");
    capture(&mut apt)?;
    Ok(())
}
