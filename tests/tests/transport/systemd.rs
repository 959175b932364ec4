//! What the agent hears over systemd's own socket is what `systemctl` shows.

use std::collections::BTreeMap;

use super::*;
use deploy_engine::wire::{Probe, ProbeResult};
use lab::in_lab;

type Words = BTreeMap<String, String>;

const UNITS: [&str; 6] = [
    "cron.service",
    "systemd-journald.service",
    "getty@tty1.service",
    "apt-daily.timer",
    "systemd-journald.socket",
    "no-such-thing.service",
];

#[test]
fn units_are_as_systemctl_shows_them() {
    in_lab("systemd", 1, |lab| {
        in_runtime(|| async {
            let hosts = all(lab);
            let heard = heard(&hosts).await;
            for name in UNITS {
                let heard = &heard[name];
                let properties = heard.keys().map(String::as_str).collect::<Vec<_>>();
                assert_eq!(*heard, shown(lab, name, &properties.join(",")), "{name}");
            }
            assert_eq!(heard["cron.service"]["ActiveState"], "active");
            assert_eq!(heard["no-such-thing.service"]["LoadState"], "not-found");
            without_systemctl(lab, &hosts).await;
            hosts.close().await;
        });
    });
}

async fn heard(hosts: &SshHosts) -> BTreeMap<String, Words> {
    let names = UNITS.map(str::to_owned).into();
    let ask = Observe {
        probes: [("units".to_owned(), Probe::Units { names })].into(),
        ..Observe::default()
    };
    let mut observed = hosts.observe(&name("ctl1"), ask).await.unwrap();
    match observed.probes.remove("units") {
        Some(ProbeResult::Units { properties }) => properties,
        other => panic!("expected units, found {other:?}"),
    }
}

fn shown(lab: &Lab, unit: &str, properties: &str) -> Words {
    let properties = format!("--property={properties}");
    let text = lab.ssh_ok("ctl1", &["systemctl", "show", &properties, "--", unit]);
    let text = text.unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// No program answered for it.
async fn without_systemctl(lab: &Lab, hosts: &SshHosts) {
    let (program, away) = ("/usr/bin/systemctl", "/usr/bin/systemctl.away");
    lab.ssh_ok("ctl1", &["mv", program, away]).unwrap();
    let found = heard(hosts).await;
    lab.ssh_ok("ctl1", &["mv", away, program]).unwrap();
    assert_eq!(found["cron.service"]["LoadState"], "loaded");
}
