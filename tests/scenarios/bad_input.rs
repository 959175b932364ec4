//! Bad input, end to end: a clear error where the user looks, nothing changed that was not reported, the
//! rest of the site untouched. The tests with hosts need root on Debian and fail without it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lab::scenario::{Bot, Changes, Installation, Program, install, with_packages};
use lab::{Fault, Lab, Mend, Progress, in_layered_lab};
use rstest::rstest;
use serde_json::{Value, json};

const SITE: &str = "site: bad
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
services:
  memcached: {on: control, settings: {port: 11211}}
  haproxy: {on: control}
";
const CONFIG: &str = "site: site.yaml\nstate_dir: state\n";

fn program() -> Program {
    Program::build(false).unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

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
#[case::yaml("services:\n", "services: [\n", "", &["site.yaml:6"])]
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

#[test]
fn all_errors_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let site = SITE
        .replace("memcached: {on: control", "memcached: {on: ctl9")
        .replace("haproxy:", "haprxy:");
    let said = text(&check(
        folder.path(),
        &site,
        &format!("{CONFIG}sate_dir: x\n"),
    ));
    for part in ["ctl9", "haprxy", "sate_dir"] {
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

/// Only what needs no other service, so that each case is about one thing.
fn small(lab: &Lab) -> Installation {
    let changes = Changes {
        services: vec!["memcached".to_owned(), "node_exporter".to_owned()],
        ..Changes::default()
    };
    install(lab, program(), &lab.folder().join("bad"), &changes).unwrap()
}

fn in_small_lab(name: &str, hosts: u8, test: impl FnOnce(&Lab) + Send) {
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    in_layered_lab(name, hosts, Some(&layer), test);
}

fn fault(lab: &Lab, text: &str) {
    lab.fault(&text.parse::<Fault>().unwrap()).unwrap();
}

/// Runs words that must fail, and gives what was said.
fn refused(installation: &Installation, words: &[&str]) -> String {
    let output = installation.cli(words).unwrap().output().unwrap();
    assert!(
        !output.status.success(),
        "{words:?} succeeded:\n{}",
        text(&output)
    );
    text(&output)
}

fn active(lab: &Lab, host: &str, unit: &str) -> bool {
    lab.ssh(host, &["systemctl", "is-active", unit])
        .unwrap()
        .stdout
        .trim()
        == "active"
}

/// What was refused of a plan, as one text.
fn refusals(plan: &Value) -> String {
    plan["refused"].to_string()
}

/// Hosts that a plan changes.
fn changed_hosts(plan: &Value) -> Vec<&str> {
    let mut hosts: Vec<&str> = plan["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| change["host"].as_str())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

#[test]
fn hosts_that_cannot_be_worked_on() {
    in_small_lab("badhosts", 3, |lab| {
        let installation = small(lab);
        fault(lab, "power-cut ctl3");
        let plan = installation.plan("site").unwrap();
        assert!(refusals(&plan).contains("ctl3"), "{plan}");
        assert_eq!(
            changed_hosts(&plan),
            ["ctl1", "ctl2"],
            "a host that is down keeps only itself back"
        );
        lab.mend(&Mend::All).unwrap();

        fault(lab, "freeze ctl3");
        let start = std::time::Instant::now();
        let plan = installation.plan("site").unwrap();
        assert!(refusals(&plan).contains("ctl3"), "{plan}");
        assert!(
            start.elapsed().as_secs() < 90,
            "SSH that hangs has a limit: {:?}",
            start.elapsed()
        );
        lab.mend(&Mend::All).unwrap();

        wrong_host_key(lab, &installation);
        full_disk(lab, &installation);
        port_taken(lab, &installation);
        installation.deploy_alone("site").unwrap();
        assert_eq!(installation.plan("site").unwrap()["steps"], json!([]));
    });
}

fn wrong_host_key(lab: &Lab, installation: &Installation) {
    let right = fs::read_to_string(lab.known_hosts()).unwrap();
    let key_of = |host: &str| {
        let line = right.lines().find(|line| line.starts_with(host)).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    let file = installation.folder().join("known_hosts");
    fs::write(&file, right.replace(&key_of("ctl3"), &key_of("ctl1"))).unwrap();
    let site_file = installation.folder().join("site.yaml");
    let site = fs::read_to_string(&site_file).unwrap();
    let known = lab.known_hosts().display().to_string();
    installation
        .write_site(&site.replace(&known, "known_hosts"))
        .unwrap();
    let plan = installation.plan("site").unwrap();
    let why = refusals(&plan).to_lowercase();
    assert!(why.contains("ctl3") && why.contains("host key"), "{why}");
    assert_eq!(changed_hosts(&plan), ["ctl1", "ctl2"]);
    installation.write_site(&site).unwrap();
}

fn full_disk(lab: &Lab, installation: &Installation) {
    fault(lab, "fill-disk ctl2");
    let said = match installation.plan("site") {
        // Refused by the check of free space, or by the host when it was tried.
        Ok(plan) if refusals(&plan).contains("ctl2") => refusals(&plan),
        Ok(plan) => {
            let digest = plan["digest"].as_str().unwrap().to_owned();
            refused(installation, &["deploy", "site", "--yes", &digest])
        }
        Err(error) => format!("{error:#}"),
    };
    assert!(said.contains("ctl2"), "{said}");
    assert!(said.contains("space") || said.contains("free"), "{said}");
    assert!(!active(lab, "ctl2", "memcached"));
    lab.mend(&Mend::All).unwrap();
}

fn port_taken(lab: &Lab, installation: &Installation) {
    let listen = [
        "systemd-run",
        "--unit=squatter",
        "socat",
        "TCP-LISTEN:11211,fork,reuseaddr",
        "PIPE",
    ];
    // The port must be taken on a host that does not run memcached yet, whatever went before.
    lab.ssh_ok("ctl3", &["systemctl", "stop", "memcached"])
        .unwrap();
    lab.ssh_ok("ctl3", &listen).unwrap();
    let before = lab.ssh_ok("ctl3", &["cat", "/etc/memcached.conf"]).unwrap();
    let plan = installation.plan("site").unwrap();
    let why = refusals(&plan);
    for part in ["ctl3", "11211", "socat"] {
        assert!(why.contains(part), "expected `{part}` in {why}");
    }
    let digest = plan["digest"].as_str().unwrap().to_owned();
    // The rest of the site is still done.
    let _ = installation
        .cli(&["deploy", "site", "--yes", &digest])
        .unwrap()
        .output()
        .unwrap();
    assert_eq!(
        lab.ssh_ok("ctl3", &["cat", "/etc/memcached.conf"]).unwrap(),
        before
    );
    assert!(active(lab, "ctl1", "memcached"));
    lab.ssh_ok("ctl3", &["systemctl", "stop", "squatter"])
        .unwrap();
}

#[test]
fn a_package_that_cannot_be_had() {
    in_small_lab("badpackage", 2, |lab| {
        let installation = small(lab);
        let service = installation.folder().join("services/ghost");
        fs::create_dir_all(&service).unwrap();
        let file = "service: ghost\ntitle: Ghost\ngroup: Test\ntopology: per_host\n\
            packages: [no-such-package-anywhere]\nresources: []\n";
        fs::write(service.join("service.yaml"), file).unwrap();
        let config = fs::read_to_string(installation.config()).unwrap();
        fs::write(
            installation.config(),
            format!("{config}service_dirs: [services]\n"),
        )
        .unwrap();
        let site = fs::read_to_string(installation.folder().join("site.yaml")).unwrap();
        installation
            .write_site(&format!("{site}  ghost: {{on: ctl2}}\n"))
            .unwrap();
        let said = match installation.plan("site") {
            Ok(plan) if refusals(&plan).contains("no-such-package-anywhere") => refusals(&plan),
            Ok(plan) => {
                let digest = plan["digest"].as_str().unwrap().to_owned();
                refused(&installation, &["deploy", "site", "--yes", &digest])
            }
            Err(error) => format!("{error:#}"),
        };
        assert!(
            said.contains("no-such-package-anywhere") && said.contains("ctl2"),
            "{said}"
        );
        installation.write_site(&site).unwrap();
        installation.deploy_alone("site").unwrap();
        assert!(active(lab, "ctl1", "memcached") && active(lab, "ctl2", "memcached"));
    });
}

/// Posts to the bot's webhook from inside the lab; gives the status.
fn post(lab: &Lab, token: &str, body: &[u8]) -> String {
    let file = lab.folder().join("body");
    fs::write(&file, body).unwrap();
    let mut curl = lab.command("curl").unwrap();
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .arg("--data-binary")
        .arg(format!("@{}", file.display()))
        .arg("http://10.77.0.1:9480/v1/alertmanager");
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

fn webhook(name: &str) -> Vec<u8> {
    let alert = json!({
        "status": "firing",
        "labels": {"alertname": name, "instance": "$(reboot);10.77.0.11"},
        "annotations": {"summary": "`reboot`"},
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": "0123456789abcdef",
    });
    let body = json!({
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "r",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
    });
    body.to_string().into_bytes()
}

#[test]
fn webhooks_that_are_wrong() {
    in_small_lab("badhooks", 1, |lab| {
        let installation = small(lab);
        let bot = Bot::start(&installation).unwrap();
        let token = fs::read_to_string(installation.folder().join("webhook.token")).unwrap();
        let token = token.trim();
        assert_eq!(post(lab, "wrong", &webhook("X")), "401");
        assert_eq!(post(lab, token, b"{\"version\": \"4\", "), "400");
        assert_eq!(post(lab, token, b"{\"version\": \"9\"}"), "400");
        assert_eq!(post(lab, token, &vec![b' '; 32 << 20]), "413");
        assert_eq!(installation.ask(&["alerts"]).unwrap()["data"], json!([]));
        assert_eq!(post(lab, token, &webhook("NobodyKnowsThis")), "200");
        let alerts = installation.ask(&["alerts"]).unwrap();
        assert_eq!(alerts["data"][0]["name"], "NobodyKnowsThis", "{alerts}");
        let told = lab::wait::until("the incident", std::time::Duration::from_secs(30), || {
            let incidents = installation.ask(&["incidents"]).unwrap();
            let first = &incidents["data"][0];
            if first["state"]["state"] == "tell_only" {
                Ok(first.clone())
            } else {
                Err(incidents.to_string())
            }
        });
        assert_eq!(told.unwrap()["runbooks"], json!([]));
        assert_eq!(installation.ask(&["jobs"]).unwrap()["data"], json!([]));
        bot.stop().unwrap();
    });
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
        assert!(run("!whoami\n!services\n").status.success());
        let wrong = run("!whoami\n!depoly site\n!services\n");
        assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
        assert!(
            text(&wrong).contains("did you mean `deploy`"),
            "{}",
            text(&wrong)
        );
    });
}
