//! Posts as Matrix events, and Matrix errors as chat errors. Pure.

use matrix_sdk::ruma::{
    OwnedEventId,
    api::error::{ErrorKind, RetryAfter},
    events::{
        relation::{InReplyTo, Reply, Thread},
        room::message::{Relation, ReplacementMetadata, RoomMessageEventContent},
    },
};

use super::NAME;
use crate::{
    chat::{ChatError, Post},
    wording::render,
};

/// Waits when the homeserver limits us but does not say for how long.
const UNTOLD_WAIT_MS: u64 = 5_000;

/// The event that shows a post.
pub fn of(post: &Post) -> Result<RoomMessageEventContent, String> {
    let mut content = RoomMessageEventContent::notice_html(
        render::plain(&post.message),
        render::html(&post.message),
    );
    if let Some(original) = &post.edit {
        return Ok(content.make_replacement(ReplacementMetadata::new(event(original)?, None)));
    }
    if let Some(root) = &post.thread {
        let root = event(root)?;
        content.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), root)));
    } else if let Some(question) = &post.answers {
        content.relates_to = Some(Relation::Reply(Reply::new(InReplyTo::new(event(
            question,
        )?))));
    }
    Ok(content)
}

fn event(text: &str) -> Result<OwnedEventId, String> {
    OwnedEventId::try_from(text)
        .map_err(|error| format!("expected an event id, found {text:?}: {error}"))
}

/// What to do about an error: wait, try again, or give up on these words for now.
pub fn chat_error(error: &matrix_sdk::Error) -> ChatError {
    let chat = NAME.to_owned();
    let why = error.to_string();
    match error.client_api_error_kind() {
        Some(ErrorKind::LimitExceeded(limit)) => {
            let wait_ms = match &limit.retry_after {
                Some(RetryAfter::Delay(delay)) => {
                    u64::try_from(delay.as_millis()).unwrap_or(UNTOLD_WAIT_MS)
                }
                _ => UNTOLD_WAIT_MS,
            };
            ChatError::RateLimited { chat, wait_ms }
        }
        Some(
            ErrorKind::Forbidden
            | ErrorKind::TooLarge
            | ErrorKind::BadJson
            | ErrorKind::NotFound
            | ErrorKind::InvalidParam,
        ) => ChatError::Refused { chat, why },
        _ => ChatError::Unavailable { chat, why },
    }
}
