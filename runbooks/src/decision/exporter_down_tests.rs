use deploy_engine::probe::galera;
use serde_json::json;

use super::*;
use crate::{
    decision::testing::{Case, expect, host, obeys_the_laws, unit},
    topology::Deployed,
};

const UNIT: &str = "host.unit/x.service";

/// Three hosts with the exporter, silent on the last `down`; Prometheus is on the first two.
fn silent(service: &str, watches: &[&str], down: usize) -> Case {
    let mut case = Case::new("exporter.down", service, 3)
        .setting("confirm", json!(30))
        .setting("unit", json!("x.service"))
        .setting("watches", json!(watches))
        .setting("targets_percent", json!(10));
    deploy(&mut case, PROMETHEUS, &["h1", "h2"]);
    let answers = format!("{service}.answers");
    for n in 1..=3 {
        let name = format!("h{n}");
        let heard = match n <= 3 - down {
            true => Heard::Answers(Page { samples: 9 }),
            false => Heard::Silent {
                why: "connection refused".into(),
            },
        };
        case.set(&answers, &name, &heard);
    }
    case.set(UNIT, "h3", &unit("inactive"));
    for name in ["h1", "h2"] {
        targets(&mut case, name, 20, 1);
    }
    case
}

fn deploy(case: &mut Case, service: &str, members: &[&str]) {
    let deployed = Deployed {
        members: members.iter().map(|name| host(name)).collect(),
        ..Deployed::default()
    };
    let services = &mut case.topology.services;
    services.insert(service.parse().unwrap(), deployed);
}

fn targets(case: &mut Case, name: &str, count: usize, down: usize) {
    let down = (0..down).map(|n| format!("http://10.0.0.3:{n}/metrics"));
    let down = down.collect();
    case.set(PROMETHEUS_TARGETS, name, &Targets { count, down });
}

fn node() -> Case {
    silent("node_exporter", &[], 1)
}

/// The exporter of a database that answers.
fn mysqld() -> Case {
    let mut case = silent("mysqld_exporter", &["galera.synced"], 1);
    deploy(&mut case, "mariadb", &["h3"]);
    database(&mut case, true);
    case
}

fn database(case: &mut Case, answers: bool) {
    let status = match answers {
        true => galera::Status::Answering(galera::Server {
            version: "10.11.19".into(),
            uptime_seconds: 900,
            wsrep: None,
        }),
        false => galera::Status::NotAnswering {
            error: "refused".into(),
        },
    };
    case.set(galera::STATUS, "h3", &status);
}

#[test]
fn laws() {
    let act = node().act();
    assert_eq!(act.parameters["unit"], "x.service");
    assert_eq!(node().roles()["target"], ["h3"]);
    obeys_the_laws(&node(), &[]);
    assert_eq!(mysqld().roles()["target"], ["h3"]);
    obeys_the_laws(&mysqld(), &[]);
}

#[test]
fn one_that_hangs_is_restarted_too() {
    let mut case = node();
    case.set(UNIT, "h3", &unit("active"));
    assert_eq!(case.roles()["target"], ["h3"]);
    case.subjects = vec![host("h3")];
    assert_eq!(case.roles()["target"], ["h3"]);
}

#[test]
fn what_it_watches_and_all_targets_are_asked_at_once() {
    let mut case = mysqld();
    case.readings.by_probe.remove(PROMETHEUS_TARGETS);
    case.readings.by_probe.remove(galera::STATUS);
    let Verdict::More { asks, .. } = case.verdict() else {
        panic!("it has not been asked")
    };
    let asked: Vec<String> = asks
        .iter()
        .map(|ask| {
            format!(
                "{} {} {}",
                ask.probe,
                ask.host,
                ask.service.as_ref().unwrap()
            )
        })
        .collect();
    assert_eq!(
        asked,
        [
            "galera.status h3 mariadb",
            "prometheus.targets h1 prometheus",
            "prometheus.targets h2 prometheus"
        ]
    );
}

#[rstest::rstest]
#[case::all_answer(|c: &mut Case| *c = silent("node_exporter", &[], 0), "elsewhere", "the scrape side or the network")]
#[case::two(|c: &mut Case| *c = silent("node_exporter", &[], 2), "refuse", "h2, h3 do not answer")]
#[case::another_host(|c: &mut Case| c.subjects = vec![host("h1")], "refuse", "the alerts name h1")]
#[case::not_wanted(|c: &mut Case| c.edit(UNIT, "h3", "/enabled", json!("masked")), "refuse", "does not want it")]
#[case::not_there(|c: &mut Case| c.edit(UNIT, "h3", "/load", json!("not-found")), "refuse", "does not want it")]
#[case::starting(|c: &mut Case| c.edit(UNIT, "h3", "/active", json!("activating")), "hold", "activating")]
#[case::memory(|c: &mut Case| c.edit(UNIT, "h3", "/result", json!("oom-kill")), "refuse", "lack of memory")]
#[case::many_targets(|c: &mut Case| targets(c, "h2", 20, 3), "refuse", "3 of 20 targets do not answer Prometheus on h2")]
#[case::one_more_on_a_small_site(|c: &mut Case| targets(c, "h1", 8, 2), "refuse", "2 of 8 targets")]
#[case::no_prometheus(|c: &mut Case| drop(c.topology.services.remove(&PROMETHEUS.parse::<ServiceName>().unwrap())), "refuse", "not deployed on this site")]
#[case::odd_condition(|c: &mut Case| drop(c.settings.insert("watches".into(), json!(["galera.synct"]))), "refuse", "no condition galera.synct")]
#[case::not_deployed(|c: &mut Case| drop(c.settings.insert("watches".into(), json!(["galera.synced"]))), "refuse", "mariadb, which is not deployed")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = node();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn ten_percent_of_a_large_site_may_be_down() {
    let mut case = node();
    targets(&mut case, "h1", 30, 3);
    assert_eq!(case.roles()["target"], ["h3"]);
}

#[test]
fn a_database_that_is_down_has_a_runbook_of_its_own() {
    let mut case = mysqld();
    database(&mut case, false);
    expect(&case, "elsewhere", "mariadb on h3 is not well itself");
    case.lose(galera::STATUS, "h3");
    expect(&case, "refuse", "whether mariadb on h3 is well is unknown");
}
