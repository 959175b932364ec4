//! G6 blast radius, G7 budgets, G8 storm.

use super::{Gate, GateInput};
use crate::{budget, decision::majority, format::Blast, storm::Storm};

/// G6.
pub(super) fn blast_radius(input: &GateInput<'_>) -> Gate {
    let blast = &input.blast;
    if !blast.same_elsewhere.is_empty() {
        return Gate::refuse(format!(
            "the same symptom is in other failure domains: {}",
            blast.same_elsewhere.join(", ")
        ));
    }
    if blast.affected.is_empty() || blast.affected.len() > blast.members {
        return Gate::refuse(format!(
            "{} of {} members are acted on",
            blast.affected.len(),
            blast.members
        ));
    }
    let gone = blast.affected.union(&blast.away).count();
    let left = blast.members.saturating_sub(gone);
    let needed = majority(blast.members);
    let at_most = ((blast.members as f64 * input.limits.blast_share) as usize).max(1);
    match blast.radius {
        Blast::Cluster => Gate::pass("the service is down as a whole, and no other one"),
        Blast::Member if blast.affected.len() > at_most => Gate::refuse(format!(
            "{} of {} members are affected, at most {at_most} at once: a common cause",
            blast.affected.len(),
            blast.members
        )),
        // One alone has no majority to lose.
        Blast::Member if blast.members == 1 => Gate::pass("the only member"),
        Blast::Member | Blast::Minority if left < needed && blast.members > 2 => {
            Gate::refuse(format!(
                "{left} of {} members would be left, expected at least {needed}",
                blast.members
            ))
        }
        Blast::Member | Blast::Minority => {
            Gate::pass(format!("{left} of {} members are left", blast.members))
        }
    }
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
        gate::testing::{expect, expect_with, now},
    };

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
        case(|i| i.blast.affected.clear(), "refuse", "0 of 3 members");
        case(|i| i.blast.members = 1, "pass", "the only member");
        case(|i| i.blast.members = 0, "refuse", "1 of 0 members");
        case(
            |i| {
                (i.blast.radius, i.blast.affected) =
                    (Blast::Minority, [host("h1"), host("h2")].into())
            },
            "refuse",
            "1 of 3 members would be left",
        );
        case(
            |i| {
                (i.blast.radius, i.blast.members, i.blast.affected) =
                    (Blast::Minority, 5, [host("h1"), host("h2")].into())
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
        case(|i| i.blast.members = 25, "pass", "24 of 25");
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
            gate.why().contains("tried 1 times here within 30 min"),
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
