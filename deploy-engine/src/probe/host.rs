//! A host itself: its units, filesystems and addresses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::{self, Entry, LIST_LIMIT_BYTES, OUTPUT_LIMIT_BYTES};
use crate::{
    model::HostName,
    probe::Readings,
    wire::{self, ProbeResult},
};

pub const UNITS: &str = "host.units";
/// Of one unit, which follows the name: see [`unit_probe`].
pub const UNIT: &str = "host.unit";
pub const FILESYSTEM: &str = "host.filesystem";
pub const ADDRESSES: &str = "host.addresses";
pub const CONFIG_CHANGES: &str = "host.config_changes";
pub const DISPENSABLE: &str = "host.dispensable";
pub const LARGEST: &str = "host.largest";
pub const BOOT: &str = "host.boot";
pub const CLOCK: &str = "host.clock";
pub const CRASH_FILES: &str = "host.crash_files";
pub const LAST_WORDS: &str = "host.last_words";

const TIMEOUT_SECONDS: u32 = 10;
const UNIT_PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState,\
     ActiveEnterTimestampMonotonic,InactiveEnterTimestampMonotonic,ConditionResult";

pub static PROBES: &[Entry] = &[
    Entry {
        name: UNITS,
        service: None,
        request: |_| {
            table::command(
                &["systemctl", "show", "--all", UNIT_PROPERTIES, "*.service"],
                TIMEOUT_SECONDS,
                LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_units(result)),
    },
    Entry {
        name: UNIT,
        service: None,
        request: |context| wire::Probe::Units {
            names: context
                .about
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
        },
        parse: |result| table::value(parse_unit(result)),
    },
    Entry {
        name: FILESYSTEM,
        service: None,
        request: |_| {
            table::command(
                &[
                    "df",
                    "--local",
                    "--block-size=1",
                    "--output=target,fstype,size,avail,itotal,iavail",
                ],
                TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_filesystems(result)),
    },
    Entry {
        name: ADDRESSES,
        service: None,
        request: |_| {
            table::command(
                &["ip", "-json", "address", "show"],
                TIMEOUT_SECONDS,
                OUTPUT_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_addresses(result)),
    },
    Entry {
        name: CONFIG_CHANGES,
        service: None,
        request: |_| {
            table::command(
                &["find", "/etc", "-xdev", "-type", "f", "-mmin", "-60"],
                TIMEOUT_SECONDS,
                LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_config_changes(result)),
    },
    Entry {
        name: DISPENSABLE,
        service: None,
        request: |_| {
            let argv = [
                &["du", "--bytes", "--summarize", "--"][..],
                &DISPENSABLE_PATHS,
            ]
            .concat();
            table::command(&argv, DU_TIMEOUT_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_sizes(result)),
    },
    Entry {
        name: LARGEST,
        service: None,
        request: |_| {
            table::command(
                &[
                    "du",
                    "--bytes",
                    "--one-file-system",
                    "--max-depth=2",
                    "--threshold=100M",
                    "--",
                    "/var",
                    "/root",
                    "/home",
                    "/srv",
                    "/tmp",
                    "/opt",
                ],
                DU_TIMEOUT_SECONDS,
                LIST_LIMIT_BYTES,
            )
        },
        parse: |result| table::value(parse_sizes(result)),
    },
    Entry {
        name: BOOT,
        service: None,
        request: |_| {
            let argv = [
                "systemctl",
                "show",
                "--timestamp=unix",
                "--property=UserspaceTimestamp",
            ];
            table::command(&argv, TIMEOUT_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_boot(result)),
    },
    Entry {
        name: CLOCK,
        service: None,
        request: |_| wire::Probe::Pulse,
        parse: |result| table::value(parse_clock(result)),
    },
    Entry {
        name: CRASH_FILES,
        service: None,
        request: |_| {
            let argv = [
                "find",
                "/sys/fs/pstore",
                "/var/crash",
                "/var/lib/systemd/pstore",
                "-xdev",
                "-type",
                "f",
                "-newermt",
                "-2 days",
            ];
            table::command(&argv, TIMEOUT_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_crash_files(result)),
    },
    Entry {
        name: LAST_WORDS,
        service: None,
        request: |_| {
            let argv = [
                "journalctl",
                "--boot=-1",
                "--lines=15",
                "--priority=warning",
                "--no-pager",
                "--output=short-iso",
            ];
            table::command(&argv, TIMEOUT_SECONDS, OUTPUT_LIMIT_BYTES)
        },
        parse: |result| table::value(parse_lines(result)),
    },
];

/// What may be emptied without loss (`RECOVERY` HOST-1, the safe list): downloaded packages, and the journal beyond a size.
pub const DISPENSABLE_PATHS: [&str; 2] = ["/var/cache/apt/archives", "/var/log/journal"];
/// Some hundred thousand files on a slow disk.
const DU_TIMEOUT_SECONDS: u32 = 30;

/// One unit as systemd shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`, ...
    pub load: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`.
    pub active: String,
    pub sub: String,
    /// Why it last ended, for example `exit-code`, `oom-kill`, `start-limit-hit`; `success` when it did not fail.
    pub result: String,
    /// Automatic restarts since it was last started by hand.
    pub restarts: u32,
    /// `enabled`, `disabled`, `masked`, ...; empty when there is no unit file.
    pub enabled: String,
    /// Since boot; 0 when it never was active.
    pub active_since_monotonic_us: u64,
    pub inactive_since_monotonic_us: u64,
}

impl Unit {
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// On its way up or down: not the moment to touch it.
    pub fn is_changing(&self) -> bool {
        matches!(
            self.active.as_str(),
            "activating" | "deactivating" | "reloading"
        )
    }
}

fn unit(properties: &BTreeMap<&str, &str>) -> Result<Unit, String> {
    let text = |name: &str| {
        properties
            .get(name)
            .map(|value| (*value).to_owned())
            .ok_or_else(|| format!("expected the property {name}; it is not in the answer"))
    };
    // Units that cannot have the property show it empty or leave it out.
    let number = |name: &str| match properties.get(name) {
        None | Some(&"" | &"[not set]") => Ok(0),
        Some(value) => value
            .parse::<u64>()
            .map_err(|_| format!("{name}: expected a number; found {value:?}")),
    };
    Ok(Unit {
        load: text("LoadState")?,
        active: text("ActiveState")?,
        sub: text("SubState")?,
        result: text("Result")?,
        restarts: u32::try_from(number("NRestarts")?).unwrap_or(u32::MAX),
        enabled: text("UnitFileState").unwrap_or_default(),
        active_since_monotonic_us: number("ActiveEnterTimestampMonotonic")?,
        inactive_since_monotonic_us: number("InactiveEnterTimestampMonotonic")?,
    })
}

/// [`UNITS`]: name → state, of every service unit that systemd has loaded.
pub fn parse_units(result: &ProbeResult) -> Result<BTreeMap<String, Unit>, String> {
    let mut units = BTreeMap::new();
    for block in table::succeeded(result)?.split("\n\n") {
        let properties: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        if properties.is_empty() {
            continue;
        }
        let id = properties
            .get("Id")
            .ok_or("expected the property Id; it is not in the answer")?;
        units.insert((*id).to_owned(), unit(&properties)?);
    }
    if units.is_empty() {
        return Err("expected the host's units; found none".to_owned());
    }
    Ok(units)
}

/// The answer of [`crate::wire::Probe::Units`].
pub fn parse_unit_properties(result: &ProbeResult) -> Result<BTreeMap<String, Unit>, String> {
    let ProbeResult::Units { properties } = result else {
        return Err(table::unexpected("properties of units", result));
    };
    properties
        .iter()
        .map(|(name, values)| {
            let values = values
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect();
            Ok((
                name.clone(),
                unit(&values).map_err(|error| format!("{name}: {error}"))?,
            ))
        })
        .collect()
}

/// The probe that asks for one unit: [`UNITS`] takes systemd tens of milliseconds, this one less than one.
pub fn unit_probe(name: &str) -> String {
    format!("{UNIT}/{name}")
}

/// [`UNIT`]. A unit that systemd does not know is no unit that is down.
pub fn parse_unit(result: &ProbeResult) -> Result<Unit, String> {
    let mut units = parse_unit_properties(result)?.into_iter();
    let (name, unit) = match (units.next(), units.next()) {
        (Some(one), None) => one,
        _ => return Err("expected the state of one unit; found another number of them".to_owned()),
    };
    match unit.load.as_str() {
        "not-found" => Err(format!("systemd does not know {name}")),
        _ => Ok(unit),
    }
}

/// A unit of a host, from whichever probe was asked for it.
///
/// # Errors
/// Why it is not known.
pub fn unit_in(readings: &Readings, host: &HostName, name: &str) -> Result<Unit, String> {
    let probe = unit_probe(name);
    let alone = readings.by_probe.get(&probe);
    if alone.is_some_and(|of| of.contains_key(host)) || !readings.by_probe.contains_key(UNITS) {
        return readings.get(&probe, host);
    }
    let mut units: BTreeMap<String, Unit> = readings.get(UNITS, host)?;
    units
        .remove(name)
        .ok_or_else(|| format!("{host}: systemd has not loaded {name}"))
}

/// [`FILESYSTEM`]: one mounted local filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    pub kind: String,
    pub size_bytes: u64,
    pub free_bytes: u64,
    /// 0 where the filesystem has no fixed number of inodes.
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Filesystem {
    /// Rounded down; of a filesystem without a size: 0.
    pub fn free_percent(&self) -> u64 {
        let percent = u128::from(self.free_bytes) * 100 / u128::from(self.size_bytes.max(1));
        u64::try_from(percent).unwrap_or(100)
    }
}

/// Mount point → filesystem.
pub fn parse_filesystems(result: &ProbeResult) -> Result<BTreeMap<String, Filesystem>, String> {
    let mut lines = table::succeeded(result)?.lines();
    let header = lines.next().unwrap_or_default();
    if !header.starts_with("Mounted on") {
        return Err(format!(
            "expected a header that starts with \"Mounted on\"; found {header:?}"
        ));
    }
    lines
        .map(|line| {
            // A mount point may hold blanks; the five columns after it do not.
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let numbers = words.split_off(words.len().saturating_sub(5));
            let [kind, size, free, inodes, inodes_free] = numbers[..] else {
                return Err(format!("expected six columns; found {line:?}"));
            };
            let number = |text: &str| match text {
                "-" => Ok(0),
                text => text
                    .parse()
                    .map_err(|_| format!("expected a number; found {text:?}")),
            };
            let filesystem = Filesystem {
                kind: kind.to_owned(),
                size_bytes: number(size)?,
                free_bytes: number(free)?,
                inodes: number(inodes)?,
                inodes_free: number(inodes_free)?,
            };
            Ok((words.join(" "), filesystem))
        })
        .collect()
}

#[derive(Deserialize)]
struct RawInterface {
    ifname: String,
    #[serde(default)]
    operstate: String,
    #[serde(default)]
    addr_info: Vec<RawAddress>,
}

#[derive(Deserialize)]
struct RawAddress {
    local: String,
    prefixlen: u8,
}

/// [`ADDRESSES`]: one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `UP`, `DOWN`, `UNKNOWN`, ...
    pub state: String,
    /// For example `10.77.0.11/24`.
    pub addresses: Vec<String>,
}

pub fn parse_addresses(result: &ProbeResult) -> Result<BTreeMap<String, Interface>, String> {
    let interfaces: Vec<RawInterface> = table::json(table::succeeded(result)?)?;
    Ok(interfaces
        .into_iter()
        .map(|raw| {
            let addresses = raw
                .addr_info
                .iter()
                .map(|address| format!("{}/{}", address.local, address.prefixlen))
                .collect();
            let state = raw.operstate;
            (raw.ifname, Interface { state, addresses })
        })
        .collect())
}

/// [`CONFIG_CHANGES`]: files below `/etc` that were written within the last hour.
pub fn parse_config_changes(result: &ProbeResult) -> Result<Vec<String>, String> {
    parse_lines(result)
}

/// Path → bytes, as `du` prints it. A path that is not there is no error to `du`'s reader: it is left out.
pub fn parse_sizes(result: &ProbeResult) -> Result<BTreeMap<String, u64>, String> {
    let (code, output) = table::ended(result)?;
    let absent = |line: &str| line.ends_with("No such file or directory");
    if code > 1 || !output.stderr.lines().all(absent) {
        return Err(format!(
            "expected sizes; found exit status {code}: {}",
            table::last_line(&output.stderr)
        ));
    }
    output
        .stdout
        .lines()
        .map(|line| {
            let (size, path) = line
                .split_once('\t')
                .ok_or_else(|| format!("expected a size and a path; found {line:?}"))?;
            let size = size.parse();
            let size = size.map_err(|_| format!("expected a number of bytes; found {line:?}"))?;
            Ok((path.to_owned(), size))
        })
        .collect()
}

/// [`BOOT`]: when the host's systemd began, in seconds since 1970. (The kernel's own time is the machine's, in a container.)
pub fn parse_boot(result: &ProbeResult) -> Result<i64, String> {
    let line = table::succeeded(result)?.trim();
    let seconds = line.strip_prefix("UserspaceTimestamp=@");
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .ok_or_else(|| format!("expected UserspaceTimestamp=@SECONDS; found {line:?}"))
}

/// [`CLOCK`]: the host's clock when it was asked, in microseconds since 1970.
pub fn parse_clock(result: &ProbeResult) -> Result<i64, String> {
    match result {
        ProbeResult::Pulse { clock_micros, .. } => Ok(*clock_micros),
        other => Err(table::unexpected("the host's clock", other)),
    }
}

/// [`CRASH_FILES`]: what a dying kernel left behind. Folders that are not there hold nothing.
pub fn parse_crash_files(result: &ProbeResult) -> Result<Vec<String>, String> {
    let (code, output) = table::ended(result)?;
    let absent = |line: &str| line.ends_with("No such file or directory");
    if code > 1 || !output.stderr.lines().all(absent) {
        let why = table::last_line(&output.stderr);
        return Err(format!("expected files; found exit status {code}: {why}"));
    }
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

/// Lines of a command that succeeded.
fn parse_lines(result: &ProbeResult) -> Result<Vec<String>, String> {
    Ok(table::succeeded(result)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// The mounted filesystem that holds a path: its mount point, and itself.
pub fn filesystem_of<'a>(
    mounted: &'a BTreeMap<String, Filesystem>,
    path: &str,
) -> Option<(&'a str, &'a Filesystem)> {
    let holds = |mount: &str| {
        mount == "/"
            || path == mount
            || path
                .strip_prefix(mount)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    mounted
        .iter()
        .map(|(mount, filesystem)| (mount.as_str(), filesystem))
        .filter(|(mount, _)| holds(mount))
        .max_by_key(|(mount, _)| mount.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::table::testing::exited;

    #[test]
    fn the_start_of_a_host_and_what_a_dying_one_left() {
        assert_eq!(
            parse_boot(&exited(0, "UserspaceTimestamp=@1764133200\n", "")),
            Ok(1_764_133_200)
        );
        assert!(parse_boot(&exited(0, "UserspaceTimestamp=\n", "")).is_err());
        let absent = "find: \u{2018}/var/crash\u{2019}: No such file or directory\n";
        assert_eq!(
            parse_crash_files(&exited(1, "/sys/fs/pstore/dmesg-efi-1\n", absent))
                .unwrap()
                .len(),
            1
        );
        assert!(parse_crash_files(&exited(1, "", "find: Permission denied\n")).is_err());
    }

    #[test]
    fn the_clock_of_a_host() {
        let pulse = ProbeResult::Pulse {
            clock_micros: 7,
            maintenance_marker: None,
        };
        assert_eq!(parse_clock(&pulse), Ok(7));
        assert!(parse_clock(&exited(0, "7", "")).is_err());
    }

    #[test]
    fn sizes_of_what_is_there() {
        let absent = "du: cannot access '/var/log/journal': No such file or directory\n";
        let sizes = parse_sizes(&exited(1, "4096\t/var/cache/apt/archives\n", absent)).unwrap();
        assert_eq!(
            sizes,
            [("/var/cache/apt/archives".to_owned(), 4_096)].into()
        );
        assert!(parse_sizes(&exited(0, "", "")).unwrap().is_empty());
        let denied = "du: cannot read directory '/var': Permission denied\n";
        assert!(parse_sizes(&exited(1, "4096\t/var\n", denied)).is_err());
        assert!(parse_sizes(&exited(0, "4096 /var\n", "")).is_err());
        assert!(parse_sizes(&exited(0, "many\t/var\n", "")).is_err());
    }

    #[test]
    fn units_filesystems_and_addresses() {
        let units = parse_units(&exited(0, include_str!("captured/units.txt"), "")).unwrap();
        let haproxy = &units["haproxy.service"];
        assert!(haproxy.is_active() && !haproxy.is_changing());
        assert_eq!(
            (
                haproxy.load.as_str(),
                haproxy.enabled.as_str(),
                haproxy.restarts
            ),
            ("loaded", "enabled", 0)
        );
        assert!(parse_units(&exited(0, "\n", "")).is_err());
        let filesystems =
            parse_filesystems(&exited(0, include_str!("captured/df.txt"), "")).unwrap();
        assert_eq!(filesystems["/"].size_bytes, 8_417_406_976);
        assert_eq!(filesystems["/run/host/os-release"].kind, "ext4");
        assert!(parse_filesystems(&exited(0, "", "")).is_err());
        let addresses =
            parse_addresses(&exited(0, include_str!("captured/ip-address.json"), "")).unwrap();
        assert!(
            addresses["eth0"]
                .addresses
                .contains(&"10.77.0.11/24".to_owned())
        );
        assert_eq!(addresses["eth0"].state, "UP");
    }
}
