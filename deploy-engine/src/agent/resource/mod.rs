//! One file a kind of resource: how it is seen, judged against what is wanted, and changed.

pub mod accounts;
pub mod apt_repository;
pub mod archive;
pub mod command;
pub mod directory;
pub mod file;
pub mod package;
pub mod rabbitmq;
pub mod sql;
pub mod sysctl;
pub mod unit;

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::wire::{Observation, ResourceId, State};

/// Lines of a diff that leave the host for one resource; a person reads no more, and a frame must not overflow.
pub const DIFF_LIMIT_LINES: usize = 400;

/// What is going to change in the same request, so that something that is missing now may be there when its turn comes.
#[derive(Debug, Default)]
pub struct Pending {
    /// Some package will be installed: with it come users, directories, units and programs that nobody can name beforehand.
    pub packages: bool,
    /// A package source will change: more packages can be had then.
    pub repositories: bool,
    pub users: BTreeSet<String>,
    pub groups: BTreeSet<String>,
    pub directories: BTreeSet<String>,
    pub files: BTreeSet<String>,
    /// A unit will be started or restarted.
    pub units: bool,
}

/// A judgement of one resource with what it was made from.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    pub state: State,
    /// See [`Observation::digest`].
    pub digest: String,
}

impl Judged {
    /// `seen` is digested; no difference means [`State::Same`].
    pub fn by_diff(seen: &str, diff: Vec<String>) -> Self {
        let state = if diff.is_empty() {
            State::Same
        } else {
            State::WillChange {
                diff: shorten(diff),
            }
        };
        Self::new(seen, state)
    }

    pub fn new(seen: &str, state: State) -> Self {
        Self {
            state,
            digest: sha256_hex(seen.as_bytes()),
        }
    }

    pub fn cannot(seen: &str, why: impl Into<String>) -> Self {
        Self::new(seen, State::Cannot { why: why.into() })
    }

    pub fn unknown(why: impl Into<String>) -> Self {
        let why = why.into();
        Self::new("unknown", State::Unknown { why })
    }

    pub fn observation(self, id: ResourceId) -> Observation {
        Observation {
            id,
            state: self.state,
            digest: self.digest,
        }
    }

    pub fn changes(&self) -> bool {
        matches!(self.state, State::WillChange { .. })
    }
}

fn shorten(mut diff: Vec<String>) -> Vec<String> {
    if diff.len() > DIFF_LIMIT_LINES {
        let more = diff.len() - DIFF_LIMIT_LINES;
        diff.truncate(DIFF_LIMIT_LINES);
        diff.push(format!("[{more} more lines]"));
    }
    diff
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// A name that becomes an argument or a file name: its first character is a letter, digit or `_`, so it is never an option.
pub fn plain_name(kind: &str, name: &str, more: &str) -> Result<(), String> {
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let rest = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || more.contains(c));
    if first && rest && name.len() <= 255 {
        Ok(())
    } else {
        Err(format!(
            "expected the name of a {kind} (letters, digits and any of `_{more}`), found {name:?}"
        ))
    }
}

/// An absolute path in its plain form: no `.` or `..`, no empty part.
pub fn plain_path(path: &str) -> Result<(), String> {
    let good = path.starts_with('/')
        && path.len() > 1
        && !path.contains('\0')
        && path[1..]
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."));
    if good {
        Ok(())
    } else {
        Err(format!(
            "expected an absolute path without `.`, `..` or empty parts, found {path:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_options_or_paths() {
        for (name, good) in [
            ("mariadb-server", true),
            ("g++", true),
            ("-o", false),
            ("--purge", false),
            ("a/b", false),
            ("", false),
            (".x", false),
            ("a b", false),
        ] {
            assert_eq!(plain_name("package", name, "+.-").is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn paths_are_plain() {
        for (path, good) in [
            ("/etc/x", true),
            ("/etc", true),
            ("/", false),
            ("", false),
            ("etc/x", false),
            ("/etc/../x", false),
            ("/etc//x", false),
            ("/etc/x/", false),
        ] {
            assert_eq!(plain_path(path).is_ok(), good, "{path:?}");
        }
    }

    #[test]
    fn long_diffs_are_cut() {
        let judged = Judged::by_diff("x", vec!["+a".to_owned(); DIFF_LIMIT_LINES + 3]);
        let State::WillChange { diff } = judged.state else {
            panic!("expected a change");
        };
        assert_eq!(diff.len(), DIFF_LIMIT_LINES + 1);
        assert_eq!(diff[DIFF_LIMIT_LINES], "[3 more lines]");
    }
}
