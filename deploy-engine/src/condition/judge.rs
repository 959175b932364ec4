//! Asks what a condition needs and judges it.

use jiff::Timestamp;

use super::{ConditionCall, Judgement};
use crate::{
    probe::{Ask, ProbeSite, Readings, gather},
    transport::Hosts,
};

/// The judgement and what it rests on.
pub async fn judge(
    hosts: &dyn Hosts,
    site: &dyn ProbeSite,
    call: &ConditionCall,
    now: Timestamp,
) -> (Judgement, Readings) {
    let readings = gather(hosts, site, &asks(call), now).await;
    (judgement(call, &readings), readings)
}

/// Of several conditions, with one exchange a host for all of them.
pub async fn judge_all(
    hosts: &dyn Hosts,
    site: &dyn ProbeSite,
    calls: &[&ConditionCall],
    now: Timestamp,
) -> Vec<Judgement> {
    let asks: Vec<Ask> = calls.iter().flat_map(|call| asks(call)).collect();
    let readings = gather(hosts, site, &asks, now).await;
    calls
        .iter()
        .map(|call| judgement(call, &readings))
        .collect()
}

fn asks(call: &ConditionCall) -> Vec<Ask> {
    let condition = super::find(&call.name).filter(|_| !call.hosts.is_empty());
    condition.map_or_else(Vec::new, |condition| condition.asks(call))
}

/// A condition that does not exist, or is about no host, is unknown: empty is never "all".
fn judgement(call: &ConditionCall, readings: &Readings) -> Judgement {
    let unknown = |why| Judgement::Unknown { why };
    match super::find(&call.name) {
        None => unknown(format!("there is no condition {}", call.name)),
        Some(_) if call.hosts.is_empty() => {
            unknown(format!("{} was asked about no host at all", call.name))
        }
        Some(condition) => condition.judge(call, readings),
    }
}
