//! What happens to work when its connection, or its host, goes.

use super::*;
use lab::{Mend, in_lab, wait};

/// A connection comes back within seconds.
const BACK: Duration = Duration::from_secs(30);

#[test]
fn work_survives_what_happens_to_its_connection_and_a_power_cut_is_told() {
    in_lab("survive", 2, |lab| {
        in_runtime(|| async {
            let hosts = all(lab);
            lost_connections(lab, &hosts).await;
            power_cut(lab, &hosts).await;
            cancelled_and_fenced(&hosts).await;
            hosts.close().await;
        });
    });
}

async fn lost_connections(lab: &Lab, hosts: &Arc<SshHosts>) {
    // Ends when this test says so: not before everything below was done to it.
    let script = "until [ -e /run/through ]; do sleep 0.1; done; echo through";
    let work = in_background(hosts, "ctl1", "cut.0.1", run(&["sh", "-c", script]));
    until_running(hosts, "ctl1", "cut.0.1").await;
    let before = serving(lab);
    lab.ssh_ok("ctl1", &["pkill", "-9", "-f", "nightshift-agent serve"])
        .unwrap();
    wait::until("another connection", BACK, || {
        let now = serving(lab);
        let is_new = !now.is_empty() && now.iter().all(|pid| !before.contains(pid));
        is_new
            .then_some(())
            .ok_or(format!("{now:?} after {before:?}"))
    })
    .unwrap();
    // Every SSH session of the host; the one that asks for it ends as well.
    let _ = lab.ssh("ctl1", &["pkill", "-9", "-f", "sshd: root"]);
    lab.ssh_ok("ctl1", &["touch", "/run/through"]).unwrap();
    let outcome = work.await.unwrap();
    let Ok(Outcome::Done {
        output: Some(output),
        ..
    }) = &outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(output.stdout, "through\n");
}

/// Processes that serve a connection on ctl1.
fn serving(lab: &Lab) -> Vec<String> {
    let found = lab.ssh("ctl1", &["pgrep", "-f", "nightshift-agent serve"]);
    let found = found.unwrap().stdout;
    found.lines().map(str::to_owned).collect()
}

async fn power_cut(lab: &Lab, hosts: &Arc<SshHosts>) {
    let script = "touch /run/began; sleep 60";
    let work = in_background(hosts, "ctl2", "cut.1.1", run(&["sh", "-c", script]));
    // It acts when its start is on the disk; before that a power cut leaves no record, and nothing was done.
    wait::until("the command on ctl2", BACK, || {
        let there = lab.ssh("ctl2", &["test", "-e", "/run/began"]);
        let there = there.map_err(|error| error.to_string())?;
        there
            .status
            .success()
            .then_some(())
            .ok_or("not yet".to_owned())
    })
    .unwrap();
    lab.fault(&"power-cut ctl2".parse::<Fault>().unwrap())
        .unwrap();
    lab.mend(&Mend::All).unwrap();
    let outcome = work.await.unwrap();
    assert!(matches!(&outcome, Ok(Outcome::Lost { .. })), "{outcome:?}");
}

async fn cancelled_and_fenced(hosts: &Arc<SshHosts>) {
    let cancelled = in_background(hosts, "ctl1", "cut.2.1", run(&["sleep", "60"]));
    until_running(hosts, "ctl1", "cut.2.1").await;
    hosts
        .cancel(&name("ctl1"), &StepKey("cut.2.1".into()), &fence(1))
        .await
        .unwrap();
    assert!(matches!(cancelled.await.unwrap(), Ok(Outcome::Cancelled)));

    let (newer, _) = start_fenced(hosts, "ctl1", "cut.3.1", run(&["true"]), 9).await;
    assert!(matches!(newer, Ok(Outcome::Done { .. })), "{newer:?}");
    let (older, _) = start_fenced(hosts, "ctl1", "cut.4.1", run(&["true"]), 8).await;
    assert!(
        matches!(older, Ok(Outcome::Fenced { seen: 9 })),
        "{older:?}"
    );
}
