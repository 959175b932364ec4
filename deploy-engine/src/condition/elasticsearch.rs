//! Elasticsearch and OpenSearch: in one cluster, with every shard where it should be.

use super::{
    ConditionCall, Judgement,
    table::{self, Entry, all, holds, not_yet, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Readings,
        elasticsearch::{self, Health, Node, Shards, Status},
    },
};

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "elasticsearch.healthy",
        doc: "the node is in the cluster, and no shard is missing that the nodes there could hold (one node alone may be yellow)",
        asks: |call| {
            let mut asks = table::ask_hosts(call, elasticsearch::HEALTH);
            asks.extend(table::ask_hosts(call, elasticsearch::NODES));
            asks
        },
        judge: |call, readings| all(call.hosts.iter().map(|host| healthy(call, host, readings))),
    },
    Entry {
        name: "elasticsearch.complete",
        doc: "all members are in one cluster and it is green (one node alone: not red)",
        asks: ask_cluster,
        judge: judge_complete,
    },
    Entry {
        name: "elasticsearch.may_stop",
        doc: "all members are in one green cluster in which no shard moves (one alone: its stop is an outage, and it must not be red)",
        asks: ask_cluster,
        judge: judge_may_stop,
    },
    Entry {
        name: "elasticsearch.may_found",
        doc: "no member has ever had data, so that a new cluster takes nothing from an old one",
        asks: |call| table::ask_members(call, elasticsearch::FRESH),
        judge: judge_may_found,
    },
];

fn ask_cluster(call: &ConditionCall) -> Vec<crate::probe::Ask> {
    let mut asks = table::ask_members(call, elasticsearch::HEALTH);
    asks.extend(table::ask_members(call, elasticsearch::NODES));
    asks
}

fn shards(host: &HostName, readings: &Readings) -> Result<Shards, Judgement> {
    match readings.get(elasticsearch::HEALTH, host) {
        Ok(Health::Formed(shards)) => Ok(shards),
        Ok(Health::NoMaster) => Err(not_yet(format!("{host} knows no master"))),
        Err(why) => Err(unknown(why)),
    }
}

fn status(host: &HostName, shards: &Shards) -> String {
    format!(
        "{host} says {}, {} nodes, {} shards unassigned",
        match shards.status {
            Status::Green => "green",
            Status::Yellow => "yellow",
            Status::Red => "red",
        },
        shards.number_of_nodes,
        shards.unassigned_shards
    )
}

/// A node by its name, which is the host's.
fn sees(host: &HostName, whom: &HostName, readings: &Readings) -> Result<bool, String> {
    let nodes: Vec<Node> = readings.get(elasticsearch::NODES, host)?;
    Ok(nodes.iter().any(|node| node.name == whom.as_str()))
}

fn healthy(call: &ConditionCall, host: &HostName, readings: &Readings) -> Judgement {
    let shards = match shards(host, readings) {
        Ok(shards) => shards,
        Err(judgement) => return judgement,
    };
    match sees(host, host, readings) {
        Err(why) => return unknown(why),
        Ok(false) => return not_yet(format!("{host} is not among the nodes of its cluster")),
        Ok(true) => {}
    }
    let why = status(host, &shards);
    // Copies of shards wait for the members that are not there.
    let incomplete = shards.number_of_nodes < call.members.len();
    match shards.status {
        Status::Green => holds(why),
        Status::Yellow if incomplete || call.members.len() == 1 => holds(why),
        Status::Yellow | Status::Red => not_yet(why),
    }
}

/// Every member tells the same: all are there.
fn complete(call: &ConditionCall, readings: &Readings) -> Result<Vec<Shards>, Judgement> {
    let mut views = Vec::new();
    for member in &call.members {
        let view = shards(member, readings)?;
        for other in &call.members {
            match sees(member, other, readings) {
                Err(why) => return Err(unknown(why)),
                Ok(false) => return Err(not_yet(format!("{member} does not see {other}"))),
                Ok(true) => {}
            }
        }
        views.push(view);
    }
    Ok(views)
}

fn judge_complete(call: &ConditionCall, readings: &Readings) -> Judgement {
    let views = match complete(call, readings) {
        Ok(views) => views,
        Err(judgement) => return judgement,
    };
    let alone = call.members.len() == 1;
    all(call.members.iter().zip(&views).map(|(member, view)| {
        let why = status(member, view);
        match view.status {
            Status::Green => holds(why),
            Status::Yellow if alone => holds(why),
            Status::Yellow | Status::Red => not_yet(why),
        }
    }))
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    let green = judge_complete(call, readings);
    if !green.holds() || call.members.len() == 1 {
        return green;
    }
    let views = match complete(call, readings) {
        Ok(views) => views,
        Err(judgement) => return judgement,
    };
    all(call.members.iter().zip(&views).map(|(member, view)| {
        let moving = view.relocating_shards + view.initializing_shards;
        if moving == 0 {
            holds(status(member, view))
        } else {
            not_yet(format!("{member} says that {moving} shards move"))
        }
    }))
}

fn judge_may_found(call: &ConditionCall, readings: &Readings) -> Judgement {
    all(call
        .members
        .iter()
        .map(|member| match readings.get(elasticsearch::FRESH, member) {
            Ok(true) => holds(format!("{member} has no data")),
            Ok(false) => refuted(format!("{member} has data of a cluster")),
            Err(why) => unknown(why),
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, table::testing};

    /// What one member says: its cluster's colour, how many shards move, and the members that it sees by their digits.
    #[derive(Clone, Copy)]
    struct View(char, u64, &'static str);

    fn judged(name: &str, views: &[View]) -> &'static str {
        let members = &["ctl1", "ctl2", "ctl3"][..views.len()];
        let mut readings = Readings::default();
        for (host, View(colour, moving, seen)) in members.iter().zip(views) {
            let status = match colour {
                'g' => Status::Green,
                'y' => Status::Yellow,
                'r' => Status::Red,
                'm' => {
                    testing::known(
                        &mut readings,
                        elasticsearch::HEALTH,
                        host,
                        &Health::NoMaster,
                    );
                    testing::known(
                        &mut readings,
                        elasticsearch::NODES,
                        host,
                        &Vec::<Node>::new(),
                    );
                    continue;
                }
                _ => {
                    testing::unknown(&mut readings, elasticsearch::HEALTH, host);
                    testing::unknown(&mut readings, elasticsearch::NODES, host);
                    continue;
                }
            };
            let health = Health::Formed(Shards {
                status,
                number_of_nodes: seen.len(),
                active_shards: 3,
                relocating_shards: *moving,
                initializing_shards: 0,
                unassigned_shards: 0,
                delayed_unassigned_shards: 0,
            });
            let nodes: Vec<Node> = seen
                .chars()
                .map(|digit| Node {
                    name: format!("ctl{digit}"),
                    ip: format!("10.77.0.1{digit}"),
                    version: "2.19.6".to_owned(),
                    heap_percent: None,
                    disk_used_percent: None,
                })
                .collect();
            testing::known(&mut readings, elasticsearch::HEALTH, host, &health);
            testing::known(&mut readings, elasticsearch::NODES, host, &nodes);
        }
        let call = testing::call(name, "elasticsearch", &["ctl1"], members);
        word(condition::find(name).unwrap().judge(&call, &readings))
    }

    fn word(judgement: Judgement) -> &'static str {
        match judgement {
            Judgement::Holds { .. } => "holds",
            Judgement::NotYet { .. } => "not yet",
            Judgement::Refuted { .. } => "refuted",
            Judgement::Unknown { .. } => "unknown",
        }
    }

    const GREEN: View = View('g', 0, "123");
    const SILENT: View = View('?', 0, "");

    #[rstest::rstest]
    #[case("elasticsearch.healthy", &[GREEN, SILENT, SILENT], "holds")]
    #[case::others_are_missing("elasticsearch.healthy", &[View('y', 0, "12"), SILENT, SILENT], "holds")]
    #[case::copies_are_made("elasticsearch.healthy", &[View('y', 0, "123"), GREEN, GREEN], "not yet")]
    #[case("elasticsearch.healthy", &[View('r', 0, "12"), GREEN, GREEN], "not yet")]
    #[case::not_in_it("elasticsearch.healthy", &[View('g', 0, "23"), GREEN, GREEN], "not yet")]
    #[case("elasticsearch.healthy", &[View('m', 0, ""), GREEN, GREEN], "not yet")]
    #[case("elasticsearch.healthy", &[SILENT, GREEN, GREEN], "unknown")]
    #[case::alone("elasticsearch.healthy", &[View('y', 0, "1")], "holds")]
    #[case::alone("elasticsearch.healthy", &[View('r', 0, "1")], "not yet")]
    #[case("elasticsearch.complete", &[GREEN, GREEN, GREEN], "holds")]
    #[case("elasticsearch.complete", &[GREEN, GREEN, View('g', 0, "12")], "not yet")]
    #[case("elasticsearch.complete", &[GREEN, GREEN, SILENT], "unknown")]
    #[case("elasticsearch.may_stop", &[GREEN, GREEN, GREEN], "holds")]
    #[case::shards_move("elasticsearch.may_stop", &[GREEN, View('g', 2, "123"), GREEN], "not yet")]
    #[case("elasticsearch.may_stop", &[View('y', 0, "123"); 3], "not yet")]
    #[case("elasticsearch.may_stop", &[GREEN, GREEN, SILENT], "unknown")]
    #[case("elasticsearch.may_stop", &[GREEN, GREEN, View('m', 0, "")], "not yet")]
    #[case::alone("elasticsearch.may_stop", &[View('y', 0, "1")], "holds")]
    #[case::alone("elasticsearch.may_stop", &[View('r', 0, "1")], "not yet")]
    #[case::alone("elasticsearch.may_stop", &[SILENT], "unknown")]
    fn clusters(#[case] name: &str, #[case] views: &[View], #[case] expected: &str) {
        assert_eq!(judged(name, views), expected);
    }

    #[test]
    fn a_cluster_is_founded_only_where_nobody_has_data() {
        let judge = |answers: [Option<bool>; 2]| {
            let mut readings = Readings::default();
            for (host, answer) in ["ctl1", "ctl2"].iter().zip(answers) {
                match answer {
                    Some(fresh) => {
                        testing::known(&mut readings, elasticsearch::FRESH, host, &fresh)
                    }
                    None => testing::unknown(&mut readings, elasticsearch::FRESH, host),
                }
            }
            let name = "elasticsearch.may_found";
            let call = testing::call(name, "elasticsearch", &["ctl1"], &["ctl1", "ctl2"]);
            word(condition::find(name).unwrap().judge(&call, &readings))
        };
        assert_eq!(judge([Some(true), Some(true)]), "holds");
        assert_eq!(judge([Some(true), Some(false)]), "refuted");
        assert_eq!(judge([Some(true), None]), "unknown");
    }
}
