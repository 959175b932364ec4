//! Debian packages: what is installed, what could be, and what is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judged, Pending, plain_name};
use crate::wire::Resource;

/// One package that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub version: Option<&'a str>,
    pub absent: bool,
}

impl<'a> Wanted<'a> {
    pub fn of(resource: &'a Resource) -> Option<Self> {
        match resource {
            Resource::Package {
                name,
                version,
                absent,
            } => Some(Self {
                name,
                version: version.as_deref(),
                absent: *absent,
            }),
            _ => None,
        }
    }
}

/// How dpkg has a package: `want flag status`, for example `install ok installed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub status: String,
    pub version: String,
}

impl Installed {
    pub fn is_whole(&self) -> bool {
        self.status.ends_with(" ok installed")
    }

    /// Nothing of it is left, not even configuration files.
    fn is_gone(&self) -> bool {
        self.status.ends_with(" not-installed")
    }
}

/// The stanzas of `/var/lib/dpkg/status` about the wanted names. With several architectures an installed one counts.
pub fn parse_status(text: &str, wanted: &BTreeSet<&str>) -> BTreeMap<String, Installed> {
    let mut found: BTreeMap<String, Installed> = BTreeMap::new();
    for stanza in text.split("\n\n") {
        let Some(name) = field(stanza, "Package").filter(|n| wanted.contains(n)) else {
            continue;
        };
        let this = Installed {
            status: field(stanza, "Status").unwrap_or_default().to_owned(),
            version: field(stanza, "Version").unwrap_or_default().to_owned(),
        };
        if !found.get(name).is_some_and(Installed::is_whole) {
            found.insert(name.to_owned(), this);
        }
    }
    found
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = stanza.trim_start_matches('\n').lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What apt could install of one package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub candidate: Option<String>,
    pub versions: BTreeSet<String>,
}

/// Reads `apt-cache policy NAME...`. Packages it never heard of are missing.
pub fn parse_policy(text: &str) -> BTreeMap<String, Policy> {
    let mut all: BTreeMap<String, Policy> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|n| !n.starts_with(' ')) {
            current = name.to_owned();
            all.insert(current.clone(), Policy::default());
            continue;
        }
        let Some(policy) = all.get_mut(&current) else {
            continue;
        };
        if let Some(candidate) = line.strip_prefix("  Candidate: ") {
            policy.candidate = Some(candidate.to_owned()).filter(|c| c != "(none)");
        } else if line.starts_with("     ") || line.starts_with(" *** ") {
            // ` *** VERSION PRIORITY` or `     VERSION PRIORITY`; deeper lines are its sources.
            let version = line[5..].split(' ').next().unwrap_or_default();
            if !version.is_empty() {
                policy.versions.insert(version.to_owned());
            }
        }
    }
    all
}

/// What is known about packages of one request.
#[derive(Debug, Default)]
pub struct Packages {
    pub installed: BTreeMap<String, Installed>,
    /// `None`: it was not needed, or could not be learned (then `policy_error` says why).
    pub policy: Option<BTreeMap<String, Policy>>,
    pub policy_error: Option<String>,
    /// The lists are absent or old, so they will be fetched before anything is installed.
    pub lists_will_be_fetched: bool,
}

/// Whether dpkg's word alone says that nothing is to be done.
pub fn settled(wanted: Wanted<'_>, installed: Option<&Installed>) -> bool {
    match installed {
        None => wanted.absent,
        Some(found) if wanted.absent => found.is_gone(),
        Some(found) => found.is_whole() && wanted.version.is_none_or(|v| v == found.version),
    }
}

pub fn look(wanted: Wanted<'_>, packages: &Packages, pending: &Pending) -> Judged {
    let name = wanted.name;
    let checked = plain_name("package", name, "+.-").and_then(|()| {
        wanted
            .version
            .map_or(Ok(()), |v| plain_name("version", v, "+.-:~"))
    });
    if let Err(why) = checked {
        return Judged::cannot("", why);
    }
    let installed = packages.installed.get(name);
    let seen = installed.map_or_else(
        || "absent".to_owned(),
        |i| format!("{} {}", i.status, i.version),
    );
    if settled(wanted, installed) {
        return Judged::by_diff(&seen, vec![]);
    }
    if wanted.absent {
        return Judged::by_diff(&seen, vec![format!("- package {name}")]);
    }
    let policy = match (&packages.policy, &packages.policy_error) {
        (Some(policy), _) => policy.get(name),
        (None, Some(why)) => {
            return Judged::new(&seen, crate::wire::State::Unknown { why: why.clone() });
        }
        (None, None) => None,
    };
    let may_appear = packages.lists_will_be_fetched || pending.repositories;
    let version = match wanted.version {
        Some(version) if policy.is_some_and(|p| p.versions.contains(version)) => Some(version),
        Some(_) => None,
        None => policy.and_then(|p| p.candidate.as_deref()),
    };
    match (version, installed.filter(|i| i.is_whole())) {
        (Some(version), None) => {
            Judged::by_diff(&seen, vec![format!("+ package {name} {version}")])
        }
        (Some(version), Some(old)) => Judged::by_diff(
            &seen,
            vec![format!("package {name}: {} -> {version}", old.version)],
        ),
        (None, _) if may_appear => Judged::by_diff(
            &seen,
            vec![format!(
                "+ package {name} (its version shows once the package lists are fetched)"
            )],
        ),
        (None, _) => Judged::cannot(
            &seen,
            match wanted.version {
                Some(version) => format!("no package source has {name} in version {version}"),
                None => format!("no package source has {name}"),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    const STATUS: &str = "Package: adduser
Status: install ok installed
Priority: important
Version: 3.134
Description: add and remove users
 Package: not-a-field

Package: libc6
Status: deinstall ok config-files
Architecture: i386
Version: 2.35

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u8

Package: half
Status: install ok half-configured
Version: 1
";

    const POLICY: &str = "memcached:
  Installed: (none)
  Candidate: 1.6.18-1
  Version table:
     1.6.18-1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
adduser:
  Installed: 3.134
  Candidate: 3.134
  Version table:
 *** 3.134 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
     3.118 400
        400 http://deb.debian.org/debian bullseye/main amd64 Packages
mail-transport-agent:
  Installed: (none)
  Candidate: (none)
  Version table:
";

    #[test]
    fn status_and_policy_are_read() {
        let wanted = BTreeSet::from(["adduser", "libc6", "half", "none"]);
        let found = parse_status(STATUS, &wanted);
        assert_eq!(found.len(), 3);
        assert_eq!(found["libc6"].version, "2.36-9+deb12u8");
        assert!(found["adduser"].is_whole() && !found["half"].is_whole());
        let policy = parse_policy(POLICY);
        assert_eq!(policy["memcached"].candidate.as_deref(), Some("1.6.18-1"));
        assert_eq!(
            policy["adduser"].versions,
            BTreeSet::from(["3.134".into(), "3.118".into()])
        );
        assert_eq!(policy["mail-transport-agent"], Policy::default());
    }

    fn judge(name: &str, version: Option<&str>, absent: bool, fetched: bool) -> State {
        let packages = Packages {
            installed: parse_status(STATUS, &BTreeSet::from([name])),
            policy: Some(parse_policy(POLICY)),
            policy_error: None,
            lists_will_be_fetched: fetched,
        };
        look(
            Wanted {
                name,
                version,
                absent,
            },
            &packages,
            &Pending::default(),
        )
        .state
    }

    #[test]
    fn judged_by_what_is_there_and_what_can_be_had() {
        let change = |line: &str| State::WillChange {
            diff: vec![line.to_owned()],
        };
        for (name, version, absent, fetched, expected) in [
            ("adduser", None, false, false, State::Same),
            ("adduser", Some("3.134"), false, false, State::Same),
            (
                "adduser",
                Some("3.118"),
                false,
                false,
                change("package adduser: 3.134 -> 3.118"),
            ),
            ("adduser", None, true, false, change("- package adduser")),
            ("memcached", None, true, false, State::Same),
            (
                "memcached",
                None,
                false,
                false,
                change("+ package memcached 1.6.18-1"),
            ),
            (
                "nonsense",
                None,
                false,
                false,
                State::Cannot {
                    why: "no package source has nonsense".into(),
                },
            ),
            (
                "memcached",
                Some("9"),
                false,
                false,
                State::Cannot {
                    why: "no package source has memcached in version 9".into(),
                },
            ),
            (
                "nonsense",
                None,
                false,
                true,
                change("+ package nonsense (its version shows once the package lists are fetched)"),
            ),
        ] {
            assert_eq!(
                judge(name, version, absent, fetched),
                expected,
                "{name} {version:?}"
            );
        }
        assert!(matches!(
            judge("--purge", None, false, true),
            State::Cannot { .. }
        ));
    }
}
