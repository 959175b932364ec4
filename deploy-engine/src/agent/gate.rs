//! The forced command of an SSH key: lets through what the engine needs to start and renew the agent, and nothing else.
//!
//! ```text
//! restrict,command="/var/lib/nightshift/agent/current/nightshift-agent gate" ssh-ed25519 …
//! ```
//!
//! sshd hands over what the client wanted to run in `SSH_ORIGINAL_COMMAND`. It is compared word by word with the three commands
//! that the engine sends; no shell ever sees it. A new agent is taken only if it is signed by whom this host obeys, so the SSH key
//! alone runs nothing but agents that are there already, which in turn do nothing that is not signed.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, ExitCode},
};

use super::{
    install::{PROGRAM, put_in_place, signature_of},
    root::Root,
    step_key,
};

/// Where agents are, as the engine names it.
const AGENTS: &str = "/var/lib/nightshift/agent";
/// The largest upload in bytes; an agent has at most two million.
const UPLOAD_LIMIT_BYTES: u64 = 8 * 1024 * 1024;
/// As a shell says that a program is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// What may be asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Serve { sha256: &'a str },
    Upload { sha256: &'a str, aside: &'a str },
    Install { sha256: &'a str, aside: &'a str },
}

/// `nightshift-agent gate`.
pub fn gate(root: &Root, original: Option<&str>) -> ExitCode {
    let done = match original.and_then(asked) {
        None => Err(format!(
            "this key is for the engine of Nightshift; refused: {:?}",
            original.unwrap_or("a login")
        )),
        Some(Asked::Serve { sha256 }) => return serve(root, sha256),
        Some(Asked::Upload { sha256, aside }) => upload(root, sha256, aside),
        Some(Asked::Install { sha256, aside }) => install(root, sha256, aside),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("nightshift-agent: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Understands the engine's three commands, and no others.
fn asked(line: &str) -> Option<Asked<'_>> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [program, "serve"] => match agent_file(program)? {
            (sha256, PROGRAM) => Some(Asked::Serve { sha256 }),
            _ => None,
        },
        ["install", "-D", "-m", "0755", "/dev/stdin", file] => {
            let (sha256, aside) = agent_file(file)?;
            is_aside(aside).then_some(Asked::Upload { sha256, aside })
        }
        [program, "install", wanted] => {
            let (sha256, aside) = agent_file(program)?;
            (is_aside(aside) && sha256 == *wanted).then_some(Asked::Install { sha256, aside })
        }
        _ => None,
    }
}

/// The version and the file name of `AGENTS/SHA256/NAME`.
fn agent_file(path: &str) -> Option<(&str, &str)> {
    let (sha256, name) = path
        .strip_prefix(AGENTS)?
        .strip_prefix('/')?
        .split_once('/')?;
    (sha256.len() == 64 && is_hex(sha256)).then_some((sha256, name))
}

/// `nightshift-agent.new-SIGNATURE-RANDOM`
fn is_aside(name: &str) -> bool {
    let random = name.rsplit_once('-').map_or("", |(_, random)| random);
    random.len() == 16
        && is_hex(random)
        && signature_of(name).is_some_and(|signature| signature.len() == 64 && is_hex(signature))
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn place(root: &Root, sha256: &str, name: &str) -> PathBuf {
    root.at(AGENTS).join(sha256).join(name)
}

/// Becomes the agent.
fn serve(root: &Root, sha256: &str) -> ExitCode {
    let program = place(root, sha256, PROGRAM);
    let mut command = Command::new(&program);
    if root.dir() != std::path::Path::new("/") {
        command.arg("--root").arg(root.dir());
    }
    let error = command.arg("serve").env_clear().current_dir("/").exec();
    eprintln!("nightshift-agent: {}: {error}", program.display());
    ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    })
}

/// On a host behind this gate nothing is taken on trust: whoever was not enrolled brings no program.
fn signed(root: &Root, sha256: &str, aside: &str) -> Result<(), String> {
    let bare = format!(
        "expected a host that was enrolled before its key was restricted, found no {}",
        step_key::path(root).display()
    );
    step_key::check_agent(
        root,
        sha256,
        signature_of(aside).unwrap_or_default(),
        Err(bare),
    )
}

fn upload(root: &Root, sha256: &str, aside: &str) -> Result<(), String> {
    signed(root, sha256, aside)?;
    let path = place(root, sha256, aside);
    let fail = |error: io::Error| format!("expected to write {}, found: {error}", path.display());
    if let Some(dir) = path.parent() {
        // Others may run an agent: the exporter under its own user does.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(fail)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(&path)
        .map_err(fail)?;
    let copied = io::copy(
        &mut io::stdin().lock().take(UPLOAD_LIMIT_BYTES + 1),
        &mut file,
    );
    let kept = copied
        .and_then(|count| file.flush().map(|()| count))
        .map_err(fail);
    match kept {
        Ok(count) if count <= UPLOAD_LIMIT_BYTES => Ok(()),
        Ok(_) => {
            let _ = fs::remove_file(&path);
            Err(format!(
                "expected at most {UPLOAD_LIMIT_BYTES} bytes, found more"
            ))
        }
        Err(why) => {
            let _ = fs::remove_file(&path);
            Err(why)
        }
    }
}

/// The uploaded program is not run before its digest was found to be the signed one.
fn install(root: &Root, sha256: &str, aside: &str) -> Result<(), String> {
    signed(root, sha256, aside)?;
    put_in_place(root, &place(root, sha256, aside), sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engines_commands_are_understood() {
        let sha = "ab".repeat(32);
        let aside = format!(
            "nightshift-agent.new-{}-{}",
            "cd".repeat(32),
            "0".repeat(16)
        );
        let (at, new) = (
            format!("{AGENTS}/{sha}/nightshift-agent"),
            format!("{AGENTS}/{sha}/{aside}"),
        );
        let (sha256, aside) = (sha.as_str(), aside.as_str());
        assert_eq!(asked(&format!("{at} serve")), Some(Asked::Serve { sha256 }));
        assert_eq!(
            asked(&format!("install -D -m 0755 /dev/stdin {new}")),
            Some(Asked::Upload { sha256, aside })
        );
        assert_eq!(
            asked(&format!("{new} install {sha}")),
            Some(Asked::Install { sha256, aside })
        );
        for line in [
            "".to_owned(),
            "sh".to_owned(),
            "id; true".to_owned(),
            at.clone(),
            format!("{at} work j.0.1"),
            format!("{at} export --config /x"),
            format!("{at} --root /tmp serve"),
            format!("{at} serve; id"),
            format!("{at}  serve"),
            format!("{at} serve\nid"),
            format!("{new} serve"),
            format!("{at} install {sha}"),
            format!("{new} install {}", "cd".repeat(32)),
            format!("{AGENTS}/current/nightshift-agent serve"),
            format!("{AGENTS}/{sha}/../x/nightshift-agent serve"),
            format!("/tmp/{sha}/nightshift-agent serve"),
            format!("install -D -m 0755 /dev/stdin {at}"),
            format!("install -D -m 4755 /dev/stdin {new}"),
            format!("install -D -m 0755 /dev/stdin {new}/../../x"),
            format!("install -D -m 0755 /etc/shadow {new}"),
            format!(
                "install -D -m 0755 /dev/stdin {AGENTS}/{sha}/nightshift-agent.new-x-{}",
                "0".repeat(16)
            ),
        ] {
            assert_eq!(asked(&line), None, "{line}");
        }
    }
}
