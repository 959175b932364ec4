//! Reading the configuration: the schema's errors, then what a schema cannot say.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use deploy_engine::{
    model::{Diagnostic, Diagnostics, Document, Model, Partly, load_document, load_partly},
    wire::STEP_SECRET,
};
use runbooks::library::Library;

use super::{Config, LogAccess, PostgresConfig, Secret, SecretSource, StoreConfig, TokenSource};
use crate::store::PostgresStore;

/// A configuration whose paths are resolved and whose secrets were read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Name of the source → its webhook token.
    pub webhook_tokens: Vec<(String, Secret)>,
    /// Name of the source → the site's secret that is its webhook token.
    pub site_tokens: Vec<(String, String)>,
    /// Name of the source → the key of its signatures.
    pub signing_keys: Vec<(String, SigningKey)>,
    /// Name of the source → the site's secret that is the key of its signatures, and their window in seconds.
    pub site_keys: Vec<(String, String, u32)>,
    pub matrix_password: Option<Secret>,
    /// Beside each store of logs of the configuration.
    pub logs: Vec<LogAccess>,
    /// The store that bots share; none: the embedded one.
    pub shared_store: Option<PostgresStore>,
    /// The private key of its own certificate, PEM.
    pub tls_key: Option<Secret>,
    /// In the order of the configuration.
    pub icinga2: Vec<super::Icinga2Secrets>,
    /// The address of the dead man's switch, and how often it is called.
    pub heartbeat: Option<(Secret, Duration)>,
}

/// What a source's webhooks are signed with.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub secret: Secret,
    pub window_seconds: u32,
}

/// Reads `path` without its secrets: for those who may not read them. Relative paths in it become relative to its directory.
///
/// # Errors
/// Everything that is wrong, with file, line and column.
pub fn read(path: &Path) -> Result<Config, Diagnostics> {
    let mut config = load_document::<Config>(path)?.value;
    resolve_paths(&mut config, path.parent().unwrap_or(Path::new(".")));
    Ok(config)
}

/// Reads `path` and its secrets. Relative paths in it become relative to its directory.
///
/// # Errors
/// Everything that is wrong, with file, line and column.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let examined = examine(path);
    examined.errors.or(())?;
    examined.loaded.ok_or_else(Diagnostics::default)
}

/// A configuration that may be wrong.
pub struct Examined {
    /// What can be understood of it; `None`: too little.
    pub loaded: Option<Loaded>,
    /// Top-level keys that may not say what was meant: what rests on them is not worth a word.
    pub doubtful: BTreeSet<String>,
    pub errors: Diagnostics,
}

/// As [`load`], for whoever wants to check what else there is.
pub fn examine(path: &Path) -> Examined {
    let Partly {
        document,
        doubtful,
        mut errors,
    } = load_partly::<Config>(path);
    let base = path.parent().unwrap_or(Path::new("."));
    let loaded = document.map(|document| read_secrets(&document, base, &mut errors));
    Examined {
        loaded,
        doubtful,
        errors,
    }
}

fn read_secrets(document: &Document<Config>, base: &Path, errors: &mut Diagnostics) -> Loaded {
    let mut config = document.value.clone();
    resolve_paths(&mut config, base);
    check_names(document, errors);
    let mut loaded = Loaded {
        webhook_tokens: Vec::new(),
        site_tokens: Vec::new(),
        signing_keys: Vec::new(),
        site_keys: Vec::new(),
        matrix_password: None,
        logs: super::logs::read(document, base, errors),
        shared_store: None,
        tls_key: None,
        icinga2: super::icinga2::secrets(document, base, errors),
        heartbeat: None,
        config,
    };
    let mut read = |secret: &SecretSource, at: &[&str]| {
        let read = secret.read(base);
        read.map_err(|why| errors.push(document.error_at(at, why)))
            .ok()
    };
    for (index, source) in loaded.config.sources.alertmanager.iter().enumerate() {
        let index = index.to_string();
        let name = || source.name.clone();
        match &source.signature {
            None => match own(&source.token) {
                Err(site) => loaded.site_tokens.push((name(), site)),
                Ok(secret) => {
                    let token = read(&secret, &["sources", "alertmanager", &index, "token"]);
                    loaded
                        .webhook_tokens
                        .extend(token.map(|token| (name(), token)));
                }
            },
            Some(signature) => match own(&signature.secret) {
                Err(site) => {
                    let window = signature.window_seconds;
                    loaded.site_keys.push((name(), site, window));
                }
                Ok(secret) => {
                    let at = ["sources", "alertmanager", &index, "signature", "secret"];
                    let key = read(&secret, &at).map(|secret| SigningKey {
                        secret,
                        window_seconds: signature.window_seconds,
                    });
                    loaded.signing_keys.extend(key.map(|key| (name(), key)));
                }
            },
        }
    }
    let matrix = loaded.config.chat.matrix.as_ref();
    loaded.matrix_password =
        matrix.and_then(|matrix| read(&matrix.password, &["chat", "matrix", "password"]));
    let tls = loaded.config.tls.as_ref();
    loaded.tls_key = tls.and_then(|tls| read(&tls.key, &["tls", "key"]));
    let heartbeat = loaded.config.heartbeat.as_ref();
    loaded.heartbeat = heartbeat.and_then(|heartbeat| {
        let every = Duration::from_secs(u64::from(heartbeat.every_seconds));
        Some((read(&heartbeat.url, &["heartbeat", "url"])?, every))
    });
    loaded.shared_store = match &loaded.config.store {
        StoreConfig::Embedded => None,
        StoreConfig::Postgres(postgres) => shared_store(document, postgres, base, errors),
    };
    loaded
}

/// Where a secret of its own is; `Err`: the name of one of the site.
pub(super) fn own(source: &TokenSource) -> Result<SecretSource, String> {
    match source {
        TokenSource::File(path) => Ok(SecretSource::File(path.clone())),
        TokenSource::Credential(name) => Ok(SecretSource::Credential(name.clone())),
        TokenSource::Site(secret) => Err(secret.clone()),
    }
}

fn shared_store(
    document: &Document<Config>,
    config: &PostgresConfig,
    base: &Path,
    errors: &mut Diagnostics,
) -> Option<PostgresStore> {
    let password = config.password.as_ref().map(|source| source.read(base));
    let password = match password.transpose() {
        Ok(password) => password,
        Err(why) => {
            let at = ["store", "postgres", "password"];
            errors.push(document.error_at(&at, why));
            return None;
        }
    };
    let store = PostgresStore {
        url: config.url.clone(),
        password,
    };
    match store.check() {
        Ok(()) => Some(store),
        Err(why) => {
            // Without the line it stands in: there may be a password in it.
            let why = format!("store: postgres: url: {why}");
            errors.push(Diagnostic::whole_file(document.source.name(), why));
            None
        }
    }
}

/// A name says which source an alert came from.
fn check_names(document: &Document<Config>, errors: &mut Diagnostics) {
    let sources = &document.value.sources;
    let alertmanager = sources.alertmanager.iter().map(|source| &source.name);
    let prometheus = sources.prometheus.iter().map(|source| &source.name);
    let icinga2 = sources.icinga2.iter().map(|source| &source.name);
    let logs = sources.elasticsearch.iter().map(|source| &source.name);
    let all = (alertmanager.enumerate().map(|of| ("alertmanager", of)))
        .chain(prometheus.enumerate().map(|of| ("prometheus", of)))
        .chain(icinga2.enumerate().map(|of| ("icinga2", of)))
        .chain(logs.enumerate().map(|of| ("elasticsearch", of)));
    let mut names = BTreeSet::new();
    for (kind, (index, name)) in all {
        if !names.insert(name) {
            let at = ["sources", kind, &index.to_string(), "name"];
            errors.push(document.error_at(&at, format!("the name `{name}` is used twice")));
        }
    }
}

/// What is wrong with secrets of the site that sources name.
pub fn check_site_tokens(config: &Config, known: &BTreeSet<String>) -> Vec<String> {
    let is_known = |secret: &str| known.contains(secret) && secret != STEP_SECRET;
    let wrong = |source: &super::AlertmanagerSource| {
        let (at, secret) = match &source.signature {
            Some(signature) => ("signature: secret", &signature.secret),
            None => ("token", &source.token),
        };
        match secret {
            TokenSource::Site(secret) if !is_known(secret) => Some(format!(
                "sources: alertmanager `{}`: {at}: expected a secret of the site's services, found `{secret}`; \
                 is the service deployed here? Otherwise name a `file` or a `credential`",
                source.name
            )),
            _ => None,
        }
    };
    let wrong_log = |store: &super::LogStore| match store.secret() {
        Some((at, TokenSource::Site(secret))) if !is_known(secret) => Some(format!(
            "sources: elasticsearch `{}`: {at}: expected a secret of the site's services, found `{secret}`",
            store.name
        )),
        _ => None,
    };
    let of_icinga = super::icinga2::site_secrets(config).into_iter();
    let of_icinga = of_icinga.filter(|(_, secret)| !is_known(secret));
    let of_icinga = of_icinga.map(|(at, secret)| {
        format!(
            "{at}: expected a secret of the site's services, found `{secret}`; is the service deployed here? \
             Otherwise name a `file`"
        )
    });
    let of_webhooks = config.sources.alertmanager.iter().filter_map(wrong);
    let of_logs = config.sources.elasticsearch.iter().filter_map(wrong_log);
    of_webhooks.chain(of_icinga).chain(of_logs).collect()
}

/// What is wrong with the names in `access`.
pub fn check_access(config: &Config, model: &Model, library: &Library) -> Vec<String> {
    let services = model.services.keys().cloned().collect();
    let groups = model
        .site
        .hosts
        .values()
        .flat_map(|host| host.groups.iter().map(ToString::to_string));
    let runbooks = library.iter().map(|runbook| runbook.runbook.to_string());
    let (groups, runbooks) = (groups.collect(), runbooks.collect());
    config
        .access
        .check(&config.people, &services, &groups, &runbooks)
}

/// Services that the bot is said to need and that this site does not have: most likely another name is meant.
pub fn check_bot_needs(config: &Config, services: &BTreeSet<&str>) -> Vec<String> {
    let named = config.automation.bot_needs.iter();
    let strange = named.filter(|name| !services.contains(name.as_str()));
    strange
        .map(|name| format!("automation: bot_needs: {name} is not deployed on this site"))
        .collect()
}

fn resolve_paths(config: &mut Config, base: &Path) {
    let resolve = |path: &mut PathBuf| *path = base.join(&path);
    resolve(&mut config.site);
    resolve(&mut config.state_dir);
    config.service_dirs.iter_mut().for_each(resolve);
    config.runbook_dirs.iter_mut().for_each(resolve);
    config.signature_dirs.iter_mut().for_each(resolve);
    if let Some(tls) = &mut config.tls {
        resolve(&mut tls.certificate);
        tls.client_ca.as_mut().map(resolve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(store: &str) -> Examined {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nightshift.yaml");
        std::fs::write(&file, format!("site: site.yaml\n{store}\n")).unwrap();
        let secret = dir.path().join("password");
        std::fs::write(&secret, "hush\n").unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        examine(&file)
    }

    #[test]
    fn the_store_is_embedded_unless_told_otherwise() {
        for store in ["", "store: embedded"] {
            let loaded = examined(store).loaded.unwrap();
            assert!(loaded.shared_store.is_none());
        }
    }

    #[test]
    fn a_shared_store_has_its_password_from_a_file() {
        let examined = examined(
            "store: {postgres: {url: postgres://bot@127.0.0.1/night, password: {file: password}}}",
        );
        assert!(examined.errors.0.is_empty(), "{}", examined.errors);
        let loaded = examined.loaded.unwrap();
        let store = loaded.shared_store.as_ref().unwrap();
        assert_eq!(store.password.as_ref().unwrap().reveal(), "hush");
        assert!(!format!("{loaded:?}").contains("hush"));
    }

    #[rstest::rstest]
    #[case("postgres://bot:hush@db/night")]
    #[case("postgres://bot@db/night?password=hush")]
    fn a_password_in_the_address_is_refused_and_not_shown(#[case] url: &str) {
        let examined = examined(&format!("store: {{postgres: {{url: \"{url}\"}}}}"));
        let errors = examined.errors.to_string();
        assert!(errors.contains("without a password"), "{errors}");
        assert!(!errors.contains("hush"), "{errors}");
        assert!(examined.loaded.unwrap().shared_store.is_none());
    }
}
