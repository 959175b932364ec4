//! systemd units: enabled, running, and started with the files as they are now.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Judged, Pending, plain_name, sha256_hex};
use crate::agent::{
    collect, durable,
    exec::{Exec, last_lines},
    root::Root,
    systemd,
};

/// One question to systemd; its answer comes in milliseconds unless systemd itself is stuck.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Starts and stops have a limit of their own in the unit; this one is for units without any.
const ACT_TIMEOUT: Duration = Duration::from_secs(900);
/// How often a unit that is still activating, or not yet trusted, is looked at.
const ACTIVATING_POLL: Duration = Duration::from_millis(200);
/// How long a unit without a word of its own ("I am ready") must have lived after a start: a wrong setting kills within that.
const TRUSTED_AFTER: Duration = Duration::from_secs(1);
/// Lines of the journal that an error carries.
const JOURNAL_LINES: &str = "15";
/// What is asked of every unit.
const PROPERTIES: [&str; 17] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "Type",
    "MainPID",
    "NRestarts",
    "CanReload",
    "NeedDaemonReload",
    "InvocationID",
    "InactiveEnterTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    MEMBERS,
];
/// Units that are restarted with this one. Asked of targets only, which have no process of their own.
const MEMBERS: &str = "ConsistsOf";

/// unit → property → value, in systemd's words.
pub type Properties = BTreeMap<String, BTreeMap<String, String>>;

/// How a unit is wanted.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub enabled: Option<bool>,
    pub running: Option<bool>,
    pub restart_on: &'a [String],
    pub reload_on: &'a [String],
}

/// The files a unit was last started with, kept on the host so that no restart is ever lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// systemd's name for one run of the unit; another one means that somebody else started it.
    invocation: String,
    restart: String,
    reload: String,
}

/// Asks systemd about all units at once, and about the members of targets. Names must be checked. Where systemd's own socket is not
/// there or does not answer, `systemctl` finds its way, or says why not.
pub fn show(exec: &Exec, names: &[&str]) -> Result<Properties, String> {
    if names.is_empty() {
        return Ok(Properties::new());
    }
    let asked = |names: &[&str]| ask(exec, names).or_else(|_| run(exec, names));
    let mut all = asked(names)?;
    let members = names.iter().flat_map(|name| members(&all, name));
    let members: Vec<String> = members.map(str::to_owned).collect();
    if !members.is_empty() {
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        all.extend(asked(&members)?);
    }
    Ok(all)
}

fn members<'a>(all: &'a Properties, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let of = all.get(name).filter(|_| is_target(name));
    let words = of.and_then(|of| of.get(MEMBERS)).map_or("", String::as_str);
    let words = words.split(' ');
    words.filter(|member| check_name(member).is_ok())
}

fn is_target(name: &str) -> bool {
    name.ends_with(".target")
}

fn ask(exec: &Exec, names: &[&str]) -> io::Result<Properties> {
    let socket = exec.root().at(systemd::SOCKET);
    exec.systemd().talk(&socket, ASK_TIMEOUT, |systemd| {
        let one = |name: &&str| {
            let count = PROPERTIES.len() - usize::from(!is_target(name));
            let properties = &PROPERTIES[..count];
            Ok(((*name).to_owned(), systemd.show(name, properties)?))
        };
        names.iter().map(one).collect()
    })
}

fn run(exec: &Exec, names: &[&str]) -> Result<Properties, String> {
    let properties = format!("--property={}", PROPERTIES.join(","));
    let mut argv = vec!["systemctl", "show", &properties, "--"];
    argv.extend(names);
    Ok(parse_show(&exec.text(&argv, ASK_TIMEOUT)?, names))
}

/// One block of `Key=Value` lines a unit, in the order asked for.
pub fn parse_show(text: &str, names: &[&str]) -> Properties {
    let blocks = text.split("\n\n").map(|block| {
        let pairs = block.lines().filter_map(|line| line.split_once('='));
        collect::map(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())))
    });
    let blocks = blocks.filter(|block| !block.is_empty());
    collect::map(names.iter().map(|&n| n.to_owned()).zip(blocks))
}

/// A unit name that can be an argument.
pub fn check_name(name: &str) -> Result<(), String> {
    plain_name("unit", name, ".-@:\\").and_then(|()| {
        if name.contains('.') {
            Ok(())
        } else {
            Err(format!(
                "expected a unit name with its type, such as {name}.service, found {name:?}"
            ))
        }
    })
}

struct Found<'a>(&'a BTreeMap<String, String>);

impl Found<'_> {
    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading")
    }

    fn starting(&self) -> bool {
        self.get("ActiveState") == "activating"
    }

    /// Active for systemd as soon as there is a process, which may be about to die of its configuration.
    fn active_without_a_word(&self) -> bool {
        matches!(self.get("Type"), "simple" | "exec" | "idle")
    }

    fn enabled(&self) -> bool {
        matches!(
            self.get("UnitFileState"),
            "enabled" | "enabled-runtime" | "static" | "alias" | "generated" | "indirect"
        )
    }
}

/// What a running unit needs because of its watched files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Reload(String),
    Restart(String),
}

pub fn look(
    root: &Root,
    wanted: &Wanted<'_>,
    units: &Result<Properties, String>,
    pending: &Pending,
) -> Judged {
    if let Err(why) = check_name(wanted.name) {
        return Judged::cannot("", why);
    }
    let units = match units {
        Ok(units) => units,
        Err(why) => return Judged::unknown(why.clone()),
    };
    let Some(properties) = units.get(wanted.name) else {
        return Judged::unknown(format!("systemd said nothing about {}", wanted.name));
    };
    let found = Found(properties);
    let record = read_record(root, wanted.name);
    let seen = format!(
        "{} {} {} {record:?}",
        found.get("LoadState"),
        found.get("UnitFileState"),
        found.active()
    );
    match found.get("LoadState") {
        "loaded" => {}
        "not-found" => return not_found(wanted, &seen, pending),
        "masked" if wanted.running == Some(true) || wanted.enabled == Some(true) => {
            return Judged::cannot(
                &seen,
                format!("{} is masked: somebody forbade it to run", wanted.name),
            );
        }
        "masked" => return Judged::by_diff(&seen, vec![]),
        other => return Judged::cannot(&seen, format!("systemd has {} as {other:?}", wanted.name)),
    }
    let mut diff = Vec::new();
    if let Some(enabled) = wanted.enabled.filter(|e| *e != found.enabled()) {
        diff.push(format!(
            "{} {}",
            if enabled { "enable" } else { "disable" },
            wanted.name
        ));
    }
    match wanted.running {
        Some(true) if found.active() => match due(root, wanted, units, record.as_ref(), pending) {
            Due::Nothing => {}
            Due::Reload(why) => diff.push(format!("reload {}: {why}", wanted.name)),
            Due::Restart(why) => diff.push(format!("restart {}: {why}", wanted.name)),
        },
        Some(true) => diff.push(format!(
            "start {} (it is {})",
            wanted.name,
            found.get("ActiveState")
        )),
        Some(false) if found.active() || found.starting() => {
            diff.push(format!("stop {}", wanted.name))
        }
        _ => {}
    }
    Judged::by_diff(&seen, diff)
}

fn not_found(wanted: &Wanted<'_>, seen: &str, pending: &Pending) -> Judged {
    let wants = wanted.running == Some(true) || wanted.enabled == Some(true);
    let own_file = pending
        .files
        .iter()
        .any(|p| p.ends_with(&format!("/{}", wanted.name)));
    if !wants {
        Judged::by_diff(seen, vec![])
    } else if pending.packages || own_file {
        let mut diff = Vec::new();
        if wanted.enabled == Some(true) {
            diff.push(format!("enable {}", wanted.name));
        }
        if wanted.running == Some(true) {
            diff.push(format!("start {}", wanted.name));
        }
        Judged::by_diff(seen, diff)
    } else {
        Judged::cannot(
            seen,
            format!(
                "systemd knows no unit {} and nothing that is planned here brings it",
                wanted.name
            ),
        )
    }
}

fn due(
    root: &Root,
    wanted: &Wanted<'_>,
    units: &Properties,
    record: Option<&Record>,
    pending: &Pending,
) -> Due {
    let Some(found) = units.get(wanted.name).map(Found) else {
        return Due::Nothing;
    };
    let coming = |paths: &[String]| {
        paths
            .iter()
            .find(|p| pending.files.contains(*p))
            .map(|p| format!("{p} will change"))
    };
    let changed = |paths: &[String], known: fn(&Record) -> &String| match record
        .filter(|r| r.invocation == found.get("InvocationID"))
    {
        Some(record) => (*known(record) != digest(root, paths))
            .then(|| format!("{} changed since it was started", paths.join(" or "))),
        None => newer(root, paths, &found),
    };
    let restart = coming(wanted.restart_on)
        .or_else(|| changed(wanted.restart_on, |r| &r.restart))
        .or_else(|| replaced(root, units, wanted.name));
    let reload = coming(wanted.reload_on).or_else(|| changed(wanted.reload_on, |r| &r.reload));
    match (restart, reload) {
        (Some(why), _) => Due::Restart(why),
        (None, Some(why)) if found.get("CanReload") == "yes" => Due::Reload(why),
        (None, Some(why)) => Due::Restart(format!("{why}, and it cannot reload")),
        (None, None) => Due::Nothing,
    }
}

/// Somebody else started this run of the unit: it has what was there when its start began. Both times are the kernel's.
fn newer(root: &Root, paths: &[String], found: &Found<'_>) -> Option<String> {
    let began: i128 = found.get("InactiveExitTimestampMonotonic").parse().ok()?;
    let nanos = |clock| {
        let t = clock_gettime(clock);
        i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
    };
    let boot = nanos(ClockId::Realtime) - nanos(ClockId::Monotonic);
    let late = paths.iter().find(|path| {
        fs::metadata(root.at(path)).is_ok_and(|m| {
            let changed = i128::from(m.ctime()) * 1_000_000_000 + i128::from(m.ctime_nsec());
            changed - boot > began * 1000
        })
    })?;
    Some(format!("{late} is newer than its start"))
}

/// A new package does not restart everything that runs its programs: the old file is gone from the disk, and the process still has it.
fn replaced(root: &Root, units: &Properties, name: &str) -> Option<String> {
    let mut all = members(units, name).chain([name]);
    all.find_map(|name| {
        let pid: u32 = units.get(name)?.get("MainPID")?.parse().ok()?;
        let program = fs::read_link(root.at(&format!("/proc/{pid}/exe"))).ok()?;
        let path = program.to_str()?.strip_suffix(" (deleted)")?;
        // Where there is nothing new to run, it runs on.
        let there = root.at(path).exists();
        there.then(|| format!("{path} was replaced since {name} was started"))
    })
}

/// Digest of the files' contents. A missing file counts as such.
fn digest(root: &Root, paths: &[String]) -> String {
    let parts = paths.iter().map(|path| {
        let content = fs::read(root.at(path))
            .map_or_else(|_| "missing".to_owned(), |bytes| sha256_hex(&bytes));
        format!("{path} {content}\n")
    });
    sha256_hex(parts.collect::<String>().as_bytes())
}

fn record_path(root: &Root, name: &str) -> PathBuf {
    root.state("units").join(format!("{name}.json"))
}

/// A record that cannot be read is none: the times then decide.
fn read_record(root: &Root, name: &str) -> Option<Record> {
    let bytes = fs::read(record_path(root, name)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_record(root: &Root, name: &str, record: &Record) -> Result<(), String> {
    let path = record_path(root, name);
    durable::create_private_dir(&root.state("units"))?;
    let json = serde_json::to_vec(record).map_err(|error| error.to_string())?;
    durable::write(&path, &json)
}

/// Brings the unit there. `reload_systemd`: unit files may have changed since systemd read them.
pub fn apply(
    root: &Root,
    exec: &Exec,
    wanted: &Wanted<'_>,
    reload_systemd: bool,
) -> Result<(), String> {
    let all = |exec: &Exec| match show(exec, &[wanted.name])? {
        all if all.contains_key(wanted.name) => Ok(all),
        _ => Err(format!("systemd said nothing about {}", wanted.name)),
    };
    let one = |exec: &Exec| all(exec).map(|mut all| all.remove(wanted.name).unwrap_or_default());
    let act = |verb: &str| {
        exec.text(&["systemctl", verb, "--", wanted.name], ACT_TIMEOUT)
            .map(drop)
            .map_err(|why| with_journal(exec, wanted.name, &why))
    };
    let mut units = all(exec)?;
    if reload_systemd || Found(&units[wanted.name]).get("NeedDaemonReload") == "yes" {
        exec.text(&["systemctl", "daemon-reload"], ASK_TIMEOUT)?;
        units = all(exec)?;
    }
    let found = Found(&units[wanted.name]);
    if let Some(enabled) = wanted.enabled.filter(|e| *e != found.enabled()) {
        act(if enabled { "enable" } else { "disable" })?;
    }
    match wanted.running {
        None => return Ok(()),
        Some(false) => {
            let stopped = if found.active() || found.starting() {
                act("stop")
            } else {
                Ok(())
            };
            let _ = fs::remove_file(record_path(root, wanted.name));
            return stopped;
        }
        Some(true) => {}
    }
    // Taken before the start: what the unit then reads cannot be older.
    let (restart, reload) = (
        digest(root, wanted.restart_on),
        digest(root, wanted.reload_on),
    );
    let record = read_record(root, wanted.name);
    let due = match found.active() {
        true => due(root, wanted, &units, record.as_ref(), &Pending::default()),
        false => Due::Restart(String::new()),
    };
    match due {
        Due::Nothing => {}
        Due::Reload(_) => act("reload")?,
        Due::Restart(_) if found.active() => act("restart")?,
        Due::Restart(_) => {
            // A unit that failed too often refuses to start until its counter is cleared.
            let _ = exec.helper(
                &["systemctl", "reset-failed", "--", wanted.name],
                ASK_TIMEOUT,
            );
            act("start")?;
        }
    }
    let fresh = matches!(due, Due::Restart(_));
    let invocation = wait_active(exec, wanted.name, fresh, one)?;
    write_record(
        root,
        wanted.name,
        &Record {
            invocation,
            restart,
            reload,
        },
    )
}

/// Waits until the unit is active, and for one that was just started also that it stays so; returns its invocation. An
/// error carries its last journal lines.
fn wait_active(
    exec: &Exec,
    name: &str,
    fresh: bool,
    one: impl Fn(&Exec) -> Result<BTreeMap<String, String>, String>,
) -> Result<String, String> {
    let began = Instant::now();
    let mut first: Option<(String, Instant)> = None;
    loop {
        let properties = one(exec)?;
        let found = Found(&properties);
        let run = found.get("InvocationID");
        if found.active() && first.is_none() {
            first = Some((run.to_owned(), Instant::now()));
        }
        let trusted = !fresh
            || first
                .as_ref()
                .is_some_and(|f| f.1.elapsed() >= TRUSTED_AFTER);
        let why = match standing(&found, first.as_ref().map(|f| f.0.as_str()), trusted) {
            Standing::Up => return Ok(run.to_owned()),
            Standing::Down(why) => why,
            Standing::Wait(why) => {
                if began.elapsed() < ACT_TIMEOUT && !exec.out_of_time() && !exec.cancelled() {
                    std::thread::sleep(ACTIVATING_POLL);
                    continue;
                }
                why
            }
        };
        let why = format!("expected {name} to become active, found it {why}");
        return Err(with_journal(exec, name, &why));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Up,
    Wait(String),
    Down(String),
}

/// `first`: the run of the unit that was active first. `trusted`: a unit that only has a process counts as up.
fn standing(found: &Found<'_>, first: Option<&str>, trusted: bool) -> Standing {
    let words = format!(
        "{} ({}, result {})",
        found.get("ActiveState"),
        found.get("SubState"),
        found.get("Result")
    );
    let finished = found.get("Type") == "oneshot"
        && found.get("Result") == "success"
        && found.get("ActiveState") == "inactive";
    if finished {
        Standing::Up
    } else if found.active() && first.is_some_and(|run| run != found.get("InvocationID")) {
        Standing::Down("ended and started again".to_owned())
    } else if found.active() && (trusted || !found.active_without_a_word()) {
        Standing::Up
    } else if found.active() || (found.starting() && found.get("SubState") != "auto-restart") {
        Standing::Wait(words)
    } else {
        Standing::Down(words)
    }
}

fn with_journal(exec: &Exec, name: &str, why: &str) -> String {
    let argv = [
        "journalctl",
        "--no-pager",
        "--quiet",
        "--output=cat",
        "--lines",
        JOURNAL_LINES,
        "--unit",
        name,
    ];
    match exec.helper(&argv, ASK_TIMEOUT) {
        Ok(output) if output.ok() && !output.stdout.trim().is_empty() => {
            format!(
                "{why}; its last journal lines:\n{}",
                last_lines(&output.stdout, 15)
            )
        }
        _ => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    const SHOW: &str = "Id=memcached.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
CanReload=no
InvocationID=aaaa
InactiveExitTimestampMonotonic=0

Id=none.service
LoadState=not-found
ActiveState=inactive
UnitFileState=

Id=off.service
LoadState=loaded
ActiveState=failed
UnitFileState=disabled

Id=sealed.service
LoadState=masked
ActiveState=inactive
";

    const NAMES: [&str; 4] = [
        "memcached.service",
        "none.service",
        "off.service",
        "sealed.service",
    ];

    fn wanted(name: &str) -> Wanted<'_> {
        Wanted {
            name,
            enabled: Some(true),
            running: Some(true),
            restart_on: &[],
            reload_on: &[],
        }
    }

    #[test]
    fn judged_by_systemds_words() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let units = Ok(parse_show(SHOW, &NAMES));
        let pending = Pending {
            packages: true,
            ..Pending::default()
        };
        let look = |wanted: &Wanted<'_>, pending: &Pending| {
            super::look(&root, wanted, &units, pending).state
        };
        let none = Pending::default();
        assert_eq!(look(&wanted("memcached.service"), &none), State::Same);
        assert!(matches!(
            look(&wanted("none.service"), &none),
            State::Cannot { .. }
        ));
        assert!(matches!(
            look(&wanted("none.service"), &pending),
            State::WillChange { .. }
        ));
        assert!(matches!(
            look(&wanted("sealed.service"), &none),
            State::Cannot { .. }
        ));
        assert!(matches!(
            look(&wanted("-x.service"), &none),
            State::Cannot { .. }
        ));
        assert!(matches!(
            look(&wanted("unasked.service"), &none),
            State::Unknown { .. }
        ));
        let diff = vec![
            "enable off.service".to_owned(),
            "start off.service (it is failed)".to_owned(),
        ];
        assert_eq!(
            look(&wanted("off.service"), &none),
            State::WillChange { diff }
        );
        let stop = Wanted {
            enabled: None,
            running: Some(false),
            ..wanted("memcached.service")
        };
        assert_eq!(
            look(&stop, &none),
            State::WillChange {
                diff: vec!["stop memcached.service".into()]
            }
        );
        let gone = Wanted {
            enabled: Some(false),
            running: Some(false),
            ..wanted("none.service")
        };
        assert_eq!(look(&gone, &none), State::Same);
    }

    #[test]
    fn a_program_that_was_replaced_is_started_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let asked = "ActiveState=active\nMainPID=0\nConsistsOf=a@1.service a@2.service\n\n\
                     ActiveState=active\nMainPID=41\n\nActiveState=active\nMainPID=42\n";
        let units = parse_show(asked, &["all.target", "a@1.service", "a@2.service"]);
        let runs = |pid: u32, program: &str| {
            let process = dir.path().join(format!("proc/{pid}"));
            fs::create_dir_all(&process).unwrap();
            let _ = fs::remove_file(process.join("exe"));
            std::os::unix::fs::symlink(program, process.join("exe")).unwrap();
        };
        let due = |name| super::due(&root, &wanted(name), &units, None, &Pending::default());
        runs(41, "/bin/a");
        runs(42, "/bin/a (deleted)");
        assert_eq!(due("a@1.service"), Due::Nothing);
        // Nothing is there that could be started instead.
        assert_eq!(due("a@2.service"), Due::Nothing);
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/a"), "new").unwrap();
        let why = "/bin/a was replaced since a@2.service was started".to_owned();
        assert_eq!(due("a@1.service"), Due::Nothing);
        assert_eq!(due("a@2.service"), Due::Restart(why.clone()));
        assert_eq!(due("all.target"), Due::Restart(why));
    }

    #[test]
    fn a_process_alone_is_not_trusted_at_once() {
        let stand = |text: &str, first: Option<&str>, trusted: bool| {
            let properties = parse_show(text, &["a.service"]);
            standing(&Found(&properties["a.service"]), first, trusted)
        };
        let simple = "Type=simple\nActiveState=active\nInvocationID=aa\n";
        assert!(matches!(
            stand(simple, Some("aa"), false),
            Standing::Wait(_)
        ));
        assert_eq!(stand(simple, Some("aa"), true), Standing::Up);
        // It died and systemd started it again between two looks.
        assert!(matches!(stand(simple, Some("bb"), true), Standing::Down(_)));
        let notify = "Type=notify\nActiveState=active\nInvocationID=aa\n";
        assert_eq!(stand(notify, Some("aa"), false), Standing::Up);
        let failed = "Type=simple\nActiveState=failed\nSubState=failed\nResult=exit-code\n";
        let why = "failed (failed, result exit-code)".to_owned();
        assert_eq!(stand(failed, Some("aa"), false), Standing::Down(why));
        let again = "Type=simple\nActiveState=activating\nSubState=auto-restart\n";
        assert!(matches!(stand(again, Some("aa"), false), Standing::Down(_)));
        let once = "Type=oneshot\nActiveState=inactive\nResult=success\n";
        assert_eq!(stand(once, None, false), Standing::Up);
    }

    #[test]
    fn a_restart_is_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let units = Ok(parse_show(SHOW, &NAMES));
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/a"), "1").unwrap();
        let files = ["/etc/a".to_owned()];
        let name = "memcached.service";
        let wanted = Wanted {
            restart_on: &files,
            ..wanted(name)
        };
        let look = |pending: &Pending| super::look(&root, &wanted, &units, pending);
        let restarts = |judged: Judged| matches!(judged.state, State::WillChange { diff } if diff[0].starts_with("restart"));
        // Nobody knows with what it was started, and the file is newer than the start.
        assert!(restarts(look(&Pending::default())));
        let record = |invocation: &str, restart: String| Record {
            invocation: invocation.into(),
            restart,
            reload: digest(&root, &[]),
        };
        write_record(&root, name, &record("aaaa", digest(&root, &files))).unwrap();
        let before = look(&Pending::default());
        assert_eq!(before.state, State::Same);
        let pending = Pending {
            files: ["/etc/a".to_owned()].into(),
            ..Pending::default()
        };
        assert!(restarts(look(&pending)));
        // The file changes and the agent dies before the restart: the digest of the unit stays, the judgement does not.
        fs::write(dir.path().join("etc/a"), "2").unwrap();
        let after = look(&Pending::default());
        assert_eq!(before.digest, after.digest);
        assert!(restarts(after));
        // The record is about another run of the unit: the times decide.
        write_record(&root, name, &record("bbbb", digest(&root, &files))).unwrap();
        assert!(restarts(look(&Pending::default())));
    }
}
