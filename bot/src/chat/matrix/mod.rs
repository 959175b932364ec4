//! Matrix, end-to-end encrypted.
//!
//! The bot joins the configured rooms only, on invitation. It keeps its session and keys in the state directory, so a restart
//! is the same device to everybody. A dead homeserver delays words; nothing here is waited for by anything else.

mod content;
mod session;
mod sync;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use matrix_sdk::{
    Client,
    config::RequestConfig,
    ruma::{OwnedRoomId, OwnedTransactionId, RoomOrAliasId},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ChatAdapter, ChatError, Incoming, Pace, Post};
use crate::config::{MatrixConfig, Secret};

/// The first half of the names of its rooms.
pub const NAME: &str = "matrix";
/// How long one request may take (long polls have their own time on top).
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// The adapter.
pub struct Matrix {
    config: MatrixConfig,
    password: Secret,
    /// Session, store key, and the SDK's own store.
    dir: PathBuf,
    prefix: String,
    online: RwLock<Option<Arc<Online>>>,
}

/// A client that has logged in.
struct Online {
    client: Client,
    /// Configured name → room. Aliases that could not be resolved yet are missing.
    rooms: RwLock<BTreeMap<String, OwnedRoomId>>,
}

impl Matrix {
    pub fn new(config: MatrixConfig, password: Secret, state_dir: &Path, prefix: &str) -> Self {
        Self {
            config,
            password,
            dir: state_dir.join("matrix"),
            prefix: prefix.to_owned(),
            online: RwLock::new(None),
        }
    }

    fn online(&self) -> Option<Arc<Online>> {
        self.online
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn set_online(&self, online: Option<Arc<Online>>) {
        *self
            .online
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = online;
    }

    fn unavailable(why: impl Into<String>) -> ChatError {
        ChatError::Unavailable {
            chat: NAME.to_owned(),
            why: why.into(),
        }
    }
}

impl Online {
    fn room(&self, configured: &str) -> Option<OwnedRoomId> {
        let rooms = self
            .rooms
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rooms.get(configured).cloned()
    }

    /// The configured name of a room.
    fn name_of(&self, room: &matrix_sdk::ruma::RoomId) -> Option<String> {
        let rooms = self
            .rooms
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rooms
            .iter()
            .find(|(_, id)| *id == room)
            .map(|(name, _)| name.clone())
    }

    /// Looks up configured aliases that are not known yet.
    async fn resolve(&self, config: &MatrixConfig) {
        for room in &config.rooms {
            if self.room(&room.room).is_some() {
                continue;
            }
            let id =
                match <&RoomOrAliasId>::try_from(room.room.as_str()).map(|name| name.to_owned()) {
                    Err(error) => Err(error.to_string()),
                    Ok(name) => match OwnedRoomId::try_from(name) {
                        Ok(id) => Ok(id),
                        Err(alias) => self
                            .client
                            .resolve_room_alias(&alias)
                            .await
                            .map(|found| found.room_id)
                            .map_err(|error| error.to_string()),
                    },
                };
            match id {
                Ok(id) => {
                    let mut rooms = self
                        .rooms
                        .write()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    rooms.insert(room.room.clone(), id);
                }
                Err(why) => tracing::warn!(room = room.room, why, "the room is not known yet"),
            }
        }
    }
}

#[async_trait]
impl ChatAdapter for Matrix {
    fn name(&self) -> &str {
        NAME
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace {
            per_second: self.config.messages_per_second,
            burst: self.config.burst,
        })
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    async fn deliver(&self, post: &Post) -> Result<String, ChatError> {
        let online = self
            .online()
            .ok_or_else(|| Self::unavailable("not connected yet"))?;
        let refused = |why: String| ChatError::Refused {
            chat: NAME.to_owned(),
            why,
        };
        let room = online
            .room(&post.room)
            .and_then(|id| online.client.get_room(&id))
            .filter(|room| room.state() == matrix_sdk::RoomState::Joined)
            .ok_or_else(|| refused(format!("I am not in the room {}: invite me", post.room)))?;
        let content = content::of(post).map_err(refused)?;
        let sent = room
            .send(content)
            .with_transaction_id(OwnedTransactionId::from(post.key.as_str()))
            .with_request_config(RequestConfig::new().disable_retry().timeout(REQUEST_LIMIT))
            .await;
        match sent {
            // Later edits replace the original event, not the last edit.
            Ok(sent) => Ok(post
                .edit
                .clone()
                .unwrap_or_else(|| sent.response.event_id.to_string())),
            Err(error) => Err(content::chat_error(&error)),
        }
    }

    async fn listen(&self, inbox: mpsc::Sender<Incoming>, stop: CancellationToken) {
        sync::listen(self, inbox, stop).await;
    }
}
