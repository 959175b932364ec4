//! Chats behind one trait. A chat is a projection of the journal: when it is dead, words wait in the store and nothing else does.

#[doc(hidden)]
pub mod conformance;
pub mod console;
pub mod matrix;
pub mod office;
pub mod view;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{rights::Identity, wording::Message};

/// A room of one adapter, for example `matrix:!abc:example.org` or `console:here`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Room {
    pub adapter: String,
    pub room: String,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.adapter, self.room)
    }
}

impl std::str::FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (adapter, room) = text
            .split_once(':')
            .ok_or_else(|| format!("expected a room as ADAPTER:ROOM, found {text:?}"))?;
        Ok(Self {
            adapter: adapter.to_owned(),
            room: room.to_owned(),
        })
    }
}

/// What a message is about. One subject has one message a room, edited in place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(pub String);

impl Subject {
    pub fn job(id: &impl fmt::Display) -> Self {
        Self(format!("job:{id}"))
    }

    pub fn incident(id: &impl fmt::Display) -> Self {
        Self(format!("incident:{id}"))
    }

    pub fn approval(id: &str) -> Self {
        Self(format!("approval:{id}"))
    }

    /// The answer to one chat event.
    pub fn reply(event: &str) -> Self {
        Self(format!("reply:{event}"))
    }

    /// A page of details in the subject's thread.
    pub fn page(&self, number: u32) -> Self {
        Self(format!("{}#{number}", self.0))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an adapter is asked to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub room: String,
    /// The same for every try at the same words, so that a chat server that knows such keys shows them once.
    pub key: String,
    /// The event to be replaced; `None`: a new message.
    pub edit: Option<String>,
    /// The event whose thread it belongs to.
    pub thread: Option<String>,
    /// The event that is answered.
    pub answers: Option<String>,
    pub message: Message,
}

/// Words of a person.
#[derive(Debug)]
pub struct Incoming {
    pub room: Room,
    pub who: Identity,
    pub text: String,
    /// The chat's name of the event: handled at most once.
    pub event: String,
    pub said: Said,
    /// Whoever waits for the end of it: a script says its next line only then.
    pub done: Option<Done>,
}

/// Tells a waiting adapter how a command ended. Dropping it counts as failed.
#[derive(Debug)]
pub struct Done(pub tokio::sync::oneshot::Sender<bool>);

impl Done {
    pub fn tell(self, ok: bool) {
        // Nobody waits any more: that is no error.
        let _ = self.0.send(ok);
    }
}

/// When words were said, as far as it matters: what was said to a bot that was not there is not done later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Now,
    /// This and `others` of the same person before it in the same room: the moment has passed, none is run.
    WhileAway {
        others: usize,
    },
}

/// Why words could not be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// Dead, cut off or slow: tried again, for ever.
    #[error("{chat} cannot be reached: {why}")]
    Unavailable { chat: String, why: String },
    /// The server asks us to wait.
    #[error("{chat} asks to wait {wait_ms} ms")]
    RateLimited { chat: String, wait_ms: u64 },
    /// Trying again would not help: not in the room, not allowed, too large.
    #[error("{chat} refused: {why}")]
    Refused { chat: String, why: String },
}

/// How fast an adapter may speak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Sustained, messages and edits together.
    pub per_second: f64,
    /// How many may go at once after a silence.
    pub burst: u32,
}

/// The chats of a configuration. A new adapter is one line here.
pub fn configured(loaded: &crate::config::Loaded) -> Vec<std::sync::Arc<dyn ChatAdapter>> {
    let chat = &loaded.config.chat;
    let matrix =
        chat.matrix
            .clone()
            .zip(loaded.matrix_password.clone())
            .map(|(config, password)| {
                let (dir, prefix) = (&loaded.config.state_dir, &chat.prefix);
                std::sync::Arc::new(matrix::Matrix::new(config, password, dir, prefix)) as _
            });
    matrix.into_iter().collect()
}

/// A chat. Everything above it (rights, rate, retries, order, memory) is the [`office`]'s business.
#[async_trait]
pub trait ChatAdapter: Send + Sync {
    /// The first half of its rooms' names.
    fn name(&self) -> &str;

    /// `None`: no limit.
    fn pace(&self) -> Option<Pace>;

    /// What stands before a command here.
    fn prefix(&self) -> &str;

    /// Shows a post and returns the chat's name of the event (of the new message; after an edit, of the original one).
    ///
    /// # Errors
    /// See [`ChatError`]; after `Unavailable` it is unknown whether the words were shown, so the same key comes again.
    async fn deliver(&self, post: &Post) -> Result<String, ChatError>;

    /// Hands over what people say until told to stop. Reconnects by itself.
    async fn listen(&self, inbox: mpsc::Sender<Incoming>, stop: CancellationToken);
}
