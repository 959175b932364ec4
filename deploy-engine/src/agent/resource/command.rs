//! Guarded commands: run only while their guard says that they are needed.

use std::time::Duration;

use super::{Judged, Pending, plain_path};
use crate::{
    agent::{
        exec::{Exec, failure},
        root::Root,
    },
    wire::{Command, Exit, State},
};

/// Guards answer fast or hang.
const GUARD_TIMEOUT: Duration = Duration::from_secs(30);
/// Output kept of a guarded command, in bytes.
const OUTPUT_BYTES: u32 = 64 * 1024;

/// How a guarded command is wanted.
pub struct Wanted<'a> {
    pub argv: &'a [String],
    pub unless: Option<&'a [String]>,
    pub creates: Option<&'a str>,
    pub stdin: Option<&'a str>,
    pub timeout_seconds: u32,
}

pub fn look(root: &Root, exec: &Exec, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    let will_run = || vec![format!("run {}", wanted.argv.join(" "))];
    if wanted.argv.is_empty() {
        return Judged::cannot(
            "",
            "expected a program to run, found an empty argument vector",
        );
    }
    match (wanted.creates, wanted.unless) {
        (None, None) => Judged::cannot(
            "",
            "expected `unless` or `creates`: without a guard it would run every time",
        ),
        (Some(path), _) if plain_path(path).is_err() => Judged::cannot(
            "",
            format!("expected an absolute path in `creates`, found {path:?}"),
        ),
        (Some(path), _) if root.at(path).symlink_metadata().is_ok() => {
            Judged::by_diff("created", vec![])
        }
        (Some(_), None) => Judged::by_diff("not created", will_run()),
        (_, Some(guard)) => {
            let guard: Vec<&str> = guard.iter().map(String::as_str).collect();
            match exec.helper(&guard, GUARD_TIMEOUT) {
                Err(why) => Judged::unknown(why),
                Ok(output) => match output.exit {
                    Exit::Code(0) => Judged::by_diff("guard holds", vec![]),
                    Exit::Code(_) => Judged::by_diff("guard does not hold", will_run()),
                    Exit::NotFound if pending.packages => {
                        Judged::by_diff("no guard yet", will_run())
                    }
                    Exit::NotFound => Judged::cannot(
                        "no guard",
                        format!("the guard's program {} does not exist", guard[0]),
                    ),
                    _ => Judged::unknown(failure(&guard, &output)),
                },
            }
        }
    }
}

pub fn apply(root: &Root, exec: &Exec, wanted: &Wanted<'_>) -> Result<(), String> {
    let command = Command {
        argv: wanted.argv.to_vec(),
        env: Default::default(),
        stdin: wanted.stdin.map(str::to_owned),
        user: None,
        timeout_seconds: wanted.timeout_seconds,
        output_limit_bytes: OUTPUT_BYTES,
    };
    let output = exec.run(&command)?;
    let argv: Vec<&str> = wanted.argv.iter().map(String::as_str).collect();
    if !output.ok() {
        return Err(failure(&argv, &output));
    }
    match look(root, exec, wanted, &Pending::default()).state {
        State::Same => Ok(()),
        _ => Err(format!(
            "`{}` succeeded, but its guard still asks for it",
            argv.join(" ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_only_while_the_guard_asks() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let exec = Exec::new(root.clone());
        let strings = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<String>>();
        let made = dir.path().join("made").display().to_string();
        let (argv, unless) = (strings(&["touch", &made]), strings(&["test", "-e", &made]));
        let mut wanted = Wanted {
            argv: &argv,
            unless: Some(&unless),
            creates: None,
            stdin: None,
            timeout_seconds: 5,
        };
        let look = |wanted: &Wanted<'_>| super::look(&root, &exec, wanted, &Pending::default());
        assert!(look(&wanted).changes());
        apply(&root, &exec, &wanted).unwrap();
        assert_eq!(look(&wanted).state, State::Same);
        let missing = strings(&["no-such-program"]);
        wanted.unless = Some(&missing);
        assert!(matches!(look(&wanted).state, State::Cannot { .. }));
        wanted.unless = None;
        assert!(matches!(look(&wanted).state, State::Cannot { .. }));
        wanted.creates = Some("/made");
        assert_eq!(look(&wanted).state, State::Same);
        let (idle, never) = (strings(&["true"]), strings(&["false"]));
        let wanted = Wanted {
            argv: &idle,
            unless: Some(&never),
            ..wanted
        };
        let wanted = Wanted {
            creates: None,
            ..wanted
        };
        assert!(
            apply(&root, &exec, &wanted)
                .unwrap_err()
                .contains("still asks")
        );
    }
}
