//! How the Icinga of the configuration is reached.

use std::{net::SocketAddr, time::Duration};

use collectors::{
    SourceName,
    api::{Connection, Credentials},
    icinga2::Icinga2Client,
};
use deploy_engine::{model::Model, secrets::SecretStore, transport::Secrets};

use crate::config::{Given, Icinga2Source, Loaded, Secret};

/// For one whole answer: the objects of ten thousand checks are some megabytes.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Of Icinga's API.
const PORT: u16 = 5665;

/// One source, with its secrets and the addresses of its masters.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// Of each master, and where its name is if it is a host of this site.
    pub masters: Vec<(String, Option<SocketAddr>)>,
    pub user: String,
    pub password: Secret,
    /// PEM.
    pub authority: Secret,
    /// PEM: the bot's own certificate and key.
    pub identity: Option<Secret>,
}

/// All of the configuration, with the site's secrets in their places.
///
/// # Errors
/// A secret or the masters are missing.
pub fn settings(
    loaded: &Loaded,
    secrets: &SecretStore,
    model: &Model,
) -> Result<Vec<Settings>, String> {
    let given = |given: &Given| match given {
        Given::Here(secret) => Ok(secret.clone()),
        Given::Site(name) => match secrets.reveal(name) {
            Some(value) => Ok(Secret::new(value.to_string())),
            None => Err(format!(
                "expected the secret {name} of the site, found none"
            )),
        },
    };
    let sources = loaded.config.sources.icinga2.iter().zip(&loaded.icinga2);
    let settings = sources.map(|(source, own)| {
        Ok::<_, String>(Settings {
            name: source.name.clone(),
            masters: masters(source, model)?,
            user: source.user.clone(),
            password: given(&own.password)?,
            authority: given(&own.authority)?,
            identity: own.identity.clone(),
        })
    });
    settings.collect()
}

/// # Errors
/// An address or a certificate that is none.
pub fn client(settings: &Settings) -> Result<Icinga2Client, String> {
    let connection = |(url, address): &(String, Option<SocketAddr>)| Connection {
        url: url.clone(),
        address: *address,
        credentials: Some(Credentials::Basic {
            user: settings.user.clone(),
            password: settings.password.reveal().to_owned(),
        }),
        authorities: Some(settings.authority.reveal().as_bytes().to_vec()),
        identity: settings
            .identity
            .as_ref()
            .map(|pem| pem.reveal().as_bytes().to_vec()),
        answer_within: ANSWER_WITHIN,
    };
    let masters: Vec<_> = settings.masters.iter().map(connection).collect();
    let client = Icinga2Client::new(SourceName(settings.name.clone()), &masters);
    client.map_err(|error| format!("{}: {error}", settings.name))
}

/// The masters of a source: those that it names, or those that this site deploys. A master that is a host of the site is reached at
/// the site's address of it.
///
/// # Errors
/// There are none.
fn masters(
    source: &Icinga2Source,
    model: &Model,
) -> Result<Vec<(String, Option<SocketAddr>)>, String> {
    let deployed = model
        .services
        .iter()
        .find(|(name, _)| name.as_str() == "icinga2");
    let urls = match (source.urls.is_empty(), deployed) {
        (false, _) => source.urls.clone(),
        (true, None) => {
            return Err(format!(
                "sources: icinga2 `{}`: expected `urls`, or the service icinga2 on this site",
                source.name
            ));
        }
        (true, Some((_, deployment))) => {
            let port = deployment
                .settings
                .get("port")
                .and_then(|port| port.as_u64());
            let port = port.unwrap_or(u64::from(PORT));
            let members = deployment.members.iter();
            members
                .map(|host| format!("https://{host}:{port}"))
                .collect()
        }
    };
    let located = |url: String| {
        let address = located(&url, model);
        (url, address)
    };
    Ok(urls.into_iter().map(located).collect())
}

fn located(url: &str, model: &Model) -> Option<SocketAddr> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split('/').next()?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let (_, spec) = model
        .site
        .hosts
        .iter()
        .find(|(name, _)| name.as_str() == host)?;
    Some(SocketAddr::new(
        spec.address.parse().ok()?,
        port.parse().ok()?,
    ))
}
