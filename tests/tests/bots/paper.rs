//! A chat that remembers what it showed.

use std::sync::Mutex;

use async_trait::async_trait;
use bot::chat::{ChatAdapter, ChatError, Incoming, Pace, Post};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Paper(Mutex<Vec<String>>);

impl Paper {
    pub fn titles(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl ChatAdapter for Paper {
    fn name(&self) -> &str {
        "paper"
    }
    fn pace(&self) -> Option<Pace> {
        None
    }
    fn prefix(&self) -> &str {
        "!"
    }
    async fn deliver(&self, post: &Post) -> Result<String, ChatError> {
        let mut shown = self.0.lock().unwrap();
        shown.push(post.message.title.to_string());
        Ok(format!("e{}", shown.len()))
    }
    async fn listen(&self, _: mpsc::Sender<Incoming>, _: CancellationToken) {}
}
