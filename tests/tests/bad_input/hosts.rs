//! Hosts that cannot be worked on: each keeps only itself back.

use std::fs;
use std::time::{Duration, Instant};

use lab::scenario::Installation;
use lab::{Fault, Lab, Mend, wait};
use serde_json::{Value, json};

use super::{active, in_small_lab, small, text};

/// A host that does not answer is given up within this, whatever it does instead of answering.
const GIVEN_UP: Duration = Duration::from_secs(90);
const CONFIG: &str = "/etc/memcached.conf";

#[test]
fn hosts_that_cannot_be_worked_on() {
    in_small_lab("badhosts", 3, |lab| {
        let installation = small(lab);
        for what in ["power-cut ctl3", "freeze ctl3"] {
            fault(lab, what);
            let start = Instant::now();
            let plan = installation.plan("site").unwrap();
            assert!(refusals(&plan).contains("ctl3"), "{plan}");
            assert_eq!(
                changed_hosts(&plan),
                ["ctl1", "ctl2"],
                "a host that is down keeps only itself back"
            );
            assert!(start.elapsed() < GIVEN_UP, "{what}: {:?}", start.elapsed());
            lab.mend(&Mend::All).unwrap();
        }
        wrong_host_key(lab, &installation);
        full_disk(lab, &installation);
        port_taken(lab, &installation);
        installation.deploy_alone("site").unwrap();
        let plan = installation.plan("site").unwrap();
        assert_eq!(plan["steps"], json!([]), "{plan}");
    });
}

fn fault(lab: &Lab, text: &str) {
    lab.fault(&text.parse::<Fault>().unwrap()).unwrap();
}

/// What was refused of a plan, as one text.
pub fn refusals(plan: &Value) -> String {
    plan["refused"].to_string()
}

/// Hosts that a plan changes.
pub fn changed_hosts(plan: &Value) -> Vec<&str> {
    let changes = plan["changes"].as_array().into_iter().flatten();
    let mut hosts: Vec<&str> = changes
        .filter_map(|change| change["host"].as_str())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Runs a plan that leaves something out, or fails in part; gives what was said.
pub fn deploy_in_part(installation: &Installation, plan: &Value) -> String {
    let digest = plan["digest"].as_str().unwrap();
    let words = ["deploy", "site", "--yes", digest];
    let output = installation.cli(&words).unwrap().output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
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
    let before = lab.ssh_ok("ctl2", &["cat", CONFIG]).unwrap();
    let plan = installation.plan("site").unwrap();
    // Refused by the plan, or by the host when it was tried.
    let said = format!(
        "{}\n{}",
        refusals(&plan),
        deploy_in_part(installation, &plan)
    );
    let told =
        |line: &str| line.contains("ctl2") && (line.contains("space") || line.contains("free"));
    assert!(said.lines().any(told), "{said}");
    assert!(!active(lab, "ctl2", "memcached"));
    assert_eq!(lab.ssh_ok("ctl2", &["cat", CONFIG]).unwrap(), before);
    for host in ["ctl1", "ctl3"] {
        assert!(active(lab, host, "memcached"), "{host}: {said}");
    }
    lab.mend(&Mend::All).unwrap();
}

/// On a host that does not run memcached, something else has its port. The rest of the site is still done.
fn port_taken(lab: &Lab, installation: &Installation) {
    lab.ssh_ok("ctl3", &["systemctl", "stop", "memcached"])
        .unwrap();
    let listen = [
        "systemd-run",
        "--unit=squatter",
        "socat",
        "TCP-LISTEN:11211,fork,reuseaddr",
        "PIPE",
    ];
    lab.ssh_ok("ctl3", &listen).unwrap();
    wait::until("the squatter's port", Duration::from_secs(20), || {
        let sockets = lab.ssh_ok("ctl3", &["ss", "-Htln", "sport", "=", "11211"]);
        let sockets = sockets.map_err(|error| error.to_string())?;
        sockets.contains("11211").then_some(()).ok_or(sockets)
    })
    .unwrap();
    let before = lab.ssh_ok("ctl3", &["cat", CONFIG]).unwrap();
    let plan = installation.plan("site").unwrap();
    let why = refusals(&plan);
    for part in ["ctl3", "11211", "socat"] {
        assert!(why.contains(part), "expected `{part}` in {why}");
    }
    let said = deploy_in_part(installation, &plan);
    assert!(said.contains("11211"), "{said}");
    assert_eq!(lab.ssh_ok("ctl3", &["cat", CONFIG]).unwrap(), before);
    assert!(!active(lab, "ctl3", "memcached"));
    assert!(active(lab, "ctl2", "memcached"), "{said}");
    lab.ssh_ok("ctl3", &["systemctl", "stop", "squatter"])
        .unwrap();
}
