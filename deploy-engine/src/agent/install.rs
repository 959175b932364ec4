//! Puts an uploaded agent in its place: checked, then renamed, so that a half copy is never run.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{collect, durable, resource::sha256_hex, root::Root, step_key};

/// Versions kept on a host: the one in use and two to go back to.
const KEEP_VERSIONS: usize = 3;

/// The file name of every version.
pub const PROGRAM: &str = "nightshift-agent";

/// What an uploaded agent is called until it is installed: `nightshift-agent.new-SIGNATURE-RANDOM`. The signature lets a host that
/// obeys somebody tell whose agent it is.
pub fn signature_of(name: &str) -> Option<&str> {
    let (signature, _random) = name
        .strip_prefix(PROGRAM)?
        .strip_prefix(".new-")?
        .split_once('-')?;
    Some(signature)
}

/// `TEMPORARY install SHA256`: this very file is put in its place. A host that was never enrolled takes any.
pub fn install(root: &Root, sha256: &str) -> Result<(), String> {
    let own = std::env::current_exe()
        .map_err(|error| format!("expected to know this program's path, found: {error}"))?;
    let name = own
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let signature = signature_of(name).unwrap_or_default();
    if let Err(why) = step_key::check_agent(root, sha256, signature, Ok(())) {
        let _ = fs::remove_file(&own);
        return Err(why);
    }
    put_in_place(root, &own, sha256)
}

/// The file `own` becomes `STATE/agent/SHA256/nightshift-agent`, and `current` points to its folder.
pub fn put_in_place(root: &Root, own: &Path, sha256: &str) -> Result<(), String> {
    let bytes = fs::read(own)
        .map_err(|error| format!("expected to read {}, found: {error}", own.display()))?;
    let found = sha256_hex(&bytes);
    if found != sha256 {
        let _ = fs::remove_file(own);
        return Err(format!("expected the digest {sha256}, found {found}"));
    }
    let agents = root.state("agent");
    let place = agents.join(sha256).join(PROGRAM);
    let fail = |what: &str, error: std::io::Error| {
        format!("expected to {what} {}, found: {error}", place.display())
    };
    durable::create_private_dir(&agents.join(sha256))?;
    fs::File::open(own)
        .and_then(|file| file.sync_all())
        .map_err(|error| fail("sync", error))?;
    durable::rename_into_place(own, &place).map_err(|error| fail("install", error))?;
    point(&agents, sha256).map_err(|error| fail("point `current` to", error))?;
    drop_old(&agents, sha256);
    Ok(())
}

/// `current` always points to a whole version's folder: the link is made aside and renamed. The folder, so that a program that is
/// started by it is called `nightshift-agent` in the host's lists.
fn point(agents: &Path, sha256: &str) -> std::io::Result<()> {
    let aside = agents.join(format!(".current-{}", std::process::id()));
    let _ = fs::remove_file(&aside);
    symlink(sha256, &aside)?;
    durable::rename_into_place(&aside, &agents.join("current"))
}

fn drop_old(agents: &Path, newest: &str) {
    let all = fs::read_dir(agents)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let others = collect::set(
        all.filter(|e| e.file_name() != newest && e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))),
    );
    for (_, path) in others.iter().rev().skip(KEEP_VERSIONS - 1) {
        let _ = fs::remove_dir_all(path);
    }
}
