//! ICI-1: one master of Icinga is cut off from the others, and not by the network. Its daemon is restarted, once.
//!
//! A daemon that hangs and one that is down look the same from the others; the host itself tells them apart from a host that is
//! away. Whoever is restarted, another master checks meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::{
    model::HostName,
    probe::{
        Heard,
        icinga2::{
            AUTHORITY, Authority, CERTIFICATE, CONFIG_CHECK, PEERS_TCP, Peers, REFUSED, STATUS,
            Status, Valid, ZONES, Zones,
        },
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, Role, elsewhere, refuse},
};

const UNIT: &str = "icinga2.service";
const UNIT_STATE: &str = "host.unit/icinga2.service";
const FACT: &str = "the endpoint that is cut off";

pub static DECISION: Entry = Entry {
    name: "icinga2.disconnected",
    doc: "exactly one master is cut off from the others, which run; the network, its certificates and its configuration are well",
    roles: &[Role::always("target")],
    parameters: &[],
    evidence: &[
        STATUS,
        ZONES,
        AUTHORITY,
        CERTIFICATE,
        CONFIG_CHECK,
        PEERS_TCP,
        UNIT_STATE,
    ],
    settings: &["confirm"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    cut_off(input)
        .map(|(target, _)| (FACT, target.to_string()))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let (target, how) = cut_off(input)?;
    certificates_hold(input)?;
    network_is_open(input, &target)?;
    input.is_restartable(&target, UNIT)?;
    let check: Valid = input.known(CONFIG_CHECK, &target)?;
    if !check.valid {
        return Err(refuse(format!(
            "{target}: Icinga would not start: {}",
            check.message
        )));
    }
    input.steadily(FACT, "confirm")?;
    let why = format!(
        "{how}; the others run, and the network, the certificates and the configuration are well"
    );
    Ok(Act::on([("target", vec![target])], why))
}

/// The one master that the others have lost, and how that shows.
fn cut_off(input: &Input<'_>) -> Result<(HostName, String), Verdict> {
    if input.members.len() < 2 {
        return Err(elsewhere("one master alone has nobody to be connected to"));
    }
    let (silent, versions) = daemons(input)?;
    if versions.is_empty() {
        return Err(refuse("no master answers: not one endpoint's fault"));
    }
    if versions.values().collect::<BTreeSet<_>>().len() > 1 {
        let found: Vec<&str> = versions.values().map(String::as_str).collect();
        return Err(refuse(format!(
            "expected one version on all masters; found {}: an upgrade is under way",
            found.join(", ")
        )));
    }
    let lost = lost_links(input, versions.keys())?;
    match &silent[..] {
        [] => of_the_running(input, &lost),
        [one] => match lost.iter().find(|(by, to)| by != one && to != one) {
            Some((by, to)) => Err(refuse(format!(
                "{one} does not answer, and {by} is not connected to {to} either: not one endpoint's fault"
            ))),
            None if lost.is_empty() => Err(input.hold(format!(
                "{one} does not answer, but the others are still connected to it"
            ))),
            None => Ok((one.clone(), format!("the daemon on {one} does not answer"))),
        },
        several => Err(refuse(format!(
            "{} do not answer: a common cause",
            names(several)
        ))),
    }
}

/// Members whose daemon says nothing, and the versions of the others.
#[allow(clippy::type_complexity)]
fn daemons(input: &Input<'_>) -> Result<(Vec<HostName>, BTreeMap<HostName, String>), Verdict> {
    let (mut silent, mut versions) = (Vec::new(), BTreeMap::new());
    for (host, heard) in input.of_all::<Heard<Status>>(STATUS)? {
        match heard {
            Heard::Silent { .. } => silent.push(host),
            Heard::Answers(status) if !status.checks_enabled => {
                return Err(refuse(format!("somebody switched checks off on {host}")));
            }
            Heard::Answers(status) => drop(versions.insert(host, status.version)),
        }
    }
    Ok((silent, versions))
}

/// Who is not connected to whom, as those say who answer.
fn lost_links<'h>(
    input: &Input<'_>,
    running: impl Iterator<Item = &'h HostName>,
) -> Result<BTreeSet<(HostName, HostName)>, Verdict> {
    let mut lost = BTreeSet::new();
    for host in running {
        let Heard::Answers(zones) = input.known::<Heard<Zones>>(ZONES, host)? else {
            return Err(input.hold(format!("the daemon on {host} answered and then did not")));
        };
        if zones.zones_lost.len() > 1 {
            return Err(refuse(format!(
                "{host} has lost the zones {}: not one endpoint's fault",
                zones.zones_lost.join(", ")
            )));
        }
        let gone = |other: &&HostName| {
            *other != host && !zones.connected.iter().any(|name| name == other.as_str())
        };
        let others = input.members.iter().filter(gone);
        lost.extend(others.map(|other| (host.clone(), other.clone())));
    }
    Ok(lost)
}

/// All daemons answer. The one that is part of every broken link; of two masters the second, as the first is the one that people
/// look at.
fn of_the_running(
    input: &Input<'_>,
    lost: &BTreeSet<(HostName, HostName)>,
) -> Result<(HostName, String), Verdict> {
    if lost.is_empty() {
        return Err(shared_or_split(input)?);
    }
    let in_all = |host: &&HostName| lost.iter().all(|(by, to)| by == *host || to == *host);
    match input.members.iter().rev().find(in_all) {
        Some(host) => Ok((
            host.clone(),
            format!("all daemons answer, but {host} and the others are not connected"),
        )),
        None => Err(refuse(
            "several masters have lost each other: not one endpoint's fault",
        )),
    }
}

/// Every master is connected: then each host is checked by exactly one, or what Icinga says counts for nothing.
fn shared_or_split(input: &Input<'_>) -> Result<Verdict, Verdict> {
    let mut checked = BTreeSet::new();
    for (master, heard) in input.of_all::<Heard<Authority>>(AUTHORITY)? {
        let Heard::Answers(authority) = heard else {
            return Err(input.hold(format!("the daemon on {master} answered and then did not")));
        };
        for host in authority.checks {
            if let Some(twice) = checked.replace(host) {
                return Ok(refuse(format!(
                    "the masters are connected, but {twice} is checked by several: a split, and Icinga's word counts for nothing"
                )));
            }
        }
    }
    Ok(elsewhere("every master is connected to all others"))
}

/// A certificate that does not hold is not mended by a restart.
fn certificates_hold(input: &Input<'_>) -> Result<(), Verdict> {
    let all = input.of_all::<Valid>(CERTIFICATE)?;
    match all.iter().find(|(_, certificate)| !certificate.valid) {
        None => Ok(()),
        Some((host, certificate)) => Err(refuse(format!(
            "the certificate of {host} does not hold: {}",
            certificate.message
        ))),
    }
}

/// Every way between members is open; where the target's daemon is down, its host says so itself.
fn network_is_open(input: &Input<'_>, target: &HostName) -> Result<(), Verdict> {
    let down = !input.unit(target, UNIT)?.is_active();
    let target_address = input.topology.hosts.get(target);
    for (host, peers) in input.of_all::<Peers>(PEERS_TCP)? {
        let closed = peers.closed.iter().find(|(address, why)| {
            !(down && Some(*address) == target_address && why.as_str() == REFUSED)
        });
        if let Some((address, why)) = closed {
            return Err(refuse(format!(
                "{host} does not reach {address} on the cluster's port ({why}): the network, not a daemon"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "icinga2_disconnected_tests.rs"]
mod tests;
