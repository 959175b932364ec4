//! Wrong commands, on the command line and in a script.

use std::fs;
use std::process::Command;

use rstest::rstest;

use super::{in_small_lab, program, small, text};

#[rstest]
#[case(&["deploy"], "TARGET")]
#[case(&["deploy", "site", "now"], "now")]
#[case(&["run"], "RUNBOOK")]
#[case(&["depoly", "site"], "deploy")]
#[case(&["why"], "ID")]
fn wrong_words(#[case] words: &[&str], #[case] says: &str) {
    let output = Command::new(program().path()).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(
        text(&output).contains(says),
        "expected `{says}` in:\n{}",
        text(&output)
    );
}

#[test]
fn a_script_with_a_wrong_line_fails() {
    in_small_lab("badscript", 1, |lab| {
        let installation = small(lab);
        let run = |lines: &str| {
            let script = installation.folder().join("script");
            fs::write(&script, lines).unwrap();
            let mut console = installation.cli(&["serve", "--console"]).unwrap();
            console
                .stdin(fs::File::open(script).unwrap())
                .output()
                .unwrap()
        };
        let right = run("!whoami\n!services\n");
        assert!(right.status.success(), "{}", text(&right));
        for (line, says) in [
            ("!depoly site", "did you mean `deploy`"),
            ("!deploy", "TARGET"),
            ("!deploy site now", "now"),
            ("!why", "ID"),
        ] {
            let wrong = run(&format!("!whoami\n{line}\n!services\n"));
            let said = text(&wrong);
            assert_eq!(wrong.status.code(), Some(1), "{line}: {said}");
            assert!(said.contains(says), "{line}: {said}");
        }
    });
}
