//! Commands of the chat, said to the running bot through its socket.

use std::{io::IsTerminal, path::Path};

use super::{Outcome, wrong};
use crate::{
    chat::{
        office::Update,
        view::{Stdout, View},
    },
    config,
    control::{self, ClientError, Frame, Request},
};

/// Asks, shows, and says whether it went well.
pub async fn ask(config: &Path, line: &str, follow: bool, json: bool) -> Outcome {
    let config = match config::read(config) {
        Ok(config) => config,
        Err(errors) => return wrong(errors),
    };
    match try_ask(&config.state_dir, line, follow, json).await {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("{error}");
            Outcome::Failed
        }
    }
}

/// The same, with "no bot runs" left to the caller.
pub async fn try_ask(
    state_dir: &Path,
    line: &str,
    follow: bool,
    json: bool,
) -> Result<Outcome, ClientError> {
    let mut shown = Shown {
        view: view(),
        json,
        answer: None,
        ok: false,
    };
    let request = Request {
        line: line.to_owned(),
        follow,
    };
    control::ask(state_dir, &request, |frame| shown.frame(frame)).await?;
    if let Some(answer) = shown.answer.filter(|_| json) {
        println!("{answer}");
    }
    Ok(shown.ok.into())
}

/// A view that fits standard output.
pub fn view() -> View {
    if std::io::stdout().is_terminal() {
        View::terminal(Box::new(Stdout))
    } else {
        View::plain(Box::new(Stdout))
    }
}

struct Shown {
    view: View,
    json: bool,
    /// For programs: one object at the end.
    answer: Option<serde_json::Value>,
    ok: bool,
}

impl Shown {
    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Answer { answer } => {
                self.ok = answer.ok;
                if self.json {
                    self.answer = serde_json::to_value(&answer).ok();
                } else {
                    self.view.show("answer", &answer.message);
                }
            }
            Frame::Update { update } if !self.json => match update {
                Update::Message { subject, message } => self.view.show(&subject.0, &message),
                Update::Detail { line, .. } => self.view.detail(&line),
            },
            Frame::Update { .. } => {}
            Frame::Ended { ok, how } => {
                // Of an answer that left something out, the rest may have succeeded.
                self.ok &= ok;
                self.view.clear_bars();
                if let Some(answer) = &mut self.answer {
                    answer["ok"] = self.ok.into();
                    answer["ended"] = how.into();
                } else if !ok {
                    eprintln!("{how}");
                }
            }
        }
    }
}
