use deploy_engine::probe::chrony::Source;
use jiff::SignedDuration;

use super::*;
use crate::{
    decision::testing::{Case, expect, host, units},
    topology::Deployed,
};

/// Three hosts; chrony of h2 follows nobody, the others are well.
fn adrift() -> Case {
    let mut case = Case::new("host.clock", "host", 3);
    case.subjects = vec![host("h2")];
    for name in ["h1", "h2", "h3"] {
        clock(&mut case, name, 0.01);
        tracks(&mut case, name, name != "h2", 0.001);
    }
    sources(&mut case, &[true, true, false]);
    let chrony = units(&[("chrony.service", "active"), ("ssh.service", "active")]);
    case.set(UNITS, "h2", &chrony);
    case
}

fn clock(case: &mut Case, name: &str, ahead_seconds: f64) {
    let ahead = SignedDuration::from_micros((ahead_seconds * 1e6) as i64);
    let micros = (case.now + ahead).as_microsecond();
    case.set(CLOCK, name, &micros);
}

fn tracks(case: &mut Case, name: &str, synchronised: bool, ahead_seconds: f64) {
    let tracking = Tracking {
        synchronised,
        ahead_seconds,
    };
    case.set(TRACKING, name, &Heard::Answers(tracking));
}

fn sources(case: &mut Case, reachable: &[bool]) {
    let source = |(n, reachable): (usize, &bool)| Source {
        address: format!("10.0.1.{n}"),
        reachable: *reachable,
        selected: false,
    };
    let sources = reachable.iter().enumerate().map(source).collect();
    case.set(SOURCES, "h2", &Heard::Answers(Sources { sources }));
}

fn stopped(case: &mut Case) {
    let silent: Heard<Tracking> = Heard::Silent {
        why: "506 Cannot talk to daemon".into(),
    };
    case.set(TRACKING, "h2", &silent);
    case.set(SOURCES, "h2", &silent);
    case.set(UNITS, "h2", &units(&[("chrony.service", "inactive")]));
}

fn database(case: &mut Case) {
    let deployed = Deployed {
        members: vec![host("h2")],
        ..Deployed::default()
    };
    let services = &mut case.topology.services;
    services.insert("mariadb".parse().unwrap(), deployed);
}

fn told(case: &Case) -> String {
    match case.verdict() {
        Verdict::Page { why, evidence } => format!("{why}\n{}", evidence.join("\n")),
        other => panic!("{other:?}"),
    }
}

#[rstest::rstest]
#[case::follows_nobody(|_: &mut Case| (), &["chrony of h2 runs and follows no source", "2 of 3 sources answer; silent: 10.0.1.2",
    "on h2 chrony.service is active and enabled", "differ by at most 3 s", "may be restarted and will slew"])]
#[case::stopped(stopped, &["chrony of h2 does not run", "chrony.service is inactive", "not known while chrony is down", "may be restarted"])]
#[case::off(|c: &mut Case| tracks(c, "h2", true, -0.25), &["0.250 s behind its sources", "none of 2 other hosts is off the same way"])]
#[case::off_alone(|c: &mut Case| { tracks(c, "h2", true, -0.25); tracks(c, "h3", true, 0.3) }, &["it is behind, and none of 2"])]
#[case::off_together(|c: &mut Case| { tracks(c, "h2", true, -0.25); tracks(c, "h3", true, -0.3) }, &["so are 1 of 2 other hosts: h3", "leave the daemons alone"])]
#[case::far_off(|c: &mut Case| { stopped(c); clock(c, "h2", -7.0) }, &["7.0 s behind the bot's", "if nothing on the host keeps state"])]
#[case::far_off_together(|c: &mut Case| { stopped(c); clock(c, "h2", -7.0); c.lose(TRACKING, "h1"); clock(c, "h1", -6.0) }, &["it is behind, and so are 1 of 2 other hosts: h1", "leave the daemons alone"])]
#[case::far_off_with_a_database(|c: &mut Case| { stopped(c); clock(c, "h2", 7.0); database(c) }, &["7.0 s ahead of the bot's", "leave its daemon alone", "never `makestep` here: mariadb"])]
#[case::one_source(|c: &mut Case| sources(c, &[true, false]), &["1 of 2 sources answer", "fewer than two sources answer"])]
#[case::no_chrony(|c: &mut Case| { c.lose(TRACKING, "h2"); c.lose(SOURCES, "h2"); c.set(UNITS, "h2", &units(&[("systemd-timesyncd.service", "failed")])) }, &["what keeps the clock of h2 is not known", "systemd-timesyncd.service is failed"])]
#[case::nothing_keeps_it(|c: &mut Case| { c.lose(TRACKING, "h2"); c.lose(SOURCES, "h2"); c.set(UNITS, "h2", &units(&[("ssh.service", "active")])) }, &["no daemon that keeps its clock"])]
#[case::another_is_not_known(|c: &mut Case| { c.lose(TRACKING, "h1"); c.lose(CLOCK, "h1") }, &["not known of h1"])]
#[case::not_known(|c: &mut Case| { stopped(c); c.lose(CLOCK, "h2") }, &["could not be read", "how far it is off is not known"])]
fn what_is_found_is_told(#[case] change: fn(&mut Case), #[case] parts: &[&str]) {
    let mut case = adrift();
    change(&mut case);
    let told = told(&case);
    for part in parts {
        assert!(told.contains(part), "expected {part:?} in\n{told}");
    }
}

#[rstest::rstest]
#[case::well(|c: &mut Case| tracks(c, "h2", true, 0.01), "elsewhere", "keeps its clock within 0.010 s of 2 sources")]
#[case::no_host(|c: &mut Case| c.subjects.clear(), "refuse", "expected one host")]
fn what_is_not_its_situation(
    #[case] change: fn(&mut Case),
    #[case] kind: &str,
    #[case] part: &str,
) {
    let mut case = adrift();
    change(&mut case);
    expect(&case, kind, part);
}

#[test]
fn every_host_is_asked_for_its_clock_and_the_one_for_its_daemon() {
    let mut case = adrift();
    case.readings.by_probe.clear();
    let Verdict::More { asks, .. } = case.verdict() else {
        panic!("nothing was asked")
    };
    let asked = |probe: &str| asks.iter().filter(|ask| ask.probe == probe).count();
    assert_eq!([CLOCK, TRACKING, SOURCES, UNITS].map(asked), [3, 3, 1, 1]);
    assert!(asks.iter().all(|ask| ask.service.is_none()));
}
