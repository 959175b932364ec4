//! `cargo demo --script` as a user runs it: deploy, approve, plan again, status. Needs root on Debian and fails without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::process::Command;

use lab::Progress;
use lab::scenario::{with_packages, workspace};
use lab::testing::test_name;

/// Runs the demo with a script of chat lines; gives what it printed.
fn demo(name: &str, hosts: &str, script: &str) -> String {
    // Packages are installed already: what is tested is everything else.
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nightshift-lab"))
        .args(["--lab", &String::from(test_name(name).unwrap())])
        .args(["demo", "--hosts", hosts, "--layer", &layer, "--script"])
        .arg(workspace().join("tests/demo").join(script))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    said
}

/// The plan after the deploy has nothing to do, and every health check of the site holds.
fn ends_green(said: &str) {
    let (_, after) = said
        .split_once("> !plan site")
        .unwrap_or_else(|| panic!("no second plan in\n{said}"));
    let (plan, status) = after
        .split_once("> !status")
        .unwrap_or_else(|| panic!("no status in\n{said}"));
    assert!(plan.contains("no changes"), "{plan}");
    assert!(status.contains("checks are healthy"), "{status}");
    assert!(!status.contains("not healthy"), "{status}");
}

#[test]
fn three_hosts() {
    ends_green(&demo("demothree", "3", "three-hosts.chat"));
}

#[test]
fn one_host() {
    ends_green(&demo("demoone", "1", "one-host.chat"));
}
