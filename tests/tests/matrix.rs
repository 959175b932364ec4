//! The bot in an encrypted room of a real homeserver, with a second Matrix client as the human.
#![allow(clippy::unwrap_used)] // a test program: a panic is its way to fail
#![recursion_limit = "256"]

mod support;

use std::time::Duration;

use bot::{
    chat::{
        ChatAdapter,
        conformance::{self, Reader},
        matrix::Matrix,
    },
    config::{MatrixConfig, RoomConfig, Secret, SecretSource},
    rights::Role,
};
use lab::synapse::Limits;
use support::{
    human::Human,
    scene::{PASSWORD, Running, Scene},
};
use tokio_util::sync::CancellationToken;

const ANN_IS: &str = "You are matrix:@ann:lab.test, operator here";

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_an_encrypted_room_are_run_once_whatever_happens_to_the_bot_or_the_homeserver()
{
    let mut scene = Scene::set(Limits::NONE).await;
    let mut bot = scene.start_bot();
    scene.bot_joined().await;
    let halted = commands(&scene).await;
    strangers(&scene).await;
    let mut bot = killed(&scene, &mut bot, &halted).await;
    lost_homeserver(&mut scene, &mut bot).await;
}

/// Right and wrong ones; gives the one that halted.
async fn commands(scene: &Scene) -> String {
    scene.ask("!whoami", ANN_IS).await;
    scene.ask("!hlep", "did you mean `help`?").await;
    let refusal = "`trust` needs the role admin; yours is operator";
    scene.ask("!trust", refusal).await;
    let halted = scene.human.say(&scene.room, "!halt a test").await;
    scene.answer(&halted, "!halt", "Halted").await;
    halted
}

/// A stranger gets one polite answer, and only one.
async fn strangers(scene: &Scene) {
    let asked = scene.stranger.say(&scene.room, "!status").await;
    let polite = "I do not know you";
    scene.answer(&asked, "!status of a stranger", polite).await;
    scene.stranger.say(&scene.room, "!resume").await;
    // Said later, so what was said before has been heard.
    scene.ask("!whoami", ANN_IS).await;
    assert_eq!(scene.human.times(polite).await, 1, "answered rarely");
}

/// Killed; meanwhile somebody speaks; the same device comes back, and nothing is run twice or late.
async fn killed(scene: &Scene, bot: &mut Running, halted: &str) -> Running {
    let id = "@nightshift:lab.test";
    let device = scene.human.devices_of(id).await;
    bot.kill();
    let missed = scene.human.say(&scene.room, "!resume").await;
    scene.stranger.say(&scene.room, "!resume").await;
    let bot = scene.start_bot();
    let away = "I was away when you said this, and did not run it";
    scene.answer(&missed, "!resume while away", away).await;
    let still = "halted by matrix:@ann:lab.test: a test";
    scene.ask("!status", still).await;
    let devices = scene.human.devices_of(id).await;
    assert_eq!(devices, device, "a restart is the same device");
    for (event, what) in [(halted, "a command"), (&missed, "what was missed")] {
        assert_eq!(scene.answers_to(event).await, 1, "{what} is answered once");
    }
    let polite = scene.human.times("I do not know you").await;
    assert_eq!(polite, 1, "what a stranger said meanwhile is not answered");
    bot
}

/// The homeserver dies and comes back: the bot goes on, and answers what is said afterwards.
async fn lost_homeserver(scene: &mut Scene, bot: &mut Running) {
    scene.synapse.kill();
    scene.logged("Matrix is away");
    assert!(bot.lives(), "a dead homeserver does not end the bot");
    scene.synapse.resume().unwrap();
    scene.ask("!resume", "Goes on").await;
    bot.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_conforms_and_keeps_within_a_real_rate_limit() {
    let limits = Limits {
        per_second: 1.0,
        burst: 3,
    };
    let scene = Scene::set(limits).await;
    let config = MatrixConfig {
        homeserver: scene.synapse.url(),
        user: "@nightshift:lab.test".to_owned(),
        password: SecretSource::File("unused".into()),
        rooms: vec![RoomConfig {
            room: scene.room.clone(),
            incidents: true,
            ceiling: Role::Admin,
        }],
        messages_per_second: limits.per_second,
        burst: limits.burst,
    };
    let adapter = std::sync::Arc::new(Matrix::new(
        config,
        Secret::new(PASSWORD),
        scene.dir.path(),
        "!",
    ));
    let stop = CancellationToken::new();
    let (inbox, _heard) = tokio::sync::mpsc::channel(8);
    let (listener, token) = (adapter.clone(), stop.clone());
    tokio::spawn(async move { listener.listen(inbox, token).await });
    scene.bot_joined().await;

    let paced = Paced {
        adapter: adapter.clone(),
    };
    conformance::check(&paced, &scene.room, &scene.human).await;
    let html = scene.human.seen().await;
    assert!(
        html.iter().all(|seen| !seen.html.contains("<b>")),
        "markup of others is escaped"
    );
    assert!(
        html.iter().any(|seen| seen.edits.is_some()),
        "an edit replaces"
    );
    assert!(
        html.iter().any(|seen| seen.thread.is_some()),
        "details stand in a thread"
    );
    stop.cancel();
}

/// From joining its room to the end of the first sync, before which the adapter delivers nothing.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// The adapter as the office uses it: what the server refuses for its rate comes again after the wait it asks for, and what came
/// before the adapter was connected comes again a little later.
struct Paced {
    adapter: std::sync::Arc<Matrix>,
}

#[async_trait::async_trait]
impl ChatAdapter for Paced {
    fn name(&self) -> &str {
        self.adapter.name()
    }
    fn pace(&self) -> Option<bot::chat::Pace> {
        self.adapter.pace()
    }
    fn prefix(&self) -> &str {
        self.adapter.prefix()
    }
    async fn deliver(&self, post: &bot::chat::Post) -> Result<String, bot::chat::ChatError> {
        let begun = std::time::Instant::now();
        loop {
            match self.adapter.deliver(post).await {
                Err(bot::chat::ChatError::RateLimited { wait_ms, .. }) => {
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Err(bot::chat::ChatError::Unavailable { .. })
                    if begun.elapsed() < CONNECT_LIMIT =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
    }
    async fn listen(
        &self,
        _: tokio::sync::mpsc::Sender<bot::chat::Incoming>,
        _: CancellationToken,
    ) {
    }
}

#[async_trait::async_trait]
impl Reader for Human {
    async fn times(&self, text: &str) -> usize {
        self.seen()
            .await
            .iter()
            .filter(|seen| seen.body.contains(text))
            .count()
    }
}
