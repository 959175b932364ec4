//! A homeserver, people, and the bot's own installation.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lab::{
    scenario::Program,
    synapse::{Limits, Synapse},
    wait,
};

use super::human::Human;

/// The longest an answer may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(120);
pub const PASSWORD: &str = "a password for tests";

/// A homeserver with the bot's account, a human, and an encrypted room into which the bot is invited.
pub struct Scene {
    pub synapse: Synapse,
    pub human: Human,
    pub stranger: Human,
    pub room: String,
    pub dir: tempfile::TempDir,
    pub program: PathBuf,
}

impl Scene {
    pub async fn set(limits: Limits) -> Scene {
        let synapse = tokio::task::spawn_blocking(move || Synapse::start(limits).unwrap())
            .await
            .unwrap();
        let bot = synapse.register("nightshift", PASSWORD).unwrap();
        for user in ["ann", "eve"] {
            synapse.register(user, PASSWORD).unwrap();
        }
        let human = Human::log_in(&synapse.url(), "ann", PASSWORD).await;
        let stranger = Human::log_in(&synapse.url(), "eve", PASSWORD).await;
        let room = human.make_encrypted_room(&[&bot, stranger.id()]).await;
        stranger.join(&room).await;
        let program = tokio::task::spawn_blocking(|| Program::build(false).unwrap())
            .await
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene {
            synapse,
            human,
            stranger,
            room,
            dir,
            program: program.path().to_owned(),
        };
        scene.configure();
        scene
    }

    /// A site whose only host answers nothing: chat must not care.
    fn configure(&self) {
        let write =
            |name: &str, text: String| std::fs::write(self.dir.path().join(name), text).unwrap();
        write(
            "site.yaml",
            "site: demo\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\nssh: {port: 1}\n"
                .to_owned(),
        );
        write("password", PASSWORD.to_owned());
        super::only_for_owner(&self.dir.path().join("password"));
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

    pub fn start_bot(&self) -> Running {
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("bot.log")).unwrap_or_default()
    }

    /// Waits until the bot has logged these words.
    pub fn logged(&self, words: &str) {
        wait::until(words, ANSWER, || {
            let log = self.log();
            log.contains(words).then_some(()).ok_or(log)
        })
        .unwrap();
    }

    /// Says a command and waits for what must be in an answer to it.
    pub async fn ask(&self, words: &str, expected: &str) {
        let event = self.human.say(&self.room, words).await;
        self.answer(&event, words, expected).await;
    }

    pub async fn answer(&self, event: &str, words: &str, expected: &str) {
        let answered = self.human.wait(ANSWER, |seen| {
            seen.iter()
                .any(|seen| seen.answers.as_deref() == Some(event) && seen.body.contains(expected))
        });
        if !answered.await {
            panic!(
                "{words:?}: expected an answer with {expected:?}; seen: {:#?}\nlog of the bot:\n{}",
                self.human.seen().await,
                self.log()
            );
        }
    }

    pub async fn answers_to(&self, event: &str) -> usize {
        let seen = self.human.seen().await;
        seen.iter()
            .filter(|seen| seen.answers.as_deref() == Some(event))
            .count()
    }

    /// The bot is in the room and has the keys of everybody: words from now on can be read by it.
    pub async fn bot_joined(&self) {
        let joined = self
            .human
            .until_joined(&self.room, "@nightshift:lab.test", ANSWER)
            .await;
        assert!(joined, "the bot did not join; its log:\n{}", self.log());
    }
}

/// Killed when dropped.
pub struct Running(Child);

impl Running {
    pub fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    pub fn kill(&mut self) {
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
