//! The systemd unit that comes with the bot: what it must say, and how exposed systemd itself finds it.

use std::path::Path;

const UNIT: &str = include_str!("../../systemd/nightshift.service");
/// Ten times the exposure that systemd computes, from 0 (safe) to 100: at most 2.0.
const EXPOSURE_LIMIT: &str = "--threshold=20";

/// All values of a directive, in order.
fn values(name: &str) -> Vec<&'static str> {
    let lines = UNIT.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_unit_takes_away_what_the_bot_does_not_need() {
    for (name, expected) in [
        ("User", "nightshift"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateMounts", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateUsers", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectProc", "invisible"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("SystemCallArchitectures", "native"),
        ("UMask", "0077"),
        ("StateDirectoryMode", "0750"),
    ] {
        assert_eq!(values(name), [expected], "{name}");
    }
    assert_eq!(
        values("SystemCallFilter"),
        ["@system-service", "~@privileged @resources"]
    );
    let loaded = values("LoadCredential");
    assert!(
        !loaded.is_empty(),
        "secrets come as credentials, not in the environment"
    );
    assert!(values("Environment").is_empty() && values("EnvironmentFile").is_empty());
}

#[test]
fn the_bot_is_started_again_however_it_ends_and_however_often() {
    assert_eq!(values("Restart"), ["always"]);
    assert_eq!(values("StartLimitIntervalSec"), ["0"]);
}

#[test]
fn systemd_finds_the_unit_hardly_exposed() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/nightshift.service");
    let output = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", EXPOSURE_LIMIT])
        .arg(unit)
        .output()
        .expect("systemd-analyze, which comes with systemd");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    assert!(
        output.status.success() && last.contains("exposure level"),
        "{said}"
    );
}
