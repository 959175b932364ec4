//! The console: whoever runs the bot, at its terminal or through a pipe.
//!
//! At a terminal: line editing, history, colours, bars. In a pipe: one command a line, each to its end before the next, and
//! whether all succeeded is the end of [`ChatAdapter::listen`], see [`Console::all_succeeded`].

mod lines;

use std::{
    collections::VecDeque,
    io::IsTerminal,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    ChatAdapter, ChatError, Done, Incoming, Pace, Post, Room, Said,
    view::{Stdout, View},
};
use crate::rights::Identity;
use lines::Lines;

pub const NAME: &str = "console";
/// The only room of the console.
pub const ROOM: &str = "here";

/// Posts remembered by their keys; one that comes again does so at once.
const KEYS: usize = 64;

/// The adapter.
pub struct Console {
    who: Identity,
    prefix: String,
    view: Mutex<View>,
    lines: Mutex<Option<Lines>>,
    interactive: bool,
    /// Tells events of this run from those of others, which the store remembers.
    run: uuid::Uuid,
    events: AtomicU64,
    failed: AtomicBool,
    /// Keys of the last posts and their events: a post that comes again is not shown again.
    delivered: Mutex<VecDeque<(String, String)>>,
}

impl Console {
    /// A console on standard input and output. History is kept in the state directory.
    pub fn open(who: Identity, prefix: &str, state_dir: &Path) -> Result<Self, String> {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (lines, view) = if interactive {
            let (lines, printer) = Lines::terminal(&state_dir.join("history"))?;
            (lines, View::terminal(printer))
        } else {
            (Lines::pipe(), View::plain(Box::new(Stdout)))
        };
        Ok(Self::new(who, prefix, lines, view, interactive))
    }

    fn new(who: Identity, prefix: &str, lines: Lines, view: View, interactive: bool) -> Self {
        Self {
            who,
            prefix: prefix.to_owned(),
            view: Mutex::new(view),
            lines: Mutex::new(Some(lines)),
            interactive,
            run: uuid::Uuid::new_v4(),
            events: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            delivered: Mutex::default(),
        }
    }

    pub fn room() -> Room {
        Room {
            adapter: NAME.to_owned(),
            room: ROOM.to_owned(),
        }
    }

    /// False once any command failed.
    pub fn all_succeeded(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.view
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn next_event(&self) -> String {
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.run)
    }

    /// Waits for the end of one command. At a terminal ^C stops the watching, not the job.
    async fn await_end(&self, end: oneshot::Receiver<bool>, stop: &CancellationToken) {
        let ok = if self.interactive {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = end => ended.unwrap_or(false),
                _ = tokio::signal::ctrl_c() => {
                    self.view().clear_bars();
                    return;
                }
            }
        } else {
            tokio::select! { () = stop.cancelled() => return, ended = end => ended.unwrap_or(false) }
        };
        if !ok {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.view().clear_bars();
    }
}

#[async_trait]
impl ChatAdapter for Console {
    fn name(&self) -> &str {
        NAME
    }

    fn pace(&self) -> Option<Pace> {
        None
    }

    fn prefix(&self) -> &str {
        // Not needed here, but understood.
        ""
    }

    async fn deliver(&self, post: &Post) -> Result<String, ChatError> {
        let mut delivered = self
            .delivered
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, id)) = delivered.iter().find(|(key, _)| *key == post.key) {
            return Ok(id.clone());
        }
        let id = post.edit.clone().unwrap_or_else(|| self.next_event());
        if delivered.len() == KEYS {
            delivered.pop_front();
        }
        delivered.push_back((post.key.clone(), id.clone()));
        let mut view = self.view();
        if post.thread.is_some() {
            view.page(&id, &post.message);
        } else {
            view.show(&id, &post.message);
        }
        Ok(id)
    }

    async fn listen(&self, inbox: mpsc::Sender<Incoming>, stop: CancellationToken) {
        let lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let Some(mut lines) = lines else { return };
        loop {
            let line =
                tokio::select! { () = stop.cancelled() => break, line = lines.next() => line };
            let Some(line) = line else { break };
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if !self.interactive {
                self.view().echo(text);
            }
            let (done, end) = oneshot::channel();
            let incoming = Incoming {
                room: Self::room(),
                who: self.who.clone(),
                text: text
                    .strip_prefix(self.prefix.as_str())
                    .unwrap_or(text)
                    .to_owned(),
                event: self.next_event(),
                said: Said::Now,
                done: Some(Done(done)),
            };
            if inbox.send(incoming).await.is_err() {
                break;
            }
            self.await_end(end, &stop).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chat::{conformance, view::Printer};

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Printer for Screen {
        fn print(&mut self, text: &str) {
            let mut screen = self.0.lock().unwrap();
            screen.push_str(text);
            screen.push('\n');
        }
    }

    #[async_trait]
    impl conformance::Reader for Screen {
        async fn times(&self, text: &str) -> usize {
            self.0.lock().unwrap().matches(text).count()
        }
    }

    #[tokio::test]
    async fn conforms() {
        let screen = Screen::default();
        let view = View::plain(Box::new(screen.clone()));
        let console = Console::new(Identity::unix("ann"), "!", Lines::pipe(), view, false);
        conformance::check(&console, ROOM, &screen).await;
    }
}
