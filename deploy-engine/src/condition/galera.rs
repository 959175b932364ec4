//! MariaDB: a single server that answers, or a Galera cluster that agrees.

use super::{
    ConditionCall, Judgement, galera_start,
    table::{self, Entry, all, holds, majority, not_yet, others, refuted, unknown},
};
use crate::{
    model::HostName,
    probe::{
        Ask, Readings,
        galera::{self, BootstrapLeftovers, ClusterStatus, LocalState, Processes, Status, Wsrep},
    },
};

/// Write sets that wait to be applied on a member that still counts as caught up.
const RECV_QUEUE_LIMIT: u64 = 100;

/// Everything that would make an ordinary start form a new cluster.
const LEFTOVERS: [&str; 3] = [
    galera::BOOTSTRAP_LEFTOVERS,
    galera::BOOTSTRAP_ENVIRONMENT,
    galera::BOOTSTRAP_FILE,
];

pub static CONDITIONS: &[Entry] = &[
    Entry {
        name: "mariadb.answers",
        doc: "the server answers on its local socket",
        asks: |call| table::ask_hosts(call, galera::STATUS),
        judge: |call, readings| all(call.hosts.iter().map(|host| answers(host, readings))),
    },
    Entry {
        name: "galera.synced",
        doc: "the members answer and are Synced in the primary component (one server alone: it answers)",
        asks: |call| table::ask_hosts(call, galera::STATUS),
        judge: judge_synced,
    },
    Entry {
        name: "galera.cluster_healthy",
        doc: "all members are Synced in one primary component of the full size, caught up",
        asks: |call| table::ask_members(call, galera::STATUS),
        judge: judge_cluster_healthy,
    },
    Entry {
        name: "galera.may_stop",
        doc: "the other members are Primary and Synced, no state transfer runs, and a majority is left",
        asks: ask_may_stop,
        judge: judge_may_stop,
    },
    Entry {
        name: "galera.may_start",
        doc: "a majority of the others is Primary and Synced and nothing on the host would form a cluster of its own",
        asks: ask_may_start,
        judge: judge_may_start,
    },
    Entry {
        name: "galera.may_bootstrap",
        doc: "no member is in a primary component, and the host is the only one whose data may found the cluster",
        asks: |call| galera_start::asks(&call.service, &call.members),
        judge: judge_may_bootstrap,
    },
    Entry {
        name: "galera.may_join",
        doc: "at least one other member is Primary and Synced, none is in another component, and nothing on the host would form a cluster of its own",
        asks: ask_may_start,
        judge: judge_may_join,
    },
    Entry {
        name: "galera.startable",
        doc: "no server, state transfer or backup runs on the hosts, and nothing there would form a cluster of its own",
        asks: |call| {
            [galera::PROCESSES]
                .into_iter()
                .chain(LEFTOVERS)
                .flat_map(|probe| table::ask_hosts(call, probe))
                .collect()
        },
        judge: |call, readings| {
            all(call
                .hosts
                .iter()
                .map(|host| match nothing_in_the_way(host, readings) {
                    Ok(()) => holds(format!("nothing runs on {host}")),
                    Err(judgement) => judgement,
                }))
        },
    },
    Entry {
        name: "galera.none_running",
        doc: "every member was asked and no server runs on any of them",
        asks: |call| table::ask_members(call, galera::PROCESSES),
        judge: judge_none_running,
    },
    Entry {
        name: "galera.no_primary",
        doc: "every member was asked, the hosts answer outside a primary component, and no member is in one",
        asks: |call| table::ask_members(call, galera::STATUS),
        judge: judge_no_primary,
    },
];

/// One server alone has nobody to agree with.
fn is_single(call: &ConditionCall) -> bool {
    call.members.len() == 1
}

fn answers(host: &HostName, readings: &Readings) -> Judgement {
    match readings.get::<Status>(galera::STATUS, host) {
        Ok(Status::Answering(server)) => {
            holds(format!("{host} answers, version {}", server.version))
        }
        Ok(Status::NotAnswering { error }) => not_yet(format!("{host} does not answer: {error}")),
        Err(why) => unknown(why),
    }
}

/// The member's view of its cluster, or the judgement that there is none.
fn view(host: &HostName, readings: &Readings) -> Result<Wsrep, Judgement> {
    match readings.get::<Status>(galera::STATUS, host) {
        Ok(Status::Answering(server)) => server
            .wsrep
            .ok_or_else(|| refuted(format!("{host} runs without replication (wsrep_on is OFF)"))),
        Ok(Status::NotAnswering { error }) => {
            Err(not_yet(format!("{host} does not answer: {error}")))
        }
        Err(why) => Err(unknown(why)),
    }
}

fn synced(host: &HostName, readings: &Readings) -> Result<Wsrep, Judgement> {
    let wsrep = view(host, readings)?;
    let problem = if wsrep.cluster_status != ClusterStatus::Primary {
        Some(format!("{host} is {:?}, not Primary", wsrep.cluster_status))
    } else if wsrep.local_state != LocalState::Synced {
        Some(format!("{host} is {:?}, not Synced", wsrep.local_state))
    } else if !(wsrep.ready && wsrep.connected) {
        Some(format!(
            "{host} is Synced but not ready (wsrep_ready {}, wsrep_connected {})",
            wsrep.ready, wsrep.connected
        ))
    } else {
        None
    };
    match problem {
        Some(why) => Err(not_yet(why)),
        None => Ok(wsrep),
    }
}

/// The hosts are Synced and in the same component.
fn in_one_component(
    hosts: &[&HostName],
    readings: &Readings,
) -> Result<Vec<(HostName, Wsrep)>, Judgement> {
    let mut views = Vec::new();
    let mut problems = Vec::new();
    for host in hosts {
        match synced(host, readings) {
            Ok(wsrep) => views.push(((*host).clone(), wsrep)),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(all(problems));
    }
    let Some((first, reference)) = views.first() else {
        return Err(unknown("no member was asked"));
    };
    for (host, wsrep) in &views {
        if wsrep.cluster_state_uuid != reference.cluster_state_uuid {
            return Err(refuted(format!(
                "{first} and {host} are in different clusters ({} and {})",
                reference.cluster_state_uuid, wsrep.cluster_state_uuid
            )));
        }
        if wsrep.cluster_conf_id != reference.cluster_conf_id {
            return Err(not_yet(format!(
                "{first} and {host} see different memberships (configuration {} and {})",
                reference.cluster_conf_id, wsrep.cluster_conf_id
            )));
        }
    }
    Ok(views)
}

fn judge_synced(call: &ConditionCall, readings: &Readings) -> Judgement {
    if is_single(call) {
        return answers(&call.hosts[0], readings);
    }
    match in_one_component(&call.hosts.iter().collect::<Vec<_>>(), readings) {
        Ok(views) => holds(format!(
            "{} Synced in a component of {}",
            names(views.iter().map(|(host, _)| host)),
            views[0].1.cluster_size
        )),
        Err(judgement) => judgement,
    }
}

fn judge_cluster_healthy(call: &ConditionCall, readings: &Readings) -> Judgement {
    if is_single(call) {
        return answers(&call.hosts[0], readings);
    }
    let views = match in_one_component(&call.members.iter().collect::<Vec<_>>(), readings) {
        Ok(views) => views,
        Err(judgement) => return judgement,
    };
    for (host, wsrep) in &views {
        if wsrep.cluster_size as usize != call.members.len() {
            return not_yet(format!(
                "{host} sees {} members of {}",
                wsrep.cluster_size,
                call.members.len()
            ));
        }
        if wsrep.recv_queue > RECV_QUEUE_LIMIT {
            return not_yet(format!(
                "{host} has {} write sets to apply",
                wsrep.recv_queue
            ));
        }
    }
    holds(format!(
        "all {} members Synced in one primary component",
        views.len()
    ))
}

fn ask_may_stop(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = table::ask_members(call, galera::STATUS);
    asks.extend(table::ask_hosts(call, galera::PROCESSES));
    asks
}

/// Members that must be left Synced. Of two, one is enough: a member that leaves cleanly is no longer counted.
fn must_stay(members: usize) -> usize {
    majority(members).min(members - 1)
}

fn judge_may_stop(call: &ConditionCall, readings: &Readings) -> Judgement {
    if let Err(judgement) = no_transfer(call, readings) {
        return judgement;
    }
    if is_single(call) {
        return holds(format!(
            "{} is the only server: its stop is an outage",
            call.hosts[0]
        ));
    }
    for host in &call.hosts {
        let running = match readings.get::<Status>(galera::STATUS, host) {
            Ok(Status::Answering(server)) => server.wsrep,
            Ok(Status::NotAnswering { .. }) => None,
            Err(why) => return unknown(why),
        };
        if let Some(wsrep) = running
            && matches!(
                wsrep.local_state,
                LocalState::Donor | LocalState::Joining | LocalState::Joined
            )
        {
            return not_yet(format!(
                "{host} is {:?}: stopping it now would break a transfer",
                wsrep.local_state
            ));
        }
    }
    let others = others(call);
    match in_one_component(&others, readings) {
        Ok(views) if views.len() >= must_stay(call.members.len()) => holds(format!(
            "{} stay Primary and Synced",
            names(views.iter().map(|(host, _)| host))
        )),
        Ok(views) => refuted(format!(
            "{} of {} members would be left; expected at least {}",
            views.len(),
            call.members.len(),
            must_stay(call.members.len())
        )),
        Err(judgement) => judgement,
    }
}

/// No state transfer or backup runs on the hosts, and a server that runs there has got as far as answering.
fn no_transfer(call: &ConditionCall, readings: &Readings) -> Result<(), Judgement> {
    for host in &call.hosts {
        let processes: Processes = readings.get(galera::PROCESSES, host).map_err(unknown)?;
        if let Some(transfer) = processes.transfers.first() {
            return Err(not_yet(format!(
                "{transfer} runs on {host}: wait for its end"
            )));
        }
        let answering = matches!(
            readings
                .get::<Status>(galera::STATUS, host)
                .map_err(unknown)?,
            Status::Answering(_)
        );
        if !processes.servers.is_empty() && !answering {
            return Err(not_yet(format!(
                "{host} is starting: its server runs but does not answer yet"
            )));
        }
    }
    Ok(())
}

fn ask_may_start(call: &ConditionCall) -> Vec<Ask> {
    let mut asks = table::ask_members(call, galera::STATUS);
    for probe in [galera::PROCESSES].into_iter().chain(LEFTOVERS) {
        asks.extend(table::ask_hosts(call, probe));
    }
    asks
}

fn judge_may_start(call: &ConditionCall, readings: &Readings) -> Judgement {
    for host in &call.hosts {
        if let Err(judgement) = nothing_in_the_way(host, readings) {
            return judgement;
        }
    }
    if is_single(call) {
        return holds(format!("{} is the only server", call.hosts[0]));
    }
    let answering: Vec<&HostName> = others(call)
        .into_iter()
        .filter(|host| {
            !matches!(
                readings.get::<Status>(galera::STATUS, host),
                Ok(Status::NotAnswering { .. })
            )
        })
        .collect();
    let needed = must_stay(call.members.len());
    if answering.len() < needed {
        return refuted(format!(
            "{} of the other members answer; expected at least {needed}",
            answering.len()
        ));
    }
    match in_one_component(&answering, readings) {
        Ok(views) => holds(format!(
            "{} are Primary and Synced: a member can join",
            names(views.iter().map(|(host, _)| host))
        )),
        Err(judgement) => judgement,
    }
}

/// After a whole cluster was down: one member that serves is enough to join, for nobody else can be Primary.
fn judge_may_join(call: &ConditionCall, readings: &Readings) -> Judgement {
    for host in &call.hosts {
        if let Err(judgement) = nothing_in_the_way(host, readings) {
            return judgement;
        }
    }
    let mut answering = Vec::new();
    for host in others(call) {
        match readings.get::<Status>(galera::STATUS, host) {
            Ok(Status::Answering(_)) => answering.push(host),
            Ok(Status::NotAnswering { .. }) => {}
            Err(why) => return unknown(why),
        }
    }
    if answering.is_empty() {
        return not_yet("no other member answers");
    }
    match in_one_component(&answering, readings) {
        Ok(views) => holds(format!(
            "{} are Primary and Synced: a member can join",
            names(views.iter().map(|(host, _)| host))
        )),
        Err(judgement) => judgement,
    }
}

fn judge_none_running(call: &ConditionCall, readings: &Readings) -> Judgement {
    all(call.members.iter().map(
        |host| match readings.get::<Processes>(galera::PROCESSES, host) {
            Err(why) => unknown(why),
            Ok(processes) => match processes.servers.first() {
                Some(server) => {
                    refuted(format!("a server runs on {host} (process {})", server.pid))
                }
                None => holds(format!("no server runs on {host}")),
            },
        },
    ))
}

fn judge_no_primary(call: &ConditionCall, readings: &Readings) -> Judgement {
    all(call.members.iter().map(|host| {
        let asked_for = call.hosts.contains(host);
        match readings.get::<Status>(galera::STATUS, host) {
            Err(why) => unknown(why),
            Ok(Status::NotAnswering { error }) if asked_for => {
                refuted(format!("{host} does not answer: {error}"))
            }
            Ok(Status::NotAnswering { .. }) => holds(format!("{host} does not answer")),
            Ok(Status::Answering(server)) => match server.wsrep {
                None => refuted(format!("{host} runs without replication")),
                Some(wsrep) if wsrep.cluster_status == ClusterStatus::Primary => {
                    refuted(format!("{host} is in a primary component"))
                }
                Some(_) => holds(format!("{host} is outside a primary component")),
            },
        }
    }))
}

fn nothing_in_the_way(host: &HostName, readings: &Readings) -> Result<(), Judgement> {
    let processes: Processes = readings.get(galera::PROCESSES, host).map_err(unknown)?;
    if let Some(server) = processes.servers.first() {
        return Err(not_yet(format!(
            "a server runs on {host} already (process {})",
            server.pid
        )));
    }
    if let Some(transfer) = processes.transfers.first() {
        return Err(not_yet(format!(
            "{transfer} runs on {host}: wait for its end"
        )));
    }
    for probe in LEFTOVERS {
        let leftovers: BootstrapLeftovers = readings.get(probe, host).map_err(unknown)?;
        if let Some(leftover) = leftovers.found.first() {
            return Err(refuted(format!(
                "{host} would form a cluster of its own: {leftover}; remove that first"
            )));
        }
    }
    Ok(())
}

fn names<'a>(hosts: impl Iterator<Item = &'a HostName>) -> String {
    hosts.map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

fn judge_may_bootstrap(call: &ConditionCall, readings: &Readings) -> Judgement {
    match (
        galera_start::decide(&call.members, readings),
        call.hosts.as_slice(),
    ) {
        (Ok(galera_start::Start::Bootstrap(host)), [only]) if host == *only => holds(format!(
            "{host} may found the cluster: no other member has data or runs"
        )),
        (Ok(galera_start::Start::Bootstrap(host)), _) => {
            refuted(format!("only {host} may found the cluster"))
        }
        (Ok(galera_start::Start::Join), _) => refuted("there is a primary component already"),
        (Err(refusal), _) => refuted(refusal.why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        condition::{self, table::testing},
        probe::galera::{Server, ServerProcess},
    };

    const MEMBERS: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

    fn wsrep() -> Wsrep {
        Wsrep {
            cluster_status: ClusterStatus::Primary,
            local_state: LocalState::Synced,
            ready: true,
            connected: true,
            cluster_size: 3,
            cluster_state_uuid: "u1".to_owned(),
            local_state_uuid: "u1".to_owned(),
            cluster_conf_id: 7,
            last_committed: 9,
            recv_queue: 0,
            flow_control_paused: 0.0,
            desync_count: 0,
            incoming_addresses: Vec::new(),
        }
    }

    /// What a member says, in short, and what runs on its host.
    fn site(states: [&str; 3]) -> Readings {
        let mut readings = Readings::default();
        for (name, state) in MEMBERS.into_iter().zip(states) {
            let mut processes = Processes::default();
            if state != "down" {
                processes.servers.push(ServerProcess {
                    pid: 5,
                    running_seconds: 60,
                    new_cluster: false,
                    recovering: false,
                });
            }
            if state == "receiving" || state == "donor" {
                processes.transfers.push("wsrep_sst_rsync".to_owned());
            }
            testing::known(&mut readings, galera::PROCESSES, name, &processes);
            let leftover = if state == "down" && name == "ctl3" {
                ""
            } else {
                "pc.bootstrap"
            };
            for probe in LEFTOVERS {
                let found = if leftover.is_empty() {
                    vec![]
                } else {
                    vec![leftover.to_owned()]
                };
                testing::known(&mut readings, probe, name, &BootstrapLeftovers { found });
            }
            let mut wsrep = wsrep();
            match state {
                "donor" | "desynced" => wsrep.local_state = LocalState::Donor,
                "joined" => wsrep.local_state = LocalState::Joined,
                "not ready" => wsrep.ready = false,
                "behind" => wsrep.recv_queue = 5_000,
                "sees two" => wsrep.cluster_size = 2,
                "other cluster" => wsrep.cluster_state_uuid = "u2".to_owned(),
                "other view" => wsrep.cluster_conf_id = 8,
                "non-primary" => wsrep.cluster_status = ClusterStatus::NonPrimary,
                _ => {}
            }
            match state {
                "unknown" => testing::unknown(&mut readings, galera::STATUS, name),
                "down" | "receiving" => {
                    let status = Status::NotAnswering {
                        error: "no socket".to_owned(),
                    };
                    testing::known(&mut readings, galera::STATUS, name, &status);
                }
                state => {
                    let server = Server {
                        version: "10.11".to_owned(),
                        uptime_seconds: 5,
                        wsrep: (state != "no replication").then_some(wsrep),
                    };
                    testing::known(
                        &mut readings,
                        galera::STATUS,
                        name,
                        &Status::Answering(server),
                    );
                }
            }
        }
        readings
    }

    fn word(judgement: &Judgement) -> &'static str {
        match judgement {
            Judgement::Holds { .. } => "holds",
            Judgement::NotYet { .. } => "not yet",
            Judgement::Refuted { .. } => "refuted",
            Judgement::Unknown { .. } => "unknown",
        }
    }

    fn judged(
        name: &str,
        about: &[&str],
        members: &[&str],
        states: [&str; 3],
    ) -> (&'static str, String) {
        let condition = condition::find(name).expect("a condition");
        let judgement = condition.judge(
            &testing::call(name, "mariadb", about, members),
            &site(states),
        );
        (word(&judgement), judgement.why().to_owned())
    }

    #[rstest::rstest]
    #[case("galera.synced", ["", "", ""], "holds")]
    #[case("galera.synced", ["", "", "down"], "not yet")]
    #[case("galera.synced", ["", "", "unknown"], "unknown")]
    #[case("galera.synced", ["", "", "not ready"], "not yet")]
    #[case("galera.synced", ["", "", "non-primary"], "not yet")]
    #[case("galera.synced", ["", "", "no replication"], "refuted")]
    #[case("galera.may_stop", ["", "", ""], "holds")]
    #[case::its_own_donor("galera.may_stop", ["", "", "donor"], "not yet")]
    #[case::desynced_by_hand("galera.may_stop", ["", "", "desynced"], "not yet")]
    #[case::starting("galera.may_stop", ["", "", "receiving"], "not yet")]
    #[case::other_is_donor("galera.may_stop", ["donor", "", ""], "not yet")]
    #[case::other_is_down("galera.may_stop", ["down", "", ""], "not yet")]
    #[case::other_is_unknown("galera.may_stop", ["unknown", "", ""], "unknown")]
    #[case::two_clusters("galera.may_stop", ["other cluster", "", ""], "refuted")]
    #[case::two_views("galera.may_stop", ["other view", "", ""], "not yet")]
    #[case("galera.may_start", ["", "", "down"], "holds")]
    #[case::runs_already("galera.may_start", ["", "", ""], "not yet")]
    #[case::majority_is_down("galera.may_start", ["", "down", "down"], "refuted")]
    #[case::others_non_primary("galera.may_start", ["non-primary", "non-primary", "down"], "not yet")]
    #[case::other_is_unknown("galera.may_start", ["", "unknown", "down"], "unknown")]
    fn one_member(#[case] name: &str, #[case] states: [&str; 3], #[case] expected: &str) {
        let (found, why) = judged(name, &["ctl3"], &MEMBERS, states);
        assert_eq!(found, expected, "{why}");
    }

    #[rstest::rstest]
    #[case(["", "", ""], "holds")]
    #[case(["", "", "sees two"], "not yet")]
    #[case(["", "", "behind"], "not yet")]
    #[case(["", "", "down"], "not yet")]
    #[case(["", "unknown", "down"], "unknown")]
    #[case(["", "other cluster", ""], "refuted")]
    fn the_whole_cluster(#[case] states: [&str; 3], #[case] expected: &str) {
        let (found, why) = judged("galera.cluster_healthy", &["ctl1"], &MEMBERS, states);
        assert_eq!(found, expected, "{why}");
    }

    /// A reading that is judged but not asked for is unknown, and no start would ever be let pass.
    #[test]
    fn what_a_start_is_judged_by_is_asked_for() {
        for name in ["galera.startable", "galera.may_start", "galera.may_join"] {
            let condition = condition::find(name).expect("a condition");
            let call = testing::call(name, "mariadb", &["ctl3"], &MEMBERS);
            let asked: Vec<Ask> = condition.asks(&call);
            let mut readings = site(["", "", "down"]);
            readings.by_probe.retain(|probe, of| {
                of.retain(|host, _| {
                    asked
                        .iter()
                        .any(|ask| ask.probe == *probe && ask.host == *host)
                });
                !of.is_empty()
            });
            let judgement = condition.judge(&call, &readings);
            assert_eq!(word(&judgement), "holds", "{name}: {}", judgement.why());
        }
    }

    #[test]
    fn a_leftover_of_a_bootstrap_refuses_the_start() {
        let (found, why) = judged("galera.may_start", &["ctl2"], &MEMBERS, ["", "down", ""]);
        assert_eq!(found, "refuted");
        assert!(why.contains("pc.bootstrap"), "{why}");
    }

    #[test]
    fn one_server_alone_only_has_to_answer() {
        assert_eq!(
            judged(
                "galera.synced",
                &["ctl1"],
                &["ctl1"],
                ["no replication", "", ""]
            )
            .0,
            "holds"
        );
        assert_eq!(
            judged(
                "galera.may_stop",
                &["ctl1"],
                &["ctl1"],
                ["no replication", "", ""]
            )
            .0,
            "holds"
        );
        assert_eq!(
            judged("galera.synced", &["ctl1"], &["ctl1"], ["down", "", ""]).0,
            "not yet"
        );
    }

    #[test]
    fn of_two_members_one_must_stay() {
        assert_eq!(
            judged(
                "galera.may_stop",
                &["ctl2"],
                &["ctl1", "ctl2"],
                ["", "", ""]
            )
            .0,
            "holds"
        );
        assert_eq!(
            judged(
                "galera.may_stop",
                &["ctl1", "ctl2"],
                &["ctl1", "ctl2"],
                ["", "", ""]
            )
            .0,
            "unknown"
        );
        assert_eq!(
            judged("galera.may_stop", &["ctl2", "ctl3"], &MEMBERS, ["", "", ""]).0,
            "refuted"
        );
    }

    #[test]
    fn no_host_and_strangers_are_refused() {
        assert_eq!(
            judged("galera.synced", &[], &MEMBERS, ["", "", ""]).0,
            "unknown"
        );
        assert_eq!(
            judged("galera.synced", &["web1"], &MEMBERS, ["", "", ""]).0,
            "unknown"
        );
    }
}
