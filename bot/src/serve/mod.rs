//! `nightshift serve`: everything together, from the first line of the log to the last.

pub mod assemble;
mod inbox;
mod logging;
#[cfg(test)]
mod service_unit_tests;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::{
    bot::{Bot, HANDLED_DAYS},
    care,
    chat::{self, ChatAdapter, Incoming, Subject, console::Console},
    cli::{self, Outcome},
    config::Secret,
    control, heal as healer_shell,
    heartbeat::Heart,
    leases, logs,
    replicas::{self, Lead, Member, Standing},
    sources::{self, Followed, Follows},
    web,
    wording::{Message, Severity},
};
use assemble::{Assembled, Ground, assemble, ground};

/// Words of people that wait to be handled.
const INBOX: usize = 256;
/// Commands handled at once; most wait for hosts.
const COMMANDS_AT_ONCE: usize = 32;
/// How long parts have to end after they were told to. What runs on hosts runs on and is asked for at the next start.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often old claims and messages are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// The longest time between two beats of the heart that `/metrics` shows.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Chat messages can be edited this long after their last change.
const MESSAGE_DAYS: i64 = 90;

/// Runs until SIGTERM, SIGINT, or the end of the console.
pub async fn run(config: &Path, console: bool, json_log: bool) -> Outcome {
    let ground = match ground(config).await {
        Ok(ground) => ground,
        Err(why) => return cli::wrong(why),
    };
    logging::start(
        &ground.loaded.config.state_dir,
        console,
        json_log,
        &ground.redactor,
    );
    let console = match console.then(|| open_console(&ground)).transpose() {
        Ok(console) => console,
        Err(why) => return cli::wrong(why),
    };
    match lives(&ground, console.clone()).await {
        Ok(()) => console.is_none_or(|console| console.all_succeeded()).into(),
        Err(why) => {
            tracing::error!(why, "the bot cannot run");
            eprintln!("{why}");
            Outcome::Failed
        }
    }
}

/// One life after another until told to stop. Whoever lost the lead or the store begins anew, as after a crash: what is written
/// down is all that counts.
async fn lives(ground: &Ground, console: Option<Arc<Console>>) -> Result<(), String> {
    let told = told_to_stop(console.is_some());
    let mut before = None;
    let ended = loop {
        let troubles = ground.store.troubles();
        match serve(ground, console.clone(), before.take(), &told).await {
            Ok(End::Told) => break Ok(()),
            Ok(End::Anew { why }) => before = Some(why),
            // The store was away again before this life was complete.
            Err(why) if ground.store.troubles() != troubles => {
                tracing::warn!(why, "begins anew");
                before = Some(why);
                tokio::time::sleep(replicas::BEAT).await;
            }
            Err(why) => break Err(why),
        }
    };
    if ground.store.is_shared()
        && let Err(error) = ground.store.leave().await
    {
        tracing::warn!(%error, "others have to find out by themselves that this bot has gone");
    }
    ground.store.close().await;
    ended
}

/// How a life ended.
enum End {
    Told,
    Anew { why: String },
}

fn open_console(ground: &Ground) -> Result<Arc<Console>, String> {
    let config = &ground.loaded.config;
    Console::open(ground.owner.clone(), &config.chat.prefix, &config.state_dir).map(Arc::new)
}

async fn serve(
    ground: &Ground,
    console: Option<Arc<Console>>,
    before: Option<String>,
    told: &CancellationToken,
) -> Result<End, String> {
    let config = &ground.loaded.config;
    let stop = CancellationToken::new();
    let mut adapters = chat::configured(&ground.loaded);
    if let Some(console) = &console {
        adapters.push(console.clone());
    }
    let figures = Arc::new(web::Figures::default());
    figures.started(Timestamp::now());
    // Taken before anything acts: a second bot, or another program on the port, is found out here.
    let tls = tls(ground)?;
    let listener = web::bind(config.listen)
        .await
        .map_err(|error| error.to_string())?;
    let lead = match ground.store.is_shared() {
        true => Lead::stand_by(),
        false => Lead::alone(),
    };
    let assembled = assemble(
        ground,
        adapters.clone(),
        figures.clone(),
        lead.clone(),
        stop.clone(),
    );
    let Assembled {
        bot,
        telling,
        healer,
        news,
    } = assembled.await?;
    let pending = Arc::new(web::Pending::default());
    let (web, committing) = web::Web::new(
        bot.store.clone(),
        door(ground),
        pending.clone(),
        figures.clone(),
    );

    figures.watch_logs(bot.logs.reaches());
    let follows = Follows {
        store: bot.store.clone(),
        intake: web.intake.clone(),
        pending: pending.clone(),
        senses: bot.senses.clone(),
        redactor: ground.redactor.clone(),
        handling: bot.care.clone(),
    };
    let followed = sources::configured(&config.sources, &ground.icinga2, &bot.logs)?;
    let mut parts = JoinSet::new();
    let teller = tokio::spawn(telling);
    let prefix = config.chat.prefix.clone();
    let (store, office) = (bot.store.clone(), bot.office.clone());
    let telling_news = healer_shell::tell_all(news, store, office, bot.team_rooms(), prefix);
    let news_teller = tokio::spawn(telling_news);
    parts.spawn(committing);
    let token = stop.clone();
    parts.spawn(async move { ended("web", web::serve(listener, tls, web, token).await) });
    let (of, dir, token) = (bot.clone(), config.state_dir.clone(), stop.clone());
    parts.spawn(async move { ended("control socket", control::serve(of, &dir, token).await) });
    let (senses, token) = (bot.senses.clone(), stop.clone());
    parts.spawn(async move { senses.watch(token).await });
    let member = Member {
        store: bot.store.clone(),
        lead: lead.clone(),
        halt: bot.halt.clone(),
        desk: bot.jobs.clone(),
        model: replicas::model_digest(&bot.model),
        before: ground.before.clone(),
    };
    member.begin(&mut parts, &stop);
    if bot.store.is_shared() {
        parts.spawn(tell_away(bot.clone(), stop.clone()));
    }
    let duty = async {
        let standing = lead.until_leading().await;
        let over = on_duty(
            &bot,
            Duty {
                adapters: &adapters,
                console: console.is_some(),
                pending,
                figures,
                healer,
                followed,
                follows,
                switch: ground.loaded.heartbeat.as_ref(),
                story: story(&standing, before),
            },
            &mut parts,
            &stop,
        );
        over.await?.await;
        Ok::<_, String>(End::Told)
    };
    let how = tokio::select! {
        told = duty => told,
        () = told.cancelled() => Ok(End::Told),
        why = lead.until_over() => Ok(End::Anew { why }),
        // Not anew within this process: only a new one reads what the disk has.
        why = bot.store.until_failed() => Err(format!("the store cannot be written any more, so the bot ends: {why}")),
    };
    tracing::info!("going off duty");
    stop.cancel();
    let rest = async {
        bot.jobs.rest().await;
        while parts.join_next().await.is_some() {}
        bot.office.catch_up().await
    };
    match tokio::time::timeout(STOP_LIMIT, rest).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "words that waited for the store are lost"),
        Err(_) => tracing::warn!("some parts did not end in time"),
    }
    teller.abort();
    news_teller.abort();
    how
}

/// What is only done by the bot that leads.
struct Duty<'a> {
    adapters: &'a [Arc<dyn ChatAdapter>],
    console: bool,
    pending: Arc<web::Pending>,
    figures: Arc<web::Figures>,
    healer: runbooks::healer::Healer,
    /// Sources, followed by one bot.
    followed: Vec<Followed>,
    follows: Follows,
    /// The dead man's switch: its silence says that nobody is on duty.
    switch: Option<&'a (Secret, Duration)>,
    /// How it came to lead, if that is worth a word.
    story: Option<Message>,
}

/// Takes up everything. The future ends with the console, if there is one.
async fn on_duty(
    bot: &Arc<Bot>,
    duty: Duty<'_>,
    parts: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<impl Future<Output = ()> + use<>, String> {
    let (office, token) = (bot.office.clone(), stop.clone());
    parts.spawn(async move { office.run(token).await });
    let resumed = bot
        .jobs
        .resume_all()
        .await
        .map_err(|error| error.to_string())?;
    let head = bot
        .store
        .audit_head()
        .await
        .map_err(|error| error.to_string())?;
    // The log of the machine is another place: what the audit log said at this moment can be proven with it.
    tracing::info!(head = %head.unwrap_or_default(), "the audit log goes on from here");
    let listen_at = bot.config.listen;
    tracing::info!(site = bot.model.site.name, listen = %listen_at, resumed = resumed.len(), "on duty");
    let rooms = bot.team_rooms();
    if let Some(story) = duty.story {
        let about = Subject("bots".to_owned());
        let said = bot.office.say(&rooms, &about, &story);
        said.await.map_err(|error| error.to_string())?;
    }
    parts.spawn(tidy(bot.clone(), stop.clone()));
    parts.spawn(logs::narrate(bot.clone(), stop.clone()));
    if let Some(switch) = duty.switch {
        let heart = Heart::new(switch, bot.store.clone(), duty.figures.clone())?;
        parts.spawn(heart.beat(stop.clone()));
    }
    let (store, office) = (bot.store.clone(), bot.office.clone());
    parts.spawn(leases::watch(store, office, rooms, stop.clone()));
    if bot.store.is_shared() {
        let (store, pending) = (bot.store.clone(), duty.pending.clone());
        parts.spawn(inbox::hear(
            store,
            pending,
            duty.figures.clone(),
            stop.clone(),
        ));
    }
    let (bot_, token) = (bot.clone(), stop.clone());
    parts.spawn(hear_alerts(bot_, duty.pending, duty.figures, token));
    parts.spawn(heal(duty.healer, stop.clone()));
    sources::follow_all(duty.followed, &duty.follows, parts, stop);
    // On a thread of its own: where very many alerts are taken, a look is too much work for those that answer people.
    let tended = care::tend(bot.clone(), bot.care.clone(), stop.clone());
    let runtime = Handle::current();
    parts.spawn_blocking(move || runtime.block_on(tended));
    Ok(listen(bot, duty.adapters, duty.console, parts, stop))
}

/// Says once in each life that the store is away; it cannot be said through the store.
async fn tell_away(bot: Arc<Bot>, stop: CancellationToken) {
    let mut states = bot.lead.watch();
    let away = |state: &replicas::State| {
        state.away.is_some() && matches!(state.standing, Standing::Leads { .. })
    };
    let long = async {
        loop {
            if states.wait_for(away).await.is_err() {
                std::future::pending::<()>().await;
            }
            // A moment is not worth a word.
            tokio::time::sleep(replicas::LEAD_LIMIT).await;
            if away(&bot.lead.state()) {
                return;
            }
        }
    };
    if stop.run_until_cancelled(long).await.is_none() {
        return;
    }
    let message = Message::new(Severity::Bad, "The store is away: no repair is begun")
        .line("What runs on hosts runs on. Alerts are taken when it is back; their senders come again.")
        .hint("Commands are not run meanwhile");
    bot.office.announce(&bot.team_rooms(), &message).await;
}

/// How this bot came to lead, if people should know.
fn story(standing: &Standing, before: Option<String>) -> Option<Message> {
    let host = replicas::host_name();
    match (standing, before) {
        (_, Some(why)) => Some(Message::new(
            Severity::Attention,
            format!("On duty again on {host}: {why}"),
        )),
        (
            Standing::Leads {
                from: Some(from), ..
            },
            None,
        ) => Some(
            Message::new(Severity::Attention, format!("On duty on {host} now"))
                .line(format!("{from} led before, and has not been heard since"))
                .line("What it was doing is taken up where it stands."),
        ),
        _ => None,
    }
}

/// Who may send webhooks.
fn door(ground: &Ground) -> web::Door {
    let config = &ground.loaded.config;
    web::Door {
        tokens: web::Tokens::new(&ground.loaded.webhook_tokens),
        signers: web::Signers::new(&ground.loaded.signing_keys),
        certified: config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some()),
        pace: web::WebPace::new(config.limits.webhooks_per_second),
        redactor: ground.redactor.clone(),
    }
}

/// The certificate and the key that HTTPS is served with, if it is.
fn tls(ground: &Ground) -> Result<Option<Arc<ServerConfig>>, String> {
    let loaded = &ground.loaded;
    match (&loaded.config.tls, &loaded.tls_key) {
        (Some(config), Some(key)) => web::tls_settings(config, key).map(Some),
        _ => Ok(None),
    }
}

/// Hears all chats. The future ends with the console, if there is one.
fn listen(
    bot: &Arc<Bot>,
    adapters: &[Arc<dyn ChatAdapter>],
    console: bool,
    parts: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let (inbox, heard) = mpsc::channel(INBOX);
    let over = CancellationToken::new();
    for adapter in adapters {
        let (adapter, inbox, stop, over) =
            (adapter.clone(), inbox.clone(), stop.clone(), over.clone());
        parts.spawn(async move {
            adapter.listen(inbox, stop).await;
            if adapter.name() == chat::console::NAME {
                over.cancel();
            }
        });
    }
    parts.spawn(handle_all(bot.clone(), heard, stop.clone()));
    async move {
        if console {
            over.cancelled().await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

async fn handle_all(bot: Arc<Bot>, mut heard: mpsc::Receiver<Incoming>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(COMMANDS_AT_ONCE));
    loop {
        let incoming =
            tokio::select! { () = stop.cancelled() => return, heard = heard.recv() => heard };
        let Some(incoming) = incoming else { return };
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let bot = bot.clone();
        tokio::spawn(async move {
            bot.hear(incoming).await;
            drop(place);
        });
    }
}

/// Cancelled when a signal says so. Over all lives: a signal between two of them is not lost.
fn told_to_stop(console: bool) -> CancellationToken {
    let told = CancellationToken::new();
    let token = told.clone();
    tokio::spawn(async move {
        signalled(console).await;
        token.cancel();
    });
    told
}

/// At a terminal ^C belongs to the console.
async fn signalled(console: bool) {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "a signal cannot be waited for");
                std::future::pending::<()>().await;
            }
        }
    };
    use std::io::IsTerminal;
    if console && std::io::stdin().is_terminal() {
        wait(SignalKind::terminate()).await;
    } else {
        tokio::select! {
            () = wait(SignalKind::terminate()) => {}
            () = wait(SignalKind::interrupt()) => {}
        }
    }
}

async fn tidy(bot: Arc<Bot>, stop: CancellationToken) {
    loop {
        let now = Timestamp::now();
        let before = |days: i64| now - SignedDuration::from_hours(24 * days);
        if let Err(error) = bot.store.prune_claims(before(HANDLED_DAYS)).await {
            tracing::warn!(%error, "old claims stay");
        }
        if let Err(error) = bot.store.prune_messages(before(MESSAGE_DAYS)).await {
            tracing::warn!(%error, "old messages stay");
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(TIDY_EVERY) => {} }
    }
}

fn ended(part: &str, how: std::io::Result<()>) {
    if let Err(error) = how {
        tracing::error!(part, %error, "a part of the bot ended");
    }
}

async fn heal(healer: runbooks::healer::Healer, stop: CancellationToken) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let healing = healer.run(told);
    tokio::pin!(healing);
    let ended = tokio::select! {
        ended = &mut healing => ended,
        () = stop.cancelled() => {
            // It may have ended by itself at the same moment.
            let _ = tell.send(());
            healing.await
        }
    };
    if let Err(why) = ended {
        // Deploys and looking go on; nothing is repaired by a bot that does not know what it was doing.
        tracing::error!(why, "the healer cannot run");
    }
}

/// Alerts that the healer takes at once: a few milliseconds, so that a person's word to it never waits for a storm.
const HEARD_AT_ONCE: usize = 500;

/// Hands stored alerts to the healer.
async fn hear_alerts(
    bot: Arc<Bot>,
    pending: Arc<web::Pending>,
    figures: Arc<web::Figures>,
    stop: CancellationToken,
) {
    let Some(healer) = bot.ear.get() else { return };
    loop {
        let batch = tokio::select! {
            () = stop.cancelled() => break,
            batch = pending.take(HEARD_AT_ONCE) => batch,
            () = tokio::time::sleep(HEARTBEAT) => web::Batch::new(),
        };
        // Also when there are none: through the same queue as all that it has to do, so an answer says that the healer keeps up.
        match healer.heard(batch).await {
            Ok(()) => figures.beat(Timestamp::now()),
            Err(_) if stop.is_cancelled() => break,
            Err(error) => {
                tracing::error!(%error, "alerts are stored, but were not looked at");
                break;
            }
        }
    }
    pending.close();
}
