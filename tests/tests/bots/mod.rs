//! Bots in this process: each in a runtime of its own, so that one can be killed without the others.

mod batches;
mod life;
mod loopback;
mod paper;
mod webhook;
mod wire;
mod world;

use std::{sync::Arc, time::Duration};

use bot::{
    chat::{Room, Subject, office::Office},
    config::Secret,
    jobs::{NewJob, new_job_id},
    replicas::Lead,
    store::{MessageKey, PostgresStore, Store, StoreError},
    wording::{Message, Severity},
};
use deploy_engine::{
    job::{Action, Effect, JobId, JobKind, JobResult, Journal, JournalError, Lease, Step, StepId},
    model::Secs,
    transport::Hosts,
    wire::{Command, Work},
};
use lab::postgres::Postgres;
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

use life::{Life, Lives, live};
use paper::Paper;
pub use webhook::{parcels, post_webhook};
pub use wire::Wire;
pub use world::World;

const LIMIT: Duration = Duration::from_secs(60);

/// A server for all databases of one test.
pub struct Bench {
    pub postgres: Postgres,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            postgres: Postgres::start().unwrap(),
        }
    }

    /// A new world and a new database.
    pub fn fresh(&self) -> (Arc<World>, String) {
        let number = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let name = format!("bots{number}");
        self.postgres.database(&name).unwrap();
        (Arc::new(World::default()), name)
    }
}

/// How a bot reaches the store.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Straight,
    /// Through a wire that can be cut.
    Wire,
}

/// One bot, without chats and sources.
pub struct InProcess {
    runtime: Runtime,
    pub store: Store,
    pub office: Office,
    pub paper: Arc<Paper>,
    lives: watch::Receiver<Lives>,
    stop: CancellationToken,
    wire: Option<Wire>,
}

impl InProcess {
    pub fn start(bench: &Bench, database: &str, world: &Arc<World>, way: Way) -> Self {
        Self::start_on(bench, database, world.clone(), way)
    }

    pub fn start_on(bench: &Bench, database: &str, hosts: Arc<dyn Hosts>, way: Way) -> Self {
        let wire = (way == Way::Wire).then(|| Wire::to(bench.postgres.port()));
        let port = wire.as_ref().map_or(bench.postgres.port(), Wire::port);
        let address = PostgresStore {
            url: bench.postgres.url_through(port, database),
            password: Some(Secret::new(bench.postgres.password())),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let replica = format!("bot:{}", &new_job_id().0[20..]);
        let opening = Store::open_shared(&address, &replica);
        let store = runtime.block_on(opening).unwrap();
        let stop = CancellationToken::new();
        let (send, mut lives) = watch::channel(Lives::default());
        runtime.spawn(live(store.clone(), hosts, send, stop.clone()));
        let first = async { drop(lives.wait_for(|lives| lives.now.is_some()).await.unwrap()) };
        runtime.block_on(first);
        let paper = Arc::new(Paper::default());
        let office = Office::new(store.clone(), vec![paper.clone()]);
        Self {
            runtime,
            store,
            office,
            paper,
            lives,
            stop,
            wire,
        }
    }

    fn life(&self) -> Life {
        self.lives.borrow().now.clone().unwrap()
    }

    pub fn lead(&self) -> Lead {
        self.life().lead
    }

    pub fn on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn within<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(LIMIT, future).await };
        self.on(limited).unwrap()
    }

    pub fn until_leading(&self) {
        self.within(self.lead().until_leading());
    }

    /// Waits until it has begun anew; says why it did so first.
    pub fn until_over(&self) -> String {
        let mut lives = self.lives.clone();
        let over = async { lives.wait_for(|lives| !lives.over.is_empty()).await };
        self.within(async { over.await.unwrap().over[0].clone() })
    }

    /// Why it began anew, each time.
    pub fn over(&self) -> Vec<String> {
        self.lives.borrow().over.clone()
    }

    /// As `kill -9`: nothing is told to anybody.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// As SIGTERM.
    pub fn leave(self) {
        self.stop.cancel();
        let mut lives = self.lives.clone();
        self.within(async { while lives.changed().await.is_ok() {} });
        self.on(self.store.leave()).unwrap();
        self.runtime.shutdown_background();
    }

    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().unwrap()
    }

    /// Two steps on one host, the first of which takes as long as the test wants.
    pub fn start_job(&self) -> JobId {
        self.try_start_job().unwrap()
    }

    pub fn try_start_job(&self) -> Result<JobId, JournalError> {
        self.start_steps(vec![
            step(0, "h1", &["slow"], &[]),
            step(1, "h1", &["fast"], &[0]),
        ])
    }

    pub fn cancel(&self, job: &JobId) {
        self.on(self.life().desk.cancel(job, "alice")).unwrap();
    }

    /// Is that in its journal?
    pub fn is_cancelled(&self, job: &JobId) -> bool {
        let state = self.on(self.life().desk.state(job)).unwrap();
        state.job().is_some_and(|job| job.cancelled_by.is_some())
    }

    fn start_steps(&self, steps: Vec<Step>) -> Result<JobId, JournalError> {
        let new = NewJob {
            id: new_job_id(),
            kind: JobKind::Deploy {
                plan_digest: "d1".into(),
            },
            title: "deploy".into(),
            requested_by: "alice".into(),
            scope: "site:bots".into(),
            steps,
        };
        self.on(self.life().desk.start(new, &[]))
    }

    pub fn lease(&self, job: &JobId) -> Lease {
        let leases = self.on(self.store.leases()).unwrap();
        let of_job = leases.into_iter().find(|one| one.lease.job == *job);
        of_job.unwrap().lease
    }

    pub fn length(&self, job: &JobId) -> u64 {
        self.on(self.store.load(job)).unwrap().len() as u64
    }

    pub fn until_finished(&self, job: &JobId) -> JobResult {
        lab::wait::until("the end of the job", LIMIT, || {
            let job = self.on(self.store.job(job)).map_err(|e| e.to_string())?;
            job.and_then(|job| job.result).ok_or("it runs".to_owned())
        })
        .unwrap()
    }

    pub fn rooms(&self) -> Vec<Room> {
        vec!["paper:r".parse().unwrap()]
    }

    pub fn say(&self, subject: &str, title: &str) -> Result<(), StoreError> {
        let message = Message::new(Severity::Info, title);
        let subject = Subject(subject.to_owned());
        self.on(self.office.say(&self.rooms(), &subject, &message))
    }

    /// The same words about many subjects, at the same moment.
    pub fn say_all(&self, subjects: impl Iterator<Item = String>) -> Vec<Result<(), StoreError>> {
        let (message, rooms) = (Message::new(Severity::Info, "words"), self.rooms());
        let subjects: Vec<Subject> = subjects.map(Subject).collect();
        let said = subjects
            .iter()
            .map(|subject| self.office.say(&rooms, subject, &message));
        self.on(futures::future::join_all(said))
    }

    /// The title of what should be shown for a subject.
    pub fn wanted(&self, subject: &str) -> Option<String> {
        let key = MessageKey {
            room: "paper:r".into(),
            subject: subject.into(),
        };
        let message = self.on(self.store.message(&key)).unwrap()?;
        Some(message.body["message"]["title"].as_str()?.to_owned())
    }
}

/// One program on one host.
pub fn step(number: u32, host: &str, argv: &[&str], needs: &[u32]) -> Step {
    Step {
        id: StepId(number),
        title: argv.join(" "),
        service: None,
        action: Action::Host {
            host: host.parse().unwrap(),
            work: Work::Run {
                command: Command {
                    argv: argv.iter().map(|&word| word.to_owned()).collect(),
                    env: Default::default(),
                    stdin: None,
                    user: None,
                    timeout_seconds: 600,
                    output_limit_bytes: 1_024,
                },
            },
        },
        // Must not happen twice.
        effect: Effect::Once,
        needs: needs.iter().map(|&need| StepId(need)).collect(),
        timeout: Secs(600),
        guards: vec![],
        unless: None,
        undo: None,
    }
}
