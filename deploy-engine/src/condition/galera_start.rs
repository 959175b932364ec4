//! How a Galera cluster that is to run gets going: somebody is there to join, or exactly one member may found it.
//!
//! The rule behind all cases: a member that founds a cluster throws away what others had. So founding needs the word of *every*
//! member that it has nothing, and one that cannot be asked, or that has a place in a cluster, ends in a refusal.

use crate::{
    model::{HostName, ServiceName},
    probe::{
        Ask, Readings,
        galera::{self, ClusterStatus, Grastate, Processes, Server, Status, ZERO_UUID},
    },
};

/// What members are asked.
const PROBES: [&str; 4] = [
    galera::STATUS,
    galera::GRASTATE,
    galera::PROCESSES,
    galera::DATABASES,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A primary component runs: members that are missing join it.
    Join,
    /// No member runs or has a place in a cluster, but for this one at most: it founds the cluster.
    Bootstrap(HostName),
}

/// Why no member may found a cluster, and what a person can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: String,
    pub remedy: String,
}

pub fn asks(service: &ServiceName, members: &[HostName]) -> Vec<Ask> {
    members
        .iter()
        .flat_map(|host| {
            PROBES.map(|probe| Ask {
                probe: probe.to_owned(),
                host: host.clone(),
                service: Some(service.clone()),
            })
        })
        .collect()
}

/// What is known of one member.
struct Member<'a> {
    host: &'a HostName,
    server: Option<Server>,
    grastate: Grastate,
    runs: bool,
    databases: Vec<String>,
}

impl Member<'_> {
    /// It has a place in a cluster, as far as it wrote down.
    fn cluster(&self) -> Option<&str> {
        match &self.grastate {
            Grastate::Present { uuid, .. } if uuid != ZERO_UUID => Some(uuid),
            _ => None,
        }
    }

    fn safe_to_bootstrap(&self) -> bool {
        matches!(
            &self.grastate,
            Grastate::Present {
                safe_to_bootstrap: true,
                ..
            }
        )
    }

    /// Runs as a single server, not as a member of a cluster.
    fn runs_alone(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| server.wsrep.is_none())
    }
}

pub fn decide(members: &[HostName], readings: &Readings) -> Result<Start, Refusal> {
    if members.iter().any(|host| is_primary(host, readings)) {
        return Ok(Start::Join);
    }
    let members = members
        .iter()
        .map(|host| member(host, readings))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| Refusal {
            why: format!("no member is in a primary component, and not every member could be asked what it has: {why}"),
            remedy: "bring that host back, then run this again".to_owned(),
        })?;
    if let Some(member) = members
        .iter()
        .find(|member| member.runs && !member.runs_alone())
    {
        return Err(Refusal {
            why: format!("{} runs, but no member is in a primary component", member.host),
            remedy: "runbook GAL-4 restores the primary component; if the server is only just starting, wait for it"
                .to_owned(),
        });
    }
    match members
        .iter()
        .filter(|member| member.cluster().is_some())
        .collect::<Vec<_>>()[..]
    {
        [] => founder_of_new(&members),
        [holder] => founder_again(holder, &members),
        ref holders => Err(Refusal {
            why: format!(
                "{} have the data of a cluster, and no member runs in a primary component",
                names(holders.iter().map(|member| member.host))
            ),
            remedy:
                "runbook GAL-5 finds the member with the newest data and starts the cluster from it"
                    .to_owned(),
        }),
    }
}

fn is_primary(host: &HostName, readings: &Readings) -> bool {
    matches!(
        readings.get::<Status>(galera::STATUS, host),
        Ok(Status::Answering(Server { wsrep: Some(wsrep), .. })) if wsrep.cluster_status == ClusterStatus::Primary
    )
}

fn member<'a>(host: &'a HostName, readings: &Readings) -> Result<Member<'a>, String> {
    let status: Status = readings.get(galera::STATUS, host)?;
    let processes: Processes = readings.get(galera::PROCESSES, host)?;
    Ok(Member {
        host,
        server: match status {
            Status::Answering(server) => Some(server),
            Status::NotAnswering { .. } => None,
        },
        grastate: readings.get(galera::GRASTATE, host)?,
        runs: !processes.servers.is_empty(),
        databases: readings.get(galera::DATABASES, host)?,
    })
}

/// Nobody has been in a cluster. A single server that has databases founds it, so that they are kept.
fn founder_of_new(members: &[Member<'_>]) -> Result<Start, Refusal> {
    let with_data: Vec<&Member<'_>> = members
        .iter()
        .filter(|member| !member.databases.is_empty())
        .collect();
    match (with_data[..].as_ref(), members.first()) {
        ([], Some(first)) => Ok(Start::Bootstrap(first.host.clone())),
        ([one], _) => Ok(Start::Bootstrap(one.host.clone())),
        (several, _) => Err(Refusal {
            why: format!(
                "{} have databases from before and are not in a cluster: joining would throw away all but one",
                names(several.iter().map(|member| member.host))
            ),
            remedy: "save and remove the databases of all members but one".to_owned(),
        }),
    }
}

/// One member has been in a cluster that no other ever joined: an interrupted first deploy.
fn founder_again(holder: &Member<'_>, members: &[Member<'_>]) -> Result<Start, Refusal> {
    let others = members.iter().filter(|member| member.host != holder.host);
    if let Some(other) = others
        .into_iter()
        .find(|member| !member.databases.is_empty())
    {
        return Err(Refusal {
            why: format!(
                "{} has the data of a cluster, and {} has databases of its own: joining would throw them away",
                holder.host, other.host
            ),
            remedy: format!("save and remove the databases of {}", other.host),
        });
    }
    if holder.safe_to_bootstrap() {
        return Ok(Start::Bootstrap(holder.host.clone()));
    }
    Err(Refusal {
        why: format!(
            "{} alone has the data of a cluster, but was not its last member",
            holder.host
        ),
        remedy:
            "runbook GAL-5 finds the member with the newest data and starts the cluster from it"
                .to_owned(),
    })
}

fn names<'a>(hosts: impl Iterator<Item = &'a HostName>) -> String {
    hosts.map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        condition::table::testing::{host, hosts, known, unknown},
        probe::galera::{LocalState, ServerProcess, Wsrep},
    };

    const UUID: &str = "a1ae27c3-e6b3-11f1-a8b1-bb7731a0226d";

    /// What one member answers, in short: `fresh`, `joined half` (a transfer that never ended), `last` and `not last` (stopped
    /// members of a cluster), `primary`, `non-primary`, `starting`, `single` (with a database), `unreachable`.
    fn site(members: &[(&str, &str)]) -> (Vec<HostName>, Readings) {
        let mut readings = Readings::default();
        for (name, state) in members {
            if *state == "unreachable" {
                PROBES
                    .iter()
                    .for_each(|probe| unknown(&mut readings, probe, name));
                continue;
            }
            let (runs, wsrep, single) = match *state {
                "primary" => (true, Some(ClusterStatus::Primary), false),
                "non-primary" => (true, Some(ClusterStatus::NonPrimary), false),
                "starting" => (true, None, false),
                "single" => (true, None, true),
                _ => (false, None, false),
            };
            let status = match wsrep {
                Some(status) => answering(Some(status)),
                None if single => answering(None),
                None => Status::NotAnswering {
                    error: "no socket".to_owned(),
                },
            };
            known(&mut readings, galera::STATUS, name, &status);
            let grastate = match *state {
                "fresh" | "starting" | "single" | "fresh with data" => Grastate::Missing,
                "joined half" => Grastate::Present {
                    uuid: ZERO_UUID.to_owned(),
                    seqno: -1,
                    safe_to_bootstrap: false,
                },
                state => Grastate::Present {
                    uuid: UUID.to_owned(),
                    seqno: -1,
                    safe_to_bootstrap: state == "last",
                },
            };
            known(&mut readings, galera::GRASTATE, name, &grastate);
            let server = ServerProcess {
                pid: 1,
                running_seconds: 5,
                new_cluster: false,
                recovering: false,
            };
            let processes = Processes {
                servers: vec![server; usize::from(runs)],
                transfers: Vec::new(),
            };
            known(&mut readings, galera::PROCESSES, name, &processes);
            let data = matches!(*state, "single" | "fresh with data");
            let databases: Vec<&str> = if data { vec!["keystone"] } else { vec![] };
            known(&mut readings, galera::DATABASES, name, &databases);
        }
        let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        (hosts(&names), readings)
    }

    fn answering(status: Option<ClusterStatus>) -> Status {
        Status::Answering(Server {
            version: "10.11".to_owned(),
            uptime_seconds: 9,
            wsrep: status.map(|cluster_status| Wsrep {
                cluster_status,
                local_state: LocalState::Synced,
                ready: true,
                connected: true,
                cluster_size: 3,
                cluster_state_uuid: UUID.to_owned(),
                local_state_uuid: UUID.to_owned(),
                cluster_conf_id: 3,
                last_committed: 1,
                recv_queue: 0,
                flow_control_paused: 0.0,
                desync_count: 0,
                incoming_addresses: Vec::new(),
            }),
        })
    }

    #[rstest::rstest]
    #[case::first_deploy(["fresh", "fresh", "fresh"], "bootstrap ctl1")]
    #[case::running(["primary", "primary", "primary"], "join")]
    #[case::one_missing(["primary", "fresh", "not last"], "join")]
    #[case::missing_and_unreachable(["primary", "unreachable", "fresh"], "join")]
    #[case::founder_stopped_before_others_joined(["last", "fresh", "fresh"], "bootstrap ctl1")]
    #[case::founder_stopped_while_other_joined(["last", "joined half", "fresh"], "bootstrap ctl1")]
    #[case::founder_is_not_the_first(["fresh", "last", "fresh"], "bootstrap ctl2")]
    #[case::grown_from_one(["fresh", "single", "fresh"], "bootstrap ctl2")]
    #[case::stopped_single(["fresh", "fresh", "fresh with data"], "bootstrap ctl3")]
    #[case::unreachable(["fresh", "fresh", "unreachable"], "not every member could be asked")]
    #[case::whole_cluster_down(["not last", "not last", "last"], "GAL-5")]
    #[case::crashed_founder(["not last", "fresh", "fresh"], "GAL-5")]
    #[case::no_primary(["non-primary", "non-primary", "non-primary"], "GAL-4")]
    #[case::still_starting(["fresh", "starting", "fresh"], "GAL-4")]
    #[case::two_singles(["single", "single", "fresh"], "throw away all but one")]
    #[case::cluster_and_single(["last", "fresh with data", "fresh"], "throw them away")]
    fn who_may_found(#[case] states: [&str; 3], #[case] expected: &str) {
        let members: Vec<(&str, &str)> = ["ctl1", "ctl2", "ctl3"].into_iter().zip(states).collect();
        let (members, readings) = site(&members);
        let found = match decide(&members, &readings) {
            Ok(Start::Join) => "join".to_owned(),
            Ok(Start::Bootstrap(host)) => format!("bootstrap {host}"),
            Err(refusal) => format!("{} / {}", refusal.why, refusal.remedy),
        };
        assert!(
            found.contains(expected),
            "expected {expected:?}, found {found:?}"
        );
    }

    #[test]
    fn no_member_is_never_a_cluster() {
        assert!(decide(&[], &Readings::default()).is_err());
        assert!(decide(&[host("ctl1")], &Readings::default()).is_err());
    }
}
