use super::*;
use crate::{
    probe::table::testing::{exited, failed},
    wire::Exit,
};

fn cluster(captured: &str) -> Cluster {
    parse_cluster(&exited(0, captured, "")).unwrap()
}

/// Captured from Ceph 16.2.15 with three monitors, three managers and three OSDs; the first answer (`quorum_status`) is written after its documentation.
#[test]
fn a_healthy_cluster() {
    let cluster = cluster(include_str!("captured/ceph-healthy.json"));
    assert_eq!(cluster.monitors.len(), 3);
    assert!(cluster.without_quorum().is_empty());
    assert_eq!(cluster.osds.len(), 3);
    assert!(cluster.osds.values().all(|osd| osd.up && osd.is_in));
    assert!(cluster.down().is_empty() && cluster.flags.is_empty());
    assert!(cluster.checks.is_empty());
    assert_eq!(cluster.osds[&0].host.as_deref(), Some("ctl1"));
    assert_eq!(cluster.osds_on("ctl2").count(), 1);
    let kinds: Vec<&String> = cluster.versions.keys().collect();
    assert_eq!(kinds, ["mgr", "mon", "osd"]);
    assert!(
        cluster
            .pools
            .iter()
            .all(|pool| pool.size == 3 && !pool.erasure)
    );
}

#[test]
fn an_osd_that_is_down_and_flags_that_somebody_set() {
    let down = cluster(include_str!("captured/ceph-osd-down.json"));
    assert_eq!(down.down(), [2].into());
    assert_eq!(down.osds[&2].host.as_deref(), Some("ctl2"));
    let check = &down.checks["OSD_DOWN"];
    assert_eq!(
        (check.severity.as_str(), check.message.as_str()),
        ("HEALTH_WARN", "1 osds down")
    );
    assert!(check.details[0].contains("osd.2"), "{:?}", check.details);
    let held = cluster(include_str!("captured/ceph-flags.json"));
    assert_eq!(
        held.flags,
        ["noout".to_owned(), "noup of ctl3".to_owned()].into()
    );
}

#[test]
fn what_is_not_understood_is_an_error() {
    let whole = include_str!("captured/ceph-healthy.json");
    let cut = &whole[..whole.len() / 2];
    assert!(parse_cluster(&exited(0, cut, "")).is_err());
    assert!(
        parse_cluster(&exited(0, "", ""))
            .unwrap_err()
            .contains("found 0")
    );
    let error = "[errno 110] RADOS timed out (error connecting to the cluster)";
    assert!(
        parse_cluster(&exited(1, "", error))
            .unwrap_err()
            .contains("RADOS timed out")
    );
    assert!(parse_cluster(&failed()).is_err());
    let other = whole.replace("\"flags_set\"", "\"flags_sat\"");
    assert!(
        parse_cluster(&exited(0, &other, ""))
            .unwrap_err()
            .contains("flags_set")
    );
}

fn groups(text: &str) -> Pgs {
    manager(&exited(0, text, "")).and_then(parse_pgs).unwrap()
}

#[test]
fn placement_groups() {
    let stat = |states: &str| {
        format!(
            "\n{{\"pg_ready\":true,\"pg_summary\":{{\"num_pg_by_state\":[{states}],\"num_pgs\":17,\"num_bytes\":0}}}}\n"
        )
    };
    let clean = groups(&stat(
        r#"{"name":"active+clean","num":16},{"name":"active+clean+scrubbing+deep","num":1}"#,
    ));
    assert!(clean.are_clean());
    assert_eq!(
        clean.words(),
        "16 active+clean, 1 active+clean+scrubbing+deep"
    );
    for state in [
        "active+undersized",
        "active+clean+inconsistent",
        "peering",
        "active+clean+remapped",
        "clean",
        "unknown",
    ] {
        let groups = groups(&stat(&format!(r#"{{"name":"{state}","num":17}}"#)));
        assert!(!groups.are_clean(), "{state}");
    }
    assert!(!Pgs::default().are_clean(), "none is not all");
    let early = r#"{"pg_ready":false,"pg_summary":{"num_pg_by_state":[],"num_pgs":0}}"#;
    assert!(parse_pgs(early).is_err());
    let silent = exited(110, "", "Error ETIMEDOUT: pg stat");
    assert_eq!(manager(&silent), Err(NO_MANAGER.to_owned()));
    assert_eq!(parse_ok_to_stop(&silent), Err(NO_MANAGER.to_owned()));
    let mut unfinished = exited(0, "", "");
    if let ProbeResult::Command { output } = &mut unfinished {
        output.exit = Exit::TimedOut;
    }
    let unknown = manager(&unfinished).unwrap_err();
    assert!(!unknown.contains(NO_MANAGER), "{unknown}");
    assert_eq!(parse_ok_to_stop(&unfinished), Err(unknown));
}

#[test]
fn ok_to_stop_is_an_answer_in_both_ways() {
    let no = r#"{"ok_to_stop":false,"osds":[0,1],"num_ok_pgs":0,"num_not_ok_pgs":17,"bad_become_inactive":["1.0"]}"#;
    let busy =
        "Error EBUSY: unsafe to stop osd(s) at this time (17 PGs are or would become offline)";
    assert_eq!(parse_ok_to_stop(&exited(16, no, busy)), Ok(false));
    let yes = r#"{"ok_to_stop":true,"osds":[0],"num_ok_pgs":17,"num_not_ok_pgs":0,"ok_become_degraded":["1.0"]}"#;
    assert_eq!(parse_ok_to_stop(&exited(0, yes, "")), Ok(true));
    assert!(parse_ok_to_stop(&exited(16, "", busy)).is_err());
    assert!(parse_ok_to_stop(&exited(22, "", "Error EINVAL: invalid command")).is_err());
}

#[test]
fn daemons_by_their_sockets() {
    let answer = include_str!("captured/ceph-mon-status.txt").to_owned();
    let monitor = parse_monitor(&ProbeResult::Socket { answer }).unwrap();
    assert_eq!(monitor.state, "leader");
    assert!(monitor.is_in_quorum());
    assert!(
        !Monitor {
            state: "synchronizing".into()
        }
        .is_in_quorum()
    );
    assert!(parse_monitor(&failed()).is_err());
    let two = r#"{"cluster_fsid":"x","osd_fsid":"y","whoami":0,"state":"active","oldest_map":1,"newest_map":22,"num_pgs":17}
{"cluster_fsid":"x","osd_fsid":"z","whoami":3,"state":"booting","oldest_map":1,"newest_map":22,"num_pgs":17}"#;
    let states = parse_osds(&exited(0, two, "")).unwrap();
    assert_eq!(
        states,
        [(0, "active".to_owned()), (3, "booting".to_owned())].into()
    );
    assert_eq!(
        parse_osds(&exited(0, "", "admin_socket: exception")),
        Ok(BTreeMap::new())
    );
    assert!(parse_osds(&exited(0, "{\"whoami\": 1}", "")).is_err());
}

#[test]
fn what_a_host_keeps() {
    let lines = "/var/lib/ceph/osd/ceph-0/whoami\n/var/lib/ceph/mon/ceph-ctl1/store.db\n/var/lib/ceph/osd/ceph-12/whoami\n";
    let kept = parse_kept(&exited(0, lines, "")).unwrap();
    assert_eq!(
        kept,
        Kept {
            monitor: true,
            osds: [0, 12].into()
        }
    );
    let fresh = exited(1, "", "find: '/var/lib/ceph': No such file or directory");
    assert_eq!(parse_kept(&fresh), Ok(Kept::default()));
    assert!(
        parse_kept(&exited(
            1,
            "",
            "find: '/var/lib/ceph/osd': Permission denied"
        ))
        .is_err()
    );
    assert!(parse_kept(&exited(0, "/var/lib/ceph/osd/odd/whoami\n", "")).is_err());
}

#[test]
fn crashes_and_failing_disks() {
    let two = "{\n    \"crash_id\": \"a\",\n    \"timestamp\": \"2026-11-26T05:10:08.076744Z\",\n    \"entity_name\": \"osd.1\"\n}\n{\"crash_id\": \"b\", \"timestamp\": \"2026-11-26T05:11:08.076744Z\", \"entity_name\": \"mon.ctl3\"}";
    let crashes = parse_crashes(&exited(0, two, "")).unwrap();
    assert_eq!((crashes.len(), crashes[0].daemon.as_str()), (2, "osd.1"));
    // As they are kept, they are read again.
    let kept = serde_json::to_value(&crashes).unwrap();
    assert_eq!(serde_json::from_value::<Vec<Crash>>(kept).unwrap(), crashes);
    assert_eq!(parse_crashes(&exited(0, "", "")), Ok(vec![]));
    assert!(
        parse_crashes(&exited(
            1,
            "",
            "find: '/var/lib/ceph/crash': Permission denied"
        ))
        .is_err()
    );
    let line = "sd 0:0:0:0: [sdb] tag#12 Sense Key : Medium Error [current]";
    assert_eq!(
        parse_device_errors(&exited(0, &format!("{line}\n"), "")),
        Ok(vec![line.to_owned()])
    );
    assert_eq!(parse_device_errors(&exited(1, "", "")), Ok(vec![]));
    assert!(parse_device_errors(&exited(1, "", "Failed to open journal")).is_err());
}
