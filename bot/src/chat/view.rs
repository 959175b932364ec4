//! Messages on a terminal or in a pipe: whole when they are new, only what is new when they are edited, a bar while a job runs.
//! The console and the command line share it.

use std::{collections::HashMap, io::Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::wording::{Block, Message, Progress, render};

/// Messages remembered for comparing edits; older ones are shown whole again.
const REMEMBERED: usize = 256;
/// Columns where the terminal does not say.
const WIDTH: u16 = 100;

/// How lines reach the reader.
pub trait Printer: Send {
    fn print(&mut self, text: &str);
}

/// Straight to standard output; a closed pipe is nobody's fault.
pub struct Stdout;

impl Printer for Stdout {
    fn print(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// What one reader has seen.
pub struct View {
    printer: Box<dyn Printer>,
    colours: bool,
    /// Bars, on terminals only.
    bars: Option<MultiProgress>,
    shown: HashMap<String, Shown>,
}

struct Shown {
    message: Message,
    bar: Option<ProgressBar>,
}

impl View {
    /// For a terminal.
    pub fn terminal(printer: Box<dyn Printer>) -> Self {
        Self {
            printer,
            colours: true,
            bars: Some(MultiProgress::new()),
            shown: HashMap::new(),
        }
    }

    /// For a pipe or a file: plain lines.
    pub fn plain(printer: Box<dyn Printer>) -> Self {
        Self {
            printer,
            colours: false,
            bars: None,
            shown: HashMap::new(),
        }
    }

    /// Shows a message or what an edit of it changes. `id` is the same for all edits.
    pub fn show(&mut self, id: &str, message: &Message) {
        if self.shown.len() > REMEMBERED {
            self.shown.retain(|_, shown| shown.bar.is_some());
        }
        let before = self.shown.remove(id);
        let progress = message.blocks.iter().find_map(|block| match block {
            Block::Progress { progress } => Some(progress),
            _ => None,
        });
        let bar = match (progress, before) {
            (Some(progress), before) => self.running(message, progress, before),
            (None, before) => {
                self.still(message, before);
                None
            }
        };
        self.shown.insert(
            id.to_owned(),
            Shown {
                message: message.clone(),
                bar,
            },
        );
    }

    /// A command of a script, before what it does.
    pub fn echo(&mut self, line: &str) {
        self.print(&format!("> {}", render::clean(line)));
    }

    /// More lines under a message.
    pub fn detail(&mut self, line: &Block) {
        let text = self.block(line);
        self.print(&indented(&text));
    }

    /// Details as a growing page: only what was added is shown.
    pub fn page(&mut self, id: &str, message: &Message) {
        let seen = self
            .shown
            .get(id)
            .map_or(0, |shown| shown.message.blocks.len());
        for line in message.blocks.iter().skip(seen) {
            self.detail(line);
        }
        self.shown.insert(
            id.to_owned(),
            Shown {
                message: message.clone(),
                bar: None,
            },
        );
    }

    /// Takes bars off the screen, before a prompt is shown.
    pub fn clear_bars(&mut self) {
        for shown in self.shown.values_mut() {
            if let Some(bar) = shown.bar.take() {
                bar.finish_and_clear();
            }
        }
    }

    fn running(
        &mut self,
        message: &Message,
        progress: &Progress,
        before: Option<Shown>,
    ) -> Option<ProgressBar> {
        let (said, bar) = before.map_or((None, None), |shown| (Some(shown.message), shown.bar));
        if said.as_ref().map(|message| &message.title) != Some(&message.title) {
            self.print(&self.title(message));
        }
        let known = said.map(|message| message.blocks).unwrap_or_default();
        self.print_new(message, &known);
        let bars = self.bars.as_ref()?;
        let bar = bar.unwrap_or_else(|| {
            let bar = bars.add(ProgressBar::new(u64::from(progress.total)));
            let template = "{bar:24.cyan/dim} {pos}/{len} {elapsed:>4} {wide_msg}";
            bar.with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        bar.set_length(u64::from(progress.total));
        bar.set_position(u64::from(progress.done));
        bar.set_message(render::clean(&progress.label));
        Some(bar)
    }

    fn still(&mut self, message: &Message, before: Option<Shown>) {
        if let Some(bar) = before.as_ref().and_then(|shown| shown.bar.as_ref()) {
            bar.finish_and_clear();
        }
        match before {
            Some(shown) if shown.message == *message => {}
            Some(shown)
                if shown.bar.is_none()
                    && shown.message.title == message.title
                    && shown.message.severity == message.severity =>
            {
                self.print_new(message, &shown.message.blocks);
            }
            _ => {
                let text = if self.colours {
                    render::ansi(message, width())
                } else {
                    render::plain(message)
                };
                self.print(&text);
            }
        }
    }

    /// The blocks that were not there before.
    fn print_new(&mut self, message: &Message, known: &[Block]) {
        for block in &message.blocks {
            if !matches!(block, Block::Progress { .. }) && !known.contains(block) {
                let text = self.block(block);
                self.print(&indented(&text));
            }
        }
    }

    fn title(&self, message: &Message) -> String {
        let bare = Message {
            blocks: Vec::new(),
            ..message.clone()
        };
        if self.colours {
            render::ansi(&bare, width())
        } else {
            render::plain(&bare)
        }
    }

    fn block(&self, block: &Block) -> String {
        if self.colours {
            render::ansi_block(block, width())
        } else {
            render::plain_block(block, WIDTH)
        }
    }

    /// Bars step aside for lines.
    fn print(&mut self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let printer = &mut self.printer;
                bars.suspend(|| printer.print(text));
            }
            None => self.printer.print(text),
        }
    }
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn width() -> u16 {
    // comfy-table knows how to ask the terminal.
    comfy_table::Table::new().width().unwrap_or(WIDTH)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::wording::Severity;

    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Printer for Kept {
        fn print(&mut self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    #[test]
    fn a_job_in_a_pipe() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut view = View::plain(Box::new(Kept(lines.clone())));
        let running =
            |done: u32| Message::new(Severity::Working, "Deploy: running").progress(done, 3, "x");
        let line = |text: &str| Block::Hint { text: text.into() };
        view.show("job", &running(0));
        let page = Message::new(Severity::Info, "Details");
        let page = Message {
            blocks: vec![line("one")],
            ..page
        };
        view.page("job#1", &page);
        view.show("job", &running(1));
        view.page(
            "job#1",
            &Message {
                blocks: vec![line("one"), line("two")],
                ..page
            },
        );
        view.show("job", &running(2).line("step 3 failed: no"));
        view.show("job", &running(2).line("step 3 failed: no"));
        view.show(
            "job",
            &Message::new(Severity::Bad, "Deploy: failed").line("step 3"),
        );
        insta::assert_snapshot!(lines.lock().unwrap().join("\n"));
    }
}
