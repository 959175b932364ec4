//! Many requests at once over one agent's standard input and output.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

use super::secret::{Scrubber, Secrets, mark_sensitive, reveal};
use crate::wire::{self, Frame, HostKey, Reply, Request};

/// Frames waiting to be written; the agent reads as fast as it can, so more would mean that it hangs.
const WRITE_QUEUE: usize = 64;
/// Replies waiting for one request's owner. A full queue stops the reading, which slows the host, not the bot.
const REPLY_QUEUE: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a request did not get (more) replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The stream ended or was damaged; `found` says how.
    Stream { found: String },
    /// Nothing was sent: there is no secret of that name.
    UnknownSecret { name: String },
    /// Nothing was sent: the request does not fit a frame.
    TooLarge { found: String },
}

/// The agent's end of one connection.
pub struct Conversation {
    write: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU64,
    secrets: Arc<dyn Secrets>,
    /// The host's key, and the nonce with which its agent greeted.
    signer: OnceLock<(HostKey, String)>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Waiting {
    /// Why nothing more will come.
    closed: Option<String>,
    by_id: HashMap<u64, mpsc::Sender<Reply>>,
}

/// The replies to one request, until it is dropped.
pub struct Replies {
    id: u64,
    queue: mpsc::Receiver<Reply>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Conversation {
    pub fn new(
        input: impl AsyncWrite + Send + Unpin + 'static,
        output: impl AsyncRead + Send + Unpin + 'static,
        secrets: Arc<dyn Secrets>,
    ) -> Self {
        let (write, frames) = mpsc::channel(WRITE_QUEUE);
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let writer = tokio::spawn(write_frames(input, frames, waiting.clone()));
        let reader = tokio::spawn(read_frames(output, waiting.clone(), secrets.clone()));
        Self {
            write,
            waiting,
            next: AtomicU64::new(1),
            secrets,
            signer: OnceLock::new(),
            tasks: [writer, reader],
        }
    }

    /// From now on every request is signed. Once: a connection has one nonce.
    pub fn sign_with(&self, key: HostKey, nonce: String) {
        let _ = self.signer.set((key, nonce));
    }

    /// Sends a request. Secrets are put in here, and only here; what is signed is what the host gets.
    pub async fn ask(&self, mut body: Request) -> Result<Replies, Broken> {
        mark_sensitive(&mut body);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let too_large = |error: wire::FrameError| Broken::TooLarge {
            found: error.to_string(),
        };
        let json = wire::payload(&Frame { id, body }).map_err(too_large)?;
        let json = reveal(&json, &*self.secrets).map_err(|name| Broken::UnknownSecret { name })?;
        let bytes = match self.signer.get() {
            None => wire::enclose(json.as_bytes()),
            Some((key, nonce)) => {
                let signature = key.sign(nonce, json.as_bytes());
                wire::enclose(&wire::seal(json.as_bytes(), &signature))
            }
        };
        let bytes = bytes.map_err(too_large)?;
        let (send, queue) = mpsc::channel(REPLY_QUEUE);
        {
            let mut waiting = lock(&self.waiting);
            if let Some(found) = &waiting.closed {
                return Err(Broken::Stream {
                    found: found.clone(),
                });
            }
            waiting.by_id.insert(id, send);
        }
        let replies = Replies {
            id,
            queue,
            waiting: self.waiting.clone(),
        };
        match self.write.send(bytes).await {
            Ok(()) => Ok(replies),
            Err(_) => Err(replies.broken()),
        }
    }

    /// The single reply of a request that has one.
    pub async fn ask_once(&self, body: Request) -> Result<Reply, Broken> {
        self.ask(body).await?.next().await
    }

    pub fn is_open(&self) -> bool {
        lock(&self.waiting).closed.is_none()
    }

    /// Ends it for everybody; the agent sees the end of its input and leaves.
    pub fn close(&self, why: &str) {
        lock(&self.waiting).close(why);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.close("the connection was closed");
    }
}

impl Waiting {
    /// Only the first reason is kept: later ones follow from it.
    fn close(&mut self, why: &str) {
        self.closed.get_or_insert_with(|| why.to_owned());
        self.by_id.clear();
    }
}

impl Replies {
    pub async fn next(&mut self) -> Result<Reply, Broken> {
        match self.queue.recv().await {
            Some(reply) => Ok(reply),
            None => Err(self.broken()),
        }
    }

    fn broken(&self) -> Broken {
        let found = lock(&self.waiting).closed.clone();
        Broken::Stream {
            found: found.unwrap_or_else(|| "the connection was closed".to_owned()),
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        lock(&self.waiting).by_id.remove(&self.id);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing panics while it holds this lock, and the map is whole between any two of its calls.
    waiting
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn write_frames(
    mut input: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
) {
    while let Some(bytes) = frames.recv().await {
        let written = async {
            input.write_all(&bytes).await?;
            input.flush().await
        };
        if let Err(error) = written.await {
            lock(&waiting).close(&format!("writing to the agent: {error}"));
            return;
        }
    }
}

async fn read_frames(
    mut output: impl AsyncRead + Unpin,
    waiting: Arc<Mutex<Waiting>>,
    secrets: Arc<dyn Secrets>,
) {
    let mut buffer = Vec::new();
    let why = loop {
        match take_frame(&mut buffer, &*secrets) {
            Err(error) => break error,
            Ok(Some(frame)) => {
                let owner = lock(&waiting).by_id.get(&frame.id).cloned();
                if let Some(owner) = owner
                    && owner.send(frame.body).await.is_err()
                {
                    lock(&waiting).by_id.remove(&frame.id);
                }
                continue;
            }
            Ok(None) => {}
        }
        let mut chunk = vec![0; READ_BYTES];
        match output.read(&mut chunk).await {
            Ok(0) => break "the agent ended".to_owned(),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) => break format!("reading from the agent: {error}"),
        }
    };
    lock(&waiting).close(&why);
}

fn take_frame(buffer: &mut Vec<u8>, secrets: &dyn Secrets) -> Result<Option<Frame<Reply>>, String> {
    let Some((payload, used)) = wire::split(buffer).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let text = String::from_utf8(payload.to_vec())
        .map_err(|error| format!("a frame that is no text: {error}"))?;
    let clean = Scrubber::new(secrets).scrub(text);
    let frame = wire::parse(clean.as_bytes()).map_err(|error| error.to_string())?;
    buffer.drain(..used);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::{super::secret::tests::Fixed, *};
    use crate::wire::{StepKey, StepStatus};

    fn secrets() -> Arc<dyn Secrets> {
        Arc::new(Fixed([("a.b", "correct-horse")].into()))
    }

    /// A conversation and the other end of its streams.
    fn bench() -> (Conversation, DuplexStream, DuplexStream) {
        let (input, theirs_in) = duplex(1 << 20);
        let (theirs_out, output) = duplex(1 << 20);
        (
            Conversation::new(input, output, secrets()),
            theirs_in,
            theirs_out,
        )
    }

    async fn payload(stream: &mut DuplexStream) -> Vec<u8> {
        let length = stream.read_u32().await.unwrap() as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        payload
    }

    async fn request(stream: &mut DuplexStream) -> Frame<serde_json::Value> {
        wire::parse(&payload(stream).await).unwrap()
    }

    fn ask(key: &str) -> Request {
        Request::Ask {
            key: StepKey(key.into()),
        }
    }

    fn status(key: &str) -> Reply {
        Reply::Status {
            key: StepKey(key.into()),
            status: StepStatus::NeverStarted,
        }
    }

    #[tokio::test]
    async fn replies_find_their_requests_in_any_order() {
        let (conversation, mut requests, mut replies) = bench();
        let (mut first, mut second) = (
            conversation.ask(ask("a")).await.unwrap(),
            conversation.ask(ask("b")).await.unwrap(),
        );
        let ids = [
            request(&mut requests).await.id,
            request(&mut requests).await.id,
        ];
        for (id, key) in [(ids[1], "b"), (999, "nobody"), (ids[0], "a")] {
            replies
                .write_all(
                    &wire::encode(&Frame {
                        id,
                        body: status(key),
                    })
                    .unwrap(),
                )
                .await
                .unwrap();
        }
        assert_eq!(first.next().await, Ok(status("a")));
        assert_eq!(second.next().await, Ok(status("b")));
    }

    #[tokio::test]
    async fn secrets_leave_as_values_and_come_back_as_references() {
        let (conversation, mut requests, mut replies) = bench();
        let mut asked = conversation.ask(ask("⟦secret:a.b⟧")).await.unwrap();
        let sent = request(&mut requests).await;
        assert_eq!(sent.body["key"], "correct-horse");
        replies
            .write_all(
                &wire::encode(&Frame {
                    id: sent.id,
                    body: status("correct-horse"),
                })
                .unwrap(),
            )
            .await
            .unwrap();
        assert_eq!(asked.next().await, Ok(status("⟦secret:a.b⟧")));
        let unknown = conversation.ask(ask("⟦secret:a.none⟧")).await.err();
        assert_eq!(
            unknown,
            Some(Broken::UnknownSecret {
                name: "a.none".into()
            })
        );
    }

    #[tokio::test]
    async fn once_there_is_a_key_every_request_is_signed_as_the_host_gets_it() {
        let (conversation, mut requests, _replies) = bench();
        let _first = conversation.ask(ask("a")).await.unwrap();
        let payload = payload(&mut requests).await;
        assert_eq!(wire::unseal(&payload).1, None);
        let key = HostKey::derive("site", "ctl1");
        conversation.sign_with(key.clone(), "nonce".into());
        let _second = conversation.ask(ask("⟦secret:a.b⟧")).await.unwrap();
        let sealed = self::payload(&mut requests).await;
        let (json, signature) = wire::unseal(&sealed);
        assert!(String::from_utf8_lossy(json).contains("correct-horse"));
        assert!(key.verifies("nonce", json, signature.unwrap()));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_reaches_every_request_and_later_ones() {
        let (conversation, _requests, replies) = bench();
        let mut asked = conversation.ask(ask("a")).await.unwrap();
        drop(replies);
        let ended = Broken::Stream {
            found: "the agent ended".into(),
        };
        assert_eq!(asked.next().await, Err(ended.clone()));
        assert_eq!(conversation.ask(ask("b")).await.err(), Some(ended));
        assert!(!conversation.is_open());
    }

    #[tokio::test]
    async fn a_damaged_stream_is_closed_with_its_reason() {
        let (conversation, _requests, mut replies) = bench();
        let mut asked = conversation.ask(ask("a")).await.unwrap();
        replies.write_all(b"\xff\xff\xff\xff").await.unwrap();
        let Err(Broken::Stream { found }) = asked.next().await else {
            panic!("the stream is damaged")
        };
        assert!(found.contains("at most"), "{found}");
    }
}
