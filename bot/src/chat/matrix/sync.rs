//! The sync loop: invitations, and what people say.
//!
//! Own loop over `sync_once`: the SDK's own waits a second between two syncs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, RwLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use matrix_sdk::{
    Client, RoomState,
    config::SyncSettings,
    deserialized_responses::{EncryptionInfo, TimelineEvent, VerificationLevel, VerificationState},
    ruma::{
        OwnedRoomId,
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, SyncMessageLikeEvent,
            room::message::{MessageType, Relation},
        },
        serde::Raw,
    },
    sync::SyncResponse,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Matrix, NAME, Online, session};
use crate::{
    chat::{Incoming, Room, Said},
    rights::Identity,
};

/// How long the homeserver holds a sync open when nothing happens.
const LONG_POLL: Duration = Duration::from_secs(30);
/// The first and the longest wait after the homeserver could not be reached.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Words older than this were not meant for now: the homeserver or the way to it was away.
const COMMAND_AGE: SignedDuration = SignedDuration::from_secs(120);
/// Events whose keys have not arrived; keys come in one of the next syncs or never.
const UNDECRYPTED_MAX: usize = 64;

/// Runs until told to stop. Connects, and reconnects with growing pauses.
pub async fn listen(matrix: &Matrix, inbox: mpsc::Sender<Incoming>, stop: CancellationToken) {
    let mut start = Start {
        at: Timestamp::now(),
        synced: false,
    };
    let mut backoff = BACKOFF.0;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = connection(matrix, &inbox, &mut start, &mut backoff) => ended,
        };
        tracing::warn!(why = ended, wait_ms = backoff.as_millis(), "Matrix is away");
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(backoff) => {} }
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// When the bot began to listen: what was said before is not run.
#[derive(Clone, Copy)]
struct Start {
    at: Timestamp,
    /// Did a sync come since? What the first one brings was said before anybody listened.
    synced: bool,
}

/// One connection, from logging in to the error that ended it.
async fn connection(
    matrix: &Matrix,
    inbox: &mpsc::Sender<Incoming>,
    start: &mut Start,
    backoff: &mut Duration,
) -> String {
    let online = match matrix.online() {
        Some(online) => online,
        None => match session::connect(matrix).await {
            Ok((client, restored)) => {
                tracing::info!(restored, device = ?client.device_id(), "logged in to Matrix");
                Arc::new(Online {
                    client,
                    rooms: RwLock::default(),
                })
            }
            Err(why) => return why,
        },
    };
    online.resolve(&matrix.config).await;
    let mut ears = Ears {
        matrix,
        online: online.clone(),
        start: *start,
        undecrypted: VecDeque::new(),
    };
    // What is waiting comes first and at once; after that the server may hold the line.
    let mut poll = Duration::ZERO;
    loop {
        match online
            .client
            .sync_once(SyncSettings::new().timeout(poll))
            .await
        {
            Ok(response) => {
                ears.accept_invitations().await;
                matrix.set_online(Some(online.clone()));
                for incoming in ears.hear(response).await {
                    if inbox.send(incoming).await.is_err() {
                        return "nobody listens any more".to_owned();
                    }
                }
                start.synced = true;
                ears.start = *start;
                (poll, *backoff) = (LONG_POLL, BACKOFF.0);
            }
            Err(error) => {
                if session::is_unknown_token(error.client_api_error_kind()) {
                    matrix.set_online(None);
                }
                return error.to_string();
            }
        }
    }
}

struct Ears<'a> {
    matrix: &'a Matrix,
    online: Arc<Online>,
    start: Start,
    /// With the time at which they came.
    undecrypted: VecDeque<(OwnedRoomId, Raw<AnySyncTimelineEvent>, Timestamp)>,
}

impl Ears<'_> {
    fn client(&self) -> &Client {
        &self.online.client
    }

    /// Joins configured rooms; other invitations are left alone.
    async fn accept_invitations(&self) {
        let invited = self.client().invited_rooms();
        if invited.is_empty() {
            return;
        }
        self.online.resolve(&self.matrix.config).await;
        for room in invited {
            if self.online.name_of(room.room_id()).is_none() {
                tracing::debug!(room = %room.room_id(), "invited to a room that is not configured");
                continue;
            }
            match room.join().await {
                Ok(()) => tracing::info!(room = %room.room_id(), "joined"),
                Err(error) => tracing::warn!(room = %room.room_id(), %error, "could not join"),
            }
        }
    }

    async fn hear(&mut self, response: SyncResponse) -> Vec<Incoming> {
        let now = Timestamp::now();
        // An answer may be long on its way: by its arrival alone, words from before the start could look like later ones.
        let came_now = if self.start.synced {
            now
        } else {
            self.start.at
        };
        let mut heard = Vec::new();
        for (room, event, came) in self.decrypt_late(now).await {
            heard.extend(self.understand(&room, &event, came));
        }
        for (room, update) in response.rooms.joined {
            for event in update.timeline.events {
                if event.kind.is_utd() {
                    if self.undecrypted.len() == UNDECRYPTED_MAX {
                        self.undecrypted.pop_front();
                    }
                    self.undecrypted
                        .push_back((room.clone(), event.into_raw(), came_now));
                } else {
                    heard.extend(self.understand(&room, &event, came_now));
                }
            }
        }
        fold_missed(heard)
    }

    /// Keys may come after the words.
    async fn decrypt_late(
        &mut self,
        now: Timestamp,
    ) -> Vec<(OwnedRoomId, TimelineEvent, Timestamp)> {
        let mut heard = Vec::new();
        for (id, raw, came) in std::mem::take(&mut self.undecrypted) {
            let Some(room) = self.client().get_room(&id) else {
                continue;
            };
            match room.decrypt_event(raw.cast_ref_unchecked(), None).await {
                Ok(event) if !event.kind.is_utd() => heard.push((id, event, came)),
                _ if now.duration_since(came) < COMMAND_AGE => {
                    self.undecrypted.push_back((id, raw, came));
                }
                _ => tracing::warn!(room = %id, "words that could not be decrypted are dropped"),
            }
        }
        heard
    }

    /// A command of a person, if it is one.
    fn understand(
        &self,
        room: &OwnedRoomId,
        event: &TimelineEvent,
        came: Timestamp,
    ) -> Option<Incoming> {
        let name = self.online.name_of(room)?;
        let joined = self.client().get_room(room)?;
        if joined.state() != RoomState::Joined {
            return None;
        }
        let raw = event.raw();
        let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(
            SyncMessageLikeEvent::Original(message),
        )) = raw.deserialize().ok()?
        else {
            return None;
        };
        if Some(message.sender.as_ref()) == self.client().user_id() {
            return None;
        }
        // An edited command is not said again; a notice is another bot's.
        if matches!(message.content.relates_to, Some(Relation::Replacement(_))) {
            return None;
        }
        let MessageType::Text(text) = &message.content.msgtype else {
            return None;
        };
        let text = text.body.trim().strip_prefix(self.matrix.prefix.as_str())?;
        if joined.encryption_state().is_encrypted() && !is_authentic(event.encryption_info()) {
            let info = event.encryption_info().map(|info| &info.verification_state);
            tracing::warn!(sender = %message.sender, ?info, "a command that its sender's device did not encrypt is ignored");
            return None;
        }
        Some(Incoming {
            room: Room {
                adapter: NAME.to_owned(),
                room: name,
            },
            who: Identity::matrix(message.sender.as_str()),
            text: text.to_owned(),
            event: message.event_id.to_string(),
            said: said(age(raw, came), came, self.start.at),
            done: None,
        })
    }
}

/// In an encrypted room only what the sender's own device encrypted counts: anything else could come from the homeserver.
fn is_authentic(info: Option<&Arc<EncryptionInfo>>) -> bool {
    info.is_some_and(|info| {
        !matches!(
            info.verification_state,
            VerificationState::Unverified(
                VerificationLevel::MismatchedSender | VerificationLevel::None(_)
            )
        )
    })
}

/// How old the words are. By the homeserver's clock alone where it says so: clocks differ.
fn age(raw: &Raw<AnySyncTimelineEvent>, now: Timestamp) -> SignedDuration {
    #[derive(serde::Deserialize)]
    struct Unsigned {
        age: Option<i64>,
    }
    if let Ok(Some(Unsigned { age: Some(age) })) = raw.get_field::<Unsigned>("unsigned") {
        return SignedDuration::from_millis(age.max(0));
    }
    match raw.get_field::<i64>("origin_server_ts") {
        Ok(Some(at)) => {
            Timestamp::from_millisecond(at).map_or(SignedDuration::MAX, |at| now.duration_since(at))
        }
        _ => SignedDuration::MAX,
    }
}

fn said(age: SignedDuration, now: Timestamp, since: Timestamp) -> Said {
    let running = now.duration_since(since);
    if age < COMMAND_AGE && age <= running {
        Said::Now
    } else {
        Said::WhileAway { others: 0 }
    }
}

/// Of what was missed of one person in a room only the last is answered.
fn fold_missed(heard: Vec<Incoming>) -> Vec<Incoming> {
    let mut missed: BTreeMap<(Room, Identity), Incoming> = BTreeMap::new();
    let mut live = Vec::new();
    for incoming in heard {
        if incoming.said == Said::Now {
            live.push(incoming);
            continue;
        }
        let from = (incoming.room.clone(), incoming.who.clone());
        let others = match missed.get(&from).map(|before| before.said) {
            Some(Said::WhileAway { others }) => others + 1,
            _ => 0,
        };
        missed.insert(
            from,
            Incoming {
                said: Said::WhileAway { others },
                ..incoming
            },
        );
    }
    missed.into_values().chain(live).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::just_now(0, 600, Said::Now)]
    #[case::a_moment_before_the_start(5, 2, Said::WhileAway { others: 0 })]
    #[case::came_with_the_first_sync(1, 0, Said::WhileAway { others: 0 })]
    #[case::long_on_its_way(121, 6_000, Said::WhileAway { others: 0 })]
    fn only_what_is_said_now_is_run(
        #[case] age: i64,
        #[case] running: i64,
        #[case] expected: Said,
    ) {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let since = now - SignedDuration::from_secs(running);
        assert_eq!(said(SignedDuration::from_secs(age), now, since), expected);
    }

    #[test]
    fn a_backlog_is_answered_once_a_person_and_room() {
        let incoming = |room: &str, user: &str, text: &str, said| Incoming {
            room: room.parse().unwrap(),
            who: Identity::matrix(user),
            text: text.into(),
            event: text.into(),
            said,
            done: None,
        };
        let away = Said::WhileAway { others: 0 };
        let heard = vec![
            incoming("matrix:a", "@ann:x", "deploy site", away),
            incoming("matrix:a", "@ann:x", "approve", away),
            incoming("matrix:a", "@eve:x", "plan", away),
            incoming("matrix:b", "@ann:x", "halt", away),
            incoming("matrix:a", "@ann:x", "status", Said::Now),
        ];
        let folded: Vec<_> = fold_missed(heard)
            .into_iter()
            .map(|i| (i.text, i.said))
            .collect();
        assert_eq!(
            folded,
            [
                ("approve".into(), Said::WhileAway { others: 1 }),
                ("plan".into(), away),
                ("halt".into(), away),
                ("status".to_owned(), Said::Now)
            ]
        );
    }
}
