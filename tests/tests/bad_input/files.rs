//! Wrong files: `nightshift check` says all that is wrong with them, and where.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;

use super::{program, text};

const SITE: &str = "site: bad
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
services:
  memcached: {on: control, settings: {port: 11211}}
  haproxy: {on: control}
";
const CONFIG: &str = "site: site.yaml\nstate_dir: state\n";

/// `nightshift check` on these files.
fn check(folder: &Path, site: &str, config: &str) -> Output {
    fs::write(folder.join("site.yaml"), site).unwrap();
    fs::write(folder.join("nightshift.yaml"), config).unwrap();
    let mut command = Command::new(program().path());
    command
        .arg("--config")
        .arg(folder.join("nightshift.yaml"))
        .arg("check");
    command.output().unwrap()
}

#[rstest]
#[case::yaml("services:\n", "services: [\n", "", &["site.yaml:7:3", "not YAML"])]
#[case::unknown_host("memcached: {on: control", "memcached: {on: ctl9", "", &["site.yaml:6:19", "ctl9", "did you mean"])]
#[case::unknown_service("memcached:", "memcache:", "", &["site.yaml:6:3", "memcache", "memcached"])]
#[case::unknown_setting("port: 11211", "prot: 11211", "", &["site.yaml:6", "prot", "port"])]
#[case::wrong_type("port: 11211", "port: high", "", &["site.yaml:6", "port", "high"])]
#[case::missing_address("ctl1: {address: 10.77.0.11, ", "ctl1: {", "", &["site.yaml:3", "address"])]
#[case::unknown_key_of_the_configuration("", "", "sate_dir: x\n", &["nightshift.yaml:3", "sate_dir", "state_dir"])]
fn wrong_files(#[case] from: &str, #[case] to: &str, #[case] config: &str, #[case] says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = check(
        folder.path(),
        &SITE.replacen(from, to, 1),
        &format!("{CONFIG}{config}"),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in says {
        assert!(said.contains(part), "expected `{part}` in:\n{said}");
    }
    assert!(
        !folder.path().join("state").exists(),
        "a check makes nothing"
    );
}

/// Errors of one kind do not hide those of another, in the same file or in others.
#[test]
fn all_errors_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let site = SITE
        .replace("memcached: {on: control", "memcached: {on: ctl9")
        .replace("haproxy:", "haprxy:");
    let config = format!(
        "{CONFIG}sate_dir: x
people: {{bob: operator, 'unix:ann': boss}}
sources: {{alertmanager: [{{name: a, token: {{file: none.token}}}}, {{name: a}}]}}
"
    );
    let said = text(&check(folder.path(), &site, &config));
    for part in [
        "site.yaml:6:19",
        "ctl9",
        "site.yaml:7:3",
        "haprxy",
        "nightshift.yaml:3:1",
        "sate_dir",
        "nightshift.yaml:4:10",
        "bob",
        "expected: an identity like `matrix:@ann:example.org`",
        "nightshift.yaml:4:37",
        "boss",
        "nightshift.yaml:5:43",
        "none.token",
        "used twice",
        "7 errors",
    ] {
        assert!(said.contains(part), "expected `{part}` in:\n{said}");
    }
}

#[test]
fn services_that_need_each_other() {
    let folder = tempfile::tempdir().unwrap();
    for (name, needs) in [("hen", "egg"), ("egg", "hen")] {
        let service = folder.path().join("services").join(name);
        fs::create_dir_all(&service).unwrap();
        let file = format!(
            "service: {name}\ntitle: {name}\ngroup: Test\ntopology: per_host\nneeds: [{needs}]\nresources: []\n"
        );
        fs::write(service.join("service.yaml"), file).unwrap();
    }
    let site = format!("{SITE}  hen: {{on: ctl1}}\n  egg: {{on: ctl1}}\n");
    let output = check(
        folder.path(),
        &site,
        &format!("{CONFIG}service_dirs: [services]\n"),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("hen") && said.contains("egg"), "{said}");
}
