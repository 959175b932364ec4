//! The way to hosts and the agent on real hosts: real SSH, real systemd, real apt.
#![allow(clippy::unwrap_used)] // helpers of tests: a panic is the failure

mod converge;
mod failures;
mod forced;
mod service;
mod survive;
mod systemd;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deploy_engine::{
    model::{HostName, Secs},
    transport::{HostError, Hosts, Observe, Secrets, SshHosts, Target},
    wire::{
        Command, Fence, Outcome, Progress, Resource, ResourceId, STEP_SECRET, State, StepKey,
        StepStatus, Work,
    },
};
use lab::{Fault, Host, Lab};
use tokio::{sync::mpsc, task::JoinHandle};

const SECRET: &str = "not-for-anybodys-eyes";

struct OneSecret;

impl Secrets for OneSecret {
    fn reveal(&self, name: &str) -> Option<Arc<str>> {
        match name {
            "test.one" => Some(Arc::from(SECRET)),
            STEP_SECRET => Some(Arc::from("what the hosts' keys come from")),
            _ => None,
        }
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

fn fence(token: u64) -> Fence {
    Fence {
        scope: "site:test".into(),
        token,
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
    let key = StepKey(key.into());
    let outcome = hosts
        .start(&name(host), key, fence(token), work, Secs(300), send)
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
