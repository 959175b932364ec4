//! What the lab is doing: bars on a terminal, plain lines otherwise, with the time of each phase.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// Where progress goes.
#[derive(Debug, Clone)]
pub struct Progress(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

impl Progress {
    /// Says nothing.
    pub fn quiet() -> Progress {
        Progress(Kind::Quiet)
    }

    /// Bars if standard error is a terminal, else one line when a phase ends.
    pub fn to_stderr() -> Progress {
        if std::io::stderr().is_terminal() {
            Progress(Kind::Bars(MultiProgress::new()))
        } else {
            Progress(Kind::Lines)
        }
    }

    /// Starts a phase; it ends with [`Phase::done`] (told with its time) or by being dropped (told as failed).
    pub fn phase(&self, what: &str) -> Phase {
        let bar = match &self.0 {
            Kind::Bars(all) => {
                let bar = all.add(ProgressBar::new_spinner().with_message(what.to_owned()));
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(TICK);
                Some(bar)
            }
            Kind::Quiet | Kind::Lines => None,
        };
        Phase {
            what: what.to_owned(),
            start: Instant::now(),
            lines: matches!(self.0, Kind::Lines),
            bar,
            done: false,
        }
    }

    /// One line of information.
    pub fn say(&self, line: &str) {
        match &self.0 {
            Kind::Quiet => {}
            Kind::Lines => eprintln!("{line}"),
            // A line that cannot be drawn is no reason to stop.
            Kind::Bars(all) => drop(all.println(line)),
        }
    }
}

/// A running phase.
#[derive(Debug)]
pub struct Phase {
    what: String,
    start: Instant,
    lines: bool,
    bar: Option<ProgressBar>,
    done: bool,
}

impl Phase {
    /// The phase ended well.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        let sign = if self.done { "✓" } else { "✗" };
        let line = format!("{sign} {} ({:.1?})", self.what, self.start.elapsed());
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar.finish_with_message(line);
        } else if self.lines {
            eprintln!("{line}");
        }
    }
}
