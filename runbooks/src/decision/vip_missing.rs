//! LB-2: nobody has the virtual address.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        haproxy::{CONFIG_CHECK, ConfigCheck, INFO},
        host::{ADDRESSES, Interface, Unit},
        keepalived::{STATE, VIP_HOLDERS, VipOnHost},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

const HAPROXY_UNIT: &str = "haproxy.service";
const UNIT_STATE: &str = "host.unit/haproxy.service";

pub static DECISION: Entry = Entry {
    name: "vip.missing",
    doc: "every member was asked and none has the virtual address, their links are up, and their load balancers run or have a \
          configuration that they would start with",
    roles: &[
        Role::sometimes("balancers"),
        Role::always("first"),
        Role::sometimes("others"),
    ],
    parameters: &[],
    evidence: &[
        VIP_HOLDERS,
        STATE,
        ADDRESSES,
        UNIT_STATE,
        INFO,
        CONFIG_CHECK,
    ],
    settings: &["confirm"],
    facts,
    decide,
};

fn holders(input: &Input<'_>) -> Result<Vec<HostName>, Verdict> {
    let all = input.of_all::<VipOnHost>(VIP_HOLDERS)?;
    Ok(all
        .into_iter()
        .filter(|(_, on)| on.holds)
        .map(|(host, _)| host)
        .collect())
}

fn facts(input: &Input<'_>) -> Facts {
    holders(input)
        .map(|holders| ("the set of holders of the virtual address", names(&holders)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let holders = holders(input)?;
    match &holders[..] {
        [] => {}
        [one] => return Err(elsewhere(format!("{one} has the virtual address"))),
        several => {
            return Err(refuse(format!(
                "{} have the virtual address at once",
                names(several)
            )));
        }
    }
    for host in input.members {
        link_is_up(input, host)?;
    }
    let states = input.of_all::<Unit>(STATE)?;
    let wanted = |unit: &Unit| {
        unit.load == "loaded" && !matches!(unit.enabled.as_str(), "disabled" | "masked")
    };
    if let Some((host, unit)) = states.iter().find(|(_, unit)| !wanted(unit)) {
        return Err(refuse(format!(
            "keepalived on {host} is {}: somebody does not want it to run",
            unit.enabled
        )));
    }
    let balancers = silent_balancers(input)?;
    input.steadily("the set of holders of the virtual address", "confirm")?;
    // One whose balancer is known to answer takes it soonest; among those one that is down needs the start anyway.
    let rank = |host: &&HostName| {
        (
            balancers.contains(host),
            states[*host].is_active(),
            (*host).clone(),
        )
    };
    let Some(first) = input.members.iter().min_by_key(rank).cloned() else {
        return Err(refuse("no member could take the address"));
    };
    let others: Vec<HostName> = input
        .members
        .iter()
        .filter(|host| **host != first && !states[*host].is_active())
        .cloned()
        .collect();
    let why = format!("nobody has the virtual address, all links are up; {first} takes it first");
    let roles = [
        ("balancers", balancers),
        ("first", vec![first]),
        ("others", others),
    ];
    Ok(Act::on(roles, why))
}

/// The interface with the host's own address works.
fn link_is_up(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    let address = input.topology.hosts.get(host).cloned().unwrap_or_default();
    let interfaces: BTreeMap<String, Interface> = input.known(ADDRESSES, host)?;
    let is_own = |one: &String| one.split('/').next() == Some(address.as_str());
    match interfaces
        .iter()
        .find(|(_, interface)| interface.addresses.iter().any(is_own))
    {
        Some((name, interface)) if interface.state.ends_with("DOWN") => Err(refuse(format!(
            "{host}: the interface {name} is {}",
            interface.state
        ))),
        Some(_) => Ok(()),
        None => Err(refuse(format!(
            "{host}: no interface has its address {address}"
        ))),
    }
}

/// Members on which HAProxy does not run, though it would start.
fn silent_balancers(input: &Input<'_>) -> Result<Vec<HostName>, Verdict> {
    if !input.topology.is_deployed("haproxy") {
        return Ok(Vec::new());
    }
    let mut silent = Vec::new();
    for host in input.members {
        if input.unit(host, HAPROXY_UNIT)?.is_active() {
            if let Err(why) = input.readings.get::<serde_json::Value>(INFO, host) {
                return Err(refuse(format!(
                    "HAProxy runs on {host} but does not answer on its socket: {why}"
                )));
            }
            continue;
        }
        input.is_startable(host, HAPROXY_UNIT)?;
        let check: ConfigCheck = input.known(CONFIG_CHECK, host)?;
        if !check.valid {
            return Err(refuse(format!(
                "{host}: HAProxy would not start: {}",
                check.message
            )));
        }
        silent.push(host.clone());
    }
    Ok(silent)
}

#[cfg(test)]
#[path = "vip_missing_tests.rs"]
mod tests;
