use std::collections::BTreeMap;

use collectors::{SourceName, Status};
use jiff::Timestamp;

use super::*;
use crate::{
    alerts::Destination,
    topology::{Deployed, FrontEnd},
};

fn topology() -> Topology {
    let host = |n: usize| -> HostName { format!("ctl{n}").parse().unwrap() };
    let deployed = || Deployed {
        members: vec![host(1), host(2)],
        settings: BTreeMap::new(),
    };
    let service = |name: &str| -> ServiceName { name.parse().unwrap() };
    Topology {
        site: "demo".into(),
        hosts: (1..=2)
            .map(|n| (host(n), format!("10.77.0.1{n}")))
            .collect(),
        services: ["mariadb", "haproxy", "keystone"]
            .map(|name| (service(name), deployed()))
            .into(),
        ports: [
            (3306, [service("mariadb")].into()),
            (5000, [service("keystone")].into()),
        ]
        .into(),
        front_ends: [(
            "keystone_external".to_owned(),
            FrontEnd {
                service: service("keystone"),
                port: Some(5000),
            },
        )]
        .into(),
        virtual_addresses: ["10.77.0.10".to_owned()].into(),
        units: [("mariadb.service".to_owned(), service("mariadb"))].into(),
        scrape_jobs: [("mysqld".to_owned(), service("mariadb"))].into(),
        ..Topology::default()
    }
}

fn alert(labels: &[(&str, &str)]) -> Alert {
    Alert {
        source: SourceName("am".into()),
        fingerprint: "0".into(),
        name: "X".into(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        annotations: BTreeMap::new(),
        status: Status::Firing,
        starts_at: Timestamp::UNIX_EPOCH,
        ends_at: None,
        generator_url: String::new(),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

fn by(target: Target, service_by: Option<ServiceBy>, labels: &[(&str, &str)]) -> Named {
    let mapping = Mapping {
        destination: Destination::Page(vec![]),
        target,
        service: None,
        service_by,
        when: BTreeMap::new(),
        set: "set".into(),
        file: "file".into(),
        layer: 0,
    };
    named(&mapping, &topology(), &alert(labels))
}

fn hosts(named: &Named) -> Vec<&str> {
    named.hosts.iter().map(HostName::as_str).collect()
}

#[rstest::rstest]
#[case(KnownTarget::None, &[("instance", "10.77.0.11:9100")], &[], 0)]
#[case(KnownTarget::Exporter, &[("instance", "10.77.0.11:9283"), ("host", "ctl1")], &[], 0)]
#[case(KnownTarget::Instance, &[("instance", "10.77.0.11:9100")], &["ctl1"], 0)]
#[case(KnownTarget::Instance, &[("instance", "10.77.0.11:9100"), ("host", "ctl2")], &["ctl1", "ctl2"], 0)]
#[case(KnownTarget::Instance, &[("instance", "ctl1;reboot")], &[], 1)]
#[case(KnownTarget::Hostname, &[("hostname", "ctl2"), ("instance", "10.77.0.11:9198")], &["ctl2"], 0)]
#[case(KnownTarget::Hostname, &[("exported_hostname", "ctl2"), ("hostname", "ctl1")], &["ctl2"], 0)]
#[case(KnownTarget::Hostname, &[("instance", "10.77.0.11:9198")], &[], 0)]
#[case(KnownTarget::AgentHost, &[("agent_host", "ctl1"), ("instance", "ctl2")], &["ctl1"], 0)]
#[case(KnownTarget::ElasticsearchNode, &[("name", "es-data-7"), ("host", "10.77.0.12")], &["ctl2"], 0)]
#[case(KnownTarget::ElasticsearchNode, &[("name", "es-data-7")], &[], 1)]
#[case(KnownTarget::ErlangNode, &[("rabbitmq_node", "rabbit@ctl2")], &["ctl2"], 0)]
#[case(KnownTarget::ErlangNode, &[("rabbitmq_node", "rabbit@$(reboot)")], &[], 1)]
#[case(KnownTarget::Url, &[("instance", "http://10.77.0.12:3306/x")], &["ctl2"], 0)]
#[case(KnownTarget::Url, &[("instance", "https://elsewhere.example:5000")], &[], 0)]
fn hosts_by_rule(
    #[case] rule: KnownTarget,
    #[case] labels: &[(&str, &str)],
    #[case] expected: &[&str],
    #[case] strangers: usize,
) {
    let named = by(Target::Known(rule), None, labels);
    assert_eq!(hosts(&named), expected);
    assert_eq!(named.strangers.len(), strangers, "{:?}", named.strangers);
}

#[test]
fn the_first_label_of_a_list_counts() {
    let labels = Target::Labels {
        labels: vec!["server".into(), "node".into()],
    };
    assert_eq!(
        hosts(&by(labels, None, &[("node", "ctl1"), ("server", "ctl2")])),
        ["ctl2"]
    );
}

#[rstest::rstest]
#[case(Some(ServiceBy::Job), &[("job", "mysqld")], Some("mariadb"))]
#[case(Some(ServiceBy::Job), &[("job", "node")], None)]
#[case(Some(ServiceBy::Proxy), &[("proxy", "keystone_external")], Some("keystone"))]
#[case(Some(ServiceBy::Proxy), &[("backend", "mariadb")], Some("mariadb"))]
#[case(Some(ServiceBy::Proxy), &[("proxy", "x;reboot")], None)]
#[case(Some(ServiceBy::Unit), &[("name", "mariadb.service")], Some("mariadb"))]
#[case(None, &[], None)]
fn services_by_label(
    #[case] rule: Option<ServiceBy>,
    #[case] labels: &[(&str, &str)],
    #[case] expected: Option<&str>,
) {
    let named = by(Target::Absent, rule, labels);
    assert_eq!(named.service.as_ref().map(ServiceName::as_str), expected);
}

#[test]
fn a_probed_address_is_a_service_of_the_site() {
    let probed = |url: &str| {
        let named = by(Target::Known(KnownTarget::Url), None, &[("instance", url)]);
        named.service.map(|service| service.to_string())
    };
    assert_eq!(
        probed("http://10.77.0.10:5000/v3").as_deref(),
        Some("keystone")
    );
    assert_eq!(probed("10.77.0.11:3306").as_deref(), Some("mariadb"));
    assert_eq!(probed("http://10.77.0.10:5001"), None);
    assert_eq!(
        probed("http://user:pass@10.77.0.10:5000").as_deref(),
        Some("keystone")
    );
}
