//! The log: standard error for systemd; a file beside an interactive console, whose screen belongs to people.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, fmt},
    util::SubscriberInitExt,
};

use crate::audit::Redactor;

/// File in the state directory, beside an interactive console.
const FILE: &str = "nightshift.log";
/// What is logged unless `RUST_LOG` says otherwise. The SDK calls harmless things errors.
const USUAL: &str = "info,matrix_sdk=off,matrix_sdk_base=off,matrix_sdk_crypto=error,matrix_sdk_sqlite=error,sqlx=warn";
/// In a script only what is wrong stands between the answers.
const SCRIPT: &str = "warn,matrix_sdk=off,matrix_sdk_base=off,matrix_sdk_crypto=error,sqlx=warn";

/// Starts logging; a second start changes nothing.
pub fn start(state_dir: &Path, console: bool, json: bool, redactor: &Redactor) {
    let usual = if console { SCRIPT } else { USUAL };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = fmt().with_env_filter(filter).with_target(false);
    let to_file = console && std::io::stdin().is_terminal();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(state_dir.join(FILE));
    let redactor = redactor.clone();
    let writer = |to| Log {
        to,
        redactor: redactor.clone(),
    };
    let started = match (to_file, file) {
        (true, Ok(file)) => builder
            .with_ansi(false)
            .with_writer(writer(Out::File(Arc::new(Mutex::new(file)))))
            .finish()
            .try_init(),
        _ if json => builder
            .json()
            .with_writer(writer(Out::Stderr))
            .finish()
            .try_init(),
        _ => {
            let ansi = std::io::stderr().is_terminal();
            builder
                .with_ansi(ansi)
                .with_writer(writer(Out::Stderr))
                .finish()
                .try_init()
        }
    };
    // Only tests start it twice.
    let _ = started;
}

#[derive(Clone)]
enum Out {
    Stderr,
    File(Arc<Mutex<File>>),
}

/// Takes out what nobody may read, whatever a library found worth logging.
#[derive(Clone)]
struct Log {
    to: Out,
    redactor: Redactor,
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    /// Gets one whole event at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let clean = self.redactor.text(&text);
        match &self.to {
            Out::Stderr => io::stderr().write_all(clean.as_bytes())?,
            Out::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(clean.as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.to {
            Out::Stderr => io::stderr().flush(),
            Out::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).flush(),
        }
    }
}
