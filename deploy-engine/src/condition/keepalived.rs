//! keepalived: runs everywhere, and exactly one host has the virtual address.

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings, host,
        keepalived::{self, VipOnHost},
    },
};

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "vip.one_holder",
        doc: "every member was asked and exactly one has the virtual address",
        asks: |call| table::ask_members(call, keepalived::VIP_HOLDERS),
        judge: judge_one_holder,
    },
    Entry {
        name: "vip.no_holder",
        doc: "every member was asked and none has the virtual address",
        asks: |call| table::ask_members(call, keepalived::VIP_HOLDERS),
        judge: |call, readings| match holders(call, readings) {
            Err(judgement) => judgement,
            Ok(holders) => match holders.first() {
                None => holds("no member has the virtual address"),
                Some(one) => refuted(format!("{one} has the virtual address")),
            },
        },
    },
    Entry {
        name: "keepalived.healthy",
        doc: "keepalived runs on the hosts, and the virtual address is on at most one member",
        asks: |call| {
            let mut asks = table::ask_hosts(call, keepalived::STATE);
            asks.extend(table::ask_members(call, keepalived::VIP_HOLDERS));
            asks
        },
        judge: judge_healthy,
    },
    Entry {
        name: "keepalived.may_stop",
        doc: "another member runs keepalived and can take the address over",
        asks: |call| table::ask_members(call, keepalived::STATE),
        judge: judge_may_stop,
    },
];

/// Members that have the address; an answer that is missing makes it unknown, for it may be the second holder.
fn holders(call: &ConditionCall, readings: &Readings) -> Result<Vec<HostName>, Judgement> {
    let mut holders = Vec::new();
    for member in &call.members {
        let on_host: VipOnHost = readings
            .get(keepalived::VIP_HOLDERS, member)
            .map_err(unknown)?;
        if on_host.holds {
            holders.push(member.clone());
        }
    }
    Ok(holders)
}

fn judge_one_holder(call: &ConditionCall, readings: &Readings) -> Judgement {
    match holders(call, readings).as_deref() {
        Err(judgement) => judgement.clone(),
        Ok([one]) => holds(format!("{one} has the virtual address")),
        Ok([]) => not_yet("no member has the virtual address"),
        Ok(several) => not_yet(format!(
            "{} have the virtual address",
            several
                .iter()
                .map(HostName::as_str)
                .collect::<Vec<_>>()
                .join(" and ")
        )),
    }
}

fn runs(member: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<host::Unit>(keepalived::STATE, member) {
        Ok(unit) if unit.is_active() => holds(format!("keepalived runs on {member}")),
        Ok(unit) => not_yet(format!(
            "keepalived on {member} is {} ({})",
            unit.active, unit.sub
        )),
        Err(why) => unknown(why),
    }
}

fn judge_healthy(call: &ConditionCall, readings: &Readings) -> Judgement {
    let running = all(call.hosts.iter().map(|member| runs(member, readings)));
    if !running.holds() {
        return running;
    }
    // During a first start other members may not be up; they are judged when it is their turn. Two holders are always wrong.
    let known: Vec<&HostName> = call
        .members
        .iter()
        .filter(|member| {
            readings
                .get::<VipOnHost>(keepalived::VIP_HOLDERS, member)
                .is_ok_and(|on_host| on_host.holds)
        })
        .collect();
    if known.len() > 1 {
        return not_yet("several members have the virtual address");
    }
    running
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    if call.members.len() == 1 {
        return holds(format!(
            "{} is the only member: its stop is an outage",
            call.hosts[0]
        ));
    }
    let others: Vec<Judgement> = others(call)
        .iter()
        .map(|member| runs(member, readings))
        .collect();
    if others.is_empty() {
        return refuted("all members would be stopped at once");
    }
    match others.iter().find(|judgement| judgement.holds()) {
        Some(one) => one.clone(),
        None => all(others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, table::testing};

    const MEMBERS: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

    /// One character a member: `v` has the address, `-` has not, `d` has not and keepalived is down, `?` unknown.
    fn judged(name: &str, states: &str) -> (&'static str, String) {
        let mut readings = Readings::default();
        for (host, state) in MEMBERS.into_iter().zip(states.chars()) {
            if state == '?' {
                testing::unknown(&mut readings, keepalived::VIP_HOLDERS, host);
                testing::unknown(&mut readings, keepalived::STATE, host);
                continue;
            }
            let on_host = VipOnHost {
                holds: state == 'v',
                interfaces: Default::default(),
            };
            testing::known(&mut readings, keepalived::VIP_HOLDERS, host, &on_host);
            let unit = host::Unit {
                load: "loaded".to_owned(),
                active: if state == 'd' { "failed" } else { "active" }.to_owned(),
                sub: "running".to_owned(),
                result: "success".to_owned(),
                restarts: 0,
                enabled: "enabled".to_owned(),
                active_since_monotonic_us: 1,
                inactive_since_monotonic_us: 0,
            };
            testing::known(&mut readings, keepalived::STATE, host, &unit);
        }
        let condition = condition::find(name).expect("a condition");
        let judgement = condition.judge(
            &testing::call(name, "keepalived", &["ctl1"], &MEMBERS),
            &readings,
        );
        let word = match judgement {
            Judgement::Holds { .. } => "holds",
            Judgement::NotYet { .. } => "not yet",
            Judgement::Refuted { .. } => "refuted",
            Judgement::Unknown { .. } => "unknown",
        };
        (word, judgement.why().to_owned())
    }

    #[rstest::rstest]
    #[case("vip.one_holder", "v--", "holds")]
    #[case("vip.one_holder", "---", "not yet")]
    #[case("vip.one_holder", "vv-", "not yet")]
    #[case::the_silent_one_may_hold_it_too("vip.one_holder", "v-?", "unknown")]
    #[case("keepalived.healthy", "v--", "holds")]
    #[case("keepalived.healthy", "d--", "not yet")]
    #[case("keepalived.healthy", "-vv", "not yet")]
    #[case("keepalived.healthy", "?--", "unknown")]
    #[case("keepalived.may_stop", "v--", "holds")]
    #[case("keepalived.may_stop", "v-?", "holds")]
    #[case("keepalived.may_stop", "vdd", "not yet")]
    #[case("keepalived.may_stop", "v??", "unknown")]
    fn the_address_and_its_keepers(
        #[case] name: &str,
        #[case] states: &str,
        #[case] expected: &str,
    ) {
        let (found, why) = judged(name, states);
        assert_eq!(found, expected, "{why}");
    }
}
