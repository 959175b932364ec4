use super::*;
use crate::topology::Deployed;

fn site() -> Topology {
    let hosts: Vec<HostName> = (1..=3)
        .map(|n| format!("ctl{n}").parse().unwrap())
        .collect();
    let deployed = Deployed {
        members: hosts.clone(),
        settings: BTreeMap::new(),
    };
    Topology {
        site: "demo".into(),
        hosts: hosts
            .iter()
            .enumerate()
            .map(|(n, host)| (host.clone(), format!("10.0.0.{n}")))
            .collect(),
        services: [("mariadb".parse().unwrap(), deployed)].into(),
        ..Topology::default()
    }
}

fn seen(name: &str, labels: Option<&[(&str, &str)]>) -> Seen {
    let owned = |labels: &[(&str, &str)]| {
        labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    Seen {
        name: name.to_owned(),
        labels: labels.map(owned),
    }
}

#[test]
fn with_and_without_a_site() {
    let library = Library::embedded().unwrap();
    let all = [
        seen("MySQLDown", Some(&[("instance", "10.0.0.1:9104")])),
        seen("MySQLDown", None),
        seen("MySQLDown", None),
        seen("NodeCPUHighUsage", None),
        seen("Watchdog", None),
        seen("HostDown", Some(&[("host", "ctl3")])),
        seen("OpenStackServiceDown", None),
        seen("SomethingNew", Some(&[("instance", "ctl1:1")])),
    ];
    let report = explain(&library, Some(&site()), &all);
    let of = |outcome: Outcome| report.counts.get(&outcome).copied().unwrap_or_default();
    assert_eq!(
        Outcome::ALL.map(of),
        [1, 0, 1, 1, 1, 1, 1],
        "{:?}",
        report.counts
    );
    let line = |name: &str, labelled: bool| {
        let found = |line: &&Line| line.name == name && line.here.is_some() == labelled;
        report.lines.iter().find(found).unwrap()
    };
    let galera = line("MySQLDown", true);
    assert_eq!(
        galera.here.as_deref(),
        Some("GAL-1, GAL-5 looks at mariadb")
    );
    assert_eq!(galera.hosts, ["ctl2".parse().unwrap()].into());
    assert_eq!((line("MySQLDown", false).count, report.by_instance), (2, 2));
    let unknown = line("SomethingNew", true);
    assert!(unknown.hosts.is_empty(), "a candidate is for people");
    assert!(
        unknown
            .here
            .as_ref()
            .unwrap()
            .contains("its labels name ctl1"),
        "{unknown:?}"
    );
    let alone = explain(&library, None, &all);
    assert!(
        alone
            .lines
            .iter()
            .all(|line| line.here.is_none() && line.hosts.is_empty())
    );
    assert_eq!(alone.counts, report.counts);
}

#[test]
fn a_folder_is_read_whole_and_says_what_it_could_not() {
    let home = std::env::temp_dir().join(format!("explain-{}", std::process::id()));
    std::fs::create_dir_all(home.join("deep/er")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
    write(
        "deep/er/a.rules",
        "groups:\n- rules: [{alert: MemcachedDown, expr: up}]\n",
    );
    write("b.json", r#"[{"labels": {"alertname": "Watchdog"}}]"#);
    write("c.libsonnet", "{}");
    write("d.yaml", "{% raw %}");
    write("readme.md", "no rule");
    let read = files(&home);
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(
        (read.files, read.passed_over, read.errors.len()),
        (2, 1, 2),
        "{:?}",
        read.errors
    );
    let names: Vec<&str> = read.seen.iter().map(|seen| seen.name.as_str()).collect();
    assert_eq!(names, ["Watchdog", "MemcachedDown"]);
    assert!(
        files(std::path::Path::new("/nowhere")).errors[0]
            .why
            .contains("No such file")
    );
}

/// Files that the table was not made from: names of operators, other spellings, wrong files among them.
#[test]
fn files_never_seen_before() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/testdata/unseen");
    let read = files(std::path::Path::new(folder));
    let failed: Vec<_> = read
        .errors
        .iter()
        .map(|error| (&error.file, &error.why))
        .collect();
    assert_eq!(
        failed.len(),
        3,
        "a chart, a half file and a generator: {failed:?}"
    );
    let library = Library::embedded().unwrap();
    let report = explain(&library, Some(&site()), &read.seen);
    println!("{:?}, {} by instance", report.counts, report.by_instance);
    let unknown: Vec<&str> = report
        .lines
        .iter()
        .filter(|line| line.outcome == Outcome::Unknown)
        .map(|line| line.name.as_str())
        .collect();
    assert_eq!(
        unknown,
        [
            "CephHealthCritical",
            "CephMonOutOfQuorum",
            "CephOSDHighLatency",
            "ElasticsearchClusterHealthStatusRed",
            "GaleraClusterDegraded",
            "GaleraClusterSizeDecreased",
            "GaleraClusterUnhealthy",
            "KeystoneTokenSlow",
            "OpenstackApiDown",
            "OpenstackApiFlapping",
            "RabbitMQQueueBacklog",
            "SomethingOfOurs",
            "own",
        ]
    );
    for line in &report.lines {
        let looks = line
            .here
            .as_ref()
            .is_some_and(|here| here.contains("looks at"));
        let may = matches!(
            line.outcome,
            Outcome::Mapped | Outcome::Diagnosis | Outcome::Depends
        );
        assert!(!looks || may, "{line:?}");
        assert!(
            line.hosts.is_empty() || line.outcome != Outcome::Unknown,
            "{line:?}"
        );
    }
    let mapped = |name: &str| {
        report
            .lines
            .iter()
            .any(|line| line.name == name && line.outcome == Outcome::Mapped)
    };
    for name in [
        "GALERA_NODE_NOT_SYNCED",
        "RabbitMQ-Cluster-Partition",
        "MySQLDown",
        "database",
    ] {
        assert!(mapped(name), "{name}");
    }
}
