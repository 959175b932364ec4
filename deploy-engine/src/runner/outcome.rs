//! What a host reported, as the end of a step. Pure; the words are for people at night.

use crate::{
    job::StepEnd,
    model::HostName,
    wire::{CommandOutput, Exit, Outcome, Work},
};

/// Lines of output that a failure quotes: enough for a stack of causes, short enough for a chat message.
const LINES_QUOTED: usize = 6;

/// Characters of one quoted line.
const LINE_LIMIT: usize = 240;

/// Changed resources that a success names; more are counted.
const CHANGED_NAMED: usize = 8;

/// The end of a step that did `work` on `host`. `before`: what its guards said, for whoever reads of the failure.
pub fn step_end(host: &HostName, work: &Work, outcome: Outcome, before: &str) -> StepEnd {
    match outcome {
        Outcome::Done { changed, output } => done(work, &changed, output.as_ref()),
        Outcome::Failed { at, what, output } => {
            let place = at.map(|id| format!("{id}: ")).unwrap_or_default();
            let output = output.map(|output| quoted(&output)).unwrap_or_default();
            StepEnd::Failed {
                what: format!("{host}: {}: {place}{what}{output}{before}", subject(work)),
            }
        }
        Outcome::Drifted {
            at,
            expected,
            found,
        } => StepEnd::Drifted {
            what: format!("{host}: {at}: the plan saw {expected}, found {found}; plan again"),
        },
        Outcome::Cancelled | Outcome::CalledOff => StepEnd::Cancelled,
        Outcome::Lost { why } => StepEnd::Lost {
            why: format!("{host}: {}: {why}", subject(work)),
        },
        Outcome::Fenced { seen } => StepEnd::Failed {
            what: format!(
                "{host}: refused, because a newer holder of the lease (token {seen}) has been here: another bot drives this \
                 site, or the state directory is an old copy"
            ),
        },
    }
}

/// What the work is, in a few words: the command itself, or the kind of work.
pub fn subject(work: &Work) -> String {
    match work {
        Work::Run { command } => format!("`{}`", command.argv.join(" ")),
        Work::Fetch { packages } => format!("downloading {} packages", packages.len()),
        Work::Apply { resources, .. } => format!("applying {} resources", resources.len()),
    }
}

fn done(
    work: &Work,
    changed: &[crate::wire::ResourceId],
    output: Option<&CommandOutput>,
) -> StepEnd {
    let ran = matches!(work, Work::Run { .. });
    let detail = match (changed, output) {
        ([], Some(output)) => last_lines(&output.stdout, 1),
        ([], None) => "nothing to change".to_owned(),
        (changed, _) => {
            let named: Vec<_> = changed
                .iter()
                .take(CHANGED_NAMED)
                .map(|id| id.0.as_str())
                .collect();
            let more = changed.len() - named.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("changed {}{more}", named.join(", "))
        }
    };
    StepEnd::Done {
        changed: ran || !changed.is_empty(),
        detail,
    }
}

fn quoted(output: &CommandOutput) -> String {
    let exit = match output.exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("killed by signal {signal}"),
        Exit::TimedOut => "its time was up".to_owned(),
        Exit::NotFound => "there is no such program".to_owned(),
    };
    let text = if output.stderr.trim().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let took = std::time::Duration::from_millis(output.took_ms).as_secs_f64();
    match last_lines(text, LINES_QUOTED) {
        lines if lines.is_empty() => format!("; {exit} after {took:.1} s without output"),
        lines => format!("; {exit} after {took:.1} s, last lines:\n{lines}"),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(count)
        .map(|line| line.chars().take(LINE_LIMIT).collect())
        .collect();
    lines.reverse();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Command, ResourceId};

    fn run(argv: &[&str]) -> Work {
        Work::Run {
            command: Command {
                argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
                env: [].into(),
                stdin: None,
                user: None,
                timeout_seconds: 5,
                output_limit_bytes: 1000,
            },
        }
    }

    fn output(stderr: &str) -> CommandOutput {
        CommandOutput {
            exit: Exit::Code(3),
            stdout: "ignored when there are errors".into(),
            stderr: stderr.into(),
            truncated: false,
            took_ms: 1_250,
        }
    }

    #[test]
    fn a_failure_names_host_command_exit_last_lines_and_last_judgement() {
        let host: HostName = "ctl2".parse().unwrap();
        let stderr = "one\ntwo\n\nthree\nfour\nfive\nsix\nseven\n";
        let outcome = Outcome::Failed {
            at: None,
            what: "exit code 3".into(),
            output: Some(output(stderr)),
        };
        let work = run(&["systemctl", "restart", "mariadb"]);
        let before = "; before it: galera.may_stop: 3 of 3 are synced";
        let StepEnd::Failed { what } = step_end(&host, &work, outcome, before) else {
            panic!("expected a failure")
        };
        assert_eq!(
            what,
            "ctl2: `systemctl restart mariadb`: exit code 3; exit 3 after 1.2 s, last lines:\n\
             two\nthree\nfour\nfive\nsix\nseven; before it: galera.may_stop: 3 of 3 are synced"
        );
    }

    #[test]
    fn a_run_command_always_counts_as_a_change_an_empty_apply_does_not() {
        let host: HostName = "ctl2".parse().unwrap();
        let done = |work: &Work, changed: &[&str]| {
            let changed = changed.iter().map(|&id| ResourceId(id.into())).collect();
            let outcome = Outcome::Done {
                changed,
                output: None,
            };
            step_end(&host, work, outcome, "")
        };
        let apply = Work::Apply {
            resources: vec![],
            expected: [].into(),
        };
        let changed = |end: &StepEnd| matches!(end, StepEnd::Done { changed: true, .. });
        assert!(changed(&done(&run(&["true"]), &[])));
        assert!(!changed(&done(&apply, &[])));
        assert!(changed(&done(&apply, &["file:/etc/x"])));
    }
}
