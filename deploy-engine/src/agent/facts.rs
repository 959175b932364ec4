//! What is true of the host, read from the kernel and a few files.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{collect, exec::Exec, root::Root};
use crate::wire::{Exit, Facts};

/// `ip` and the like answer in milliseconds.
const HELPER_TIMEOUT: Duration = Duration::from_secs(5);
/// A person who works on the host puts one of these files there.
const MAINTENANCE_MARKERS: [&str; 2] = ["/etc/nightshift/maintenance", "/etc/osism/maintenance"];
/// Kinds of file systems that hold nobody's data, or that may hang when their server is away.
const SKIPPED_FILESYSTEMS: [&str; 12] = [
    "tmpfs", "devtmpfs", "ramfs", "squashfs", "iso9660", "efivarfs", "nfs", "nfs4", "cifs",
    "autofs", "fuse", "ceph",
];
/// adjtimex(2): state `TIME_ERROR`, the clock is not synchronised.
const TIME_ERROR: &str = "5";

pub fn facts(root: &Root, exec: &Exec) -> Facts {
    let mut unknown = BTreeMap::new();
    let system = rustix::system::uname();
    let release = fs::read_to_string(root.at("/etc/os-release")).unwrap_or_default();
    let memory = read(root, "/proc/meminfo")
        .ok()
        .and_then(|text| parse_memory(&text));
    let mut learn = |name: &str, result: Result<(), String>| {
        if let Err(why) = result {
            unknown.insert(name.to_owned(), why);
        }
    };
    let (mut addresses, mut listening, mut filesystems) = Default::default();
    let (mut boot, mut synchronised) = (String::new(), None);
    // The two programs run beside each other: gates ask for facts again and again while a repair waits.
    let (found, clock) = std::thread::scope(|scope| {
        let found = scope.spawn(|| interfaces(exec));
        let clock = clock_synchronised(exec);
        let found = found.join();
        (
            found.unwrap_or_else(|_| Err("the thread that asked panicked".to_owned())),
            clock,
        )
    });
    learn("addresses", found.map(|found| addresses = found));
    learn("listening", listeners(root).map(|found| listening = found));
    learn(
        "filesystems",
        mounted(root).map(|found| filesystems = found),
    );
    learn("boot_id", boot_id(root).map(|found| boot = found));
    learn(
        "clock_synchronised",
        clock.map(|found| synchronised = Some(found)),
    );
    learn(
        "memory_bytes",
        memory
            .map(drop)
            .ok_or_else(|| "no MemTotal in /proc/meminfo".to_owned()),
    );
    Facts {
        hostname: system.nodename().to_string_lossy().into_owned(),
        machine: system.machine().to_string_lossy().into_owned(),
        os_id: os_field(&release, "ID"),
        os_version: os_field(&release, "VERSION_ID"),
        kernel: system.release().to_string_lossy().into_owned(),
        boot_id: boot,
        cpus: std::thread::available_parallelism()
            .map_or(0, |n| u32::try_from(n.get()).unwrap_or(0)),
        memory_bytes: memory.unwrap_or(0),
        clock_seconds: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0.0, |d| d.as_secs_f64()),
        clock_synchronised: synchronised,
        addresses,
        listening,
        filesystems,
        maintenance_marker: maintenance_marker(root),
        unknown,
    }
}

fn read(root: &Root, path: &str) -> Result<String, String> {
    fs::read_to_string(root.at(path))
        .map_err(|error| format!("expected to read {path}, found: {error}"))
}

/// Changes with every boot.
pub fn boot_id(root: &Root) -> Result<String, String> {
    read(root, "/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

fn os_field(release: &str, name: &str) -> String {
    let mut lines = release.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

fn parse_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The kernel's own word. Neither std nor the C library of a static program gives it without unsafe code; perl is part of every
/// Debian system (perl-base is essential) and can make the call.
fn clock_synchronised(exec: &Exec) -> Result<bool, String> {
    let number = match std::env::consts::ARCH {
        "x86_64" => "159",
        "aarch64" => "171",
        other => return Err(format!("no number of adjtimex known for {other}")),
    };
    // A zeroed struct timex asks and sets nothing.
    let script = format!("my $t = \"\\0\" x 256; print syscall({number}, $t)");
    let output = exec.helper(&["perl", "-e", &script], HELPER_TIMEOUT)?;
    match (output.exit, output.stdout.as_str()) {
        (Exit::Code(0), "-1") | (Exit::NotFound, _) => {
            Err("the host may not ask its clock (a container?)".to_owned())
        }
        (Exit::Code(0), state) => Ok(state != TIME_ERROR),
        _ => Err(format!(
            "expected adjtimex to answer, found: {}",
            output.stderr.trim()
        )),
    }
}

fn interfaces(exec: &Exec) -> Result<BTreeMap<String, Vec<String>>, String> {
    parse_interfaces(&exec.text(&["ip", "-json", "address", "show"], HELPER_TIMEOUT)?)
}

fn parse_interfaces(json: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let list: Vec<Value> = serde_json::from_str(json)
        .map_err(|error| format!("expected a list of interfaces, found: {error}"))?;
    let address = |info: &Value| {
        Some(format!(
            "{}/{}",
            info["local"].as_str()?,
            info["prefixlen"].as_u64()?
        ))
    };
    let interface = |item: &Value| {
        let all = item["addr_info"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(address)
            .collect();
        Some((item["ifname"].as_str()?.to_owned(), all))
    };
    Ok(collect::map(list.iter().filter_map(interface)))
}

/// A listening socket of `/proc/net/tcp` or `tcp6`.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    address: String,
    port: u16,
    inode: u64,
}

fn parse_listeners(text: &str) -> Vec<Listener> {
    text.lines().skip(1).filter_map(parse_listener).collect()
}

fn parse_listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != "0A" {
        return None;
    }
    Some(Listener {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// The kernel prints addresses as 32-bit words in its own byte order.
fn parse_address(hex: &str) -> Option<String> {
    let words = hex.as_bytes().chunks(8).map(|chunk| {
        let word = u32::from_str_radix(std::str::from_utf8(chunk).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(Ipv4Addr::from(four).to_string()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).to_string()),
    }
}

fn listeners(root: &Root) -> Result<BTreeMap<u16, Vec<String>>, String> {
    let mut found = parse_listeners(&read(root, "/proc/net/tcp")?);
    // Missing where IPv6 is switched off.
    found.extend(parse_listeners(
        &read(root, "/proc/net/tcp6").unwrap_or_default(),
    ));
    let names = socket_owners(root);
    let mut ports: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for listener in found {
        let process = names.get(&listener.inode).map_or("unknown", String::as_str);
        ports
            .entry(listener.port)
            .or_default()
            .push(format!("{} {process}", listener.address));
    }
    Ok(ports)
}

/// Inode of a socket → name of the process that has it open. Processes that end meanwhile are left out.
fn socket_owners(root: &Root) -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    let processes = fs::read_dir(root.at("/proc"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    for process in processes.filter(|e| {
        e.file_name()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit())
    }) {
        let links = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let inodes = links.filter_map(|link| {
            let target = fs::read_link(link.path()).ok()?;
            let text = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            text.parse::<u64>().ok()
        });
        let mut inodes = inodes.peekable();
        if inodes.peek().is_some() {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            for inode in inodes {
                owners.insert(inode, name.trim().to_owned());
            }
        }
    }
    owners
}

fn mounted(root: &Root) -> Result<BTreeMap<String, (u64, u64, u64)>, String> {
    let points = parse_mounts(&read(root, "/proc/self/mounts")?);
    let sizes = points.into_iter().filter_map(|point| {
        let found = rustix::fs::statvfs(root.at(&point))
            .ok()
            .filter(|s| s.f_blocks > 0)?;
        Some((
            point,
            (
                // What `df` calls available. A file system keeps some blocks back, and not all of them for root.
                found.f_bavail * found.f_frsize,
                found.f_blocks * found.f_frsize,
                found.f_ffree,
            ),
        ))
    });
    Ok(collect::map(sizes))
}

/// Mount points of file systems that hold data.
fn parse_mounts(mounts: &str) -> Vec<String> {
    let point = |line: &str| {
        let mut fields = line.split(' ');
        let (source, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let skipped = SKIPPED_FILESYSTEMS
            .iter()
            .any(|s| kind == *s || kind.starts_with("fuse."));
        let backed = source.starts_with('/') || matches!(kind, "overlay" | "zfs" | "btrfs");
        // Spaces and the like are written in octal.
        let point = point
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\134", "\\");
        (backed && !skipped && !point.starts_with("/proc") && !point.starts_with("/sys"))
            .then_some(point)
    };
    mounts.lines().filter_map(point).collect()
}

/// The first line of the file by which a person asks for hands off; empty if the file is.
pub fn maintenance_marker(root: &Root) -> Option<String> {
    MAINTENANCE_MARKERS
        .iter()
        .find_map(|path| match fs::read(root.at(path)) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Some(
                    text.lines()
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take(200)
                        .collect(),
                )
            }
            // It is there but cannot be read: still hands off.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Some(format!("{path}: {error}"))
            }
            Err(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   107        0 12345 1 0000 100 0 0 10 0
   1: 0B004D0A:0016 01004D0A:D2F0 01 00000000:00000000 02:000A 00000000     0        0 777 2 0000 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1 0000 100 0 0 10 0
   3: nonsense
";
        let listener = |address: &str, port, inode| Listener {
            address: address.into(),
            port,
            inode,
        };
        assert_eq!(
            parse_listeners(text),
            [
                listener("127.0.0.1", 3306, 12345),
                listener("0.0.0.0", 22, 42)
            ]
        );
        let six = "header\n 0: 00000000000000000000000001000000:2B67 00000000000000000000000000000000:0000 0A 0:0 00:0 0 107 0 99 1\n";
        assert_eq!(parse_listeners(six), [listener("::1", 11111, 99)]);
    }

    #[test]
    fn mounts_memory_release_interfaces() {
        let mounts = "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /var/lib/my\\040sql ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\nsrv:/x /mnt nfs4 rw 0 0\n";
        assert_eq!(parse_mounts(mounts), ["/", "/var/lib/my sql"]);
        assert_eq!(
            parse_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            Some(16_777_216)
        );
        let release =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(
            (os_field(release, "ID"), os_field(release, "VERSION_ID")),
            ("debian".into(), "12".into())
        );
        let json = r#"[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8}]},{"ifname":"host0","addr_info":[{"local":"10.77.0.11","prefixlen":24},{"local":"fe80::1","prefixlen":64}]}]"#;
        let found = parse_interfaces(json).unwrap();
        assert_eq!(found["host0"], ["10.77.0.11/24", "fe80::1/64"]);
        assert!(parse_interfaces("Error").is_err());
    }

    #[test]
    fn this_host_has_facts_and_names_what_it_could_not_learn() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let root = Root::new("/");
        let found = facts(&root, &Exec::new(root.clone()));
        assert!(
            found.cpus > 0 && found.memory_bytes > 0 && !found.boot_id.is_empty(),
            "{found:?}"
        );
        assert!(found.filesystems.contains_key("/"), "{found:?}");
        let here = &found.listening[&port];
        assert!(
            here[0].starts_with("127.0.0.1 ") && !here[0].ends_with("unknown"),
            "{here:?}"
        );
        assert_eq!(
            found.clock_synchronised.is_none(),
            found.unknown.contains_key("clock_synchronised")
        );
    }
}
