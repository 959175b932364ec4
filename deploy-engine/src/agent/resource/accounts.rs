//! Users and groups, read from `/etc/passwd` and `/etc/group` (a static program must not ask the name-service switch).

use std::{collections::BTreeMap, fs, time::Duration};

use super::{Judged, Pending, plain_name};
use crate::agent::{collect, exec::Exec, root::Root};

/// useradd and friends wait for the lock of another one at most this long.
const ACCOUNT_TOOL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    gid: u32,
    members: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: BTreeMap<String, Account>,
    groups: BTreeMap<String, Group>,
}

impl Accounts {
    pub fn read(root: &Root) -> Result<Self, String> {
        let text = |path: &str| {
            fs::read_to_string(root.at(path))
                .map_err(|error| format!("expected to read {path}, found: {error}"))
        };
        Ok(Self::parse(&text("/etc/passwd")?, &text("/etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = f.as_slice() else {
                return None;
            };
            let account = Account {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
            };
            Some(((*name).to_owned(), account))
        });
        let groups = group.lines().filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = f.as_slice() else {
                return None;
            };
            let members = members.split(',').filter(|m| !m.is_empty());
            let group = Group {
                gid: gid.parse().ok()?,
                members: members.map(str::to_owned).collect(),
            };
            Some(((*name).to_owned(), group))
        });
        Self {
            users: collect::map(users),
            groups: collect::map(groups),
        }
    }

    pub fn user(&self, name: &str) -> Option<&Account> {
        self.users.get(name)
    }

    /// The number behind a name; a number stands for itself.
    pub fn uid(&self, name: &str) -> Option<u32> {
        self.users
            .get(name)
            .map(|u| u.uid)
            .or_else(|| name.parse().ok())
    }

    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups
            .get(name)
            .map(|g| g.gid)
            .or_else(|| name.parse().ok())
    }

    pub fn user_name(&self, uid: u32) -> String {
        let found = self.users.iter().find(|(_, u)| u.uid == uid);
        found.map_or_else(|| uid.to_string(), |(name, _)| name.clone())
    }

    pub fn group_name(&self, gid: u32) -> String {
        let found = self.groups.iter().find(|(_, g)| g.gid == gid);
        found.map_or_else(|| gid.to_string(), |(name, _)| name.clone())
    }

    /// The numbers of an owner, or `Err(None)` if they will exist once what is pending is done, `Err(Some(why))` if not.
    pub fn owner(
        &self,
        owner: &str,
        group: &str,
        pending: &Pending,
    ) -> Result<(u32, u32), Option<String>> {
        let missing = |kind: &str, name: &str, created: bool| {
            (!created && !pending.packages).then(|| {
                format!(
                    "the {kind} {name} does not exist and nothing that is planned here creates it"
                )
            })
        };
        let uid = self
            .uid(owner)
            .ok_or_else(|| missing("user", owner, pending.users.contains(owner)))?;
        let gid = self.gid(group).ok_or_else(|| {
            missing(
                "group",
                group,
                pending.groups.contains(group) || pending.users.contains(group),
            )
        })?;
        Ok((uid, gid))
    }
}

pub fn look_group(accounts: &Accounts, name: &str, absent: bool) -> Judged {
    if let Err(why) = plain_name("group", name, "-.") {
        return Judged::cannot("", why);
    }
    match (accounts.groups.contains_key(name), absent) {
        (false, false) => Judged::by_diff("absent", vec![format!("+ group {name}")]),
        (true, true) => Judged::by_diff("present", vec![format!("- group {name}")]),
        (true, false) => Judged::by_diff("present", vec![]),
        (false, true) => Judged::by_diff("absent", vec![]),
    }
}

pub fn apply_group(exec: &Exec, name: &str, system: bool, absent: bool) -> Result<(), String> {
    let mut argv = vec![if absent { "groupdel" } else { "groupadd" }];
    if system && !absent {
        argv.push("--system");
    }
    argv.push(name);
    exec.text(&argv, ACCOUNT_TOOL_TIMEOUT).map(drop)
}

/// How a user is wanted.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub group: &'a str,
    pub groups: &'a [String],
    pub home: &'a str,
    pub shell: &'a str,
    pub system: bool,
    pub absent: bool,
}

pub fn look_user(accounts: &Accounts, wanted: &Wanted<'_>, pending: &Pending) -> Judged {
    let name = wanted.name;
    if let Err(why) = plain_name("user", name, "-.") {
        return Judged::cannot("", why);
    }
    let Some(user) = accounts.users.get(name) else {
        let diff = if wanted.absent {
            vec![]
        } else {
            vec![format!("+ user {name}")]
        };
        return check_groups(accounts, wanted, pending, Judged::by_diff("absent", diff));
    };
    let seen = format!("{user:?} {:?}", memberships(accounts, name));
    if wanted.absent {
        return Judged::by_diff(&seen, vec![format!("- user {name}")]);
    }
    let judged = Judged::by_diff(&seen, differences(accounts, wanted, user));
    check_groups(accounts, wanted, pending, judged)
}

fn memberships<'a>(accounts: &'a Accounts, user: &str) -> Vec<&'a str> {
    let of = accounts
        .groups
        .iter()
        .filter(|(_, g)| g.members.iter().any(|m| m == user));
    of.map(|(name, _)| name.as_str()).collect()
}

fn differences(accounts: &Accounts, wanted: &Wanted<'_>, user: &Account) -> Vec<String> {
    let mut diff = Vec::new();
    let mut compare = |what: &str, found: &str, expected: &str| {
        if found != expected {
            diff.push(format!("{what}: {found} -> {expected}"));
        }
    };
    compare("group", &accounts.group_name(user.gid), wanted.group);
    compare("home", &user.home, wanted.home);
    compare("shell", &user.shell, wanted.shell);
    let found = memberships(accounts, wanted.name);
    let more = wanted
        .groups
        .iter()
        .filter(|g| !found.contains(&g.as_str()));
    diff.extend(more.map(|group| format!("+ member of {group}")));
    diff
}

fn check_groups(
    accounts: &Accounts,
    wanted: &Wanted<'_>,
    pending: &Pending,
    judged: Judged,
) -> Judged {
    if wanted.absent || !judged.changes() || pending.packages {
        return judged;
    }
    let all = std::iter::once(wanted.group).chain(wanted.groups.iter().map(String::as_str));
    let missing = all
        .into_iter()
        .find(|&g| accounts.gid(g).is_none() && !pending.groups.contains(g));
    match missing {
        None => judged,
        Some(group) => Judged {
            state: crate::wire::State::Cannot {
                why: format!(
                    "the group {group} does not exist and nothing that is planned here creates it"
                ),
            },
            ..judged
        },
    }
}

pub fn apply_user(exec: &Exec, accounts: &Accounts, wanted: &Wanted<'_>) -> Result<(), String> {
    let groups = wanted.groups.join(",");
    let exists = accounts.users.contains_key(wanted.name);
    let mut argv = match (wanted.absent, exists) {
        (true, _) => vec!["userdel"],
        (false, true) => vec!["usermod", "--append"],
        (false, false) => vec!["useradd", "--no-create-home"],
    };
    if !wanted.absent {
        argv.extend(["--gid", wanted.group, "--shell", wanted.shell]);
        argv.extend([if exists { "--home" } else { "--home-dir" }, wanted.home]);
        // `--append` without `--groups` is an error of usermod's.
        if groups.is_empty() {
            argv.retain(|a| *a != "--append");
        } else {
            argv.extend(["--groups", &groups]);
        }
        if wanted.system && !exists {
            argv.push("--system");
        }
    }
    argv.push(wanted.name);
    exec.text(&argv, ACCOUNT_TOOL_TIMEOUT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::State;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\nbroken line\nmysql:x:105:109:MySQL Server,,,:/nonexistent:/bin/false\n",
            "root:x:0:\nmysql:x:109:\nadm:x:4:syslog,mysql\n",
        )
    }

    #[test]
    fn owners_are_found_created_or_missing() {
        let mut pending = Pending::default();
        let all = accounts();
        assert_eq!(all.owner("mysql", "adm", &pending), Ok((105, 4)));
        assert_eq!(all.owner("105", "0", &pending), Ok((105, 0)));
        assert!(
            matches!(all.owner("rabbitmq", "root", &pending), Err(Some(why)) if why.contains("user rabbitmq"))
        );
        pending.users.insert("rabbitmq".into());
        assert_eq!(all.owner("rabbitmq", "rabbitmq", &pending), Err(None));
    }

    #[test]
    fn a_user_is_compared_field_by_field() {
        let groups = vec!["adm".to_owned(), "root".to_owned()];
        let mut wanted = Wanted {
            name: "mysql",
            group: "mysql",
            groups: &groups,
            home: "/var/lib/mysql",
            shell: "/bin/false",
            system: true,
            absent: false,
        };
        let judged = look_user(&accounts(), &wanted, &Pending::default());
        let diff = vec![
            "home: /nonexistent -> /var/lib/mysql".to_owned(),
            "+ member of root".to_owned(),
        ];
        assert_eq!(judged.state, State::WillChange { diff });
        wanted.group = "nobody-made-it";
        let judged = look_user(&accounts(), &wanted, &Pending::default());
        assert!(matches!(judged.state, State::Cannot { .. }));
    }
}
