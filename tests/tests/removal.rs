//! Every service of the demo's site is taken off its host again, one after another, and leaves nothing. Needs root on Debian and
//! fails without it.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail

use lab::scenario::{Bot, Changes, Installation, Program, install, rewrite_site, with_packages};
use lab::{Lab, Progress, in_layered_lab};
use serde_json::json;

/// What must be gone: packages, paths, and a port that nobody may hold.
struct Trace {
    service: &'static str,
    unit: &'static str,
    packages: &'static [&'static str],
    paths: &'static [&'static str],
    port: &'static str,
}

/// In an order in which nothing needs what is removed.
const TRACES: [Trace; 11] = [
    Trace {
        service: "icinga2",
        unit: "icinga2.service",
        packages: &[
            "icinga2",
            "icinga2-common",
            "icinga2-bin",
            "monitoring-plugins-basic",
        ],
        paths: &[
            "/etc/icinga2",
            "/var/lib/icinga2",
            "/var/log/icinga2",
            "/var/cache/icinga2",
        ],
        port: "5665",
    },
    Trace {
        service: "keepalived",
        unit: "keepalived.service",
        packages: &["keepalived"],
        paths: &["/etc/keepalived"],
        port: "",
    },
    Trace {
        service: "haproxy",
        unit: "haproxy.service",
        packages: &["haproxy"],
        paths: &["/etc/haproxy", "/var/lib/haproxy"],
        port: "61313",
    },
    Trace {
        service: "mysqld_exporter",
        unit: "prometheus-mysqld-exporter.service",
        packages: &["prometheus-mysqld-exporter"],
        paths: &["/etc/default/prometheus-mysqld-exporter"],
        port: "9104",
    },
    Trace {
        service: "alertmanager",
        unit: "prometheus-alertmanager.service",
        packages: &["prometheus-alertmanager"],
        paths: &[
            "/etc/prometheus/alertmanager.yml",
            "/etc/prometheus/alertmanager-webhook-token",
        ],
        port: "9093",
    },
    Trace {
        service: "prometheus",
        unit: "prometheus.service",
        packages: &["prometheus"],
        paths: &[
            "/etc/prometheus/prometheus.yml",
            "/etc/prometheus/nightshift.rules.yml",
        ],
        port: "9090",
    },
    Trace {
        service: "signs_exporter",
        unit: "nightshift-signs.service",
        packages: &[],
        paths: &[
            "/etc/systemd/system/nightshift-signs.service",
            "/etc/nightshift",
        ],
        port: "9808",
    },
    Trace {
        service: "node_exporter",
        unit: "prometheus-node-exporter.service",
        packages: &["prometheus-node-exporter"],
        paths: &["/etc/default/prometheus-node-exporter"],
        port: "9100",
    },
    Trace {
        service: "memcached",
        unit: "memcached.service",
        packages: &["memcached"],
        paths: &["/etc/memcached.conf"],
        port: "11211",
    },
    Trace {
        service: "rabbitmq",
        unit: "rabbitmq-server.service",
        packages: &["rabbitmq-server"],
        paths: &["/etc/rabbitmq", "/var/lib/rabbitmq"],
        port: "5672",
    },
    Trace {
        service: "mariadb",
        unit: "mariadb.service",
        packages: &["mariadb-server", "mariadb-common"],
        paths: &["/etc/mysql", "/var/lib/mysql"],
        port: "3306",
    },
];

#[test]
fn every_service_can_be_removed_without_a_trace() {
    let layer = with_packages(&Progress::to_stderr()).unwrap();
    in_layered_lab("removal", 1, Some(&layer), |lab| {
        let program = Program::build(false).unwrap();
        let folder = lab.folder().join("removal");
        let installation = install(lab, program, &folder, &site_from(0)).unwrap();
        installation.deploy_alone("site").unwrap();
        for (number, trace) in TRACES.iter().enumerate() {
            assert!(
                holder(lab, trace).is_some(),
                "{}: nothing listens",
                trace.service
            );
            // What was removed is taken out of the site's file, as a person would.
            rewrite_site(&installation, &site_from(number)).unwrap();
            let bot = Bot::start(&installation).unwrap();
            if trace.service == "keepalived" {
                let needed = installation.cli(&["remove", "haproxy"]).unwrap().output();
                assert!(
                    !needed.unwrap().status.success(),
                    "keepalived needs haproxy"
                );
            }
            remove(&installation, trace.service);
            gone(lab, trace);
            bot.stop().unwrap();
        }
    });
}

/// The demo's site from that trace on, watched by nobody and healed by nobody.
fn site_from(number: usize) -> Changes {
    let services = TRACES[number..]
        .iter()
        .map(|trace| trace.service.to_owned());
    let config = [
        ("automation", json!({"default": "shadow"})),
        // An empty list: the source is not added for the service that goes first.
        ("sources", json!({"icinga2": []})),
    ];
    Changes {
        services: services.collect(),
        config: config.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Changes::default()
    }
}

fn remove(installation: &Installation, service: &str) {
    let answer = installation.ask(&["remove", service]).unwrap();
    let approval = answer["data"]["approval"].as_str();
    let approval = approval.unwrap_or_else(|| panic!("no plan to remove {service}: {answer}"));
    installation.output(&["approve", approval]).unwrap();
    let again = installation.ask(&["remove", service]).unwrap();
    assert_eq!(again["data"]["steps"], json!([]), "{service}: {again}");
}

/// The line about who listens on the port; of a service without one, anything.
fn holder(lab: &Lab, trace: &Trace) -> Option<String> {
    if trace.port.is_empty() {
        return Some(String::new());
    }
    let filter = format!("sport = :{}", trace.port);
    let listening = lab.ssh_ok("ctl1", &["ss", "-Hltnp", &filter]).unwrap();
    listening.lines().next().map(ToOwned::to_owned)
}

fn gone(lab: &Lab, trace: &Trace) {
    let service = trace.service;
    for path in trace.paths {
        let there = lab.ssh("ctl1", &["test", "-e", path]).unwrap();
        assert!(!there.status.success(), "{service}: {path} is still there");
    }
    for package in trace.packages {
        let status = ["dpkg-query", "-W", "-f=${db:Status-Abbrev}", package];
        let known = lab.ssh("ctl1", &status).unwrap().stdout;
        // `un`: only another package mentions it.
        assert!(
            matches!(known.trim(), "" | "un"),
            "{service}: {package} is {known}"
        );
    }
    let load = [
        "systemctl",
        "show",
        "--property=LoadState",
        "--value",
        trace.unit,
    ];
    let load = lab.ssh_ok("ctl1", &load).unwrap();
    assert_eq!(load.trim(), "not-found", "{service}: {}", trace.unit);
    if !trace.port.is_empty() {
        assert_eq!(holder(lab, trace), None, "{service}: port {}", trace.port);
    }
}
