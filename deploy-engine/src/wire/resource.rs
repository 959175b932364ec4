//! The desired state of one thing on one host. Fully rendered: the agent has no template language.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `kind:name`, unique on a host, for example `file:/etc/memcached.conf`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceId(pub String);

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// In the directory of a [`Resource::Archive`]: what it was made from. Units that restart with it watch this file.
pub const ARCHIVE_MARKER: &str = ".nightshift-archive";

/// A thing on a host and how it should be. `absent: true` asks for its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Resource {
    /// A Debian package. Packages of one [`super::Work::Apply`] are installed in one transaction, without starting services.
    Package {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        #[serde(default)]
        absent: bool,
    },
    /// A deb822 source in `/etc/apt/sources.list.d/NAME.sources`, with its signing key in `Signed-By`.
    AptRepository {
        name: String,
        uris: Vec<String>,
        suites: Vec<String>,
        components: Vec<String>,
        /// ASCII-armoured public key; absent: the system's keyrings.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        #[serde(default)]
        absent: bool,
    },
    File {
        path: String,
        content: String,
        /// Octal, for example `0640`.
        mode: String,
        owner: String,
        group: String,
        /// Run before the file is replaced; the argument `%` stands for the new content's temporary path. Non-zero: refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        validate: Option<Vec<String>>,
        /// Never show its content in a diff.
        #[serde(default)]
        sensitive: bool,
        #[serde(default)]
        absent: bool,
    },
    Directory {
        path: String,
        mode: String,
        owner: String,
        group: String,
        /// Removal takes the whole tree; the agent refuses `/` and the first-level directories.
        #[serde(default)]
        absent: bool,
    },
    /// An artefact with a known checksum, downloaded and unpacked (zip, tar of any compression) into a directory of its own,
    /// which is replaced whole. Its files belong to root, and everybody may read them.
    Archive {
        /// The directory.
        path: String,
        /// `http` or `https`; fetched as apt fetches, through the same proxy.
        url: String,
        /// 64 small hexadecimal digits.
        sha256: String,
        /// Leading parts of the entries' names that are left out.
        #[serde(default)]
        strip: u32,
    },
    Group {
        name: String,
        #[serde(default)]
        system: bool,
        #[serde(default)]
        absent: bool,
    },
    User {
        name: String,
        group: String,
        #[serde(default)]
        groups: Vec<String>,
        home: String,
        shell: String,
        #[serde(default)]
        system: bool,
        #[serde(default)]
        absent: bool,
    },
    /// A systemd unit. The agent keeps, per unit, the digest of the watched files with which it was last started; a unit that
    /// runs with another digest will change, so a restart is never lost, whatever was killed in between.
    Unit {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        running: Option<bool>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        restart_on: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        reload_on: Vec<String>,
    },
    /// A kernel setting: set now, and kept in `/etc/sysctl.d/`. Absent: no longer kept there; the running value stays.
    Sysctl {
        key: String,
        value: String,
        #[serde(default)]
        absent: bool,
    },
    /// A guarded command: run only while `unless` exits non-zero (or `creates` is missing); one of the two is required.
    Command {
        name: String,
        argv: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unless: Option<Vec<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        creates: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stdin: Option<String>,
        timeout_seconds: u32,
    },
    /// Through the local server's socket, as root.
    SqlDatabase {
        name: String,
        charset: String,
        #[serde(default)]
        absent: bool,
    },
    SqlUser {
        name: String,
        /// The client host part, for example `%`.
        from: String,
        password: String,
        #[serde(default)]
        absent: bool,
    },
    SqlGrant {
        user: String,
        from: String,
        /// For example `SELECT, PROCESS`.
        privileges: Vec<String>,
        /// For example `*.*` or `keystone.*`.
        on: String,
    },
    /// Through the management API on loopback, as `api_user`.
    RabbitmqVhost {
        api_port: u16,
        api_user: String,
        api_password: String,
        name: String,
        #[serde(default)]
        absent: bool,
    },
    RabbitmqUser {
        api_port: u16,
        api_user: String,
        api_password: String,
        name: String,
        password: String,
        #[serde(default)]
        tags: Vec<String>,
        /// vhost → (configure, write, read).
        #[serde(default)]
        permissions: std::collections::BTreeMap<String, (String, String, String)>,
        #[serde(default)]
        absent: bool,
    },
    RabbitmqPolicy {
        api_port: u16,
        api_user: String,
        api_password: String,
        vhost: String,
        name: String,
        pattern: String,
        apply_to: String,
        definition: serde_json::Value,
        priority: i64,
        #[serde(default)]
        absent: bool,
    },
}

impl Resource {
    pub fn id(&self) -> ResourceId {
        ResourceId(match self {
            Self::Package { name, .. } => format!("package:{name}"),
            Self::AptRepository { name, .. } => format!("apt_repository:{name}"),
            Self::File { path, .. } => format!("file:{path}"),
            Self::Directory { path, .. } => format!("directory:{path}"),
            Self::Archive { path, .. } => format!("archive:{path}"),
            Self::Group { name, .. } => format!("group:{name}"),
            Self::User { name, .. } => format!("user:{name}"),
            Self::Unit { name, .. } => format!("unit:{name}"),
            Self::Sysctl { key, .. } => format!("sysctl:{key}"),
            Self::Command { name, .. } => format!("command:{name}"),
            Self::SqlDatabase { name, .. } => format!("sql_database:{name}"),
            Self::SqlUser { name, from, .. } => format!("sql_user:{name}@{from}"),
            Self::SqlGrant { user, from, on, .. } => format!("sql_grant:{user}@{from}:{on}"),
            Self::RabbitmqVhost { name, .. } => format!("rabbitmq_vhost:{name}"),
            Self::RabbitmqUser { name, .. } => format!("rabbitmq_user:{name}"),
            Self::RabbitmqPolicy { vhost, name, .. } => format!("rabbitmq_policy:{vhost}:{name}"),
        })
    }
}
