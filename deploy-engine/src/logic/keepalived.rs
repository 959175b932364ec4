//! keepalived: the member that has the virtual address changes last, so that the address moves once at most.

use super::{LogicRefusal, MemberChange, RolloutLogic, ServiceContext, StepDraft, plain};
use crate::probe::{
    Ask, Readings,
    keepalived::{VIP_HOLDERS, VipOnHost},
};

pub struct Keepalived;

impl RolloutLogic for Keepalived {
    fn name(&self) -> &'static str {
        "keepalived"
    }

    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask> {
        context
            .deployment
            .members
            .iter()
            .map(|host| Ask {
                probe: VIP_HOLDERS.to_owned(),
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
        let mut ordered = changes.to_vec();
        // Stable: members that do not hold it stay in the site's order. Where it is not known who holds it, any order is as good.
        ordered.sort_by_key(|change| {
            readings
                .get::<VipOnHost>(VIP_HOLDERS, &change.host)
                .is_ok_and(|on_host| on_host.holds)
        });
        plain::Plain.rollout(context, readings, &ordered)
    }
}
