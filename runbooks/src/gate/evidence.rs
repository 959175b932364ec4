//! G1 fresh evidence, G2 two independent sources, G3 monitoring that can be trusted.

use std::collections::BTreeMap;

use collectors::watchdog::Watchdog;
use deploy_engine::model::HostName;
use jiff::SignedDuration;

use super::{
    Direct, Gate, GateInput, MetricPath, Phase,
    sources::{Lean, of_probe, of_query, shared},
};

/// Readings of logs that a verdict tells.
const LINES_TOLD: usize = 3;

/// G1. Until something was changed, the alerts must fire and the decision must be young; from then on only the hosts' own
/// answers count, for the metrics of a service under repair are not those that it was decided on.
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
    let not_fresh = match input.phase {
        Phase::Starting => metric_not_fresh(input).or_else(|| direct_not_fresh(input)),
        Phase::Step { acted: true, .. } => direct_not_fresh(input),
        Phase::Step { decided_at, .. } => plan_too_old(input, decided_at)
            .or_else(|| metric_not_fresh(input))
            .or_else(|| direct_not_fresh(input)),
    };
    not_fresh.unwrap_or_else(|| {
        Gate::pass(format!(
            "{} of the incident's rules fire, {} direct answers, all fresh",
            firing(input).count(),
            input.evidence.direct.len()
        ))
    })
}

fn plan_too_old(input: &GateInput<'_>, decided_at: jiff::Timestamp) -> Option<Gate> {
    let age = input.now.duration_since(decided_at).as_secs();
    (age > input.limits.plan_age_seconds).then(|| {
        Gate::refuse(format!(
            "the decision is {age} s old, expected at most {} s",
            input.limits.plan_age_seconds
        ))
    })
}

fn firing<'i>(input: &'i GateInput<'_>) -> impl Iterator<Item = &'i MetricPath> {
    let rules = input.evidence.metric.iter().flatten();
    rules.filter(|rule| rule.firing)
}

/// The rules were evaluated a moment ago, what they are about was scraped a moment ago, and one of them fires.
fn metric_not_fresh(input: &GateInput<'_>) -> Option<Gate> {
    let rules = match &input.evidence.metric {
        Err(why) => {
            return Some(Gate::refuse(format!(
                "what Prometheus says is unknown: {why}"
            )));
        }
        Ok(rules) => rules,
    };
    for rule in rules {
        if let Some(error) = &rule.error {
            return Some(Gate::refuse(format!(
                "the rule of {} cannot be evaluated: {error}",
                rule.alert
            )));
        }
        let age = input.now.duration_since(rule.last_evaluation);
        let stale = not_young(input, age, rule.interval, || {
            format!("the rule of {} was last evaluated", rule.alert)
        });
        if stale.is_some() {
            return stale;
        }
    }
    if let Some(stale) = scrape_not_fresh(input) {
        return Some(stale);
    }
    if firing(input).next().is_some() {
        return None;
    }
    let why = "no alert of this incident fires in Prometheus right now";
    Some(match input.phase {
        Phase::Starting => Gate::hold_briefly(input.now, why),
        Phase::Step { .. } => Gate::refuse(format!("{why}: it may have mended itself")),
    })
}

fn scrape_not_fresh(input: &GateInput<'_>) -> Option<Gate> {
    let scrapes = match &input.evidence.scrapes {
        Err(why) => {
            return Some(Gate::refuse(format!(
                "how old the samples are is unknown: {why}"
            )));
        }
        Ok(scrapes) => scrapes,
    };
    // A host of which nothing is scraped is judged by the rules alone.
    let of_hosts = input.plan.hosts.iter();
    let found = of_hosts.filter_map(|host| Some((host, scrapes.get(host)?)));
    let mut stale = found.filter_map(|(host, scrape)| {
        let age = input.now.duration_since(scrape.last);
        not_young(input, age, scrape.interval, || {
            format!("{host} was last scraped")
        })
    });
    stale.next()
}

/// What is late by less than the limit itself is waited for: a busy Prometheus catches up, and a refusal would wake somebody. What is
/// older is stale.
fn not_young(
    input: &GateInput<'_>,
    age: SignedDuration,
    interval: SignedDuration,
    what: impl FnOnce() -> String,
) -> Option<Gate> {
    let limit = interval * input.limits.metric_intervals;
    if age <= limit {
        return None;
    }
    let why = format!(
        "{} {:.1} s ago, its interval is {:.0} s",
        what(),
        age.as_secs_f64(),
        interval.as_secs_f64()
    );
    Some(match age <= limit * 2 {
        true => Gate::hold_briefly(input.now, why),
        false => Gate::refuse(why),
    })
}

fn direct_not_fresh(input: &GateInput<'_>) -> Option<Gate> {
    let limit = input.limits.direct_age_seconds;
    let age = |one: &Direct| input.now.duration_since(one.at).as_secs();
    let mut answers = input.evidence.direct.iter();
    let old = answers.find(|one| !(0..=limit).contains(&age(one)))?;
    Some(Gate::refuse(format!(
        "{} of {} was asked {} s ago, expected at most {limit} s",
        old.probe,
        old.host,
        age(old)
    )))
}

/// Hosts that answered the bot themselves in a way that does not share a failure with the rule; or what is shared.
pub(super) fn independent<'i>(
    input: &'i GateInput<'_>,
    query: Option<&str>,
) -> Result<BTreeMap<&'i HostName, Vec<&'i str>>, Option<Lean>> {
    let on = query.map(of_query).unwrap_or_default();
    let (mut hosts, mut common) = (BTreeMap::<_, Vec<&str>>::new(), None);
    for one in input.evidence.direct.iter().filter(|one| one.known) {
        let Some(leans) = of_probe(&one.probe).filter(|leans| !leans.contains(&Lean::Log)) else {
            continue;
        };
        match shared(&on, &leans) {
            Some(lean) => common = Some(lean),
            None => hosts.entry(&one.host).or_default().push(&one.probe),
        }
    }
    if hosts.is_empty() {
        Err(common)
    } else {
        Ok(hosts)
    }
}

/// G2: what Prometheus saw through an exporter, or Icinga by a check of its own, and what the bot asked itself over SSH. Two alerts from one Prometheus are one
/// source; so are two probes of one host, and whatever leans on the same exporter or load balancer ([`super::sources`]).
pub(super) fn two_sources(input: &GateInput<'_>) -> Gate {
    with_lines(input, without_lines(input))
}

/// Lines of a log are told beside the two; whatever they say, they change no verdict.
fn with_lines(input: &GateInput<'_>, gate: Gate) -> Gate {
    let lines = &input.evidence.log_lines;
    if lines.is_empty() {
        return gate;
    }
    let shown = lines.iter().take(LINES_TOLD).map(String::as_str);
    let told = shown.collect::<Vec<_>>().join(", ");
    match gate {
        Gate::Pass { why } => Gate::Pass {
            why: format!("{why}; a log says so, too: {told}"),
        },
        Gate::Hold { until, why } => Gate::Hold {
            until,
            why: format!("{why}; a log says something ({told}), which is never one of two"),
        },
        Gate::Refuse { why, evidence } => Gate::Refuse {
            why: format!("{why}; a log says something ({told}), which is never one of two"),
            evidence,
        },
    }
}

fn without_lines(input: &GateInput<'_>) -> Gate {
    let rules = match &input.evidence.metric {
        Ok(rules) => rules,
        Err(why) => {
            return Gate::refuse(format!(
                "only the bot's own probes say so: Prometheus does not answer: {why}"
            ));
        }
    };
    if let Phase::Step { acted: true, .. } = input.phase {
        return match independent(input, None) {
            Ok(hosts) => Gate::pass(format!(
                "under way: Prometheus answers, and {} hosts do",
                hosts.len()
            )),
            Err(_) => Gate::refuse("under way, and no host answers the bot itself"),
        };
    }
    let (mut common, mut by) = (None, "Prometheus");
    for rule in rules.iter().filter(|rule| rule.firing) {
        match independent(input, Some(&rule.query)) {
            Ok(hosts) => {
                return Gate::pass(format!(
                    "{} ({}), and {} hosts asked by the bot itself",
                    rule.by(),
                    rule.alert,
                    hosts.len()
                ));
            }
            Err(lean) => (common, by) = (common.or(lean), rule.by()),
        }
    }
    let fires = rules.iter().any(|rule| rule.firing);
    match (fires, common) {
        (false, _) => Gate::hold_briefly(
            input.now,
            "only the bot's own probes say so: no rule fires in Prometheus, no check of it in Icinga",
        ),
        (true, Some(lean)) => Gate::refuse(format!(
            "{by} and the bot's own answers both lean on {lean}: that is one source"
        )),
        (true, None) => Gate::refuse(format!(
            "only {by} says so: the bot could not ask any host itself"
        )),
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
    let parts = [
        ("Prometheus", &input.monitoring.prometheus),
        ("Alertmanager", &input.monitoring.alertmanager),
    ];
    for (name, how) in parts {
        if let Err(why) = how {
            return Gate::refuse(format!("{name} is not well: {why}"));
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
        Some(_) => Gate::pass(format!(
            "Watchdog fresh, Prometheus and Alertmanager well, {} targets down",
            health.down
        )),
    }
}

#[cfg(test)]
mod tests {
    use collectors::prometheus::TargetHealth;

    use super::*;
    use crate::{
        decision::testing::host,
        gate::testing::{Site, expect, now},
    };

    #[test]
    fn g1() {
        let case = |change: fn(&mut GateInput<'_>), kind, part| expect(fresh, change, kind, part);
        case(
            |_| (),
            "pass",
            "1 of the incident's rules fire, 2 direct answers",
        );
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
                    now() - SignedDuration::from_secs(61)
            },
            "refuse",
            "61.0 s ago",
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
        case(|i| i.phase = Site::step(600, false), "pass", "all fresh");
        case(|i| i.phase = Site::step(6_000, true), "pass", "all fresh");
        case(
            |i| {
                i.phase = Site::step(1, false);
                i.evidence.metric = Ok(vec![]);
            },
            "refuse",
            "it may have mended itself",
        );
        case(
            |i| {
                let scrapes = i.evidence.scrapes.as_mut().unwrap();
                scrapes.get_mut(&host("h1")).unwrap().last = now() - SignedDuration::from_secs(61);
            },
            "refuse",
            "h1 was last scraped 61.0 s ago",
        );
        case(
            |i| i.evidence.scrapes = Err("refused".into()),
            "refuse",
            "how old the samples are is unknown",
        );
    }

    #[test]
    fn g2() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(two_sources, change, kind, part);
        case(|_| (), "pass", "Prometheus (MemcachedDown), and 2 hosts");
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
            |i| i.evidence.metric.as_mut().unwrap()[0].query = "icinga2:tcp".into(),
            "pass",
            "Icinga (MemcachedDown), and 2 hosts",
        );
        case(
            |i| {
                i.evidence.metric.as_mut().unwrap()[0].query = "icinga2:haproxy".into();
                for one in &mut i.evidence.direct {
                    one.probe = "haproxy.info".into();
                }
            },
            "refuse",
            "Icinga and the bot's own answers both lean on HAProxy",
        );
        case(
            |i| {
                i.evidence.metric.as_mut().unwrap()[0].query = "icinga2:tcp".into();
                i.evidence.direct.clear();
            },
            "refuse",
            "only Icinga says so",
        );
        case(
            |i| i.evidence.metric = Err("down".into()),
            "refuse",
            "Prometheus does not answer: down",
        );
        case(
            |i| {
                i.evidence.metric.as_mut().unwrap()[0].query = "haproxy_up == 0".into();
                for one in &mut i.evidence.direct {
                    one.probe = "haproxy.info".into();
                }
            },
            "refuse",
            "both lean on HAProxy",
        );
        case(
            |i| {
                for one in &mut i.evidence.direct {
                    one.probe = "log.errors".into();
                }
            },
            "refuse",
            "only Prometheus says so",
        );
        case(
            |i| {
                i.phase = Site::step(1, true);
                i.evidence.metric = Ok(vec![]);
            },
            "pass",
            "under way",
        );
    }

    #[test]
    fn a_log_is_a_third_source_and_never_one_of_two() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(two_sources, change, kind, part);
        case(
            |i| i.evidence.log_lines = vec!["memcached.x ×3".into()],
            "pass",
            "a log says so, too: memcached.x ×3",
        );
        case(
            |i| {
                i.evidence.log_lines = vec!["memcached.x ×3".into(); 9];
                i.evidence.direct.clear();
            },
            "refuse",
            "only Prometheus says so",
        );
        case(
            |i| {
                i.evidence.log_lines = vec!["memcached.x ×3".into(); 9];
                i.evidence.metric = Ok(vec![]);
            },
            "hold",
            "which is never one of two",
        );
        case(
            |i| {
                i.evidence.log_lines = vec!["memcached.x ×3".into(); 9];
                i.evidence.metric = Err("down".into());
                i.evidence.direct.clear();
            },
            "refuse",
            "Prometheus does not answer",
        );
    }

    #[test]
    fn g3() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(monitoring, change, kind, part);
        case(|_| (), "pass", "1 targets down");
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
            |i| i.monitoring.prometheus = Err("replays its log".into()),
            "refuse",
            "Prometheus is not well",
        );
        case(
            |i| i.monitoring.alertmanager = Err("refused".into()),
            "refuse",
            "Alertmanager is not well",
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
