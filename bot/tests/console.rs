//! The program as people use it: scripts through the console, and the command line beside it. The site's hosts answer nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{path::Path, process::Command};

use support::{Home, text};

#[test]
fn a_script_is_run_line_by_line_and_its_exit_status_tells() {
    let home = Home::new("");
    let good = home.script("# who am I\n\n!whoami\nservices\n!halt for a test\n!resume\n");
    let said = text(&good.stdout);
    assert!(good.status.success(), "{said}\n{}", text(&good.stderr));
    let places: Vec<usize> = [
        "> !whoami",
        "admin here",
        "> services",
        "memcached",
        "Halted",
        "Goes on",
    ]
    .iter()
    .map(|part| {
        said.find(part)
            .unwrap_or_else(|| panic!("no {part:?} in\n{said}"))
    })
    .collect();
    assert!(
        places.is_sorted(),
        "answers stand under their commands:\n{said}"
    );
    assert!(!said.contains('\u{1b}'), "no colours in a pipe:\n{said}");

    let bad = home.script("!depoly site\n!whoami\n");
    let said = text(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{said}");
    assert!(said.contains("did you mean `deploy`?"), "{said}");
    assert!(
        said.contains("admin here"),
        "the rest of the script is run:\n{said}"
    );
}

#[test]
fn a_site_that_cannot_be_reached_is_unknown_and_nothing_is_planned() {
    let home = Home::new("");
    let output = home.script("!status\n!deploy site\n!approve\n");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("unknown"), "not reached is not down:\n{said}");
    assert!(said.contains("ctl1"), "the host is named:\n{said}");
    assert!(said.contains("Nothing waits for approval"), "{said}");
}

#[test]
fn the_command_line_speaks_to_the_running_bot() {
    let home = Home::new("");
    let none = home.run(&["jobs"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stderr).contains("expected a running bot"),
        "{}",
        text(&none.stderr)
    );

    let served = home.serve();
    let (ok, answer) = served.json(&["whoami"]);
    assert!(ok);
    assert_eq!(answer["data"]["role"], "admin");
    assert!(served.json(&["halt", "switch", "works"]).0);
    let (_, status) = served.json(&["status"]);
    assert_eq!(status["data"]["healthy"], false);
    let told = status["message"].to_string();
    assert!(told.contains("switch works"), "{told}");
    let (ok, answer) = served.json(&["job", "nothing"]);
    assert!(!ok);
    assert_eq!(answer["ok"], false);

    let second = home.run(&["serve"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(
        text(&second.stderr).contains("found another one running"),
        "{}",
        text(&second.stderr)
    );
}

#[test]
fn a_halt_outlives_a_kill() {
    let home = Home::new("");
    let served = home.serve();
    assert!(served.json(&["halt", "night"]).0);
    drop(served);
    let served = home.serve();
    let (_, status) = served.json(&["status"]);
    assert!(status["message"].to_string().contains("night"), "{status}");
    assert!(served.json(&["resume"]).0);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let home =
        Home::new("people: {'ann': admin}\nlimits: {approval_minutes: 0}\nlisten: everywhere\n");
    let output = home.run(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for expected in [
        "nightshift.yaml:5",
        "approval_minutes",
        "nightshift.yaml:6",
        "listen",
    ] {
        assert!(said.contains(expected), "no {expected:?} in\n{said}");
    }

    let home = Home::new("sources:\n  alertmanager: [{name: am, token: {file: missing}}]\n");
    let output = home.run(&["check"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("nightshift.yaml:5") && said.contains("missing"),
        "{said}"
    );
}

#[test]
fn examples_are_right_and_schemas_are_json() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let output = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(["check", "--json", "--config"])
        .arg(examples.join("nightshift.yaml"))
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    // All that is missing on this machine is what systemd would hand over.
    assert!(!errors.is_empty());
    for error in errors {
        assert!(
            error["message"].as_str().unwrap().contains("systemd"),
            "{error:#}"
        );
    }
    for of in ["site", "service", "runbook", "alerts", "config"] {
        let output = Command::new(env!("CARGO_BIN_EXE_nightshift"))
            .args(["schema", of])
            .output()
            .unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(schema["properties"].is_object(), "{of}");
    }
}

#[test]
fn trust_is_earned_and_every_word_about_it_is_kept() {
    let home = Home::new("automation: {runbooks: {MEM-1: auto}}\n");
    let output = home.script(
        "!trust\n!trust MEM-1 auto I say so\n!trust MEM-1@control shadow too noisy\n!trust MEM-1\n\
         !drilled MEM-1 0123\n!clear abc a reason\n!replay --since 7d\n",
    );
    let said = text(&output.stdout);
    for part in [
        "asks: not earned",
        "MEM-1 has not earned `auto` here: 0 of 3 proven repairs in a row, no passed drill of this version",
        "MEM-1@control → shadow",
        "too noisy",
        "that says nothing about this one",
        "There is no job abc",
        "There is nothing on record to replay",
    ] {
        assert!(said.contains(part), "expected {part:?} in:\n{said}");
    }
    assert!(
        !output.status.success(),
        "what was refused makes a script fail"
    );
}

/// A runbook of the site with an act of class N: `check` names the file and the line, and the bot does not start with it.
#[test]
fn a_runbook_that_does_what_is_never_done_is_not_loaded() {
    let home = Home::new("runbook_dirs: [ours]\n");
    std::fs::create_dir_all(home.path().join("ours")).unwrap();
    let own = include_str!("../../runbooks/library/MEM-1.yaml").replace(
        "[systemctl, start, memcached.service]",
        "[rabbitmqctl, force_reset]",
    );
    home.write("ours/MEM-1.yaml", &own);
    let checked = home.run(&["check"]);
    let said = text(&checked.stderr);
    assert!(!checked.status.success());
    assert!(
        said.contains("ours/MEM-1.yaml:20:") && said.contains("class N"),
        "{said}"
    );
    let served = home.script("!whoami\n");
    assert!(!served.status.success() && !text(&served.stdout).contains("You are"));
}

/// Without a running bot, in the chat, and with a table of the site's own that says so.
#[test]
fn what_would_become_of_alerts() {
    let home = Home::new("runbook_dirs: [ours]\n");
    for folder in ["ours/alerts", "rules"] {
        std::fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    let own =
        "alerts: ours\nsets:\n- set: our rules\n  map:\n  - {page: [], names: [MemcachedDown]}\n";
    home.write("ours/alerts/ours.yaml", own);
    home.write(
        "rules/some.rules",
        "groups:\n- name: a\n  rules:\n  - {alert: MySQLDown, expr: up == 0}\n  - {alert: MemcachedDown, expr: up == 0}\n  - {alert: Odd, expr: up == 0}\n",
    );
    home.write("rules/wrong.yaml", "groups: [\n");
    let rules = home.path().join("rules");
    let output = home.run(&["explain", rules.to_str().unwrap()]);
    let (said, wrong) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "one file is wrong:\n{said}");
    for part in [
        "1 runbook, 1 page, 1 unknown: page",
        "GAL-1",
        "instead",
        "nobody",
    ] {
        assert!(said.contains(part), "expected {part:?} in:\n{said}");
    }
    assert!(wrong.contains("wrong.yaml: line"), "{wrong}");
    let output = home.run(&[
        "explain",
        rules.join("some.rules").to_str().unwrap(),
        "--json",
    ]);
    let told: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert!(output.status.success());
    assert_eq!(
        (&told["counts"]["mapped"], &told["counts"]["unknown"]),
        (&1.into(), &1.into())
    );

    let script = home.script("!explain MySQLDown instance=ctl1:9104\n!explain odd\n");
    let said = text(&script.stdout);
    assert!(said.contains("GAL-1") && said.contains("nobody"), "{said}");
}
