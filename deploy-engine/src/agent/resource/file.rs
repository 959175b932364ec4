//! Files: content, mode and owner together, replaced in one step.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use super::{Judged, Pending, accounts::Accounts, plain_path, sha256_hex};
use crate::agent::{diff, durable, exec::Exec, root::Root};

/// A file larger than this is not read: no configuration is, and a diff of it helps nobody.
const READ_LIMIT_BYTES: u64 = 8 * 1024 * 1024;
/// Programs that check a configuration answer in seconds or hang.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(60);

/// How a file is wanted.
pub struct Wanted<'a> {
    pub path: &'a str,
    pub content: &'a str,
    pub mode: &'a str,
    pub owner: &'a str,
    pub group: &'a str,
    pub validate: Option<&'a [String]>,
    pub sensitive: bool,
    pub absent: bool,
}

/// What is at a path.
enum Found {
    Absent,
    File {
        mode: u32,
        uid: u32,
        gid: u32,
        content: Option<Vec<u8>>,
        length: u64,
    },
    Other(&'static str),
}

pub fn parse_mode(mode: &str) -> Result<u32, String> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| format!("expected an octal mode such as 0640, found {mode:?}"))
}

/// What kind of thing metadata that is not of a file or directory describes.
pub fn kind_name(kind: fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a file"
    } else {
        "neither a file nor a directory"
    }
}

fn find(path: &Path) -> io::Result<Found> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Found::Absent);
        }
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Ok(Found::Other(kind_name(metadata.file_type())));
    }
    let content = if metadata.len() <= READ_LIMIT_BYTES {
        Some(fs::read(path)?)
    } else {
        None
    };
    Ok(Found::File {
        mode: metadata.permissions().mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        content,
        length: metadata.len(),
    })
}

impl Found {
    fn seen(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Other(kind) => (*kind).to_owned(),
            Self::File {
                mode,
                uid,
                gid,
                content,
                length,
            } => format!(
                "{mode:o} {uid}:{gid} {length} {}",
                content.as_deref().map(sha256_hex).unwrap_or_default()
            ),
        }
    }
}

pub fn look(root: &Root, accounts: &Accounts, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    if let Err(why) = plain_path(wanted.path).and_then(|()| parse_mode(wanted.mode).map(drop)) {
        return Judged::cannot("", why);
    }
    let path = root.at(wanted.path);
    let found = match find(&path) {
        Ok(found) => found,
        Err(error) => {
            return Judged::unknown(format!("expected to read {}, found: {error}", wanted.path));
        }
    };
    let seen = found.seen();
    match (&found, wanted.absent) {
        (Found::Absent, true) => Judged::by_diff(&seen, vec![]),
        (Found::Other("a directory"), _) => Judged::cannot(
            &seen,
            format!("expected a file at {}, found a directory", wanted.path),
        ),
        // Whatever is in it, it goes; a log that is written meanwhile is still what was seen.
        (_, true) => Judged::by_diff("present", vec![format!("- file {}", wanted.path)]),
        (_, false) => {
            if let Some(why) = parent_missing(&path, wanted.path, pending) {
                return Judged::cannot(&seen, why);
            }
            match differences(accounts, wanted, &found, pending) {
                Ok(diff) => Judged::by_diff(&seen, diff),
                Err(why) => Judged::cannot(&seen, why),
            }
        }
    }
}

/// Why nothing can be put at a path: its directory is missing and nothing that is planned makes it.
pub fn parent_missing(real: &Path, path: &str, pending: &Pending) -> Option<String> {
    let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
    if pending.packages || pending.directories.contains(parent) {
        return None;
    }
    match real.parent() {
        Some(dir) if !dir.is_dir() => Some(format!(
            "the directory {parent} does not exist and nothing that is planned here creates it"
        )),
        _ => None,
    }
}

/// Lines for mode and owner that differ.
pub fn owner_and_mode(
    accounts: &Accounts,
    (owner, group, mode): (&str, &str, u32),
    found: Option<(u32, u32, u32)>,
    pending: &Pending,
) -> Result<Vec<String>, String> {
    let mut diff = Vec::new();
    let numbers = match accounts.owner(owner, group, pending) {
        Ok(numbers) => Some(numbers),
        Err(None) => None,
        Err(Some(why)) => return Err(why),
    };
    if let Some((uid, gid, found_mode)) = found {
        if numbers != Some((uid, gid)) {
            diff.push(format!(
                "owner: {}:{} -> {owner}:{group}",
                accounts.user_name(uid),
                accounts.group_name(gid)
            ));
        }
        if mode != found_mode {
            diff.push(format!("mode: {found_mode:04o} -> {mode:04o}"));
        }
    }
    Ok(diff)
}

fn differences(
    accounts: &Accounts,
    wanted: &Wanted<'_>,
    found: &Found,
    pending: &Pending,
) -> Result<Vec<String>, String> {
    let mode = parse_mode(wanted.mode)?;
    let (old, attributes) = match found {
        Found::Absent => (Some(Vec::new()), None),
        Found::Other(_) => (None, None),
        Found::File {
            mode,
            uid,
            gid,
            content,
            ..
        } => (content.clone(), Some((*uid, *gid, *mode))),
    };
    let mut diff = owner_and_mode(
        accounts,
        (wanted.owner, wanted.group, mode),
        attributes,
        pending,
    )?;
    match found {
        Found::Absent => diff.push(format!(
            "+ file {} {:04o} {}:{}",
            wanted.path, mode, wanted.owner, wanted.group
        )),
        Found::Other(kind) => diff.push(format!("{kind} becomes a file")),
        Found::File { .. } => {}
    }
    if old.as_deref() != Some(wanted.content.as_bytes()) {
        diff.extend(content_diff(wanted, old.as_deref()));
    }
    Ok(diff)
}

fn content_diff(wanted: &Wanted<'_>, old: Option<&[u8]>) -> Vec<String> {
    if wanted.sensitive {
        return vec!["content changes (not shown: it holds secrets)".to_owned()];
    }
    let Some(old) = old.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return vec!["content changes (what is there is not a text)".to_owned()];
    };
    diff::unified(old, wanted.content)
}

pub fn apply(
    root: &Root,
    exec: &Exec,
    accounts: &Accounts,
    wanted: &Wanted<'_>,
) -> Result<(), String> {
    let path = root.at(wanted.path);
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        format!("expected to {what} {}, found: {error}", wanted.path)
    };
    if wanted.absent {
        fs::remove_file(&path).map_err(|error| fail("remove", &error))?;
        return durable::sync_dir_of(&path).map_err(|error| fail("sync the directory of", &error));
    }
    let (uid, gid) = accounts
        .owner(wanted.owner, wanted.group, &Pending::default())
        .map_err(|why| why.unwrap_or_default())?;
    let mode = parse_mode(wanted.mode)?;
    let temporary = durable::write_beside(&path, wanted.content.as_bytes())
        .map_err(|error| fail("write", &error))?;
    let put = || {
        set_owner_and_mode(&temporary, uid, gid, mode)
            .map_err(|error| fail("set owner and mode of", &error))?;
        validate(exec, wanted, &temporary)?;
        durable::rename_into_place(&temporary, &path).map_err(|error| fail("replace", &error))
    };
    put().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

pub fn set_owner_and_mode(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    // In this order: a change of owner clears the set-id bits.
    std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn validate(exec: &Exec, wanted: &Wanted<'_>, temporary: &Path) -> Result<(), String> {
    let Some(argv) = wanted.validate else {
        return Ok(());
    };
    let temporary = temporary.to_string_lossy();
    let argv: Vec<&str> = argv
        .iter()
        .map(|a| if a == "%" { &*temporary } else { a })
        .collect();
    exec.text(&argv, VALIDATE_TIMEOUT)
        .map(drop)
        .map_err(|why| format!("the new content of {} was refused: {why}", wanted.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    struct Bench {
        dir: tempfile::TempDir,
        root: Root,
        accounts: Accounts,
        owner: (String, String),
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        Bench {
            root: Root::new(dir.path()),
            accounts: Accounts::default(),
            owner: (metadata.uid().to_string(), metadata.gid().to_string()),
            dir,
        }
    }

    impl Bench {
        fn wanted<'a>(&'a self, content: &'a str) -> Wanted<'a> {
            Wanted {
                path: "/etc/x.conf",
                content,
                mode: "0640",
                owner: &self.owner.0,
                group: &self.owner.1,
                validate: None,
                sensitive: false,
                absent: false,
            }
        }

        fn look(&self, wanted: &Wanted<'_>) -> Judged {
            look(&self.root, &self.accounts, wanted, &Pending::default())
        }

        fn apply(&self, wanted: &Wanted<'_>) -> Result<(), String> {
            apply(
                &self.root,
                &Exec::new(self.root.clone()),
                &self.accounts,
                wanted,
            )
        }
    }

    #[test]
    fn a_file_goes_from_absent_to_same_and_its_digest_follows() {
        let bench = bench();
        let first = bench.wanted("a\nb\n");
        let absent = bench.look(&first);
        assert!(absent.changes());
        bench.apply(&first).unwrap();
        let same = bench.look(&first);
        assert_eq!(same.state, State::Same);
        assert_ne!(absent.digest, same.digest);
        let State::WillChange { diff } = bench.look(&bench.wanted("a\nc\n")).state else {
            panic!("expected a change");
        };
        assert_eq!(diff, ["@@ -1,2 +1,2 @@", " a", "-b", "+c"]);
        let mode = fs::metadata(bench.dir.path().join("etc/x.conf"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o640);
        let gone = Wanted {
            absent: true,
            ..bench.wanted("")
        };
        bench.apply(&gone).unwrap();
        assert_eq!(bench.look(&gone).state, State::Same);
        assert_eq!(
            fs::read_dir(bench.dir.path().join("etc")).unwrap().count(),
            0
        );
    }

    /// A removal that was approved must not lapse because a program still writes the file.
    #[test]
    fn a_file_that_goes_is_the_same_whatever_is_written_to_it() {
        let bench = bench();
        let gone = Wanted {
            absent: true,
            ..bench.wanted("")
        };
        let absent = bench.look(&gone);
        bench.apply(&bench.wanted("a\n")).unwrap();
        let (planned, kept) = (bench.look(&gone), bench.look(&bench.wanted("b\n")));
        bench.apply(&bench.wanted("a\nb\n")).unwrap();
        let (later, kept_later) = (bench.look(&gone), bench.look(&bench.wanted("b\n")));
        assert_eq!(planned, later);
        assert_ne!(planned.digest, absent.digest);
        // What stays is watched in every byte.
        assert_ne!(kept.digest, kept_later.digest);
    }

    #[test]
    fn sensitive_content_is_never_shown() {
        let bench = bench();
        bench.apply(&bench.wanted("old-secret")).unwrap();
        let wanted = Wanted {
            sensitive: true,
            ..bench.wanted("new-secret")
        };
        let shown = format!("{:?}", bench.look(&wanted));
        assert!(
            !shown.contains("secret\"") && !shown.contains("old-") && !shown.contains("new-"),
            "{shown}"
        );
    }

    #[test]
    fn refused_content_changes_nothing_and_leaves_nothing() {
        let bench = bench();
        bench.apply(&bench.wanted("good")).unwrap();
        let validate = [
            "grep".to_owned(),
            "-q".to_owned(),
            "good".to_owned(),
            "%".to_owned(),
        ];
        let wanted = Wanted {
            validate: Some(&validate),
            ..bench.wanted("bad")
        };
        let why = bench.apply(&wanted).unwrap_err();
        assert!(why.contains("refused") && why.contains("exit 1"), "{why}");
        assert_eq!(
            fs::read_to_string(bench.dir.path().join("etc/x.conf")).unwrap(),
            "good"
        );
        assert_eq!(
            fs::read_dir(bench.dir.path().join("etc")).unwrap().count(),
            1
        );
    }

    #[test]
    fn says_what_cannot_be() {
        let bench = bench();
        let cases = [
            (
                Wanted {
                    owner: "nobody-made-it",
                    ..bench.wanted("")
                },
                "user nobody-made-it",
            ),
            (
                Wanted {
                    path: "/none/x",
                    ..bench.wanted("")
                },
                "directory /none",
            ),
            (
                Wanted {
                    path: "/etc",
                    ..bench.wanted("")
                },
                "found a directory",
            ),
            (
                Wanted {
                    mode: "rw",
                    ..bench.wanted("")
                },
                "octal mode",
            ),
            (
                Wanted {
                    path: "/etc/../x",
                    ..bench.wanted("")
                },
                "absolute path",
            ),
        ];
        for (wanted, expected) in cases {
            let State::Cannot { why } = bench.look(&wanted).state else {
                panic!("expected a refusal: {expected}");
            };
            assert!(why.contains(expected), "{why}");
        }
        let pending = Pending {
            packages: true,
            ..Pending::default()
        };
        let wanted = Wanted {
            owner: "nobody-made-it",
            path: "/none/x",
            ..bench.wanted("")
        };
        assert!(look(&bench.root, &bench.accounts, &wanted, &pending).changes());
    }
}
