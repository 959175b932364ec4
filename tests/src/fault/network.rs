//! Network faults: one packet filter table on the lab's bridge, always made whole from the list of
//! active faults, and measured with own datagrams between the hosts' namespaces. It filters frames
//! that pass from port to port; the management side is the bridge itself and is not touched.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::Fault;
use crate::command;
use crate::error::{IoContext, LabError, Result};
use crate::names::{Host, LabName, MANAGEMENT_ADDRESS};
use crate::netns;

const TABLE: &str = "nightshift";
/// No datagram in this time of steady sending means closed; an open path answers in about 1 ms.
const CLOSED_AFTER: Duration = Duration::from_millis(500);
/// With loss on, address resolution may need several tries of one second each.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
const SEND_PAUSE: Duration = Duration::from_millis(10);
/// Waits for the last datagrams of a measurement.
const DRAIN: Duration = Duration::from_millis(100);
/// Lost datagrams that a measurement wants to see, so that chance does not decide.
const WANTED_LOST: u32 = 30;
const MIN_DATAGRAMS: u32 = 400;

/// Loads the rules of all given faults, in place of those before.
pub(super) fn load(lab: &LabName, faults: &[&Fault]) -> Result<()> {
    let mut nft = netns::command(&netns::require(lab)?, "nft");
    nft.args(["-f", "-"]);
    command::run_with_input(&mut nft, ruleset(faults).as_bytes(), command::QUICK).map(drop)
}

/// Compares every path that `fault` names, both ways, with what all active faults together should do.
pub(super) fn verify(lab: &LabName, fault: &Fault, all: &[&Fault], hosts: &[Host]) -> Result<()> {
    let pairs = pairs_of(fault, hosts);
    let checks = std::thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .map(|&(from, to)| scope.spawn(move || verify_path(lab, from, to, all)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect::<Result<Vec<_>>>()
    })?;
    let wrong = checks.into_iter().flatten().next();
    let unreachable = || -> Result<Option<(String, String)>> {
        for host in fault.hosts() {
            if !passes(&management(lab)?, &end(lab, host)?, CLOSED_AFTER)? {
                let expected = format!("management side → {host} open");
                return Ok(Some((expected, "closed".to_owned())));
            }
        }
        Ok(None)
    };
    match wrong.map_or_else(unreachable, |w| Ok(Some(w)))? {
        None => Ok(()),
        Some((expected, found)) => Err(LabError::NoEffect {
            fault: fault.to_string(),
            expected,
            found,
        }),
    }
}

/// `None` if as expected, else (expected, found).
fn verify_path(
    lab: &LabName,
    from: Host,
    to: Host,
    all: &[&Fault],
) -> Result<Option<(String, String)>> {
    let expected = expected_loss(all, from, to);
    let (source, target) = (end(lab, from)?, end(lab, to)?);
    let path = format!("{from} → {to}");
    if expected == 1.0 {
        let open = passes(&source, &target, CLOSED_AFTER)?;
        return Ok(open.then(|| (format!("{path} closed"), "open".to_owned())));
    }
    // Address resolution needs the way back, which another fault may have closed.
    let way_back = expected_loss(all, to, from);
    if !passes(&source, &target, OPEN_WITHIN)? {
        let found = format!("closed (loss of the way back: {way_back})");
        return Ok(Some((format!("{path} open"), found)));
    }
    if expected == 0.0 {
        return Ok(None);
    }
    let datagrams = MIN_DATAGRAMS.max((f64::from(WANTED_LOST) / expected) as u32);
    let found = measured_loss(&source, &target, datagrams)?;
    let fits = plausible(expected).contains(&found);
    let told = |loss: f64| format!("{path} loses {:.1}%", loss * 100.0);
    Ok((!fits).then(|| (told(expected), told(found))))
}

/// Measured shares of loss that are taken as the expected one: chance stays well inside.
fn plausible(expected: f64) -> std::ops::RangeInclusive<f64> {
    expected / 3.0..=expected + f64::max(0.05, expected * 0.3)
}

/// Share of the frames from one host to the other that the faults drop together.
fn expected_loss(faults: &[&Fault], from: Host, to: Host) -> f64 {
    let kept = faults.iter().map(|fault| match fault {
        Fault::Partition {
            from: a,
            to: b,
            one_way,
        } => {
            let there = a.contains(&from) && b.contains(&to);
            let back = !one_way && a.contains(&to) && b.contains(&from);
            if there || back { 0.0 } else { 1.0 }
        }
        Fault::Loss {
            percent,
            from: a,
            to: b,
        } => {
            let crosses = |x: Host, y: Host| {
                a.contains(&x)
                    && if b.is_empty() {
                        !a.contains(&y)
                    } else {
                        b.contains(&y)
                    }
            };
            if crosses(from, to) || crosses(to, from) {
                1.0 - f64::from(*percent) / 100.0
            } else {
                1.0
            }
        }
        _ => 1.0,
    });
    1.0 - kept.product::<f64>()
}

/// Ordered pairs of hosts with a path that the fault names, both ways.
fn pairs_of(fault: &Fault, hosts: &[Host]) -> Vec<(Host, Host)> {
    let (from, to) = match fault {
        Fault::Partition { from, to, .. } => (from, to.clone()),
        Fault::Loss { from, to, .. } if to.is_empty() => {
            let others = hosts.iter().filter(|h| !from.contains(h));
            (from, others.copied().collect())
        }
        Fault::Loss { from, to, .. } => (from, to.clone()),
        _ => return Vec::new(),
    };
    from.iter()
        .flat_map(|&a| to.iter().flat_map(move |&b| [(a, b), (b, a)]))
        .collect()
}

/// The whole table as one transaction.
fn ruleset(faults: &[&Fault]) -> String {
    let mut rules = String::new();
    for fault in faults {
        match fault {
            Fault::Partition {
                from,
                to,
                one_way: false,
            } => {
                rules.push_str(&format!(
                    "iifname {} oifname {} drop\n",
                    ports(from),
                    ports(to)
                ));
                rules.push_str(&format!(
                    "iifname {} oifname {} drop\n",
                    ports(to),
                    ports(from)
                ));
            }
            // Without ARP, one closed way would soon close the other too.
            Fault::Partition { from, to, .. } => {
                let (from, to) = (ports(from), ports(to));
                rules.push_str(&format!(
                    "iifname {from} oifname {to} ether type != arp drop\n"
                ));
            }
            Fault::Loss { percent, from, to } => {
                let others = if to.is_empty() {
                    format!("!= {}", ports(from))
                } else {
                    ports(to)
                };
                let from = ports(from);
                let lose = format!("numgen random mod 100 < {percent} drop");
                rules.push_str(&format!("iifname {from} oifname {others} {lose}\n"));
                rules.push_str(&format!("iifname {others} oifname {from} {lose}\n"));
            }
            _ => {}
        }
    }
    let mut text = format!("table bridge {TABLE} {{}}\ndelete table bridge {TABLE}\n");
    if !rules.is_empty() {
        text.push_str(&format!(
            "table bridge {TABLE} {{\nchain faults {{\n\
             type filter hook forward priority 0; policy accept;\n{rules}}}\n}}\n"
        ));
    }
    text
}

/// A host's port on the bridge has the host's name.
fn ports(hosts: &[Host]) -> String {
    let names: Vec<String> = hosts.iter().map(|h| format!("\"{h}\"")).collect();
    format!("{{ {} }}", names.join(", "))
}

fn end(lab: &LabName, host: Host) -> Result<UdpSocket> {
    socket(&netns::host_netns(lab, host), host.address())
}

fn management(lab: &LabName) -> Result<UdpSocket> {
    socket(&netns::lab_netns(lab), MANAGEMENT_ADDRESS)
}

/// A socket keeps the namespace in which it was made.
fn socket(netns: &str, address: Ipv4Addr) -> Result<UdpSocket> {
    netns::inside(netns, || {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?
    .map_err(|e: std::io::Error| e)
    .doing(format!("open a socket on {address}"))
}

fn passes(source: &UdpSocket, target: &UdpSocket, limit: Duration) -> Result<bool> {
    let address = target.local_addr().doing("read a socket's address")?;
    let start = Instant::now();
    while start.elapsed() < limit {
        send(source, 0, address)?;
        std::thread::sleep(SEND_PAUSE);
        if receive(target)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn measured_loss(source: &UdpSocket, target: &UdpSocket, datagrams: u32) -> Result<f64> {
    let address = target.local_addr().doing("read a socket's address")?;
    let mut arrived = 0;
    let mut drain = || -> Result<()> {
        while let Some(number) = receive(target)? {
            // Number 0 is left from the test whether the path is open.
            arrived += u32::from(number != 0);
        }
        Ok(())
    };
    for number in 1..=datagrams {
        send(source, number, address)?;
        drain()?;
    }
    std::thread::sleep(DRAIN);
    drain()?;
    Ok(1.0 - f64::from(arrived) / f64::from(datagrams))
}

fn send(socket: &UdpSocket, number: u32, to: SocketAddr) -> Result<()> {
    match socket.send_to(&number.to_be_bytes(), to) {
        // An address that does not resolve is told on the next send: that is what a cut looks like.
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::HostUnreachable => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(e) => Err(e).doing(format!("send a datagram to {to}")),
    }
}

fn receive(socket: &UdpSocket) -> Result<Option<u32>> {
    let mut bytes = [0; 4];
    match socket.recv(&mut bytes) {
        Ok(_) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e).doing("receive a datagram"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn expected_loss_of_paths() {
        for (faults, from, to, expected) in [
            (vec![], "ctl1", "ctl2", 0.0),
            (vec!["partition ctl1 / ctl2"], "ctl2", "ctl1", 1.0),
            (vec!["partition ctl1 / ctl2 one-way"], "ctl1", "ctl2", 1.0),
            (vec!["partition ctl1 / ctl2 one-way"], "ctl2", "ctl1", 0.0),
            (vec!["partition ctl1 / ctl2"], "ctl1", "ctl3", 0.0),
            (vec!["loss 50% ctl1"], "ctl3", "ctl1", 0.5),
            (vec!["loss 50% ctl1"], "ctl3", "ctl2", 0.0),
            (
                vec!["loss 50% ctl1", "loss 50% ctl1 / ctl2"],
                "ctl1",
                "ctl2",
                0.75,
            ),
        ] {
            let faults: Vec<Fault> = faults.into_iter().map(fault).collect();
            let all: Vec<&Fault> = faults.iter().collect();
            let found = expected_loss(&all, host(from), host(to));
            assert_eq!(found, expected, "{faults:?} {from} → {to}");
        }
    }

    #[test]
    fn no_loss_is_never_plausible() {
        for percent in 1..=99 {
            let range = plausible(f64::from(percent) / 100.0);
            assert!(!range.contains(&0.0));
            assert!(range.contains(&(f64::from(percent) / 100.0)));
        }
    }

    #[test]
    fn no_fault_leaves_no_table() {
        assert_eq!(
            ruleset(&[&fault("power-cut ctl1")]),
            "table bridge nightshift {}\ndelete table bridge nightshift\n"
        );
    }

    #[test]
    fn one_way_lets_addresses_resolve() {
        let rules = ruleset(&[&fault("partition ctl1,ctl2 / ctl3 one-way")]);
        let rule = "iifname { \"ctl1\", \"ctl2\" } oifname { \"ctl3\" } ether type != arp drop";
        assert!(rules.contains(rule), "{rules}");
        assert_eq!(rules.matches("drop").count(), 1);
    }
}
