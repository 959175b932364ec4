//! External programs: argument vectors only, with a time limit and bounded output.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{IoContext, LabError, Result};

/// What is kept of one output stream, in bytes; the rest is read and dropped so that the program never blocks.
const MAX_OUTPUT_BYTES: u64 = 8 * 1024 * 1024;
/// Lines of output told in an error.
const ERROR_LINES: usize = 20;
/// Limit of the small programs (`ip`, `nft`, `ssh-keygen`); they take milliseconds on an idle machine.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(3);

/// Exit status and output of a finished program.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command` to its end, `input` on its standard input. A non-zero exit is not an error here.
pub(crate) fn capture(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let argv = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format!("start `{argv}`"))?;
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut pipe) = stdin {
                // A program that does not read its input closes the pipe: not our failure.
                let _ = pipe.write_all(input);
            }
        });
        let stdout = scope.spawn(move || read_bounded(stdout));
        let stderr = scope.spawn(move || read_bounded(stderr));
        let status = wait_limited(&mut child, &argv, limit)?;
        let join = |thread: std::thread::ScopedJoinHandle<'_, String>| {
            thread.join().unwrap_or_else(|_| String::new())
        };
        Ok(Output {
            status,
            stdout: join(stdout),
            stderr: join(stderr),
        })
    })
}

/// Runs `command`; gives its standard output, or an error with the end of its output if it exits non-zero.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String> {
    run_with_input(command, b"", limit)
}

/// As [`run`], with `input` on standard input.
pub(crate) fn run_with_input(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> Result<String> {
    let output = capture(command, input, limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failure(command, &output))
}

/// The error for a program that exited non-zero.
pub(crate) fn failure(command: &Command, output: &Output) -> LabError {
    LabError::Command {
        argv: shown(command),
        how: format!("failed with {}", output.status),
        output: tail(&format!("{}{}", output.stdout, output.stderr)),
    }
}

fn wait_limited(child: &mut Child, argv: &str, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().doing(format!("wait for `{argv}`"))? {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            // Already gone is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
            return Err(LabError::Command {
                argv: argv.to_owned(),
                how: format!("did not end within {limit:?} and was killed"),
                output: String::new(),
            });
        }
        std::thread::sleep(POLL);
    }
}

fn read_bounded(pipe: Option<impl Read>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let mut kept = Vec::new();
    // A read error ends the output; the exit status tells the rest.
    let _ = (&mut pipe).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n")
}

/// The command line as one string for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| {
        // Programs for `sh -c` are constants of this crate: their text says nothing to the reader.
        let word = a.to_string_lossy();
        if word.contains('\n') {
            "SCRIPT".to_owned()
        } else {
            word.into_owned()
        }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_argv_exit_and_last_lines() {
        let error = run(Command::new("ls").arg("/nowhere-at-all"), QUICK)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`ls /nowhere-at-all` failed with exit status: 2"));
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end within 50ms"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
