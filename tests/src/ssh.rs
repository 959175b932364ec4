//! SSH into the hosts, from the lab's namespace, with strict host keys.

use std::process::Command;
use std::time::Duration;

use crate::command::{self, Output};
use crate::error::Result;
use crate::names::{Host, LabName};
use crate::netns;
use crate::paths::LabFolder;

/// An `ssh` command to `host`, without a remote command yet.
pub(crate) fn client(lab: &LabName, folder: &LabFolder, host: Host) -> Command {
    let mut ssh = netns::command(&netns::lab_netns(lab), "ssh");
    ssh.arg("-F").arg(folder.ssh_config()).arg(host.name());
    ssh
}

/// Runs `argv` on the host with `input`; every word arrives as it is, whatever it contains.
pub(crate) fn run(
    lab: &LabName,
    folder: &LabFolder,
    host: Host,
    argv: &[&str],
    input: &[u8],
    limit: Duration,
) -> Result<Output> {
    let mut ssh = client(lab, folder, host);
    ssh.arg("--").args(argv.iter().map(|word| quoted(word)));
    command::capture(&mut ssh, input, limit)
}

/// SSH passes one string to the remote shell: quote each word so that the shell gives it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["", "a b", "it's", "$(id)`x`;|&*?\"\\", "two\nlines"] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("printf %s {}", quoted(word))]);
            let output = command::run(&mut shell, command::QUICK).unwrap();
            assert_eq!(output, word);
        }
    }
}
