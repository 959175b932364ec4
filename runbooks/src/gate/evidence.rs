//! G1 fresh evidence, G2 two independent sources, G3 monitoring that can be trusted.

use collectors::watchdog::Watchdog;

use super::{Gate, GateInput, Phase};

/// G1. Between steps the first act needs a young decision; after it every step's own guard asks anew, for the metrics of a
/// service under repair are not those that it was decided on.
pub(super) fn fresh(input: &GateInput<'_>) -> Gate {
    match &input.evidence.clock_off_seconds {
        Err(why) => {
            return Gate::refuse(format!(
                "it is unknown whether the bot's clock is right: {why}"
            ));
        }
        Ok(off) if *off > input.limits.clock_off_seconds => {
            return Gate::refuse(format!(
                "the bot's clock and that of a host differ by {off:.1} s, expected at most {} s",
                input.limits.clock_off_seconds
            ));
        }
        Ok(_) => {}
    }
    match input.phase {
        Phase::Starting => start_is_fresh(input),
        Phase::Step { acted: true, .. } => Gate::pass("under way: every step's guard asks anew"),
        Phase::Step { decided_at, .. } => {
            let age = input.now.duration_since(decided_at).as_secs();
            if age <= input.limits.plan_age_seconds {
                Gate::pass(format!("decided {age} s ago"))
            } else {
                Gate::refuse(format!(
                    "the decision is {age} s old, expected at most {} s",
                    input.limits.plan_age_seconds
                ))
            }
        }
    }
}

fn start_is_fresh(input: &GateInput<'_>) -> Gate {
    let rules = match &input.evidence.metric {
        Err(why) => return Gate::refuse(format!("what Prometheus says is unknown: {why}")),
        Ok(rules) => rules,
    };
    let mut firing = 0;
    for rule in rules {
        if let Some(error) = &rule.error {
            return Gate::refuse(format!(
                "the rule of {} cannot be evaluated: {error}",
                rule.alert
            ));
        }
        let age = input.now.duration_since(rule.last_evaluation);
        if age > rule.interval * input.limits.metric_intervals {
            return Gate::refuse(format!(
                "the rule of {} was last evaluated {} s ago, its interval is {} s",
                rule.alert,
                age.as_secs(),
                rule.interval.as_secs()
            ));
        }
        firing += usize::from(rule.firing);
    }
    if firing == 0 {
        return Gate::hold_briefly(
            input.now,
            "no alert of this incident fires in Prometheus right now",
        );
    }
    let limit = input.limits.direct_age_seconds;
    let old = |age: i64| !(0..=limit).contains(&age);
    match input
        .evidence
        .direct
        .iter()
        .find(|one| old(input.now.duration_since(one.at).as_secs()))
    {
        Some(one) => Gate::refuse(format!(
            "{} of {} was asked {} s ago, expected at most {limit} s",
            one.probe,
            one.host,
            input.now.duration_since(one.at).as_secs()
        )),
        None => Gate::pass(format!(
            "{firing} rules fire, {} direct answers, all fresh",
            input.evidence.direct.len()
        )),
    }
}

/// G2: what Prometheus saw through an exporter, and what the bot asked itself over SSH. Two alerts from one Prometheus are one
/// source; so are two probes of one host.
pub(super) fn two_sources(input: &GateInput<'_>) -> Gate {
    if let Phase::Step { .. } = input.phase {
        return Gate::pass(
            "two sources were there when it was decided; every step's guard asks the hosts",
        );
    }
    let metric = input
        .evidence
        .metric
        .as_ref()
        .is_ok_and(|rules| rules.iter().any(|rule| rule.firing));
    let direct = input.evidence.direct.iter().filter(|one| one.known).count();
    match (metric, direct) {
        (true, 1..) => Gate::pass(format!(
            "Prometheus, and {direct} answers taken by the bot itself"
        )),
        (true, 0) => Gate::refuse("only Prometheus says so: the bot could not ask any host itself"),
        (false, _) => match &input.evidence.metric {
            Ok(_) => Gate::hold_briefly(
                input.now,
                "only the bot's own probes say so: no rule fires in Prometheus",
            ),
            Err(why) => Gate::refuse(format!(
                "only the bot's own probes say so: Prometheus does not answer: {why}"
            )),
        },
    }
}

/// G3.
pub(super) fn monitoring(input: &GateInput<'_>) -> Gate {
    match input.monitoring.watchdog {
        Watchdog::Fresh { .. } => {}
        Watchdog::Missing { since: Some(since) } => {
            return Gate::hold_briefly(
                input.now,
                format!("the Watchdog alert was last seen at {since:.0}: automation stands still"),
            );
        }
        Watchdog::Missing { since: None } => {
            return Gate::hold_briefly(
                input.now,
                "the Watchdog alert was never seen: automation stands still",
            );
        }
    }
    let health = match &input.monitoring.targets {
        Err(why) => return Gate::refuse(format!("it is unknown how many targets are down: {why}")),
        Ok(health) => health,
    };
    match health.share_down() {
        None => Gate::refuse("Prometheus has no targets: it sees nothing"),
        Some(share)
            if share > input.limits.targets_down_share
                && health.down > input.limits.targets_down_at_least =>
        {
            Gate::hold_briefly(
                input.now,
                format!(
                    "{} targets are down ({:.0} %): the monitoring or the network is the likely cause",
                    health.down,
                    share * 100.0
                ),
            )
        }
        Some(_) => Gate::pass(format!("Watchdog fresh, {} targets down", health.down)),
    }
}

#[cfg(test)]
mod tests {
    use collectors::prometheus::TargetHealth;
    use jiff::SignedDuration;

    use super::*;
    use crate::gate::testing::{Site, expect, now};

    #[test]
    fn g1() {
        let case = |change: fn(&mut GateInput<'_>), kind, part| expect(fresh, change, kind, part);
        case(|_| (), "pass", "1 rules fire, 2 direct answers");
        case(
            |i| i.evidence.metric = Err("timed out".into()),
            "refuse",
            "what Prometheus says is unknown: timed out",
        );
        case(
            |i| i.evidence.metric.as_mut().unwrap()[0].error = Some("bad".into()),
            "refuse",
            "cannot be evaluated: bad",
        );
        case(
            |i| {
                i.evidence.metric.as_mut().unwrap()[0].last_evaluation =
                    now() - SignedDuration::from_secs(31)
            },
            "refuse",
            "31 s ago",
        );
        case(
            |i| i.evidence.metric.as_mut().unwrap()[0].firing = false,
            "hold",
            "no alert of this incident fires",
        );
        case(
            |i| i.evidence.metric = Ok(vec![]),
            "hold",
            "no alert of this incident fires",
        );
        case(
            |i| i.evidence.direct[1].at = now() - SignedDuration::from_secs(31),
            "refuse",
            "asked 31 s ago",
        );
        case(
            |i| i.evidence.direct[1].at = now() + SignedDuration::from_secs(9),
            "refuse",
            "asked -9 s ago",
        );
        case(
            |i| i.evidence.clock_off_seconds = Ok(6.0),
            "refuse",
            "differ by 6.0 s",
        );
        case(
            |i| i.evidence.clock_off_seconds = Err("no facts".into()),
            "refuse",
            "unknown whether",
        );
        case(
            |i| i.phase = Site::step(601, false),
            "refuse",
            "the decision is 601 s old",
        );
        case(
            |i| i.phase = Site::step(600, false),
            "pass",
            "decided 600 s ago",
        );
        case(|i| i.phase = Site::step(6_000, true), "pass", "under way");
    }

    #[test]
    fn g2() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(two_sources, change, kind, part);
        case(|_| (), "pass", "2 answers taken by the bot");
        case(
            |i| {
                i.evidence
                    .direct
                    .iter_mut()
                    .for_each(|one| one.known = false)
            },
            "refuse",
            "only Prometheus says so",
        );
        case(
            |i| i.evidence.direct.clear(),
            "refuse",
            "only Prometheus says so",
        );
        case(
            |i| i.evidence.metric = Ok(vec![]),
            "hold",
            "only the bot's own probes",
        );
        case(
            |i| i.evidence.metric = Err("down".into()),
            "refuse",
            "Prometheus does not answer: down",
        );
    }

    #[test]
    fn g3() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(monitoring, change, kind, part);
        case(|_| (), "pass", "Watchdog fresh, 1 targets down");
        case(
            |i| i.monitoring.watchdog = Watchdog::Missing { since: None },
            "hold",
            "never seen",
        );
        case(
            |i| i.monitoring.watchdog = Watchdog::Missing { since: Some(now()) },
            "hold",
            "last seen at",
        );
        case(
            |i| i.monitoring.targets = Err("refused".into()),
            "refuse",
            "how many targets are down: refused",
        );
        case(
            |i| i.monitoring.targets = Ok(TargetHealth::default()),
            "refuse",
            "has no targets",
        );
        case(
            |i| {
                i.monitoring.targets = Ok(TargetHealth {
                    up: 20,
                    down: 4,
                    unknown: 0,
                })
            },
            "hold",
            "4 targets are down (17 %)",
        );
        case(
            |i| {
                i.monitoring.targets = Ok(TargetHealth {
                    up: 10,
                    down: 3,
                    unknown: 0,
                })
            },
            "pass",
            "3 targets down",
        );
        case(
            |i| {
                i.monitoring.targets = Ok(TargetHealth {
                    up: 90,
                    down: 10,
                    unknown: 0,
                })
            },
            "pass",
            "10 targets down",
        );
    }
}
