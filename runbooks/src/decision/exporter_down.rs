//! MON-1: one exporter does not answer on its own host, while what it watches is well. It is restarted.
//!
//! The decision is the same for every exporter; the runbook's service says which one, its settings the unit and what it watches. The
//! alert only says that a target is silent: whether the exporter, its service or the scrape side is at fault is asked here.

use deploy_engine::{
    condition::{self, Condition, ConditionCall, Judgement},
    model::{HostName, ServiceName},
    probe::{
        Ask, Heard,
        monitoring::{PROMETHEUS_TARGETS, Page, Targets},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};
use crate::compile::addressed;

const PROMETHEUS: &str = "prometheus";
const FACT: &str = "the set of exporters that do not answer";

pub static DECISION: Entry = Entry {
    name: "exporter.down",
    doc: "exactly one exporter of the service does not answer on its own host, what it watches is well, and hardly any other target is down",
    roles: &[Role::always("target")],
    parameters: &["unit"],
    evidence: &[],
    settings: &["confirm", "unit", "watches", "targets_percent"],
    facts,
    decide,
};

/// Members whose exporter says nothing to its own host.
fn silent(input: &Input<'_>) -> Result<Vec<HostName>, Verdict> {
    let answers = input.of_all::<Heard<Page>>(&format!("{}.answers", input.service))?;
    let silent = |(host, heard)| matches!(heard, Heard::Silent { .. }).then_some(host);
    Ok(answers.into_iter().filter_map(silent).collect())
}

fn facts(input: &Input<'_>) -> Facts {
    silent(input)
        .map(|silent| (FACT, names(&silent)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let silent = silent(input)?;
    let host = match &silent[..] {
        [] => {
            return Err(elsewhere(format!(
                "every {} answers on its own host: what does not reach it is the scrape side or the network",
                input.service
            )));
        }
        [one] => one,
        several => {
            return Err(refuse(format!(
                "{} on {} do not answer: a common cause",
                input.service,
                names(several)
            )));
        }
    };
    if !input.subjects.is_empty() && !input.subjects.contains(host) {
        return Err(refuse(format!(
            "the alerts name {}, and {} is silent on {host}",
            names(input.subjects),
            input.service
        )));
    }
    let unit = input.text("unit")?;
    input.is_restartable(host, unit)?;
    if input.unit(host, unit)?.result == "oom-kill" {
        return Err(refuse(format!(
            "{unit} on {host} was killed for lack of memory: a start would not mend that"
        )));
    }
    let watched = watched(input, host)?;
    let asks = watched.iter().flat_map(|(one, call)| one.asks(call));
    let asks = asks.chain(asks_targets(input)?);
    input.were_asked(
        asks,
        "an exporter is silent: is what it watches well, and are other targets silent?",
    )?;
    is_well(input, host, &watched)?;
    few_are_down(input)?;
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "{} on {host} does not answer, while what it watches is well and hardly any other target is down",
        input.service
    );
    let mut act = Act::on([("target", silent.clone())], why);
    act.parameters.insert("unit".to_owned(), unit.to_owned());
    Ok(act)
}

/// The conditions of what the exporter watches on its host; none: it watches the host, which answers.
fn watched<'a>(
    input: &Input<'a>,
    host: &HostName,
) -> Result<Vec<(&'static dyn Condition, ConditionCall)>, Verdict> {
    let names = input.texts("watches")?.into_iter();
    let one = |name: &str| {
        let known = condition::find(name).ok_or_else(|| format!("there is no condition {name}"))?;
        let call = ConditionCall {
            name: name.to_owned(),
            service: input.service.clone(),
            hosts: vec![host.clone()],
            members: input.members.to_vec(),
            settings: Default::default(),
        };
        Ok((known, addressed(call, known, input.topology)?))
    };
    names
        .map(|name| one(name).map_err(|why: String| refuse(why)))
        .collect()
}

/// A service that is down itself has a runbook of its own, and its exporter is not what to look at.
fn is_well(
    input: &Input<'_>,
    host: &HostName,
    watched: &[(&'static dyn Condition, ConditionCall)],
) -> Result<(), Verdict> {
    for (condition, call) in watched {
        match condition.judge(call, input.readings) {
            Judgement::Holds { .. } => {}
            Judgement::Unknown { why } => {
                return Err(refuse(format!(
                    "whether {} on {host} is well is unknown: {why}",
                    call.service
                )));
            }
            Judgement::NotYet { why } | Judgement::Refuted { why } => {
                return Err(elsewhere(format!(
                    "{} on {host} is not well itself: {why}",
                    call.service
                )));
            }
        }
    }
    Ok(())
}

/// Every Prometheus of the site says what it scrapes.
fn asks_targets(input: &Input<'_>) -> Result<Vec<Ask>, Verdict> {
    let (service, members) = prometheus(input)?;
    let ask = |host: HostName| Ask {
        probe: PROMETHEUS_TARGETS.to_owned(),
        host,
        service: Some(service.clone()),
    };
    Ok(members.into_iter().map(ask).collect())
}

fn prometheus(input: &Input<'_>) -> Result<(ServiceName, Vec<HostName>), Verdict> {
    let service: ServiceName = PROMETHEUS.parse().map_err(|why: String| refuse(why))?;
    match input.topology.members(&service) {
        Some(members) => Ok((service, members)),
        None => Err(refuse(
            "Prometheus is not deployed on this site: how many targets are down cannot be asked of it",
        )),
    }
}

/// One target may be down on the smallest site; more than the share of all of them are the scrape side's fault (`RECOVERY` MON-1).
fn few_are_down(input: &Input<'_>) -> Result<(), Verdict> {
    let percent = input.number("targets_percent")?;
    for host in prometheus(input)?.1 {
        let targets: Targets = input.known(PROMETHEUS_TARGETS, &host)?;
        let (count, down) = (targets.count, targets.down.len());
        if down as f64 > (count as f64 * percent / 100.0).max(1.0) {
            return Err(refuse(format!(
                "{down} of {count} targets do not answer Prometheus on {host}: the scrape side or the network, not one exporter"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "exporter_down_tests.rs"]
mod tests;
