use std::{sync::Mutex as Lock, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::chat::Incoming;

/// A chat that remembers what it showed, and can be dead.
#[derive(Default)]
struct Paper {
    pace: Option<Pace>,
    state: Lock<(bool, Vec<Post>)>,
}

impl Paper {
    fn shown(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let line = |post: &Post| {
            let edit = post
                .edit
                .as_ref()
                .map(|event| format!(" edits {event}"))
                .unwrap_or_default();
            let thread = post
                .thread
                .as_ref()
                .map(|event| format!(" under {event}"))
                .unwrap_or_default();
            format!(
                "{}+{}{edit}{thread}",
                post.message.title,
                post.message.blocks.len()
            )
        };
        state.1.iter().map(line).collect()
    }

    fn set_dead(&self, dead: bool) {
        self.state.lock().unwrap().0 = dead;
    }
}

#[async_trait]
impl ChatAdapter for Paper {
    fn name(&self) -> &str {
        "paper"
    }
    fn pace(&self) -> Option<Pace> {
        self.pace
    }
    fn prefix(&self) -> &str {
        "!"
    }
    async fn deliver(&self, post: &Post) -> Result<String, ChatError> {
        let mut state = self.state.lock().unwrap();
        if state.0 {
            return Err(ChatError::Unavailable {
                chat: "paper".into(),
                why: "dead".into(),
            });
        }
        state.1.push(post.clone());
        Ok(post
            .edit
            .clone()
            .unwrap_or_else(|| format!("e{}", state.1.len())))
    }
    async fn listen(&self, _: mpsc::Sender<Incoming>, _: CancellationToken) {}
}

struct Desk {
    office: Office,
    paper: Arc<Paper>,
    rooms: Vec<Room>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn desk(paper: Paper) -> Desk {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let paper = Arc::new(paper);
    let office = Office::new(store, vec![paper.clone()]);
    let stop = CancellationToken::new();
    let (runner, token) = (office.clone(), stop.clone());
    tokio::spawn(async move { runner.run(token).await });
    Desk {
        office,
        paper,
        rooms: vec!["paper:r".parse().unwrap()],
        stop,
        _dir: dir,
    }
}

impl Desk {
    async fn say(&self, subject: &str, severity: Severity, title: &str) {
        let message = Message::new(severity, title);
        self.office
            .say(&self.rooms, &Subject(subject.into()), &message)
            .await
            .unwrap();
    }

    async fn until(&self, count: usize) -> Vec<String> {
        for _ in 0..200 {
            if self.paper.shown().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.cancel();
        self.paper.shown()
    }
}

#[tokio::test]
async fn one_message_a_subject_edited_in_place_with_details_in_its_thread() {
    let desk = desk(Paper::default()).await;
    desk.say("job:1", Severity::Working, "started").await;
    while desk.paper.shown().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let line = Block::Hint {
        text: "step 1".into(),
    };
    desk.office
        .detail(&desk.rooms, &Subject("job:1".into()), "Details", line)
        .await
        .unwrap();
    while desk.paper.shown().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    desk.say("job:1", Severity::Good, "done").await;
    assert_eq!(
        desk.until(3).await,
        ["started+0", "Details+1 under e1", "done+0 edits e1"]
    );
}

#[tokio::test]
async fn a_slow_chat_gets_the_worst_first_and_only_the_latest_words() {
    let paper = Paper {
        pace: Some(Pace {
            per_second: 4.0,
            burst: 1,
        }),
        ..Paper::default()
    };
    let desk = desk(paper).await;
    desk.say("first", Severity::Info, "first").await;
    while desk.paper.shown().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 1..=5 {
        desk.say("job:1", Severity::Working, &format!("step {number}"))
            .await;
    }
    desk.say("incident:1", Severity::Bad, "VIP lost").await;
    assert_eq!(desk.until(3).await, ["first+0", "VIP lost+0", "step 5+0"]);
}

#[tokio::test]
async fn a_dead_chat_only_delays_words() {
    let desk = desk(Paper::default()).await;
    desk.paper.set_dead(true);
    desk.say("incident:1", Severity::Bad, "down").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    desk.say("incident:1", Severity::Good, "healed").await;
    desk.paper.set_dead(false);
    assert_eq!(desk.until(1).await, ["healed+0"]);
}

#[tokio::test]
async fn details_fill_pages() {
    let desk = desk(Paper::default()).await;
    for number in 0..PAGE_LINES + 1 {
        let line = Block::Hint {
            text: number.to_string(),
        };
        desk.office
            .detail(&desk.rooms, &Subject("job:1".into()), "Details", line)
            .await
            .unwrap();
    }
    let key = |page: u32| MessageKey {
        room: "paper:r".into(),
        subject: format!("job:1#{page}"),
    };
    assert!(
        desk.office
            .inner
            .store
            .message(&key(2))
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        desk.office
            .inner
            .store
            .message(&key(3))
            .await
            .unwrap()
            .is_none()
    );
}
