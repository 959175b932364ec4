//! keepalived and the virtual address that it moves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    host,
    table::{self, Entry, OUTPUT_LIMIT_BYTES},
};
use crate::wire::{self, ProbeResult};

pub const STATE: &str = "keepalived.state";
pub const VIP_HOLDERS: &str = "vip.holders";

pub const UNIT: &str = "keepalived.service";
const TIMEOUT_SECONDS: u32 = 10;

pub static PROBES: &[Entry] = &[
    Entry {
        name: STATE,
        service: Some("keepalived"),
        request: |_| wire::Probe::Units {
            names: vec![UNIT.to_owned()],
        },
        parse: |result| table::value(parse_state(result)),
    },
    Entry {
        name: VIP_HOLDERS,
        service: Some("keepalived"),
        request: |context| {
            let vip = context.text("vip").unwrap_or_default();
            // Without an address `ip` would list all of them; the parser refuses that answer.
            let address = vip.split('/').next().unwrap_or_default();
            table::command(
                &["ip", "-json", "address", "show", "to", address],
                TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_holder(result)),
    },
];

/// [`STATE`]: the unit, as systemd shows it.
pub fn parse_state(result: &ProbeResult) -> Result<host::Unit, String> {
    let mut units = host::parse_unit_properties(result)?;
    units
        .remove(UNIT)
        .ok_or_else(|| format!("expected {UNIT}; it is not in the answer"))
}

/// [`VIP_HOLDERS`], of one host: whether it has the virtual address now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipOnHost {
    pub holds: bool,
    /// Interface → the address with its prefix.
    pub interfaces: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawInterface {
    ifname: Option<String>,
    #[serde(default)]
    addr_info: Vec<RawAddress>,
}

#[derive(Deserialize)]
struct RawAddress {
    local: Option<String>,
    prefixlen: Option<u8>,
}

pub fn parse_holder(result: &ProbeResult) -> Result<VipOnHost, String> {
    let mut interfaces = BTreeMap::new();
    for interface in table::json::<Vec<RawInterface>>(table::succeeded(result)?)? {
        for address in interface.addr_info {
            // `ip` leaves an empty entry for every address that it was not asked for.
            let Some(local) = address.local else { continue };
            let (Some(name), Some(prefix)) = (&interface.ifname, address.prefixlen) else {
                return Err("expected ifname and prefixlen; one is missing".to_owned());
            };
            if interfaces
                .insert(name.clone(), format!("{local}/{prefix}"))
                .is_some()
            {
                return Err(format!(
                    "expected one virtual address; {name} shows several"
                ));
            }
        }
    }
    Ok(VipOnHost {
        holds: !interfaces.is_empty(),
        interfaces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::exited;

    #[test]
    fn one_host_has_the_address_and_the_other_has_not() {
        let holder =
            parse_holder(&exited(0, include_str!("captured/ip-address-vip.json"), "")).unwrap();
        assert!(holder.holds);
        assert_eq!(holder.interfaces["eth0"], "10.77.0.100/24");
        assert!(!parse_holder(&exited(0, "[]\n", "")).unwrap().holds);
        assert!(!parse_holder(&exited(0, "[{},{}]", "")).unwrap().holds);
        // Without an address to look for, `ip` shows all of them.
        assert!(parse_holder(&exited(0, include_str!("captured/ip-address.json"), "")).is_err());
        assert!(parse_holder(&exited(1, "", "Error: any valid prefix is expected")).is_err());
    }
}
