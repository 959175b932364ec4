//! G4 no person and no maintenance in the way, G5 one repair per failure domain.

use super::{Gate, GateInput};

/// G4. What a person said or is doing counts more than any evidence.
pub(super) fn nobody_in_the_way(input: &GateInput<'_>) -> Gate {
    let people = &input.people;
    if let Some(halt) = &people.halt {
        let why = if halt.why.is_empty() {
            String::new()
        } else {
            format!(": {}", halt.why)
        };
        return Gate::hold_briefly(
            input.now,
            format!("halted by {} at {:.0}{why}", halt.by, halt.at),
        );
    }
    match &people.silences {
        Err(why) => {
            return Gate::refuse(format!(
                "it is unknown whether somebody silenced this: {why}"
            ));
        }
        Ok(silences) => {
            if !silences.is_empty() {
                let texts = silences
                    .iter()
                    .map(|(text, until)| format!("{text}, until {until:.0}"));
                let texts: Vec<String> = texts.collect();
                // Asked again soon: a silence may be lifted before its end.
                return Gate::hold_briefly(input.now, format!("silenced: {}", texts.join("; ")));
            }
        }
    }
    for host in &input.plan.hosts {
        match people.markers.get(host) {
            None => {
                return Gate::refuse(format!(
                    "it is unknown whether {host} is in maintenance: it was not asked"
                ));
            }
            Some(Err(why)) => {
                return Gate::refuse(format!(
                    "it is unknown whether {host} is in maintenance: {why}"
                ));
            }
            Some(Ok(Some(marker))) => {
                return Gate::hold_briefly(
                    input.now,
                    format!("{host} is marked as in maintenance: {marker}"),
                );
            }
            Some(Ok(None)) => {}
        }
    }
    match &people.deploys {
        Err(why) => Gate::refuse(format!("it is unknown whether a deploy runs: {why}")),
        Ok(deploys) => match deploys.first() {
            Some(deploy) => {
                Gate::hold_briefly(input.now, format!("a deploy is not finished: {deploy}"))
            }
            None => Gate::pass("not halted, not silenced, no maintenance, no deploy"),
        },
    }
}

/// G5. The lock is taken, with a growing token that hosts check, when the job starts; here it must be free, and no other
/// repair may act on the same hosts.
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
    }
    Gate::pass(format!("{} is free", input.locks.scope))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        decision::testing::host,
        gate::{
            Halt, HeldLock,
            testing::{expect, now},
        },
    };

    #[test]
    fn g4() {
        let case = |change: fn(&mut GateInput<'_>), kind, part| {
            expect(nobody_in_the_way, change, kind, part)
        };
        case(|_| (), "pass", "not halted");
        case(
            |i| {
                i.people.halt = Some(Halt {
                    by: "ann".into(),
                    at: now(),
                    why: "thinking".into(),
                })
            },
            "hold",
            "halted by ann",
        );
        case(
            |i| {
                i.people.silences = Ok(vec![(
                    "e875 by bob: disk swap".into(),
                    now() + SignedDuration::from_hours(2),
                )])
            },
            "hold",
            "silenced: e875 by bob: disk swap",
        );
        case(
            |i| i.people.silences = Err("no answer".into()),
            "refuse",
            "unknown whether somebody silenced",
        );
        case(
            |i| {
                drop(
                    i.people
                        .markers
                        .insert(host("h1"), Ok(Some("kernel".into()))),
                )
            },
            "hold",
            "h1 is marked as in maintenance: kernel",
        );
        case(
            |i| drop(i.people.markers.insert(host("h1"), Err("no ssh".into()))),
            "refuse",
            "whether h1 is in maintenance: no ssh",
        );
        case(|i| i.people.markers.clear(), "refuse", "it was not asked");
        case(
            |i| i.people.deploys = Ok(vec!["j9".into()]),
            "hold",
            "a deploy is not finished: j9",
        );
        case(
            |i| i.people.deploys = Err("disk".into()),
            "refuse",
            "whether a deploy runs",
        );
    }

    #[test]
    fn g5() {
        let case = |change: fn(&mut GateInput<'_>), kind, part| {
            expect(one_repair_per_domain, change, kind, part)
        };
        case(|_| (), "pass", "domain:memcached is free");
        let lock = |scope: &str, on: &str| HeldLock {
            scope: scope.into(),
            job: "j1".into(),
            hosts: [host(on)].into(),
        };
        let same = [lock("domain:memcached", "h9")];
        let host_too = [lock("domain:rabbitmq", "h1")];
        let other = [lock("domain:rabbitmq", "h2")];
        for (held, kind, part) in [
            (&same, "hold", "held by job j1"),
            (&host_too, "hold", "acts on h1"),
            (&other, "pass", "free"),
        ] {
            crate::gate::testing::expect_with(
                one_repair_per_domain,
                |i| i.locks.held = Ok(held.to_vec()),
                kind,
                part,
            );
        }
        case(
            |i| i.locks.held = Err("disk".into()),
            "refuse",
            "unknown which repairs run",
        );
    }
}
