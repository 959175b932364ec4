//! Secrets of the configuration: by file or systemd credential, never in the configuration itself.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a secret is read from. Exactly one of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// A file that others cannot read; relative to the configuration.
    File(PathBuf),
    /// The name in `LoadCredential=` of the systemd unit.
    Credential(String),
}

/// Where a webhook's token comes from. Exactly one of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenSource {
    /// A file that others cannot read; relative to the configuration.
    File(PathBuf),
    /// The name in `LoadCredential=` of the systemd unit.
    Credential(String),
    /// A secret of the site, `SERVICE.SECRET`: what a deploy gave to the sender.
    Site(String),
}

impl Default for TokenSource {
    /// What a deploy of the service `alertmanager` gives to it.
    fn default() -> Self {
        Self::Site("alertmanager.webhook".to_owned())
    }
}

/// A secret's value. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// For the one place that hands it on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The largest secret file, in bytes: tokens and passwords have far fewer.
const SECRET_LIMIT_BYTES: u64 = 4096;
/// The largest file with a certificate, those between it and its authority, and its key, in bytes.
const CERTIFICATES_LIMIT_BYTES: u64 = 64 * 1024;

impl SecretSource {
    /// Reads the secret; `base` is the configuration's directory.
    ///
    /// # Errors
    /// What was expected and found, without the secret.
    pub fn read(&self, base: &Path) -> Result<Secret, String> {
        self.read_at_most(base, SECRET_LIMIT_BYTES)
    }

    /// As [`SecretSource::read`], for certificates with their keys.
    ///
    /// # Errors
    /// As there.
    pub fn read_large(&self, base: &Path) -> Result<Secret, String> {
        self.read_at_most(base, CERTIFICATES_LIMIT_BYTES)
    }

    fn read_at_most(&self, base: &Path, limit_bytes: u64) -> Result<Secret, String> {
        let path = match self {
            Self::File(path) => base.join(path),
            Self::Credential(name) => credential(name)?,
        };
        let shown = path.display();
        let metadata = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if metadata.mode() & 0o007 != 0 {
            return Err(format!(
                "expected the secret file {shown} to be closed to others (mode 0600), found mode {:04o}",
                metadata.mode() & 0o7777
            ));
        }
        if metadata.len() > limit_bytes {
            return Err(format!(
                "expected a secret of at most {limit_bytes} bytes in {shown}, found {} bytes",
                metadata.len()
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("expected a secret in {shown}, found it empty")),
            value => Ok(Secret::new(value)),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!(
        "expected a readable secret file {}, found: {error}",
        path.display()
    )
}

fn credential(name: &str) -> Result<PathBuf, String> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(format!(
            "expected the plain name of a systemd credential, found {name:?}"
        ));
    }
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|dir| PathBuf::from(dir).join(name)).ok_or_else(
        || {
            format!(
                "expected systemd to hand over the credential {name}, found no CREDENTIALS_DIRECTORY: \
                 is `LoadCredential={name}:…` in the unit?"
            )
        },
    )
}
