//! CEPH-0 and all that is for people: Ceph's own health checks, each with the runbook that is about it, and what was found besides.
//! A diagnosis changes nothing, so what is unknown is said and not refused.

use std::collections::BTreeMap;

use deploy_engine::{
    model::HostName,
    probe::{
        Reading,
        ceph::{CLUSTER, CRASHES, Check, Cluster, Crash, DEVICE_ERRORS, PGS, Pgs},
    },
};

use super::{
    Act, Facts, Input, Verdict,
    table::{Entry, elsewhere},
};

pub static DECISION: Entry = Entry {
    name: "ceph.checks",
    doc: "a diagnosis: one of the health checks that it is about (none named: any) is reported by Ceph",
    roles: &[],
    parameters: &[],
    evidence: &[CLUSTER],
    settings: &["checks"],
    facts: |_| Facts::new(),
    decide,
};

/// Health checks of Ceph and the runbook that is about them; what they mean, where there is none. Names: Ceph's documentation,
/// "Health checks".
static ABOUT: &[(&str, &str)] = &[
    ("OSD_DOWN", "CEPH-1"),
    ("OSD_HOST_DOWN", "CEPH-4"),
    ("OSD_RACK_DOWN", "CEPH-4"),
    ("OSD_ROOT_DOWN", "CEPH-4"),
    ("OSD_SLOW_PING_TIME_FRONT", "CEPH-2, the network in front"),
    (
        "OSD_SLOW_PING_TIME_BACK",
        "CEPH-2, the network between OSDs",
    ),
    ("SLOW_OPS", "CEPH-3"),
    ("OSD_NEARFULL", "CEPH-5"),
    ("OSD_BACKFILLFULL", "CEPH-5"),
    ("OSD_FULL", "CEPH-5, nothing can be written"),
    ("POOL_NEARFULL", "CEPH-5"),
    ("POOL_FULL", "CEPH-5, nothing can be written"),
    ("PG_BACKFILL_FULL", "CEPH-5"),
    ("PG_RECOVERY_FULL", "CEPH-5"),
    ("MON_DOWN", "CEPH-6"),
    ("MON_CLOCK_SKEW", "CEPH-7"),
    ("MGR_DOWN", "CEPH-8"),
    ("MGR_MODULE_ERROR", "CEPH-8"),
    ("MGR_MODULE_DEPENDENCY", "CEPH-8"),
    ("PG_DAMAGED", "CEPH-9"),
    ("OSD_SCRUB_ERRORS", "CEPH-9"),
    ("PG_NOT_SCRUBBED", "CEPH-10"),
    ("PG_NOT_DEEP_SCRUBBED", "CEPH-10"),
    ("RECENT_CRASH", "CEPH-11"),
    ("RECENT_MGR_MODULE_CRASH", "CEPH-11"),
    ("PG_AVAILABILITY", "CEPH-12"),
    ("OBJECT_UNFOUND", "CEPH-12"),
    ("MON_DISK_LOW", "CEPH-13"),
    ("MON_DISK_CRIT", "CEPH-13"),
    ("MON_DISK_BIG", "CEPH-13"),
    ("DEVICE_HEALTH", "CEPH-14"),
    ("DEVICE_HEALTH_IN_USE", "CEPH-14"),
    ("DEVICE_HEALTH_TOOMANY", "CEPH-14"),
    ("OSD_TOO_MANY_REPAIRS", "CEPH-14"),
    ("BLUESTORE_SPURIOUS_READ_ERRORS", "CEPH-14"),
    ("PG_DEGRADED", "expected while an OSD is away or data moves"),
    ("OBJECT_MISPLACED", "expected while data moves"),
    (
        "OSDMAP_FLAGS",
        "somebody holds the cluster: no repair of it begins",
    ),
    ("OSD_FLAGS", "somebody holds OSDs: no repair of them begins"),
];

/// Lines of one check that a person reads before looking for himself.
const DETAILS: usize = 10;

fn decide(input: &Input<'_>) -> Result<Act, Verdict> {
    let wanted = input.texts("checks")?;
    let cluster = match newest(input) {
        Ok(cluster) => cluster,
        Err(why) => {
            return Err(Verdict::Page {
                why: "the monitors of Ceph do not answer: they may have no quorum".to_owned(),
                evidence: why,
            });
        }
    };
    let found: Vec<(&String, &Check)> = cluster
        .checks
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.contains(&name.as_str()))
        .collect();
    if found.is_empty() {
        return Err(elsewhere(match wanted.is_empty() {
            true => "Ceph reports no health check".to_owned(),
            false => format!("Ceph reports none of {}", wanted.join(", ")),
        }));
    }
    let words: Vec<String> = found
        .iter()
        .map(|(name, check)| said(name, check))
        .collect();
    let mut evidence: Vec<String> = found
        .iter()
        .flat_map(|(_, check)| check.details.iter().take(DETAILS).cloned())
        .collect();
    evidence.extend(besides(input, &cluster));
    Err(Verdict::Page {
        why: words.join("; "),
        evidence,
    })
}

/// The newest map, or why each member gave none.
fn newest(input: &Input<'_>) -> Result<Cluster, Vec<String>> {
    let mut why = Vec::new();
    let mut newest: Option<Cluster> = None;
    for host in input.members {
        match input.readings.get::<Cluster>(CLUSTER, host) {
            Err(error) => why.push(error),
            Ok(one) if newest.as_ref().is_none_or(|known| one.epoch > known.epoch) => {
                newest = Some(one);
            }
            Ok(_) => {}
        }
    }
    newest.ok_or(why)
}

fn said(name: &str, check: &Check) -> String {
    let about = ABOUT.iter().find(|(known, _)| *known == name);
    let about = about.map_or("a check that no runbook knows", |(_, about)| about);
    let muted = if check.muted { ", muted" } else { "" };
    format!("{name}: {} ({about}{muted})", check.message)
}

/// What else was asked, for people.
fn besides(input: &Input<'_>, cluster: &Cluster) -> Vec<String> {
    let mut lines = Vec::new();
    if !cluster.flags.is_empty() {
        let flags: Vec<&str> = cluster.flags.iter().map(String::as_str).collect();
        lines.push(format!("flags: {}", flags.join(", ")));
    }
    let down = cluster.down();
    if !down.is_empty() {
        let each = down.iter().map(|osd| {
            let host = cluster.osds.get(osd).and_then(|osd| osd.host.as_deref());
            format!("osd.{osd} on {}", host.unwrap_or("no host"))
        });
        lines.push(format!("down: {}", each.collect::<Vec<_>>().join(", ")));
    }
    match known::<Pgs>(input, PGS).into_values().next() {
        Some(groups) => lines.push(format!("placement groups: {}", groups.words())),
        None if asked(input, PGS) => lines.push("no active manager answers".to_owned()),
        None => {}
    }
    for (host, errors) in known::<Vec<String>>(input, DEVICE_ERRORS) {
        lines.extend(errors.last().map(|line| format!("{host}, kernel: {line}")));
    }
    for (host, crashes) in known::<Vec<Crash>>(input, CRASHES) {
        let last = crashes.last();
        lines.extend(last.map(|crash| {
            format!(
                "{host}: {} crashes within a week, the last of {} at {}",
                crashes.len(),
                crash.daemon,
                crash.at
            )
        }));
    }
    lines
}

fn asked(input: &Input<'_>, probe: &str) -> bool {
    let readings = input.readings.by_probe.get(probe);
    readings.is_some_and(|of| {
        of.values()
            .any(|one| matches!(one, Reading::Unknown { .. }))
    })
}

fn known<T: serde::de::DeserializeOwned>(input: &Input<'_>, probe: &str) -> BTreeMap<HostName, T> {
    let members = input.members.iter();
    members
        .filter_map(|host| Some((host.clone(), input.readings.get(probe, host).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decision::testing::{Case, expect};

    fn reported(checks: &[&str], wanted: &[&str]) -> Case {
        let mut case = Case::new("ceph.checks", "ceph", 3).setting("checks", json!(wanted));
        let check = |name: &&str| {
            let check = Check {
                severity: "HEALTH_WARN".into(),
                message: "something".into(),
                muted: false,
                details: vec![format!("more of {name}")],
            };
            ((*name).to_owned(), check)
        };
        let cluster = Cluster {
            checks: checks.iter().map(check).collect(),
            ..Cluster::default()
        };
        for host in ["h1", "h2", "h3"] {
            case.set(CLUSTER, host, &cluster);
        }
        case
    }

    #[rstest::rstest]
    #[case::nothing(&[], &[], "elsewhere", "no health check")]
    #[case::all(&["OSD_DOWN", "SLOW_OPS"], &[], "page", "OSD_DOWN: something (CEPH-1); SLOW_OPS: something (CEPH-3)")]
    #[case::unknown_check(&["NEW_IN_20"], &[], "page", "NEW_IN_20: something (a check that no runbook knows)")]
    #[case::other(&["OSD_DOWN"], &["OSD_FULL"], "elsewhere", "none of OSD_FULL")]
    #[case::own(&["OSD_DOWN", "OSD_FULL"], &["OSD_FULL"], "page", "OSD_FULL: something (CEPH-5")]
    fn each_check_with_its_runbook(
        #[case] checks: &[&str],
        #[case] wanted: &[&str],
        #[case] kind: &str,
        #[case] part: &str,
    ) {
        expect(&reported(checks, wanted), kind, part);
    }

    #[test]
    fn silence_of_all_monitors_is_said_and_silence_of_one_is_not_everything() {
        let mut case = reported(&["OSD_DOWN"], &[]);
        case.lose(CLUSTER, "h1");
        expect(&case, "page", "OSD_DOWN");
        case.lose(CLUSTER, "h2");
        case.lose(CLUSTER, "h3");
        expect(&case, "page", "may have no quorum");
    }

    #[test]
    fn what_was_found_besides_is_evidence() {
        let mut case = reported(&["PG_AVAILABILITY"], &[]);
        for host in ["h1", "h2", "h3"] {
            case.edit(CLUSTER, host, "/flags", json!(["noout"]));
            case.lose(PGS, host);
        }
        case.set(DEVICE_ERRORS, "h2", &json!(["old", "Medium Error"]));
        let Verdict::Page { evidence, .. } = case.verdict() else {
            panic!("expected a page")
        };
        assert_eq!(
            evidence,
            [
                "more of PG_AVAILABILITY",
                "flags: noout",
                "no active manager answers",
                "h2, kernel: Medium Error"
            ]
        );
    }

    #[test]
    fn no_check_is_named_twice() {
        let names: std::collections::BTreeSet<&str> = ABOUT.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), ABOUT.len());
    }
}
