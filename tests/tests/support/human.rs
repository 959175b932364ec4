//! A person with a Matrix client of their own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use matrix_sdk::{
    Client, RoomMemberships,
    config::SyncSettings,
    ruma::{
        OwnedRoomId, OwnedUserId, RoomId, UserId,
        api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset},
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, InitialStateEvent, SyncMessageLikeEvent,
            room::{
                encryption::RoomEncryptionEventContent,
                message::{MessageType, Relation, RoomMessageEventContent},
            },
        },
    },
};
use tokio::sync::Mutex;

/// A message of the bot as this person sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub body: String,
    pub html: String,
    pub answers: Option<String>,
    pub edits: Option<String>,
    pub thread: Option<String>,
}

pub struct Human {
    client: Client,
    id: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

const LOOK: Duration = Duration::from_millis(100);

impl Human {
    pub async fn log_in(url: &str, user: &str, password: &str) -> Human {
        let client = Client::builder().homeserver_url(url).build().await.unwrap();
        client
            .matrix_auth()
            .login_username(user, password)
            .send()
            .await
            .unwrap();
        let id = client.user_id().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let human = Human {
            client: client.clone(),
            id,
            seen: seen.clone(),
        };
        human
            .client
            .sync_once(SyncSettings::new().timeout(Duration::ZERO))
            .await
            .unwrap();
        tokio::spawn(read(client, seen));
        human
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub async fn make_encrypted_room(&self, invited: &[&str]) -> String {
        let mut request = CreateRoom::new();
        request.preset = Some(RoomPreset::PrivateChat);
        request.invite = invited
            .iter()
            .map(|id| UserId::parse(*id).unwrap())
            .collect();
        let encryption = RoomEncryptionEventContent::with_recommended_defaults();
        request.initial_state =
            vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
        self.client
            .create_room(request)
            .await
            .unwrap()
            .room_id()
            .to_string()
    }

    pub async fn join(&self, room: &str) {
        self.client
            .join_room_by_id(&RoomId::parse(room).unwrap())
            .await
            .unwrap();
    }

    /// Says something; the name of the event.
    pub async fn say(&self, room: &str, words: &str) -> String {
        let id: OwnedRoomId = RoomId::parse(room).unwrap();
        let start = std::time::Instant::now();
        // The room is there when the sync that follows the joining came.
        let room = loop {
            match self.client.get_room(&id) {
                Some(room) => break room,
                None if start.elapsed() < Duration::from_secs(20) => tokio::time::sleep(LOOK).await,
                None => panic!("{} is not in {id}", self.id),
            }
        };
        loop {
            // A homeserver that was just restarted may answer late.
            match room.send(RoomMessageEventContent::text_plain(words)).await {
                Ok(sent) => return sent.response.event_id.to_string(),
                Err(_) if start.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(LOOK).await
                }
                Err(error) => panic!("{} could not say {words:?}: {error}", self.id),
            }
        }
    }

    pub async fn seen(&self) -> Vec<Seen> {
        self.seen.lock().await.clone()
    }

    /// Waits until what was seen satisfies `enough`.
    pub async fn wait(&self, limit: Duration, enough: impl Fn(&[Seen]) -> bool) -> bool {
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            if enough(&self.seen.lock().await) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Waits until somebody has joined and their keys are known here.
    pub async fn until_joined(&self, room: &str, user: &str, limit: Duration) -> bool {
        let user: OwnedUserId = UserId::parse(user).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < limit {
            if let Some(room) = self.client.get_room(&RoomId::parse(room).unwrap()) {
                let members = room
                    .members(RoomMemberships::JOIN)
                    .await
                    .unwrap_or_default();
                if members.iter().any(|member| member.user_id() == user)
                    && !self.devices_of(user.as_str()).await.is_empty()
                {
                    return true;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// The devices of a user, as this person's client knows them.
    pub async fn devices_of(&self, user: &str) -> BTreeSet<String> {
        let user: OwnedUserId = UserId::parse(user).unwrap();
        let _ = self.client.encryption().request_user_identity(&user).await;
        let devices = self
            .client
            .encryption()
            .get_user_devices(&user)
            .await
            .unwrap();
        devices
            .devices()
            .map(|device| device.device_id().to_string())
            .collect()
    }
}

async fn read(client: Client, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let settings = SyncSettings::new().timeout(Duration::from_secs(10));
        let Ok(response) = client.sync_once(settings).await else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            continue;
        };
        for update in response.rooms.joined.into_values() {
            for event in update.timeline.events {
                if let Some(message) = understood(&event, &client) {
                    seen.lock().await.push(message);
                }
            }
        }
    }
}

/// A notice of somebody else.
fn understood(
    event: &matrix_sdk::deserialized_responses::TimelineEvent,
    client: &Client,
) -> Option<Seen> {
    let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(
        SyncMessageLikeEvent::Original(message),
    )) = event.raw().deserialize().ok()?
    else {
        return None;
    };
    if Some(message.sender.as_ref()) == client.user_id() {
        return None;
    }
    let (mut kind, mut edits, mut answers, mut thread) =
        (message.content.msgtype, None, None, None);
    match message.content.relates_to {
        Some(Relation::Replacement(replacement)) => {
            kind = replacement.new_content.msgtype;
            edits = Some(replacement.event_id.to_string());
        }
        Some(Relation::Thread(of)) => thread = Some(of.event_id.to_string()),
        Some(Relation::Reply(of)) => answers = Some(of.in_reply_to.event_id.to_string()),
        _ => {}
    }
    let MessageType::Notice(notice) = kind else {
        return None;
    };
    let html = notice
        .formatted
        .map(|formatted| formatted.body)
        .unwrap_or_default();
    Some(Seen {
        body: notice.body,
        html,
        answers,
        edits,
        thread,
    })
}
