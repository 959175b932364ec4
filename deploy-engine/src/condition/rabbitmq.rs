//! RabbitMQ: every member sees the same cluster. One member's word is never enough, because the sides of a partition each
//! look healthy to themselves.

use std::collections::BTreeSet;

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, majority, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings,
        rabbitmq::{self, NodeView, Queue, QuorumCritical, node_name},
    },
};

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "rabbitmq.member_healthy",
        doc: "the node runs, sees no partition and no alarm, and no other member that answers disagrees with its view",
        asks: |call| table::ask_members(call, rabbitmq::NODES),
        judge: |call, readings| {
            all(call
                .hosts
                .iter()
                .map(|host| member_healthy(call, host, readings)))
        },
    },
    Entry {
        name: "rabbitmq.healthy",
        doc: "all members see all members running, no partition, no alarm, and every quorum queue has all its replicas online",
        asks: |call| {
            let mut asks = table::ask_members(call, rabbitmq::NODES);
            asks.extend(
                table::ask_members(call, rabbitmq::QUEUES)
                    .into_iter()
                    .take(1),
            );
            asks
        },
        judge: judge_healthy,
    },
    Entry {
        name: "rabbitmq.may_stop",
        doc: "all members run and agree, and no queue would lose its majority",
        asks: |call| {
            let mut asks = table::ask_members(call, rabbitmq::NODES);
            asks.extend(table::ask_hosts(call, rabbitmq::QUORUM_CRITICAL));
            asks
        },
        judge: judge_may_stop,
    },
    Entry {
        name: "rabbitmq.majority_without",
        doc: "without these hosts a strict majority of the members is left, and those see each other running and unpartitioned",
        asks: |call| table::ask_members(call, rabbitmq::NODES),
        judge: judge_majority_without,
    },
    Entry {
        name: "rabbitmq.joined",
        doc: "the nodes run, and every member that answers sees the same nodes running (a partition may still be reported)",
        asks: |call| table::ask_members(call, rabbitmq::NODES),
        judge: |call, readings| all(call.hosts.iter().map(|host| joined(call, host, readings))),
    },
    Entry {
        name: "rabbitmq.no_partitions",
        doc: "all members see all members running and none reports a partition",
        asks: |call| table::ask_members(call, rabbitmq::NODES),
        judge: |call, readings| match all_agree(call, readings) {
            Ok(()) => holds("all members agree and none reports a partition"),
            Err(judgement) => judgement,
        },
    },
    Entry {
        name: "rabbitmq.may_clear_flag",
        doc: "all members run and see each other, a partition may still be reported, and no queue needs the nodes to be restarted",
        asks: |call| {
            let mut asks = table::ask_members(call, rabbitmq::NODES);
            asks.extend(table::ask_hosts(call, rabbitmq::QUORUM_CRITICAL));
            asks
        },
        judge: judge_may_clear_flag,
    },
];

/// How one member sees the cluster.
struct View {
    running: BTreeSet<String>,
    partitioned_from: BTreeSet<String>,
    alarms: Vec<String>,
}

fn view(host: &HostName, readings: &Readings) -> Result<View, String> {
    let nodes: Vec<NodeView> = readings.get(rabbitmq::NODES, host)?;
    let own = node_name(host);
    if !nodes.iter().any(|node| node.name == own) {
        return Err(format!(
            "{host}: expected {own} in its own list of nodes; it is not there"
        ));
    }
    let alarm = |node: &NodeView| {
        let alarms = [(node.mem_alarm, "memory"), (node.disk_free_alarm, "disk")];
        alarms
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, what)| format!("{what} alarm on {}", node.name))
            .collect::<Vec<_>>()
    };
    Ok(View {
        running: nodes
            .iter()
            .filter(|node| node.running)
            .map(|node| node.name.clone())
            .collect(),
        partitioned_from: nodes
            .iter()
            .flat_map(|node| node.partitions.iter().cloned())
            .collect(),
        alarms: nodes.iter().flat_map(alarm).collect(),
    })
}

/// The member's own view has nothing wrong in it.
fn clean(host: &HostName, view: &View) -> Result<(), Judgement> {
    if !view.running.contains(&node_name(host)) {
        return Err(not_yet(format!("{host} does not see itself running")));
    }
    if !view.partitioned_from.is_empty() {
        return Err(not_yet(format!(
            "{host} reports a partition from {}",
            list(&view.partitioned_from)
        )));
    }
    if let Some(alarm) = view.alarms.first() {
        return Err(not_yet(format!("{host} reports a {alarm}")));
    }
    Ok(())
}

fn member_healthy(call: &ConditionCall, host: &HostName, readings: &Readings) -> Judgement {
    let own = match view(host, readings) {
        Ok(view) => view,
        Err(why) => return unknown(why),
    };
    if let Err(judgement) = clean(host, &own) {
        return judgement;
    }
    for other in call.members.iter().filter(|other| *other != host) {
        match view(other, readings) {
            // It says that it runs, whatever this member sees.
            Ok(theirs) if theirs.running != own.running => {
                return not_yet(format!(
                    "{host} sees {} running, {other} sees {}",
                    list(&own.running),
                    list(&theirs.running)
                ));
            }
            Ok(_) => {}
            Err(why) if own.running.contains(&node_name(other)) => {
                return unknown(format!("{host} sees {other} running, but {why}"));
            }
            // Both agree that it is away: not deployed yet, or down.
            Err(_) => {}
        }
    }
    holds(format!(
        "{host} runs and agrees with {} running",
        list(&own.running)
    ))
}

/// Like [`member_healthy`], but what is left of a healed partition in somebody's list does not count.
fn joined(call: &ConditionCall, host: &HostName, readings: &Readings) -> Judgement {
    let own = match view(host, readings) {
        Ok(view) => view,
        Err(why) => return unknown(why),
    };
    if !own.running.contains(&node_name(host)) {
        return not_yet(format!("{host} does not see itself running"));
    }
    if own.running.len() < majority(call.members.len()) {
        return not_yet(format!("{host} sees only {} running", list(&own.running)));
    }
    for other in call.members.iter().filter(|other| *other != host) {
        let runs = own.running.contains(&node_name(other));
        match view(other, readings) {
            Ok(theirs) if theirs.running != own.running => {
                return not_yet(format!(
                    "{host} sees {} running, {other} sees {}",
                    list(&own.running),
                    list(&theirs.running)
                ));
            }
            Err(why) if runs => return unknown(format!("{host} sees {other} running, but {why}")),
            Ok(_) | Err(_) => {}
        }
    }
    holds(format!("{host} is one of {} running", list(&own.running)))
}

fn judge_may_clear_flag(call: &ConditionCall, readings: &Readings) -> Judgement {
    if call.hosts.len() >= call.members.len() {
        return refuted("all members would be stopped at once");
    }
    let joined = all(call.members.iter().map(|host| joined(call, host, readings)));
    if !joined.holds() {
        return joined;
    }
    all(call.hosts.iter().map(|host| not_critical(host, readings)))
}

/// All members run, agree, and nothing is wrong.
fn all_agree(call: &ConditionCall, readings: &Readings) -> Result<(), Judgement> {
    let expected: BTreeSet<String> = call.members.iter().map(node_name).collect();
    let mut judgements = Vec::new();
    for member in &call.members {
        judgements.push(match view(member, readings) {
            Err(why) => unknown(why),
            Ok(view) if !view.running.is_superset(&expected) => {
                let missing: BTreeSet<String> =
                    expected.difference(&view.running).cloned().collect();
                not_yet(format!("{member} does not see {} running", list(&missing)))
            }
            Ok(view) if view.running != expected => {
                let strangers: BTreeSet<String> =
                    view.running.difference(&expected).cloned().collect();
                refuted(format!(
                    "{member} sees nodes that are not of this site: {}",
                    list(&strangers)
                ))
            }
            Ok(view) => match clean(member, &view) {
                Ok(()) => holds(format!("{member} sees all members")),
                Err(judgement) => judgement,
            },
        });
    }
    match all(judgements) {
        Judgement::Holds { .. } => Ok(()),
        other => Err(other),
    }
}

fn judge_healthy(call: &ConditionCall, readings: &Readings) -> Judgement {
    if let Err(judgement) = all_agree(call, readings) {
        return judgement;
    }
    let queues: Vec<Queue> = match readings.get(rabbitmq::QUEUES, &call.members[0]) {
        Ok(queues) => queues,
        Err(why) => return unknown(why),
    };
    let incomplete = queues
        .iter()
        .filter(|queue| queue.is_quorum())
        .find(|queue| {
            let members: BTreeSet<&String> = queue.members.iter().collect();
            let online: BTreeSet<&String> = queue.online.iter().collect();
            queue.leader.as_deref().unwrap_or_default().is_empty() || members != online
        });
    match incomplete {
        Some(queue) => not_yet(format!(
            "queue {} in {} has {} of {} replicas online",
            queue.name,
            queue.vhost,
            queue.online.len(),
            queue.members.len()
        )),
        None => holds(format!(
            "all {} members agree; {} queues complete",
            call.members.len(),
            queues.len()
        )),
    }
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    if let Err(judgement) = all_agree(call, readings) {
        return judgement;
    }
    if call.members.len() == 1 {
        return holds(format!(
            "{} is the only node: its stop is an outage",
            call.hosts[0]
        ));
    }
    if call.hosts.len() == call.members.len() {
        return refuted("all members would be stopped at once");
    }
    all(call.hosts.iter().map(|host| not_critical(host, readings)))
}

fn not_critical(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<QuorumCritical>(rabbitmq::QUORUM_CRITICAL, host) {
        Err(why) => unknown(why),
        Ok(answer) if answer.critical => not_yet(format!(
            "{host} is needed for the majority of {}",
            answer.queues.join(", ")
        )),
        Ok(_) => holds(format!("all members agree and no queue needs {host}")),
    }
}

fn judge_majority_without(call: &ConditionCall, readings: &Readings) -> Judgement {
    let others = others(call);
    if others.len() < majority(call.members.len()) {
        return refuted(format!(
            "{} of {} members would be left; expected at least {}",
            others.len(),
            call.members.len(),
            majority(call.members.len())
        ));
    }
    let left: BTreeSet<String> = others.iter().map(|host| node_name(host)).collect();
    all(others.iter().map(|host| match view(host, readings) {
        Err(why) => unknown(why),
        Ok(view) if !view.running.is_superset(&left) => {
            let missing: BTreeSet<String> = left.difference(&view.running).cloned().collect();
            not_yet(format!("{host} does not see {} running", list(&missing)))
        }
        Ok(view) => match view.partitioned_from.intersection(&left).next() {
            // The node that is asked names the losers only; a winner among them means a second split.
            Some(node) if own_partitions(host, readings).contains(node) => refuted(format!(
                "{host} reports a partition from {node}, which would stay"
            )),
            _ => holds(format!("{host} sees all that stay")),
        },
    }))
}

/// What the member itself says it was partitioned from (its list also repeats what the others say).
fn own_partitions(host: &HostName, readings: &Readings) -> BTreeSet<String> {
    let own = node_name(host);
    readings
        .get::<Vec<NodeView>>(rabbitmq::NODES, host)
        .unwrap_or_default()
        .into_iter()
        .filter(|node| node.name == own)
        .flat_map(|node| node.partitions)
        .collect()
}

fn list(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, table::testing};

    const MEMBERS: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

    /// One member's view: the digits of those it sees running; `!` a partition; `m` a memory alarm; `?` it does not answer;
    /// `x` a node that is not of the site.
    fn view_of(own: &str, text: &str) -> Vec<NodeView> {
        let names = MEMBERS
            .iter()
            .map(|name| (*name, name.ends_with(|c| text.contains(c))));
        names
            .chain(text.contains('x').then_some(("old1", true)))
            .map(|(name, running)| NodeView {
                name: format!("rabbit@{name}"),
                running,
                partitions: match name == own && text.contains('!') {
                    true => vec!["rabbit@ctl3".to_owned()],
                    false => Vec::new(),
                },
                mem_alarm: name == own && text.contains('m'),
                disk_free_alarm: false,
                uptime: None,
                being_drained: false,
            })
            .collect()
    }

    fn judged(
        name: &str,
        about: &[&str],
        views: [&str; 3],
        queue: (usize, bool),
    ) -> (&'static str, String) {
        let mut readings = Readings::default();
        for (host, text) in MEMBERS.into_iter().zip(views) {
            if text == "?" {
                testing::unknown(&mut readings, rabbitmq::NODES, host);
                testing::unknown(&mut readings, rabbitmq::QUORUM_CRITICAL, host);
                continue;
            }
            testing::known(&mut readings, rabbitmq::NODES, host, &view_of(host, text));
            let critical = QuorumCritical {
                critical: queue.1,
                queues: vec!["q".to_owned()],
            };
            testing::known(&mut readings, rabbitmq::QUORUM_CRITICAL, host, &critical);
            let nodes: Vec<String> = MEMBERS
                .iter()
                .map(|name| format!("rabbit@{name}"))
                .collect();
            let queues = serde_json::json!([{
                "name": "q", "vhost": "/", "type": "quorum", "leader": nodes[0], "members": nodes, "online": nodes[..queue.0],
            }]);
            testing::known(&mut readings, rabbitmq::QUEUES, host, &queues);
        }
        let condition = condition::find(name).expect("a condition");
        let judgement =
            condition.judge(&testing::call(name, "rabbitmq", about, &MEMBERS), &readings);
        let word = match judgement {
            Judgement::Holds { .. } => "holds",
            Judgement::NotYet { .. } => "not yet",
            Judgement::Refuted { .. } => "refuted",
            Judgement::Unknown { .. } => "unknown",
        };
        (word, judgement.why().to_owned())
    }

    #[rstest::rstest]
    #[case::healthy("rabbitmq.healthy", ["123", "123", "123"], "holds")]
    #[case::one_down("rabbitmq.healthy", ["12", "12", "?"], "unknown")]
    #[case::cut_off("rabbitmq.healthy", ["12", "12", "3"], "not yet")]
    #[case::healed_but_partitioned("rabbitmq.healthy", ["123!", "123", "123"], "not yet")]
    #[case::alarm("rabbitmq.healthy", ["123", "123m", "123"], "not yet")]
    #[case::stranger("rabbitmq.healthy", ["123x", "123", "123"], "refuted")]
    #[case::all("rabbitmq.may_stop", ["123", "123", "123"], "holds")]
    #[case::other_unknown("rabbitmq.may_stop", ["123", "?", "123"], "unknown")]
    #[case::other_sees_less("rabbitmq.may_stop", ["123", "12", "123"], "not yet")]
    #[case::first_start("rabbitmq.member_healthy", ["?", "?", "3"], "holds")]
    #[case::founded_twice("rabbitmq.member_healthy", ["12", "12", "3"], "not yet")]
    #[case::seen_but_silent("rabbitmq.member_healthy", ["?", "123", "123"], "unknown")]
    #[case::silent("rabbitmq.member_healthy", ["12", "12", "?"], "unknown")]
    #[case::loser_cut_off("rabbitmq.majority_without", ["12", "12", "3"], "holds")]
    #[case::loser_named_by_flag("rabbitmq.majority_without", ["12!", "12", "?"], "holds")]
    #[case::survivors_disagree("rabbitmq.majority_without", ["12", "2", "3"], "not yet")]
    #[case::survivor_unknown("rabbitmq.majority_without", ["12", "?", "3"], "unknown")]
    fn about_the_third(#[case] name: &str, #[case] views: [&str; 3], #[case] expected: &str) {
        let (found, why) = judged(name, &["ctl3"], views, (3, false));
        assert_eq!(found, expected, "{why}");
    }

    #[test]
    fn queues_hold_a_member_back() {
        let all = ["123", "123", "123"];
        assert_eq!(
            judged("rabbitmq.may_stop", &["ctl3"], all, (3, true)).0,
            "not yet"
        );
        assert_eq!(
            judged("rabbitmq.healthy", &["ctl3"], all, (2, false)).0,
            "not yet"
        );
    }

    #[test]
    fn a_minority_is_no_majority() {
        let split = ["1", "23", "23"];
        assert_eq!(
            judged(
                "rabbitmq.majority_without",
                &["ctl2", "ctl3"],
                split,
                (3, false)
            )
            .0,
            "refuted"
        );
        assert_eq!(
            judged("rabbitmq.may_stop", &MEMBERS, ["123"; 3], (3, false)).0,
            "refuted"
        );
    }
}
