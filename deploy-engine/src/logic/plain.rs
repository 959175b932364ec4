//! The roll-out of most services: new members start at the declared pace; then running members change, each configured just
//! before its own restart, so that a bad configuration meets one member and not all of them.

use super::{DraftKey, LogicRefusal, MemberChange, Need, RolloutLogic, ServiceContext, StepDraft};
use crate::{
    model::{HostName, Pace},
    probe::{Ask, Readings},
};

pub const NAME: &str = "plain";

pub struct Plain;

impl RolloutLogic for Plain {
    fn name(&self) -> &'static str {
        NAME
    }

    fn asks(&self, _: &ServiceContext<'_>) -> Vec<Ask> {
        Vec::new()
    }

    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        _: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal> {
        let rollout = &context.deployment.spec.rollout;
        let (running, new): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.acts.interrupts());
        let mut drafts = Vec::new();
        let last = stage(context, &new, rollout.start, &[], false, &mut drafts);
        stage(context, &running, rollout.change, &last, true, &mut drafts);
        Ok(drafts)
    }
}

/// Drafts one group of members. `before`: what all of them wait for; `configure_late`: a member's configuration waits, too.
/// Returns what the next stage waits for.
fn stage(
    context: &ServiceContext<'_>,
    changes: &[&MemberChange],
    pace: Pace,
    before: &[DraftKey],
    configure_late: bool,
    drafts: &mut Vec<StepDraft>,
) -> Vec<DraftKey> {
    let mut gate = before.to_vec();
    let mut together = Vec::new();
    for change in changes {
        let activated = member(context, change, &gate, configure_late, drafts);
        let Some(activated) = activated else { continue };
        match pace {
            Pace::OneAtATime => {
                let hosts = std::slice::from_ref(&change.host);
                gate = vec![health(context, hosts, &[activated], drafts)];
            }
            Pace::AllAtOnce => together.push((change.host.clone(), activated)),
        }
    }
    if !together.is_empty() {
        let (hosts, keys): (Vec<HostName>, Vec<DraftKey>) = together.into_iter().unzip();
        // Without a health condition all of the starts are what comes next waits for.
        match context.health(&hosts, &keys) {
            Some(draft) => {
                gate = vec![draft.key.clone()];
                drafts.push(draft);
            }
            None => gate = keys,
        }
    }
    gate
}

fn health(
    context: &ServiceContext<'_>,
    hosts: &[HostName],
    after: &[DraftKey],
    drafts: &mut Vec<StepDraft>,
) -> DraftKey {
    match context.health(hosts, after) {
        Some(draft) => {
            drafts.push(draft);
            drafts[drafts.len() - 1].key.clone()
        }
        None => after[0].clone(),
    }
}

/// Returns the member's activation, if it has one.
fn member(
    context: &ServiceContext<'_>,
    change: &MemberChange,
    gate: &[DraftKey],
    configure_late: bool,
    drafts: &mut Vec<StepDraft>,
) -> Option<DraftKey> {
    let wait = |mut draft: StepDraft| {
        draft.needs.extend(gate.iter().cloned().map(Need::Draft));
        draft
    };
    if let Some(configure) = context.configure(change) {
        drafts.push(if configure_late {
            wait(configure)
        } else {
            configure
        });
    }
    let activate = wait(context.activate(change)?);
    let key = activate.key.clone();
    drafts.push(activate);
    Some(key)
}
