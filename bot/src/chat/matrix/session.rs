//! Logging in once and coming back as the same device.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use matrix_sdk::{
    Client, SqliteStoreConfig, authentication::matrix::MatrixSession, config::RequestConfig,
    ruma::api::error::ErrorKind,
};

use super::{Matrix, REQUEST_LIMIT};

const SESSION_FILE: &str = "session.json";
const KEY_FILE: &str = "store.key";
const DEVICE_NAME: &str = "nightshift";

/// Logs in, or restores the session of earlier runs. Says whether it was restored.
pub async fn connect(matrix: &Matrix) -> Result<(Client, bool), String> {
    let dir = &matrix.dir;
    make_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let key = store_key(&dir.join(KEY_FILE)).map_err(|error| format!("{KEY_FILE}: {error}"))?;
    // A key, not a passphrase: deriving one takes seconds, and it would lie beside the store all the same.
    let store = SqliteStoreConfig::new(dir.join("store")).key(Some(&key));
    let client = Client::builder()
        .homeserver_url(&matrix.config.homeserver)
        .sqlite_store_with_config_and_cache_path(store, None::<&Path>)
        .request_config(RequestConfig::new().timeout(REQUEST_LIMIT).retry_limit(1))
        .build()
        .await
        .map_err(|error| error.to_string())?;
    let path = dir.join(SESSION_FILE);
    let known = read_session(&path)?;
    if let Some(session) = &known {
        client
            .restore_session(session.clone())
            .await
            .map_err(|error| error.to_string())?;
        match client.whoami().await {
            Ok(_) => return Ok((client, true)),
            Err(error) if is_unknown_token(error.client_api_error_kind()) => {
                tracing::warn!("the homeserver has ended the session; logging in again");
                std::fs::remove_file(&path).map_err(|error| error.to_string())?;
                return Err("the session was ended; logging in again".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    log_in(matrix, &client, &path).await?;
    Ok((client, false))
}

pub fn is_unknown_token(kind: Option<&ErrorKind>) -> bool {
    matches!(
        kind,
        Some(ErrorKind::UnknownToken(_) | ErrorKind::MissingToken)
    )
}

async fn log_in(matrix: &Matrix, client: &Client, path: &Path) -> Result<(), String> {
    let auth = client.matrix_auth();
    let login = auth
        .login_username(&matrix.config.user, matrix.password.reveal())
        .initial_device_display_name(DEVICE_NAME);
    // The keys in the store belong to a device: after a lost session it must stay the same one.
    let device = std::fs::read_to_string(matrix.dir.join("device")).ok();
    let login = match &device {
        Some(device) => login.device_id(device.trim()),
        None => login,
    };
    login
        .send()
        .await
        .map_err(|error| format!("logging in as {}: {error}", matrix.config.user))?;
    let session = auth
        .session()
        .ok_or("expected a session after logging in, found none")?;
    let text = serde_json::to_string(&session).map_err(|error| error.to_string())?;
    write_private(
        &matrix.dir.join("device"),
        session.meta.device_id.as_str().as_bytes(),
    )
    .and_then(|()| write_private(path, text.as_bytes()))
    .map_err(|error| format!("keeping the session: {error}"))
}

fn read_session(path: &Path) -> Result<Option<MatrixSession>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("expected a session in {}, found: {error}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The key of the SDK's store: made once from the kernel's randomness.
fn store_key(path: &Path) -> io::Result<[u8; 32]> {
    match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            let found = format!("expected 32 bytes, found {}", bytes.len());
            io::Error::new(io::ErrorKind::InvalidData, found)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut key = [0_u8; 32];
            io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
            write_private(path, &key)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// Whole or not at all, and readable by the owner only.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
