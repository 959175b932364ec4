use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{SITE, world::World, *};

/// The site with each service on a random set of hosts, a size, and a random history of the hosts.
fn sites() -> impl Strategy<Value = (String, Vec<(u8, u8)>)> {
    let hosts = || proptest::sample::subsequence(vec!["ctl1", "ctl2", "ctl3"], 1..=3);
    let spoiled = proptest::collection::vec((0_u8..3, any::<u8>()), 0..12);
    (hosts(), hosts(), hosts(), 16_u16..99, spoiled).prop_map(
        |(cache, db, front, size, spoiled)| {
            let text = SITE
                .replace(
                    "cache: {on: control}",
                    &format!(
                        "cache: {{on: [{}], settings: {{size: {size}}}}}",
                        cache.join(", ")
                    ),
                )
                .replace(
                    "db: {on: control}",
                    &format!("db: {{on: [{}]}}", db.join(", ")),
                )
                .replace(
                    "front: {on: [ctl1, ctl2]}",
                    &format!("front: {{on: [{}]}}", front.join(", ")),
                );
            (text, spoiled)
        },
    )
}

/// Takes things away from hosts and stops units, as people and crashes do.
fn spoil(world: &mut World, spoiled: &[(u8, u8)]) {
    for (machine, which) in spoiled {
        let machine = world.machine(["ctl1", "ctl2", "ctl3"][usize::from(*machine)]);
        let count = machine.things.len() + machine.running.len();
        if count == 0 {
            continue;
        }
        let index = usize::from(*which) % count;
        if let Some(id) = machine.things.keys().nth(index).cloned() {
            machine.things.remove(&id);
        } else if let Some(unit) = machine
            .running
            .keys()
            .nth(index - machine.things.len())
            .cloned()
        {
            machine.running.remove(&unit);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_plan_that_ran_leaves_nothing_to_plan((text, spoiled) in sites()) {
        let model = load(&text).unwrap();
        let before = load(SITE).unwrap();
        // Hosts that had another site on them, partly broken.
        let mut world = World::new(&before);
        let first = planned(&before, &world, &Goal::Site);
        world.run(&first).unwrap();
        spoil(&mut world, &spoiled);
        let plan = planned(&model, &world, &Goal::Site);
        prop_assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        for step in &plan.steps {
            prop_assert!(step.needs.iter().all(|need| *need < step.id), "{}", step.title);
        }
        world.run(&plan).map_err(TestCaseError::fail)?;
        let again = planned(&model, &world, &Goal::Site);
        prop_assert!(again.is_empty(), "{}", again.render(true));
    }

    /// At no moment may two running members of one service be disturbed: each waits for the one before it.
    #[test]
    fn running_members_change_one_after_the_other((text, spoiled) in sites()) {
        let model = load(&text).unwrap();
        let before = load(SITE).unwrap();
        let mut world = World::new(&before);
        let first = planned(&before, &world, &Goal::Site);
        world.run(&first).unwrap();
        spoil(&mut world, &spoiled);
        let plan = planned(&model, &world, &Goal::Site);
        let mut reach: Vec<BTreeSet<StepId>> = Vec::new();
        for step in &plan.steps {
            let mut all: BTreeSet<StepId> = step.needs.iter().copied().collect();
            for need in &step.needs {
                all.extend(reach[need.0 as usize].iter().copied());
            }
            reach.push(all);
        }
        for (index, step) in plan.steps.iter().enumerate() {
            for other in &plan.steps[..index] {
                let same = step.service == other.service && step.service.is_some();
                let both = [step, other].iter().all(|s| s.title.starts_with("restart ") || s.title.starts_with("reload "));
                if same && both {
                    prop_assert!(reach[index].contains(&other.id), "{} beside {}", step.title, other.title);
                }
            }
        }
    }
}
