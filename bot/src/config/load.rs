//! Reading the configuration: the schema's errors, then what a schema cannot say.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use deploy_engine::model::{Diagnostics, load_document};

use super::{Config, Secret, SecretSource, TokenSource};

/// A configuration whose paths are resolved and whose secrets were read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Name of the source → its webhook token.
    pub webhook_tokens: Vec<(String, Secret)>,
    /// Name of the source → the site's secret that is its webhook token.
    pub site_tokens: Vec<(String, String)>,
    pub matrix_password: Option<Secret>,
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
    let document = load_document::<Config>(path)?;
    let base = path.parent().unwrap_or(Path::new(".")).to_owned();
    let mut errors = Diagnostics::default();
    let mut config = document.value.clone();
    resolve_paths(&mut config, &base);

    let (mut webhook_tokens, mut site_tokens) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for (index, source) in config.sources.alertmanager.iter().enumerate() {
        let at = [
            "sources".to_owned(),
            "alertmanager".to_owned(),
            index.to_string(),
        ];
        if !names.insert(source.name.clone()) {
            errors
                .0
                .push(document.error_at(&at, format!("the name `{}` is used twice", source.name)));
        }
        let read = match &source.token {
            TokenSource::Site(secret) => {
                site_tokens.push((source.name.clone(), secret.clone()));
                continue;
            }
            TokenSource::File(path) => SecretSource::File(path.clone()).read(&base),
            TokenSource::Credential(name) => SecretSource::Credential(name.clone()).read(&base),
        };
        match read {
            Ok(token) => webhook_tokens.push((source.name.clone(), token)),
            Err(why) => errors.0.push(document.error_at(&at, why)),
        }
    }
    for (index, source) in config.sources.prometheus.iter().enumerate() {
        let at = [
            "sources".to_owned(),
            "prometheus".to_owned(),
            index.to_string(),
        ];
        if !names.insert(source.name.clone()) {
            errors
                .0
                .push(document.error_at(&at, format!("the name `{}` is used twice", source.name)));
        }
    }
    let matrix_password = match &config.chat.matrix {
        None => None,
        Some(matrix) => match matrix.password.read(&base) {
            Ok(password) => Some(password),
            Err(why) => {
                errors
                    .0
                    .push(document.error_at(&["chat", "matrix", "password"], why));
                None
            }
        },
    };
    if errors.0.is_empty() {
        Ok(Loaded {
            config,
            webhook_tokens,
            site_tokens,
            matrix_password,
        })
    } else {
        Err(errors)
    }
}

/// What is wrong with webhook tokens that are secrets of the site.
pub fn check_site_tokens(config: &Config, known: &BTreeSet<String>) -> Vec<String> {
    let wrong = |source: &super::AlertmanagerSource| match &source.token {
        TokenSource::Site(secret) if !known.contains(secret) => Some(format!(
            "sources: alertmanager `{}`: token: expected a secret of the site's services, found `{secret}`; \
             is the service deployed here? Otherwise name a `file` or a `credential`",
            source.name
        )),
        _ => None,
    };
    config.sources.alertmanager.iter().filter_map(wrong).collect()
}

fn resolve_paths(config: &mut Config, base: &Path) {
    let resolve = |path: &mut PathBuf| *path = base.join(&path);
    resolve(&mut config.site);
    resolve(&mut config.state_dir);
    config.service_dirs.iter_mut().for_each(resolve);
    config.runbook_dirs.iter_mut().for_each(resolve);
}
