//! A site file, a configuration and a state directory for one lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{PROGRAM_LIMIT, Program};
use crate::cgroup::Cgroups;
use crate::{Lab, command, netns};

/// One Nightshift with its own state, beside the hosts of a lab.
#[derive(Debug, Clone)]
pub struct Installation {
    lab: Lab,
    program: Program,
    folder: PathBuf,
}

impl Installation {
    /// Writes `site.yaml` and `nightshift.yaml` into `folder`, which is made.
    pub fn write(
        lab: &Lab,
        program: Program,
        folder: &Path,
        site: &str,
        config: &str,
    ) -> anyhow::Result<Installation> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let installation = Installation {
            lab: lab.clone(),
            program,
            folder: folder.to_owned(),
        };
        installation.write_site(site)?;
        let file = installation.config();
        fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        Ok(installation)
    }

    /// One that is there already, in `folder`.
    pub fn attach(lab: &Lab, program: Program, folder: &Path) -> Installation {
        Installation {
            lab: lab.clone(),
            program,
            folder: folder.to_owned(),
        }
    }

    /// Replaces the site file.
    pub fn write_site(&self, site: &str) -> anyhow::Result<()> {
        let file = self.folder.join("site.yaml");
        fs::write(&file, site).with_context(|| format!("write {}", file.display()))
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("nightshift.yaml")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// `nightshift WORDS…` with this configuration, inside the lab's namespace.
    pub fn cli(&self, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.lab.command(&self.program.path().to_string_lossy())?;
        command
            .current_dir(&self.folder)
            .arg("--config")
            .arg(self.config())
            .args(words);
        Ok(command)
    }

    /// As [`Installation::cli`], in the lab's control group: it ends with the lab.
    pub fn contained(&self, words: &[&str]) -> anyhow::Result<Command> {
        let netns = netns::require(self.lab.name())?;
        let cgroups = Cgroups::find()?;
        let group = self.group();
        cgroups.create(&group)?;
        let mut command = cgroups.inside(&group, "nsenter");
        command
            .current_dir(&self.folder)
            .arg(format!("--net={}", netns::path(&netns).display()))
            .arg("--")
            .arg(self.program.path())
            .arg("--config")
            .arg(self.config())
            .args(words);
        Ok(command)
    }

    /// Where everything that [`Installation::contained`] starts is.
    pub fn control_group(&self) -> anyhow::Result<PathBuf> {
        Ok(Cgroups::find()?.v2(&self.group()))
    }

    fn group(&self) -> String {
        format!("{}/bot", self.lab.name())
    }

    /// What `nightshift WORDS… --json` answers.
    ///
    /// # Errors
    /// A non-zero exit with its output, or an answer that is not JSON.
    pub fn ask(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut command = self.cli(words)?;
        let output = command::run(command.arg("--json"), PROGRAM_LIMIT)?;
        serde_json::from_str(&output).with_context(|| {
            format!(
                "`nightshift {}` did not answer JSON: {output}",
                words.join(" ")
            )
        })
    }
}
