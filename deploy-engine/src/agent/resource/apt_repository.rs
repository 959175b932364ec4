//! Package sources: one deb822 file and its signing key.

use super::{Judged, Pending, accounts::Accounts, file, plain_name};
use crate::{
    agent::{exec::Exec, root::Root},
    wire::State,
};

/// How a package source is wanted.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub uris: &'a [String],
    pub suites: &'a [String],
    pub components: &'a [String],
    pub key: Option<&'a str>,
    pub absent: bool,
}

struct Files {
    source: (String, String),
    key: (String, String),
}

fn files(wanted: &Wanted<'_>) -> Result<Files, String> {
    plain_name("package source", wanted.name, ".-")?;
    let words = [wanted.uris, wanted.suites, wanted.components].concat();
    if let Some(bad) = words
        .iter()
        .find(|w| w.is_empty() || !w.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(format!(
            "expected words without spaces in the package source {}, found {bad:?}",
            wanted.name
        ));
    }
    let key_path = format!("/etc/apt/keyrings/nightshift-{}.asc", wanted.name);
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {}\n",
        wanted.uris.join(" "),
        wanted.suites.join(" ")
    );
    if !wanted.components.is_empty() {
        text += &format!("Components: {}\n", wanted.components.join(" "));
    }
    if wanted.key.is_some() {
        text += &format!("Signed-By: {key_path}\n");
    }
    Ok(Files {
        source: (
            format!("/etc/apt/sources.list.d/{}.sources", wanted.name),
            text,
        ),
        key: (key_path, wanted.key.unwrap_or_default().to_owned()),
    })
}

fn as_files<'a>(files: &'a Files, wanted: &Wanted<'_>) -> [file::Wanted<'a>; 2] {
    let make = |(path, content): &'a (String, String), absent: bool| file::Wanted {
        path,
        content,
        mode: "0644",
        owner: "0",
        group: "0",
        validate: None,
        sensitive: false,
        absent,
    };
    [
        make(&files.key, wanted.absent || wanted.key.is_none()),
        make(&files.source, wanted.absent),
    ]
}

pub fn look(root: &Root, accounts: &Accounts, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    let files = match files(wanted) {
        Ok(files) => files,
        Err(why) => return Judged::cannot("", why),
    };
    let (mut seen, mut diff) = (String::new(), Vec::new());
    for wanted in as_files(&files, wanted) {
        let judged = file::look(root, accounts, &wanted, pending);
        seen += &judged.digest;
        match judged.state {
            State::Same => {}
            State::WillChange { diff: lines } => diff.extend(lines),
            other => return Judged::new(&seen, other),
        }
    }
    Judged::by_diff(&seen, diff)
}

/// The key first: a source without its key would fail the next fetch of lists.
pub fn apply(
    root: &Root,
    exec: &Exec,
    accounts: &Accounts,
    wanted: &Wanted<'_>,
) -> Result<(), String> {
    let files = files(wanted)?;
    for wanted in as_files(&files, wanted) {
        if file::look(root, accounts, &wanted, &Pending::default()).state != State::Same {
            file::apply(root, exec, accounts, &wanted)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_source_names_its_key_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for made in ["etc/apt/keyrings", "etc/apt/sources.list.d"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        let (accounts, exec) = (Accounts::default(), Exec::new(root.clone()));
        let (uris, suites, components) = (
            ["http://10.77.0.1/ceph".to_owned()],
            ["bookworm".to_owned()],
            ["main".to_owned()],
        );
        let mut wanted = Wanted {
            name: "ceph",
            uris: &uris,
            suites: &suites,
            components: &components,
            key: Some("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
            absent: false,
        };
        let look = |wanted: &Wanted<'_>| super::look(&root, &accounts, wanted, &Pending::default());
        assert!(look(&wanted).changes());
        apply(&root, &exec, &accounts, &wanted).unwrap();
        assert_eq!(look(&wanted).state, State::Same);
        let text =
            fs::read_to_string(dir.path().join("etc/apt/sources.list.d/ceph.sources")).unwrap();
        assert!(
            text.ends_with("Components: main\nSigned-By: /etc/apt/keyrings/nightshift-ceph.asc\n"),
            "{text}"
        );
        wanted.absent = true;
        apply(&root, &exec, &accounts, &wanted).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("etc/apt/keyrings"))
                .unwrap()
                .count(),
            0
        );
        let bad = ["http://x\nTrusted: yes".to_owned()];
        wanted.uris = &bad;
        assert!(matches!(look(&wanted).state, State::Cannot { .. }));
    }
}
