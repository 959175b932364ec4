//! LB-4: a load balancer's process is down while another one serves.

use deploy_engine::{
    model::HostName,
    probe::{
        haproxy::{CONFIG_CHECK, ConfigCheck, INFO, Info},
        keepalived::{VIP_HOLDERS, VipOnHost},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "haproxy.service";
const UNIT_STATE: &str = "host.unit/haproxy.service";

pub static DECISION: Entry = Entry {
    name: "lb.process",
    doc: "HAProxy is down for good on some members, its configuration is valid there, and the virtual address is with a member \
          that serves",
    roles: &[Role::always("down")],
    parameters: &[],
    evidence: &[UNIT_STATE, INFO, CONFIG_CHECK, VIP_HOLDERS],
    settings: &["confirm"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    input
        .inactive(UNIT)
        .map(|down| ("the set of balancers that are down", names(&down)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let down = input.inactive(UNIT)?;
    if down.is_empty() {
        return Err(elsewhere("HAProxy runs on every member"));
    }
    for host in &down {
        input.is_startable(host, UNIT)?;
        let check: ConfigCheck = input.known(CONFIG_CHECK, host)?;
        if !check.valid {
            return Err(refuse(format!(
                "{host}: HAProxy would not start: {}",
                check.message
            )));
        }
    }
    for host in input.members.iter().filter(|host| !down.contains(host)) {
        input.known::<Info>(INFO, host)?;
    }
    address_is_served(input, &down)?;
    input.steadily("the set of balancers that are down", "confirm")?;
    let why = format!(
        "HAProxy on {} is down, its configuration is valid, the others serve",
        names(&down)
    );
    Ok(Act::on([("down", down)], why))
}

/// Where there is a virtual address, it is on exactly one member, and that one serves; a missing address is LB-2's.
fn address_is_served(input: &Input<'_>, down: &[HostName]) -> Result<(), Verdict> {
    if !input.topology.is_deployed("keepalived") {
        return Ok(());
    }
    let on = input.of_all::<VipOnHost>(VIP_HOLDERS)?;
    let holders: Vec<&HostName> = on
        .iter()
        .filter(|(_, on)| on.holds)
        .map(|(host, _)| host)
        .collect();
    match holders[..] {
        [] => Err(input.hold("nobody has the virtual address: that is repaired first")),
        [one] if down.contains(one) => Err(input.hold(format!(
            "the virtual address is still on {one}: it should move"
        ))),
        [_] => Ok(()),
        _ => Err(refuse(format!(
            "{} have the virtual address at once",
            names(holders)
        ))),
    }
}

#[cfg(test)]
#[path = "lb_process_tests.rs"]
mod tests;
