//! The command line's end of the socket.

use std::path::Path;

use super::{Frame, Request, socket};

/// The largest frame, in bytes: a plan of a large site as JSON.
const FRAME_LIMIT_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "expected a running bot at {path}, found: {found}. Start it with `nightshift serve`, or name its configuration with --config"
    )]
    NotRunning { path: String, found: String },
    #[error("the bot's answer broke off: {0}")]
    BrokenOff(String),
}

/// Sends one command and hands every frame to `each`, in order.
pub async fn ask(
    state_dir: &Path,
    request: &Request,
    mut each: impl FnMut(Frame),
) -> Result<(), ClientError> {
    let path = socket(state_dir);
    let not_running = |found: String| ClientError::NotRunning {
        path: path.display().to_string(),
        found,
    };
    let client = reqwest::Client::builder()
        .unix_socket(path.as_path())
        // Nothing is encrypted here, and reading the machine's certificates takes longer than most answers.
        .tls_certs_only([])
        .no_proxy()
        .build()
        .map_err(|error| not_running(chain(&error)))?;
    let mut response = client
        .post("http://nightshift/v1/command")
        .json(request)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| not_running(chain(&error)))?;
    let mut buffer = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| ClientError::BrokenOff(chain(&error)))?
    {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let frame = serde_json::from_slice(&line)
                .map_err(|error| ClientError::BrokenOff(error.to_string()))?;
            each(frame);
        }
        if buffer.len() > FRAME_LIMIT_BYTES {
            return Err(ClientError::BrokenOff(format!(
                "expected frames of at most {FRAME_LIMIT_BYTES} bytes"
            )));
        }
    }
    if buffer.is_empty() {
        Ok(())
    } else {
        Err(ClientError::BrokenOff("half a frame".to_owned()))
    }
}

/// The innermost reason is the one that helps.
fn chain(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
