//! Stores of logs: where they are, what the bot is to them, and where in a document the parts of a line are.

use std::{fs, path::Path, time::Duration};

use collectors::{
    SourceName,
    api::Credentials,
    elasticsearch::{Fields, Settings},
    logs::Window,
    source::Pace,
};
use deploy_engine::model::{Diagnostics, Document};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, Secret, TokenSource};

/// The largest file of authorities, in bytes: those of a whole system have some hundred thousand.
const AUTHORITIES_LIMIT_BYTES: u64 = 1024 * 1024;

/// An Elasticsearch (5 to 9) or OpenSearch (1 to 3) with the logs of the site. The defaults are Kolla's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogStore {
    /// Its name here, for example `logs`.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// Of nodes of one cluster; the next one is asked when one does not answer.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://")))]
    pub urls: Vec<String>,
    /// Names and patterns of indices.
    #[serde(default = "default_index")]
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^[a-z0-9*][a-z0-9*._:+-]{0,127}$"))
    )]
    pub index: Vec<String>,
    #[serde(default)]
    pub fields: LogFields,
    /// PEM: the only authorities that are believed; without it those of the system.
    #[serde(default)]
    pub ca_file: Option<std::path::PathBuf>,
    /// As the server gives it out, in base64. It needs to read the indices and to see what the server is (`monitor`).
    #[serde(default)]
    pub api_key: Option<TokenSource>,
    /// Instead of a key: a user, with `password`.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub password: Option<TokenSource>,
    /// How often it is asked for what is new, in seconds.
    #[serde(default = "default_every")]
    #[schemars(range(min = 1, max = 600))]
    pub every_seconds: u32,
    /// A line that becomes searchable later than so long after its own time is not seen by signatures, in seconds.
    #[serde(default = "default_late")]
    #[schemars(range(min = 30, max = 600))]
    pub late_seconds: u32,
    /// For one answer, in seconds.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 120))]
    pub timeout_seconds: u32,
}

fn default_index() -> Vec<String> {
    vec!["flog-*".to_owned()]
}

fn default_every() -> u32 {
    10
}

fn default_late() -> u32 {
    180
}

fn default_timeout() -> u32 {
    30
}

/// Of several names the first that a document has counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogFields {
    /// When the program wrote the line; mapped as a date.
    #[schemars(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$"))]
    pub time: String,
    /// When the store took it in; mapped as a date. With it lines are read in this order, in which none is late.
    #[schemars(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$"))]
    pub ingested: Option<String>,
    #[schemars(inner(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$")))]
    pub host: Vec<String>,
    #[schemars(inner(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$")))]
    pub program: Vec<String>,
    #[schemars(inner(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$")))]
    pub level: Vec<String>,
    #[schemars(inner(regex(pattern = r"^[@A-Za-z0-9_.-]{1,128}$")))]
    pub text: Vec<String>,
}

impl Default for LogFields {
    fn default() -> Self {
        let Fields {
            time,
            ingested,
            host,
            program,
            level,
            text,
        } = Fields::default();
        Self {
            time,
            ingested,
            host,
            program,
            level,
            text,
        }
    }
}

/// What of a store of logs had to be read from files.
#[derive(Clone, Debug, Default)]
pub struct LogAccess {
    pub authorities: Option<Vec<u8>>,
    /// Its key or password, if it has one and that is not of the site.
    pub secret: Option<Secret>,
}

impl LogStore {
    /// Its key or its password, and the key of the configuration that names it.
    pub fn secret(&self) -> Option<(&'static str, &TokenSource)> {
        let key = self.api_key.as_ref().map(|key| ("api_key", key));
        key.or(self
            .password
            .as_ref()
            .map(|password| ("password", password)))
    }

    /// How it is asked.
    pub fn settings(&self, access: &LogAccess) -> Settings {
        let secret = access.secret.as_ref().map(Secret::reveal);
        let credentials = secret.map(|secret| match &self.user {
            Some(user) => Credentials::Basic {
                user: user.clone(),
                password: secret.to_owned(),
            },
            None => Credentials::Token {
                scheme: "ApiKey",
                token: secret.to_owned(),
            },
        });
        Settings {
            name: SourceName(self.name.clone()),
            urls: self.urls.clone(),
            authorities: access.authorities.clone(),
            credentials,
            answer_within: Duration::from_secs(u64::from(self.timeout_seconds)),
            index: self.index.clone(),
            fields: self.fields.clone().into(),
            window: Window {
                late: SignedDuration::from_secs(i64::from(self.late_seconds)),
                ..Window::default()
            },
            pace: Pace {
                every: Duration::from_secs(u64::from(self.every_seconds)),
                ..Pace::ASKED
            },
        }
    }
}

impl From<LogFields> for Fields {
    fn from(fields: LogFields) -> Self {
        Self {
            time: fields.time,
            ingested: fields.ingested,
            host: fields.host,
            program: fields.program,
            level: fields.level,
            text: fields.text,
        }
    }
}

/// What is wrong with stores of logs that a schema cannot say, and what their files hold.
pub(super) fn read(
    document: &Document<Config>,
    base: &Path,
    errors: &mut Diagnostics,
) -> Vec<LogAccess> {
    let stores = document.value.sources.elasticsearch.iter();
    let access = stores.enumerate().map(|(index, store)| {
        let index = index.to_string();
        let mut wrong = |key: &str, why: String| {
            let at = ["sources", "elasticsearch", &index, key];
            errors.push(document.error_at(&at, why));
        };
        for (key, why) in contradictions(store) {
            wrong(key, why.to_owned());
        }
        let mut access = LogAccess::default();
        if let Some(path) = &store.ca_file {
            match authorities(&base.join(path)) {
                Ok(pem) => access.authorities = Some(pem),
                Err(why) => wrong("ca_file", why),
            }
        }
        if let Some((key, source)) = store.secret()
            && let Ok(source) = super::load::own(source)
        {
            match source.read(base) {
                Ok(secret) => access.secret = Some(secret),
                Err(why) => wrong(key, why),
            }
        }
        access
    });
    access.collect()
}

fn contradictions(store: &LogStore) -> Vec<(&'static str, &'static str)> {
    let key = store.api_key.is_some();
    let wrong = [
        (
            key && (store.user.is_some() || store.password.is_some()),
            (
                "api_key",
                "expected a key or a user with a password, found both",
            ),
        ),
        (
            store.user.is_some() && store.password.is_none(),
            ("user", "expected a `password` beside it"),
        ),
        (
            store.password.is_some() && store.user.is_none(),
            ("password", "expected a `user` beside it"),
        ),
        (
            store.secret().is_some() && store.urls.iter().any(|url| in_the_open(url)),
            (
                "urls",
                "expected https:// for an account: its secret would travel in the open",
            ),
        ),
        (
            store.fields.text.is_empty() || store.fields.program.is_empty(),
            (
                "fields",
                "expected at least one field for the program and one for the text",
            ),
        ),
    ];
    let wrong = wrong.into_iter().filter(|(is, _)| *is);
    wrong.map(|(_, what)| what).collect()
}

fn in_the_open(url: &str) -> bool {
    let own = ["127.0.0.1", "[::1]", "localhost"];
    let host = url.strip_prefix("http://");
    host.is_some_and(|host| {
        !own.iter().any(|own| {
            host.strip_prefix(own)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
    })
}

fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let unreadable = |error| format!("expected a readable file {shown}, found: {error}");
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > AUTHORITIES_LIMIT_BYTES {
        return Err(format!(
            "expected at most {AUTHORITIES_LIMIT_BYTES} bytes in {shown}, found {length}"
        ));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::examine;

    /// What is wrong with a configuration that has this store of logs.
    fn errors(store: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nightshift.yaml");
        let text =
            format!("site: site.yaml\nsources: {{elasticsearch: [{{name: logs, {store}}}]}}\n");
        std::fs::write(&file, text).unwrap();
        let secret = dir.path().join("key");
        std::fs::write(&secret, "hush\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let examined = examine(&file);
        let errors = examined.errors.to_string();
        assert!(!errors.contains("hush"), "{errors}");
        if examined.errors.is_empty() {
            let loaded = examined.loaded.unwrap();
            assert!(!format!("{loaded:?}").contains("hush"));
            let settings = loaded.config.sources.elasticsearch[0].settings(&loaded.logs[0]);
            assert!(!format!("{settings:?}").contains("hush"));
            return String::new();
        }
        errors
    }

    #[rstest::rstest]
    #[case("urls: [\"https://es1:9200\"]", "")]
    #[case("urls: [\"https://es1:9200\"], api_key: {file: key}", "")]
    #[case(
        "urls: [\"http://127.0.0.1:9200\"], user: bot, password: {file: key}",
        ""
    )]
    #[case("urls: []", "urls")]
    #[case("urls: [\"ftp://es1\"]", "urls")]
    #[case("urls: [\"https://es1\"], index: [\"../_all\"]", "index")]
    #[case("urls: [\"https://es1\"], fields: {time: \"a b\"}", "time")]
    #[case("urls: [\"https://es1\"], fields: {text: []}", "one for the text")]
    #[case("urls: [\"https://es1\"], late_seconds: 5", "late_seconds")]
    #[case("urls: [\"http://es1\"], api_key: {file: key}", "in the open")]
    #[case(
        "urls: [\"http://127.0.0.1.evil\"], api_key: {file: key}",
        "in the open"
    )]
    #[case(
        "urls: [\"https://es1\"], api_key: {file: key}, user: bot, password: {file: key}",
        "found both"
    )]
    #[case("urls: [\"https://es1\"], user: bot", "expected a `password`")]
    #[case("urls: [\"https://es1\"], password: {file: key}", "expected a `user`")]
    #[case("urls: [\"https://es1\"], api_key: {file: gone}", "gone")]
    #[case("urls: [\"https://es1\"], ca_file: gone.pem", "gone.pem")]
    fn what_a_store_of_logs_may_say(#[case] store: &str, #[case] part: &str) {
        let errors = errors(store);
        match part {
            "" => assert_eq!(errors, ""),
            part => assert!(errors.contains(part), "{errors}"),
        }
    }
}
