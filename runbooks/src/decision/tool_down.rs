//! MON-5: a page of a tool for people does not answer. A diagnosis: which of the tools on that host do not run, and what must be asked before
//! somebody starts one.

use std::collections::BTreeMap;

use deploy_engine::probe::host::{FILESYSTEM, Filesystem, UNITS, Unit};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, elsewhere, page, refuse},
};

/// Less room than this explains a tool that does not answer.
const SHORT_PERCENT: u64 = 5;

pub static DECISION: Entry = Entry {
    name: "tool.down",
    doc: "a diagnosis: units of tools for people (Grafana, Kibana, ARA, …) on the host that the alert names do not run",
    roles: &[],
    parameters: &[],
    evidence: &[UNITS, FILESYSTEM],
    settings: &["units"],
    facts: |_| Facts::new(),
    decide,
};

/// What must not be under way, or must be there, before the unit is restarted (`RECOVERY` MON-5).
fn before_a_restart(unit: &str) -> &'static str {
    match unit.split('.').next().unwrap_or_default() {
        "grafana-server" => "its database answers and no migration of it was begun",
        "kibana" => "Elasticsearch is not red and is of its version",
        "docker-registry" => "nobody pushes an image and no garbage collection runs",
        "cobblerd" | "netbox" | "netbox-rq" => {
            "no deployment uses it, and its database and Redis answer"
        }
        "aptly-api" => "nothing is being published: its database has one writer",
        _ => "its database answers",
    }
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let [host] = input.subjects else {
        let found = input.subjects.len();
        return Err(refuse(format!(
            "expected one host that the alerts name; found {found}"
        )));
    };
    let units: BTreeMap<String, Unit> = input.known(UNITS, host)?;
    let known = input.texts("units")?.into_iter();
    let there: Vec<(&str, &Unit)> = known
        .filter_map(|name| Some((name, units.get(name)?)))
        .filter(|(_, unit)| unit.load != "not-found")
        .collect();
    let down: Vec<&(&str, &Unit)> = there.iter().filter(|(_, unit)| !unit.is_active()).collect();
    if down.is_empty() {
        let running: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
        return Err(elsewhere(match running.is_empty() {
            true => format!("{host} has no unit of a tool that is known here"),
            false => format!("{} of {host} run", running.join(", ")),
        }));
    }
    let mut evidence: Vec<String> = down
        .iter()
        .map(|(name, _)| format!("before {name} is started: {}", before_a_restart(name)))
        .collect();
    evidence.extend(short_of_room(input, host));
    let state = |(name, unit): &&(&str, &Unit)| {
        format!(
            "{name} is {} ({}, {})",
            unit.active, unit.result, unit.enabled
        )
    };
    let states: Vec<String> = down.iter().map(state).collect();
    Err(page(format!("on {host} {}", states.join(", ")), evidence))
}

fn short_of_room(input: &Input<'_>, host: &deploy_engine::model::HostName) -> Vec<String> {
    let mounted: BTreeMap<String, Filesystem> = match input.readings.get(FILESYSTEM, host) {
        Ok(mounted) => mounted,
        Err(why) => return vec![why],
    };
    mounted
        .iter()
        .filter(|(_, of)| of.size_bytes > 0 && of.free_percent() < SHORT_PERCENT)
        .map(|(mount, of)| format!("{mount} of {host} has {} % free", of.free_percent()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decision::testing::{Case, expect, filesystems, host, units};

    fn case(grafana: &str, free: u64) -> Case {
        let known = json!(["grafana-server.service", "kibana.service", "netbox.service"]);
        let mut case = Case::new("tool.down", "host", 2).setting("units", known);
        case.subjects = vec![host("h2")];
        let there = units(&[
            ("grafana-server.service", grafana),
            ("kibana.service", "active"),
            ("ssh.service", "failed"),
        ]);
        case.set(UNITS, "h2", &there);
        case.set(FILESYSTEM, "h2", &filesystems(free));
        case
    }

    #[test]
    fn a_tool_that_does_not_run_is_told_with_what_to_ask_first() {
        let Verdict::Page { why, evidence } = case("failed", 2).verdict() else {
            panic!("a person is called")
        };
        assert_eq!(
            why,
            "on h2 grafana-server.service is failed (exit-code, enabled)"
        );
        assert_eq!(
            evidence,
            [
                "before grafana-server.service is started: its database answers and no migration of it was begun",
                "/ of h2 has 2 % free"
            ]
        );
    }

    #[test]
    fn nothing_else_is() {
        expect(
            &case("active", 50),
            "elsewhere",
            "grafana-server.service, kibana.service of h2 run",
        );
        let mut none = case("failed", 50);
        none.set(UNITS, "h2", &units(&[("ssh.service", "failed")]));
        expect(&none, "elsewhere", "no unit of a tool");
        none.lose(UNITS, "h2");
        expect(&none, "refuse", "unknown");
        let mut nobody = case("failed", 50);
        nobody.subjects.clear();
        expect(&nobody, "refuse", "expected one host");
    }
}
