//! Step starts a second while very many jobs wait: what a bot does that finds them all unfinished when it starts. The real
//! store on the disk, the real runner and desk; hosts answer at once, in this process. See `cargo lab bench queue`.
//!
//! Arguments: how many jobs wait, one run each. Prints one line of JSON a run.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bot::{
    halt::{Halt, HaltGate},
    jobs::{Ended, JobDesk},
    store::Store,
};
use deploy_engine::{
    job::{Action, Effect, JobEvent, JobId, JobKind, JobResult, Journal, Step, StepId},
    model::{HostName, Model, Secs},
    runner::{Context, NoObserver, OpenGate, Runner},
    transport::{HostError, Hosts, Observe, Observed},
    wire::{Command, Fence, Outcome, Progress, StepKey, StepStatus, Work},
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Jobs that are put into the journal at the same time; not measured.
const CREATING: usize = 64;
const SITE: &str = "site: queue\nssh: {user: root, identity: key, known_hosts: known_hosts}\n\
    hosts:\n  h1: {address: 127.0.0.1}\nservices: {}\n";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for waiting in std::env::args().skip(1) {
        let waiting = waiting.parse().context("expected numbers of jobs")?;
        println!("{}", run(waiting).await?);
    }
    Ok(())
}

async fn run(waiting: u64) -> anyhow::Result<serde_json::Value> {
    let folder = tempfile::tempdir().context("make a folder for the store")?;
    let store = Store::open(&folder.path().join("state")).await?;
    fill(&store, waiting).await?;
    let hosts = Arc::new(AtOnce::default());
    let desk = JobDesk::new(store.clone(), CancellationToken::new());
    desk.set_runner(runner(folder.path(), &store, hosts.clone()).await?);
    let begun = Instant::now();
    let resumed = desk.resume_all().await?;
    ensure!(
        resumed.len() as u64 == waiting,
        "{} jobs wait",
        resumed.len()
    );
    desk.rest().await;
    let all = begun.elapsed();
    for job in &resumed {
        let ended = desk.wait(job).await?;
        ensure!(
            ended == Ended::Finished(JobResult::Succeeded),
            "job {job}: {ended:?}"
        );
    }
    let starts = hosts.starts();
    ensure!(starts.len() as u64 == waiting, "{} starts", starts.len());
    let (first, last) = (starts[0] - begun, starts[starts.len() - 1] - begun);
    store.close().await;
    Ok(json!({
        "waiting": waiting,
        "starts_a_second": waiting as f64 / last.as_secs_f64(),
        "first_start_seconds": first.as_secs_f64(),
        "all_done_seconds": all.as_secs_f64(),
    }))
}

/// Jobs of one step each, every one with a scope of its own, so that none waits for another.
async fn fill(store: &Store, jobs: u64) -> anyhow::Result<()> {
    let create = |number: u64| async move {
        let created = JobEvent::Created {
            kind: JobKind::Deploy {
                plan_digest: format!("{number:064x}"),
            },
            title: format!("step {number}"),
            requested_by: "bench".to_owned(),
            scope: format!("domain:host.h{number}"),
            steps: vec![step()?],
        };
        let id = JobId(format!("q{number:08}"));
        store.create(&id, Timestamp::now(), &created).await?;
        anyhow::Ok(())
    };
    let created = stream::iter(0..jobs).map(create).buffer_unordered(CREATING);
    created.try_collect::<()>().await
}

fn step() -> anyhow::Result<Step> {
    let command = Command {
        argv: vec!["true".to_owned()],
        env: Default::default(),
        stdin: None,
        user: None,
        timeout_seconds: 10,
        output_limit_bytes: 1_000,
    };
    Ok(Step {
        id: StepId(0),
        title: "run true on h1".to_owned(),
        service: None,
        action: Action::Host {
            host: host()?,
            work: Work::Run { command },
        },
        effect: Effect::Converge,
        needs: Vec::new(),
        timeout: Secs(60),
        guards: Vec::new(),
        unless: None,
        undo: None,
    })
}

fn host() -> anyhow::Result<HostName> {
    "h1".parse().map_err(anyhow::Error::msg)
}

/// As the bot makes it, but for the gates of repairs, which ask Prometheus: a halt is asked for before each step.
async fn runner(folder: &Path, store: &Store, hosts: Arc<dyn Hosts>) -> anyhow::Result<Runner> {
    let site = folder.join("site.yaml");
    std::fs::write(&site, SITE)?;
    let model = Model::load(&site, &[]).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let gate = HaltGate {
        halt: Halt::load(store.clone()).await?,
        then: Arc::new(OpenGate),
    };
    Ok(Runner::new(Context::new(
        Arc::new(store.clone()),
        hosts,
        Arc::new(model),
        Arc::new(gate),
        Arc::new(NoObserver),
        "bench:1".to_owned(),
    )))
}

/// Hosts that are done as soon as they are asked, and remember when.
#[derive(Default)]
struct AtOnce {
    starts: Mutex<Vec<Instant>>,
}

impl AtOnce {
    fn starts(&self) -> Vec<Instant> {
        self.starts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl Hosts for AtOnce {
    async fn observe(&self, _: &HostName, _: Observe) -> Result<Observed, HostError> {
        Ok(Observed::default())
    }

    async fn start(
        &self,
        _: &HostName,
        _: StepKey,
        _: Fence,
        _: Work,
        _: Secs,
        _: mpsc::Sender<Progress>,
    ) -> Result<Outcome, HostError> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.push(Instant::now());
        Ok(Outcome::Done {
            changed: Vec::new(),
            output: None,
        })
    }

    async fn ask(&self, _: &HostName, _: &StepKey) -> Result<StepStatus, HostError> {
        Ok(StepStatus::NeverStarted)
    }

    async fn cancel(&self, _: &HostName, _: &StepKey, _: &Fence) -> Result<(), HostError> {
        Ok(())
    }

    async fn forget(&self, _: &HostName, _: &JobId, _: &Fence) -> Result<(), HostError> {
        Ok(())
    }
}
