//! What every chat adapter must do, as a test that each adapter's own tests run against a real reader.

use std::time::Duration;

use async_trait::async_trait;

use super::{ChatAdapter, Post};
use crate::wording::{Message, Severity};

/// Somebody in the room.
#[async_trait]
pub trait Reader: Send + Sync {
    /// How often a text stands in what was shown so far, in messages and their edits.
    async fn times(&self, text: &str) -> usize;
}

/// How long words may take to be seen.
const SEEN_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Longer than any chat takes in one message.
const LONG_TEXT_BYTES: usize = 200_000;

async fn seen(reader: &dyn Reader, text: &str, times: usize) {
    let start = std::time::Instant::now();
    while start.elapsed() < SEEN_LIMIT {
        if reader.times(text).await == times {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    let found = reader.times(text).await;
    panic!("expected {text:?} to be seen {times} times, found {found}");
}

fn post(room: &str, key: &str, message: Message) -> Post {
    Post {
        room: room.to_owned(),
        key: key.to_owned(),
        edit: None,
        thread: None,
        answers: None,
        message,
    }
}

/// Runs every rule.
///
/// # Panics
/// With the rule that is broken.
pub async fn check(adapter: &dyn ChatAdapter, room: &str, reader: &dyn Reader) {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let key = |name: &str| format!("{name}-{run}");
    let message = |text: &str| Message::new(Severity::Working, format!("{text}-{run}"));
    let text = |text: &str| format!("{text}-{run}");

    let first = post(room, &key("first"), message("first"));
    let event = adapter
        .deliver(&first)
        .await
        .expect("a new message is shown");
    seen(reader, &text("first"), 1).await;

    let again = adapter
        .deliver(&first)
        .await
        .expect("the same key is no error");
    assert_eq!(again, event, "the same key is the same event");

    let edit = Post {
        edit: Some(event.clone()),
        ..post(room, &key("edit"), message("edited"))
    };
    let edited = adapter
        .deliver(&edit)
        .await
        .expect("a message can be edited");
    assert_eq!(
        edited, event,
        "an edit keeps the name of the original event"
    );
    seen(reader, &text("edited"), 1).await;
    seen(reader, &text("first"), 1).await;

    let detail = Message::new(Severity::Info, "details").line(text("detail"));
    let detail = Post {
        thread: Some(event.clone()),
        ..post(room, &key("detail"), detail)
    };
    let page = adapter
        .deliver(&detail)
        .await
        .expect("a message has a thread");
    assert_ne!(page, event, "a detail is an event of its own");
    seen(reader, &text("detail"), 1).await;

    let markup = format!("<b>{run}</b> & \"so\" on");
    let plain = Message::new(Severity::Bad, markup.clone());
    adapter
        .deliver(&post(room, &key("markup"), plain))
        .await
        .expect("markup is only text");
    seen(reader, &markup, 1).await;

    let long = message("long").code("x".repeat(LONG_TEXT_BYTES));
    adapter
        .deliver(&post(room, &key("long"), long))
        .await
        .expect("a long message is cut");
    seen(reader, &text("long"), 1).await;
}
