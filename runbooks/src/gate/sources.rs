//! Which sources of evidence share a failure (`RECOVERY` §7), as data: two that lean on the same thing count as one.
//!
//! A direct answer that came proves the network interface it came through; one that did not come is silence, and silence never
//! counts. All answers of one host are one source. A log line is never enough.

use std::{collections::BTreeSet, fmt};

/// What a source leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lean {
    Exporter(&'static str),
    Haproxy,
    VirtualAddress,
    /// A text that a program wrote at some time.
    Log,
    /// It is not known on which exporter: any may be shared.
    SomeExporter,
}

impl fmt::Display for Lean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exporter(name) => write!(f, "{name}"),
            Self::Haproxy => f.write_str("HAProxy"),
            Self::VirtualAddress => f.write_str("the virtual address"),
            Self::Log => f.write_str("a log"),
            Self::SomeExporter => f.write_str("an exporter that is not known"),
        }
    }
}

/// Beginning of a metric's name → what its samples lean on. `up` is the scrape itself and leans on nothing else.
pub static METRICS: &[(&str, &[Lean])] = &[
    ("mysql_", &[Lean::Exporter("mysqld_exporter")]),
    ("rabbitmq_", &[Lean::Exporter("rabbitmq_prometheus")]),
    ("erlang_", &[Lean::Exporter("rabbitmq_prometheus")]),
    ("haproxy_", &[Lean::Haproxy]),
    ("memcached_", &[Lean::Exporter("memcached_exporter")]),
    ("node_", &[Lean::Exporter("node_exporter")]),
    ("nightshift_", &[Lean::Exporter("signs_exporter")]),
    ("probe_", &[Lean::Exporter("blackbox_exporter")]),
    ("ceph_", &[Lean::Exporter("ceph-mgr")]),
    ("elasticsearch.", &[]),
    ("rsyslog.", &[]),
    ("log_", &[Lean::Log]),
    ("up", &[]),
];

/// What stands before a check's command in the place of a rule's expression.
pub const ICINGA: &str = "icinga2:";

/// Beginning of the name of a check's command (Icinga's template library) → what its results lean on, beside Icinga itself, which asks
/// over the network like the bot. The longest that fits counts; a command that is not here may ask any exporter.
pub static CHECKS: &[(&str, &[Lean])] = &[
    ("hostalive", &[]),
    ("ping", &[]),
    ("icmp", &[]),
    ("tcp", &[]),
    ("ssh", &[]),
    ("http", &[]),
    ("curl", &[]),
    ("ssl", &[]),
    ("dns", &[]),
    ("dig", &[]),
    ("ntp_", &[]),
    ("memcached", &[]),
    ("redis", &[]),
    ("mysql", &[]),
    ("proxysql", &[]),
    ("disk", &[]),
    ("mem", &[]),
    ("swap", &[]),
    ("load", &[]),
    ("procs", &[]),
    ("systemd", &[]),
    ("nrpe", &[]),
    ("by_ssh", &[]),
    ("icinga", &[]),
    ("cluster", &[]),
    ("elasticsearch", &[]),
    // From the process that also gives its metrics.
    ("haproxy", &[Lean::Haproxy]),
    // The manager answers both.
    ("ceph", &[Lean::Exporter("ceph-mgr")]),
    ("logstash", &[Lean::Log]),
    ("logfiles", &[Lean::Log]),
];

/// Beginning of a probe's name → what its answer leans on, beside the host that gave it. The longest that fits counts; a probe
/// that is not here is no source.
pub static PROBES: &[(&str, &[Lean])] = &[
    ("galera.", &[]),
    ("rabbitmq.", &[]),
    ("memcached.", &[]),
    // From the process that also gives its metrics.
    ("haproxy.", &[Lean::Haproxy]),
    ("haproxy.config_check", &[]),
    ("vip.", &[]),
    ("keepalived.", &[]),
    ("host.", &[]),
    ("prometheus.", &[Lean::SomeExporter]),
    ("alertmanager.", &[Lean::SomeExporter]),
    ("node_exporter.", &[Lean::Exporter("node_exporter")]),
    ("mysqld_exporter.", &[Lean::Exporter("mysqld_exporter")]),
    ("signs_exporter.", &[Lean::Exporter("signs_exporter")]),
    // Monitors and daemons say it themselves; placement groups are the manager's word, as its metrics are.
    ("ceph.", &[]),
    ("ceph.pgs", &[Lean::Exporter("ceph-mgr")]),
    ("ceph.damage", &[Lean::Exporter("ceph-mgr")]),
    ("ceph.new_crashes", &[Lean::Exporter("ceph-mgr")]),
    ("ceph.crashes", &[Lean::Log]),
    ("ceph.ok_to_stop", &[Lean::Exporter("ceph-mgr")]),
    ("ceph.device_errors", &[Lean::Log]),
    ("elasticsearch.", &[]),
    ("rsyslog.", &[]),
    ("chrony.", &[]),
    // What the daemon says about itself, as its alerts do.
    ("icinga2.", &[Lean::Exporter("icinga2")]),
    ("icinga2.certificate", &[]),
    ("icinga2.config_check", &[]),
    ("icinga2.peers_tcp", &[]),
    ("log.", &[Lean::Log]),
];

/// What an alert's expression leans on: the exporters of all its metrics. One that names no metric of the table leans on some
/// exporter.
pub fn of_query(query: &str) -> BTreeSet<Lean> {
    if let Some(command) = query.strip_prefix(ICINGA) {
        return of_check(command);
    }
    let mut known = false;
    let mut leans = BTreeSet::new();
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    for word in words {
        let fits = |prefix: &str| match prefix {
            "up" => word == "up",
            prefix => word.starts_with(prefix),
        };
        if let Some((_, on)) = METRICS.iter().find(|(prefix, _)| fits(prefix)) {
            known = true;
            leans.extend(on.iter().copied());
        }
    }
    if !known {
        leans.insert(Lean::SomeExporter);
    }
    leans
}

fn of_check(command: &str) -> BTreeSet<Lean> {
    let fits = CHECKS
        .iter()
        .filter(|(prefix, _)| command.starts_with(prefix));
    match fits.max_by_key(|(prefix, _)| prefix.len()) {
        Some((_, on)) => on.iter().copied().collect(),
        None => [Lean::SomeExporter].into(),
    }
}

/// What a probe's answer leans on; none: it is not in the table.
pub fn of_probe(name: &str) -> Option<BTreeSet<Lean>> {
    let fits = PROBES.iter().filter(|(prefix, _)| name.starts_with(prefix));
    let (_, on) = fits.max_by_key(|(prefix, _)| prefix.len())?;
    Some(on.iter().copied().collect())
}

/// May both fail for the same reason?
pub fn shared(a: &BTreeSet<Lean>, b: &BTreeSet<Lean>) -> Option<Lean> {
    let both = a.intersection(b).next().copied();
    let unknown = |one: &BTreeSet<Lean>, other: &BTreeSet<Lean>| {
        (one.contains(&Lean::SomeExporter) && !other.is_empty()).then_some(Lean::SomeExporter)
    };
    both.or_else(|| unknown(a, b)).or_else(|| unknown(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_is_in_the_table() {
        let missing: Vec<&str> = deploy_engine::probe::registry()
            .map(|probe| probe.name())
            .filter(|name| of_probe(name).is_none())
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[rstest::rstest]
    #[case("mysql_up == 0", "galera.status", None)]
    #[case("up{job=\"rabbitmq\"} == 0", "rabbitmq.cluster_status", None)]
    #[case("up == 0", "haproxy.monitor", None)]
    #[case(
        "max by (proxy) (haproxy_backend_status) == 0",
        "haproxy.info",
        Some(Lean::Haproxy)
    )]
    #[case("haproxy_up == 0", "haproxy.config_check", None)]
    #[case("haproxy_up == 0", "haproxy.monitor", Some(Lean::Haproxy))]
    #[case("icinga2:tcp", "memcached.stats", None)]
    #[case("icinga2:haproxy", "haproxy.info", Some(Lean::Haproxy))]
    #[case("icinga2:haproxy", "haproxy.config_check", None)]
    #[case("icinga2:our_own", "galera.status", None)]
    #[case("icinga2:our_own", "haproxy.info", Some(Lean::SomeExporter))]
    #[case("icinga2:", "node_exporter.metrics", Some(Lean::SomeExporter))]
    #[case("our_own_metric > 5", "galera.status", None)]
    #[case("our_own_metric > 5", "haproxy.monitor", Some(Lean::SomeExporter))]
    #[case("upstream_latency > 5", "haproxy.monitor", Some(Lean::SomeExporter))]
    fn sources_that_share_a_failure(
        #[case] query: &str,
        #[case] probe: &str,
        #[case] expected: Option<Lean>,
    ) {
        assert_eq!(
            shared(&of_query(query), &of_probe(probe).unwrap()),
            expected
        );
    }
}
