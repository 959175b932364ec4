//! Directories; removal takes the whole tree and is guarded.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use super::{
    Judged, Pending,
    accounts::Accounts,
    file::{kind_name, owner_and_mode, parent_missing, parse_mode, set_owner_and_mode},
    plain_path,
};
use crate::agent::{durable, root::Root};

/// How a directory is wanted.
pub struct Wanted<'a> {
    pub path: &'a str,
    pub mode: &'a str,
    pub owner: &'a str,
    pub group: &'a str,
    pub absent: bool,
}

pub fn look(root: &Root, accounts: &Accounts, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    let checked = plain_path(wanted.path).and_then(|()| {
        if wanted.absent {
            removable(root, wanted.path)
        } else {
            parse_mode(wanted.mode).map(drop)
        }
    });
    if let Err(why) = checked {
        return Judged::cannot("", why);
    }
    let path = root.at(wanted.path);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Judged::unknown(format!("expected to read {}, found: {error}", wanted.path));
        }
    };
    match (metadata, wanted.absent) {
        (None, true) => Judged::by_diff("absent", vec![]),
        (Some(_), true) => Judged::by_diff(
            "present",
            vec![format!("- {} with all it holds", wanted.path)],
        ),
        (Some(found), false) if !found.is_dir() => {
            let kind = kind_name(found.file_type());
            Judged::cannot(
                kind,
                format!("expected a directory at {}, found {kind}", wanted.path),
            )
        }
        (found, false) => present(accounts, wanted, found.as_ref(), &path, pending),
    }
}

fn present(
    accounts: &Accounts,
    wanted: &Wanted<'_>,
    found: Option<&fs::Metadata>,
    path: &Path,
    pending: &Pending,
) -> Judged {
    let attributes = found.map(|m| (m.uid(), m.gid(), m.permissions().mode() & 0o7777));
    let seen = attributes.map_or_else(|| "absent".to_owned(), |(u, g, m)| format!("{m:o} {u}:{g}"));
    if found.is_none()
        && let Some(why) = parent_missing(path, wanted.path, pending)
    {
        return Judged::cannot(&seen, why);
    }
    let mode = parse_mode(wanted.mode).unwrap_or_default();
    match owner_and_mode(
        accounts,
        (wanted.owner, wanted.group, mode),
        attributes,
        pending,
    ) {
        Err(why) => Judged::cannot(&seen, why),
        Ok(mut diff) => {
            if found.is_none() {
                diff.push(format!(
                    "+ directory {} {mode:04o} {}:{}",
                    wanted.path, wanted.owner, wanted.group
                ));
            }
            Judged::by_diff(&seen, diff)
        }
    }
}

/// Refuses `/`, its direct children, mount points and whatever leads to one of them by links.
fn removable(root: &Root, path: &str) -> Result<(), String> {
    let refuse = |why: String| Err(format!("removing {path} is refused: {why}"));
    if path[1..].split('/').count() < 2 {
        return refuse("a first-level directory is never removed".to_owned());
    }
    let real = root.at(path);
    let Ok(metadata) = fs::symlink_metadata(&real) else {
        return Ok(());
    };
    let parent = real.parent().unwrap_or(Path::new("/"));
    let resolved = fs::canonicalize(parent)
        .map_err(|error| format!("expected to resolve the directory of {path}, found: {error}"))?;
    if resolved == Path::new("/") || fs::canonicalize(root.dir()).is_ok_and(|r| r == resolved) {
        return refuse("its directory is a link to /".to_owned());
    }
    let device = fs::metadata(parent).map(|m| m.dev());
    if metadata.is_dir() && device.is_ok_and(|d| d != metadata.dev()) {
        return refuse("something is mounted there".to_owned());
    }
    Ok(())
}

pub fn apply(root: &Root, accounts: &Accounts, wanted: &Wanted<'_>) -> Result<(), String> {
    let path = root.at(wanted.path);
    let fail = |what: &str, error: std::io::Error| {
        format!("expected to {what} {}, found: {error}", wanted.path)
    };
    if wanted.absent {
        removable(root, wanted.path)?;
        let link = fs::symlink_metadata(&path).is_ok_and(|m| !m.is_dir());
        let removed = if link {
            fs::remove_file(&path)
        } else {
            fs::remove_dir_all(&path)
        };
        return removed.map_err(|error| fail("remove", error));
    }
    let (uid, gid) = accounts
        .owner(wanted.owner, wanted.group, &Pending::default())
        .map_err(|why| why.unwrap_or_default())?;
    if !path.is_dir() {
        // Nobody else may look in before it has its owner and mode.
        let built = fs::DirBuilder::new().mode(0o700).create(&path);
        built.map_err(|error| fail("create", error))?;
    }
    set_owner_and_mode(&path, uid, gid, parse_mode(wanted.mode)?)
        .and_then(|()| durable::sync_dir_of(&path))
        .map_err(|error| fail("set owner and mode of", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    #[test]
    fn created_kept_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("srv")).unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        let (owner, group) = (metadata.uid().to_string(), metadata.gid().to_string());
        let accounts = Accounts::default();
        let mut wanted = Wanted {
            path: "/srv/a",
            mode: "0750",
            owner: &owner,
            group: &group,
            absent: false,
        };
        let look = |wanted: &Wanted<'_>| super::look(&root, &accounts, wanted, &Pending::default());
        assert!(look(&wanted).changes());
        apply(&root, &accounts, &wanted).unwrap();
        assert_eq!(look(&wanted).state, State::Same);
        wanted.mode = "0755";
        let diff = vec!["mode: 0750 -> 0755".to_owned()];
        assert_eq!(look(&wanted).state, State::WillChange { diff });
        fs::write(dir.path().join("srv/a/file"), "x").unwrap();
        wanted.absent = true;
        assert!(look(&wanted).changes());
        apply(&root, &accounts, &wanted).unwrap();
        assert_eq!(look(&wanted).state, State::Same);
    }

    #[test]
    fn removal_is_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        for path in [
            "/",
            "/var",
            "/..",
            "/var/..",
            "/var/",
            "var/lib",
            "/link/var",
        ] {
            let wanted = Wanted {
                path,
                mode: "0755",
                owner: "0",
                group: "0",
                absent: true,
            };
            let judged = look(&root, &Accounts::default(), &wanted, &Pending::default());
            assert!(
                matches!(judged.state, State::Cannot { .. }),
                "{path}: {judged:?}"
            );
        }
    }
}
