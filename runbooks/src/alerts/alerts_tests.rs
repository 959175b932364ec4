use std::collections::BTreeSet;

use super::*;
use crate::library::Library;

/// `set<TAB>name`, as published.
const PUBLIC: &str = include_str!("../testdata/public-alerts.txt");

fn table() -> AlertTable {
    let library = Library::embedded().unwrap_or_else(|errors| panic!("{errors}"));
    library.alerts().clone()
}

fn public() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = PUBLIC.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').expect("a tab"))
}

fn labels(name: &str, value: &str) -> Labels {
    [(name.to_owned(), value.to_owned())].into()
}

fn by_check(table: &AlertTable, command: &str) -> Option<Mapping> {
    match table.lookup("My service", Some(&labels("check_command", command))) {
        Found::Mapped(mapping) => Some(mapping.into_owned()),
        Found::Depends(_) | Found::Unknown => None,
    }
}

#[test]
fn every_public_name_is_mapped_and_no_one_acts_on_a_guess() {
    let (table, library) = (table(), Library::embedded().unwrap());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut names, mut unknown) = (BTreeSet::new(), Vec::new());
    for (set, name) in public() {
        let rows = match (set, table.of_name(name)) {
            ("Icinga template library", _) => by_check(&table, name).into_iter().collect(),
            (_, Found::Mapped(mapping)) => vec![mapping.into_owned()],
            (_, Found::Depends(rows)) => rows.into_iter().cloned().collect(),
            (_, Found::Unknown) => vec![],
        };
        if rows.is_empty() {
            unknown.push(name);
        }
        if !names.insert(name) {
            continue;
        }
        let word = match &rows[..] {
            [one] => match &one.destination {
                Destination::Runbook(ids) if !ids.iter().any(|id| library.get(id).is_some()) => {
                    "runbook, not yet there: page"
                }
                Destination::Diagnosis(ids) if !ids.iter().any(|id| library.get(id).is_some()) => {
                    "diagnosis, not yet there: page"
                }
                other => other.word(),
            },
            _ => "by its labels",
        };
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    println!(
        "{} names of {} rules: {counts:?}",
        names.len(),
        public().count()
    );
    assert_eq!(
        unknown,
        Vec::<&str>::new(),
        "names that nothing is said about"
    );
    assert!(names.len() >= 600, "{}", names.len());
}

/// Metrics of exporters that tell of others: there `instance` must never be the target.
#[test]
fn the_exporter_is_never_taken_for_what_failed() {
    let table = table();
    let tells_of_others = |set: &str| {
        ["ceph", "openstack", "elasticsearch", "blackbox", "octavia"]
            .iter()
            .any(|word| set.to_lowercase().contains(word))
    };
    for row in table.rows.iter().filter(|row| tells_of_others(&row.set)) {
        let own = row.destination.ids().iter().all(|id| {
            // The node exporter's and the exporter's own metrics in the same files.
            ["HOST-", "MON-", "GAL-", "RMQ-"]
                .iter()
                .any(|start| id.0.starts_with(start))
        });
        assert!(
            !row.target.is_instance() || own,
            "{}: {:?}",
            row.set,
            row.destination
        );
    }
    let none = [
        "RabbitMQNodeDown",
        "LowMonitorQuorumCount",
        "CephOSDDown",
        "MysqlClusterDown",
    ];
    for name in none {
        let Found::Mapped(mapping) = table.of_name(name) else {
            // With and without labels; neither may take the exporter.
            continue;
        };
        assert!(!mapping.target.is_named(), "{name}: {}", mapping.target);
    }
}

#[test]
fn sets_that_share_a_name_agree_or_say_which_labels_decide() {
    let table = table();
    for (key, rows) in table.exact.values().flatten() {
        let plain: Vec<&Mapping> = rows
            .iter()
            .map(|row| &table.rows[*row])
            .filter(|row| row.when.is_empty())
            .collect();
        if let Found::Depends(rows) = agreed(plain) {
            let all: Vec<_> = rows
                .iter()
                .map(|row| (&row.set, &row.destination))
                .collect();
            panic!("{key}: {all:?}");
        }
    }
}

#[test]
fn every_file_of_the_folder_is_read_and_every_runbook_has_a_title() {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/alerts")).unwrap();
    let files: BTreeSet<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let read: BTreeSet<String> = table().rows.into_iter().map(|row| row.file).collect();
    assert_eq!(files, read);
    assert!(catalogue().len() > 60);
    for runbook in Library::embedded().unwrap().iter() {
        assert!(
            catalogue().contains_key(&runbook.runbook.0),
            "{}",
            runbook.runbook
        );
    }
}

/// A runbook that nothing makes look is dead.
#[test]
fn every_runbook_has_an_alert() {
    let library = Library::embedded().unwrap();
    for runbook in library.iter() {
        assert!(
            !library.alerts().names_of(runbook).is_empty(),
            "{}",
            runbook.runbook
        );
    }
}

#[rstest::rstest]
#[case("rabbitMQnodeDOWN")]
#[case("RabbitmqNodeDown")]
#[case("rabbitmq_node_down")]
#[case("RabbitmqNodeDown(>2)")]
fn spelling_does_not_matter(#[case] name: &str) {
    let table = table();
    let instance = labels("instance", "10.0.0.1:15692");
    let Found::Mapped(mapping) = table.lookup(name, Some(&instance)) else {
        panic!("{name}")
    };
    assert_eq!(mapping.destination.ids()[0].0, "RMQ-2");
    assert!(mapping.target.is_instance(), "our own rule is of one node");
    let Found::Mapped(mapping) = table.lookup(name, Some(&Labels::new())) else {
        panic!("{name}")
    };
    assert!(!mapping.target.is_named(), "the public one is an aggregate");
}

#[test]
fn a_label_decides_where_sets_differ() {
    let table = table();
    let job = |job: &str| match table.lookup("PrometheusJobMissing", Some(&labels("job", job))) {
        Found::Mapped(mapping) => mapping.destination.ids()[0].to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (job("ceph"), job("prometheus")),
        ("CEPH-8".into(), "MON-1".into())
    );
    assert!(matches!(
        table.of_name("PrometheusJobMissing"),
        Found::Depends(_)
    ));
}

fn own(text: &str) -> Result<Library, String> {
    let home = std::env::temp_dir().join(format!("alerts-{}-{}", std::process::id(), key(text)));
    std::fs::create_dir_all(home.join("alerts")).unwrap();
    std::fs::write(home.join("alerts/ours.yaml"), text).unwrap();
    let loaded = Library::load(std::slice::from_ref(&home)).map_err(|errors| errors.to_string());
    std::fs::remove_dir_all(&home).unwrap();
    loaded
}

#[test]
fn a_sites_own_rows_win_and_say_so() {
    let library = own(
        "alerts: ours\nsets:\n- set: our rules\n  map:\n  - {page: [], names: [MemcachedDown]}\n  - {runbook: [MEM-1], target: host, names: [CacheGone]}\n",
    )
    .unwrap();
    let table = library.alerts();
    let Found::Mapped(mapping) = table.of_name("memcached_down") else {
        panic!()
    };
    assert_eq!((mapping.destination.word(), mapping.layer), ("page", 1));
    assert!(
        table
            .overridden("MemcachedDown", 1)
            .contains(&"APA memcached")
    );
    assert!(matches!(table.of_name("CacheGone"), Found::Mapped(_)));
}

#[rstest::rstest]
#[case("{page: [], runbook: [MEM-1], names: [X]}", "exactly one of")]
#[case("{names: [X]}", "exactly one of")]
#[case("{runbook: [NOPE-1], names: [X]}", "there is no runbook NOPE-1")]
#[case("{runbook: [MEM-1], names: ['X*']}", "a beginning can only page")]
#[case("{page: [], names: []}", "at least one name")]
#[case("{page: [], names: [X, x]}", "mapped twice")]
#[case("{page: [], target: instnace, names: [X]}", "ours.yaml:5:")]
#[case("{page: [], alerts: [X]}", "ours.yaml:5:")]
fn wrong_rows_are_refused_with_their_place(#[case] row: &str, #[case] part: &str) {
    let text = format!("alerts: ours\nsets:\n- set: our rules\n  map:\n  - {row}\n");
    let said = own(&text).unwrap_err();
    assert!(
        said.contains(part) && said.contains("ours.yaml:5:"),
        "{said}"
    );
}
