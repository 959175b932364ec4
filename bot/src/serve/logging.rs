//! The log: standard error for systemd; a file beside an interactive console, whose screen belongs to people.

use std::{fs::OpenOptions, io::IsTerminal, path::Path, sync::Mutex};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};

/// File in the state directory, beside an interactive console.
const FILE: &str = "nightshift.log";
/// What is logged unless `RUST_LOG` says otherwise. The SDK calls harmless things errors.
const USUAL: &str = "info,matrix_sdk=off,matrix_sdk_base=off,matrix_sdk_crypto=error,matrix_sdk_sqlite=error,sqlx=warn";
/// In a script only what is wrong stands between the answers.
const SCRIPT: &str = "warn,matrix_sdk=off,matrix_sdk_base=off,matrix_sdk_crypto=error,sqlx=warn";

/// Starts logging; a second start changes nothing.
pub fn start(state_dir: &Path, console: bool, json: bool) {
    let usual = if console { SCRIPT } else { USUAL };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = fmt().with_env_filter(filter).with_target(false);
    let to_file = console && std::io::stdin().is_terminal();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(state_dir.join(FILE));
    let started = match (to_file, file) {
        (true, Ok(file)) => builder
            .with_ansi(false)
            .with_writer(Mutex::new(file))
            .finish()
            .try_init(),
        _ if json => builder
            .json()
            .with_writer(std::io::stderr)
            .finish()
            .try_init(),
        _ => {
            let ansi = std::io::stderr().is_terminal();
            builder
                .with_ansi(ansi)
                .with_writer(std::io::stderr)
                .finish()
                .try_init()
        }
    };
    // Only tests start it twice.
    let _ = started;
}
