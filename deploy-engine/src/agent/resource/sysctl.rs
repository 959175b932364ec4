//! Kernel settings: the running value and the file that keeps it.

use std::{fs, io, path::PathBuf};

use super::{Judged, Pending, accounts::Accounts, file};
use crate::agent::{exec::Exec, root::Root};

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

fn kept<'a>(key: &str, content: &'a str, path: &'a mut String) -> file::Wanted<'a> {
    *path = format!("/etc/sysctl.d/60-nightshift-{}.conf", key.replace('/', "."));
    file::Wanted {
        path,
        content,
        mode: "0644",
        owner: "0",
        group: "0",
        validate: None,
        sensitive: false,
        absent: false,
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

pub fn look(root: &Root, accounts: &Accounts, key: &str, value: &str, pending: &Pending) -> Judged {
    let real: PathBuf = match path(key) {
        Ok(path) => root.at(&path),
        Err(why) => return Judged::cannot("", why),
    };
    let found = match fs::read_to_string(&real) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && pending.packages => {
            return Judged::by_diff("absent", vec![format!("{key}: not there yet -> {value}")]);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Judged::cannot("absent", format!("the kernel has no setting {key}"));
        }
        Err(error) => return Judged::unknown(format!("expected to read {key}, found: {error}")),
    };
    let mut diff = Vec::new();
    if words(&found) != words(value) {
        // Opening changes nothing; in a container many settings are read-only.
        if let Err(error) = fs::OpenOptions::new().write(true).open(&real) {
            return Judged::cannot(
                &found,
                format!("{key} is {} and cannot be set: {error}", found.trim()),
            );
        }
        diff.push(format!("{key}: {} -> {value}", found.trim()));
    }
    let (content, mut name) = (format!("{key} = {value}\n"), String::new());
    let file = file::look(root, accounts, &kept(key, &content, &mut name), pending);
    match file.state {
        crate::wire::State::WillChange { diff: lines } => diff.extend(lines),
        crate::wire::State::Same => {}
        other => return Judged::new(&found, other),
    }
    Judged::by_diff(&format!("{} {}", found.trim(), file.digest), diff)
}

pub fn apply(
    root: &Root,
    exec: &Exec,
    accounts: &Accounts,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let real = root.at(&path(key)?);
    let (content, mut name) = (format!("{key} = {value}\n"), String::new());
    file::apply(root, exec, accounts, &kept(key, &content, &mut name))?;
    if fs::read_to_string(&real).is_ok_and(|found| words(&found) == words(value)) {
        return Ok(());
    }
    fs::write(&real, value)
        .map_err(|error| format!("expected to set {key} to {value}, found: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

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
        let look = |value: &str| super::look(&root, &accounts, key, value, &pending);
        let State::WillChange { diff } = look("32768 60999").state else {
            panic!("the value is as wanted, but nothing keeps it");
        };
        assert!(!diff.iter().any(|line| line.contains("->")), "{diff:?}");
        apply(
            &root,
            &Exec::new(root.clone()),
            &accounts,
            key,
            "1024 60999",
        )
        .unwrap();
        assert_eq!(look("1024 60999").state, State::Same);
        let missing = super::look(&root, &accounts, "net.ipv4.nonsense", "1", &pending);
        assert!(matches!(missing.state, State::Cannot { .. }));
        let wild = super::look(&root, &accounts, "../../etc/passwd", "1", &pending);
        assert!(matches!(wild.state, State::Cannot { .. }));
    }
}
