//! What Java, and servers made with it, need of a lab host.
//!
//! - Debian's Java cannot be configured without the folder of its manual pages, which a small base has not.
//! - Elasticsearch and OpenSearch refuse to serve on an address of a network where a process may have fewer than 65,535 open files,
//!   and a machine without `CAP_SYS_RESOURCE` (most containers) gives its hosts fewer. Their unit is told that it may have as
//!   many; it opens some hundred.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    command,
    error::{IoContext, Result},
    lock::Lock,
    paths::Store,
};

const LOCK_LIMIT: Duration = Duration::from_secs(60);
/// On the hosts.
const LIBRARY: &str = "/usr/local/lib/nightshift-lab-file-limit.so";
const UNIT: &str = "etc/systemd/system/elasticsearch.service.d";
const MANUAL_PAGES: &str = "usr/share/man/man1";
const SOURCE: &str = "
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
int getrlimit(__rlimit_resource_t resource, struct rlimit *limit) {
    int failed = syscall(SYS_prlimit64, 0, resource, 0, limit);
    if (!failed && resource == RLIMIT_NOFILE && limit->rlim_max < 65536)
        limit->rlim_cur = limit->rlim_max = 65536;
    return failed;
}
int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit) { return getrlimit(resource, (struct rlimit *)limit); }
";

/// Into what a host gets at its first start.
pub(crate) fn write_seed(store: &Store, seed: &Path) -> Result<()> {
    let library = seed.join(LIBRARY.trim_start_matches('/'));
    let unit = seed.join(UNIT);
    let pages = seed.join(MANUAL_PAGES);
    for folder in [
        pages.as_path(),
        unit.as_path(),
        library.parent().unwrap_or(seed),
    ] {
        fs::create_dir_all(folder).at("create", folder)?;
    }
    let built = build(store)?;
    fs::copy(&built, &library).at("copy", &built)?;
    let drop_in = unit.join("lab.conf");
    let text = format!("[Service]\nEnvironment=LD_PRELOAD={LIBRARY}\n");
    fs::write(&drop_in, text).at("write", &drop_in)
}

/// Once per store, by the compiler that links Rust programs, too.
fn build(store: &Store) -> Result<PathBuf> {
    let library = store.root().join("file-limit.so");
    let lock = Lock::take(&store.lock("file-limit"), LOCK_LIMIT)?;
    if !library.exists() {
        let (source, unfinished) = (
            library.with_extension("new.c"),
            library.with_extension("new"),
        );
        fs::write(&source, SOURCE).at("write", &source)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&unfinished)
            .arg(&source);
        command::run(&mut compile, LOCK_LIMIT)?;
        fs::rename(&unfinished, &library).at("rename", &unfinished)?;
    }
    lock.remove()?;
    Ok(library)
}
