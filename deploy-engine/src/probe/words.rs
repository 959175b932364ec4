//! What readings say, in words: for people who look at a decision at night. A reading that nobody found words for stays as it is.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Heard, ceph, ceph_trouble, galera, haproxy, host, icinga2, keepalived, memcached, monitoring,
    rabbitmq,
};

/// Names in a list; the rest is a number.
const NAMED: usize = 4;

/// Pure. None: no words for this probe, or the value is not of the shape that it has today.
pub fn words(probe: &str, value: &Value) -> Option<String> {
    match super::split(probe).0 {
        host::UNITS => typed(value, units),
        host::UNIT => typed(value, |unit: host::Unit| {
            unit_words(super::split(probe).1.unwrap_or_default(), &unit)
        }),
        host::FILESYSTEM => typed(value, filesystems),
        host::CONFIG_CHANGES => typed(value, |files: Vec<String>| match files.len() {
            0 => "nothing under /etc changed within the last hour".to_owned(),
            _ => format!("changed within the last hour: {}", listed(&files)),
        }),
        host::ADDRESSES => typed(value, addresses),
        monitoring::NODE_EXPORTER | monitoring::MYSQLD_EXPORTER | monitoring::SIGNS_EXPORTER => {
            typed(value, |said: Heard<monitoring::Page>| {
                daemon(said, |page| format!("serves {} samples", page.samples))
            })
        }
        monitoring::ALERTMANAGER_CLUSTER => {
            typed(value, |said: Heard<monitoring::AlertmanagerCluster>| {
                daemon(said, |cluster| {
                    format!("{}, sees {}", cluster.status, listed(&cluster.peers))
                })
            })
        }
        monitoring::PROMETHEUS_TARGETS => typed(value, |targets: monitoring::Targets| {
            format!("{} of {} targets down", targets.down.len(), targets.count)
        }),
        ceph::CLUSTER => typed(value, ceph_cluster),
        ceph::PGS => typed(value, |groups: ceph::Pgs| {
            format!("placement groups: {}", groups.words())
        }),
        ceph::CRASHES | ceph::NEW_CRASHES => {
            typed(value, |crashes: Vec<ceph::Crash>| match crashes.last() {
                None => "no crashes".to_owned(),
                Some(last) => format!(
                    "{} crashes, the last of {} at {}",
                    crashes.len(),
                    last.daemon,
                    last.at
                ),
            })
        }
        ceph_trouble::DAMAGE => typed(value, ceph_damage),
        ceph_trouble::BLOCKED => typed(value, ceph_blocked),
        ceph::DEVICE_ERRORS => typed(value, |lines: Vec<String>| match lines.last() {
            None => "the kernel reports no failing disk".to_owned(),
            Some(last) => format!("the kernel reports a failing disk: {last}"),
        }),
        galera::STATUS => typed(value, galera_status),
        galera::PROCESSES => typed(value, galera_processes),
        galera::GRASTATE => typed(value, grastate),
        galera::GVWSTATE => typed(value, |state: galera::Gvwstate| match state {
            galera::Gvwstate::Missing => "remembers no component".to_owned(),
            galera::Gvwstate::Present { members, .. } => {
                format!("remembers a component of {members}")
            }
        }),
        galera::RECOVERED => typed(value, |at: galera::Recovered| {
            format!("its data proves position {} of {}", at.seqno, at.uuid)
        }),
        galera::BOOTSTRAP_LEFTOVERS | galera::BOOTSTRAP_ENVIRONMENT | galera::BOOTSTRAP_FILE => {
            typed(value, |left: galera::BootstrapLeftovers| {
                match left.found.len() {
                    0 => "nothing is left of a bootstrap".to_owned(),
                    _ => listed(&left.found),
                }
            })
        }
        galera::DATA_SIZE => typed(value, |bytes: u64| format!("{} of data", size(bytes))),
        galera::SST_MARKER => Some(match value {
            Value::Bool(true) => "a state transfer is going on".to_owned(),
            Value::Bool(false) => "no state transfer".to_owned(),
            _ => return None,
        }),
        icinga2::STATUS => typed(value, |said: Heard<icinga2::Status>| {
            daemon(said, |status| {
                format!(
                    "runs {}, up {:.0} s, {} checks, begun {:.1} s late at most",
                    status.version,
                    status.uptime_seconds,
                    status.services,
                    status.max_latency_seconds
                )
            })
        }),
        icinga2::ZONES => typed(value, |said: Heard<icinga2::Zones>| {
            daemon(said, |zones| match zones.not_connected.len() {
                0 => format!("connected to {}", listed(&zones.connected)),
                _ => format!("not connected to {}", listed(&zones.not_connected)),
            })
        }),
        icinga2::AUTHORITY => typed(value, |said: Heard<icinga2::Authority>| {
            daemon(said, |authority| {
                let (checks, leaves) = (authority.checks.len(), authority.leaves.len());
                format!("checks {checks} hosts and leaves {leaves} to others")
            })
        }),
        icinga2::LATE => typed(value, |said: Heard<icinga2::Late>| {
            daemon(said, |late| match late.count {
                0 => "no check is late".to_owned(),
                count => format!("{count} checks are late: {}", listed(&late.some)),
            })
        }),
        icinga2::CERTIFICATE => typed(value, |certificate: icinga2::Valid| {
            match certificate.valid {
                true => "its certificate holds".to_owned(),
                false => format!("its certificate does not hold: {}", certificate.message),
            }
        }),
        icinga2::CONFIG_CHECK => typed(value, |check: icinga2::Valid| match check.valid {
            true => "its configuration is valid".to_owned(),
            false => format!("its configuration is not valid: {}", check.message),
        }),
        icinga2::PEERS_TCP => typed(value, |peers: icinga2::Peers| match peers.closed.len() {
            0 => "reaches all other masters".to_owned(),
            _ => listed(
                &peers
                    .closed
                    .iter()
                    .map(|(address, why)| format!("{address} is not reached: {why}"))
                    .collect::<Vec<_>>(),
            ),
        }),
        rabbitmq::CLUSTER_STATUS => typed(value, cluster_status),
        rabbitmq::PEERS_TCP => typed(value, peers),
        rabbitmq::QUEUES => typed(value, queues),
        rabbitmq::QUORUM_CRITICAL => typed(value, |critical: rabbitmq::QuorumCritical| {
            match critical.critical {
                false => "no queue would lose its majority without it".to_owned(),
                true => format!("needed for the majority of {}", listed(&critical.queues)),
            }
        }),
        rabbitmq::ALARMS => typed(value, |alarms: Vec<String>| match alarms.len() {
            0 => "no alarm".to_owned(),
            _ => listed(&alarms),
        }),
        rabbitmq::OVERVIEW => typed(value, |overview: rabbitmq::Overview| {
            let totals = &overview.object_totals;
            format!(
                "RabbitMQ {}: {} queues, {} connections",
                overview.rabbitmq_version, totals.queues, totals.connections
            )
        }),
        memcached::STATS => typed(value, |stats: memcached::Stats| {
            format!(
                "memcached {} answers, up for {}, {} connections",
                stats.version,
                time(stats.uptime_seconds),
                stats.curr_connections
            )
        }),
        haproxy::INFO => typed(value, |info: haproxy::Info| {
            let stopping = if info.stopping { ", stopping" } else { "" };
            format!(
                "HAProxy {} answers, up for {}{stopping}",
                info.version,
                time(info.uptime_seconds)
            )
        }),
        haproxy::CONFIG_CHECK | monitoring::ALERTMANAGER_CONFIG => {
            typed(value, |check: haproxy::ConfigCheck| match check.valid {
                true => "its configuration is valid".to_owned(),
                false => format!("its configuration is not valid: {}", check.message),
            })
        }
        keepalived::VIP_HOLDERS => typed(value, |vip: keepalived::VipOnHost| {
            match (vip.holds, vip.interfaces.keys().next()) {
                (true, Some(interface)) => format!("has the virtual address on {interface}"),
                (true, None) => "has the virtual address".to_owned(),
                (false, _) => "does not have the virtual address".to_owned(),
            }
        }),
        keepalived::STATE => typed(value, |unit: host::Unit| unit_words("keepalived", &unit)),
        _ => None,
    }
}

fn typed<T: DeserializeOwned>(value: &Value, say: impl FnOnce(T) -> String) -> Option<String> {
    serde_json::from_value(value.clone()).ok().map(say)
}

fn listed(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str);
    let named = named.collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn unit_words(name: &str, unit: &host::Unit) -> String {
    let result = match unit.result.as_str() {
        "success" | "" => String::new(),
        result => format!(", {result}"),
    };
    format!("{name} is {} ({}{result})", unit.active, unit.sub)
}

/// Units that failed or change now, and services that are enabled and do not run: what somebody would look for.
fn units(units: BTreeMap<String, host::Unit>) -> String {
    let active = units.values().filter(|unit| unit.is_active()).count();
    let odd = units.iter().filter(|(_, unit)| {
        let stopped = unit.active == "inactive"
            && unit.enabled == "enabled"
            && unit.active_since_monotonic_us > 0
            && unit.sub == "dead"
            && unit.inactive_since_monotonic_us > unit.active_since_monotonic_us;
        unit.active == "failed" || unit.is_changing() || stopped
    });
    let odd: Vec<String> = odd
        .map(|(name, unit)| unit_words(name.trim_end_matches(".service"), unit))
        .collect();
    if odd.is_empty() {
        return format!("{active} of {} units run, none failed", units.len());
    }
    format!("{} ({active} of {} units run)", listed(&odd), units.len())
}

fn filesystems(mounts: BTreeMap<String, host::Filesystem>) -> String {
    let share = |one: &host::Filesystem| one.free_bytes as f64 / one.size_bytes.max(1) as f64;
    let mut mounts: Vec<_> = mounts.into_iter().collect();
    mounts.sort_by(|a, b| share(&a.1).total_cmp(&share(&b.1)));
    let words: Vec<String> = mounts
        .iter()
        .map(|(mount, one)| {
            let percent = share(one) * 100.0;
            format!("{mount} {} free ({percent:.0} %)", size(one.free_bytes))
        })
        .collect();
    listed(&words)
}

fn addresses(interfaces: BTreeMap<String, host::Interface>) -> String {
    let words: Vec<String> = interfaces
        .iter()
        .map(|(name, one)| format!("{name} {} {}", one.state, one.addresses.join(" ")))
        .collect();
    listed(&words)
}

fn ceph_cluster(cluster: ceph::Cluster) -> String {
    let mut words = vec![format!(
        "{} of {} monitors in the quorum",
        cluster.quorum.len(),
        cluster.monitors.len()
    )];
    let down: Vec<String> = cluster
        .down()
        .iter()
        .map(|id| format!("osd.{id}"))
        .collect();
    words.push(match down.len() {
        0 => format!("all {} OSDs are up", cluster.osds.len()),
        _ => format!("of {} OSDs {} down", cluster.osds.len(), listed(&down)),
    });
    for (what, names) in [
        ("flags", cluster.flags.into_iter().collect::<Vec<_>>()),
        ("checks", cluster.checks.into_keys().collect()),
    ] {
        if !names.is_empty() {
            words.push(format!("{what}: {}", listed(&names)));
        }
    }
    words.join("; ")
}

fn ceph_damage(damage: ceph_trouble::Damage) -> String {
    let groups: Vec<String> = damage
        .groups
        .iter()
        .map(|group| format!("{} of {}", group.count, group.group))
        .collect();
    match damage.count {
        0 => "no placement group is damaged".to_owned(),
        count => format!(
            "{count} damaged placement groups, objects: {}",
            listed(&groups)
        ),
    }
}

fn ceph_blocked(osds: Vec<ceph_trouble::Blocked>) -> String {
    let waiting = osds.iter().filter(|one| one.blocked > 0 || !one.answers);
    let words: Vec<String> = waiting
        .map(|one| match one.answers {
            false => format!("osd.{} does not answer", one.osd),
            true => {
                let osds = one.waits_for().into_iter().map(|osd| format!("osd.{osd}"));
                format!(
                    "{} requests of osd.{} wait for {}, {:.0} s at most",
                    one.blocked,
                    one.osd,
                    listed(&osds.collect::<Vec<_>>()),
                    one.oldest_seconds
                )
            }
        })
        .collect();
    match words.is_empty() {
        true => "no request waits for long".to_owned(),
        false => words.join("; "),
    }
}

fn galera_status(status: galera::Status) -> String {
    let server = match status {
        galera::Status::NotAnswering { error } => return format!("no server answers: {error}"),
        galera::Status::Answering(server) => server,
    };
    match server.wsrep {
        None => format!("MariaDB {} without replication", server.version),
        Some(wsrep) => format!(
            "MariaDB {}: {:?}, {:?}, {} members, at {}",
            server.version,
            wsrep.cluster_status,
            wsrep.local_state,
            wsrep.cluster_size,
            wsrep.last_committed
        ),
    }
}

fn galera_processes(found: galera::Processes) -> String {
    let server = match found.servers.first() {
        None => "no server runs".to_owned(),
        Some(server) => format!("a server runs for {}", time(server.running_seconds)),
    };
    match found.transfers.len() {
        0 => server,
        _ => format!("{server}; a transfer: {}", listed(&found.transfers)),
    }
}

fn grastate(state: galera::Grastate) -> String {
    match state {
        galera::Grastate::Missing => "no state file".to_owned(),
        galera::Grastate::Present {
            seqno,
            safe_to_bootstrap,
            ..
        } => {
            let position = match seqno {
                -1 => "stopped without writing its position".to_owned(),
                seqno => format!("stopped at {seqno}"),
            };
            let last = if safe_to_bootstrap {
                ", as the last one"
            } else {
                ""
            };
            format!("{position}{last}")
        }
    }
}

fn cluster_status(status: rabbitmq::ClusterStatus) -> String {
    let view = match status {
        rabbitmq::ClusterStatus::Running(view) => view,
        rabbitmq::ClusterStatus::NotRunning { error } => return format!("not running: {error}"),
    };
    let short = |node: &String| node.strip_prefix("rabbit@").unwrap_or(node).to_owned();
    let running: Vec<String> = view.running_nodes.iter().map(short).collect();
    let mut words = format!("sees {} running", listed(&running));
    let gone = view
        .disk_nodes
        .iter()
        .filter(|node| !view.running_nodes.contains(node));
    let gone: Vec<String> = gone.map(short).collect();
    if !gone.is_empty() {
        words += &format!(", not {}", listed(&gone));
    }
    if !view.partitions.is_empty() {
        let cut: Vec<String> = view.partitions.keys().map(short).collect();
        words += &format!("; partitioned, say {}", listed(&cut));
    }
    if !view.alarms.is_empty() {
        words += &format!("; alarms: {}", listed(&view.alarms));
    }
    words
}

/// What a daemon says, or that it does not.
fn daemon<T>(said: Heard<T>, words: impl Fn(T) -> String) -> String {
    match said {
        Heard::Answers(said) => words(said),
        Heard::Silent { why } => format!("does not answer: {why}"),
    }
}

fn peers(answers: Vec<rabbitmq::PeerPort>) -> String {
    let closed: Vec<String> = answers
        .iter()
        .filter(|one| !one.open)
        .map(|one| format!("{}:{}", one.address, one.port))
        .collect();
    match closed.len() {
        0 => format!("reaches all {} ports of its peers", answers.len()),
        _ => format!("does not reach {}", listed(&closed)),
    }
}

fn queues(queues: Vec<rabbitmq::Queue>) -> String {
    let ill: Vec<String> = queues
        .iter()
        .filter(|queue| queue.state.as_deref() != Some("running"))
        .map(|queue| queue.name.clone())
        .collect();
    match ill.len() {
        0 => format!("{} queues, all running", queues.len()),
        _ => format!("{} queues, not running: {}", queues.len(), listed(&ill)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn readings_in_words() {
        let unit = |active: &str, result: &str| {
            json!({"load": "loaded", "active": active, "sub": "dead", "result": result, "restarts": 0, "enabled": "enabled",
                "active_since_monotonic_us": 5, "inactive_since_monotonic_us": 9})
        };
        for (probe, value, expected) in [
            (
                "host.units",
                json!({"a.service": unit("active", "success"), "memcached.service": unit("failed", "signal")}),
                "memcached is failed (dead, signal) (1 of 2 units run)",
            ),
            (
                "host.units",
                json!({"a.service": unit("active", "success")}),
                "1 of 1 units run, none failed",
            ),
            (
                "ceph.cluster",
                json!({"monitors": ["a", "b", "c"], "quorum": ["a", "b"], "epoch": 7, "flags": ["noout"], "checks": {}, "versions": {},
                    "pools": [], "osds": {"0": {"host": "a", "up": true, "in": true}, "4": {"host": "b", "up": false, "in": true}}}),
                "2 of 3 monitors in the quorum; of 2 OSDs osd.4 down; flags: noout",
            ),
            (
                "ceph.damage",
                json!({"count": 1, "groups": [{"group": "2.3", "state": "active+clean+inconsistent", "count": 4, "objects": []}], "osds": {}}),
                "1 damaged placement groups, objects: 4 of 2.3",
            ),
            (
                "ceph.blocked",
                json!([{"osd": 0, "answers": true, "blocked": 2, "oldest_seconds": 33.2, "waits": [{"on": [1], "silent": 1}], "more": false},
                    {"osd": 1, "answers": false, "blocked": 0, "oldest_seconds": 0, "waits": [], "more": false}]),
                "2 requests of osd.0 wait for osd.1, 33 s at most; osd.1 does not answer",
            ),
            (
                "galera.status",
                json!({"server": "not_answering", "error": "no socket"}),
                "no server answers: no socket",
            ),
            (
                "galera.grastate",
                json!({"grastate": "present", "uuid": "u", "seqno": -1, "safe_to_bootstrap": false}),
                "stopped without writing its position",
            ),
            (
                "galera.data_size",
                json!(3_221_225_472_u64),
                "3.0 GiB of data",
            ),
            (
                "vip.holders",
                json!({"holds": true, "interfaces": {"eth0": "10.77.0.100/24"}}),
                "has the virtual address on eth0",
            ),
            (
                "rabbitmq.peers_tcp",
                json!([{"address": "10.0.0.2", "port": 25672, "open": false, "error": "refused"}]),
                "does not reach 10.0.0.2:25672",
            ),
            (
                "host.config_changes",
                json!(["a", "b", "c", "d", "e", "f"]),
                "changed within the last hour: a, b, c, d and 2 more",
            ),
        ] {
            assert_eq!(words(probe, &value).as_deref(), Some(expected), "{probe}");
        }
        assert_eq!(words("host.units", &json!("{… (9 bytes in all)")), None);
        assert_eq!(words("some.thing", &json!(1)), None);
    }
}
