//! The way to hosts and the agent on real hosts: real SSH, real systemd, real apt.
#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use deploy_engine::{
    model::{HostName, Secs},
    transport::{HostError, Hosts, Observe, Secrets, SshHosts, Target},
    wire::{
        Command, Fence, Outcome, Progress, Resource, ResourceId, State, StepKey, StepStatus, Work,
    },
};
use lab::{Fault, Host, Lab, Mend, in_lab};
use tokio::{sync::mpsc, task::JoinHandle};

const SECRET: &str = "not-for-anybodys-eyes";

struct OneSecret;

impl Secrets for OneSecret {
    fn reveal(&self, name: &str) -> Option<Arc<str>> {
        (name == "test.one").then(|| Arc::from(SECRET))
    }

    fn all_values(&self) -> Vec<(String, Arc<str>)> {
        vec![("test.one".to_owned(), Arc::from(SECRET))]
    }
}

fn target(lab: &Lab, host: Host) -> Target {
    Target {
        host: host.name().parse().unwrap(),
        address: host.address().to_string(),
        port: 22,
        user: "root".to_owned(),
        identity: Some(lab.identity()),
        known_hosts: Some(lab.known_hosts()),
    }
}

fn ssh_hosts(targets: impl IntoIterator<Item = Target>) -> Arc<SshHosts> {
    Arc::new(SshHosts::of(targets, Arc::new(OneSecret)).unwrap())
}

fn all(lab: &Lab) -> Arc<SshHosts> {
    ssh_hosts(lab.hosts().unwrap().into_iter().map(|h| target(lab, h)))
}

fn name(host: &str) -> HostName {
    host.parse().unwrap()
}

/// Runs `test` in a runtime inside the lab.
fn in_runtime<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    tokio::runtime::Runtime::new().unwrap().block_on(test());
}

fn file(path: &str, content: &str) -> Resource {
    Resource::File {
        path: path.into(),
        content: content.into(),
        mode: "0644".into(),
        owner: "root".into(),
        group: "root".into(),
        validate: None,
        sensitive: false,
        absent: false,
    }
}

fn package(name: &str, absent: bool) -> Resource {
    Resource::Package {
        name: name.into(),
        version: None,
        absent,
    }
}

fn unit(name: &str, running: bool, restart_on: &[&str]) -> Resource {
    Resource::Unit {
        name: name.into(),
        enabled: Some(running),
        running: Some(running),
        restart_on: restart_on.iter().map(|&p| p.to_owned()).collect(),
        reload_on: vec![],
    }
}

fn run(argv: &[&str]) -> Work {
    Work::Run {
        command: Command {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            env: BTreeMap::new(),
            stdin: None,
            user: None,
            timeout_seconds: 120,
            output_limit_bytes: 65_536,
        },
    }
}

fn apply(resources: &[Resource]) -> Work {
    Work::Apply {
        resources: resources.to_vec(),
        expected: BTreeMap::new(),
    }
}

async fn start(hosts: &SshHosts, host: &str, key: &str, work: Work) -> Result<Outcome, HostError> {
    start_fenced(hosts, host, key, work, 1).await.0
}

async fn start_fenced(
    hosts: &SshHosts,
    host: &str,
    key: &str,
    work: Work,
    token: u64,
) -> (Result<Outcome, HostError>, Vec<Progress>) {
    let (send, mut progress) = mpsc::channel(1000);
    let fence = Fence {
        scope: "site:test".into(),
        token,
    };
    let key = StepKey(key.into());
    let outcome = hosts
        .start(&name(host), key, fence, work, Secs(300), send)
        .await;
    let mut seen = vec![];
    while let Ok(one) = progress.try_recv() {
        seen.push(one);
    }
    (outcome, seen)
}

fn in_background(
    hosts: &Arc<SshHosts>,
    host: &'static str,
    key: &'static str,
    work: Work,
) -> JoinHandle<Result<Outcome, HostError>> {
    let hosts = hosts.clone();
    tokio::spawn(async move { start(&hosts, host, key, work).await })
}

async fn states(hosts: &SshHosts, host: &str, resources: &[Resource]) -> Vec<State> {
    let ask = Observe {
        resources: resources.to_vec(),
        ..Observe::default()
    };
    let observed = hosts.observe(&name(host), ask).await.unwrap();
    observed.observations.into_iter().map(|o| o.state).collect()
}

async fn until_running(hosts: &SshHosts, host: &str, key: &str) {
    let began = Instant::now();
    let key = StepKey(key.into());
    while !matches!(
        hosts.ask(&name(host), &key).await,
        Ok(StepStatus::Running { .. })
    ) {
        assert!(began.elapsed() < Duration::from_secs(20), "{key} never ran");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn changed(outcome: &Result<Outcome, HostError>) -> &[ResourceId] {
    match outcome {
        Ok(Outcome::Done { changed, .. }) => changed,
        other => panic!("expected the work done, found {other:?}"),
    }
}

/// Forty resources that every Debian host has or can have at once.
fn forty() -> Vec<Resource> {
    let mut resources: Vec<Resource> = (0..25)
        .map(|n| file(&format!("/etc/nightshift-test-{n}"), &format!("line {n}\n")))
        .collect();
    resources.extend(
        [
            "bash",
            "coreutils",
            "dpkg",
            "grep",
            "sed",
            "tar",
            "gzip",
            "perl-base",
            "util-linux",
            "openssh-server",
        ]
        .map(|name| package(name, false)),
    );
    resources.extend((0..4).map(|n| Resource::Directory {
        path: format!("/srv/nightshift-test-{n}"),
        mode: "0755".into(),
        owner: "root".into(),
        group: "root".into(),
        absent: false,
    }));
    resources.push(unit("ssh.service", true, &[]));
    resources
}

#[test]
fn forty_resources_on_three_hosts_converge_and_then_stay() {
    in_lab("converge", 3, |lab| {
        in_runtime(|| async {
            let names = ["ctl1", "ctl2", "ctl3"];
            let resources = forty();
            let observe = |hosts: Arc<SshHosts>| {
                let resources = resources.clone();
                async move {
                    let asked = names.map(|host| {
                        let (hosts, resources) = (hosts.clone(), resources.clone());
                        tokio::spawn(async move { states(&hosts, host, &resources).await })
                    });
                    let mut found = vec![];
                    for one in asked {
                        found.extend(one.await.unwrap());
                    }
                    found
                }
            };
            let first = all(lab);
            let began = Instant::now();
            first.warm().await;
            println!("login and installation of the agent: {:?}", began.elapsed());
            for host in names {
                let outcome = start(&first, host, "forty.0.1", apply(&resources)).await;
                assert_eq!(changed(&outcome).len(), 29, "{outcome:?}");
            }
            first.close().await;
            for _ in 0..3 {
                let hosts = all(lab);
                for what in ["cold", "warm", "warm"] {
                    let began = Instant::now();
                    let found = observe(hosts.clone()).await;
                    println!("40 resources on 3 hosts, {what}: {:?}", began.elapsed());
                    assert_eq!(found, vec![State::Same; 120]);
                }
                let control = hosts.control_dir();
                hosts.close().await;
                drop(hosts);
                assert!(!control.exists(), "the sockets of the client stay behind");
            }
        });
    });
}

#[test]
fn a_service_is_installed_without_starting_configured_started_and_removed() {
    in_lab("service", 1, |lab| {
        in_runtime(|| async {
            let hosts = all(lab);
            let (unit_name, config) = ("memcached.service", "/etc/memcached.conf");
            let conf = |size: &str| {
                file(
                    config,
                    &format!("-m {size}\n-p 11211\n-u memcache\n-l 127.0.0.1\n"),
                )
            };
            let wanted = |size: &str| {
                [
                    package("memcached", false),
                    conf(size),
                    unit(unit_name, true, &[config]),
                ]
            };

            let planned = states(&hosts, "ctl1", &wanted("64")).await;
            let all_change = planned
                .iter()
                .all(|s| matches!(s, State::WillChange { .. }));
            assert!(all_change, "{planned:?}");

            let (outcome, progress) = start_fenced(
                &hosts,
                "ctl1",
                "svc.0.1",
                apply(&[package("memcached", false)]),
                1,
            )
            .await;
            assert_eq!(changed(&outcome).len(), 1);
            let advances = progress
                .iter()
                .filter(|p| matches!(p, Progress::Advance { .. }));
            assert!(advances.count() > 2, "{progress:?}");
            let active = lab
                .ssh("ctl1", &["systemctl", "is-active", unit_name])
                .unwrap();
            assert_eq!(
                active.stdout.trim(),
                "inactive",
                "installing must not start services"
            );
            let left = lab
                .ssh("ctl1", &["test", "-e", "/usr/sbin/policy-rc.d"])
                .unwrap();
            assert!(!left.status.success(), "our policy-rc.d stays behind");

            let outcome = start(&hosts, "ctl1", "svc.1.1", apply(&wanted("64"))).await;
            assert_eq!(changed(&outcome).len(), 2, "{outcome:?}");
            assert_eq!(
                states(&hosts, "ctl1", &wanted("64")).await,
                vec![State::Same; 3]
            );

            // A change of the file restarts the unit, also if the step that should do it never came.
            let outcome = start(&hosts, "ctl1", "svc.2.1", apply(&[conf("65")])).await;
            assert_eq!(changed(&outcome).len(), 1);
            let found = states(&hosts, "ctl1", &wanted("65")).await;
            assert!(
                matches!(&found[2], State::WillChange { diff } if diff[0].starts_with("restart")),
                "{found:?}"
            );
            start(&hosts, "ctl1", "svc.3.1", apply(&wanted("65")))
                .await
                .unwrap();
            let line = lab.ssh_ok("ctl1", &["pgrep", "-a", "memcached"]).unwrap();
            assert!(line.contains("-m 65"), "{line}");
            assert_eq!(
                states(&hosts, "ctl1", &wanted("65")).await,
                vec![State::Same; 3]
            );

            // A unit that fails says why.
            let broken = [
                file(config, "--no-such-option\n"),
                unit(unit_name, true, &[config]),
            ];
            let outcome = start(&hosts, "ctl1", "svc.4.1", apply(&broken)).await;
            let Ok(Outcome::Failed { what, .. }) = &outcome else {
                panic!("{outcome:?}")
            };
            assert!(what.contains("no-such-option"), "{what}");

            let gone = [unit(unit_name, false, &[]), package("memcached", true)];
            start(&hosts, "ctl1", "svc.5.1", apply(&gone))
                .await
                .unwrap();
            assert_eq!(states(&hosts, "ctl1", &gone).await, vec![State::Same; 2]);
            let status = lab.ssh("ctl1", &["test", "-e", config]).unwrap();
            assert!(
                !status.status.success(),
                "purging must take the configuration"
            );

            let missing = [package("no-such-package", false)];
            let found = states(&hosts, "ctl1", &missing).await;
            assert!(
                matches!(&found[0], State::Cannot { why } if why.contains("no-such-package")),
                "{found:?}"
            );
            hosts.close().await;
        });
    });
}

#[test]
fn work_survives_what_happens_to_its_connection_and_a_power_cut_is_told() {
    in_lab("survive", 2, |lab| {
        in_runtime(|| async {
            let hosts = all(lab);
            let work = in_background(
                &hosts,
                "ctl1",
                "cut.0.1",
                run(&["sh", "-c", "sleep 4; echo through"]),
            );
            until_running(&hosts, "ctl1", "cut.0.1").await;
            lab.ssh_ok("ctl1", &["pkill", "-9", "-f", "nightshift-agent serve"])
                .unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            // Every SSH session of the host; the one that asks for it ends as well.
            let _ = lab.ssh("ctl1", &["pkill", "-9", "-f", "sshd: root"]);
            let outcome = work.await.unwrap();
            let Ok(Outcome::Done {
                output: Some(output),
                ..
            }) = &outcome
            else {
                panic!("{outcome:?}")
            };
            assert_eq!(output.stdout, "through\n");

            let work = in_background(&hosts, "ctl2", "cut.1.1", run(&["sleep", "60"]));
            until_running(&hosts, "ctl2", "cut.1.1").await;
            lab.fault(&"power-cut ctl2".parse::<Fault>().unwrap())
                .unwrap();
            lab.mend(&Mend::All).unwrap();
            let outcome = work.await.unwrap();
            assert!(matches!(&outcome, Ok(Outcome::Lost { .. })), "{outcome:?}");

            let cancelled = in_background(&hosts, "ctl1", "cut.2.1", run(&["sleep", "60"]));
            until_running(&hosts, "ctl1", "cut.2.1").await;
            hosts
                .cancel(&name("ctl1"), &StepKey("cut.2.1".into()))
                .await
                .unwrap();
            assert!(matches!(cancelled.await.unwrap(), Ok(Outcome::Cancelled)));

            let (newer, _) = start_fenced(&hosts, "ctl1", "cut.3.1", run(&["true"]), 9).await;
            assert!(matches!(newer, Ok(Outcome::Done { .. })), "{newer:?}");
            let (older, _) = start_fenced(&hosts, "ctl1", "cut.4.1", run(&["true"]), 8).await;
            assert!(
                matches!(older, Ok(Outcome::Fenced { seen: 9 })),
                "{older:?}"
            );
            hosts.close().await;
        });
    });
}

#[test]
fn each_kind_of_failure_is_told_apart_and_secrets_stay_on_the_host() {
    in_lab("failures", 2, |lab| {
        in_runtime(|| async {
            let host = lab.hosts().unwrap()[0];
            let good = target(lab, host);
            let folder = tempfile::tempdir().unwrap();
            let ask = |target: Target| async move {
                let hosts = ssh_hosts([target]);
                let began = Instant::now();
                let error = hosts
                    .observe(&name("ctl1"), Observe::default())
                    .await
                    .unwrap_err();
                println!("{:?}: {error}", began.elapsed());
                error
            };
            let empty: PathBuf = folder.path().join("known_hosts");
            std::fs::write(&empty, "").unwrap();
            let error = ask(Target {
                known_hosts: Some(empty.clone()),
                ..good.clone()
            })
            .await;
            assert!(
                matches!(&error, HostError::HostKey { known_hosts, .. } if *known_hosts == empty.display().to_string()),
                "{error:?}"
            );

            let key = folder.path().join("id");
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key)
                .status();
            assert!(made.unwrap().success());
            let error = ask(Target {
                identity: Some(key),
                ..good.clone()
            })
            .await;
            assert!(matches!(&error, HostError::Auth { .. }), "{error:?}");

            let error = ask(Target {
                port: 9,
                ..good.clone()
            })
            .await;
            assert!(matches!(&error, HostError::Unreachable { .. }), "{error:?}");

            let hosts = all(lab);
            lab.fault(&"freeze ctl2".parse::<Fault>().unwrap()).unwrap();
            let began = Instant::now();
            let error = hosts
                .observe(&name("ctl2"), Observe::default())
                .await
                .unwrap_err();
            assert!(matches!(&error, HostError::TimedOut { .. }), "{error:?}");
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{:?}",
                began.elapsed()
            );
            lab.mend(&Mend::All).unwrap();
            hosts
                .observe(&name("ctl2"), Observe::default())
                .await
                .unwrap();

            let secret = file("/etc/nightshift-secret", "password = ⟦secret:test.one⟧\n");
            let found = format!(
                "{:?}",
                states(&hosts, "ctl1", std::slice::from_ref(&secret)).await
            );
            assert!(found.contains("not shown"), "{found}");
            start(
                &hosts,
                "ctl1",
                "secret.0.1",
                apply(std::slice::from_ref(&secret)),
            )
            .await
            .unwrap();
            let there = lab
                .ssh_ok("ctl1", &["cat", "/etc/nightshift-secret"])
                .unwrap();
            assert_eq!(there, format!("password = {SECRET}\n"));
            let shown = start(
                &hosts,
                "ctl1",
                "secret.1.1",
                run(&["cat", "/etc/nightshift-secret"]),
            )
            .await;
            let shown = format!("{shown:?}");
            assert!(
                shown.contains("⟦secret:test.one⟧") && !shown.contains(SECRET),
                "{shown}"
            );
            let unknown = start(
                &hosts,
                "ctl1",
                "secret.2.1",
                run(&["echo", "⟦secret:test.two⟧"]),
            )
            .await;
            assert!(matches!(unknown, Err(HostError::UnknownSecret { .. })));
            hosts.close().await;
        });
    });
}
