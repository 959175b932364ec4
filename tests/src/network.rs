//! The lab's network: a bridge in a namespace of its own (no way out), one namespace per host.

use std::process::Command;

use crate::command;
use crate::error::Result;
use crate::names::{Host, LabName, MANAGEMENT_ADDRESS, PREFIX_LENGTH};
use crate::netns::{existing, host_netns, lab_netns, path};

/// The bridge in the lab's namespace; a host's port on it has the host's name.
const BRIDGE: &str = "br0";

/// Makes the lab's namespace and bridge, if missing.
pub(crate) fn ensure_lab(lab: &LabName) -> Result<()> {
    let netns = lab_netns(lab);
    if path(&netns).exists() && has_link(&netns, BRIDGE) {
        return Ok(());
    }
    if !path(&netns).exists() {
        ip(&["netns", "add", &netns])?;
    }
    batch(
        &netns,
        &format!(
            "link set lo up\nlink add {BRIDGE} type bridge\n\
             addr add {MANAGEMENT_ADDRESS}/{PREFIX_LENGTH} dev {BRIDGE}\nlink set {BRIDGE} up\n"
        ),
    )
}

/// Makes the host's namespace with its `eth0` on the bridge, if missing.
pub(crate) fn ensure_host(lab: &LabName, host: Host) -> Result<()> {
    let (main, own) = (lab_netns(lab), host_netns(lab, host));
    if path(&own).exists() && has_link(&main, &host.name()) {
        return Ok(());
    }
    if !path(&own).exists() {
        ip(&["netns", "add", &own])?;
    }
    batch(
        &main,
        &format!(
            "link add {host} type veth peer name eth0 netns {own}\n\
             link set {host} master {BRIDGE} up\n"
        ),
    )?;
    batch(
        &own,
        &format!(
            "link set lo up\naddr add {}/{PREFIX_LENGTH} dev eth0\nlink set eth0 up\n\
             route add default via {MANAGEMENT_ADDRESS}\n",
            host.address()
        ),
    )
}

/// Removes all namespaces of the lab, and with them its links and packet filters.
pub(crate) fn remove(lab: &LabName) -> Result<()> {
    existing(lab)?
        .iter()
        .try_for_each(|netns| ip(&["netns", "del", netns]))
}

fn has_link(netns: &str, link: &str) -> bool {
    ip(&["-n", netns, "link", "show", "dev", link]).is_ok()
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::run(Command::new("ip").args(arguments), command::QUICK).map(drop)
}

fn batch(netns: &str, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-n", netns, "-batch", "-"]);
    command::run_with_input(&mut ip, lines.as_bytes(), command::QUICK).map(drop)
}
