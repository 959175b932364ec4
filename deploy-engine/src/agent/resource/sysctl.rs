//! Kernel settings: the running value and the file that keeps it.

use std::{fs, io};

use super::{Judged, Pending, accounts::Accounts, file};
use crate::{
    agent::{exec::Exec, root::Root},
    wire::State,
};

/// How a kernel setting is wanted; `absent`: no longer kept, whatever runs now.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub key: &'a str,
    pub value: &'a str,
    pub absent: bool,
}

/// Where a key is under `/proc/sys`. As sysctl(8) has it: a `/` first means that dots are part of names.
fn path(key: &str) -> Result<String, String> {
    let relative = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_owned(),
        _ => key.replace('.', "/"),
    };
    let path = format!("/proc/sys/{relative}");
    super::plain_path(&path).map(|()| path).map_err(|_| {
        format!("expected a kernel setting such as net.ipv4.ip_forward, found {key:?}")
    })
}

fn kept<'a>(wanted: Wanted<'_>, content: &'a str, path: &'a mut String) -> file::Wanted<'a> {
    *path = format!(
        "/etc/sysctl.d/60-nightshift-{}.conf",
        wanted.key.replace('/', ".")
    );
    file::Wanted {
        path,
        content,
        mode: "0644",
        owner: "0",
        group: "0",
        validate: None,
        sensitive: false,
        absent: wanted.absent,
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

pub fn look(root: &Root, accounts: &Accounts, wanted: Wanted<'_>, pending: &Pending) -> Judged {
    let (running, mut diff) = match running(root, wanted, pending) {
        Ok(running) => running,
        Err(judged) => return judged,
    };
    let (content, mut name) = (content(wanted), String::new());
    let file = file::look(root, accounts, &kept(wanted, &content, &mut name), pending);
    match file.state {
        State::WillChange { diff: lines } => diff.extend(lines),
        State::Same => {}
        other => return Judged::new(&running, other),
    }
    Judged::by_diff(&format!("{running} {}", file.digest), diff)
}

fn content(wanted: Wanted<'_>) -> String {
    format!("{} = {}\n", wanted.key, wanted.value)
}

/// The running value and how it will change, or a judgement that needs no look at the file.
fn running(
    root: &Root,
    wanted: Wanted<'_>,
    pending: &Pending,
) -> Result<(String, Vec<String>), Judged> {
    let Wanted { key, value, absent } = wanted;
    let real = root.at(&path(key).map_err(|why| Judged::cannot("", why))?);
    let found = match fs::read_to_string(&real) {
        Ok(found) => found.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && absent => "absent".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && pending.packages => {
            return Ok((
                "absent".to_owned(),
                vec![format!("{key}: not there yet -> {value}")],
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Judged::cannot(
                "absent",
                format!("the kernel has no setting {key}"),
            ));
        }
        Err(error) => {
            return Err(Judged::unknown(format!(
                "expected to read {key}, found: {error}"
            )));
        }
    };
    if absent || words(&found) == words(value) {
        return Ok((found, vec![]));
    }
    // Opening changes nothing; in a container many settings are read-only.
    if let Err(error) = fs::OpenOptions::new().write(true).open(&real) {
        return Err(Judged::cannot(
            &found,
            format!("{key} is {found} and cannot be set: {error}"),
        ));
    }
    let line = format!("{key}: {found} -> {value}");
    Ok((found, vec![line]))
}

pub fn apply(
    root: &Root,
    exec: &Exec,
    accounts: &Accounts,
    wanted: Wanted<'_>,
) -> Result<(), String> {
    let Wanted { key, value, absent } = wanted;
    let real = root.at(&path(key)?);
    let (content, mut name) = (content(wanted), String::new());
    let file = kept(wanted, &content, &mut name);
    if file::look(root, accounts, &file, &Pending::default()).state != State::Same {
        file::apply(root, exec, accounts, &file)?;
    }
    if absent || fs::read_to_string(&real).is_ok_and(|found| words(&found) == words(value)) {
        return Ok(());
    }
    fs::write(&real, value)
        .map_err(|error| format!("expected to set {key} to {value}, found: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_now_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for made in ["proc/sys/net/ipv4", "etc/sysctl.d"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        fs::write(
            dir.path().join("proc/sys/net/ipv4/ip_local_port_range"),
            "32768\t60999\n",
        )
        .unwrap();
        let (accounts, pending) = (Accounts::default(), Pending::default());
        let key = "net.ipv4.ip_local_port_range";
        let wanted = |value| Wanted {
            key,
            value,
            absent: false,
        };
        let look = |value| super::look(&root, &accounts, wanted(value), &pending);
        let State::WillChange { diff } = look("32768 60999").state else {
            panic!("the value is as wanted, but nothing keeps it");
        };
        assert!(!diff.iter().any(|line| line.contains("->")), "{diff:?}");
        apply(
            &root,
            &Exec::new(root.clone()),
            &accounts,
            wanted("1024 60999"),
        )
        .unwrap();
        assert_eq!(look("1024 60999").state, State::Same);
        let missing = super::look(
            &root,
            &accounts,
            Wanted {
                key: "net.ipv4.nonsense",
                ..wanted("1")
            },
            &pending,
        );
        assert!(matches!(missing.state, State::Cannot { .. }));
        let wild = super::look(
            &root,
            &accounts,
            Wanted {
                key: "../../etc/passwd",
                ..wanted("1")
            },
            &pending,
        );
        assert!(matches!(wild.state, State::Cannot { .. }));
        let gone = Wanted {
            absent: true,
            ..wanted("1024 60999")
        };
        apply(&root, &Exec::new(root.clone()), &accounts, gone).unwrap();
        assert_eq!(
            super::look(&root, &accounts, gone, &pending).state,
            State::Same
        );
        assert_eq!(
            fs::read_dir(dir.path().join("etc/sysctl.d"))
                .unwrap()
                .count(),
            0
        );
    }
}
