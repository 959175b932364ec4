//! The other tools: ansible-core and pyinfra from PyPI, in a virtual environment that is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::scenario::{capture, workspace};
use crate::{Host, Lab, Progress, Store};

/// Versions that the figures in the documentation were measured with.
const REQUIREMENTS: [&str; 2] = ["ansible-core==2.19.14", "pyinfra==3.10.0"];

/// Changed resources of each host, as a tool reported them.
pub type Changes = BTreeMap<String, u64>;

/// The tools, installed.
#[derive(Debug)]
pub struct Peers {
    bin: PathBuf,
    /// Inventory, empty configuration and control sockets of this run.
    work: PathBuf,
}

impl Peers {
    /// Installs the tools once per store, and writes this run's inventory.
    pub fn prepare(lab: &Lab, progress: &Progress) -> anyhow::Result<Peers> {
        let venv = Store::from_environment().root().join("peers");
        install(&venv, &REQUIREMENTS, progress)?;
        let work = lab.folder().join("peers");
        fs::create_dir_all(&work)?;
        let hosts: String = lab.hosts()?.iter().map(|h| format!("{h}\n")).collect();
        fs::write(work.join("inventory.ini"), format!("[all]\n{hosts}"))?;
        // Naming the interpreter spares Ansible the search for one.
        let settings = "[defaults]\ninterpreter_python = /usr/bin/python3\n";
        fs::write(work.join("ansible.cfg"), settings)?;
        let bin = venv.join("bin");
        Ok(Peers { bin, work })
    }

    /// What is installed, for people.
    pub fn versions() -> String {
        REQUIREMENTS.join(", ").replace("==", " ")
    }

    /// `ansible-playbook` with pipelining, kept connections within the run, and forks for all hosts; every run starts
    /// without a connection, as a person's first command of the day does.
    pub fn ansible(&self, lab: &Lab, greeting: &str, run: u32) -> anyhow::Result<Changes> {
        let sockets = self.work.join(format!("cp{run}"));
        let ssh = lab.ssh_config();
        let mut command = self.tool(lab, "ansible-playbook")?;
        command
            .env("ANSIBLE_CONFIG", self.work.join("ansible.cfg"))
            .env("ANSIBLE_PIPELINING", "True")
            .env("ANSIBLE_FORKS", lab.hosts()?.len().max(5).to_string())
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_HOME", self.work.join("ansible"))
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", &sockets)
            .env(
                "ANSIBLE_SSH_ARGS",
                format!(
                    "-F {} -o ControlMaster=auto -o ControlPersist=60s",
                    ssh.display()
                ),
            )
            .arg("--inventory")
            .arg(self.work.join("inventory.ini"))
            // As JSON: of `name=value` only the first word would be the value.
            .args(["-e", &json!({ "greeting": greeting }).to_string()])
            .arg("playbook.yml");
        let output = capture(&mut command)?;
        parse_recap(&output, &lab.hosts()?)
            .with_context(|| format!("ansible-playbook's recap is not as expected:\n{output}"))
    }

    pub fn pyinfra(&self, lab: &Lab, greeting: &str) -> anyhow::Result<Changes> {
        let hosts = lab.hosts()?;
        let names: Vec<String> = hosts.iter().map(|host| host.name()).collect();
        let mut command = self.tool(lab, "pyinfra")?;
        command
            .args(["-y", "--data"])
            .arg(format!("ssh_config_file={}", lab.ssh_config().display()))
            .args(["--data", "ssh_user=root"])
            .args(["--data", &format!("greeting={greeting}")])
            .args([&names.join(","), "deploy.py"]);
        let output = capture(&mut command)?;
        parse_totals(&output, &hosts)
            .with_context(|| format!("pyinfra's results are not as expected:\n{output}"))
    }

    fn tool(&self, lab: &Lab, name: &str) -> anyhow::Result<Command> {
        let program = self.bin.join(name);
        let mut command = lab.command(&program.to_string_lossy())?;
        command.current_dir(workspace().join("tests/bench/converge"));
        Ok(command)
    }
}

/// Makes a virtual environment with exactly these, unless it is there already.
pub(super) fn install(
    venv: &Path,
    requirements: &[&str],
    progress: &Progress,
) -> anyhow::Result<()> {
    let wanted = requirements.join("\n");
    if fs::read_to_string(venv.join("complete")).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let phase = progress.phase(&format!("pip install {}", requirements.join(" ")));
    let _ = fs::remove_dir_all(venv);
    if capture(Command::new("python3").args(["-m", "venv"]).arg(venv)).is_err() {
        // Debian has the standard library's `venv` without the part that makes one.
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "install", "-y"])
            .args(["--no-install-recommends", "python3-venv"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        capture(&mut apt)?;
        capture(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    capture(pip.args(["install", "--quiet"]).args(requirements))?;
    fs::write(venv.join("complete"), wanted)?;
    phase.done();
    Ok(())
}

/// `ctl1 : ok=40 changed=1 unreachable=0 failed=0 …` of every host.
fn parse_recap(output: &str, hosts: &[Host]) -> anyhow::Result<Changes> {
    let recap = output.rsplit_once("PLAY RECAP").context("no PLAY RECAP")?.1;
    let mut changes = Changes::new();
    for line in recap.lines().skip(1) {
        let Some((host, counts)) = line.split_once(':') else {
            continue;
        };
        // Warnings may follow.
        if !hosts.iter().any(|known| known.name() == host.trim()) {
            continue;
        }
        let count = |name: &str| -> anyhow::Result<u64> {
            counts
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .with_context(|| format!("no count of `{name}` in `{line}`"))?
                .parse()
                .with_context(|| format!("count of `{name}` in `{line}`"))
        };
        ensure!(
            count("unreachable")? == 0 && count("failed")? == 0,
            "{line}"
        );
        ensure!(
            count("ok")? == RESOURCES,
            "expected {RESOURCES} tasks: {line}"
        );
        changes.insert(host.trim().to_owned(), count("changed")?);
    }
    ensure!(
        changes.len() == hosts.len(),
        "expected {} hosts",
        hosts.len()
    );
    Ok(changes)
}

/// The line `Grand total OPERATIONS SUCCESS ERROR NO-CHANGE`, and that each operation was the same on all hosts.
fn parse_totals(output: &str, hosts: &[Host]) -> anyhow::Result<Changes> {
    let line = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Grand total"))
        .context("no line `Grand total`")?;
    let counts: Vec<u64> = line
        .split_whitespace()
        .map(|word| if word == "-" { Ok(0) } else { word.parse() })
        .collect::<Result<_, _>>()
        .with_context(|| format!("counts in `{line}`"))?;
    let &[all, changed, errors, same] = counts.as_slice() else {
        bail!("expected four counts, found `{line}`");
    };
    let number = hosts.len() as u64;
    ensure!(errors == 0 && changed + same == all, "errors: `{line}`");
    ensure!(
        all == RESOURCES * number,
        "expected {RESOURCES} a host: `{line}`"
    );
    ensure!(changed % number == 0, "hosts changed differently: `{line}`");
    Ok(hosts
        .iter()
        .map(|host| (host.name(), changed / number))
        .collect())
}

/// Resources of each host in `bench/converge`.
pub const RESOURCES: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> [Host; 2] {
        [1, 2].map(|n| Host::new(n).unwrap())
    }

    #[test]
    fn reads_a_recap() {
        let good = "PLAY RECAP ****\n\
            ctl1  : ok=40   changed=1  unreachable=0  failed=0  skipped=0\n\
            ctl2  : ok=40   changed=0  unreachable=0  failed=0  skipped=0\n\n\
            [WARNING]: Host 'ctl2' is odd: see elsewhere\n";
        let changes = parse_recap(good, &two()).unwrap();
        assert_eq!(changes["ctl1"], 1);
        assert_eq!(changes["ctl2"], 0);
        for (what, bad) in [
            ("failed", good.replace("failed=0", "failed=1")),
            (
                "unreachable",
                good.replace("unreachable=0", "unreachable=1"),
            ),
            ("fewer tasks", good.replace("ok=40", "ok=39")),
            ("a host less", good.replace("ctl2", "ctl1")),
            ("nothing", String::new()),
        ] {
            assert!(parse_recap(&bad, &two()).is_err(), "{what}");
        }
    }

    #[test]
    fn reads_totals() {
        let totals =
            |counts: &str| parse_totals(&format!("x\n    Grand total   {counts}  \n"), &two());
        assert_eq!(totals("80  -  -  80").unwrap()["ctl2"], 0);
        assert_eq!(totals("80  2  -  78").unwrap()["ctl1"], 1);
        for bad in ["80 1 - 79", "80 - 1 79", "78 - - 78", "80 - 80", ""] {
            assert!(totals(bad).is_err(), "{bad}");
        }
    }
}
