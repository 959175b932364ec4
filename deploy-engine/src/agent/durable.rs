//! Files that are whole or absent after a power cut.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Creates a directory and its parents for root alone.
pub fn create_private_dir(path: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            format!(
                "expected to create the directory {}, found: {error}",
                path.display()
            )
        })
}

/// Writes `content` beside `path`, for root alone, and syncs it. The caller renames it into place.
pub fn write_beside(path: &Path, content: &[u8]) -> io::Result<std::path::PathBuf> {
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(
        ".{name}.nightshift-{}-{serial}",
        std::process::id()
    ));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Puts a synced file in place of `path`, and syncs the directory so that the name lasts as well.
pub fn rename_into_place(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path)?;
    sync_dir_of(path)
}

pub fn sync_dir_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A whole private file, or the error and no change.
pub fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    write_beside(path, content)
        .and_then(|temporary| {
            rename_into_place(&temporary, path).inspect_err(|_| {
                let _ = fs::remove_file(&temporary);
            })
        })
        .map_err(|error| format!("expected to write {}, found: {error}", path.display()))
}
