//! A service through its life on one host.

use super::*;
use lab::in_lab;

const UNIT: &str = "memcached.service";
const CONFIG: &str = "/etc/memcached.conf";

#[test]
fn a_service_is_installed_without_starting_configured_started_and_removed() {
    in_lab("service", 1, |lab| {
        in_runtime(|| async {
            let hosts = all(lab);
            installed(lab, &hosts).await;
            configured(lab, &hosts).await;
            broken(&hosts).await;
            removed(lab, &hosts).await;
            missing(&hosts).await;
            hosts.close().await;
        });
    });
}

fn configuration(size: &str) -> Resource {
    let text = format!("-m {size}\n-p 11211\n-u memcache\n-l 127.0.0.1\n");
    file(CONFIG, &text)
}

fn wanted(size: &str) -> [Resource; 3] {
    [
        package("memcached", false),
        configuration(size),
        unit(UNIT, true, &[CONFIG]),
    ]
}

fn exists(lab: &Lab, path: &str) -> bool {
    let found = lab.ssh("ctl1", &["test", "-e", path]).unwrap();
    found.status.success()
}

async fn installed(lab: &Lab, hosts: &SshHosts) {
    let planned = states(hosts, "ctl1", &wanted("64")).await;
    let all_change = planned
        .iter()
        .all(|s| matches!(s, State::WillChange { .. }));
    assert!(all_change, "{planned:?}");

    let only_package = apply(&[package("memcached", false)]);
    let (outcome, progress) = start_fenced(hosts, "ctl1", "svc.0.1", only_package, 1).await;
    assert_eq!(changed(&outcome).len(), 1);
    let advances = progress
        .iter()
        .filter(|p| matches!(p, Progress::Advance { .. }));
    assert!(advances.count() > 2, "{progress:?}");
    let active = lab.ssh("ctl1", &["systemctl", "is-active", UNIT]).unwrap();
    assert_eq!(
        active.stdout.trim(),
        "inactive",
        "installing must not start services"
    );
    assert!(
        !exists(lab, "/usr/sbin/policy-rc.d"),
        "our policy-rc.d stays behind"
    );
}

async fn configured(lab: &Lab, hosts: &SshHosts) {
    let outcome = start(hosts, "ctl1", "svc.1.1", apply(&wanted("64"))).await;
    assert_eq!(changed(&outcome).len(), 2, "{outcome:?}");
    assert_eq!(
        states(hosts, "ctl1", &wanted("64")).await,
        vec![State::Same; 3]
    );

    // A change of the file restarts the unit, also if the step that should do it never came.
    let outcome = start(hosts, "ctl1", "svc.2.1", apply(&[configuration("65")])).await;
    assert_eq!(changed(&outcome).len(), 1);
    let found = states(hosts, "ctl1", &wanted("65")).await;
    assert!(
        matches!(&found[2], State::WillChange { diff } if diff[0].starts_with("restart")),
        "{found:?}"
    );
    start(hosts, "ctl1", "svc.3.1", apply(&wanted("65")))
        .await
        .unwrap();
    let line = lab.ssh_ok("ctl1", &["pgrep", "-a", "memcached"]).unwrap();
    assert!(line.contains("-m 65"), "{line}");
    assert_eq!(
        states(hosts, "ctl1", &wanted("65")).await,
        vec![State::Same; 3]
    );
}

/// A unit that fails says why.
async fn broken(hosts: &SshHosts) {
    let broken = [
        file(CONFIG, "--no-such-option\n"),
        unit(UNIT, true, &[CONFIG]),
    ];
    let outcome = start(hosts, "ctl1", "svc.4.1", apply(&broken)).await;
    let Ok(Outcome::Failed { what, .. }) = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(what.contains("no-such-option"), "{what}");
}

async fn removed(lab: &Lab, hosts: &SshHosts) {
    let gone = [unit(UNIT, false, &[]), package("memcached", true)];
    start(hosts, "ctl1", "svc.5.1", apply(&gone)).await.unwrap();
    assert_eq!(states(hosts, "ctl1", &gone).await, vec![State::Same; 2]);
    assert!(!exists(lab, CONFIG), "purging must take the configuration");
}

async fn missing(hosts: &SshHosts) {
    let found = states(hosts, "ctl1", &[package("no-such-package", false)]).await;
    assert!(
        matches!(&found[0], State::Cannot { why } if why.contains("no-such-package")),
        "{found:?}"
    );
}
