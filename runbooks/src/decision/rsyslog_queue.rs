//! LOG-2: lines wait and none is taken. A diagnosis: a restart while no server answers loses requests that are under way, and whether rsyslog or
//! its server is at fault is for people to say where both seem well.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        Ask,
        elasticsearch::{HEALTH, Health},
        rsyslog::{QUEUE, Queue},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, elsewhere, page},
};

const UNIT: &str = "rsyslog.service";
const UNIT_STATE: &str = "host.unit/rsyslog.service";
const SERVERS: &str = "elasticsearch";
const NEVER: &str = "never: deleting files in /var/spool/rsyslog, which are the lines that wait";

pub static DECISION: Entry = Entry {
    name: "rsyslog.queue_waits",
    doc: "a diagnosis: lines wait and none was taken lately, or lines were lost; it says whether a server is there",
    roles: &[],
    parameters: &[],
    evidence: &[QUEUE, UNIT_STATE],
    settings: &[],
    facts: |_| Facts::new(),
    decide,
};

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let (mut stuck, mut evidence) = (Vec::new(), Vec::new());
    let (mut lost, mut unknown) = (0, Vec::new());
    for host in input.members {
        match input.readings.get::<Queue>(QUEUE, host) {
            Ok(queue) => {
                if queue.size > 0 && queue.delivered_lately == 0 {
                    stuck.push(host.clone());
                }
                if queue.size > 0 || queue.discarded > 0 {
                    evidence.push(words(host, &queue));
                }
                lost += queue.discarded;
            }
            Err(why) => {
                let state = input.unit(host, UNIT).map(|unit| unit.active);
                let state = state.unwrap_or_else(|_| "unknown".to_owned());
                unknown.push(format!("{why}; {UNIT} on {host} is {state}"));
            }
        }
    }
    if stuck.is_empty() && lost == 0 && unknown.is_empty() {
        return Err(elsewhere("every queue is empty, or servers take its lines"));
    }
    let why = match (stuck.is_empty(), lost) {
        (true, 0) => "the queue of a host is not known".to_owned(),
        (true, lost) => format!("{lost} lines were lost, as a queue stayed full"),
        (false, 0) => format!("lines wait on {} and no server takes any", names(&stuck)),
        (false, lost) => format!(
            "lines wait on {} and no server takes any; {lost} were lost",
            names(&stuck)
        ),
    };
    let servers = if stuck.is_empty() {
        Vec::new()
    } else {
        servers(input, &stuck)?
    };
    evidence.extend(unknown);
    evidence.extend(servers);
    evidence.push(NEVER.to_owned());
    Err(page(why, evidence))
}

fn words(host: &HostName, queue: &Queue) -> String {
    format!(
        "{host}: {} lines wait ({} on the disk), {} were taken lately, {} were lost, {} were refused for good",
        queue.size, queue.on_disk, queue.delivered_lately, queue.discarded, queue.refused
    )
}

/// What the servers say of themselves, and what that means for rsyslog.
fn servers(input: &Input<'_>, stuck: &[HostName]) -> Result<Vec<String>, Verdict> {
    let of = |service: &str| {
        let all = &input.topology.services;
        all.iter()
            .find(|(name, _)| name.as_str() == service)
            .map(|(name, deployed)| (name.clone(), deployed))
    };
    let named = of(input.service.as_str())
        .and_then(|(_, own)| own.settings.get("servers")?.as_array())
        .is_some_and(|servers| !servers.is_empty());
    let Some((service, deployed)) = of(SERVERS).filter(|_| !named) else {
        return Ok(vec![
            "its servers are not of this site: whether they take lines is not known here"
                .to_owned(),
        ]);
    };
    let asks = deployed.members.iter().map(|host| Ask {
        probe: HEALTH.to_owned(),
        host: host.clone(),
        service: Some(service.clone()),
    });
    input.were_asked(asks, "lines wait: are the servers there?")?;
    let answers: BTreeMap<&HostName, Result<Health, String>> = deployed
        .members
        .iter()
        .map(|host| (host, input.readings.get(HEALTH, host)))
        .collect();
    let formed = |answer: &Result<Health, String>| matches!(answer, Ok(Health::Formed(_)));
    let mut lines: Vec<String> = Vec::new();
    for (host, answer) in &answers {
        lines.push(match answer {
            Ok(Health::Formed(_)) => format!("{host} is in a cluster of {SERVERS}"),
            Ok(Health::NoMaster) => format!("{host} knows no master"),
            Err(why) => why.clone(),
        });
    }
    lines.push(match answers.values().any(formed) {
        false => "no server is known to take lines, which is the cause: leave rsyslog alone, it loses requests under way when it is stopped now".to_owned(),
        true => format!(
            "servers are there: look whether they are read-only (ES-3) and whether {} reaches them; if both are well, a person may restart {UNIT} once, unless its log tells of a damaged queue",
            names(stuck)
        ),
    });
    Ok(lines)
}

#[cfg(test)]
#[path = "rsyslog_queue_tests.rs"]
mod tests;
