//! Bots in this process: each in a runtime of its own, so that one can be killed without the others.

mod batches;
mod loopback;
mod paper;
mod wire;
mod world;

use std::{sync::Arc, time::Duration};

use bot::{
    audit::Redactor,
    chat::{Room, Subject, office::Office},
    config::Secret,
    halt::Halt,
    jobs::{JobDesk, NewJob, new_job_id},
    replicas::{DutyGate, Lead, Member},
    store::{MessageKey, Parcel, PostgresStore, Store, StoreError},
    web,
    wording::{Message, Severity},
};
use collectors::{Alert, Change};
use deploy_engine::{
    job::{
        Action, Effect, JobEvent, JobId, JobKind, JobResult, JobState, Journal, JournalError,
        Lease, Step, StepId, share_out,
    },
    model::{HostName, Secs, ServiceName},
    probe::{ProbeContext, ProbeSite},
    runner::{Context, NoObserver, OpenGate, Runner},
    transport::Hosts,
    wire::{Command, Work},
};
use lab::postgres::Postgres;
use tokio::{runtime::Runtime, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use paper::Paper;
pub use wire::Wire;
pub use world::World;

const WEBHOOK: &str = include_str!("../../../collectors/src/testdata/webhook-watchdog.json");
/// What all bots of these tests have read.
const MODEL: &str = "m";
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

/// One life of a bot: as `serve`, it begins anew when it lost the lead or the store.
#[derive(Clone)]
struct Life {
    lead: Lead,
    desk: JobDesk,
}

#[derive(Default)]
struct Lives {
    /// None until the first has begun.
    now: Option<Life>,
    /// Why the ones before ended.
    over: Vec<String>,
}

struct NoSite;

impl ProbeSite for NoSite {
    fn context(&self, _: Option<&ServiceName>, _: &HostName) -> Result<ProbeContext<'_>, String> {
        Err("there is no site".to_owned())
    }
}

/// Begins a life, in tasks that end when it is stopped.
async fn begin(
    store: &Store,
    hosts: &Arc<dyn Hosts>,
    parts: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Life, StoreError> {
    let halt = Halt::load(store.clone()).await?;
    let (lead, desk) = (Lead::stand_by(), JobDesk::new(store.clone(), stop.clone()));
    let gate = DutyGate {
        lead: lead.clone(),
        halt: halt.clone(),
        then: Arc::new(OpenGate),
    };
    desk.set_runner(Runner::new(Context::new(
        Arc::new(store.clone()),
        hosts.clone(),
        Arc::new(NoSite),
        Arc::new(gate),
        Arc::new(NoObserver),
        store.replica().to_owned(),
    )));
    let member = Member {
        store: store.clone(),
        lead: lead.clone(),
        halt,
        desk: desk.clone(),
        model: MODEL.to_owned(),
        before: None,
    };
    member.begin(parts, stop);
    let life = Life { lead, desk };
    let (on_duty, token) = (life.clone(), stop.clone());
    parts.spawn(async move {
        let duty = async {
            on_duty.lead.until_leading().await;
            // A store that is away again ends this life as well.
            let _ = on_duty.desk.resume_all().await;
        };
        token.run_until_cancelled(duty).await;
    });
    Ok(life)
}

/// One life after another until told to stop, as `serve` does it.
async fn live(
    store: Store,
    hosts: Arc<dyn Hosts>,
    lives: watch::Sender<Lives>,
    stop: CancellationToken,
) {
    loop {
        let (mut parts, token) = (JoinSet::new(), stop.child_token());
        let life = match begin(&store, &hosts, &mut parts, &token).await {
            Ok(life) => life,
            Err(_) => {
                // As the unit does it.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        lives.send_modify(|lives| lives.now = Some(life.clone()));
        let over = stop.run_until_cancelled(life.lead.until_over()).await;
        token.cancel();
        life.desk.rest().await;
        while parts.join_next().await.is_some() {}
        let Some(why) = over else { return };
        lives.send_modify(|lives| lives.over.push(why));
    }
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

    /// A job over many hosts, as a deploy makes it.
    pub fn start_shared(&self, steps: Vec<Step>) -> JobId {
        self.start_steps(share_out(steps, MODEL)).unwrap()
    }

    pub fn cancel(&self, job: &JobId) {
        self.on(self.life().desk.cancel(job, "alice")).unwrap();
    }

    /// Is that in its journal?
    pub fn is_cancelled(&self, job: &JobId) -> bool {
        let state = self.on(self.life().desk.state(job)).unwrap();
        state.job().is_some_and(|job| job.cancelled_by.is_some())
    }

    /// The batches of a job, in their order.
    pub fn batches(&self, job: &JobId) -> Vec<Batch> {
        let load = async {
            let mut batches = Vec::new();
            for (id, driver) in self.store.batches_of(job).await.unwrap() {
                let events = self.store.load(&id).await.unwrap();
                let leases = events.iter().filter_map(|(_, event)| match event {
                    JobEvent::Leased { holder, token } => Some((holder.clone(), *token)),
                    _ => None,
                });
                batches.push(Batch {
                    leases: leases.collect(),
                    result: JobState::fold(&events).unwrap().result().cloned(),
                    driver,
                    id,
                });
            }
            batches
        };
        self.on(load)
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

/// One batch, as the store has it.
#[derive(Debug)]
pub struct Batch {
    pub id: JobId,
    /// Empty: it waits.
    pub driver: String,
    /// Who drove it, one after another, each with its token.
    pub leases: Vec<(String, u64)>,
    pub result: Option<JobResult>,
}

impl Batch {
    /// Who drove it, one after another; a bot that took it up again after a moment without the store counts once.
    pub fn drivers(&self) -> Vec<&str> {
        let mut drivers: Vec<&str> = self.leases.iter().map(|(bot, _)| &**bot).collect();
        drivers.dedup();
        drivers
    }

    /// In its job, from 0.
    pub fn number(&self) -> usize {
        let (_, number) = self.id.0.rsplit_once('x').unwrap();
        number.parse().unwrap()
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

/// One webhook to a bot's own server. Its status.
pub async fn post_webhook(store: &Store) -> u16 {
    let door = web::Door {
        tokens: web::Tokens::new(&[("am".to_owned(), Secret::new("secret"))]),
        signers: web::Signers::new(&[]),
        certified: false,
        pace: web::WebPace::new(100),
        redactor: Redactor::default(),
    };
    let (web, committing) = web::Web::new(store.clone(), door, Arc::default(), Arc::default());
    tokio::spawn(committing);
    let listener = web::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let url = format!("http://{}/v1/alertmanager", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(web::serve(listener, None, web, stop.clone()));
    let request = reqwest::Client::new().post(url).bearer_auth("secret");
    let response = request.body(WEBHOOK).send().await.unwrap();
    stop.cancel();
    serving.await.unwrap().unwrap();
    response.status().as_u16()
}

/// What is in parcels.
pub fn parcels(parcels: &[Parcel]) -> Vec<(Alert, Change)> {
    let batch = |parcel: &Parcel| -> Vec<(Alert, Change)> {
        serde_json::from_value(parcel.body.clone()).unwrap()
    };
    parcels.iter().flat_map(batch).collect()
}
