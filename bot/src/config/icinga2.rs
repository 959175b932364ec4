//! What the configuration says of an Icinga, and its secrets.

use std::path::{Path, PathBuf};

use deploy_engine::model::Document;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Secret, SecretSource, TokenSource};

/// An Icinga 2: its hosts and services are followed, and what people say in chat is written back to it. With nothing but a name it is
/// the one that this site deploys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Icinga2Source {
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// The API of each master of one zone, `https://NAME:5665`, with the name that is in its certificate. By default the members of
    /// the service icinga2. A name that is a host of the site is reached at that host's address.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^https://")))]
    pub urls: Vec<String>,
    /// Of the API.
    #[serde(default = "default_user")]
    pub user: String,
    #[serde(default = "default_password")]
    pub password: TokenSource,
    /// Who signed the masters' certificates; nobody else is believed.
    #[serde(default)]
    pub authority: AuthoritySource,
    /// PEM: a certificate and its key, for an API user with `client_cn`.
    #[serde(default)]
    pub certificate: Option<SecretSource>,
}

fn default_user() -> String {
    "nightshift".to_owned()
}

/// What a deploy of the service icinga2 gives to the API user.
fn default_password() -> TokenSource {
    TokenSource::Site("icinga2.nightshift".to_owned())
}

/// Where the certificate of an authority comes from. Exactly one of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthoritySource {
    /// A PEM file; relative to the configuration.
    File(PathBuf),
    /// A certificate of the site: `SERVICE.tls/ca`.
    Site(String),
}

impl Default for AuthoritySource {
    /// What a deploy of the service icinga2 makes.
    fn default() -> Self {
        Self::Site("icinga2.tls/ca".to_owned())
    }
}

/// The largest file of authorities, in bytes: those of a whole system are a quarter of it.
const AUTHORITY_LIMIT_BYTES: u64 = 1024 * 1024;

/// A secret that was read, or the name of one of the site.
#[derive(Clone, Debug)]
pub enum Given {
    Here(Secret),
    Site(String),
}

/// The secrets of one Icinga.
#[derive(Clone, Debug)]
pub struct Icinga2Secrets {
    pub password: Given,
    /// No secret, but kept like one.
    pub authority: Given,
    pub identity: Option<Secret>,
}

/// Reads the secrets of all; what is wrong is told with its place.
pub(super) fn secrets(
    document: &Document<Config>,
    base: &Path,
    errors: &mut deploy_engine::model::Diagnostics,
) -> Vec<Icinga2Secrets> {
    let mut all = Vec::new();
    for (index, source) in document.value.sources.icinga2.iter().enumerate() {
        let index = index.to_string();
        let mut told = |at: &str, why: String| {
            errors.push(document.error_at(&["sources", "icinga2", &index, at], why));
        };
        let password = match super::load::own(&source.password) {
            Ok(secret) => secret.read(base).map(Given::Here),
            Err(site) => Ok(Given::Site(site)),
        };
        let identity = source.certificate.as_ref().map(|one| one.read_large(base));
        let read = (
            password.map_err(|why| told("password", why)),
            authority(&source.authority, base).map_err(|why| told("authority", why)),
            identity.transpose().map_err(|why| told("certificate", why)),
        );
        if let (Ok(password), Ok(authority), Ok(identity)) = read {
            all.push(Icinga2Secrets {
                password,
                authority,
                identity,
            });
        }
    }
    all
}

fn authority(source: &AuthoritySource, base: &Path) -> Result<Given, String> {
    let path = match source {
        AuthoritySource::Site(name) => return Ok(Given::Site(name.clone())),
        AuthoritySource::File(path) => base.join(path),
    };
    let shown = path.display();
    let unreadable = |error| format!("expected a readable PEM file {shown}, found: {error}");
    let length = std::fs::metadata(&path).map_err(unreadable)?.len();
    if length > AUTHORITY_LIMIT_BYTES {
        return Err(format!(
            "expected at most {AUTHORITY_LIMIT_BYTES} bytes in {shown}, found {length}"
        ));
    }
    let text = std::fs::read_to_string(&path).map_err(unreadable)?;
    match text.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(Given::Here(Secret::new(text))),
        false => Err(format!("expected a PEM certificate in {shown}, found none")),
    }
}

/// Secrets of the site that Icingas need: where they are named, and their names.
pub fn site_secrets(config: &Config) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for source in &config.sources.icinga2 {
        let at = |part: &str| format!("sources: icinga2 `{}`: {part}", source.name);
        if let TokenSource::Site(name) = &source.password {
            all.push((at("password"), name.clone()));
        }
        if let AuthoritySource::Site(name) = &source.authority {
            all.push((at("authority"), name.clone()));
        }
    }
    all
}
