//! The bot in an encrypted room of a real homeserver, with a second Matrix client as the human.
#![recursion_limit = "256"]

mod support;

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bot::{
    chat::{
        ChatAdapter,
        conformance::{self, Reader},
        matrix::Matrix,
    },
    config::{MatrixConfig, RoomConfig, Secret, SecretSource},
    rights::Role,
};
use lab::{
    scenario::Program,
    synapse::{Limits, Synapse},
};
use support::human::Human;
use tokio_util::sync::CancellationToken;

/// The longest an answer may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(60);
const PASSWORD: &str = "a password for tests";

/// A homeserver with the bot's account, a human, and an encrypted room into which the bot is invited.
struct Scene {
    synapse: Synapse,
    human: Human,
    stranger: Human,
    room: String,
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Scene {
    async fn set(limits: Limits) -> Scene {
        let synapse = tokio::task::spawn_blocking(move || Synapse::start(limits).unwrap()).await.unwrap();
        let bot = synapse.register("nightshift", PASSWORD).unwrap();
        for user in ["ann", "eve"] {
            synapse.register(user, PASSWORD).unwrap();
        }
        let human = Human::log_in(&synapse.url(), "ann", PASSWORD).await;
        let stranger = Human::log_in(&synapse.url(), "eve", PASSWORD).await;
        let room = human.make_encrypted_room(&[&bot, stranger.id()]).await;
        stranger.join(&room).await;
        let program = tokio::task::spawn_blocking(|| Program::build(false).unwrap()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene { synapse, human, stranger, room, dir, program: program.path().to_owned() };
        scene.configure();
        scene
    }

    /// A site whose only host answers nothing: chat must not care.
    fn configure(&self) {
        let write = |name: &str, text: String| std::fs::write(self.dir.path().join(name), text).unwrap();
        write("site.yaml", "site: demo\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\nssh: {port: 1}\n".to_owned());
        write("password", PASSWORD.to_owned());
        support::only_for_owner(&self.dir.path().join("password"));
        write(
            "nightshift.yaml",
            format!(
                "site: site.yaml\nstate_dir: state\nlisten: 127.0.0.1:0\n\
                 people: {{'matrix:@ann:lab.test': operator}}\n\
                 chat:\n  matrix:\n    homeserver: {}\n    user: '@nightshift:lab.test'\n    password: {{file: password}}\n    \
                 rooms: [{{room: '{}'}}]\n    messages_per_second: 100\n    burst: 100\n",
                self.synapse.url(),
                self.room
            ),
        );
    }

    fn start_bot(&self) -> Running {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("bot.log"))
            .unwrap();
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.dir.path().join("nightshift.yaml"))
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running(child)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("bot.log")).unwrap_or_default()
    }

    /// Says a command and waits for what must be in an answer to it.
    async fn ask(&self, words: &str, expected: &str) {
        let event = self.human.say(&self.room, words).await;
        self.answer(&event, words, expected).await;
    }

    async fn answer(&self, event: &str, words: &str, expected: &str) {
        let answered = self.human.wait(ANSWER, |seen| {
            seen.iter().any(|seen| seen.answers.as_deref() == Some(event) && seen.body.contains(expected))
        });
        if !answered.await {
            panic!("{words:?}: expected an answer with {expected:?}; seen: {:#?}\nlog of the bot:\n{}", self.human.seen().await, self.log());
        }
    }

    async fn answers_to(&self, event: &str) -> usize {
        let seen = self.human.seen().await;
        seen.iter().filter(|seen| seen.answers.as_deref() == Some(event)).count()
    }

    /// The bot is in the room and has the keys of everybody: words from now on can be read by it.
    async fn bot_joined(&self) {
        let joined = self.human.until_joined(&self.room, "@nightshift:lab.test", ANSWER).await;
        assert!(joined, "the bot did not join; its log:\n{}", self.log());
    }
}

/// Killed when dropped.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_an_encrypted_room_are_run_once_whatever_happens_to_the_bot_or_the_homeserver() {
    let mut scene = Scene::set(Limits::NONE).await;
    let mut bot = scene.start_bot();
    scene.bot_joined().await;

    scene.ask("!whoami", "You are matrix:@ann:lab.test, operator here").await;
    scene.ask("!hlep", "did you mean `help`?").await;
    scene.ask("!trust", "`trust` needs the role admin; yours is operator").await;
    let halted = scene.human.say(&scene.room, "!halt a test").await;
    scene.answer(&halted, "!halt", "Halted").await;

    // A stranger gets one polite answer, and only one.
    let asked = scene.stranger.say(&scene.room, "!status").await;
    scene.answer(&asked, "!status of a stranger", "I do not know you").await;
    scene.stranger.say(&scene.room, "!halt").await;

    // Killed; meanwhile somebody speaks; the same device comes back, and nothing is run twice or late.
    let device = scene.human.devices_of("@nightshift:lab.test").await;
    bot.kill();
    let missed = scene.human.say(&scene.room, "!resume").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut bot = scene.start_bot();
    scene.answer(&missed, "!resume while away", "I was away when you said this").await;
    scene.ask("!status", "halted by matrix:@ann:lab.test: a test").await;
    assert_eq!(scene.human.devices_of("@nightshift:lab.test").await, device, "a restart is the same device");
    assert_eq!(scene.answers_to(&halted).await, 1, "a command is answered once");
    assert_eq!(scene.answers_to(&missed).await, 1, "what was missed is answered once");
    let polite = |seen: &[support::human::Seen]| seen.iter().filter(|seen| seen.body.contains("I do not know you")).count();
    assert_eq!(polite(&scene.human.seen().await), 1, "strangers are answered rarely");

    // The homeserver dies and comes back: the bot goes on, and answers what is said afterwards.
    scene.synapse.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bot.0.try_wait().unwrap().is_none(), "a dead homeserver does not end the bot");
    scene.synapse.resume().unwrap();
    scene.ask("!resume", "Goes on").await;
    bot.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_conforms_and_keeps_within_a_real_rate_limit() {
    let limits = Limits { per_second: 1.0, burst: 3 };
    let scene = Scene::set(limits).await;
    let config = MatrixConfig {
        homeserver: scene.synapse.url(),
        user: "@nightshift:lab.test".to_owned(),
        password: SecretSource::File("unused".into()),
        rooms: vec![RoomConfig { room: scene.room.clone(), incidents: true, ceiling: Role::Admin }],
        messages_per_second: limits.per_second,
        burst: limits.burst,
    };
    let adapter = std::sync::Arc::new(Matrix::new(config, Secret::new(PASSWORD), scene.dir.path(), "!"));
    let stop = CancellationToken::new();
    let (inbox, _heard) = tokio::sync::mpsc::channel(8);
    let (listener, token) = (adapter.clone(), stop.clone());
    tokio::spawn(async move { listener.listen(inbox, token).await });
    scene.bot_joined().await;

    let paced = Paced { adapter: adapter.clone() };
    conformance::check(&paced, &scene.room, &scene.human).await;
    let html = scene.human.seen().await;
    assert!(html.iter().all(|seen| !seen.html.contains("<b>")), "markup of others is escaped");
    assert!(html.iter().any(|seen| seen.edits.is_some()), "an edit replaces");
    assert!(html.iter().any(|seen| seen.thread.is_some()), "details stand in a thread");
    stop.cancel();
}

/// The adapter as the office uses it: what the server refuses for its rate comes again after the wait it asks for.
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
        loop {
            match self.adapter.deliver(post).await {
                Err(bot::chat::ChatError::RateLimited { wait_ms, .. }) => {
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                other => return other,
            }
        }
    }
    async fn listen(&self, _: tokio::sync::mpsc::Sender<bot::chat::Incoming>, _: CancellationToken) {}
}

#[async_trait::async_trait]
impl Reader for Human {
    async fn times(&self, text: &str) -> usize {
        self.seen().await.iter().filter(|seen| seen.body.contains(text)).count()
    }
}
