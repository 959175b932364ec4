//! MON-4: one of several Alertmanagers is down or hangs, and another one serves. It is started with the configuration that it has.

use std::collections::BTreeSet;

use deploy_engine::{
    model::HostName,
    probe::{
        Heard,
        haproxy::ConfigCheck,
        monitoring::{ALERTMANAGER_CLUSTER, ALERTMANAGER_CONFIG, AlertmanagerCluster},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "prometheus-alertmanager.service";
const UNIT_STATE: &str = "host.unit/prometheus-alertmanager.service";
const FACT: &str = "the set of Alertmanagers that do not answer";
/// What a member says of its gossip once it takes part in it.
const READY: &str = "ready";

pub static DECISION: Entry = Entry {
    name: "alertmanager.down",
    doc: "exactly one Alertmanager does not answer on its own host, another one serves, and its configuration is valid",
    roles: &[Role::always("down")],
    parameters: &[],
    evidence: &[ALERTMANAGER_CLUSTER, ALERTMANAGER_CONFIG, UNIT_STATE],
    settings: &["confirm"],
    facts,
    decide,
};

/// Those that do not answer, and what the others say.
struct Members {
    silent: Vec<HostName>,
    serving: Vec<(HostName, AlertmanagerCluster)>,
}

fn members(input: &Input<'_>) -> Result<Members, Verdict> {
    let (mut silent, mut serving) = (Vec::new(), Vec::new());
    for (host, heard) in input.of_all::<Heard<AlertmanagerCluster>>(ALERTMANAGER_CLUSTER)? {
        match heard {
            Heard::Silent { .. } => silent.push(host),
            Heard::Answers(cluster) => serving.push((host, cluster)),
        }
    }
    Ok(Members { silent, serving })
}

fn facts(input: &Input<'_>) -> Facts {
    members(input)
        .map(|members| (FACT, names(&members.silent)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let Members { silent, serving } = members(input)?;
    let host = match &silent[..] {
        [] => return Err(all_serve(input, &serving)),
        [_] if serving.is_empty() => {
            return Err(refuse(
                "the only Alertmanager does not answer: there is none that would tell what comes of a restart",
            ));
        }
        [one] => one,
        several => {
            return Err(refuse(format!(
                "{} of {} do not answer: a common cause",
                names(several),
                input.members.len()
            )));
        }
    };
    if let Some((other, cluster)) = serving.iter().find(|(_, of)| of.status != READY) {
        return Err(input.hold(format!(
            "the gossip of {other} is {}: no other member is known to serve meanwhile",
            cluster.status
        )));
    }
    input.is_restartable(host, UNIT)?;
    if input.unit(host, UNIT)?.result == "oom-kill" {
        return Err(refuse(format!(
            "{UNIT} on {host} was killed for lack of memory: a start would not mend that"
        )));
    }
    let check: ConfigCheck = input.known(ALERTMANAGER_CONFIG, host)?;
    if !check.valid {
        return Err(refuse(format!(
            "{host}: Alertmanager would not start: {}",
            check.message
        )));
    }
    input.steadily(FACT, "confirm")?;
    let others: Vec<&HostName> = serving.iter().map(|(host, _)| host).collect();
    let why = format!(
        "Alertmanager on {host} does not answer; {} serve, and its configuration is valid",
        names(others)
    );
    Ok(Act::on([("down", silent)], why))
}

/// Nothing to start: either all is well, or they do not find each other.
fn all_serve(input: &Input<'_>, serving: &[(HostName, AlertmanagerCluster)]) -> Verdict {
    if let Some((host, _)) = serving.iter().find(|(_, of)| of.status == "settling") {
        return input.hold(format!("the gossip of {host} settles"));
    }
    let views: BTreeSet<&Vec<String>> = serving.iter().map(|(_, of)| &of.peers).collect();
    let count = input.members.len();
    match views.first() {
        _ if count == 1 => elsewhere("the only Alertmanager answers"),
        Some(peers) if views.len() == 1 && peers.len() == count => {
            elsewhere("every Alertmanager answers and sees all others")
        }
        _ => refuse(
            "every Alertmanager answers, but they do not see each other: the network or their configuration, and alerts are sent twice",
        ),
    }
}

#[cfg(test)]
#[path = "alertmanager_down_tests.rs"]
mod tests;
