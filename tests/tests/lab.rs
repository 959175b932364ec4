//! The lab on real hosts: each test has labs of its own. They need root on Debian and fail without it.
#![allow(
    clippy::unwrap_used,
    reason = "helper functions of tests fail the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::testing::test_name;
use lab::{Fault, Lab, LabOptions, Mend, Progress, TestLab, in_lab, wait};

const LAB_PROGRAM: &str = env!("CARGO_BIN_EXE_nightshift-lab");
const SOON: Duration = Duration::from_secs(30);

fn cli(arguments: &[&str]) -> Output {
    Command::new(LAB_PROGRAM).args(arguments).output().unwrap()
}

fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

fn pings(lab: &Lab, from: &str, to: &str) -> bool {
    let ping = lab.ssh(from, &["ping", "-c1", "-W1", to]).unwrap();
    ping.status.success()
}

fn active(lab: &Lab, host: &str, unit: &str) -> bool {
    let state = lab.ssh(host, &["systemctl", "is-active", unit]).unwrap();
    state.stdout.trim() == "active"
}

/// Everything of the lab that can be seen on this machine.
fn traces(name: &str) -> Vec<String> {
    let store = lab::Store::from_environment();
    let folder = store.root().join("labs").join(name);
    let mut found = Vec::new();
    let mut add = |path: PathBuf| found.push(path.display().to_string());
    for path in [
        folder.clone(),
        store.root().join("locks").join(format!("lab-{name}")),
        store.root().join("bases").join(format!(".building-{name}")),
        store.root().join("layers").join(format!(".saving-{name}")),
        store.root().join("packages/users").join(name),
    ] {
        if path.exists() {
            add(path);
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let netns = entry.file_name().to_string_lossy().into_owned();
        if netns == format!("nslab-{name}") || netns.starts_with(&format!("nslab-{name}-")) {
            add(entry.path());
        }
    }
    let group = format!("/nightshift-lab/{name}");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let folder = PathBuf::from(format!("{}{group}", hierarchy.path().display()));
        if folder.exists() {
            add(folder);
        }
    }
    for device in fs::read_dir("/sys/block").unwrap().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        if backing.is_ok_and(|file| Path::new(&file).starts_with(&folder)) {
            add(device.path());
        }
    }
    let shown = format!("{}/", folder.display());
    let mine = |text: &str| {
        text.contains(&shown)
            || text.lines().any(|l| {
                l.split(&group)
                    .nth(1)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    };
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "mountinfo", "cgroup"] {
            let path = process.path().join(file);
            // Not a process, or gone meanwhile. A zombie shows nothing but its group.
            let text = fs::read_to_string(&path).unwrap_or_default();
            if mine(&text) {
                add(path);
            }
        }
    }
    found
}

/// Zombies are left to the machine's PID 1, which may take its time.
fn assert_no_traces(name: &str) {
    let result = wait::until(&format!("no trace of {name}"), SOON, || {
        match traces(name) {
            found if found.is_empty() => Ok(()),
            found => Err(format!("{found:#?}")),
        }
    });
    result.unwrap();
}

#[test]
fn network_faults_take_effect_and_are_mended() {
    let lab = TestLab::up("net", 3, None);
    assert!(pings(&lab, "ctl1", "ctl3"));

    lab.fault(&fault("partition ctl1,ctl2 / ctl3")).unwrap();
    assert!(!pings(&lab, "ctl1", "ctl3"));
    assert!(!pings(&lab, "ctl3", "ctl2"));
    assert!(pings(&lab, "ctl1", "ctl2"));
    let again = lab.fault(&fault("partition ctl1,ctl2 / ctl3")).unwrap_err();
    assert!(
        again.to_string().contains("lasts already, as number 1"),
        "{again}"
    );
    lab.mend(&Mend::All).unwrap();
    assert!(pings(&lab, "ctl1", "ctl3"));

    // The lab itself measures both directions; a ping needs both.
    lab.fault(&fault("partition ctl1 / ctl2 one-way")).unwrap();
    assert!(!pings(&lab, "ctl2", "ctl1"));
    assert!(pings(&lab, "ctl2", "ctl3"));
    lab.mend(&"partition".parse().unwrap()).unwrap();
    assert!(pings(&lab, "ctl2", "ctl1"));

    let loss = lab.fault(&fault("loss 60% ctl1")).unwrap().unwrap();
    let flood = ["ping", "-q", "-c100", "-i0.01", "-W1", "ctl2"];
    let told = lab.ssh("ctl1", &flood).unwrap().stdout;
    let lost: f64 = percent_lost(&told);
    // Both ways: 84 % expected.
    assert!((60.0..=97.0).contains(&lost), "{told}");
    lab.mend(&Mend::Id(loss.id)).unwrap();
    assert_eq!(percent_lost(&lab.ssh("ctl1", &flood).unwrap().stdout), 0.0);
}

fn percent_lost(ping: &str) -> f64 {
    let words = ping.split_whitespace();
    let percent = words.clone().find_map(|word| word.strip_suffix('%'));
    percent
        .and_then(|p| p.parse().ok())
        .unwrap_or_else(|| panic!("{ping}"))
}

#[test]
fn unit_and_disk_faults_take_effect_and_are_mended() {
    let lab = TestLab::up("unit", 1, None);
    let main_process = || {
        let show = ["systemctl", "show", "--value", "-p", "MainPID", "cron"];
        lab.ssh_ok("ctl1", &show).unwrap()
    };
    let before = main_process();
    assert!(lab.fault(&fault("kill ctl1 cron")).unwrap().is_none());
    assert_ne!(before, main_process());

    lab.fault(&fault("hold-down ctl1 cron")).unwrap();
    assert!(!active(&lab, "ctl1", "cron"));
    assert!(
        !lab.ssh("ctl1", &["systemctl", "restart", "cron"])
            .unwrap()
            .status
            .success()
    );
    lab.mend(&Mend::All).unwrap();
    lab.ssh_ok("ctl1", &["systemctl", "start", "cron"]).unwrap();
    assert!(active(&lab, "ctl1", "cron"));

    let state = || {
        lab.ssh_ok("ctl1", &["ps", "-o", "stat=", "-C", "cron"])
            .unwrap()
    };
    lab.fault(&fault("freeze ctl1 process cron")).unwrap();
    assert!(state().starts_with('T'));
    lab.mend(&Mend::All).unwrap();
    assert!(state().starts_with('S'));

    // A frozen unit's processes cannot even be killed from inside until it is thawed… by signal 0 they exist.
    lab.fault(&fault("freeze ctl1 unit dbus")).unwrap();
    let ask = ["timeout", "2", "busctl", "--system", "list"];
    assert!(!lab.ssh("ctl1", &ask).unwrap().status.success());
    lab.mend(&Mend::All).unwrap();
    lab.ssh_ok("ctl1", &ask).unwrap();

    lab.fault(&fault("fill-disk ctl1 /var/lib")).unwrap();
    let write = [
        "dd",
        "if=/dev/zero",
        "of=/root/more",
        "bs=1M",
        "count=1",
        "conv=fsync",
    ];
    let full = lab.ssh("ctl1", &write).unwrap();
    assert!(full.stderr.contains("No space left"), "{full:?}");
    lab.mend(&Mend::All).unwrap();
    lab.ssh_ok("ctl1", &write).unwrap();

    for (text, why) in [
        ("kill ctl1 nosuch", "nosuch.service does not run on ctl1"),
        ("hold-down ctl1 nosuch", "ctl1 has no unit nosuch.service"),
        (
            "freeze ctl1 process nosuch",
            "no process `nosuch` runs on ctl1",
        ),
        ("fill-disk ctl1 /tmp", "is on tmpfs"),
        ("power-cut ctl2", "has no host `ctl2`; it has: ctl1"),
    ] {
        let error = lab.fault(&fault(text)).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert_eq!(lab.faults().unwrap(), []);
}

#[test]
fn hosts_lose_power_freeze_and_reboot() {
    let lab = TestLab::up("power", 2, None);
    let boot = || lab.ssh_ok("ctl1", &["cat", "/proc/1/stat"]).unwrap();
    lab.ssh_ok("ctl1", &["tee", "/root/kept"]).unwrap();

    lab.fault(&fault("power-cut ctl1")).unwrap();
    assert!(!lab.status().unwrap()[0].powered);
    assert!(!pings(&lab, "ctl2", "ctl1") || !lab.ssh("ctl1", &["true"]).unwrap().status.success());
    // Bringing the lab up again does not mend.
    let options = LabOptions {
        name: lab.name().clone(),
        hosts: 2,
        layer: None,
    };
    Lab::up(&options, &Progress::quiet()).unwrap();
    assert!(!lab.status().unwrap()[0].powered);
    lab.mend(&Mend::All).unwrap();
    lab.ssh_ok("ctl1", &["test", "-e", "/root/kept"]).unwrap();

    lab.fault(&fault("freeze ctl1")).unwrap();
    let stuck = lab.ssh_limited("ctl1", &["true"], b"", Duration::from_secs(2));
    assert!(stuck.is_err(), "{stuck:?}");
    assert!(lab.status().unwrap()[0].powered);
    let before = lab.mend(&Mend::All).map(|_| boot()).unwrap();

    // sshd may end the connection before the command's exit status arrives.
    let _ = lab.ssh("ctl1", &["systemctl", "reboot"]).unwrap();
    wait::until("the reboot of ctl1", SOON, || {
        let stat = lab.ssh_limited(
            "ctl1",
            &["cat", "/proc/1/stat"],
            b"",
            Duration::from_secs(5),
        );
        match stat {
            Ok(out) if out.status.success() && start_time(&out.stdout) != start_time(&before) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .unwrap();
}

/// Field 22 of `proc(5)`'s `stat`.
fn start_time(stat: &str) -> &str {
    stat.split(' ').nth(21).unwrap_or_default()
}

#[test]
fn a_program_in_the_labs_namespace_reaches_hosts_from_every_thread() {
    in_lab("inside", 1, |lab| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let address = (lab.hosts().unwrap()[0].address(), 22);
        runtime.block_on(async {
            let worker = tokio::spawn(tokio::net::TcpStream::connect(address));
            let blocking =
                tokio::task::spawn_blocking(move || std::net::TcpStream::connect(address));
            worker.await.unwrap().unwrap();
            blocking.await.unwrap().unwrap();
        });
        // Nothing but the lab is reachable: no other interface than the bridge, its ports and loopback.
        let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
        assert_eq!(
            routes.lines().filter(|l| l.starts_with("br0")).count(),
            1,
            "{routes}"
        );
        assert_eq!(routes.lines().count(), 2, "{routes}");
    });
}

#[test]
fn host_keys_are_checked() {
    let lab = TestLab::up("keys", 2, None);
    let known = fs::read_to_string(lab.known_hosts()).unwrap();
    let swapped = known
        .replace("10.77.0.11", "X")
        .replace("10.77.0.12", "10.77.0.11");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known_hosts");
    fs::write(&file, swapped.replace("ctl1", "X").replace("ctl2", "ctl1")).unwrap();
    let option = format!("UserKnownHostsFile={}", file.display());
    let wrong = lab
        .command("ssh")
        .unwrap()
        .args(["-F".as_ref(), lab.ssh_config().as_os_str()])
        .args(["-o", &option, "ctl1", "true"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&wrong.stderr);
    assert!(told.contains("Host key verification failed"), "{told}");
    lab.ssh_ok("ctl1", &["true"]).unwrap();
}

#[test]
fn up_adds_what_is_missing_and_down_leaves_nothing() {
    let name = test_name("grow").unwrap();
    let lab = Lab::named(name.clone());
    lab.down().unwrap();
    let name = name.as_str();
    let up = |hosts: &str| {
        let done = cli(&["--lab", name, "up", "--hosts", hosts]);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    up("1");
    let first = lab.ssh_ok("ctl1", &["cat", "/etc/machine-id"]).unwrap();
    lab.ssh_ok("ctl1", &["mkdir", "/run/stays"]).unwrap();
    up("2");
    lab.ssh_ok("ctl1", &["test", "-d", "/run/stays"]).unwrap();
    assert_ne!(
        first,
        lab.ssh_ok("ctl2", &["cat", "/etc/machine-id"]).unwrap()
    );
    assert!(pings(&lab, "ctl1", "ctl2") && pings(&lab, "ctl2", "ctl1"));
    lab.fault(&fault("freeze ctl2")).unwrap();
    lab.fault(&fault("partition ctl1 / ctl2")).unwrap();
    assert!(!traces(name).is_empty());
    lab.down().unwrap();
    assert_no_traces(name);
    lab.down().unwrap();
    assert_no_traces(name);
}

#[test]
fn down_after_a_crash_half_way_leaves_nothing() {
    let name = test_name("crash").unwrap();
    let name = name.as_str();
    let lab = Lab::named(name.parse().unwrap());
    lab.down().unwrap();
    let mut half_way = 0;
    for milliseconds in [5, 50, 150, 300, 600, 1200] {
        let mut up = Command::new(LAB_PROGRAM)
            .args(["--lab", name, "up", "--hosts", "2"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        if up.try_wait().unwrap().is_none() {
            half_way += 1;
        }
        up.kill().unwrap();
        up.wait().unwrap();
        lab.down().unwrap();
        assert_no_traces(name);
    }
    assert!(
        half_way >= 3,
        "only {half_way} runs were killed before their end"
    );
    // And a new one comes up after all that.
    let again = cli(&["--lab", name, "up", "--hosts", "1"]);
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    lab.down().unwrap();
    assert_no_traces(name);
}

#[test]
fn a_layer_brings_packages_and_nothing_of_the_host() {
    let layer = test_name("layer").unwrap();
    let store = lab::Store::from_environment();
    // Left by a killed run.
    let _ = lab::layer::remove(&store, layer.as_str());
    let from = TestLab::up("layera", 1, None);
    from.ssh_ok("ctl1", &["apt-get", "-qq", "install", "-y", "memcached"])
        .unwrap();
    from.ssh_ok("ctl1", &["mkdir", "-p", "/var/lib/nightshift/spool"])
        .unwrap();
    from.save_layer(layer.as_str(), "ctl1").unwrap();
    assert!(
        active(&from, "ctl1", "memcached"),
        "the host goes on after the save"
    );

    let with = TestLab::up("layerb", 2, Some(layer.as_str()));
    for host in ["ctl1", "ctl2"] {
        assert!(active(&with, host, "memcached"));
        assert_eq!(with.ssh_ok(host, &["hostname"]).unwrap().trim(), host);
        assert!(
            !with
                .ssh("ctl1", &["test", "-e", "/var/lib/nightshift"])
                .unwrap()
                .status
                .success()
        );
    }
    let ids: Vec<String> = [(&from, "ctl1"), (&with, "ctl1"), (&with, "ctl2")]
        .map(|(lab, host)| lab.ssh_ok(host, &["cat", "/etc/machine-id"]).unwrap())
        .to_vec();
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    let used = lab::layer::remove(&store, layer.as_str()).unwrap_err();
    assert!(used.to_string().contains("is used by the lab"), "{used}");
    drop(with);
    lab::layer::remove(&store, layer.as_str()).unwrap();
}

#[test]
fn without_root_it_says_what_is_missing_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The build folder may be closed to others.
    let program = folder.path().join("nightshift-lab");
    fs::copy(LAB_PROGRAM, &program).unwrap();
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    fs::set_permissions(folder.path(), open).unwrap();
    let store = folder.path().join("store");
    for verb in ["up", "down"] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["--lab", "noroot", verb])
            .env("NIGHTSHIFT_LAB_DIR", &store)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("root rights"), "{told}");
        assert!(!store.exists());
    }
}

#[test]
fn wrong_words_are_refused_where_the_user_looks() {
    for (arguments, expected) in [
        (
            &["--lab", "A b", "status"][..],
            "lower-case letters and digits",
        ),
        (&["--lab", "nosuchlab", "ssh", "ctl1"], "is not up"),
        (&["--lab", "nosuchlab", "exec", "true"], "is not up"),
        (
            &["--lab", "nosuchlab", "fault", "melt", "ctl1"],
            "expected one of partition",
        ),
        (
            &["--lab", "nosuchlab", "fault", "kill", "ctl1", "a"],
            "it has: none (not up)",
        ),
        (
            &["--lab", "nosuchlab", "up", "--hosts", "0"],
            "expected 1 to 9",
        ),
        (
            &["--lab", "nosuchlab", "up", "--layer", "nosuch"],
            "no layer `nosuch`",
        ),
        (
            &["--lab", "nosuchlab", "layer", "save", "../x"],
            "lower-case letters, digits and dashes",
        ),
    ] {
        let output = cli(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
    assert!(cli(&["--lab", "nosuchlab", "down"]).status.success());
    assert_no_traces("nosuchlab");
    let table = String::from_utf8(cli(&["faults"]).stdout).unwrap();
    for entry in lab::CATALOGUE {
        assert!(table.contains(entry.name), "{table}");
    }
}
