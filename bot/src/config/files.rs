//! The files that a bot has read, and whether they are still what it read.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::Config;

/// Folders of services and runbooks are this deep at the most: `services/NAME/FILE`.
const DEPTH: usize = 3;

/// What was read, and when.
#[derive(Clone, Debug)]
pub struct FilesRead {
    paths: Vec<PathBuf>,
    at: SystemTime,
}

impl FilesRead {
    /// To be made before the files are read: what is changed meanwhile counts as changed.
    pub fn before(config_file: &Path, config: &Config) -> Self {
        let mut paths = vec![config_file.to_owned(), config.site.clone()];
        paths.extend(config.service_dirs.iter().cloned());
        paths.extend(config.runbook_dirs.iter().cloned());
        paths.extend(config.signature_dirs.iter().cloned());
        Self {
            paths,
            at: SystemTime::now(),
        }
    }

    /// A file that was written, added or removed since.
    pub fn changed(&self) -> Option<PathBuf> {
        self.paths
            .iter()
            .find_map(|path| newer(path, self.at, DEPTH))
    }
}

/// What cannot be looked at any more was changed, too.
fn newer(path: &Path, than: SystemTime, depth: usize) -> Option<PathBuf> {
    let look = || -> io::Result<Option<PathBuf>> {
        let metadata = fs::metadata(path)?;
        if metadata.modified()? > than {
            return Ok(Some(path.to_owned()));
        }
        if !metadata.is_dir() || depth == 0 {
            return Ok(None);
        }
        for entry in fs::read_dir(path)? {
            if let Some(found) = newer(&entry?.path(), than, depth - 1) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    };
    look().unwrap_or_else(|_| Some(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sees_what_was_written_added_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let service = folder.path().join("services/x");
        fs::create_dir_all(&service).unwrap();
        let file = service.join("service.yaml");
        fs::write(&file, "a").unwrap();
        let read = |at| FilesRead {
            paths: vec![folder.path().join("services")],
            at,
        };
        let now = SystemTime::now();
        assert_eq!(read(now + Duration::from_secs(1)).changed(), None);
        let past = now - Duration::from_secs(60);
        for path in [&folder.path().join("services"), &service] {
            let folder = fs::File::open(path).unwrap();
            folder.set_modified(past - Duration::from_secs(1)).unwrap();
        }
        assert_eq!(read(past).changed(), Some(file.clone()));
        fs::remove_file(&file).unwrap();
        assert_eq!(read(past).changed(), Some(service));
    }
}
