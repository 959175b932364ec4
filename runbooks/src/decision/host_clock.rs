//! HOST-3: the clock of a host is said to be wrong or not kept. A diagnosis: how far it is off, what keeps it, how many sources that has, and
//! whether other hosts are off the same way.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        Ask, Heard, Reading,
        chrony::{SOURCES, Sources, TRACKING, Tracking},
        host::{CLOCK, UNITS, Unit},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::names,
    table::{Entry, elsewhere, page, refuse},
};

/// Daemons that keep a clock; the one of them that is wanted.
const DAEMONS: [&str; 5] = [
    "chrony.service",
    "chronyd.service",
    "ntpsec.service",
    "ntp.service",
    "systemd-timesyncd.service",
];
/// Services whose members agree by their clocks, or keep other people's state: a jump of the clock is not theirs to bear
/// (`RECOVERY` HOST-3).
const NO_JUMPS: [&str; 9] = [
    "mariadb",
    "rabbitmq",
    "ceph",
    "elasticsearch",
    "nova",
    "libvirt",
    "qemu",
    "gnocchi",
    "prometheus",
];
/// A clock that is off by less is slewed in minutes.
const SLEWED_SECONDS: f64 = 1.0;
/// Kept well (`RECOVERY` HOST-3).
const WELL_SECONDS: f64 = 0.05;
/// What a host's answer may take on its way counts as much as its clock.
const EXCHANGE_SECONDS: f64 = 3.0;

pub static DECISION: Entry = Entry {
    name: "host.clock",
    doc: "a diagnosis: how far the clock of the host that the alert names is off, what keeps it, and whether others are off the same way",
    roles: &[],
    parameters: &[],
    evidence: &[],
    settings: &[],
    facts: |_| Facts::new(),
    decide,
};

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let [host] = input.subjects else {
        let found = input.subjects.len();
        return Err(refuse(format!(
            "expected one host that the alerts name; found {found}"
        )));
    };
    let of_all = [CLOCK, TRACKING];
    let asks = input.members.iter().flat_map(|one| {
        let mine = [SOURCES, UNITS].into_iter().filter(|_| one == host);
        of_all
            .into_iter()
            .chain(mine)
            .map(|probe| ask(probe, one))
            .collect::<Vec<_>>()
    });
    input.were_asked(asks, "every host is asked how late it is there")?;
    let own: Result<Heard<Tracking>, String> = input.readings.get(TRACKING, host);
    let sources: Result<Heard<Sources>, String> = input.readings.get(SOURCES, host);
    let off = off_by_exchange(input, host);
    let (others, unknown) = others(input, host);
    if let (Ok(Heard::Answers(own)), Ok(Heard::Answers(sources))) = (&own, &sources) {
        let reachable = sources.reachable();
        if own.synchronised && own.ahead_seconds.abs() < WELL_SECONDS && reachable > 1 {
            return Err(elsewhere(format!(
                "chrony of {host} keeps its clock within {:.3} s of {reachable} sources",
                own.ahead_seconds.abs()
            )));
        }
    }
    let mut evidence = vec![kept_by(input, host), sources_in_words(host, &sources)];
    evidence.push(exchange_in_words(host, off));
    let (same, way) = same_way(&own, off, &others);
    evidence.push(direction(&same, way, others.len()));
    evidence.extend(unknown);
    evidence.push(advice(input, host, &own, &sources, off, &same));
    Err(page(in_words(host, &own), evidence))
}

fn ask(probe: &str, host: &HostName) -> Ask {
    Ask {
        probe: probe.to_owned(),
        host: host.clone(),
        service: None,
    }
}

fn in_words(host: &HostName, own: &Result<Heard<Tracking>, String>) -> String {
    match own {
        Ok(Heard::Answers(own)) if !own.synchronised => {
            format!("chrony of {host} runs and follows no source")
        }
        Ok(Heard::Answers(own)) => format!(
            "the clock of {host} is {} its sources",
            ahead(own.ahead_seconds)
        ),
        Ok(Heard::Silent { .. }) => format!("chrony of {host} does not run"),
        Err(why) => format!("what keeps the clock of {host} is not known: {why}"),
    }
}

/// `0.250 s behind`.
fn ahead(seconds: f64) -> String {
    let way = if seconds < 0.0 { "behind" } else { "ahead of" };
    format!("{:.3} s {way}", seconds.abs())
}

/// By how much the host's clock differs from the bot's, as far as an answer's own time tells: ahead above zero.
fn off_by_exchange(input: &Input<'_>, host: &HostName) -> Option<f64> {
    let micros: i64 = input.readings.get(CLOCK, host).ok()?;
    let reading = input.readings.by_probe.get(CLOCK)?.get(host)?;
    let (Reading::Known { at, .. } | Reading::Unknown { at, .. }) = reading;
    Some((micros - at.as_microsecond()) as f64 / 1e6)
}

fn exchange_in_words(host: &HostName, off: Option<f64>) -> String {
    match off {
        None => format!("the clock of {host} could not be read"),
        Some(off) if off.abs() <= EXCHANGE_SECONDS => {
            format!(
                "the clocks of {host} and of the bot differ by at most {EXCHANGE_SECONDS} s, the time of the answer included"
            )
        }
        Some(off) => format!(
            "the clock of {host} is {:.1} s {} the bot's, the time of the answer included",
            off.abs(),
            if off < 0.0 { "behind" } else { "ahead of" }
        ),
    }
}

/// Host → seconds ahead: its chrony's word, else what the exchange shows beyond its own time; and whose clock is not known.
fn others(input: &Input<'_>, host: &HostName) -> (BTreeMap<HostName, f64>, Option<String>) {
    let (mut known, mut unknown) = (BTreeMap::new(), Vec::new());
    for other in input.members.iter().filter(|one| *one != host) {
        let own: Result<Heard<Tracking>, String> = input.readings.get(TRACKING, other);
        let by_exchange = off_by_exchange(input, other);
        let seconds = match (own, by_exchange) {
            (Ok(Heard::Answers(own)), _) if own.synchronised => own.ahead_seconds,
            (_, Some(off)) if off.abs() > EXCHANGE_SECONDS => off,
            (_, Some(_)) => 0.0,
            (_, None) => {
                unknown.push(other);
                continue;
            }
        };
        known.insert(other.clone(), seconds);
    }
    let said = (!unknown.is_empty()).then(|| format!("not known of {}", names(unknown)));
    (known, said)
}

/// Other hosts that are off the same way, and which way: many of them mean a bad source.
fn same_way<'o>(
    own: &Result<Heard<Tracking>, String>,
    off: Option<f64>,
    others: &'o BTreeMap<HostName, f64>,
) -> (Vec<&'o HostName>, Option<&'static str>) {
    let by_chrony = match own {
        Ok(Heard::Answers(own)) if own.synchronised => Some(own.ahead_seconds),
        _ => None,
    };
    let far = |seconds: &f64| seconds.abs() >= WELL_SECONDS;
    let beyond = off.filter(|off| off.abs() > EXCHANGE_SECONDS);
    let Some(mine) = by_chrony.filter(far).or(beyond) else {
        return (Vec::new(), None);
    };
    let same = others
        .iter()
        .filter(|(_, other)| far(other) && other.is_sign_negative() == mine.is_sign_negative());
    let way = if mine < 0.0 { "behind" } else { "ahead" };
    (same.map(|(host, _)| host).collect(), Some(way))
}

fn direction(same: &[&HostName], way: Option<&str>, of: usize) -> String {
    match way {
        None => format!("which way it is off is not known; {of} other hosts were compared"),
        Some(way) if same.is_empty() => {
            format!("it is {way}, and none of {of} other hosts is off the same way")
        }
        Some(way) => format!(
            "it is {way}, and so are {} of {of} other hosts: {}",
            same.len(),
            names(same.iter().copied())
        ),
    }
}

fn kept_by(input: &Input<'_>, host: &HostName) -> String {
    let units: BTreeMap<String, Unit> = match input.readings.get(UNITS, host) {
        Ok(units) => units,
        Err(why) => return why,
    };
    let there = DAEMONS
        .iter()
        .filter_map(|name| Some((*name, units.get(*name)?)));
    let there = there.filter(|(_, unit)| unit.load != "not-found");
    let said: Vec<String> = there
        .map(|(name, unit)| format!("{name} is {} and {}", unit.active, unit.enabled))
        .collect();
    match said.is_empty() {
        true => format!(
            "{host} has no daemon that keeps its clock: a container, or nobody installed one"
        ),
        false => format!("on {host} {}", said.join(", ")),
    }
}

fn sources_in_words(host: &HostName, sources: &Result<Heard<Sources>, String>) -> String {
    match sources {
        Ok(Heard::Answers(sources)) => {
            let (reachable, count) = (sources.reachable(), sources.sources.len());
            let silent: Vec<&str> = sources
                .sources
                .iter()
                .filter(|one| !one.reachable)
                .map(|one| one.address.as_str())
                .collect();
            let silent = match silent.is_empty() {
                true => String::new(),
                false => format!("; silent: {}", silent.join(", ")),
            };
            format!("{reachable} of {count} sources answer{silent}")
        }
        Ok(Heard::Silent { .. }) => {
            format!("which sources answer {host} is not known while chrony is down")
        }
        Err(why) => why.clone(),
    }
}

/// What `RECOVERY` HOST-3 leaves to a person here, and what it forbids.
fn advice(
    input: &Input<'_>,
    host: &HostName,
    own: &Result<Heard<Tracking>, String>,
    sources: &Result<Heard<Sources>, String>,
    off: Option<f64>,
    same: &[&HostName],
) -> String {
    if !same.is_empty() {
        return "hosts are off the same way: a source is wrong; leave the daemons alone and look at the source".to_owned();
    }
    let services = &input.topology.services;
    let jumps: Vec<&str> = services
        .iter()
        .filter(|(name, of)| NO_JUMPS.contains(&name.as_str()) && of.members.contains(host))
        .map(|(name, _)| name.as_str())
        .collect();
    let never = match jumps.is_empty() {
        true => String::new(),
        false => format!("; never `makestep` here: {} runs on it", jumps.join(", ")),
    };
    let by_chrony = match own {
        Ok(Heard::Answers(own)) if own.synchronised => Some(own.ahead_seconds),
        _ => None,
    };
    let few = matches!(sources, Ok(Heard::Answers(all)) if all.reachable() < 2);
    match by_chrony.or(off) {
        _ if few => format!("fewer than two sources answer: mend the way to them first{never}"),
        None => format!("how far it is off is not known: find that out first{never}"),
        Some(off) if off.abs() < SLEWED_SECONDS => {
            format!("off by less than a second: its daemon may be restarted and will slew it{never}")
        }
        Some(_) if jumps.is_empty() => {
            "off by a second or more: its daemon may be restarted if nothing on the host keeps state".to_owned()
        }
        Some(_) => format!("off by a second or more: leave its daemon alone until what runs there was moved or stopped{never}"),
    }
}

#[cfg(test)]
#[path = "host_clock_tests.rs"]
mod tests;
