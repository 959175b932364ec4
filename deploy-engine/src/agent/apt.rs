//! apt: lists, downloads, and one transaction that starts no service.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    collect, durable,
    exec::{Exec, StatusPipe, failure},
    resource::package::{self, Installed, Packages, Wanted},
    root::Root,
};
use crate::wire::{Command, CommandOutput, Progress};

/// Lists older than this are fetched again before anything is installed.
const LISTS_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
const POLICY_TIMEOUT: Duration = Duration::from_secs(30);
const UPDATE_TIMEOUT: Duration = Duration::from_secs(300);
/// A large set of packages on a slow disk; a step's own limit is usually shorter.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long apt waits for another apt, in seconds: unattended upgrades take minutes.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";
/// Output kept of apt, in bytes.
const OUTPUT_BYTES: u32 = 256 * 1024;
/// How long one installation waits for another one of ours.
const QUIET_WAIT: Duration = Duration::from_secs(600);
const QUIET_POLL: Duration = Duration::from_millis(200);
const POLICY_RC: &str = "/usr/sbin/policy-rc.d";
/// Our policy is known by this line, so a left-over one can be told from one that an administrator put there.
const POLICY_RC_TEXT: &str =
    "#!/bin/sh\n# nightshift: services are started by their own steps\nexit 101\n";

/// Asks dpkg, and apt where dpkg's word is not enough.
pub fn survey(root: &Root, exec: &Exec, wanted: &[Wanted<'_>]) -> Packages {
    if wanted.is_empty() {
        return Packages::default();
    }
    let names = collect::set(wanted.iter().map(|w| w.name));
    let installed = match installed(root, &names) {
        Ok(installed) => installed,
        Err(why) => {
            return Packages {
                policy_error: Some(why),
                ..Packages::default()
            };
        }
    };
    let open = collect::set(
        wanted
            .iter()
            .filter(|w| !w.absent && !package::settled(**w, installed.get(w.name)))
            .map(|w| w.name)
            .filter(|name| super::resource::plain_name("package", name, "+.-").is_ok()),
    );
    let mut packages = Packages {
        installed,
        ..Packages::default()
    };
    if !open.is_empty() {
        packages.lists_will_be_fetched = lists_are_old(root, SystemTime::now());
        match policy(exec, &open) {
            Ok(policy) => packages.policy = Some(policy),
            Err(why) => packages.policy_error = Some(why),
        }
    }
    packages
}

fn installed(root: &Root, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Installed>, String> {
    let bytes = fs::read(root.at("/var/lib/dpkg/status"))
        .map_err(|error| format!("expected to read dpkg's status, found: {error}"))?;
    Ok(package::parse_status(
        &String::from_utf8_lossy(&bytes),
        names,
    ))
}

fn policy(
    exec: &Exec,
    names: &BTreeSet<&str>,
) -> Result<BTreeMap<String, package::Policy>, String> {
    let mut argv = vec!["apt-cache", "policy"];
    argv.extend(names);
    Ok(package::parse_policy(&exec.text(&argv, POLICY_TIMEOUT)?))
}

fn stamp(root: &Root) -> PathBuf {
    root.state("apt-lists-fetched")
}

/// Absent or older than [`LISTS_MAX_AGE`] by whichever sign is newest: our own stamp or the directory itself.
fn lists_are_old(root: &Root, now: SystemTime) -> bool {
    let lists = root.at("/var/lib/apt/lists");
    let any = fs::read_dir(&lists)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
    let newest = [stamp(root), lists]
        .iter()
        .filter_map(|path| fs::metadata(path).and_then(|m| m.modified()).ok())
        .max();
    !any || newest.is_none_or(|at| now.duration_since(at).is_ok_and(|age| age > LISTS_MAX_AGE))
}

fn update(root: &Root, exec: &Exec) -> Result<(), String> {
    let argv = ["apt-get", "-q", "-o", LOCK_WAIT, "update"];
    let output = exec.helper_with(
        &argv,
        None,
        &[("DEBIAN_FRONTEND", "noninteractive")],
        UPDATE_TIMEOUT,
    )?;
    // apt-get update ends with 0 although a source could not be reached; the packages then decide whether that matters.
    if !output.ok() {
        return Err(failure(&argv, &output));
    }
    durable::create_private_dir(&root.state(""))?;
    durable::write(&stamp(root), b"")
}

/// Downloads what is not installed yet, installs nothing.
pub fn fetch(
    root: &Root,
    exec: &Exec,
    names: &[String],
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Option<CommandOutput>, String> {
    let wanted: Vec<Wanted<'_>> = names
        .iter()
        .map(|name| Wanted {
            name,
            version: None,
            absent: false,
        })
        .collect();
    let open = missing(root, exec, &wanted, false)?;
    if open.is_empty() {
        return Ok(None);
    }
    let output = apt_get(exec, &["--download-only", "install"], &open, on_progress)?;
    if output.ok() {
        Ok(Some(output))
    } else {
        Err(failure(&["apt-get", "--download-only", "install"], &output))
    }
}

/// The packages still to be installed, as apt's arguments, after fetching lists if that is needed.
fn missing(
    root: &Root,
    exec: &Exec,
    wanted: &[Wanted<'_>],
    lists_changed: bool,
) -> Result<Vec<String>, String> {
    for w in wanted {
        super::resource::plain_name("package", w.name, "+.-")?;
    }
    let mut packages = survey(root, exec, wanted);
    let open = |packages: &Packages| -> Vec<String> {
        let open = wanted
            .iter()
            .filter(|w| !w.absent && !package::settled(**w, packages.installed.get(w.name)));
        open.map(|w| {
            w.version
                .map_or_else(|| w.name.to_owned(), |v| format!("{}={v}", w.name))
        })
        .collect()
    };
    if open(&packages).is_empty() {
        return Ok(vec![]);
    }
    let unavailable = |packages: &Packages| {
        let pending = super::resource::Pending::default();
        let strict = |w: &&Wanted<'_>| {
            matches!(
                package::look(**w, packages, &pending).state,
                crate::wire::State::Cannot { .. }
            )
        };
        wanted.iter().find(|w| strict(w)).map(|w| w.name.to_owned())
    };
    if lists_changed || packages.lists_will_be_fetched || unavailable(&packages).is_some() {
        update(root, exec)?;
        packages = survey(root, exec, wanted);
    }
    match (packages.policy_error.take(), unavailable(&packages)) {
        (Some(why), _) => Err(why),
        (None, Some(name)) => Err(format!(
            "no package source has {name} as wanted, also not after fetching the package lists"
        )),
        (None, None) => Ok(open(&packages)),
    }
}

/// Brings all packages there: removals first, then one installation with no service started.
pub fn transaction(
    root: &Root,
    exec: &Exec,
    wanted: &[Wanted<'_>],
    lists_changed: bool,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<(), String> {
    let install = missing(root, exec, wanted, lists_changed)?;
    let names = collect::set(wanted.iter().map(|w| w.name));
    let found = installed(root, &names)?;
    let remove: Vec<String> = wanted
        .iter()
        .filter(|w| w.absent && !package::settled(**w, found.get(w.name)))
        .map(|w| w.name.to_owned())
        .collect();
    if !remove.is_empty() {
        run_apt(exec, &["purge"], &remove, on_progress)?;
    }
    if install.is_empty() {
        return Ok(());
    }
    let quiet = Quiet::begin(root, exec)?;
    let done = run_apt(exec, &["install"], &install, on_progress);
    drop(quiet);
    done
}

/// Runs apt-get; after an interrupted dpkg (a power cut, a kill) lets dpkg finish and runs it once more.
fn run_apt(
    exec: &Exec,
    verb: &[&str],
    packages: &[String],
    on_progress: &mut dyn FnMut(Progress),
) -> Result<(), String> {
    let output = apt_get(exec, verb, packages, on_progress)?;
    if output.ok() {
        return Ok(());
    }
    let failed = |output: &CommandOutput| {
        let mut argv = vec!["apt-get"];
        argv.extend(verb);
        argv.extend(packages.iter().map(String::as_str));
        failure(&argv, output)
    };
    if !output.stderr.contains("dpkg was interrupted") {
        return Err(failed(&output));
    }
    let argv = [
        "dpkg",
        "--configure",
        "-a",
        "--force-confdef",
        "--force-confold",
    ];
    let mended = exec.helper_with(
        &argv,
        None,
        &[("DEBIAN_FRONTEND", "noninteractive")],
        INSTALL_TIMEOUT,
    )?;
    if !mended.ok() {
        return Err(failure(&argv, &mended));
    }
    let output = apt_get(exec, verb, packages, on_progress)?;
    if output.ok() {
        Ok(())
    } else {
        Err(failed(&output))
    }
}

fn apt_get(
    exec: &Exec,
    verb: &[&str],
    packages: &[String],
    on_progress: &mut dyn FnMut(Progress),
) -> Result<CommandOutput, String> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| format!("expected a pipe for apt's status, found: {error}"))?;
    inherit(&writer)?;
    let mut argv: Vec<String> = [
        "apt-get",
        "-y",
        "-q",
        "--no-install-recommends",
        "--allow-downgrades",
    ]
    .map(str::to_owned)
    .to_vec();
    let status = format!("APT::Status-Fd={}", writer.as_raw_fd());
    for option in [
        LOCK_WAIT,
        "Dpkg::Options::=--force-confdef",
        "Dpkg::Options::=--force-confold",
        "Dpkg::Use-Pty=0",
        &status,
    ] {
        argv.extend(["-o".to_owned(), option.to_owned()]);
    }
    argv.extend(verb.iter().map(|&v| v.to_owned()));
    argv.extend_from_slice(packages);
    let env = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("NEEDRESTART_SUSPEND", "1"),
    ];
    let command = Command {
        argv,
        env: collect::map(env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()))),
        stdin: None,
        user: None,
        timeout_seconds: INSTALL_TIMEOUT.as_secs().try_into().unwrap_or(u32::MAX),
        output_limit_bytes: OUTPUT_BYTES,
    };
    let mut last = 0;
    let mut on_line = |line: &str| {
        if let Some(done) = parse_progress(line).filter(|done| *done > last) {
            last = done;
            on_progress(Progress::Advance { done, total: 100 });
        }
    };
    exec.run_with_status(
        &command,
        Some(StatusPipe {
            reader,
            writer,
            on_line: &mut on_line,
        }),
    )
}

/// apt gets the pipe under its own number; the next program that this process starts is apt.
fn inherit(writer: &OwnedFd) -> Result<(), String> {
    rustix::io::fcntl_setfd(writer, rustix::io::FdFlags::empty())
        .map_err(|error| format!("expected to pass a pipe to apt, found: {error}"))
}

/// `dlstatus:N:PERCENT:TEXT` and then `pmstatus:PACKAGE:PERCENT:TEXT`, each up to a hundred: whole parts of a hundred, of which
/// fetching is the first half and unpacking and setting up the second.
fn parse_progress(line: &str) -> Option<u32> {
    let mut parts = line.split(':');
    let before = match parts.next() {
        Some("dlstatus") => 0.0,
        Some("pmstatus") => 50.0,
        _ => return None,
    };
    // A package may carry its architecture (`libc6:amd64`): the percentage is the first number with a fraction.
    let percent = parts.find_map(|part| {
        part.contains('.')
            .then(|| part.parse::<f64>().ok())
            .flatten()
    })?;
    (0.0..=100.0)
        .contains(&percent)
        .then_some((before + percent / 2.0) as u32)
}

/// While it lives, installing starts no service. Removed when it is dropped; one that a crash left over goes with
/// [`remove_left_over`].
struct Quiet {
    _lock: File,
    /// Ours to remove; `None`: there was a policy already.
    path: Option<PathBuf>,
}

fn policy_lock(root: &Root) -> Result<File, String> {
    durable::create_private_dir(&root.state(""))?;
    let path = root.state("policy-rc.lock");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| format!("expected to open {}, found: {error}", path.display()))
}

impl Quiet {
    fn begin(root: &Root, exec: &Exec) -> Result<Self, String> {
        let lock = policy_lock(root)?;
        let began = Instant::now();
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if began.elapsed() >= QUIET_WAIT || exec.out_of_time() || exec.cancelled() {
                return Err(format!(
                    "expected the lock of policy-rc.d, found another installation: {error}"
                ));
            }
            std::thread::sleep(QUIET_POLL);
        }
        let path = root.at(POLICY_RC);
        if path.exists() && !is_ours(&path) {
            return Ok(Self {
                _lock: lock,
                path: None,
            });
        }
        let put = durable::write_beside(&path, POLICY_RC_TEXT.as_bytes()).and_then(|temporary| {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
            durable::rename_into_place(&temporary, &path)
        });
        put.map_err(|error| format!("expected to write {POLICY_RC}, found: {error}"))?;
        Ok(Self {
            _lock: lock,
            path: Some(path),
        })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn is_ours(path: &std::path::Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == POLICY_RC_TEXT)
}

/// A crash in the middle of an installation may leave our policy behind; nobody holds its lock then.
pub fn remove_left_over(root: &Root) {
    let path = root.at(POLICY_RC);
    if is_ours(&path)
        && let Ok(lock) = policy_lock(root)
        && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines() {
        for (line, expected) in [
            (
                "pmstatus:memcached:40.2000:Unpacking memcached (amd64)",
                Some(70),
            ),
            ("pmstatus:libc6:amd64:12.5:Preparing: libc6", Some(56)),
            ("dlstatus:3:99.9:Retrieving file 3 of 3", Some(49)),
            ("pmconffile:/etc/x:1.0:'a' 'b'", None),
            ("pmstatus:dpkg-exec:101.0:x", None),
            ("", None),
        ] {
            assert_eq!(parse_progress(line), expected, "{line}");
        }
    }

    #[test]
    fn our_policy_goes_away_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(dir.path().join("usr/sbin")).unwrap();
        let policy = dir.path().join("usr/sbin/policy-rc.d");
        let quiet = Quiet::begin(&root, &Exec::new(root.clone())).unwrap();
        assert_eq!(
            fs::metadata(&policy).unwrap().permissions().mode() & 0o777,
            0o755
        );
        // A running installation keeps it.
        remove_left_over(&root);
        assert!(policy.exists());
        drop(quiet);
        assert!(!policy.exists());
        // A crash leaves it behind; the next start of the agent takes it away.
        fs::write(&policy, POLICY_RC_TEXT).unwrap();
        remove_left_over(&root);
        assert!(!policy.exists());
        fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        drop(Quiet::begin(&root, &Exec::new(root.clone())).unwrap());
        remove_left_over(&root);
        assert!(policy.exists());
    }

    #[test]
    fn lists_age() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let now = SystemTime::now();
        assert!(lists_are_old(&root, now));
        fs::create_dir_all(dir.path().join("var/lib/apt/lists")).unwrap();
        assert!(lists_are_old(&root, now));
        fs::write(
            dir.path().join("var/lib/apt/lists/deb_main_Packages.lz4"),
            "",
        )
        .unwrap();
        assert!(!lists_are_old(&root, SystemTime::now()));
        assert!(lists_are_old(
            &root,
            now + LISTS_MAX_AGE + Duration::from_secs(60)
        ));
    }
}
