//! What each gate looked at, in words: the evidence behind its verdict, whatever the verdict is.

use std::collections::BTreeSet;

use collectors::watchdog::Watchdog;
use deploy_engine::model::HostName;

use super::{
    GateId, GateInput, Phase,
    evidence::independent,
    limits::gone,
    maintenance::Form,
    sources::{Lean, of_query},
};
use crate::{
    budget::{self, Spent},
    decision::names,
    storm::Storm,
};

/// Lines of one gate: enough to see why, short enough for a table at night.
const LINES: usize = 6;

pub(super) fn seen(id: GateId, input: &GateInput<'_>) -> Vec<String> {
    let mut lines = match id {
        GateId::G1 => fresh(input),
        GateId::G2 => sources(input),
        GateId::G3 => monitoring(input),
        GateId::G4 => people(input),
        GateId::G5 => locks(input),
        GateId::G6 => blast(input),
        GateId::G7 => budgets(input),
        GateId::G8 => storm(input),
        GateId::G9 => vec![format!(
            "recorded first: the state of {}; records are kept on {}",
            named(&input.plan.recorded),
            input
                .plan
                .kept_on
                .as_ref()
                .map_or("no host of this site", HostName::as_str)
        )],
        GateId::G10 => vec![format!(
            "acts on {}; unanswered: {}",
            named(&input.plan.hosts),
            named(&input.plan.unread)
        )],
        GateId::G11 => vec![match input.plan.unguarded.len() {
            0 => "a guard at every step that acts".to_owned(),
            count => format!("{count} steps without a guard"),
        }],
        GateId::G12 => vec![format!(
            "ends with a proof: {}; unproven jobs of this incident: {}",
            yes(input.plan.proof),
            listed(&input.plan.unproven)
        )],
        GateId::G13 => vec![format!(
            "the bot needs: {}",
            listed(
                &input
                    .plan
                    .bot_needs
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
            )
        )],
    };
    if lines.len() > LINES {
        let more = lines.len() - (LINES - 1);
        lines.truncate(LINES - 1);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn named(hosts: &BTreeSet<HostName>) -> String {
    if hosts.is_empty() {
        return "none".to_owned();
    }
    names(hosts)
}

fn listed(texts: &[String]) -> String {
    if texts.is_empty() {
        return "none".to_owned();
    }
    texts.join(", ")
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn unknown(what: &str, why: &str) -> Vec<String> {
    vec![format!("{what}: unknown, {why}")]
}

fn ago(input: &GateInput<'_>, at: jiff::Timestamp) -> String {
    format!("{} s ago", input.now.duration_since(at).as_secs())
}

fn fresh(input: &GateInput<'_>) -> Vec<String> {
    let mut lines = match &input.evidence.metric {
        Err(why) => unknown("rules", why),
        Ok(rules) => rules
            .iter()
            .map(|rule| {
                format!(
                    "{} {}, evaluated {}",
                    rule.alert,
                    if rule.firing {
                        "fires"
                    } else {
                        "does not fire"
                    },
                    ago(input, rule.last_evaluation)
                )
            })
            .collect(),
    };
    match &input.evidence.scrapes {
        Err(why) => lines.extend(unknown("scrapes", why)),
        Ok(scrapes) => {
            let own = scrapes
                .iter()
                .filter(|(host, _)| input.plan.hosts.contains(*host));
            lines.extend(own.map(|(host, one)| format!("{host} scraped {}", ago(input, one.last))));
        }
    }
    if let Some(oldest) = input.evidence.direct.iter().map(|one| one.at).min() {
        lines.push(format!("hosts asked {}", ago(input, oldest)));
    }
    match &input.evidence.clock_off_seconds {
        Ok(off) => lines.push(format!("clocks differ by {off:.1} s")),
        Err(why) => lines.extend(unknown("clocks", why)),
    }
    if let Phase::Step { decided_at, .. } = input.phase {
        lines.push(format!("decided {}", ago(input, decided_at)));
    }
    lines
}

fn sources(input: &GateInput<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let firing = input.evidence.metric.iter().flatten();
    for rule in firing.filter(|rule| rule.firing) {
        let on: Vec<String> = of_query(&rule.query).iter().map(Lean::to_string).collect();
        let through = match (on.is_empty(), rule.is_check()) {
            (false, _) => on.join(", "),
            (true, false) => "the scrape itself".to_owned(),
            (true, true) => "its own check".to_owned(),
        };
        lines.push(format!(
            "{} in {}, through {through}",
            rule.alert,
            rule.by()
        ));
    }
    match independent(input, None) {
        Ok(hosts) => lines.extend(
            hosts
                .iter()
                .map(|(host, probes)| format!("{host} itself: {}", probes.join(", "))),
        ),
        Err(_) => lines.push("no host answered the bot itself".to_owned()),
    }
    lines
}

fn monitoring(input: &GateInput<'_>) -> Vec<String> {
    let watchdog = match input.monitoring.watchdog {
        Watchdog::Fresh { last_seen } => format!("Watchdog {}", ago(input, last_seen)),
        Watchdog::Missing { since: Some(since) } => {
            format!("Watchdog missing, last {}", ago(input, since))
        }
        Watchdog::Missing { since: None } => "Watchdog never seen".to_owned(),
    };
    let well = |name: &str, how: &Result<(), String>| match how {
        Ok(()) => format!("{name} well"),
        Err(why) => format!("{name}: {why}"),
    };
    let targets = match &input.monitoring.targets {
        Ok(health) => format!("targets: {} up, {} down", health.up, health.down),
        Err(why) => format!("targets: unknown, {why}"),
    };
    vec![
        watchdog,
        well("Prometheus", &input.monitoring.prometheus),
        well("Alertmanager", &input.monitoring.alertmanager),
        targets,
    ]
}

fn people(input: &GateInput<'_>) -> Vec<String> {
    let of = |form: &Form| match input.people.signs.get(form) {
        None => format!("{form}: not asked"),
        Some(Err(why)) => format!("{form}: unknown, {why}"),
        Some(Ok(signs)) if signs.is_empty() => format!("{form}: none"),
        Some(Ok(signs)) => {
            let what: Vec<&str> = signs.iter().map(|sign| sign.what.as_str()).collect();
            format!("{form}: {}", what.join("; "))
        }
    };
    input.people.required.iter().map(of).collect()
}

fn locks(input: &GateInput<'_>) -> Vec<String> {
    let mut lines = vec![format!("wants {}", input.locks.scope)];
    match &input.locks.held {
        Err(why) => lines.extend(unknown("other repairs", why)),
        Ok(held) if held.is_empty() => lines.push("no other repair runs".to_owned()),
        Ok(held) => lines.extend(held.iter().map(|lock| {
            format!(
                "{} is held by job {} on {}",
                lock.scope,
                lock.job,
                named(&lock.hosts)
            )
        })),
    }
    let own = input.budget.own_job.as_deref();
    if let Some(last) = budget::unproven(input.budget.ledger, &input.locks.scope, own) {
        lines.push(format!("job {} was not proven", last.job));
    }
    lines
}

fn blast(input: &GateInput<'_>) -> Vec<String> {
    let blast = &input.blast;
    vec![
        format!(
            "broken: {} of {} members",
            named(&blast.affected),
            blast.members.len()
        ),
        format!("not there in all: {}", named(&gone(input))),
        format!("the same elsewhere: {}", listed(&blast.same_elsewhere)),
    ]
}

fn budgets(input: &GateInput<'_>) -> Vec<String> {
    let facts = &input.budget;
    let here = |one: &&Spent| budget::same_thing(one, facts.runbook, &facts.targets);
    let mut lines: Vec<String> = facts
        .ledger
        .iter()
        .rev()
        .filter(here)
        .filter(|one| facts.own_job.as_deref() != Some(&one.job))
        .take(LINES - 2)
        .map(|one| {
            format!(
                "{} by {} at {:.0} (job {})",
                one.runbook, one.by, one.at, one.job
            )
        })
        .collect();
    if lines.is_empty() {
        lines.push("no repair of this before".to_owned());
    }
    lines.push(format!(
        "{} repairs on record for the site",
        facts.ledger.len()
    ));
    lines
}

fn storm(input: &GateInput<'_>) -> Vec<String> {
    vec![match input.storm {
        Storm::Calm => "calm".to_owned(),
        Storm::Raging { since } => format!("raging since {since:.0}"),
        Storm::CoolingDown { since, quiet_since } => {
            format!("began {since:.0}, quiet since {quiet_since:.0}")
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Site, *};

    #[test]
    fn a_check_is_told_as_icingas() {
        let site = Site::new();
        let mut input = site.input();
        let told = |input: &GateInput<'_>| seen(GateId::G2, input)[0].clone();
        assert_eq!(
            told(&input),
            "MemcachedDown in Prometheus, through signs_exporter"
        );
        input.evidence.metric.as_mut().unwrap()[0].query = "icinga2:tcp".into();
        assert_eq!(
            told(&input),
            "MemcachedDown in Icinga, through its own check"
        );
    }
}
