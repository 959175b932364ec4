use std::fmt::Write;

use super::*;
use crate::{decision::testing::host, library::Library, topology::Deployed};

fn topology() -> Topology {
    let hosts: Vec<HostName> = ["ctl1", "ctl2", "ctl3"].map(host).into();
    let services = [
        "rabbitmq",
        "mariadb",
        "memcached",
        "haproxy",
        "keepalived",
        "ceph",
    ];
    let deployed = Deployed {
        members: hosts.clone(),
        settings: BTreeMap::new(),
    };
    Topology {
        site: "test".into(),
        hosts: hosts
            .iter()
            .enumerate()
            .map(|(n, host)| (host.clone(), format!("10.0.0.{n}")))
            .collect(),
        services: services
            .map(|name| (name.parse().unwrap(), deployed.clone()))
            .into(),
        ..Topology::default()
    }
}

fn act(roles: &[(&str, &[&str])], parameters: &[(&str, &str)]) -> Act {
    Act {
        roles: roles
            .iter()
            .map(|(name, hosts)| {
                (
                    (*name).to_owned(),
                    hosts.iter().map(|name| host(name)).collect(),
                )
            })
            .collect(),
        parameters: parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        why: String::new(),
    }
}

fn compiled(id: &str, act: &Act) -> Result<Compiled, CompileError> {
    let library = Library::embedded().unwrap();
    compile(
        library
            .iter()
            .find(|runbook| runbook.runbook.0 == id)
            .unwrap(),
        act,
        &topology(),
    )
}

/// One line a step: number, needs, what, guards.
fn shown(compiled: &Compiled) -> String {
    let mut text = String::new();
    for step in &compiled.steps {
        let needs: Vec<String> = step.needs.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "{} after [{}], {:?}, {}: {}",
            step.id,
            needs.join(" "),
            step.effect,
            step.timeout,
            step.title
        );
        let call = |call: &ConditionCall| {
            let settings: Vec<String> = call
                .settings
                .iter()
                .map(|(key, value)| format!(" {key}={value}"))
                .collect();
            format!(
                "{} of {} on {}{}",
                call.name,
                call.service,
                listed(&call.hosts),
                settings.concat()
            )
        };
        match &step.action {
            Action::Host {
                work: Work::Run { command },
                ..
            } => {
                let _ = writeln!(text, "    run {:?}", command.argv);
            }
            Action::Check { condition, mode } => {
                let _ = writeln!(text, "    check {} {mode:?}", call(condition));
            }
            Action::Snapshot { asks } => {
                let asks: Vec<String> = asks
                    .iter()
                    .map(|ask| format!("{}@{}", ask.probe, ask.host))
                    .collect();
                let _ = writeln!(text, "    ask {}", asks.join(" "));
            }
            other => {
                let _ = writeln!(text, "    {other:?}");
            }
        }
        for guard in &step.guards {
            let _ = writeln!(text, "    guard {}", call(guard));
        }
        if let Some(unless) = &step.unless {
            let _ = writeln!(text, "    unless {}", call(unless));
        }
        if let Some(Action::Host {
            work: Work::Run { command },
            ..
        }) = &step.undo
        {
            let _ = writeln!(text, "    undo {:?}", command.argv);
        }
    }
    text
}

#[rstest::rstest]
#[case::rmq_1("RMQ-1", &[("losers", &["ctl3"][..]), ("winners", &["ctl1", "ctl2"])], &[])]
#[case::rmq_2("RMQ-2", &[("down", &["ctl3"][..]), ("running", &["ctl1", "ctl2"])], &[])]
#[case::gal_1("GAL-1", &[("down", &["ctl3"][..]), ("synced", &["ctl1", "ctl2"])], &[])]
#[case::gal_4("GAL-4", &[("chosen", &["ctl2"][..]), ("others", &["ctl1"]), ("stopped", &["ctl3"])], &[])]
#[case::gal_5("GAL-5", &[("chosen", &["ctl2"][..]), ("others", &["ctl1", "ctl3"])], &[])]
#[case::gal_5_together("GAL-5", &[("together", &["ctl1", "ctl2", "ctl3"][..])], &[])]
#[case::mem_1("MEM-1", &[("down", &["ctl3"][..])], &[])]
#[case::lb_2("LB-2", &[("balancers", &["ctl2"][..]), ("first", &["ctl1"]), ("others", &["ctl2", "ctl3"])], &[])]
#[case::lb_2_plain("LB-2", &[("first", &["ctl1"][..])], &[])]
#[case::lb_4("LB-4", &[("down", &["ctl3"][..])], &[])]
#[case::ceph_1("CEPH-1", &[("down", &["ctl3"][..])], &[("osd", "2"), ("unit", "ceph-osd@2.service")])]
#[case::ceph_6("CEPH-6", &[("down", &["ctl3"][..])], &[("unit", "ceph-mon@ctl3.service")])]
#[case::ceph_8("CEPH-8", &[("down", &["ctl3"][..])], &[("unit", "ceph-mgr@ctl3.service")])]
#[case::ceph_3("CEPH-3", &[("slow", &["ctl3"][..])], &[("osd", "2"), ("unit", "ceph-osd@2.service")])]
#[case::ceph_9("CEPH-9", &[("bad", &["ctl3"][..])], &[("group", "2.3")])]
#[case::ceph_11("CEPH-11", &[("reporter", &["ctl1"][..])], &[("crash", "2026-11-26T05:10:08.076744Z_1f4a7f0c-7d39-4d0a-9a5a-1e52a8c3a111")])]
#[case::host_7("HOST-7", &[("target", &["ctl3"][..])], &[("unit", "chrony.service")])]
fn jobs(#[case] id: &str, #[case] roles: &[(&str, &[&str])], #[case] parameters: &[(&str, &str)]) {
    let compiled = compiled(id, &act(roles, parameters)).unwrap();
    assert!(facts::ends_with_proof(&compiled.steps));
    assert_eq!(facts::unguarded(&compiled.steps), Vec::<String>::new());
    assert_eq!(facts::first_snapshot(&compiled.steps), Some(0));
    let named: BTreeSet<HostName> = roles
        .iter()
        .flat_map(|(_, hosts)| hosts.iter().map(|name| host(name)))
        .collect();
    assert!(
        compiled.hosts.is_subset(&named),
        "steps act only on hosts that the decision named"
    );
    let name = roles
        .iter()
        .map(|(role, _)| *role)
        .collect::<Vec<_>>()
        .join("-");
    insta::assert_snapshot!(format!("{id}-{name}"), shown(&compiled));
}

#[test]
fn what_is_missing_is_an_error() {
    let error = |id, roles, parameters| {
        compiled(id, &act(roles, parameters))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error("HOST-7", &[("target", &["ctl3"])], &[]),
        "HOST-7: the decision gives no unit"
    );
    assert_eq!(
        error("MEM-1", &[("down", &["gone"])], &[]),
        "MEM-1: unit.startable: gone is not a member of memcached"
    );
    assert_eq!(
        error("RMQ-1", &[("winners", &["ctl1"])], &[]),
        "RMQ-1: the decision gives no hosts for losers"
    );
    assert_eq!(error("GAL-5", &[], &[]), "GAL-5: no step acts on any host");
    let library = Library::embedded().unwrap();
    let mut bare = topology();
    bare.services.clear();
    let runbook = library
        .iter()
        .find(|runbook| runbook.runbook.0 == "MEM-1")
        .unwrap();
    let error = compile(runbook, &act(&[("down", &["ctl1"])], &[]), &bare)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "MEM-1: memcached is not deployed on test");
}
