//! Elasticsearch and rsyslog on one host and on three: deployed, holding lines of every host, left alone by a second deploy,
//! restarted one by one after new packages, and taken off again without a trace. Needs root on Debian and fails without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lab::{
    Lab, Progress, in_layered_lab,
    scenario::{Bot, Changes, Installation, Program, install, rewrite_site, with_packages},
    wait,
};
use serde_json::{Value, json};

/// A line waits for rsyslog to read the journal, and for the node's refresh.
const LINE_LIMIT: Duration = Duration::from_secs(90);
const GONE: [&str; 5] = [
    "/opt/elasticsearch",
    "/etc/elasticsearch",
    "/var/lib/elasticsearch",
    "/etc/systemd/system/elasticsearch.service",
    "/var/spool/rsyslog",
];
/// As new packages do it: other files of the same names, and what runs has the old ones.
const NEW_PROGRAMS: &str = r#"for program in "$(readlink -f /usr/bin/java)" /usr/sbin/rsyslogd; do
    cp --preserve=all "$program" "$program.new" && mv "$program.new" "$program" || exit 1
done"#;
/// Two clusters of Java programs at once are too much for two processors.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn one_node() {
    holds_lines_and_goes("elastic1", 1);
}

#[test]
fn three_nodes() {
    holds_lines_and_goes("elastic3", 3);
}

fn holds_lines_and_goes(name: &str, hosts: u8) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    let program = Program::build(false).unwrap();
    in_layered_lab(name, hosts, Some(&layer), |lab| {
        let folder = lab.folder().join("elastic");
        let installation =
            install(lab, program, &folder, &site(&["elasticsearch", "rsyslog"])).unwrap();
        installation.deploy_alone("site").unwrap();
        let names: Vec<String> = (1..=hosts).map(|number| format!("ctl{number}")).collect();
        let health: Value = ask(lab, "ctl1", "/_cluster/health");
        assert_eq!(health["number_of_nodes"], json!(hosts), "{health}");
        assert_ne!(health["status"], json!("red"), "{health}");
        for host in &names {
            let line = format!("seen from {host} at night");
            lab.ssh_ok(host, &["logger", "--tag", "drill", &line])
                .unwrap();
        }
        for host in &names {
            is_found_once(lab, names.last().unwrap(), host);
        }
        assert_eq!(planned(&installation), json!([]));
        for host in &names {
            lab.ssh_ok(host, &["sh", "-c", NEW_PROGRAMS]).unwrap();
        }
        let steps = planned(&installation).to_string();
        let restarts = steps.matches(r#""title":"restart "#).count();
        assert_eq!(restarts, 2 * names.len(), "{steps}");
        // One node after the other, each only while the cluster is green.
        installation.deploy_alone("site").unwrap();
        assert_eq!(planned(&installation), json!([]));
        removed(&installation, "rsyslog");
        rewrite_site(&installation, &site(&["elasticsearch"])).unwrap();
        removed(&installation, "elasticsearch");
        for host in &names {
            gone(lab, host);
        }
    });
}

/// Watched by nobody and healed by nobody. memcached is what is left in the end.
fn site(services: &[&str]) -> Changes {
    let config = [
        ("automation", json!({"default": "shadow"})),
        ("sources", json!({})),
    ];
    Changes {
        services: services
            .iter()
            .chain(&["memcached"])
            .map(|name| (*name).to_owned())
            .collect(),
        config: config.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Changes::default()
    }
}

fn planned(installation: &Installation) -> Value {
    let bot = Bot::start(installation).unwrap();
    let plan = installation.ask(&["plan", "site"]).unwrap();
    bot.stop().unwrap();
    plan["data"]["steps"].clone()
}

fn ask(lab: &Lab, host: &str, path: &str) -> Value {
    let number = host.trim_start_matches("ctl");
    let url = format!("http://10.77.0.1{number}:9200{path}");
    let said = lab.ssh_ok(
        host,
        &["curl", "--silent", "--show-error", "--max-time", "10", &url],
    );
    serde_json::from_str(&said.unwrap()).unwrap()
}

fn is_found_once(lab: &Lab, asked: &str, host: &str) {
    let query =
        format!("/flog-*/_search?q=Hostname:{host}+AND+Payload:%22seen+from+{host}+at+night%22");
    wait::until("the line of a host", LINE_LIMIT, || {
        let found = ask(lab, asked, &query);
        match found["hits"]["total"]["value"].as_u64() {
            Some(1) => Ok(()),
            _ => Err(format!("{host}: {found}")),
        }
    })
    .unwrap();
}

fn removed(installation: &Installation, service: &str) {
    let bot = Bot::start(installation).unwrap();
    let answer = installation.ask(&["remove", service]).unwrap();
    let approval = answer["data"]["approval"].as_str();
    let approval = approval.unwrap_or_else(|| panic!("no plan to remove {service}: {answer}"));
    installation.output(&["approve", approval]).unwrap();
    let again = installation.ask(&["remove", service]).unwrap();
    assert_eq!(again["data"]["steps"], json!([]), "{service}: {again}");
    bot.stop().unwrap();
}

fn gone(lab: &Lab, host: &str) {
    for path in GONE {
        let there = lab.ssh(host, &["test", "-e", path]).unwrap();
        assert!(!there.status.success(), "{host}: {path} is still there");
    }
    for port in ["9200", "9300"] {
        let filter = format!("sport = :{port}");
        let listening = lab.ssh_ok(host, &["ss", "-Hltnp", &filter]).unwrap();
        assert_eq!(listening, "", "{host}: port {port}");
    }
}
