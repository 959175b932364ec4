//! Artefacts from Maven Central: into the store for this machine, and through the package cache for the hosts.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use crate::{
    command::run,
    error::{IoContext, Result},
    mirror::through_cache,
    paths::Store,
};

/// Environment variable that names another repository with the same layout.
pub const MAVEN_VARIABLE: &str = "NIGHTSHIFT_MAVEN";
const CENTRAL: &str = "https://repo1.maven.org/maven2";
/// 60 MB over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// The repository that this machine asks.
fn repository() -> String {
    let named = std::env::var(MAVEN_VARIABLE).ok().filter(|v| !v.is_empty());
    named.unwrap_or_else(|| CENTRAL.to_owned())
}

/// The same as the hosts ask for it: they have no way out but the package cache, which their apt uses as its proxy.
pub fn repository_for_hosts() -> String {
    through_cache(repository().trim_end_matches('/'))
}

/// An artefact by its path in the repository: fetched once per machine, refused when it is not what was pinned.
pub(crate) fn fetch(store: &Store, artefact: &str, sha256: &str) -> Result<PathBuf> {
    let folder = store.root().join("maven");
    fs::create_dir_all(&folder).at("create", &folder)?;
    let file = folder.join(sha256);
    if !file.exists() {
        let unfinished = folder.join(format!("{sha256}.new"));
        let mut fetch = Command::new("/usr/lib/apt/apt-helper");
        fetch
            .arg("download-file")
            .arg(format!("{}/{artefact}", repository().trim_end_matches('/')))
            .arg(&unfinished)
            .arg(format!("SHA256:{sha256}"));
        run(&mut fetch, FETCH_LIMIT)?;
        fs::rename(&unfinished, &file).at("rename", &unfinished)?;
    }
    Ok(file)
}
