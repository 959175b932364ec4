//! Ceph: members start together, because monitors wait for each other; running ones follow one after another. What this adds to
//! the plain roll-out is what it refuses: a second cluster must never be founded where there is one already, known or not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{LogicRefusal, MemberChange, RolloutLogic, ServiceContext, StepDraft, plain};
use crate::{
    condition::table::majority,
    model::HostName,
    probe::{
        Ask, Readings,
        ceph::{self, Kept},
    },
};

/// More monitors only vote; this many survive three losses.
const MOST_MONITORS: usize = 7;

pub struct Ceph;

impl RolloutLogic for Ceph {
    fn name(&self) -> &'static str {
        "ceph"
    }

    fn asks(&self, context: &ServiceContext<'_>) -> Vec<Ask> {
        let one = |host: &HostName| Ask {
            probe: ceph::KEPT.to_owned(),
            host: host.clone(),
            service: Some(context.service.clone()),
        };
        context.deployment.members.iter().map(one).collect()
    }

    fn rollout(
        &self,
        context: &ServiceContext<'_>,
        readings: &Readings,
        changes: &[MemberChange],
    ) -> Result<Vec<StepDraft>, LogicRefusal> {
        if !changes.is_empty() {
            let members = &context.deployment.members;
            let monitors = monitors(members, context.deployment.settings.get("mons"))?;
            founds_nothing_twice(&monitors, &kept(members, readings))?;
        }
        plain::Plain.rollout(context, readings, changes)
    }
}

fn refusal(why: impl Into<String>, remedy: impl Into<String>) -> LogicRefusal {
    LogicRefusal {
        why: why.into(),
        remedy: remedy.into(),
    }
}

/// Members that run a monitor.
fn monitors(members: &[HostName], setting: Option<&Value>) -> Result<Vec<HostName>, LogicRefusal> {
    let named: Vec<&str> = setting
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let remedy = "name one, three, five or seven members in the setting mons";
    if let Some(stranger) = named
        .iter()
        .find(|name| !members.iter().any(|host| host.as_str() == **name))
    {
        return Err(refusal(
            format!("mons names {stranger}, which is no member"),
            remedy,
        ));
    }
    let monitors: Vec<HostName> = members
        .iter()
        .filter(|host| named.is_empty() || named.contains(&host.as_str()))
        .cloned()
        .collect();
    match monitors.len() {
        count if count % 2 == 1 && count <= MOST_MONITORS => Ok(monitors),
        count => Err(refusal(
            format!(
                "{count} members would run a monitor: an even number survives no more losses than one less, and more than {MOST_MONITORS} only vote"
            ),
            remedy,
        )),
    }
}

/// What each member's disk holds; why that is not known.
type KeptBy<'a> = BTreeMap<&'a HostName, Result<Kept, String>>;

fn kept<'a>(members: &'a [HostName], readings: &Readings) -> KeptBy<'a> {
    let one = |host: &'a HostName| (host, readings.get::<Kept>(ceph::KEPT, host));
    members.iter().map(one).collect()
}

/// Monitors without a store that are a majority would form a quorum of their own: the first time that is wanted, and never again.
fn founds_nothing_twice(monitors: &[HostName], kept: &KeptBy<'_>) -> Result<(), LogicRefusal> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for host in monitors {
        match kept.get(host) {
            Some(Ok(kept)) if kept.monitor => with.push(host.as_str()),
            Some(Ok(_)) => without.push(host.as_str()),
            Some(Err(why)) => {
                return Err(refusal(
                    format!("whether {host} keeps the store of a monitor is unknown: {why}"),
                    "bring it back and plan again: a second cluster might be founded",
                ));
            }
            None => return Err(refusal(format!("{host} was not asked"), "plan again")),
        }
    }
    if !with.is_empty() {
        return match without.len() < majority(monitors.len()) {
            true => Ok(()),
            false => Err(refusal(
                format!(
                    "{} keep the store of a monitor, {} do not: those could found a cluster of their own",
                    with.join(", "),
                    without.join(", ")
                ),
                "add monitors by hand, one after another, or bring back the stores that are gone",
            )),
        };
    }
    let orphans = kept.iter().filter(|(_, kept)| match kept {
        Ok(kept) => !kept.osds.is_empty(),
        Err(_) => false,
    });
    let orphans: Vec<&str> = orphans.map(|(host, _)| host.as_str()).collect();
    match orphans.is_empty() {
        true => Ok(()),
        false => Err(refusal(
            format!(
                "there are OSDs on {}, but no monitor keeps the map of their cluster",
                orphans.join(", ")
            ),
            "bring back a monitor's store; a new cluster would not know their data",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hosts(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[rstest::rstest]
    #[case(&["a"], json!([]), Ok(1))]
    #[case(&["a", "b", "c"], json!([]), Ok(3))]
    #[case(&["a", "b"], json!([]), Err("2 members would run a monitor"))]
    #[case(&["a", "b"], json!(["b"]), Ok(1))]
    #[case(&["a", "b", "c", "d"], json!(["a", "b", "d"]), Ok(3))]
    #[case(&["a", "b", "c"], json!(["a", "b", "x"]), Err("names x, which is no member"))]
    fn an_odd_number_of_members_runs_a_monitor(
        #[case] members: &[&str],
        #[case] setting: Value,
        #[case] expected: Result<usize, &str>,
    ) {
        match (monitors(&hosts(members), Some(&setting)), expected) {
            (Ok(found), Ok(count)) => assert_eq!(found.len(), count),
            (Err(refusal), Err(part)) => assert!(refusal.why.contains(part), "{}", refusal.why),
            (found, _) => panic!("{found:?}"),
        }
    }

    /// A letter a member: `m` keeps a monitor's store, `o` an OSD, `b` both, `-` nothing, `?` is unknown.
    #[rstest::rstest]
    #[case::first_time("---", None)]
    #[case::all_there("bbb", None)]
    #[case::one_lost("bb-", None)]
    #[case::one_lost_with_osds("bbo", None)]
    #[case::two_lost("b--", Some("could found a cluster of their own"))]
    #[case::two_lost_with_osds("boo", Some("could found a cluster of their own"))]
    #[case::all_lost("ooo", Some("no monitor keeps the map"))]
    #[case::one_has_osds("--o", Some("no monitor keeps the map"))]
    #[case::one_unknown("--?", Some("is unknown"))]
    #[case::one_unknown_of_a_cluster("bb?", Some("is unknown"))]
    fn a_cluster_is_founded_once(#[case] members: &str, #[case] part: Option<&str>) {
        let names = hosts(&["a", "b", "c"]);
        let seen = members.chars().map(|letter| match letter {
            '?' => Err("timed out".to_owned()),
            letter => Ok(Kept {
                monitor: matches!(letter, 'm' | 'b'),
                osds: matches!(letter, 'o' | 'b')
                    .then_some(1)
                    .into_iter()
                    .collect(),
            }),
        });
        let kept = names.iter().zip(seen).collect();
        match (founds_nothing_twice(&names, &kept), part) {
            (Ok(()), None) => {}
            (Err(refusal), Some(part)) => assert!(refusal.why.contains(part), "{}", refusal.why),
            (found, _) => panic!("{found:?}"),
        }
    }
}
