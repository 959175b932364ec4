//! G4 no person and no maintenance in the way, G5 one repair per failure domain.

use std::collections::BTreeSet;

use deploy_engine::model::HostName;

use super::{Gate, GateInput, HeldLock};
use crate::budget;

/// G4. What a person said or is doing counts more than any evidence. Held for a moment only: a silence may be lifted before
/// its end.
pub(super) fn nobody_in_the_way(input: &GateInput<'_>) -> Gate {
    let mut said = Vec::new();
    for form in &input.people.required {
        match input.people.signs.get(form) {
            None => return Gate::refuse(format!("{form}: unknown, it was not asked")),
            Some(Err(why)) => return Gate::refuse(format!("{form}: unknown, {why}")),
            Some(Ok(signs)) => said.extend(signs.iter().map(|sign| match sign.until {
                Some(until) => format!("{form}: {}, until {until:.0}", sign.what),
                None => format!("{form}: {}", sign.what),
            })),
        }
    }
    if input.people.required.is_empty() {
        return Gate::refuse("nobody was asked at all");
    }
    if said.is_empty() {
        return Gate::pass("nobody says hands off");
    }
    Gate::hold_briefly(input.now, said.join("; "))
}

/// G5. The lock is taken, with a growing token that hosts check, when the job starts; here it must be free, no other repair may
/// act on the same hosts or in the same rack, and the last one in this domain must have left it in proven health.
pub(super) fn one_repair_per_domain(input: &GateInput<'_>) -> Gate {
    let held = match &input.locks.held {
        Err(why) => return Gate::refuse(format!("it is unknown which repairs run: {why}")),
        Ok(held) => held,
    };
    for lock in held {
        if lock.scope == input.locks.scope {
            return Gate::hold_briefly(
                input.now,
                format!("{} is held by job {}", lock.scope, lock.job),
            );
        }
        if let Some(host) = lock.hosts.intersection(&input.plan.hosts).next() {
            return Gate::hold_briefly(
                input.now,
                format!("job {} ({}) acts on {host}", lock.job, lock.scope),
            );
        }
        if let Some(rack) = shared_rack(input, lock) {
            return Gate::hold_briefly(
                input.now,
                format!("job {} ({}) acts in rack {rack}", lock.job, lock.scope),
            );
        }
    }
    let own = input.budget.own_job.as_deref();
    match budget::unproven(input.budget.ledger, &input.locks.scope, own) {
        Some(last) => Gate::Refuse {
            why: format!(
                "{} is not released: job {} was not proven, and only proven health or a person releases it",
                input.locks.scope, last.job
            ),
            evidence: vec![format!(
                "{} by {} at {:.0}; `clear {} REASON` releases it",
                last.runbook, last.by, last.at, last.job
            )],
        },
        None => Gate::pass(format!("{} is free", input.locks.scope)),
    }
}

fn shared_rack<'i>(input: &'i GateInput<'_>, lock: &HeldLock) -> Option<&'i String> {
    let racks = |hosts: &BTreeSet<HostName>| -> BTreeSet<&'i String> {
        let racks = hosts.iter().filter_map(|host| input.plan.racks.get(host));
        racks.collect()
    };
    let own = racks(&input.plan.hosts);
    own.intersection(&racks(&lock.hosts)).next().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::RepairOutcome,
        decision::testing::host,
        gate::{
            maintenance::{FORMS, Form, Sign},
            testing::{Site, expect_with, now, spent},
        },
    };

    #[test]
    fn g4_each_form_holds_and_refuses_when_unknown() {
        let g4 = |change: &dyn Fn(&mut GateInput<'_>), kind: &str, part: &str| {
            expect_with(nobody_in_the_way, change, kind, part);
        };
        g4(&|_| (), "pass", "nobody says hands off");
        for form in FORMS.iter().map(|entry| entry.form) {
            let name = form.to_string();
            let require = |i: &mut GateInput<'_>| i.people.required.extend([form]);
            g4(
                &|i| {
                    require(i);
                    i.people
                        .signs
                        .insert(form, Ok(vec![Sign::new("disk swap")]));
                },
                "hold",
                &format!("{name}: disk swap"),
            );
            g4(
                &|i| {
                    require(i);
                    i.people.signs.insert(form, Err("no answer".into()));
                },
                "refuse",
                &format!("{name}: unknown, no answer"),
            );
            g4(
                &|i| {
                    require(i);
                    i.people.signs.remove(&form);
                },
                "refuse",
                &format!("{name}: unknown, it was not asked"),
            );
        }
        g4(&|i| i.people.required.clear(), "refuse", "nobody was asked");
        let sign = Sign {
            what: "by bob: disk swap".into(),
            until: Some(now()),
        };
        g4(
            &|i| drop(i.people.signs.insert(Form::Silence, Ok(vec![sign.clone()]))),
            "hold",
            "silence: by bob: disk swap, until 2027-01-15T08:00:00Z",
        );
    }

    #[test]
    fn g5_locks_of_cluster_host_and_rack() {
        let lock = |scope: &str, on: &str| HeldLock {
            scope: scope.into(),
            job: "j1".into(),
            hosts: [host(on)].into(),
        };
        for (held, kind, part) in [
            (lock("domain:memcached", "h9"), "hold", "held by job j1"),
            (lock("domain:rabbitmq", "h1"), "hold", "acts on h1"),
            (lock("domain:rabbitmq", "h4"), "hold", "acts in rack r1"),
            (lock("domain:rabbitmq", "h2"), "pass", "free"),
        ] {
            let change = |i: &mut GateInput<'_>| i.locks.held = Ok(vec![held.clone()]);
            expect_with(one_repair_per_domain, change, kind, part);
        }
        let unknown = |i: &mut GateInput<'_>| i.locks.held = Err("disk".into());
        expect_with(one_repair_per_domain, unknown, "refuse", "unknown which");
    }

    #[test]
    fn g5_is_released_by_proven_health_or_a_person_never_by_time() {
        let judged = |ledger: Vec<budget::Spent>| {
            let mut site = Site::new();
            site.ledger = ledger;
            one_repair_per_domain(&site.input())
        };
        let failed = spent(
            "j1",
            "RMQ-2",
            "domain:memcached",
            40 * 24 * 60,
            RepairOutcome::Unverified,
        );
        let gate = judged(vec![failed.clone()]);
        assert!(
            gate.why().contains("job j1 was not proven"),
            "after forty days too: {gate:?}"
        );
        let proven = spent(
            "j2",
            "redeploy",
            "domain:memcached",
            5,
            RepairOutcome::Verified,
        );
        assert!(judged(vec![failed.clone(), proven]).passes());
        let cleared = budget::Spent {
            cleared: Some(budget::Cleared {
                by: "ann".into(),
                at: now(),
                why: "looked at it".into(),
            }),
            ..failed
        };
        assert!(judged(vec![cleared]).passes());
    }
}
