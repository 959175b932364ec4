use serde_json::json;

use super::*;
use crate::decision::testing::{Case, expect, host, obeys_the_laws, units};

fn one_failed() -> Case {
    let mut case = Case::new("unit.failed", "host", 2)
        .setting("confirm", json!(30))
        .setting("config_quiet", json!(3_600))
        .setting("units", json!(["chrony.service", "cron.service"]));
    case.subjects = vec![host("h2")];
    case.set(
        UNITS,
        "h2",
        &units(&[("chrony.service", "failed"), ("ssh.service", "active")]),
    );
    case.set(CONFIG_CHANGES, "h2", &["/etc/motd"]);
    case
}

#[test]
fn laws() {
    let act = one_failed().act();
    assert_eq!(act.parameters["unit"], "chrony.service");
    assert_eq!(one_failed().roles()["target"], ["h2"]);
    obeys_the_laws(&one_failed(), &[]);
}

#[rstest::rstest]
#[case::none(|c: &mut Case| c.set(UNITS, "h2", &units(&[("chrony.service", "active")])), "elsewhere", "no unit of h2 has failed")]
#[case::not_allowed(|c: &mut Case| c.set(UNITS, "h2", &units(&[("ceph-osd@1.service", "failed")])), "refuse", "not on the list")]
#[case::several(|c: &mut Case| c.set(UNITS, "h2", &units(&[("chrony.service", "failed"), ("cron.service", "failed")])), "refuse", "common cause")]
#[case::changed(|c: &mut Case| c.set(CONFIG_CHANGES, "h2", &["/etc/chrony/chrony.conf"]), "refuse", "changed within the last hour")]
#[case::memory(|c: &mut Case| c.edit(UNITS, "h2", "/chrony.service/result", json!("oom-kill")), "refuse", "lack of memory")]
#[case::disabled(|c: &mut Case| c.edit(UNITS, "h2", "/chrony.service/enabled", json!("disabled")), "refuse", "does not want it")]
#[case::no_host(|c: &mut Case| c.subjects.clear(), "refuse", "expected one host")]
fn refusals(#[case] change: fn(&mut Case), #[case] kind: &str, #[case] part: &str) {
    let mut case = one_failed();
    change(&mut case);
    expect(&case, kind, part);
}
