//! Putting the bot together from its configuration: the same for `serve` and for commands without a running bot.

use std::{path::Path, sync::Arc};

use collectors::logs::Signatures;
use deploy_engine::{
    model::Model,
    runner::{Context, HostEvidence, JobObserver, Runner, StepGate, SystemClock},
    secrets::SecretStore,
    transport::{Hosts, Secrets, SshHosts},
};
use futures::future::BoxFuture;
use runbooks::{
    healer::{HealGate, Healer, Ports, Vitals},
    library::Library,
    topology::Topology,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::Redactor,
    bot::Bot,
    chat::{ChatAdapter, office::Office},
    command::Vocabulary,
    config::{FilesRead, Loaded, Secret, SigningKey, TokenSource},
    control,
    halt::{Halt, HaltGate},
    heal::{self, BotRecords, DeskJobs, HealObserver, News, Senses},
    jobs::{self, JobDesk},
    lock::InstanceLock,
    logs::LogStores,
    pace::CommandPace,
    replicas::{self, DutyGate, Lead},
    rights::{Identity, People},
    sources::{self, Icinga2Settings},
    store::Store,
    web,
};

/// Folder of the site's secrets in the state directory.
const SECRETS: &str = "secrets";

/// Everything that can be had before anything acts.
pub struct Ground {
    pub loaded: Loaded,
    pub model: Arc<Model>,
    pub library: Arc<Library>,
    pub signatures: Arc<Signatures>,
    pub store: Store,
    pub secrets: Arc<SecretStore>,
    pub files: FilesRead,
    pub icinga2: Vec<Icinga2Settings>,
    /// Knows every secret that this bot knows.
    pub redactor: Redactor,
    /// Whoever runs this process.
    pub owner: Identity,
    /// The bot that had this state directory before, if bots share their store.
    pub before: Option<String>,
    _lock: InstanceLock,
}

/// Reads all files, takes the state directory for itself and opens the store.
///
/// # Errors
/// What is wrong, for people.
pub async fn ground(config: &Path) -> Result<Ground, String> {
    let loaded = crate::config::load(config).map_err(|errors| errors.to_string())?;
    let files = FilesRead::before(config, &loaded.config);
    let model = Model::load(&loaded.config.site, &loaded.config.service_dirs)
        .map_err(|errors| errors.to_string())?;
    let library =
        Library::load(&loaded.config.runbook_dirs).map_err(|errors| errors.to_string())?;
    let signatures = runbooks::signatures::load(&loaded.config.signature_dirs)
        .map_err(|errors| errors.to_string())?;
    let automation = heal::heal_settings(&loaded.config.automation).check(&library);
    let automation = automation.iter().map(|why| format!("automation: {why}"));
    let tokens = crate::config::check_site_tokens(&loaded.config, &model.secret_names());
    let access = crate::config::check_access(&loaded.config, &model, &library);
    let services = model.services.keys().map(|name| name.as_str()).collect();
    let needs = crate::config::check_bot_needs(&loaded.config, &services);
    let wrong: Vec<String> = automation
        .chain(tokens)
        .chain(access)
        .chain(needs)
        .collect();
    if !wrong.is_empty() {
        return Err(format!("{}: {}", config.display(), wrong.join("; ")));
    }
    let dir = &loaded.config.state_dir;
    make_dir(dir).map_err(|error| format!("state_dir {}: {error}", dir.display()))?;
    let lock = InstanceLock::take(dir).map_err(|error| error.to_string())?;
    let (store, before) = store(&loaded, dir).await?;
    let owner = Identity::unix(&control::own_user_name());
    let secrets = secrets(dir, &model)?;
    if store.is_shared() {
        let names = model.secret_names();
        let values = names.iter().filter_map(|name| {
            let value = secrets.reveal(name)?;
            Some((name.as_str(), value.to_string()))
        });
        replicas::same_secrets(&store, values).await?;
    }
    let mut loaded = loaded;
    for (source, name) in std::mem::take(&mut loaded.site_tokens) {
        // Every name was checked above, and is generated with the others.
        if let Some(token) = secrets.reveal(&name) {
            loaded
                .webhook_tokens
                .push((source, Secret::new(token.to_string())));
        }
    }
    for (source, name, window_seconds) in std::mem::take(&mut loaded.site_keys) {
        if let Some(key) = secrets.reveal(&name) {
            let secret = Secret::new(key.to_string());
            let key = SigningKey {
                secret,
                window_seconds,
            };
            loaded.signing_keys.push((source, key));
        }
    }
    for (store, access) in loaded
        .config
        .sources
        .elasticsearch
        .iter()
        .zip(&mut loaded.logs)
    {
        if let Some((_, TokenSource::Site(name))) = store.secret() {
            let secret = secrets.reveal(name);
            access.secret = secret.map(|secret| Secret::new(secret.to_string()));
        }
    }
    let icinga2 = sources::icinga2_settings(&loaded, &secrets, &model)?;
    Ok(Ground {
        redactor: redactor(&loaded, &icinga2, &secrets)?,
        icinga2,
        secrets: Arc::new(secrets),
        files,
        loaded,
        model: Arc::new(model),
        library: Arc::new(library),
        signatures: Arc::new(signatures),
        store,
        owner,
        before,
        _lock: lock,
    })
}

/// The store that the configuration names, as a bot of its own; and the bot that had the state directory before.
async fn store(loaded: &Loaded, dir: &Path) -> Result<(Store, Option<String>), String> {
    let Some(shared) = &loaded.shared_store else {
        let store = Store::open(dir).await.map_err(|error| error.to_string())?;
        return Ok((store, None));
    };
    let named = replicas::identify(dir);
    let named = named.map_err(|error| format!("state_dir {}: {error}", dir.display()))?;
    let store = Store::open_shared(shared, &named.id).await;
    Ok((store.map_err(|error| error.to_string())?, named.before))
}

fn redactor(
    loaded: &Loaded,
    icinga2: &[Icinga2Settings],
    secrets: &SecretStore,
) -> Result<Redactor, String> {
    let named = |what: &'static str| {
        move |(source, secret): &(String, Secret)| (format!("{what} {source}"), secret.clone())
    };
    let tokens = loaded.webhook_tokens.iter().map(named("webhook"));
    let keys = loaded
        .signing_keys
        .iter()
        .map(|(source, key)| (format!("signature {source}"), key.secret.clone()));
    let password = loaded.matrix_password.iter();
    let password = password.map(|secret| ("matrix password".to_owned(), secret.clone()));
    let tls = loaded
        .tls_key
        .iter()
        .map(|secret| ("tls key".to_owned(), secret.clone()));
    let heart = loaded.heartbeat.iter();
    let heart = heart.map(|(url, _)| ("heartbeat".to_owned(), url.clone()));
    let shared = loaded.shared_store.iter();
    let shared = shared.flat_map(|store| store.password.clone());
    let shared = shared.map(|secret| ("store password".to_owned(), secret));
    let own = tokens.chain(keys).chain(password).chain(tls).chain(heart);
    let icinga2 = icinga2.iter();
    let icinga2 = icinga2.map(|one| (format!("password {}", one.name), one.password.clone()));
    let logs = loaded.config.sources.elasticsearch.iter().zip(&loaded.logs);
    let logs = logs.filter_map(|(store, access)| {
        let name = format!("store of logs {}", store.name);
        Some((name, access.secret.clone()?))
    });
    let own: Vec<_> = own.chain(shared).chain(icinga2).chain(logs).collect();
    Redactor::new(secrets, &own)
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
}

/// The bot, and what has to run beside it.
pub struct Assembled {
    pub bot: Arc<Bot>,
    /// Tells of jobs; to be spawned.
    pub telling: BoxFuture<'static, ()>,
    /// Not running yet; its gate is in place, so repairs of earlier runs are gated from the start.
    pub healer: Healer,
    pub news: mpsc::Receiver<runbooks::healer::News>,
}

/// Connects everything. Nothing acts yet.
pub async fn assemble(
    ground: &Ground,
    adapters: Vec<Arc<dyn ChatAdapter>>,
    figures: Arc<web::Figures>,
    lead: Lead,
    stop: CancellationToken,
) -> Result<Assembled, String> {
    let config = ground.loaded.config.clone();
    let (model, store) = (ground.model.clone(), ground.store.clone());
    let hosts = SshHosts::new(&model, ground.secrets.clone()).map_err(|error| error.to_string())?;
    let hosts: Arc<dyn Hosts> = Arc::new(hosts);
    let halt = Halt::load(store.clone())
        .await
        .map_err(|error| error.to_string())?;
    let office = Office::new(store.clone(), adapters).redacting(ground.redactor.clone());
    let desk = JobDesk::new(store.clone(), stop);
    let (observer, telling) = jobs::projection(store.clone(), office.clone());
    let (tell, news) = News::new();
    let source = |error: collectors::SourceError| format!("sources: {error}");
    let icinga2 = ground.icinga2.iter().map(sources::icinga2_client);
    let icinga2: Vec<_> = icinga2.collect::<Result<_, _>>()?;
    let ports = Ports {
        records: Arc::new(BotRecords {
            store: store.clone(),
            halt: halt.clone(),
        }),
        evidence: Arc::new(HostEvidence::new(hosts.clone(), model.clone())),
        hosts: hosts.clone(),
        journal: Arc::new(store.clone()),
        metrics: heal::metrics(&config.sources, icinga2.clone()).map_err(source)?,
        silences: heal::silences(&config.sources, icinga2.clone()).map_err(source)?,
        tell: Arc::new(tell),
        clock: Arc::new(SystemClock),
        vitals: Arc::new(Vitals::default()),
    };
    let senses = Arc::new(Senses::new(&config.sources, icinga2, figures).map_err(source)?);
    let mut bot = Bot {
        vocabulary: vocabulary(&model, &ground.library),
        healing: Arc::new(heal::heal_settings_on(&config, &model)),
        people: People::new(config.people.clone(), Some(ground.owner.clone()))
            .with_access(config.access.clone()),
        config,
        files: ground.files.clone(),
        model: model.clone(),
        hosts: hosts.clone(),
        store: store.clone(),
        office,
        jobs: desk.clone(),
        told: observer.clone(),
        halt: halt.clone(),
        lead,
        library: ground.library.clone(),
        ear: heal::Ear::default(),
        senses,
        care: Arc::default(),
        logs: LogStores::new(&ground.loaded, ground.signatures.clone()).map_err(source)?,
        strangers: Default::default(),
        redactor: ground.redactor.clone(),
        pace: CommandPace::default(),
    };
    let healer = healer(&mut bot, &ports);
    let observer = HealObserver {
        ear: bot.ear.clone(),
        then: observer,
    };
    desk.set_runner(runner(&bot, ports, Arc::new(observer)));
    Ok(Assembled {
        bot: Arc::new(bot),
        telling: Box::pin(telling),
        healer,
        news,
    })
}

/// The site's secrets, all of them there.
fn secrets(state_dir: &Path, model: &Model) -> Result<SecretStore, String> {
    let secrets = SecretStore::open(&state_dir.join(SECRETS)).map_err(|e| e.to_string())?;
    let names = model.secret_names();
    secrets
        .ensure(names.iter().map(String::as_str))
        .map_err(|error| error.to_string())?;
    Ok(secrets)
}

fn healer(bot: &mut Bot, ports: &Ports) -> Healer {
    let jobs = DeskJobs {
        desk: bot.jobs.clone(),
        store: bot.store.clone(),
        rooms: bot.team_rooms(),
    };
    let settings = bot.healing.clone();
    let topology = Arc::new(Topology::from(&*bot.model));
    let library = bot.library.clone();
    let (healer, handle) = Healer::new(ports.clone(), Arc::new(jobs), settings, topology, library);
    bot.ear.get_or_init(|| handle);
    healer
}

fn runner(bot: &Bot, ports: Ports, observer: Arc<dyn JobObserver>) -> Runner {
    let settings = bot.healing.clone();
    let topology = Arc::new(Topology::from(&*bot.model));
    let evidence = ports.evidence.clone();
    let repairs = HealGate::new(ports, settings, topology, bot.library.clone());
    let gate: Arc<dyn StepGate> = Arc::new(DutyGate {
        lead: bot.lead.clone(),
        halt: bot.halt.clone(),
        then: Arc::new(HaltGate {
            halt: bot.halt.clone(),
            then: Arc::new(repairs),
        }),
    });
    let context = Context::new(
        Arc::new(bot.store.clone()),
        bot.hosts.clone(),
        bot.model.clone(),
        gate,
        observer,
        holder(&bot.store),
    );
    Runner::new(context.with_evidence(evidence))
}

fn vocabulary(model: &Model, library: &Library) -> Vocabulary {
    Vocabulary {
        services: model.services.keys().cloned().collect(),
        hosts: model.site.hosts.keys().cloned().collect(),
        runbooks: library
            .iter()
            .map(|runbook| runbook.runbook.to_string())
            .collect(),
        groups: model
            .site
            .hosts
            .values()
            .flat_map(|host| host.groups.iter().map(ToString::to_string))
            .collect(),
    }
}

/// The name of this bot in leases.
fn holder(store: &Store) -> String {
    match store.replica() {
        "" => format!("{}:{}", replicas::host_name(), std::process::id()),
        replica => replica.to_owned(),
    }
}
