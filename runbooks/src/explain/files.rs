//! The files of a path that may hold alerts or rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Read, Seen, read};

/// Folders below the given one that are looked into; deeper is somebody's checkout with everything in it.
const DEPTH: usize = 12;
/// Files that are read at the most.
const FILES: usize = 10_000;
/// The largest file, in bytes: a webhook's body may have 8 MiB.
const FILE_LIMIT_BYTES: u64 = 8 * 1024 * 1024;
const ENDINGS: [&str; 9] = [
    "json", "jsonl", "ndjson", "yaml", "yml", "rule", "rules", "alerts", "alert",
];
/// Programs that make rules.
const GENERATED: [&str; 3] = ["jsonnet", "libsonnet", "j2"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileError {
    pub file: String,
    pub why: String,
}

/// What a path holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRead {
    pub seen: Vec<Seen>,
    /// Files with at least one alert or rule.
    pub files: usize,
    pub errors: Vec<FileError>,
    /// Files of a folder whose ending is not one of alerts.
    pub passed_over: usize,
}

/// Reads a file, or all files of a folder that may hold alerts; what is wrong with one keeps none of the others back.
pub fn files(path: &Path) -> FileRead {
    let mut all = FileRead::default();
    let mut found = Vec::new();
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            list(path, DEPTH, &mut found, &mut all);
            found.sort();
        }
        Ok(_) => found.push(path.to_owned()),
        Err(error) => all.fail(path, error.to_string()),
    }
    for path in found {
        match text(&path) {
            Ok(text) => all.take(&path, read(&path.display().to_string(), &text)),
            Err(why) => all.fail(&path, why),
        }
    }
    all
}

impl FileRead {
    fn fail(&mut self, path: &Path, why: String) {
        let file = path.display().to_string();
        self.errors.push(FileError { file, why });
    }

    fn take(&mut self, path: &Path, read: Read) {
        self.files += usize::from(!read.seen.is_empty());
        self.seen.extend(read.seen);
        for why in read.errors {
            self.fail(path, why);
        }
    }
}

fn list(folder: &Path, depth: usize, found: &mut Vec<PathBuf>, all: &mut FileRead) {
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => return all.fail(folder, error.to_string()),
    };
    for entry in entries {
        let path = entry.path();
        // Links are not followed: a folder may lead to itself.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            match depth {
                0 => all.fail(&path, format!("deeper than {DEPTH} folders")),
                _ => list(&path, depth - 1, found, all),
            }
            continue;
        }
        match ending(&path) {
            Some(ending) if GENERATED.contains(&ending) => {
                all.fail(
                    &path,
                    format!("a {ending} file makes rules: render it first"),
                );
            }
            Some(ending) if ENDINGS.contains(&ending) && found.len() < FILES => found.push(path),
            Some(ending) if ENDINGS.contains(&ending) => {
                all.fail(
                    &path,
                    format!("not read: there are more than {FILES} files"),
                );
            }
            _ => all.passed_over += 1,
        }
    }
}

fn ending(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

fn text(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_LIMIT_BYTES {
        return Err(format!(
            "expected at most {FILE_LIMIT_BYTES} bytes; found {size}"
        ));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
