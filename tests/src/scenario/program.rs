//! The program `nightshift`, built from this workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

/// The workspace that this program was built from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package `tests` lies in the workspace")
}

/// The built bot and its command line.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Builds `nightshift` (in the development profile unless `release`) and finds it by what Cargo says.
    ///
    /// # Errors
    /// Cargo's own, after its diagnostics went to standard error.
    pub fn build(release: bool) -> anyhow::Result<Program> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(workspace())
            .args([
                "build",
                "--quiet",
                "--package",
                "bot",
                "--bin",
                "nightshift",
            ])
            .arg("--message-format=json-render-diagnostics")
            .args(release.then_some("--release"))
            .stderr(Stdio::inherit());
        let output = command.output().context("start cargo")?;
        anyhow::ensure!(
            output.status.success(),
            "building the bot failed with {}: see Cargo's messages above",
            output.status
        );
        let path = executable(&output.stdout)
            .context("Cargo built the bot but named no executable for `nightshift`")?;
        Ok(Program { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The executable of the target `nightshift` among Cargo's JSON messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "nightshift")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_executable_among_other_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"bot"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"nightshift"},"executable":"/t/debug/nightshift"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages), Some("/t/debug/nightshift".into()));
        assert_eq!(executable(b"no json\n"), None);
    }
}
