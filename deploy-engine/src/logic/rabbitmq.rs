//! RabbitMQ: nodes that never ran start after the first of them, so that they find a cluster to join and never found two.
//! Nodes that have been in a cluster start together: one that was not the last to stop waits for the others.

use super::{
    LogicRefusal, MemberChange, Need, Role, RolloutLogic, ServiceContext, StepDraft, plain,
};
use crate::{
    model::HostName,
    probe::{Ask, Readings, rabbitmq},
};

pub struct Rabbitmq;

impl RolloutLogic for Rabbitmq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask> {
        context
            .deployment
            .members
            .iter()
            .map(|host| Ask {
                probe: rabbitmq::MEMBERSHIP.to_owned(),
                host: host.clone(),
                service: Some(context.service.clone()),
            })
            .collect()
    }

    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        readings: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal> {
        let mut drafts = plain::Plain.rollout(context, readings, changes)?;
        let starts =
            |change: &&MemberChange| !change.acts.interrupts() && change.activate.is_some();
        let fresh: Vec<&HostName> = changes
            .iter()
            .filter(starts)
            .map(|change| &change.host)
            .filter(|host| is_fresh(host, readings))
            .collect();
        let members = &context.deployment.members;
        let nobody_yet = members.iter().all(|host| is_fresh(host, readings));
        let Some((first, rest)) = fresh.split_first().filter(|_| nobody_yet) else {
            return Ok(drafts);
        };
        let after = drafts
            .iter()
            .find(|draft| draft.role == Role::Start && draft.host() == Some(*first))
            .map(|draft| draft.key.clone());
        let health = after.as_ref().and_then(|key| {
            let mut health =
                context.health(std::slice::from_ref(*first), std::slice::from_ref(key))?;
            // The gate over all members has the same name when there is only one.
            health.key.0 = format!("first {}", health.key.0);
            Some(health)
        });
        let Some(gate) = health
            .as_ref()
            .map(|draft| draft.key.clone())
            .filter(|_| !rest.is_empty())
        else {
            return Ok(drafts);
        };
        for draft in drafts.iter_mut().filter(|draft| draft.role == Role::Start) {
            if draft.host().is_some_and(|host| rest.contains(&host)) {
                draft.needs.push(Need::Draft(gate.clone()));
            }
        }
        drafts.extend(health);
        Ok(drafts)
    }
}

/// It says itself that it never was in a cluster; a host that cannot be asked is not known to be fresh.
fn is_fresh(host: &HostName, readings: &Readings) -> bool {
    readings.get::<bool>(rabbitmq::MEMBERSHIP, host) == Ok(false)
}
