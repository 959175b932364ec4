//! G9 state before, G10 nothing empty or unknown, G11 guarded, G12 proven and held, G13 no self-dependency: what must be true of
//! the plan itself.

use super::{Gate, GateInput, Phase};

/// G9.
pub(super) fn state_before(input: &GateInput<'_>) -> Gate {
    let plan = &input.plan;
    match (plan.first_snapshot, plan.first_act) {
        (None, _) => return Gate::refuse("nothing records the state before the repair"),
        (Some(snapshot), Some(act)) if snapshot > act => {
            return Gate::refuse("the state would be recorded only after something was changed");
        }
        _ => {}
    }
    if let Some(host) = plan.hosts.difference(&plan.recorded).next() {
        return Gate::refuse(format!(
            "nothing records the state of {host} before the repair"
        ));
    }
    if let Some(host) = plan
        .kept_on
        .as_ref()
        .filter(|host| plan.hosts.contains(*host))
    {
        return Gate::refuse(format!(
            "the state before would be kept on {host}, which is the patient"
        ));
    }
    match input.phase {
        Phase::Step {
            acts: true,
            snapshot_done: false,
            ..
        } => Gate::refuse("the state before is not in the journal yet"),
        _ => Gate::pass("the state before is recorded first"),
    }
}

/// G10.
pub(super) fn nothing_empty_or_unknown(input: &GateInput<'_>) -> Gate {
    let plan = &input.plan;
    if plan.roles.is_empty() || plan.hosts.is_empty() {
        return Gate::refuse("expected hosts to act on; found none, which is not all of them");
    }
    if let Some((role, _)) = plan.roles.iter().find(|(_, hosts)| hosts.is_empty()) {
        return Gate::refuse(format!(
            "expected hosts for {role}; found none, which is not all of them"
        ));
    }
    if let Some(host) = plan.unread.first() {
        return Gate::refuse(format!(
            "no probe of {host} was answered: a member is missing, which is not the same as down"
        ));
    }
    let named = plan.roles.values().flatten();
    match plan
        .hosts
        .iter()
        .chain(named)
        .find(|host| !plan.site.contains(*host))
    {
        Some(stranger) => Gate::refuse(format!("{stranger} is not a host of this site")),
        None => Gate::pass(format!("{} known hosts", plan.hosts.len())),
    }
}

/// G11.
pub(super) fn guarded(input: &GateInput<'_>) -> Gate {
    match input.plan.unguarded.first() {
        Some(step) => Gate::refuse(format!("nothing is checked in the moment of \"{step}\"")),
        None => Gate::pass("every step that changes something has a guard"),
    }
}

/// G12. There is no step after a proof, so nothing escalates; and no second try after one that did not hold.
pub(super) fn proven_and_held(input: &GateInput<'_>) -> Gate {
    if !input.plan.proof {
        return Gate::refuse("the repair does not end with a proof that is held for a time");
    }
    match input.plan.unproven.first() {
        Some(job) => Gate::refuse(format!(
            "job {job} tried this and was not proven: nothing more is tried without a person"
        )),
        None => Gate::pass("it ends with a proof"),
    }
}

/// G13.
pub(super) fn no_self_dependency(input: &GateInput<'_>) -> Gate {
    if input.plan.bot_needs.contains(input.plan.service) {
        return Gate::refuse(format!(
            "the bot itself needs {}: it cannot repair what it stands on",
            input.plan.service
        ));
    }
    Gate::pass(format!("the bot does not need {}", input.plan.service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decision::testing::host,
        gate::testing::{Site, expect},
    };

    #[test]
    fn g9() {
        let case =
            |change: fn(&mut GateInput<'_>), kind, part| expect(state_before, change, kind, part);
        case(|_| (), "pass", "recorded first");
        case(
            |i| i.plan.first_snapshot = None,
            "refuse",
            "nothing records",
        );
        case(|i| i.plan.first_snapshot = Some(2), "refuse", "only after");
        case(
            |i| i.phase = Site::step(1, false),
            "refuse",
            "not in the journal yet",
        );
        case(
            |i| i.plan.recorded.clear(),
            "refuse",
            "nothing records the state of h1",
        );
        case(
            |i| i.plan.kept_on = Some(host("h1")),
            "refuse",
            "which is the patient",
        );
    }

    #[test]
    fn g10() {
        let empty = crate::decision::Roles::new();
        let no_hosts = crate::decision::Roles::from([("down".to_owned(), vec![])]);
        let mut site = Site::new();
        assert!(nothing_empty_or_unknown(&site.input()).passes());
        for roles in [&empty, &no_hosts] {
            site.roles = roles.clone();
            assert!(
                nothing_empty_or_unknown(&site.input())
                    .why()
                    .contains("which is not all of them")
            );
        }
        let case = |change: fn(&mut GateInput<'_>), kind, part| {
            expect(nothing_empty_or_unknown, change, kind, part)
        };
        case(
            |i| i.plan.hosts.clear(),
            "refuse",
            "expected hosts to act on",
        );
        case(
            |i| i.plan.site.clear(),
            "refuse",
            "h1 is not a host of this site",
        );
        case(
            |i| i.plan.unread.extend([host("h3")]),
            "refuse",
            "no probe of h3 was answered",
        );
    }

    #[test]
    fn g11_to_g13() {
        expect(guarded, |_| (), "pass", "every step");
        expect(
            guarded,
            |i| i.plan.unguarded.push("start it".into()),
            "refuse",
            "\"start it\"",
        );
        expect(proven_and_held, |_| (), "pass", "ends with a proof");
        expect(
            proven_and_held,
            |i| i.plan.proof = false,
            "refuse",
            "does not end with a proof",
        );
        expect(
            proven_and_held,
            |i| i.plan.unproven.push("j1".into()),
            "refuse",
            "job j1 tried this",
        );
        expect(
            no_self_dependency,
            |_| (),
            "pass",
            "does not need memcached",
        );
        let mut site = Site::new();
        site.bot_needs.insert("memcached".parse().unwrap());
        assert!(
            no_self_dependency(&site.input())
                .why()
                .contains("cannot repair what it stands on")
        );
    }
}
