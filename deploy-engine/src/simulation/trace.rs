//! What happened, for people. Written only when somebody will read it.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::clock::start;

#[derive(Default)]
pub struct Trace {
    /// The world catches up when somebody looks, so lines come out of their order.
    lines: Option<Mutex<Vec<(Timestamp, String)>>>,
}

impl Trace {
    pub fn written() -> Self {
        Self {
            lines: Some(Mutex::default()),
        }
    }

    pub fn say(&self, at: Timestamp, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push((at, what()));
        }
    }

    /// All lines in the order of time, each with its second.
    pub fn take(&self) -> Vec<String> {
        let Some(lines) = &self.lines else {
            return Vec::new();
        };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.sort_by_key(|(at, _)| *at);
        let told = lines.drain(..).map(|(at, what)| {
            let seconds = at.duration_since(start()).as_secs_f64();
            format!("{seconds:>10.3}  {what}")
        });
        told.collect()
    }
}
