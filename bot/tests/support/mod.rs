//! A bot with a site whose hosts answer nothing.
#![allow(dead_code)] // each test program uses a part of it

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

const START: Duration = Duration::from_secs(60);
/// The log of a served bot.
const LOG: &str = "log";

pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new(more: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write(
            "site.yaml",
            "site: demo\nssh: {port: 1}\nhosts:\n  ctl1: {address: 127.0.0.1, groups: [control]}\n\
             services:\n  memcached: {on: control}\n",
        );
        home.write(
            "nightshift.yaml",
            &format!("site: site.yaml\nstate_dir: state\nlisten: 127.0.0.1:0\n{more}"),
        );
        home
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub fn nightshift(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command
            .arg("--config")
            .arg(self.path().join("nightshift.yaml"))
            .args(words);
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.nightshift(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub fn script(&self, lines: &str) -> Output {
        let mut child = self
            .nightshift(&["serve", "--console"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a bot that was served said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join(LOG)).unwrap()
    }

    pub fn serve(&self) -> Served<'_> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path().join(LOG));
        let log = log.unwrap();
        let child = self
            .nightshift(&["serve"])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let served = Served { child, home: self };
        let start = Instant::now();
        while !self.run(&["whoami"]).status.success() {
            assert!(start.elapsed() < START, "the bot does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        served
    }
}

pub struct Served<'h> {
    child: Child,
    home: &'h Home,
}

impl Served<'_> {
    pub fn json(&self, words: &[&str]) -> (bool, serde_json::Value) {
        let mut all = words.to_vec();
        all.push("--json");
        let output = self.home.run(&all);
        let text = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        (output.status.success(), value)
    }
}

impl Served<'_> {
    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < START, "the bot does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
