//! GAL-1: members are down, a majority is Primary and Synced. They are started and join.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        galera::{
            self, BOOTSTRAP_ENVIRONMENT, BOOTSTRAP_FILE, BOOTSTRAP_LEFTOVERS, BootstrapLeftovers,
            ClusterStatus, DATA_SIZE, GRASTATE, Grastate, LocalState, PROCESSES, Processes,
            SST_MARKER, STATUS, Status, Wsrep, ZERO_UUID,
        },
        host::FILESYSTEM,
    },
};

use super::{
    Act, Facts, Input, Verdict,
    input::{majority, names},
    table::{Entry, Role, elsewhere, refuse},
};

pub(super) const UNIT: &str = "mariadb.service";
pub(super) const UNIT_STATE: &str = "host.unit/mariadb.service";
pub(super) const DATA: &str = "/var/lib/mysql";
/// Room for a full state transfer: the donor's data and a tenth of it.
const TRANSFER_ROOM: f64 = 1.1;

pub static DECISION: Entry = Entry {
    name: "galera.node_down",
    doc: "a member is down for good, a strict majority is Primary and Synced in one component, no state transfer or backup \
          runs, and nothing on the member would make it form a cluster of its own",
    roles: &[Role::always("down"), Role::always("synced")],
    parameters: &[],
    evidence: &[
        STATUS,
        PROCESSES,
        GRASTATE,
        SST_MARKER,
        BOOTSTRAP_LEFTOVERS,
        BOOTSTRAP_ENVIRONMENT,
        BOOTSTRAP_FILE,
        DATA_SIZE,
        UNIT_STATE,
        FILESYSTEM,
    ],
    settings: &["confirm"],
    facts,
    decide,
};

/// Who answers, and who is known not to.
pub(super) struct Split {
    pub answering: BTreeMap<HostName, Wsrep>,
    pub silent: Vec<HostName>,
}

/// Every member's status; unknown, or a server without replication, refuses.
pub(super) fn split(input: &Input<'_>) -> Result<Split, Verdict> {
    if input.members.len() < 2 {
        return Err(elsewhere("one server alone is no cluster"));
    }
    let mut split = Split {
        answering: BTreeMap::new(),
        silent: Vec::new(),
    };
    for (host, status) in input.of_all::<Status>(STATUS)? {
        match status {
            Status::NotAnswering { .. } => split.silent.push(host),
            Status::Answering(server) => match server.wsrep {
                Some(wsrep) => split.answering.insert(host, wsrep).map_or((), drop),
                None => {
                    return Err(refuse(format!(
                        "{host} runs without replication (wsrep_on is OFF)"
                    )));
                }
            },
        }
    }
    Ok(split)
}

fn facts(input: &Input<'_>) -> Facts {
    split(input)
        .map(|split| ("the set of members that are down", names(&split.silent)))
        .into_iter()
        .collect()
}

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let split = split(input)?;
    if split.silent.is_empty() {
        return Err(elsewhere("every member answers"));
    }
    let uuid = majority_serves(input, &split)?;
    let needed = largest_dataset(input, &split)?;
    for host in input.members {
        no_transfer(input, host)?;
    }
    for host in &split.silent {
        may_join(input, host, &uuid)?;
        let free = input.filesystem(host, DATA)?.free_bytes;
        if (free as f64) < needed {
            return Err(refuse(format!(
                "{host}: a full state transfer needs {needed:.0} bytes free for {DATA}; found {free}"
            )));
        }
    }
    input.steadily("the set of members that are down", "confirm")?;
    let why = format!(
        "{} are Primary and Synced in one component; {} is down and can join",
        names(split.answering.keys()),
        names(&split.silent)
    );
    let synced = split.answering.into_keys().collect();
    Ok(Act::on([("down", split.silent), ("synced", synced)], why))
}

/// A strict majority is Primary and Synced, and all that answer are in one component. Returns its identity.
fn majority_serves(input: &Input<'_>, split: &Split) -> Result<String, Verdict> {
    let primary = split
        .answering
        .values()
        .filter(|one| one.cluster_status == ClusterStatus::Primary)
        .count();
    if primary == 0 {
        return Err(elsewhere("no member is in a primary component"));
    }
    let (all, needed) = (input.members.len(), majority(input.members.len()));
    if let Some((host, donor)) = split
        .answering
        .iter()
        .find(|(_, one)| one.local_state == LocalState::Donor)
    {
        return Err(input.hold(format!(
            "{host} is {:?}: a state transfer or a backup runs",
            donor.local_state
        )));
    }
    let mut component: Option<(&HostName, &Wsrep)> = None;
    for (host, one) in &split.answering {
        let serves =
            one.cluster_status == ClusterStatus::Primary && one.local_state == LocalState::Synced;
        if !(serves && one.ready && one.connected) {
            return Err(refuse(format!(
                "{host} is {:?} and {:?}, ready {}: expected every answering member Primary and Synced",
                one.cluster_status, one.local_state, one.ready
            )));
        }
        let (first, reference) = *component.get_or_insert((host, one));
        let (here, there) = (
            (&one.cluster_state_uuid, one.cluster_conf_id),
            (&reference.cluster_state_uuid, reference.cluster_conf_id),
        );
        if here != there {
            return Err(refuse(format!(
                "{first} and {host} are in different components: {there:?} and {here:?}"
            )));
        }
    }
    if split.answering.len() < needed {
        return Err(refuse(format!(
            "{} of {all} members serve, expected at least {needed}",
            split.answering.len()
        )));
    }
    Ok(component
        .map(|(_, one)| one.cluster_state_uuid.clone())
        .unwrap_or_default())
}

/// No backup and no state transfer runs there, and a server that does not answer is not on its way up.
pub(super) fn no_transfer(input: &Input<'_>, host: &HostName) -> Result<Processes, Verdict> {
    let processes: Processes = input.known(PROCESSES, host)?;
    match processes.transfers.first() {
        Some(transfer) => Err(input.hold(format!(
            "{transfer} runs on {host}: a state transfer or a backup"
        ))),
        None => Ok(processes),
    }
}

/// Nothing on a stopped member would make its ordinary start form a cluster of its own, or start from a broken copy.
pub(super) fn nothing_left_over(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    if input.known::<bool>(SST_MARKER, host)? {
        return Err(refuse(format!(
            "{host}: a state transfer to it was interrupted (sst_in_progress is there)"
        )));
    }
    for probe in [BOOTSTRAP_LEFTOVERS, BOOTSTRAP_ENVIRONMENT, BOOTSTRAP_FILE] {
        let leftovers: BootstrapLeftovers = input.known(probe, host)?;
        if let Some(found) = leftovers.found.first() {
            return Err(refuse(format!(
                "{host} would form a cluster of its own: {found}"
            )));
        }
    }
    Ok(())
}

/// The server is down and nobody wants it to be, and no process of it is left.
pub(super) fn is_down(input: &Input<'_>, host: &HostName) -> Result<(), Verdict> {
    let processes = no_transfer(input, host)?;
    if let Some(server) = processes.servers.first() {
        return Err(input.hold(format!(
            "a server runs on {host} since {} s without answering: it starts or recovers, and killing it could destroy its data",
            server.running_seconds
        )));
    }
    input.is_startable(host, UNIT)
}

fn may_join(input: &Input<'_>, host: &HostName, cluster: &str) -> Result<(), Verdict> {
    is_down(input, host)?;
    nothing_left_over(input, host)?;
    match input.known::<Grastate>(GRASTATE, host)? {
        Grastate::Present { uuid, .. } if uuid != cluster && uuid != ZERO_UUID => {
            Err(refuse(format!(
                "{host} belongs to another cluster: its state is of {uuid}, the others are {cluster}"
            )))
        }
        Grastate::Present { .. } | Grastate::Missing => Ok(()),
    }
}

fn largest_dataset(input: &Input<'_>, split: &Split) -> Result<f64, Verdict> {
    let mut largest = 0;
    for host in split.answering.keys() {
        largest = largest.max(input.known::<u64>(galera::DATA_SIZE, host)?);
    }
    Ok(largest as f64 * TRANSFER_ROOM)
}

#[cfg(test)]
#[path = "galera_node_down_tests.rs"]
pub(in crate::decision) mod tests;
