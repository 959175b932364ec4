//! `site.yaml`: hosts, and which service runs where.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HostName, ServiceName};

/// A site as written by its operators.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    /// The name of the site; part of lock names.
    pub site: HostName,
    /// How hosts are reached.
    #[serde(default)]
    pub ssh: SshSettings,
    /// Hosts by name. The name is also the host's own host name.
    #[schemars(extend("minProperties" = 1))]
    pub hosts: BTreeMap<HostName, HostSpec>,
    /// Services of the catalogue that run on this site.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Placement>,
}

/// How hosts are reached. Paths are relative to the site file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SshSettings {
    /// The user to log in as; it needs root's rights.
    pub user: String,
    #[schemars(range(min = 1))]
    pub port: u16,
    /// The private key; absent: what OpenSSH would use.
    pub identity: Option<PathBuf>,
    /// The file of known host keys; absent: the user's own. A host whose key is not in it is refused.
    pub known_hosts: Option<PathBuf>,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            user: "root".to_owned(),
            port: 22,
            identity: None,
            known_hosts: None,
        }
    }
}

impl SshSettings {
    /// The same with paths relative to `folder` made whole.
    pub(super) fn under(self, folder: &Path) -> Self {
        Self {
            identity: self.identity.map(|path| folder.join(path)),
            known_hosts: self.known_hosts.map(|path| folder.join(path)),
            ..self
        }
    }
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// The address under which the bot and the other hosts reach it. An address, not a name: repairs must not need name
    /// resolution.
    pub address: String,
    #[serde(default)]
    pub groups: Vec<HostName>,
    /// The failure domain that it shares with others.
    #[serde(default)]
    pub rack: Option<String>,
}

/// Where a service runs and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// A group, a host, or a list of both.
    pub on: OneOrMany<HostName>,
    /// Only what differs from the service's defaults.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
}

/// One entry may be written without a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// A site that was checked.
#[derive(Clone, Debug)]
pub struct Site {
    pub name: String,
    pub ssh: SshSettings,
    pub hosts: BTreeMap<HostName, HostSpec>,
    /// Where it was read from, for messages.
    pub file: String,
}

impl Site {
    /// The hosts that `name` stands for: those of a group, or the host itself. Sorted by name.
    pub fn select(&self, name: &HostName) -> Vec<HostName> {
        let in_group = self
            .hosts
            .iter()
            .filter(|(host, spec)| *host == name || spec.groups.contains(name));
        in_group.map(|(host, _)| host.clone()).collect()
    }
}
