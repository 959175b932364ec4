//! Observing and applying many resources at once.

use super::*;
use lab::in_lab;

const NAMES: [&str; 3] = ["ctl1", "ctl2", "ctl3"];

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

/// All of `resources` on all hosts, asked at the same time.
async fn observe(hosts: &Arc<SshHosts>, resources: &[Resource]) -> Vec<State> {
    let asked = NAMES.map(|host| {
        let (hosts, resources) = (hosts.clone(), resources.to_vec());
        tokio::spawn(async move { states(&hosts, host, &resources).await })
    });
    let mut found = vec![];
    for one in asked {
        found.extend(one.await.unwrap());
    }
    found
}

#[test]
fn forty_resources_on_three_hosts_converge_and_then_stay() {
    in_lab("converge", 3, |lab| {
        in_runtime(|| async {
            let resources = forty();
            let first = all(lab);
            let began = Instant::now();
            first.warm().await;
            println!("login and installation of the agent: {:?}", began.elapsed());
            for host in NAMES {
                let outcome = start(&first, host, "forty.0.1", apply(&resources)).await;
                assert_eq!(changed(&outcome).len(), 29, "{outcome:?}");
            }
            first.close().await;
            for _ in 0..3 {
                let hosts = all(lab);
                for what in ["cold", "warm", "warm"] {
                    let began = Instant::now();
                    let found = observe(&hosts, &resources).await;
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
