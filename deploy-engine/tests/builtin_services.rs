//! The services that come with the engine: they load, they name only what exists, and what they render for three hosts and for
//! one is kept as golden files.

use std::{fmt::Write as _, fs};

use deploy_engine::{
    condition, logic,
    model::{HostName, Model},
    wire::Resource,
};

const THREE: &str = "
site: demo
ssh: {user: root, identity: key, known_hosts: known_hosts}
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
  ctl3: {address: 10.77.0.13, groups: [control]}
services:
  mariadb: {on: control}
  rabbitmq: {on: control, settings: {partition_handling: ignore, net_ticktime: 8}}
  memcached: {on: control}
  haproxy: {on: control}
  keepalived: {on: control, settings: {vip: 10.77.0.100/24}}
  prometheus: {on: control}
  alertmanager: {on: control, settings: {webhook_url: 'http://10.77.0.1:8080/webhook/alertmanager'}}
  node_exporter: {on: control}
  mysqld_exporter: {on: control}
  signs_exporter: {on: control}
";

const ONE: &str = "
site: small
ssh: {user: root, identity: key, known_hosts: known_hosts}
hosts:
  ctl1: {address: 10.77.0.11}
services:
  mariadb: {on: ctl1}
  rabbitmq: {on: ctl1}
  memcached: {on: ctl1}
  haproxy: {on: ctl1}
  prometheus: {on: ctl1}
  alertmanager: {on: ctl1}
  node_exporter: {on: ctl1}
  mysqld_exporter: {on: ctl1}
  signs_exporter: {on: ctl1}
";

const LOGS: &str = "
site: logs
ssh: {user: root, identity: key, known_hosts: known_hosts}
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
  ctl3: {address: 10.77.0.13, groups: [control]}
services:
  elasticsearch: {on: control}
  rsyslog: {on: control}
";

fn load(site: &str) -> Model {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("site.yaml");
    fs::write(&path, site).expect("the site file");
    Model::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every resource of a host, files with their content.
fn rendered(model: &Model, host: &str) -> String {
    let host: HostName = host.parse().expect("a host name");
    let mut text = String::new();
    for service in model.services_on(&host) {
        for entry in model.rendered(service, &host) {
            let _ = writeln!(
                text,
                "## {service} {:?} {}",
                entry.phase,
                entry.resource.id()
            );
            match &entry.resource {
                Resource::File {
                    content,
                    mode,
                    owner,
                    group,
                    ..
                } => {
                    let _ = writeln!(text, "{mode} {owner}:{group}\n{content}");
                }
                Resource::Package { .. } => {}
                other => {
                    let _ = writeln!(text, "{}", serde_json::to_string(other).expect("JSON"));
                }
            }
        }
    }
    text
}

#[test]
fn three_hosts_get_clusters() {
    insta::assert_snapshot!("three_hosts_ctl2", rendered(&load(THREE), "ctl2"));
}

#[test]
fn one_host_gets_single_instances() {
    insta::assert_snapshot!("one_host", rendered(&load(ONE), "ctl1"));
}

#[test]
fn log_lines_go_to_all_nodes() {
    insta::assert_snapshot!("logs_ctl2", rendered(&load(LOGS), "ctl2"));
}

/// What is not wanted with these settings is not there, and what is there instead is.
#[test]
fn elasticsearch_comes_from_an_archive_or_from_a_package() {
    let ids = |settings: &str| -> Vec<String> {
        let wanted = format!("elasticsearch: {{on: control, settings: {{{settings}}}}}");
        let model = load(&LOGS.replace("elasticsearch: {on: control}", &wanted));
        let host: HostName = "ctl1".parse().expect("a host name");
        let rendered = model.rendered(&"elasticsearch".parse().expect("a name"), &host);
        rendered.iter().map(|entry| entry.resource.id().0).collect()
    };
    let has = |ids: &[String], id: &str| ids.iter().any(|found| found == id);
    let archive = ids("memory_maps: false");
    assert!(has(&archive, "archive:/opt/elasticsearch"), "{archive:?}");
    assert!(has(&archive, "package:libarchive-tools"), "{archive:?}");
    assert!(
        !archive.iter().any(|id| id.starts_with("sysctl:")),
        "{archive:?}"
    );
    let package = ids("source: package, flavour: elasticsearch, package: elasticsearch-oss");
    assert!(has(&package, "package:elasticsearch-oss"), "{package:?}");
    assert!(has(&package, "sysctl:vm.max_map_count"), "{package:?}");
    assert!(
        has(&package, "file:/etc/elasticsearch/elasticsearch.yml"),
        "{package:?}"
    );
    assert!(
        !package.iter().any(|id| id.starts_with("archive:")),
        "{package:?}"
    );
}

/// Several bots share a store; whichever leads must hear.
#[test]
fn alerts_go_to_the_webhook_of_every_bot() {
    let urls = "http://10.77.0.1:9190/v1/alertmanager http://10.77.0.2:9190/v1/alertmanager";
    let site = ONE.replace(
        "alertmanager: {on: ctl1}",
        &format!("alertmanager: {{on: ctl1, settings: {{webhook_url: '{urls}'}}}}"),
    );
    let text = rendered(&load(&site), "ctl1");
    for url in urls.split(' ') {
        assert!(
            text.contains(&format!("\n  - url: {url}\n    send_resolved: true\n")),
            "{text}"
        );
    }
    let tokens = text.matches("credentials_file: /etc/prometheus/alertmanager-webhook-token");
    assert_eq!(tokens.count(), 2);
}

#[test]
fn services_name_only_conditions_and_logics_that_exist() {
    let models = [load(THREE), load(LOGS)];
    for (name, deployment) in models.iter().flat_map(|model| &model.services) {
        let spec = &deployment.spec;
        for wanted in spec.health.iter().chain(&spec.rollout.before_stop) {
            assert!(
                condition::find(wanted).is_some(),
                "{name} names the condition {wanted}"
            );
        }
        let wanted = spec.rollout.logic.as_deref();
        assert!(
            logic::find(wanted).is_some(),
            "{name} names the logic {wanted:?}"
        );
        assert!(spec.health.is_some(), "{name} has no health");
    }
}

/// Packages that stay.
const SHARED: [&str; 5] = [
    "rsync",
    "socat",
    "default-jre-headless",
    "libarchive-tools",
    "logrotate",
];

/// Removal without a trace: whatever a member gets, a removal takes back.
#[test]
fn removal_covers_every_file_unit_and_package() {
    let host: HostName = "ctl1".parse().expect("a host name");
    let models = [load(THREE), load(LOGS)];
    let services = models
        .iter()
        .flat_map(|model| model.services_on(&host).map(move |name| (model, name)));
    for (model, service) in services {
        let member = model.member(service, &host).expect("a member");
        let removed: Vec<String> = member
            .removal
            .iter()
            .map(|resource| resource.id().0)
            .collect();
        let parents = |path: &str| {
            removed.iter().any(|id| {
                id.strip_prefix("directory:")
                    .is_some_and(|dir| path.starts_with(dir))
            })
        };
        for entry in &member.resources {
            let covered = match &entry.resource {
                Resource::File { path, .. } | Resource::Directory { path, .. } => {
                    removed.contains(&entry.resource.id().0) || parents(path)
                }
                Resource::Unit { .. } => removed.contains(&entry.resource.id().0),
                // Others may want these as well.
                Resource::Package { name, .. } if SHARED.contains(&name.as_str()) => true,
                Resource::Archive { path, .. } => removed.contains(&format!("directory:{path}")),
                Resource::Package { .. } => removed.contains(&entry.resource.id().0),
                _ => true,
            };
            assert!(covered, "{service} leaves {} behind", entry.resource.id());
        }
    }
}
