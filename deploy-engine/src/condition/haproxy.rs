//! HAProxy: serves, with a configuration that it would also start with.

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings,
        haproxy::{self, ConfigCheck, Info},
    },
};

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "haproxy.healthy",
        doc: "the process answers on its socket and its monitor port says that it serves",
        asks: |call| {
            let mut asks = table::ask_hosts(call, haproxy::INFO);
            asks.extend(table::ask_hosts(call, haproxy::MONITOR));
            asks
        },
        judge: |call, readings| all(call.hosts.iter().map(|host| healthy(host, readings))),
    },
    Entry {
        name: "haproxy.config_valid",
        doc: "HAProxy accepts the configuration that is on the host",
        asks: |call| table::ask_hosts(call, haproxy::CONFIG_CHECK),
        judge: |call, readings| all(call.hosts.iter().map(|host| config_valid(host, readings))),
    },
    Entry {
        name: "haproxy.may_stop",
        doc: "the configuration is valid and another member serves (one alone: its stop is an outage)",
        asks: |call| {
            let mut asks = table::ask_hosts(call, haproxy::CONFIG_CHECK);
            asks.extend(table::ask_members(call, haproxy::INFO));
            asks.extend(table::ask_members(call, haproxy::MONITOR));
            asks
        },
        judge: judge_may_stop,
    },
];

fn healthy(host: &HostName, readings: &Readings) -> Judgement {
    let info: Info = match readings.get(haproxy::INFO, host) {
        Ok(info) => info,
        Err(why) => return unknown(why),
    };
    if info.stopping {
        return not_yet(format!(
            "{host} finishes its connections and takes no new ones"
        ));
    }
    match readings.get::<bool>(haproxy::MONITOR, host) {
        Ok(true) => holds(format!("{host} serves, version {}", info.version)),
        Ok(false) => not_yet(format!("{host}: the monitor port does not answer 200")),
        Err(why) => unknown(why),
    }
}

fn config_valid(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<ConfigCheck>(haproxy::CONFIG_CHECK, host) {
        Ok(check) if check.valid => holds(format!("{host} has a valid configuration")),
        Ok(check) => refuted(format!(
            "{host} has an invalid configuration: {}",
            check.message
        )),
        Err(why) => unknown(why),
    }
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    let valid = all(call.hosts.iter().map(|host| config_valid(host, readings)));
    if !valid.holds() || call.members.len() == 1 {
        return valid;
    }
    let others = others(call);
    let serving: Vec<&str> = others
        .iter()
        .filter(|host| healthy(host, readings).holds())
        .map(|host| host.as_str())
        .collect();
    if serving.is_empty() {
        return all(others
            .iter()
            .map(|host| healthy(host, readings))
            .chain([unknown("no other member is known to serve")]));
    }
    holds(format!("{} serve meanwhile", serving.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, table::testing};

    /// One character a member: `u` serves, `s` is stopping, `n` its monitor port says no, `?` unknown. ctl1 is to be stopped.
    fn judged(name: &str, states: &str, valid: bool) -> (&'static str, String) {
        let members = &["ctl1", "ctl2", "ctl3"][..states.len()];
        let mut readings = Readings::default();
        for (host, state) in members.iter().zip(states.chars()) {
            let check = ConfigCheck {
                valid,
                message: "unknown keyword".to_owned(),
            };
            testing::known(&mut readings, haproxy::CONFIG_CHECK, host, &check);
            if state == '?' {
                testing::unknown(&mut readings, haproxy::INFO, host);
                testing::unknown(&mut readings, haproxy::MONITOR, host);
                continue;
            }
            let info = Info {
                version: "2.6.12".to_owned(),
                pid: 1,
                uptime_seconds: 1,
                curr_conns: 0,
                stopping: state == 's',
            };
            testing::known(&mut readings, haproxy::INFO, host, &info);
            testing::known(&mut readings, haproxy::MONITOR, host, &(state != 'n'));
        }
        let condition = condition::find(name).expect("a condition");
        let judgement = condition.judge(
            &testing::call(name, "haproxy", &["ctl1"], members),
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
    #[case("haproxy.healthy", "uuu", true, "holds")]
    #[case("haproxy.healthy", "suu", true, "not yet")]
    #[case("haproxy.healthy", "nuu", true, "not yet")]
    #[case("haproxy.healthy", "?uu", true, "unknown")]
    #[case("haproxy.may_stop", "uu?", true, "holds")]
    #[case("haproxy.may_stop", "u??", true, "unknown")]
    #[case("haproxy.may_stop", "uss", true, "unknown")]
    #[case::an_invalid_file_would_not_start_again("haproxy.may_stop", "uuu", false, "refuted")]
    #[case::alone("haproxy.may_stop", "u", true, "holds")]
    fn serving(
        #[case] name: &str,
        #[case] states: &str,
        #[case] valid: bool,
        #[case] expected: &str,
    ) {
        let (found, why) = judged(name, states, valid);
        assert_eq!(found, expected, "{why}");
    }
}
