//! RMQ-1: the nodes are split into sides that do not agree, and the network between them works again.
//!
//! Mnesia does not merge sides; restarting a side discards what was changed on it. So exactly one side must have a strict
//! majority, and the other must have nothing to lose.

use deploy_engine::probe::rabbitmq::{
    self, CLUSTER_STATUS, OVERVIEW, Overview, PEERS_TCP, QUEUES, QUORUM_CRITICAL, Queue,
    QuorumCritical, node_name,
};

use super::{
    Act, Facts, Input, Verdict,
    input::{majority, names},
    rabbitmq_views::{Views, cut, shown, views},
    table::{Entry, Role, elsewhere, refuse},
};

pub static DECISION: Entry = Entry {
    name: "rabbitmq.partition",
    doc: "the nodes are in sides that do not agree, exactly one side has a strict majority, the network between all of them \
          has worked for a while, and the other side has nothing to lose",
    roles: &[Role::always("losers"), Role::always("winners")],
    parameters: &[],
    evidence: &[CLUSTER_STATUS, PEERS_TCP, QUEUES, QUORUM_CRITICAL, OVERVIEW],
    settings: &["stable", "wait_pause_minority", "wait_autoheal"],
    facts,
    decide,
};

fn facts(input: &Input<'_>) -> Facts {
    let mut facts = Facts::new();
    if let Ok(views) = views(input)
        && let Ok(components) = views.components()
    {
        facts.insert("the partition", shown(&components));
    }
    if let Ok(cut) = cut(input) {
        facts.insert("the network", cut.join(", "));
    }
    facts
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let members = input.members.len();
    if members < 3 {
        return Err(refuse(format!(
            "{members} nodes cannot have a strict majority after a split"
        )));
    }
    let views = views(input)?;
    let components = views.components().map_err(refuse)?;
    let disagree = components.len() > 1 || views.reports_partition();
    if !disagree {
        return Err(elsewhere(format!(
            "all running nodes agree: {}",
            shown(&components)
        )));
    }
    if !views.stopped.is_empty() {
        return Err(refuse(format!(
            "the sides {} disagree and {} does not run: two faults at once",
            shown(&components),
            names(views.stopped.keys())
        )));
    }
    let version = views.one_old_version()?;
    views.undisturbed()?;
    let (winners, losers) = sides(&components, members)?;
    let cut = cut(input)?;
    if !cut.is_empty() {
        return Err(input.hold(format!("the network is still cut: {}", cut.join(", "))));
    }
    input.steadily("the network", "stable")?;
    input.steadily("the partition", "stable")?;
    mode_allows(input, &losers)?;
    nothing_to_lose(input, &losers, &winners)?;
    let why = format!(
        "{} ({} of {members}) agree, {} do not; RabbitMQ {version}, network whole, no queue would lose data",
        names(&winners),
        winners.len(),
        names(&losers)
    );
    Ok(Act::on([("losers", losers), ("winners", winners)], why))
}

type Hosts = Vec<deploy_engine::model::HostName>;

/// Exactly one side with a strict majority of all members, and everybody else.
fn sides(components: &[Hosts], members: usize) -> Result<(Hosts, Hosts), Verdict> {
    let needed = majority(members);
    match components {
        [winners, rest @ ..] if winners.len() >= needed && !rest.is_empty() => {
            Ok((winners.clone(), rest.iter().flatten().cloned().collect()))
        }
        [one] if one.len() == members => Err(refuse(
            "nodes report a partition, but every node sees every other: nobody can say who lost",
        )),
        _ => Err(Verdict::Refuse {
            why: format!(
                "no side has a strict majority ({needed} of {members}): {}",
                shown(components)
            ),
            evidence: components
                .iter()
                .map(|side| format!("{} nodes: {}", side.len(), names(side)))
                .collect(),
        }),
    }
}

/// What the cluster does by itself comes first.
fn mode_allows(input: &Input<'_>, losers: &Hosts) -> Result<(), Verdict> {
    let mode = input
        .topology
        .setting(input.service, "partition_handling")
        .and_then(|mode| mode.as_str());
    let wait = match mode {
        Some("ignore") => return Ok(()),
        Some("pause_minority") => "wait_pause_minority",
        Some("autoheal") => "wait_autoheal",
        other => {
            return Err(refuse(format!(
                "expected a known partition_handling; found {other:?}"
            )));
        }
    };
    input.steadily("the partition", wait)?;
    if losers.len() != 1 {
        return Err(refuse(format!(
            "{} should mend this by itself and did not; it is safe to help it only with a single stuck node, found {}",
            mode.unwrap_or_default(),
            names(losers)
        )));
    }
    Ok(())
}

/// No queue keeps data only where it would be discarded, and clients are on the side that stays.
fn nothing_to_lose(input: &Input<'_>, losers: &Hosts, winners: &Hosts) -> Result<(), Verdict> {
    let lost: Vec<String> = losers.iter().map(node_name).collect();
    for host in input.members {
        for queue in input.known::<Vec<Queue>>(QUEUES, host)? {
            if let Some(why) = at_stake(&queue, &lost) {
                return Err(refuse(format!(
                    "queue {} in {} {why} (as {host} sees it)",
                    queue.name, queue.vhost
                )));
            }
        }
    }
    for host in losers {
        let answer: QuorumCritical = input.known(rabbitmq::QUORUM_CRITICAL, host)?;
        if answer.critical {
            return Err(refuse(format!(
                "{host} is needed for the majority of {}",
                answer.queues.join(", ")
            )));
        }
    }
    let clients = |hosts: &Hosts| -> Result<u64, Verdict> {
        let mut most = 0;
        for host in hosts {
            most = most.max(
                input
                    .known::<Overview>(OVERVIEW, host)?
                    .object_totals
                    .connections,
            );
        }
        Ok(most)
    };
    let (losing, winning) = (clients(losers)?, clients(winners)?);
    if losing > 0 && losing >= winning {
        return Err(refuse(format!(
            "the smaller side serves {losing} connections, the larger one {winning}: each side has clients"
        )));
    }
    Ok(())
}

/// Why restarting the losing nodes could lose messages of this queue.
fn at_stake(queue: &Queue, losers: &[String]) -> Option<String> {
    if queue.is_quorum() || queue.messages == Some(0) {
        return None;
    }
    let messages = queue
        .messages
        .map_or("an unknown number of".to_owned(), |count| count.to_string());
    if queue.is_mirrored() {
        return Some(format!(
            "is a mirrored classic queue with {messages} messages"
        ));
    }
    let on_losers = queue.node.as_ref().is_none_or(|node| losers.contains(node));
    let kept = queue.durable && !queue.exclusive && !queue.auto_delete;
    (kept && on_losers)
        .then(|| format!("is a durable classic queue on the losing side with {messages} messages"))
}

#[cfg(test)]
#[path = "rabbitmq_partition_tests.rs"]
mod tests;

/// For other decisions about the same cluster.
pub(super) fn agrees(views: &Views) -> Result<(), Verdict> {
    match views.components() {
        Ok(components) if components.len() <= 1 && !views.reports_partition() => Ok(()),
        Ok(components) => Err(elsewhere(format!(
            "the running nodes do not agree: {}",
            shown(&components)
        ))),
        Err(partial) => Err(elsewhere(partial)),
    }
}
