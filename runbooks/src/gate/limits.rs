//! G6 blast radius, G7 budgets, G8 storm.

use std::collections::BTreeSet;

use deploy_engine::model::HostName;

use super::{Gate, GateInput};
use crate::{
    budget,
    decision::{majority, names},
    format::Blast,
    storm::Storm,
};

/// G6. Members that are down already, and those that other repairs work on, count as gone.
pub(super) fn blast_radius(input: &GateInput<'_>) -> Gate {
    let blast = &input.blast;
    if !blast.same_elsewhere.is_empty() {
        return Gate::refuse(format!(
            "the same symptom is in other failure domains: {}",
            blast.same_elsewhere.join(", ")
        ));
    }
    let members = blast.members.len();
    if blast.affected.is_empty() || !blast.affected.is_subset(&blast.members) {
        return Gate::refuse(format!(
            "{} are acted on, expected some of the {members} members",
            names(&blast.affected)
        ));
    }
    let at_most = ((members as f64 * input.limits.blast_share) as usize).max(1);
    match blast.radius {
        Blast::Cluster => return Gate::pass("the service is down as a whole, and no other one"),
        Blast::Member if blast.affected.len() > at_most => {
            return Gate::refuse(format!(
                "{} of {members} members are affected, at most {at_most} at once: a common cause",
                blast.affected.len(),
            ));
        }
        // One alone has no majority to lose.
        Blast::Member if members == 1 => return Gate::pass("the only member"),
        Blast::Member | Blast::Minority => {}
    }
    let racks: BTreeSet<&String> = blast
        .affected
        .iter()
        .filter_map(|host| input.plan.racks.get(host))
        .collect();
    if racks.len() > 1 {
        return Gate::refuse(format!(
            "the symptom is in {} racks: more than one failure domain",
            racks.len()
        ));
    }
    let gone = gone(input);
    let (left, needed) = (members.saturating_sub(gone.len()), majority(members));
    if left < needed && members > 2 {
        return Gate::Refuse {
            why: format!("{left} of {members} members would be left, expected at least {needed}"),
            evidence: vec![format!("gone: {}", names(&gone))],
        };
    }
    Gate::pass(format!("{left} of {members} members are left"))
}

/// Members that do not count as there: broken, away, or worked on by another repair.
pub(super) fn gone(input: &GateInput<'_>) -> BTreeSet<HostName> {
    let blast = &input.blast;
    let held = input.locks.held.iter().flatten();
    let in_repair = held.flat_map(|lock| lock.hosts.iter());
    let gone = blast.affected.iter().chain(&blast.away).chain(in_repair);
    gone.filter(|host| blast.members.contains(*host))
        .cloned()
        .collect()
}

/// G7.
pub(super) fn budgets(input: &GateInput<'_>) -> Gate {
    let facts = &input.budget;
    budget::judge(
        facts.budget,
        facts.ledger,
        facts.runbook,
        &facts.targets,
        facts.own_job.as_deref(),
        input.now,
    )
}

/// G8.
pub(super) fn storm(input: &GateInput<'_>) -> Gate {
    match input.storm {
        Storm::Calm => Gate::pass("no storm"),
        Storm::Raging { since } => Gate::hold_briefly(
            input.now,
            format!("too much breaks at once since {since:.0}: automation stands still"),
        ),
        Storm::CoolingDown { quiet_since, .. } => Gate::hold_briefly(
            input.now,
            format!("a storm is over since {quiet_since:.0}, and must stay so for a while"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::{AUTOMATION, RepairOutcome, Spent},
        decision::testing::host,
        format::RunbookId,
        gate::{
            HeldLock,
            testing::{expect, expect_with, now},
        },
    };

    fn many(count: usize) -> BTreeSet<HostName> {
        (1..=count).map(|n| host(&format!("h{n}"))).collect()
    }

    #[test]
    fn g6() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(blast_radius, change, kind, part);
        case(|_| (), "pass", "2 of 3 members are left");
        case(
            |i| i.blast.affected.extend([host("h2")]),
            "refuse",
            "2 of 3 members are affected",
        );
        case(
            |i| i.blast.away.extend([host("h2")]),
            "refuse",
            "1 of 3 members would be left",
        );
        case(
            |i| i.blast.same_elsewhere.push("domain:x".into()),
            "refuse",
            "other failure domains: domain:x",
        );
        case(
            |i| i.blast.affected.clear(),
            "refuse",
            "expected some of the 3 members",
        );
        case(
            |i| i.blast.members = [host("h1")].into(),
            "pass",
            "the only member",
        );
        case(
            |i| i.blast.members.clear(),
            "refuse",
            "some of the 0 members",
        );
        case(
            |i| {
                i.blast.radius = Blast::Minority;
                i.blast.away = [host("h2")].into();
            },
            "refuse",
            "1 of 3 members would be left",
        );
        case(
            |i| {
                (i.blast.radius, i.blast.members, i.blast.affected) =
                    (Blast::Minority, many(5), [host("h3"), host("h5")].into())
            },
            "pass",
            "3 of 5",
        );
        case(
            |i| {
                (i.blast.radius, i.blast.affected) =
                    (Blast::Cluster, [host("h1"), host("h2")].into())
            },
            "pass",
            "as a whole",
        );
        case(|i| i.blast.members = many(25), "pass", "24 of 25");
        case(
            |i| {
                i.blast.members = many(25);
                i.blast.affected = [host("h1"), host("h2")].into();
            },
            "refuse",
            "in 2 racks",
        );
        case(
            |i| {
                i.locks.held = Ok(vec![HeldLock {
                    scope: "domain:host.h3".into(),
                    job: "j1".into(),
                    hosts: [host("h3")].into(),
                }])
            },
            "refuse",
            "1 of 3 members would be left",
        );
    }

    #[test]
    fn g7() {
        let spent = Spent {
            job: "j1".into(),
            runbook: RunbookId("MEM-1".into()),
            targets: vec!["host:h1".into()],
            at: now(),
            by: AUTOMATION.into(),
            outcome: Some(RepairOutcome::Verified),
            ended_at: None,
            version: None,
            cleared: None,
        };
        let ledger = [spent];
        expect_with(
            budgets,
            |i| i.budget.ledger = &[],
            "pass",
            "0 of this here before",
        );
        let mut site = crate::gate::testing::Site::new();
        site.ledger = ledger.to_vec();
        let gate = budgets(&site.input());
        assert!(
            gate.why().contains("repaired 1 times here within 30 min"),
            "{gate:?}"
        );
    }

    #[test]
    fn g8() {
        let case = |change: fn(&mut GateInput<'_>), kind, part| expect(storm, change, kind, part);
        case(|_| (), "pass", "no storm");
        case(
            |i| i.storm = Storm::Raging { since: now() },
            "hold",
            "too much breaks at once",
        );
        case(
            |i| {
                i.storm = Storm::CoolingDown {
                    since: now(),
                    quiet_since: now(),
                }
            },
            "hold",
            "must stay so",
        );
    }
}
