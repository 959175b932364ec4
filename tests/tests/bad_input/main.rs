//! Bad input, end to end: a clear error where the user looks, nothing changed that was not reported, the
//! rest of the site untouched. The tests with hosts need root on Debian and fail without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

mod files;
mod hooks;
mod hosts;
mod package;
mod words;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use lab::scenario::{Changes, Installation, Program, install, with_packages};
use lab::{Lab, Progress, in_layered_lab};
use serde_json::{Value, json};

/// The token that webhooks carry.
const TOKEN: &str = "a token for tests";

fn program() -> Program {
    Program::build(false).unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Only what needs no other service, so that each case is about one thing.
fn small(lab: &Lab) -> Installation {
    small_with(lab, [])
}

/// As [`small`], with more of the configuration replaced.
fn small_with<const N: usize>(lab: &Lab, config: [(&str, Value); N]) -> Installation {
    let folder = lab.folder().join("bad");
    fs::create_dir_all(&folder).unwrap();
    let token = folder.join("webhook.token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    // No Alertmanager is deployed here, so the token is no secret of the site.
    let source = json!({"name": "alertmanager", "token": {"file": "webhook.token"}});
    let mut all = BTreeMap::from([("sources".to_owned(), json!({"alertmanager": [source]}))]);
    all.extend(config.map(|(key, value)| (key.to_owned(), value)));
    let changes = Changes {
        services: vec!["memcached".to_owned(), "node_exporter".to_owned()],
        config: all,
        ..Changes::default()
    };
    install(lab, program(), &folder, &changes).unwrap()
}

fn in_small_lab(name: &str, hosts: u8, test: impl FnOnce(&Lab) + Send) {
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    in_layered_lab(name, hosts, Some(&layer), test);
}

fn active(lab: &Lab, host: &str, unit: &str) -> bool {
    let state = lab.ssh(host, &["systemctl", "is-active", unit]).unwrap();
    state.stdout.trim() == "active"
}
