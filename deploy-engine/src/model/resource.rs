//! The resources of a service file. The first key names the kind: `{file: /etc/x, template: x.j2}`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Secs, service::PortText, site::OneOrMany};

/// How modes are written.
pub const MODE_PATTERN: &str = "^0?[0-7]{3,4}$";

/// Only for some members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// When the service forms a cluster here.
    Clustered,
    /// When it has one member.
    Single,
    /// On the first of the members.
    FirstMember,
    /// On those that the list in this setting names; an empty list names all.
    ListedIn(String),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ResourceSpec {
    File(FileSpec),
    Archive(ArchiveSpec),
    Directory(DirectorySpec),
    Unit(UnitSpec),
    Sysctl(SysctlSpec),
    Command(CommandSpec),
    User(UserSpec),
    Group(GroupSpec),
    AptRepository(AptRepositorySpec),
    SqlDatabase(SqlDatabaseSpec),
    SqlUser(SqlUserSpec),
    SqlGrant(SqlGrantSpec),
    RabbitmqVhost(RabbitmqVhostSpec),
    RabbitmqUser(RabbitmqUserSpec),
    RabbitmqPolicy(RabbitmqPolicySpec),
}

fn root() -> String {
    "root".to_owned()
}

fn file_mode() -> String {
    "0644".to_owned()
}

fn directory_mode() -> String {
    "0755".to_owned()
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// The path on the host.
    pub file: String,
    /// A file beside `service.yaml`; one of `template`, `content` and `copy` is required.
    #[serde(default)]
    pub template: Option<String>,
    /// A short template right here.
    #[serde(default)]
    pub content: Option<String>,
    /// A file beside `service.yaml`, taken as it is.
    #[serde(default)]
    pub copy: Option<String>,
    /// Octal, in quotes.
    #[serde(default = "file_mode")]
    #[schemars(regex(pattern = MODE_PATTERN))]
    pub mode: String,
    #[serde(default = "root")]
    pub owner: String,
    #[serde(default = "root")]
    pub group: String,
    /// Run before the file is replaced; `%` stands for the new content's path. Non-zero: the file is kept.
    #[serde(default)]
    pub validate: Option<Vec<String>>,
    /// Its content is never shown.
    #[serde(default)]
    pub sensitive: bool,
    /// Units to restart when it changes.
    #[serde(default)]
    pub restart: Option<OneOrMany<String>>,
    /// Units to reload when it changes.
    #[serde(default)]
    pub reload: Option<OneOrMany<String>>,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSpec {
    /// The directory that the artefact becomes. It is replaced whole, so nothing else belongs there.
    pub archive: String,
    /// Where the artefact is downloaded (zip, or tar of any compression); the hosts' apt fetches it, through its proxy.
    pub url: String,
    /// Its checksum: 64 small hexadecimal digits.
    pub sha256: String,
    /// Leading parts of the entries' names that are left out.
    #[serde(default)]
    pub strip: u32,
    /// Units to restart when it changes.
    #[serde(default)]
    pub restart: Option<OneOrMany<String>>,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectorySpec {
    pub directory: String,
    #[serde(default = "directory_mode")]
    #[schemars(regex(pattern = MODE_PATTERN))]
    pub mode: String,
    #[serde(default = "root")]
    pub owner: String,
    #[serde(default = "root")]
    pub group: String,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitSpec {
    pub unit: String,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    pub running: Option<bool>,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SysctlSpec {
    pub sysctl: String,
    pub value: String,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// Its name in plans.
    pub command: String,
    #[schemars(length(min = 1))]
    pub argv: Vec<String>,
    /// Not run when this exits with 0.
    #[serde(default)]
    pub unless: Option<Vec<String>>,
    /// Not run when this file is there.
    #[serde(default)]
    pub creates: Option<String>,
    #[serde(default)]
    pub stdin: Option<String>,
    pub timeout_seconds: Secs,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    pub user: String,
    pub group: String,
    #[serde(default)]
    pub groups: Vec<String>,
    pub home: String,
    #[serde(default = "no_shell")]
    pub shell: String,
    #[serde(default)]
    pub system: bool,
    #[serde(default)]
    pub only: Option<Only>,
}

pub(super) fn no_shell() -> String {
    "/usr/sbin/nologin".to_owned()
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    pub group: String,
    #[serde(default)]
    pub system: bool,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AptRepositorySpec {
    pub apt_repository: String,
    #[schemars(length(min = 1))]
    pub uris: Vec<String>,
    #[schemars(length(min = 1))]
    pub suites: Vec<String>,
    pub components: Vec<String>,
    /// A file beside `service.yaml` with the ASCII-armoured key.
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlDatabaseSpec {
    pub sql_database: String,
    #[serde(default = "utf8")]
    pub charset: String,
    #[serde(default)]
    pub only: Option<Only>,
}

fn utf8() -> String {
    "utf8mb4".to_owned()
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlUserSpec {
    pub sql_user: String,
    /// The client host part, for example `%`.
    pub from: String,
    pub password: String,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlGrantSpec {
    /// The user it is granted to.
    pub sql_grant: String,
    pub from: String,
    #[schemars(length(min = 1))]
    pub privileges: Vec<String>,
    /// For example `*.*`.
    pub on: String,
    #[serde(default)]
    pub only: Option<Only>,
}

/// The management API on the host's loopback, and whom to ask as.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqApi {
    pub port: PortText,
    pub user: String,
    pub password: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqVhostSpec {
    pub rabbitmq_vhost: String,
    pub api: RabbitmqApi,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqUserSpec {
    pub rabbitmq_user: String,
    pub api: RabbitmqApi,
    pub password: String,
    #[serde(default)]
    pub tags: Vec<String>,
    /// vhost → configure, write and read patterns.
    #[serde(default)]
    pub permissions: BTreeMap<String, (String, String, String)>,
    #[serde(default)]
    pub only: Option<Only>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqPolicySpec {
    pub rabbitmq_policy: String,
    pub api: RabbitmqApi,
    pub vhost: String,
    pub pattern: String,
    pub apply_to: String,
    pub definition: BTreeMap<String, Value>,
    #[serde(default)]
    pub priority: i64,
    #[serde(default)]
    pub only: Option<Only>,
}

impl ResourceSpec {
    pub fn only(&self) -> Option<&Only> {
        match self {
            Self::File(spec) => spec.only.as_ref(),
            Self::Archive(spec) => spec.only.as_ref(),
            Self::Directory(spec) => spec.only.as_ref(),
            Self::Unit(spec) => spec.only.as_ref(),
            Self::Sysctl(spec) => spec.only.as_ref(),
            Self::Command(spec) => spec.only.as_ref(),
            Self::User(spec) => spec.only.as_ref(),
            Self::Group(spec) => spec.only.as_ref(),
            Self::AptRepository(spec) => spec.only.as_ref(),
            Self::SqlDatabase(spec) => spec.only.as_ref(),
            Self::SqlUser(spec) => spec.only.as_ref(),
            Self::SqlGrant(spec) => spec.only.as_ref(),
            Self::RabbitmqVhost(spec) => spec.only.as_ref(),
            Self::RabbitmqUser(spec) => spec.only.as_ref(),
            Self::RabbitmqPolicy(spec) => spec.only.as_ref(),
        }
    }
}
