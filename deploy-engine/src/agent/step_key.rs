//! Whom this host obeys: the key that signs what it is told to do.
//!
//! The first engine that greets a host over SSH brings the key; from then on nothing but its signature counts, and only root on
//! the host itself can take the file away.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use rustix::fs::{FlockOperation, flock};

use super::{durable, root::Root};
use crate::wire::HostKey;

/// File in the state directory.
const FILE: &str = "step-key";
/// Bytes of a connection's nonce: enough that no two are the same.
const NONCE_BYTES: usize = 16;

pub fn path(root: &Root) -> PathBuf {
    root.state(FILE)
}

/// `None`: the host was never enrolled.
pub fn read(root: &Root) -> Result<Option<HostKey>, String> {
    let path = path(root);
    let unreadable =
        |error: io::Error| format!("expected to read {}, found: {error}", path.display());
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "expected {} to be closed to others (mode 0600), found mode {mode:04o}",
            path.display()
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    HostKey::from_hex(text.trim()).map(Some).ok_or_else(|| {
        format!(
            "expected a key of 64 hexadecimal digits in {}, found something else",
            path.display()
        )
    })
}

/// Keeps the first key, durably; the same again is fine, another is refused.
pub fn enrol(root: &Root, key: &HostKey) -> Result<(), String> {
    let path = path(root);
    let dir = root.state("");
    durable::create_private_dir(&dir)?;
    let lock = File::open(&dir)
        .map_err(|error| format!("expected to open {}, found: {error}", dir.display()))?;
    // Two first engines at once: one of them is first.
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| format!("expected the lock of {}, found: {error}", dir.display()))?;
    match read(root)? {
        None => durable::write(&path, key.to_hex().as_bytes()),
        Some(known) if known == *key => Ok(()),
        Some(known) => Err(other_key(root, &known, key)),
    }
}

fn other_key(root: &Root, known: &HostKey, found: &HostKey) -> String {
    format!(
        "expected the key {} that this host obeys, found {}; if that bot and its secrets are gone for good, remove {} on the host",
        known.id(),
        found.id(),
        path(root).display()
    )
}

/// Is a request signed by whom this host obeys?
pub fn check(
    root: &Root,
    nonce: &str,
    payload: &[u8],
    signature: Option<&str>,
) -> Result<(), String> {
    let Some(key) = read(root)? else {
        return Err(
            "expected a host that was enrolled, found no key; say `enrol` first".to_owned(),
        );
    };
    let Some(signature) = signature else {
        return Err(format!(
            "expected a request signed with the key {}, found no signature",
            key.id()
        ));
    };
    if key.verifies(nonce, payload, signature) {
        Ok(())
    } else {
        Err(format!(
            "expected a request signed with the key {}, found another signature",
            key.id()
        ))
    }
}

/// May this version of the agent be installed? `bare`: what to say on a host that was never enrolled.
pub fn check_agent(
    root: &Root,
    sha256: &str,
    signature: &str,
    bare: Result<(), String>,
) -> Result<(), String> {
    match read(root)? {
        None => bare,
        Some(key) if key.verifies_agent(sha256, signature) => Ok(()),
        Some(key) => Err(format!(
            "expected an agent signed with the key {} that this host obeys, found another signature; \
             if that bot and its secrets are gone for good, remove {} on the host",
            key.id(),
            path(root).display()
        )),
    }
}

/// A new nonce for one connection, in hex.
pub fn nonce() -> Result<String, String> {
    let mut bytes = [0; NONCE_BYTES];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| format!("expected random bytes from /dev/urandom, found: {error}"))?;
    Ok(super::resource::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(host: &str) -> HostKey {
        HostKey::derive("secret", host)
    }

    #[test]
    fn the_first_key_stays_until_root_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(read(&root), Ok(None));
        assert!(
            check(&root, "n", b"x", Some("ab"))
                .unwrap_err()
                .contains("enrol")
        );
        enrol(&root, &key("ctl1")).unwrap();
        assert_eq!(fs::metadata(path(&root)).unwrap().mode() & 0o777, 0o600);
        enrol(&root, &key("ctl1")).unwrap();
        let why = enrol(&root, &key("ctl2")).unwrap_err();
        assert!(
            why.contains(&key("ctl1").id()) && why.contains("remove"),
            "{why}"
        );
        assert!(!why.contains(&key("ctl1").to_hex()), "{why}");
        fs::remove_file(path(&root)).unwrap();
        enrol(&root, &key("ctl2")).unwrap();
        assert_eq!(read(&root), Ok(Some(key("ctl2"))));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        enrol(&root, &key("ctl1")).unwrap();
        fs::set_permissions(path(&root), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&root).unwrap_err().contains("0640"));
        fs::set_permissions(path(&root), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path(&root), "garbage").unwrap();
        assert!(read(&root).is_err());
        assert!(
            enrol(&root, &key("ctl1")).is_err(),
            "an unreadable key is not no key"
        );
    }

    #[test]
    fn requests_need_the_hosts_signature() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        enrol(&root, &key("ctl1")).unwrap();
        let good = key("ctl1").sign("n", b"x");
        assert_eq!(check(&root, "n", b"x", Some(&good)), Ok(()));
        assert!(
            check(&root, "n", b"x", None)
                .unwrap_err()
                .contains("no signature")
        );
        for bad in [
            key("ctl2").sign("n", b"x"),
            key("ctl1").sign("m", b"x"),
            String::new(),
        ] {
            assert!(check(&root, "n", b"x", Some(&bad)).is_err());
        }
    }
}
