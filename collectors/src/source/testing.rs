//! What the conformance test needs: a server that answers badly on demand, and an ear that remembers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

use super::{Ear, Handling, NotKept, Pace, Progress, Reading, Told};
use crate::{Alert, Change, fold, settle::settle};

/// Fast, so that a test with many failures is over soon.
pub(crate) const PACE: Pace = Pace {
    every: Duration::from_millis(20),
    first_pause: Duration::from_millis(5),
    longest_pause: Duration::from_millis(40),
};
/// For one answer; the slow server needs longer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The limit of a wait in a test that fails.
const WAIT: Duration = Duration::from_secs(20);

/// One request.
pub(crate) struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) enum Reply {
    Json(Value),
    Status(u16, Value),
    /// Lines that the server sends from now on, whenever something happens, until it cuts them off.
    Lines(broadcast::Receiver<String>),
}

/// What a bad day looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Down,
    Slow,
    /// Closes the connection in the middle of an answer.
    CutOff,
    /// Half of the JSON, as a complete answer.
    HalfJson,
    Html,
    Redirect,
    Unauthorised,
    OtherSchema,
    Overloaded,
    Empty,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::Down,
        Self::Slow,
        Self::CutOff,
        Self::HalfJson,
        Self::Html,
        Self::Redirect,
        Self::Unauthorised,
        Self::OtherSchema,
        Self::Overloaded,
        Self::Empty,
    ];

    /// What whoever reads `status` must find in it: one of these.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Down | Self::CutOff => &["expected a connection"],
            Self::Slow => &["expected an answer within"],
            Self::HalfJson => &["EOF while parsing"],
            // Of an answer, of a stream.
            Self::Empty => &["EOF while parsing", "found its end"],
            Self::Html => &["<html>"],
            Self::Redirect => &["found 302"],
            Self::Unauthorised => &["found 401"],
            Self::OtherSchema => &["expected an answer of its API"],
            Self::Overloaded => &["found 503"],
        }
    }

    pub fn is_named(self, why: &str) -> bool {
        self.words().iter().any(|words| why.contains(words))
    }
}

type Answers = dyn Fn(&Asked) -> Reply + Send + Sync;

pub(crate) struct Server {
    pub address: SocketAddr,
    inner: Serving,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Serving {
    answers: Arc<Answers>,
    fault: Arc<Mutex<Option<Fault>>>,
    cut: broadcast::Sender<()>,
    /// In seconds.
    clock_ahead: Arc<AtomicI64>,
    asked: Arc<AtomicU32>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Server {
    pub async fn start(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Serving {
            answers: Arc::new(answers),
            fault: Arc::default(),
            cut: broadcast::channel(1).0,
            clock_ahead: Arc::default(),
            asked: Arc::default(),
        };
        let serving = inner.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Self {
            address,
            inner,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on; also ends what is streamed.
    pub fn fault(&self, fault: Option<Fault>) {
        *self.inner.fault.lock().unwrap() = fault;
        self.cut();
    }

    /// Ends what is streamed.
    pub fn cut(&self) {
        let _ = self.inner.cut.send(());
    }

    /// Requests so far.
    pub fn asked(&self) -> u32 {
        self.inner.asked.load(SeqCst)
    }

    pub fn set_clock_ahead(&self, seconds: i64) {
        self.inner.clock_ahead.store(seconds, SeqCst);
    }
}

impl Serving {
    async fn serve(self, mut stream: TcpStream) {
        let cut = self.cut.subscribe();
        let Some(asked) = request(&mut stream).await else {
            return;
        };
        self.asked.fetch_add(1, SeqCst);
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some(Fault::Down) => return,
            // Whoever asked has given up by then.
            Some(Fault::Slow) => return tokio::time::sleep(ANSWER_WITHIN * 3).await,
            _ => {}
        }
        let (status, body) = match (self.answers)(&asked) {
            Reply::Lines(lines) if fault.is_none() => return self.stream(stream, lines, cut).await,
            Reply::Lines(_) => (200, "{}".to_owned()),
            Reply::Json(value) => (200, value.to_string()),
            Reply::Status(status, value) => (status, value.to_string()),
        };
        let whole = |status, body: &str| (status, body.len(), body.to_owned());
        let (status, length, body) = match fault {
            Some(Fault::CutOff) => (200, body.len() + 10, body),
            Some(Fault::HalfJson) => whole(200, &body[..body.len() / 2]),
            Some(Fault::Html) => whole(200, "<html>Sign in</html>"),
            Some(Fault::Redirect) => whole(302, ""),
            Some(Fault::Unauthorised) => whole(401, "Unauthorized"),
            Some(Fault::OtherSchema) => whole(200, r#"{"items": 7}"#),
            Some(Fault::Overloaded) => whole(503, "come again"),
            Some(Fault::Empty) => whole(200, ""),
            _ => whole(status, &body),
        };
        let head = self.head(
            status,
            &format!("content-length: {length}\r\nconnection: close"),
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    async fn stream(
        &self,
        mut stream: TcpStream,
        mut lines: broadcast::Receiver<String>,
        mut cut: broadcast::Receiver<()>,
    ) {
        let head = self.head(200, "transfer-encoding: chunked");
        let _ = stream.write_all(head.as_bytes()).await;
        loop {
            let line = tokio::select! { line = lines.recv() => line, _ = cut.recv() => return };
            let Ok(line) = line else { return };
            let chunk = format!("{:x}\r\n{line}\r\n", line.len());
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn head(&self, status: u16, more: &str) -> String {
        let ahead = SignedDuration::from_secs(self.clock_ahead.load(SeqCst));
        let date = (Timestamp::now() + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT");
        format!("HTTP/1.1 {status} X\r\ndate: {date}\r\nlocation: /login\r\n{more}\r\n\r\n")
    }
}

async fn request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length");
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let (path, _) = target.split_once('?').unwrap_or((&target, ""));
    Some(Asked {
        method,
        path: path.to_owned(),
        headers,
        body,
    })
}

/// What an ear has kept, by the same rules as the bot.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub alerts: BTreeMap<String, Alert>,
    pub changes: Vec<(Alert, Change)>,
    pub handled: BTreeMap<String, Handling>,
    pub readings: Vec<Reading>,
    pub cursor: Option<String>,
    pub works: u32,
    pub fails: Vec<String>,
}

impl Kept {
    fn take(&mut self, told: Told, progress: Option<Progress>) -> Result<(), NotKept> {
        if let Some(progress) = progress {
            if progress.from != self.cursor {
                return Err(NotKept::Moved);
            }
            self.cursor = Some(progress.to);
        }
        match told {
            Told::Alerts(alerts) => {
                for alert in alerts {
                    let change = fold(self.alerts.get(&alert.fingerprint), &alert);
                    if change.replaces() {
                        self.change(alert, change);
                    }
                }
            }
            Told::State(state) => {
                for (alert, change) in settle(&self.alerts, &state) {
                    self.change(alert, change);
                }
                self.handled
                    .retain(|name, _| !state.judges_handling_of(name));
                self.handled.extend(state.handled);
            }
            Told::Readings(readings) => self.readings.extend(readings),
        }
        Ok(())
    }

    fn change(&mut self, alert: Alert, change: Change) {
        self.alerts.insert(alert.fingerprint.clone(), alert.clone());
        self.changes.push((alert, change));
    }
}

/// Remembers over many lives of a source.
#[derive(Default)]
pub(crate) struct Memory {
    kept: Mutex<Kept>,
    /// Nothing is taken.
    pub refuses: AtomicBool,
    /// It is taken, but the source is not told so: as if the bot had died in between.
    pub loses_answers: AtomicBool,
    pub refused: AtomicU32,
}

impl Memory {
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap().clone()
    }

    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Kept) -> bool) {
        let wait = async {
            while !is_so(&self.kept.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(WAIT, wait).await.is_err() {
            let kept = self.kept();
            let changes: Vec<_> = kept.changes.iter().map(|(a, c)| (&a.name, c)).collect();
            let last = kept.fails.last();
            panic!("not within {WAIT:?}: {what}; changes {changes:?}, last failure {last:?}");
        }
    }

    /// Waits until the source worked once from beginning to end: what it worked at when this began may be older.
    pub async fn until_it_worked_again(&self) {
        let before = self.kept().works;
        self.until("the source works", |kept| kept.works > before + 1)
            .await;
    }
}

#[async_trait]
impl Ear for Memory {
    async fn tell(&self, told: Told, progress: Option<Progress>) -> Result<(), NotKept> {
        let refuse = |why: &str| {
            self.refused.fetch_add(1, SeqCst);
            Err(NotKept::Store(why.to_owned()))
        };
        if self.refuses.load(SeqCst) {
            return refuse("the disk is full");
        }
        self.kept.lock().unwrap().take(told, progress)?;
        match self.loses_answers.load(SeqCst) {
            true => refuse("the answer was lost"),
            false => Ok(()),
        }
    }

    async fn cursor(&self) -> Result<Option<String>, NotKept> {
        Ok(self.kept.lock().unwrap().cursor.clone())
    }

    fn works(&self) {
        self.kept.lock().unwrap().works += 1;
    }

    fn fails(&self, why: &str) {
        self.kept.lock().unwrap().fails.push(why.to_owned());
    }
}
