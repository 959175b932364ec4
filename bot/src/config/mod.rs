//! `nightshift.yaml`: what it may say ([`Config`]), and reading it with all errors at once.

mod files;
mod icinga2;
mod load;
mod logs;
mod secret;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use deploy_engine::model::ServiceName;
use runbooks::storm::StormLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    command::Trust,
    rights::{Access, Identity, Role},
};
pub use files::FilesRead;
pub use icinga2::{AuthoritySource, Given, Icinga2Secrets, Icinga2Source};
pub use load::{
    Examined, Loaded, SigningKey, check_access, check_bot_needs, check_site_tokens, examine, load,
    read,
};
pub use logs::{LogAccess, LogFields, LogStore};
pub use secret::{Secret, SecretSource, TokenSource};

/// The configuration of one bot. Paths are relative to the file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "nightshift.yaml")]
pub struct Config {
    /// The site that this bot looks after.
    pub site: PathBuf,
    /// Where the bot remembers: jobs, alerts, chat keys. Only one bot at a time uses it.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where what must outlive the bot is kept: a file in `state_dir`, or a PostgreSQL that several bots share.
    #[serde(default)]
    pub store: StoreConfig,
    /// Folders of own services beside the built-in ones.
    #[serde(default)]
    pub service_dirs: Vec<PathBuf>,
    /// Folders of own runbooks beside the built-in ones.
    #[serde(default)]
    pub runbook_dirs: Vec<PathBuf>,
    /// Folders of own signatures of logs beside the built-in ones.
    #[serde(default)]
    pub signature_dirs: Vec<PathBuf>,
    /// Where webhooks, health and metrics are served. With `tls` unless it is loopback or a TLS proxy is before it.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Serve HTTPS there instead of HTTP.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    #[serde(default)]
    pub sources: Sources,
    #[serde(default)]
    pub chat: Chat,
    /// Who may do what: identity → role.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"description": "an identity like `matrix:@ann:example.org` or `unix:ann`"}))]
    pub people: BTreeMap<Identity, Role>,
    /// What roles alone do not say: single commands for people, and who has to approve what.
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub automation: Automation,
    #[serde(default)]
    pub limits: Limits,
    /// A dead man's switch outside of the site, which pages when the bot falls silent.
    #[serde(default)]
    pub heartbeat: Option<Heartbeat>,
}

/// Called while the store answers and the healer turns, and not otherwise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The address that is fetched. Whoever knows it can feign that the bot lives, so it is kept like a password.
    pub url: SecretSource,
    #[serde(default = "default_heartbeat_seconds")]
    #[schemars(range(min = 5, max = 3600))]
    pub every_seconds: u32,
}

fn default_heartbeat_seconds() -> u32 {
    60
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/nightshift")
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9190))
}

/// Where the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreConfig {
    /// A file in `state_dir`; one bot.
    #[default]
    Embedded,
    /// A database of PostgreSQL; several bots, of which one leads.
    Postgres(PostgresConfig),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://USER@HOST:PORT/DATABASE`, without a password. Over a network the server's certificate is verified unless
    /// `?sslmode=…` says otherwise; `&sslrootcert=/PATH` names an authority of one's own.
    pub url: String,
    /// Not needed where the server trusts the connection or the bot's certificate.
    #[serde(default)]
    pub password: Option<SecretSource>,
}

/// Where alerts and evidence come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Each sends its webhooks to `/v1/alertmanager`, and is asked for silences.
    #[serde(default)]
    pub alertmanager: Vec<AlertmanagerSource>,
    #[serde(default)]
    pub prometheus: Vec<PrometheusSource>,
    #[serde(default)]
    pub icinga2: Vec<Icinga2Source>,
    /// Signatures are looked for in their lines, and `logs` shows them.
    #[serde(default)]
    pub elasticsearch: Vec<LogStore>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSource {
    /// Its name here, for example `alertmanager`.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// Its own address, to ask for silences and what a webhook left out.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://"))]
    pub url: Option<String>,
    /// Other members of its cluster, whose webhooks carry the same token: their alerts are the same ones, and told once.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^https?://")))]
    pub peers: Vec<String>,
    /// The bearer token that its webhooks carry; by default that of the Alertmanager which this site deploys.
    #[serde(default)]
    pub token: TokenSource,
    /// Its webhooks are signed instead of carrying a token: the secret never travels.
    #[serde(default)]
    pub signature: Option<SignatureConfig>,
}

/// How webhooks are signed: `X-Nightshift-Source: NAME`, `X-Nightshift-Timestamp: SECONDS` and `X-Nightshift-Signature: v1=HEX`, the
/// HMAC-SHA256 of `v1:SECONDS:BODY` with the secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureConfig {
    pub secret: TokenSource,
    /// How far the timestamp may be from the bot's clock, in seconds, either way.
    #[serde(default = "default_window")]
    #[schemars(range(min = 1, max = 3600))]
    pub window_seconds: u32,
}

fn default_window() -> u32 {
    300
}

/// A certificate of its own, and perhaps of those who send webhooks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM: the certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: SecretSource,
    /// PEM: authorities of senders. With it, webhooks need a client certificate that one of these signed, beside their token or
    /// signature; health and metrics do not.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusSource {
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub name: String,
    #[schemars(regex(pattern = r"^https?://"))]
    pub url: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// What stands before a command in a chat.
    #[serde(default = "default_prefix")]
    #[schemars(length(min = 1, max = 8))]
    pub prefix: String,
    #[serde(default)]
    pub matrix: Option<MatrixConfig>,
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            prefix: default_prefix(),
            matrix: None,
        }
    }
}

fn default_prefix() -> String {
    "!".to_owned()
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixConfig {
    #[schemars(regex(pattern = r"^https?://"))]
    pub homeserver: String,
    /// The bot's own account, for example `@nightshift:example.org`.
    #[schemars(regex(pattern = r"^@[^:\s]+:\S+$"))]
    pub user: String,
    pub password: SecretSource,
    /// The only rooms the bot joins and listens in.
    #[schemars(length(min = 1))]
    pub rooms: Vec<RoomConfig>,
    /// Messages and edits a second, sustained. Synapse allows 0.2 unless its `rc_message` says otherwise.
    #[serde(default = "default_rate")]
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub messages_per_second: f64,
    /// Messages and edits at once after a silence. Synapse allows 10.
    #[serde(default = "default_burst")]
    #[schemars(range(min = 1, max = 1000))]
    pub burst: u32,
}

fn default_rate() -> f64 {
    0.2
}

fn default_burst() -> u32 {
    10
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomConfig {
    /// `!id:server` or `#alias:server`.
    #[schemars(regex(pattern = r"^[!#]\S+$"))]
    pub room: String,
    /// Are incidents told here?
    #[serde(default = "yes")]
    pub incidents: bool,
    /// The highest role that anybody has in this room.
    #[serde(default = "highest")]
    pub ceiling: Role,
}

fn yes() -> bool {
    true
}

fn highest() -> Role {
    Role::Admin
}

/// How far the bot acts by itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Automation {
    /// For runbooks that are not named below.
    #[serde(default = "default_trust")]
    pub default: Trust,
    /// Runbook → mode.
    #[serde(default)]
    pub runbooks: BTreeMap<String, Trust>,
    /// Runbooks of class A* (guarded) that this site wants: without this they only ask.
    #[serde(default)]
    pub opt_in: Vec<String>,
    /// Runbook → setting → value: its own settings, and `settle` and `deadline` of its proof, for example
    /// `MEM-1: {settle: 30s}`. For drills and with care; the runbooks' own times are the safe ones.
    #[serde(default)]
    pub settings: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// From when on nothing is repaired, because too much broke at once.
    #[serde(default)]
    pub storm: StormLimits,
    /// Services of the site that the bot itself needs, for its store, its secrets or its chat: it never repairs those. Those
    /// behind whose virtual address the homeserver is are known without this.
    #[serde(default)]
    pub bot_needs: Vec<ServiceName>,
    /// Does `auto` count without proven repairs and a passed drill of the same version? For labs only.
    #[serde(default)]
    pub unearned: bool,
}

impl Default for Automation {
    fn default() -> Self {
        Self {
            default: default_trust(),
            runbooks: BTreeMap::new(),
            opt_in: Vec::new(),
            settings: BTreeMap::new(),
            storm: StormLimits::default(),
            bot_needs: Vec::new(),
            unearned: false,
        }
    }
}

fn default_trust() -> Trust {
    Trust::Ask
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long an approval may be given after it was asked for, in minutes: facts grow old.
    #[serde(default = "default_approval_minutes")]
    #[schemars(range(min = 1, max = 1440))]
    pub approval_minutes: u32,
    /// Must somebody else than the requester approve? `access.approvals` says it by service, runbook or action.
    #[serde(default)]
    pub two_people: bool,
    /// Webhooks a second that one source may send, sustained; twice as many at once. More are asked to come again.
    #[serde(default = "default_webhooks")]
    #[schemars(range(min = 1, max = 100_000))]
    pub webhooks_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            approval_minutes: default_approval_minutes(),
            two_people: false,
            webhooks_per_second: default_webhooks(),
        }
    }
}

/// Less than a bot on one processor takes in when each webhook has one alert (docs/benchmarks.md): a sender that loops does not
/// take the whole bot, and a storm of 50,000 alerts in groups of ten passes in a second.
fn default_webhooks() -> u32 {
    5_000
}

fn default_approval_minutes() -> u32 {
    10
}
