//! Kinds of failures, and secrets.

use std::path::Path;

use super::*;
use lab::{Mend, in_lab};

#[test]
fn each_kind_of_failure_is_told_apart_and_secrets_stay_on_the_host() {
    in_lab("failures", 2, |lab| {
        in_runtime(|| async {
            let good = target(lab, lab.hosts().unwrap()[0]);
            let folder = tempfile::tempdir().unwrap();
            wrong_host_key(folder.path(), &good).await;
            wrong_key(folder.path(), &good).await;
            let nobody_listens = Target { port: 9, ..good };
            let error = refused(nobody_listens).await;
            assert!(matches!(&error, HostError::Unreachable { .. }), "{error:?}");

            let hosts = all(lab);
            frozen(lab, &hosts).await;
            secrets(lab, &hosts).await;
            hosts.close().await;
        });
    });
}

async fn refused(target: Target) -> HostError {
    let hosts = ssh_hosts([target]);
    let began = Instant::now();
    let answer = hosts.observe(&name("ctl1"), Observe::default()).await;
    let error = answer.unwrap_err();
    println!("{:?}: {error}", began.elapsed());
    error
}

async fn wrong_host_key(folder: &Path, good: &Target) {
    let empty = folder.join("known_hosts");
    std::fs::write(&empty, "").unwrap();
    let error = refused(Target {
        known_hosts: Some(empty.clone()),
        ..good.clone()
    })
    .await;
    let names_file = matches!(&error, HostError::HostKey { known_hosts, .. } if *known_hosts == empty.display().to_string());
    assert!(names_file, "{error:?}");
}

async fn wrong_key(folder: &Path, good: &Target) {
    let key = folder.join("id");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let error = refused(Target {
        identity: Some(key),
        ..good.clone()
    })
    .await;
    assert!(matches!(&error, HostError::Auth { .. }), "{error:?}");
}

/// SSH that hangs has a limit, and the host is asked again once it answers.
async fn frozen(lab: &Lab, hosts: &SshHosts) {
    lab.fault(&"freeze ctl2".parse::<Fault>().unwrap()).unwrap();
    let began = Instant::now();
    let answer = hosts.observe(&name("ctl2"), Observe::default()).await;
    let error = answer.unwrap_err();
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
}

async fn secrets(lab: &Lab, hosts: &SshHosts) {
    let path = "/etc/nightshift-secret";
    let secret = [file(path, "password = ⟦secret:test.one⟧\n")];
    let found = format!("{:?}", states(hosts, "ctl1", &secret).await);
    assert!(found.contains("not shown"), "{found}");
    start(hosts, "ctl1", "secret.0.1", apply(&secret))
        .await
        .unwrap();
    let there = lab.ssh_ok("ctl1", &["cat", path]).unwrap();
    assert_eq!(there, format!("password = {SECRET}\n"));
    let shown = start(hosts, "ctl1", "secret.1.1", run(&["cat", path])).await;
    let shown = format!("{shown:?}");
    assert!(
        shown.contains("⟦secret:test.one⟧") && !shown.contains(SECRET),
        "{shown}"
    );
    let words = ["echo", "⟦secret:test.two⟧"];
    let unknown = start(hosts, "ctl1", "secret.2.1", run(&words)).await;
    assert!(matches!(unknown, Err(HostError::UnknownSecret { .. })));
}
