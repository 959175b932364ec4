//! Putting the bot together from its configuration: the same for `serve` and for commands without a running bot.

use std::{path::Path, sync::Arc};

use deploy_engine::{
    model::Model,
    runner::{Context, OpenGate, Runner, StepGate},
    secrets::SecretStore,
    transport::{Hosts, SshHosts},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bot::Bot,
    chat::{ChatAdapter, office::Office},
    command::Vocabulary,
    config::Loaded,
    control,
    halt::{Halt, HaltGate},
    jobs::{self, JobDesk},
    lock::InstanceLock,
    rights::{Identity, People},
    store::Store,
};

/// Folder of the site's secrets in the state directory.
const SECRETS: &str = "secrets";

/// Everything that can be had before anything acts.
pub struct Ground {
    pub loaded: Loaded,
    pub model: Arc<Model>,
    pub store: Store,
    /// Whoever runs this process.
    pub owner: Identity,
    _lock: InstanceLock,
}

/// Reads all files, takes the state directory for itself and opens the store.
///
/// # Errors
/// What is wrong, for people.
pub async fn ground(config: &Path) -> Result<Ground, String> {
    let loaded = crate::config::load(config).map_err(|errors| errors.to_string())?;
    let model = Model::load(&loaded.config.site, &loaded.config.service_dirs)
        .map_err(|errors| errors.to_string())?;
    let dir = &loaded.config.state_dir;
    make_dir(dir).map_err(|error| format!("state_dir {}: {error}", dir.display()))?;
    let lock = InstanceLock::take(dir).map_err(|error| error.to_string())?;
    let store = Store::open(dir).await.map_err(|error| error.to_string())?;
    let owner = Identity::unix(&control::own_user_name());
    Ok(Ground { loaded, model: Arc::new(model), store, owner, _lock: lock })
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// The bot, and what tells of its jobs (to be spawned).
pub struct Assembled {
    pub bot: Arc<Bot>,
    pub telling: futures::future::BoxFuture<'static, ()>,
}

/// Connects everything. Nothing acts yet.
pub async fn assemble(
    ground: &Ground,
    adapters: Vec<Arc<dyn ChatAdapter>>,
    stop: CancellationToken,
) -> Result<Assembled, String> {
    let config = ground.loaded.config.clone();
    let (model, store) = (ground.model.clone(), ground.store.clone());
    let secrets = SecretStore::open(&config.state_dir.join(SECRETS)).map_err(|e| e.to_string())?;
    let names = model.secret_names();
    secrets.ensure(names.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    let hosts: Arc<dyn Hosts> = Arc::new(SshHosts::new(&model, Arc::new(secrets)));
    let halt = Halt::load(store.clone()).await.map_err(|error| error.to_string())?;
    let office = Office::new(store.clone(), adapters);
    let desk = JobDesk::new(store.clone(), stop);
    let (observer, telling) = jobs::projection(store.clone(), office.clone());
    let gate: Arc<dyn StepGate> = Arc::new(HaltGate { halt: halt.clone(), then: Arc::new(OpenGate) });
    desk.set_runner(Runner::new(Context::new(
        Arc::new(store.clone()),
        hosts.clone(),
        model.clone(),
        gate,
        observer,
        holder(),
    )));
    let bot = Bot {
        vocabulary: vocabulary(&model),
        people: People::new(config.people.clone(), Some(ground.owner.clone())),
        config,
        model,
        hosts,
        store,
        office,
        jobs: desk,
        halt,
        strangers: Default::default(),
    };
    Ok(Assembled { bot: Arc::new(bot), telling: Box::pin(telling) })
}

fn vocabulary(model: &Model) -> Vocabulary {
    Vocabulary {
        services: model.services.keys().cloned().collect(),
        hosts: model.site.hosts.keys().cloned().collect(),
        runbooks: Default::default(),
    }
}

/// The name of this bot in leases.
fn holder() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", name.trim(), std::process::id())
}
