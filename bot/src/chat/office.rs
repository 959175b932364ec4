//! The post office: what is said goes into the store first, and from there to the chats, as fast as each allows.
//!
//! One message a subject and room: the latest words win, so a slow chat gets fewer edits, never older ones. Adapters without
//! a pace (the console) get their words at once.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, PoisonError},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::{ChatAdapter, ChatError, Pace, Post, Room, Subject};
use crate::{
    audit::Redactor,
    store::{self, MessageKey, Store, StoreError, Urgency},
    wording::{Block, Message, Severity},
};

/// Updates that a slow follower may be behind before it loses the oldest; it then shows the latest state.
const FOLLOWER_QUEUE: usize = 1_024;
/// How often the queue is looked at without being woken: retries come due.
const LOOK: Duration = Duration::from_secs(1);
/// The first and the longest wait after a chat could not be reached.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long a message that the chat refused waits before it is tried again: somebody has to let the bot in first.
const REFUSED_WAIT: Duration = Duration::from_secs(300);
/// How often and how long a finished command waits for its words to be shown.
const FLUSH_LOOK: Duration = Duration::from_millis(10);
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Lines on one page of details; a page is one message of a thread, edited while it grows.
const PAGE_LINES: usize = 40;
/// How long a message that a bot is sending is left to it: longer than any chat takes to answer.
const CLAIM: Duration = Duration::from_secs(60);
/// Words that wait in memory while the store is away: one message for each subject and room. Past this new subjects are refused.
const WAITING_MAX: usize = 1_000;
/// How long saying something past a store that is away may take.
const ANNOUNCE_LIMIT: Duration = Duration::from_secs(10);

/// Something was said about a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "update", rename_all = "snake_case")]
pub enum Update {
    /// The subject's message is now this.
    Message { subject: Subject, message: Message },
    /// One more detail.
    Detail { subject: Subject, line: Block },
}

impl Update {
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Message { subject, .. } | Self::Detail { subject, .. } => subject,
        }
    }
}

/// A message as it waits in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    message: Message,
    /// The subject whose thread it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thread: Option<Subject>,
    /// The chat's event that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<String>,
}

/// Sends words to chats. Cheap to clone.
#[derive(Clone)]
pub struct Office {
    inner: Arc<Inner>,
    redactor: Redactor,
}

struct Inner {
    store: Store,
    adapters: BTreeMap<String, Arc<dyn ChatAdapter>>,
    updates: broadcast::Sender<Update>,
    wake: Notify,
    /// Details are read, changed and written back: one at a time.
    pages: Mutex<()>,
    waiting: std::sync::Mutex<HashMap<MessageKey, Waiting>>,
}

/// The newest words of a message that the store could not take.
struct Waiting {
    severity: i64,
    body: serde_json::Value,
    at: Timestamp,
}

impl Office {
    pub fn new(store: Store, adapters: Vec<Arc<dyn ChatAdapter>>) -> Self {
        let adapters = adapters
            .into_iter()
            .map(|adapter| (adapter.name().to_owned(), adapter))
            .collect();
        let (updates, _) = broadcast::channel(FOLLOWER_QUEUE);
        let (wake, pages) = (Notify::new(), Mutex::new(()));
        Self {
            inner: Arc::new(Inner {
                store,
                adapters,
                updates,
                wake,
                pages,
                waiting: Default::default(),
            }),
            redactor: Redactor::default(),
        }
    }

    /// Whatever is said from now on goes through `redactor`: nothing that it knows leaves this bot, whoever said it.
    #[must_use]
    pub fn redacting(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    fn clean(&self, message: Message) -> Message {
        self.redactor.value(message, withheld)
    }

    pub fn adapters(&self) -> impl Iterator<Item = &Arc<dyn ChatAdapter>> {
        self.inner.adapters.values()
    }

    /// What stands before a command in the rooms of an adapter.
    pub fn prefix_of(&self, adapter: &str) -> String {
        self.inner
            .adapters
            .get(adapter)
            .map(|adapter| adapter.prefix().to_owned())
            .unwrap_or_default()
    }

    /// Waits until an adapter without a pace has shown everything; others are not waited for.
    pub async fn flush(&self, adapter: &str) {
        if self
            .inner
            .adapters
            .get(adapter)
            .is_none_or(|adapter| adapter.pace().is_some())
        {
            return;
        }
        let shown = async {
            while self.next_of(adapter, Urgency::Story).await.is_some() {
                tokio::time::sleep(FLUSH_LOOK).await;
            }
        };
        // A reader that does not take its words must not hold up the command.
        let _ = tokio::time::timeout(FLUSH_LIMIT, shown).await;
    }

    /// Everything that is said from now on, for those who look on: the console, followers on the control socket.
    pub fn follow(&self) -> broadcast::Receiver<Update> {
        self.inner.updates.subscribe()
    }

    /// Says or edits the message of a subject in `rooms`; durable when it returns.
    pub async fn say(
        &self,
        rooms: &[Room],
        subject: &Subject,
        message: &Message,
    ) -> Result<(), StoreError> {
        let message = &self.clean(message.clone());
        // Nobody may be following: that is no error.
        let _ = self.inner.updates.send(Update::Message {
            subject: subject.clone(),
            message: message.clone(),
        });
        let stored = Stored {
            message: message.clone(),
            thread: None,
            answers: None,
        };
        for room in rooms {
            self.put(room, subject, &stored).await?;
        }
        Ok(())
    }

    /// Adds a line to the thread of a subject in `rooms`.
    pub async fn detail(
        &self,
        rooms: &[Room],
        subject: &Subject,
        title: &str,
        line: Block,
    ) -> Result<(), StoreError> {
        let line = self.redactor.value(line, || Block::Line {
            text: WITHHELD.to_owned(),
            tone: Default::default(),
        });
        let _ = self.inner.updates.send(Update::Detail {
            subject: subject.clone(),
            line: line.clone(),
        });
        let _one_at_a_time = self.inner.pages.lock().await;
        for room in rooms {
            let (page, mut message) = self.open_page(room, subject, title).await?;
            message.blocks.push(line.clone());
            let stored = Stored {
                message,
                thread: Some(subject.clone()),
                answers: None,
            };
            self.put(room, &page, &stored).await?;
        }
        Ok(())
    }

    /// Answers one event.
    pub async fn reply(
        &self,
        room: &Room,
        event: &str,
        message: Message,
    ) -> Result<(), StoreError> {
        let stored = Stored {
            message: self.clean(message),
            thread: None,
            answers: Some(event.to_owned()),
        };
        self.put(room, &Subject::reply(event), &stored).await
    }

    async fn put(&self, room: &Room, subject: &Subject, stored: &Stored) -> Result<(), StoreError> {
        let body = serde_json::to_value(stored).unwrap_or_default();
        let severity = stored.message.severity as i64;
        let key = MessageKey {
            room: room.to_string(),
            subject: subject.to_string(),
        };
        let now = Timestamp::now();
        match self.inner.store.say(&key, severity, &body, now).await {
            Err(error) if error.is_away() => {
                self.wait(key, severity, body, now).map_err(|()| error)
            }
            Err(error) => Err(error),
            Ok(_) => {
                // Newer words than those that may still wait for this message.
                self.waiting().remove(&key);
                self.inner.wake.notify_waiters();
                Ok(())
            }
        }
    }

    fn wait(
        &self,
        key: MessageKey,
        severity: i64,
        body: serde_json::Value,
        at: Timestamp,
    ) -> Result<(), ()> {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(&key) {
            return Err(());
        }
        let words = Waiting { severity, body, at };
        waiting.insert(key, words);
        Ok(())
    }

    /// Gives to the store what it could not take while it was away.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let mut keys: Vec<(Timestamp, MessageKey)> = self
            .waiting()
            .iter()
            .map(|(key, words)| (words.at, key.clone()))
            .collect();
        keys.sort_by_key(|(at, _)| *at);
        for (_, key) in keys {
            let Some(words) = self.waiting().remove(&key) else {
                continue;
            };
            let said = self
                .inner
                .store
                .say(&key, words.severity, &words.body, words.at);
            if let Err(error) = said.await {
                self.waiting().entry(key).or_insert(words);
                return Err(error);
            }
            self.inner.wake.notify_waiters();
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<MessageKey, Waiting>> {
        self.inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something at once and past the store, because that is away. Once; a chat that does not take it is not asked again.
    pub async fn announce(&self, rooms: &[Room], message: &Message) {
        for room in rooms {
            let Some(adapter) = self.inner.adapters.get(&room.adapter) else {
                continue;
            };
            let post = Post {
                key: format!("ns-{}", uuid::Uuid::new_v4().simple()),
                room: room.room.clone(),
                edit: None,
                thread: None,
                answers: None,
                message: message.clone(),
            };
            let delivered = tokio::time::timeout(ANNOUNCE_LIMIT, adapter.deliver(&post)).await;
            if !matches!(delivered, Ok(Ok(_))) {
                tracing::error!(%room, title = message.title, "what could not be stored could not be said either");
            }
        }
    }

    /// The page of a subject's details that is not full yet.
    async fn open_page(
        &self,
        room: &Room,
        subject: &Subject,
        title: &str,
    ) -> Result<(Subject, Message), StoreError> {
        for number in 1.. {
            let page = subject.page(number);
            let key = MessageKey {
                room: room.to_string(),
                subject: page.to_string(),
            };
            let Some(row) = self.inner.store.message(&key).await? else {
                return Ok((page, Message::new(Severity::Info, title)));
            };
            match serde_json::from_value::<Stored>(row.body) {
                Ok(stored) if stored.message.blocks.len() < PAGE_LINES => {
                    return Ok((page, stored.message));
                }
                _ => {}
            }
        }
        unreachable!("some page number is free")
    }

    /// Sends what waits, until told to stop. One loop an adapter: a dead chat holds up nobody else.
    pub async fn run(&self, stop: CancellationToken) {
        let loops = self
            .inner
            .adapters
            .values()
            .map(|adapter| self.drain(adapter, &stop));
        futures::future::join_all(loops).await;
    }

    async fn drain(&self, adapter: &Arc<dyn ChatAdapter>, stop: &CancellationToken) {
        let limiter = adapter.pace().map(limiter);
        let mut backoff = BACKOFF.0;
        loop {
            let woken = self.inner.wake.notified();
            if let Err(error) = self.catch_up().await {
                tracing::debug!(%error, "words wait for the store");
            }
            match self.round(adapter.as_ref(), limiter.as_ref(), stop).await {
                Ok(()) => backoff = BACKOFF.0,
                Err(wait) => {
                    let pause = wait.unwrap_or(backoff);
                    backoff = (backoff * 2).min(BACKOFF.1);
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => continue }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = woken => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sends what waits for one adapter. `Err`: it cannot be reached; wait that long (or as the backoff says).
    async fn round(
        &self,
        adapter: &dyn ChatAdapter,
        limiter: Option<&DefaultDirectRateLimiter>,
        stop: &CancellationToken,
    ) -> Result<(), Option<Duration>> {
        let order = match limiter {
            Some(_) => Urgency::Severity,
            None => Urgency::Story,
        };
        loop {
            if self.next_of(adapter.name(), order).await.is_none() {
                return Ok(());
            }
            if let Some(limiter) = limiter {
                tokio::select! { () = stop.cancelled() => return Ok(()), () = limiter.until_ready() => {} }
            }
            // Chosen after the wait: meanwhile something worse may have happened, or newer words for the same subject.
            let Some(row) = self.next_of(adapter.name(), order).await else {
                return Ok(());
            };
            self.send(adapter, &row).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn next_of(&self, adapter: &str, order: Urgency) -> Option<store::Message> {
        let pending = self
            .inner
            .store
            .pending_messages(adapter, order, Timestamp::now(), 1)
            .await;
        let pending =
            pending.inspect_err(|error| tracing::error!(%error, "the outbox cannot be read"));
        pending.ok()?.pop()
    }

    async fn send(
        &self,
        adapter: &dyn ChatAdapter,
        row: &store::Message,
    ) -> Result<(), Option<Duration>> {
        if !self.claim(row).await? {
            return Ok(());
        }
        let sent = match self.post(row).await {
            Ok(post) => adapter.deliver(&post).await,
            Err(why) => Err(ChatError::Refused {
                chat: adapter.name().to_owned(),
                why,
            }),
        };
        let (recorded, outcome) = match sent {
            Ok(event) => (
                self.inner
                    .store
                    .message_sent(&row.key, row.wanted, &event)
                    .await,
                Ok(()),
            ),
            Err(error) => {
                tracing::warn!(subject = row.key.subject, tries = row.tries, %error, "words wait");
                let (wait, outcome) = match &error {
                    ChatError::Refused { .. } => (REFUSED_WAIT, Ok(())),
                    ChatError::RateLimited { wait_ms, .. } => {
                        let wait = Duration::from_millis(*wait_ms);
                        (Duration::ZERO, Err(Some(wait)))
                    }
                    ChatError::Unavailable { .. } => (Duration::ZERO, Err(None)),
                };
                let next = Timestamp::now() + wait;
                (
                    self.inner
                        .store
                        .message_failed(&row.key, &error.to_string(), next)
                        .await,
                    outcome,
                )
            }
        };
        if let Err(error) = recorded {
            tracing::error!(%error, "the outbox cannot be written");
            return Err(None);
        }
        outcome
    }

    /// Is it this bot that sends a message? Another one may be about to, or has just done so.
    async fn claim(&self, row: &store::Message) -> Result<bool, Option<Duration>> {
        if !self.inner.store.is_shared() {
            return Ok(true);
        }
        let now = Timestamp::now();
        let claimed = self.inner.store.claim_message(row, now, now + CLAIM).await;
        claimed.map_err(|error| {
            tracing::error!(%error, "the outbox cannot be written");
            None
        })
    }

    /// A row of the store as the adapter is to show it.
    async fn post(&self, row: &store::Message) -> Result<Post, String> {
        let stored: Stored = serde_json::from_value(row.body.clone())
            .map_err(|error| format!("the stored message cannot be read: {error}"))?;
        let thread = match &stored.thread {
            None => None,
            Some(subject) => {
                let key = MessageKey {
                    room: row.key.room.clone(),
                    subject: subject.to_string(),
                };
                let root = self
                    .inner
                    .store
                    .message(&key)
                    .await
                    .map_err(|e| e.to_string())?;
                root.and_then(|root| root.event)
            }
        };
        let room: Room = row.key.room.parse()?;
        Ok(Post {
            key: key_of(row),
            room: room.room,
            edit: row.event.clone(),
            thread,
            answers: stored.answers,
            message: stored.message,
        })
    }
}

/// Stands for words that made no sense any more without the secret in them.
const WITHHELD: &str = "These words held a secret and are withheld";

pub(crate) fn withheld() -> Message {
    Message::new(Severity::Bad, WITHHELD)
}

/// The same words get the same key, also after a restart.
fn key_of(row: &store::Message) -> String {
    use sha2::{Digest, Sha256};
    let text = format!("{}\n{}\n{}", row.key.room, row.key.subject, row.wanted);
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("ns-{hex}")
}

fn limiter(pace: Pace) -> DefaultDirectRateLimiter {
    let period = Duration::from_secs_f64(1.0 / pace.per_second.max(0.001));
    let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN));
    RateLimiter::direct(quota.allow_burst(NonZeroU32::new(pace.burst).unwrap_or(NonZeroU32::MIN)))
}

#[cfg(test)]
mod tests;
