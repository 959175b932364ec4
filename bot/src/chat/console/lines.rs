//! Lines from a person or from a script.

use std::path::{Path, PathBuf};

use rustyline::{Config, DefaultEditor, ExternalPrinter, error::ReadlineError};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Stdin},
    sync::mpsc,
};

use crate::chat::view::Printer;

const PROMPT: &str = "nightshift> ";
/// Lines of history that are kept.
const HISTORY: usize = 1_000;

/// A source of lines.
pub enum Lines {
    /// Asks for a line only when one is wanted, so that the prompt is not there while a command runs.
    Terminal {
        ask: std::sync::mpsc::Sender<()>,
        answers: mpsc::Receiver<Option<String>>,
    },
    Pipe(tokio::io::Lines<BufReader<Stdin>>),
}

impl Lines {
    pub fn pipe() -> Self {
        Self::Pipe(BufReader::new(tokio::io::stdin()).lines())
    }

    /// Line editing with history, and the printer that writes above the prompt.
    pub fn terminal(history: &Path) -> Result<(Self, Box<dyn Printer>), String> {
        let failed = |error: ReadlineError| format!("the terminal cannot be used: {error}");
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(failed)?
            .build();
        let mut editor = DefaultEditor::with_config(config).map_err(failed)?;
        // There is none before the first run.
        let _ = editor.load_history(history);
        let printer = editor.create_external_printer().map_err(failed)?;
        let (ask, asked) = std::sync::mpsc::channel();
        let (send, answers) = mpsc::channel(1);
        let history = history.to_owned();
        // A thread of its own: reading a line blocks until somebody types one, also while the bot stops.
        std::thread::spawn(move || edit(editor, &history, &asked, &send));
        Ok((
            Self::Terminal { ask, answers },
            Box::new(AbovePrompt(printer)),
        ))
    }

    /// `None`: there are no more.
    pub async fn next(&mut self) -> Option<String> {
        match self {
            Self::Terminal { ask, answers } => {
                ask.send(()).ok()?;
                answers.recv().await.flatten()
            }
            Self::Pipe(lines) => match lines.next_line().await {
                Ok(line) => line,
                Err(error) => {
                    tracing::error!(%error, "standard input cannot be read");
                    None
                }
            },
        }
    }
}

fn edit(
    mut editor: DefaultEditor,
    history: &PathBuf,
    asked: &std::sync::mpsc::Receiver<()>,
    send: &mpsc::Sender<Option<String>>,
) {
    while asked.recv().is_ok() {
        let line = loop {
            match editor.readline(PROMPT) {
                Ok(line) => break Some(line),
                Err(ReadlineError::Interrupted) => continue,
                Err(_) => break None,
            }
        };
        if let Some(line) = line.as_deref().filter(|line| !line.trim().is_empty()) {
            // A history that cannot be kept is no reason to stop listening.
            let _ = editor.add_history_entry(line);
            let _ = editor.save_history(history);
        }
        let ended = line.is_none();
        if send.blocking_send(line).is_err() || ended {
            return;
        }
    }
}

/// Writes above the prompt while one is shown, and plainly otherwise.
struct AbovePrompt<P>(P);

impl<P: ExternalPrinter + Send> Printer for AbovePrompt<P> {
    fn print(&mut self, text: &str) {
        let _ = self.0.print(format!("{text}\n"));
    }
}
