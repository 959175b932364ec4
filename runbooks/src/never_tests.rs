//! Class N has no code path: not from the library, not from a runbook of a site, not from the services, not from the sources.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
};

use deploy_engine::{
    model::{Model, parse_document},
    wire::Resource,
};

use super::*;
use crate::{
    format::Runbook,
    library::{Library, check_document},
};

/// The acts of `RECOVERY` §1, class N, as somebody would write them.
const CLASS_N: &[&[&str]] = &[
    &["rabbitmqctl", "force_reset"],
    &["rabbitmqctl", "-q", "reset"],
    &["/usr/sbin/rabbitmqctl", "FORCE_RESET"],
    &["rabbitmq-reset-state"],
    &["rm", "-rf", "/var/lib/rabbitmq/mnesia"],
    &["rabbitmqctl", "eval", "mnesia:delete_schema([node()])."],
    &[
        "cp",
        "--recursive",
        "/root/empty",
        "/var/lib/rabbitmq/mnesia",
    ],
    &["galera_new_cluster"],
    &["mariadbd", "--wsrep-new-cluster"],
    &["mysqld_safe", "--wsrep_new_cluster"],
    &[
        "mariadb",
        "--execute",
        "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'",
    ],
    &[
        "mariadb",
        "--execute",
        "set global wsrep_provider_options='PC.BOOTSTRAP=1'",
    ],
    &["rm", "/var/lib/mysql/grastate.dat"],
    &["sed", "-i", "s/0/1/", "/var/lib/mysql/grastate.dat"],
    &["cp", "/dev/null", "/var/lib/mysql/galera.cache"],
    &["cp", "/dev/null", "/var/lib/mysql/gvwstate.dat"],
    &["cp", "/dev/null", "/var/lib/mysql/ibdata1"],
    &["find", "/var/lib/mysql", "-delete"],
    &["ceph", "osd", "lost", "3", "--yes-i-really-mean-it"],
    &["ceph", "osd", "purge", "3"],
    &["ceph", "osd", "destroy", "3"],
    &["ceph", "osd", "force-create-pg", "1.2"],
    &["ceph", "pg", "1.2", "mark_unfound_lost", "revert"],
    &["ceph-objectstore-tool", "--op", "remove"],
    &["ceph", "osd", "pool", "delete", "vms", "vms"],
    &["ceph-mon", "--inject-monmap", "/tmp/map"],
    &["ceph", "mon", "remove", "ctl1"],
    &["ceph", "osd", "rm", "3"],
    &["ceph", "osd", "crush", "remove", "osd.3"],
    &[
        "ceph-bluestore-tool",
        "repair",
        "--path",
        "/var/lib/ceph/osd/ceph-3",
    ],
    &["ceph-volume", "lvm", "zap", "/dev/sdb"],
    &["ceph", "auth", "del", "osd.3"],
    &["ceph", "crash", "archive-all"],
    &["ceph-mon", "--mkfs", "--id", "ctl1"],
    &[
        "ceph-monstore-tool",
        "/var/lib/ceph/mon/ceph-ctl1",
        "rebuild",
    ],
    &["ceph", "osd", "unset", "noout"],
    &["ceph", "osd", "pause"],
    &["ceph", "osd", "set", "pause"],
    &[
        "curl",
        "-XPOST",
        "es:9200/_cluster/reroute",
        "-d",
        "{\"allocate_stale_primary\": {}}",
    ],
    &[
        "curl",
        "-XPOST",
        "es:9200/_cluster/reroute",
        "-d",
        "{\"allocate_empty_primary\": {}}",
    ],
    &["curl", "-X", "DELETE", "es:9200/flog-*"],
    &["curl", "-X", "DELETE", "es:9200/_all"],
    &["nova", "host-evacuate", "cmp1"],
    &["openstack", "server", "evacuate", "vm"],
    &["nova", "service-force-down", "cmp1"],
    &[
        "mariadb",
        "--execute",
        "UPDATE nova.instances SET host='cmp2'",
    ],
    &["mysql", "-e", "delete from nova.instances"],
    &["neutron-ovs-cleanup"],
    &["neutron-netns-cleanup", "--force"],
    &["ip", "netns", "delete", "qrouter-1"],
    &["keystone-manage", "fernet_setup"],
    &["keystone-manage", "fernet_rotate"],
    &["rm", "-rf", "/var/log/fluentd/buffer"],
    &["cp", "-r", "/root/empty", "/var/lib/prometheus/wal"],
    &["docker", "system", "prune", "-af"],
    &["podman", "volume", "rm", "mariadb"],
    &["docker", "volume", "prune"],
    &["rm", "-rf", "/var/lib/mysql/*"],
    &["sh", "-c", "rabbitmqctl force_reset"],
    &["sudo", "rabbitmqctl", "force_reset"],
    &["timeout", "5", "rm", "x"],
];

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn refused(words: &[&str]) -> Option<String> {
    refusal(
        &argv(words),
        "memcached.down",
        ["unit.startable"].into_iter(),
    )
}

#[test]
fn every_act_of_class_n_is_refused() {
    for words in CLASS_N {
        assert!(refused(words).is_some(), "{words:?} could be run");
    }
    // And what repairs really need is not.
    for words in [
        &["systemctl", "start", "rabbitmq-server.service"][..],
        &["systemctl", "reset-failed", "memcached.service"],
        &["rabbitmqctl", "await_startup"],
        &["mariadb", "--execute", "SET GLOBAL wsrep_desync=OFF"],
        &["cp", "--archive", "/etc/hosts", "/etc/hosts.before"],
    ] {
        assert_eq!(refused(words), None, "{words:?}");
    }
}

/// A runbook of a site with a forbidden command, run or undo, does not load, and the error names the file and the line.
#[test]
fn a_runbook_of_a_site_with_such_an_act_does_not_load() {
    let memcached = include_str!("../library/MEM-1.yaml");
    let own = "run: [systemctl, start, memcached.service]";
    let line = 1 + memcached.lines().position(|one| one.contains(own)).unwrap();
    for words in CLASS_N {
        let list = serde_json::to_string(words).unwrap();
        for (text, line) in [
            (memcached.replace(own, &format!("run: {list}")), line),
            (
                memcached.replace(own, &format!("{own}\n    undo: {list}")),
                line + 1,
            ),
        ] {
            let document = parse_document::<Runbook>("ours.yaml", &text)
                .unwrap_or_else(|errors| panic!("{errors}"));
            let errors = check_document(&document).to_string();
            assert!(
                errors.contains(&format!("ours.yaml:{line}:")),
                "{words:?} on line {line}: {errors}"
            );
        }
    }
}

/// The guarded paths are open to their own decision behind their own guard alone.
#[test]
fn bootstrap_is_only_on_its_guarded_path() {
    let command = argv(&["galera_new_cluster"]);
    let allowed = |decide: &str, guard: &str| refusal(&command, decide, [guard].into_iter());
    assert_eq!(allowed("galera.cluster_crash", "galera.none_running"), None);
    assert!(allowed("galera.cluster_crash", "galera.startable").is_some());
    assert!(allowed("galera.node_down", "galera.none_running").is_some());
}

/// Every command of every recipe of the library, undos included.
#[test]
fn no_recipe_of_the_library_reaches_it() {
    let (mut commands, mut on_guarded_path) = (0, Vec::new());
    for runbook in Library::embedded().unwrap().iter() {
        for step in &runbook.steps {
            let guards: Vec<&str> = step
                .guard
                .iter()
                .chain(step.guards.iter().map(|guard| &guard.condition))
                .map(String::as_str)
                .collect();
            for command in step.run.iter().chain(&step.undo) {
                commands += 1;
                let why = refusal(command, &runbook.decide, guards.iter().copied());
                assert_eq!(why, None, "{}: {command:?}", runbook.runbook);
                if of_command(command).next().is_some() {
                    on_guarded_path.push(format!("{} {}", runbook.runbook, command[0]));
                }
            }
        }
    }
    assert!(commands >= 15, "{commands}");
    assert_eq!(
        on_guarded_path,
        [
            "GAL-4 mariadb",
            "GAL-5 cp",
            "GAL-5 sed",
            "GAL-5 galera_new_cluster"
        ]
    );
}

const SITE: &str = "
site: all
ssh: {user: root}
hosts:
  ctl1: {address: 10.77.0.11, groups: [control]}
  ctl2: {address: 10.77.0.12, groups: [control]}
  ctl3: {address: 10.77.0.13, groups: [control]}
services:
";

/// Every command that a service renders, on three hosts and on one. Files are data and units are started, stopped and
/// restarted; nothing else of a service runs anything.
#[test]
fn no_service_reaches_it() {
    let engine = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../deploy-engine");
    let mut names: Vec<String> = fs::read_dir(engine.join("services"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    for on in ["control", "ctl1"] {
        let model = model(&names, on);
        let mut resources = 0;
        for (service, deployment) in &model.services {
            for host in &deployment.members {
                for rendered in model.rendered(service, host) {
                    resources += 1;
                    if let Resource::Command { .. } = &rendered.resource {
                        let words = serde_json::to_string(&rendered.resource).unwrap();
                        let hit = of_command(std::slice::from_ref(&words)).next();
                        assert_eq!(hit, None, "{service} on {host}: {words}");
                    }
                }
            }
        }
        assert!(resources > 30, "{resources}");
    }
}

fn model(names: &[String], on: &str) -> Model {
    let mut site = SITE.to_owned();
    for name in names {
        let settings = match name.as_str() {
            "keepalived" => ", settings: {vip: 10.77.0.100/24}",
            "alertmanager" => ", settings: {webhook_url: 'http://10.77.0.1:8080/x'}",
            _ => "",
        };
        // Keepalived alone has nobody to share an address with.
        if name == "keepalived" && on != "control" {
            continue;
        }
        site += &format!("  {name}: {{on: {on}{settings}}}\n");
    }
    let folder =
        std::env::temp_dir().join(format!("nightshift-class-n-{}-{on}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("site.yaml");
    fs::write(&path, site).unwrap();
    Model::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Lines of the sources that may hold such words, and why: each only reads, refuses, or founds what never was.
const READ_ONLY: &[(&str, &str)] = &[
    ("runbooks/src/never.rs", "the table itself"),
    ("runbooks/library/GAL-4.yaml", "the guarded path"),
    ("runbooks/library/GAL-5.yaml", "the guarded path"),
    (
        "deploy-engine/src/logic/galera.rs",
        "founds a cluster that never was, behind galera.may_bootstrap",
    ),
    (
        "deploy-engine/src/probe/galera.rs",
        "reads state files and leftovers",
    ),
    (
        "deploy-engine/services/ceph/ceph-make-monitor.j2",
        "makes the first map of a cluster that never was, where there is no store of a monitor",
    ),
    (
        "deploy-engine/src/probe/rabbitmq.rs",
        "reads what the last members were",
    ),
    ("runbooks/src/decision/rabbitmq_views.rs", "refuses Khepri"),
    ("deploy-engine/src/condition/galera.rs", "refuses leftovers"),
    (
        "deploy-engine/src/condition/galera_start.rs",
        "reads state files",
    ),
];

/// Nothing else of the program has the words for it: every line of every source that is not a test.
#[test]
fn the_sources_have_no_words_for_it() {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in [
        "collectors/src",
        "deploy-engine/src",
        "deploy-engine/services",
        "runbooks/src",
        "runbooks/library",
        "bot/src",
    ] {
        walk(&root.join(folder), &mut files);
    }
    assert!(files.len() > 250, "{}", files.len());
    // Words that people may read in a text of the bot, for example "delete" and "from", are no command by themselves.
    let telling = |never: &&Never| {
        never.whose == Whose::Nobodys && ![ROWS, INDICES, EVACUATE].contains(&never.act)
    };
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        if READ_ONLY.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // Tests are at the end of a file, and are not in the program.
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in program.lines().enumerate() {
            let said = line.trim_start();
            if said.starts_with("//") || said.starts_with('#') {
                continue;
            }
            if let Some(never) = of_command(&[line.to_owned()]).find(telling) {
                found.push(format!("{name}:{}: {} in {line:?}", number + 1, never.act));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

fn walk(folder: &FilePath, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_test = name == "tests"
            || name.ends_with("tests.rs")
            || name == "testing.rs"
            || name == "captured"
            || name == "snapshots";
        if is_test {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else if ["rs", "yaml", "j2"]
            .iter()
            .any(|end| name.ends_with(&format!(".{end}")))
        {
            files.push(path);
        }
    }
}
