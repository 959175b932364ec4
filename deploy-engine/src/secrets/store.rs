//! Reading, generating and writing, under a lock that other processes respect.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, RwLock},
};

use age::{secrecy::ExposeSecret, x25519};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use rand::{Rng, distr::Alphanumeric};
use rustix::fs::{FlockOperation, flock};

use super::{
    Secret,
    certificate::{self, Wanted},
};
use crate::transport::Secrets;

/// Characters of a generated secret: 32 letters and digits are 190 bits, and need no quoting in any configuration file.
const GENERATED_LENGTH: usize = 32;

/// The end of the names of keys for Ceph, which takes no other form of secret.
const CEPH_KEY: &str = "_cephx";

const IDENTITY: &str = "identity";
const STORE: &str = "secrets.age";

/// Why the secrets cannot be had. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{path}: expected to {what}, found: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{missing}: expected the file beside {present}, found none; restore it from a backup (new secrets would lock the site's services out)"
    )]
    HalfThere { missing: PathBuf, present: PathBuf },
    #[error("{path}: expected {expected}, found {found}")]
    Unreadable {
        path: PathBuf,
        expected: &'static str,
        found: String,
    },
    #[error("{name}: expected to make a key and a certificate, found: {found}")]
    Certificate { name: String, found: String },
}

/// The secrets of one site.
pub struct SecretStore {
    folder: PathBuf,
    identity: x25519::Identity,
    values: RwLock<BTreeMap<String, Secret>>,
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretStore({})", self.folder.display())
    }
}

impl SecretStore {
    /// Opens the folder, or makes it with a new identity and no secrets if there is none.
    ///
    /// # Errors
    /// One of the two files is missing, or cannot be read or decrypted.
    pub fn open(folder: &Path) -> Result<Self, SecretError> {
        if !folder.exists() {
            create(folder)?;
        }
        let (identity_path, store_path) = (folder.join(IDENTITY), folder.join(STORE));
        for (missing, present) in [(&identity_path, &store_path), (&store_path, &identity_path)] {
            if !missing.exists() {
                return Err(SecretError::HalfThere {
                    missing: missing.clone(),
                    present: present.clone(),
                });
            }
        }
        let text = fs::read_to_string(&identity_path).map_err(io("read", &identity_path))?;
        let identity =
            x25519::Identity::from_str(text.trim()).map_err(|error| SecretError::Unreadable {
                path: identity_path,
                expected: "an age identity",
                found: error.to_owned(),
            })?;
        let values = RwLock::new(read(&store_path, &identity)?);
        Ok(Self {
            folder: folder.to_owned(),
            identity,
            values,
        })
    }

    /// Generates what is missing of `names` and writes it durably before it can be used. Returns how many were new.
    pub fn ensure<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<usize, SecretError> {
        let wanted: Vec<&str> = {
            let values = self.read_values();
            names
                .into_iter()
                .filter(|name| !values.contains_key(*name))
                .collect()
        };
        if wanted.is_empty() {
            return Ok(0);
        }
        let _lock = lock(&self.folder)?;
        let path = self.folder.join(STORE);
        let mut values = read(&path, &self.identity)?;
        let before = values.len();
        for name in wanted {
            make(&mut values, name)?;
        }
        let new = values.len() - before;
        write(&path, &self.identity, &values)?;
        *self.values.write().unwrap_or_else(|held| held.into_inner()) = values;
        Ok(new)
    }

    fn read_values(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Secret>> {
        self.values.read().unwrap_or_else(|held| held.into_inner())
    }
}

impl Secrets for SecretStore {
    fn reveal(&self, name: &str) -> Option<Arc<str>> {
        self.read_values().get(name).map(Secret::reveal)
    }

    fn all_values(&self) -> Vec<(String, Arc<str>)> {
        self.read_values()
            .iter()
            .map(|(name, secret)| (name.clone(), secret.reveal()))
            .collect()
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SecretError {
    let path = path.to_owned();
    move |source| SecretError::Io { what, path, source }
}

/// Makes what the name asks for, unless it is there, and before it what it is made from.
fn make(values: &mut BTreeMap<String, Secret>, name: &str) -> Result<Arc<str>, SecretError> {
    if let Some(secret) = values.get(name) {
        return Ok(secret.reveal());
    }
    let failed = |error: rcgen::Error| SecretError::Certificate {
        name: name.to_owned(),
        found: error.to_string(),
    };
    let key_of = |certificate: &str| format!("{certificate}{}", certificate::KEY);
    let secret = match Wanted::of(name) {
        Wanted::Password => generate(name, &mut rand::rng()),
        Wanted::Key => Secret(certificate::new_key().map_err(failed)?.into()),
        Wanted::Authority { service } => {
            let key = make(values, &key_of(name))?;
            Secret(
                certificate::new_authority(service, &key)
                    .map_err(failed)?
                    .into(),
            )
        }
        Wanted::Member { service, host } => {
            let key = make(values, &key_of(name))?;
            let authority_key = make(values, &key_of(&certificate::authority_name(service)))?;
            let made = certificate::new_member(service, host, &key, &authority_key);
            Secret(made.map_err(failed)?.into())
        }
    };
    let value = secret.reveal();
    values.insert(name.to_owned(), secret);
    Ok(value)
}

/// The name says the kind.
fn generate(name: &str, random: &mut impl Rng) -> Secret {
    match name.ends_with(CEPH_KEY) {
        true => ceph_key(random),
        false => words(random),
    }
}

/// Type (1: AES), time of creation in seconds and nanoseconds, length, key; little endian (Ceph's `CryptoKey::encode`). The time
/// is left zero: nothing reads it.
fn ceph_key(random: &mut impl Rng) -> Secret {
    let mut bytes = [0; 28];
    bytes[0] = 1;
    bytes[10] = 16;
    random.fill(&mut bytes[12..]);
    Secret(STANDARD.encode(bytes).into())
}

fn words(random: &mut impl Rng) -> Secret {
    let text: String = random
        .sample_iter(Alphanumeric)
        .take(GENERATED_LENGTH)
        .map(char::from)
        .collect();
    Secret(text.into())
}

/// Both files appear together, so that half a store can only come from a loss.
fn create(folder: &Path) -> Result<(), SecretError> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io("create", parent))?;
    let draft = folder.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_dir_all(&draft);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&draft)
        .map_err(io("create", &draft))?;
    let identity = x25519::Identity::generate();
    write_private(
        &draft.join(IDENTITY),
        identity.to_string().expose_secret().as_bytes(),
    )?;
    write(&draft.join(STORE), &identity, &BTreeMap::new())?;
    match fs::rename(&draft, folder) {
        Err(_) if folder.exists() => fs::remove_dir_all(&draft).map_err(io("remove", &draft)),
        other => other.map_err(io("create", folder)),
    }
}

fn read(path: &Path, identity: &x25519::Identity) -> Result<BTreeMap<String, Secret>, SecretError> {
    let unreadable = |expected, found| SecretError::Unreadable {
        path: path.to_owned(),
        expected,
        found,
    };
    let sealed = fs::read(path).map_err(io("read", path))?;
    let plain = age::decrypt(identity, &sealed).map_err(|error| {
        unreadable(
            "a file encrypted for the identity beside it",
            error.to_string(),
        )
    })?;
    let texts: BTreeMap<String, String> = serde_json::from_slice(&plain).map_err(|_| {
        unreadable(
            "names and values in JSON",
            "something else (not shown)".to_owned(),
        )
    })?;
    Ok(texts
        .into_iter()
        .map(|(name, text)| (name, Secret(text.into())))
        .collect())
}

fn write(
    path: &Path,
    identity: &x25519::Identity,
    values: &BTreeMap<String, Secret>,
) -> Result<(), SecretError> {
    let texts: BTreeMap<&str, String> = values
        .iter()
        .map(|(name, secret)| (name.as_str(), secret.reveal().to_string()))
        .collect();
    let failed = |found: String| SecretError::Unreadable {
        path: path.to_owned(),
        expected: "to encrypt the secrets",
        found,
    };
    let plain = serde_json::to_vec(&texts).map_err(|error| failed(error.to_string()))?;
    let sealed = age::encrypt(&identity.to_public(), &plain).map_err(|e| failed(e.to_string()))?;
    let draft = path.with_extension("new");
    write_private(&draft, &sealed)?;
    fs::rename(&draft, path).map_err(io("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(io("sync", folder))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(io("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io("write", path))
}

/// Held until dropped. Waits for whoever holds it: a write takes milliseconds.
fn lock(folder: &Path) -> Result<File, SecretError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open", &path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| io("lock", &path)(errno.into()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_generated_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let store = SecretStore::open(&path).unwrap();
        assert_eq!(store.ensure(["mariadb.root", "rabbitmq.admin"]).unwrap(), 2);
        assert_eq!(store.ensure(["mariadb.root"]).unwrap(), 0);
        let value = store.reveal("mariadb.root").unwrap();
        assert_eq!(value.len(), GENERATED_LENGTH);
        let again = SecretStore::open(&path).unwrap();
        assert_eq!(again.reveal("mariadb.root").unwrap(), value);
        assert!(again.reveal("mariadb.other").is_none());
        assert!(!format!("{again:?}").contains(&*value));
    }

    /// As `ceph-authtool --gen-print-key` of Ceph 16.2 prints them: `AQD+dAJnAAAAABAAgQ9ciPDGHdKT2hBwDNPGLw==`.
    #[test]
    fn keys_for_ceph_have_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&folder.path().join("secrets")).unwrap();
        store.ensure(["ceph.mon_cephx", "ceph.other"]).unwrap();
        let value = store.reveal("ceph.mon_cephx").unwrap();
        let bytes = STANDARD.decode(value.as_bytes()).unwrap();
        assert_eq!(bytes.len(), 28);
        assert_eq!((&bytes[..2], &bytes[10..12]), (&[1, 0][..], &[16, 0][..]));
        assert!(bytes[12..].iter().any(|byte| *byte != 0));
        assert_eq!(store.reveal("ceph.other").unwrap().len(), GENERATED_LENGTH);
    }

    #[test]
    fn certificates_are_made_once_and_signed_by_their_services_authority() {
        let folder = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&folder.path().join("secrets")).unwrap();
        let service = "icinga2".parse().unwrap();
        let hosts = ["ctl1", "ctl2"].map(|host| host.parse().unwrap());
        let names = certificate::names(&service, &hosts);
        let ensure = |names: &[String]| store.ensure(names.iter().map(String::as_str)).unwrap();
        assert_eq!(
            ensure(&names[..2]),
            3,
            "the key that it is signed with comes along"
        );
        assert_eq!(ensure(&names), 3);
        let before = store.all_values();
        assert_eq!(ensure(&names), 0);
        assert!(store.all_values() == before);
        let pem = |name: &str| store.reveal(name).unwrap();
        let trusts = |certificate: &str, authority: &str, host: &str| {
            certificate::testing::verifies(&pem(certificate), &pem(authority), host)
        };
        assert!(trusts("icinga2.tls/@ctl1", "icinga2.tls/ca", "ctl1"));
        assert!(trusts("icinga2.tls/@ctl2", "icinga2.tls/ca", "ctl2"));
        assert!(!trusts("icinga2.tls/@ctl2", "icinga2.tls/ca", "ctl1"));
        let other = certificate::names(&"other".parse().unwrap(), &hosts[..1]);
        ensure(&other);
        assert!(!trusts("icinga2.tls/@ctl1", "other.tls/ca", "ctl1"));
    }

    #[test]
    fn two_stores_on_one_folder_do_not_lose_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let (one, two) = (
            SecretStore::open(&path).unwrap(),
            SecretStore::open(&path).unwrap(),
        );
        one.ensure(["a.one"]).unwrap();
        two.ensure(["a.one", "b.two"]).unwrap();
        assert_eq!(one.reveal("a.one"), two.reveal("a.one"));
        assert_eq!(SecretStore::open(&path).unwrap().all_values().len(), 2);
    }

    #[test]
    fn the_file_holds_no_value_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets");
        let store = SecretStore::open(&path).unwrap();
        store.ensure(["mariadb.root"]).unwrap();
        let value = store.reveal("mariadb.root").unwrap();
        let sealed = fs::read(path.join(STORE)).unwrap();
        assert!(!sealed.windows(value.len()).any(|w| w == value.as_bytes()));
        assert!(!sealed.windows(7).any(|w| w == b"mariadb"));
    }

    #[test]
    fn a_lost_identity_or_store_is_an_error_and_nothing_is_made_anew() {
        for lost in [IDENTITY, STORE] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secrets");
            SecretStore::open(&path).unwrap().ensure(["a.one"]).unwrap();
            fs::remove_file(path.join(lost)).unwrap();
            let error = SecretStore::open(&path).unwrap_err();
            assert!(matches!(error, SecretError::HalfThere { .. }), "{error}");
            assert!(!path.join(lost).exists());
        }
    }

    #[test]
    fn a_foreign_identity_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        SecretStore::open(&one).unwrap();
        SecretStore::open(&two).unwrap();
        fs::copy(two.join(IDENTITY), one.join(IDENTITY)).unwrap();
        let error = SecretStore::open(&one).unwrap_err();
        assert!(error.to_string().contains("identity beside it"), "{error}");
    }
}
