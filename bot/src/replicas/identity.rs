//! The name of a bot among others, and whether it may be one of them.

use std::{fs, io, path::Path};

use deploy_engine::model::Model;
use sha2::{Digest, Sha256};

use crate::store::{Store, StoreError};

/// File in the state directory with the name of the bot that had it last.
const FILE: &str = "replica";
/// The space of the store with a digest of each secret of the site.
const SECRETS: &str = "secret";

/// Who this bot is.
pub struct Identified {
    /// New with every start.
    pub id: String,
    /// Who had this state directory before. Its lock is ours by now, so that one is dead.
    pub before: Option<String>,
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Gives this start a name of its own. The lock of the state directory must be held.
pub fn identify(state_dir: &Path) -> io::Result<Identified> {
    let path = state_dir.join(FILE);
    let before = match fs::read_to_string(&path) {
        Ok(name) => Some(name.trim().to_owned()).filter(|name| !name.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let chance = uuid::Uuid::new_v4().simple().to_string();
    let id = format!("{}:{}:{}", host_name(), std::process::id(), &chance[..8]);
    fs::write(&path, &id)?;
    Ok(Identified { id, before })
}

/// Are the secrets those of the other bots? One that made its own would deploy other passwords than they did. The store keeps a
/// digest of each; whoever comes first says what it is.
///
/// # Errors
/// The names of those that differ, or the store's error.
pub async fn same_secrets<'a>(
    store: &Store,
    secrets: impl IntoIterator<Item = (&'a str, String)>,
) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    let mut different = Vec::new();
    for (name, value) in secrets {
        let digest = digest(name, &value);
        let known = store
            .put_once(SECRETS, name, &digest)
            .await
            .map_err(failed)?;
        if known != digest {
            different.push(name);
        }
    }
    match different.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "expected the secrets of the site that the other bots have, found others for {}: \
             copy the folder `secrets` of a running bot's state directory here",
            different.join(", ")
        )),
    }
}

/// A digest of what steps are made of and judged by: hosts with their addresses, and services with their settings. Not of where
/// files lie, which may differ from bot to bot.
pub fn model_digest(model: &Model) -> String {
    let site = &model.site;
    let told = format!(
        "{}\n{}\n{}\n{:?}\n{:?}",
        site.name, site.ssh.user, site.ssh.port, site.hosts, model.services
    );
    digest("model", &told)
}

fn digest(name: &str, value: &str) -> String {
    let digest = Sha256::digest(format!("nightshift\n{name}\n{value}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_a_name_of_its_own_and_knows_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let first = identify(dir.path()).unwrap();
        assert_eq!(first.before, None);
        let second = identify(dir.path()).unwrap();
        assert_eq!(second.before, Some(first.id.clone()));
        assert_ne!(first.id, second.id);
    }

    #[test]
    fn bots_have_read_the_same_wherever_their_files_lie_and_not_with_another_address_or_setting() {
        let digest = |address: &str, size: u32| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("site.yaml");
            let text = format!(
                "site: demo\nssh: {{identity: key, known_hosts: known}}\nhosts: {{a: {{address: {address}}}}}\n\
                 services: {{memcached: {{on: a, settings: {{memory_megabytes: {size}}}}}}}\n"
            );
            fs::write(&path, text).unwrap();
            model_digest(&Model::load(&path, &[]).unwrap_or_else(|errors| panic!("{errors}")))
        };
        let one = digest("10.0.0.1", 64);
        assert_eq!(one, digest("10.0.0.1", 64));
        assert_ne!(one, digest("10.0.0.2", 64));
        assert_ne!(one, digest("10.0.0.1", 65));
    }

    #[tokio::test]
    async fn a_bot_with_other_secrets_is_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let with = |value: &str| [("mariadb.root", value.to_owned()), ("x.y", "same".into())];
        same_secrets(&store, with("one")).await.unwrap();
        same_secrets(&store, with("one")).await.unwrap();
        let why = same_secrets(&store, with("two")).await.unwrap_err();
        assert!(why.contains("for mariadb.root:"), "{why}");
        assert!(!why.contains("two"), "{why}");
        let kept = store.get(SECRETS, "mariadb.root").await.unwrap().unwrap();
        assert!(!kept.contains("one"));
    }
}
