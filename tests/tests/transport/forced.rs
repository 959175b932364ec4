//! A key whose only command is the agent's gate: the engine works fully with it, and nobody else does anything.

use std::{path::Path, process::Command as Program};

use super::*;
use lab::in_lab;

const GATE: &str = "/var/lib/nightshift/agent/current/nightshift-agent gate";

#[test]
fn behind_a_forced_command_the_engine_works_fully_and_nothing_else_does() {
    in_lab("forced", 1, |lab| {
        in_runtime(|| async {
            // The first contact brings the agent and the host's key, with a key that may do everything.
            let open = all(lab);
            open.observe(&name("ctl1"), Observe::default())
                .await
                .unwrap();
            open.close().await;
            let folder = tempfile::tempdir().unwrap();
            let identity = restricted_key(lab, folder.path());
            let forced = Target {
                identity: Some(identity.clone()),
                ..target(lab, lab.hosts().unwrap()[0])
            };
            works(&forced).await;
            renews(lab, &forced).await;
            refuses_all_else(&forced, &identity);
            another_bot(&forced).await;
        });
    });
}

/// A new key that sshd on ctl1 lets through to the gate alone.
fn restricted_key(lab: &Lab, folder: &Path) -> std::path::PathBuf {
    let key = folder.join("id");
    let made = Program::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let line = format!("restrict,command=\"{GATE}\" {public}");
    lab.ssh_limited(
        "ctl1",
        &["tee", "-a", "/root/.ssh/authorized_keys"],
        line.as_bytes(),
        Duration::from_secs(20),
    )
    .unwrap();
    key
}

async fn works(forced: &Target) {
    let hosts = ssh_hosts([forced.clone()]);
    let ask = Observe {
        facts: true,
        ..Observe::default()
    };
    let observed = hosts.observe(&name("ctl1"), ask).await.unwrap();
    assert_eq!(observed.facts.unwrap().hostname, "ctl1");
    let done = start(&hosts, "ctl1", "forced.0.1", run(&["touch", "/run/forced"])).await;
    assert!(matches!(done, Ok(Outcome::Done { .. })), "{done:?}");
    hosts.close().await;
}

/// The version in use is taken away, as if the host had only an older one: the gate of the older one takes the new one.
async fn renews(lab: &Lab, forced: &Target) {
    let agents = "/var/lib/nightshift/agent";
    let older = "0".repeat(64);
    let now = lab
        .ssh_ok("ctl1", &["readlink", &format!("{agents}/current")])
        .unwrap();
    let now = now.trim().to_owned();
    lab.ssh_ok(
        "ctl1",
        &[
            "mv",
            &format!("{agents}/{now}"),
            &format!("{agents}/{older}"),
        ],
    )
    .unwrap();
    lab.ssh_ok(
        "ctl1",
        &["ln", "-sfn", &older, &format!("{agents}/current")],
    )
    .unwrap();
    let hosts = ssh_hosts([forced.clone()]);
    hosts
        .observe(&name("ctl1"), Observe::default())
        .await
        .unwrap();
    let current = lab
        .ssh_ok("ctl1", &["readlink", &format!("{agents}/current")])
        .unwrap();
    assert_eq!(current.trim(), now);
    hosts.close().await;
}

fn refuses_all_else(forced: &Target, identity: &Path) {
    let known_hosts = forced.known_hosts.as_ref().unwrap().display();
    let ssh = |words: &[&str]| {
        Program::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
            ])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={known_hosts}"))
            .arg("-i")
            .arg(identity)
            .arg(format!("root@{}", forced.address))
            .args(words)
            .output()
            .unwrap()
    };
    let agent = GATE.split(' ').next().unwrap_or_default();
    let attempts: [&[&str]; 4] = [
        &[],
        &["id"],
        &["cat", "/etc/shadow"],
        &[agent, "work", "a.0.1"],
    ];
    for words in attempts {
        let output = ssh(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("refused"), "{words:?}: {said}");
    }
}

/// The same SSH key without the site's secret: it greets, and that is all.
async fn another_bot(forced: &Target) {
    struct Other;
    impl Secrets for Other {
        fn reveal(&self, _: &str) -> Option<Arc<str>> {
            Some(Arc::from("another site's secret"))
        }
        fn all_values(&self) -> Vec<(String, Arc<str>)> {
            Vec::new()
        }
    }
    let hosts = SshHosts::of([forced.clone()], Arc::new(Other)).unwrap();
    let error = hosts
        .observe(&name("ctl1"), Observe::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, HostError::Refused { why, .. } if why.contains("step-key")),
        "{error:?}"
    );
    hosts.close().await;
}
