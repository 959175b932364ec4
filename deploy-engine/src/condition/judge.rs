//! Asks what a condition needs and judges it.

use jiff::Timestamp;

use super::{ConditionCall, Judgement};
use crate::{
    probe::{ProbeSite, Readings, gather},
    transport::Hosts,
};

/// The judgement and what it rests on. A condition that does not exist, or is about no host, is unknown: empty is never "all".
pub async fn judge(
    hosts: &dyn Hosts,
    site: &dyn ProbeSite,
    call: &ConditionCall,
    now: Timestamp,
) -> (Judgement, Readings) {
    let unknown = |why| (Judgement::Unknown { why }, Readings::default());
    let Some(condition) = super::find(&call.name) else {
        return unknown(format!("there is no condition {}", call.name));
    };
    if call.hosts.is_empty() {
        return unknown(format!("{} was asked about no host at all", call.name));
    }
    let readings = gather(hosts, site, &condition.asks(call), now).await;
    (condition.judge(call, &readings), readings)
}
