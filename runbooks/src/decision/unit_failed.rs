//! HOST-7: a unit that may be restarted has failed and systemd does not try again.
//!
//! Which unit is read from the host and from the allow-list; an alert only says where to look.

use std::collections::BTreeMap;

use deploy_engine::probe::host::{CONFIG_CHANGES, UNITS, Unit};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, Role, elsewhere, refuse},
};

pub static DECISION: Entry = Entry {
    name: "unit.failed",
    doc: "exactly one unit of one host has failed for good, it is on the allow-list, and its configuration was not changed lately",
    roles: &[Role::always("target")],
    parameters: &["unit"],
    evidence: &[UNITS, CONFIG_CHANGES],
    settings: &["confirm", "units", "config_quiet"],
    facts,
    decide,
};

fn failed(input: &Input<'_>) -> Result<(deploy_engine::model::HostName, Vec<String>), Verdict> {
    let [host] = input.subjects else {
        return Err(refuse(format!(
            "expected one host that the alerts name; found {}",
            input.subjects.len()
        )));
    };
    let units: BTreeMap<String, Unit> = input.known(UNITS, host)?;
    let failed = units
        .into_iter()
        .filter(|(_, unit)| unit.active == "failed")
        .map(|(name, _)| name);
    Ok((host.clone(), failed.collect()))
}

fn facts(input: &Input<'_>) -> Facts {
    failed(input)
        .map(|(host, units)| {
            (
                "the set of failed units",
                format!("{host}: {}", units.join(", ")),
            )
        })
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let (host, failed) = failed(input)?;
    let allowed = input.texts("units")?;
    let unit = match &failed[..] {
        [] => return Err(elsewhere(format!("no unit of {host} has failed"))),
        [one] => one,
        several => {
            return Err(refuse(format!(
                "{} failed on {host}: they may have a common cause",
                several.join(", ")
            )));
        }
    };
    if !allowed.contains(&unit.as_str()) {
        return Err(refuse(format!(
            "{unit} on {host} is not on the list of units that may be restarted"
        )));
    }
    input.is_startable(&host, unit)?;
    let state = input.unit(&host, unit)?;
    if state.result == "oom-kill" {
        return Err(refuse(format!(
            "{unit} on {host} was killed for lack of memory: a start would not mend that"
        )));
    }
    unchanged(input, &host, unit)?;
    input.steadily("the set of failed units", "confirm")?;
    let why = format!(
        "{unit} on {host} has failed ({}) and is on the allow-list",
        state.result
    );
    Ok(Act {
        parameters: BTreeMap::from([("unit".to_owned(), unit.clone())]),
        ..Act::on([("target", vec![host])], why)
    })
}

/// A configuration that was changed within the hour is the likely cause, and somebody is at work. `config_quiet: 0` switches
/// it off.
fn unchanged(
    input: &Input<'_>,
    host: &deploy_engine::model::HostName,
    unit: &str,
) -> Result<(), Verdict> {
    if input.seconds("config_quiet")?.is_zero() {
        return Ok(());
    }
    let name = unit.trim_end_matches(".service");
    let changes: Vec<String> = input.known(CONFIG_CHANGES, host)?;
    match changes.iter().find(|path| path.contains(name)) {
        None => Ok(()),
        Some(path) => Err(refuse(format!(
            "{host}: {path} was changed within the last hour"
        ))),
    }
}

#[cfg(test)]
#[path = "unit_failed_tests.rs"]
mod tests;
