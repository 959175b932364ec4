//! How all resources of a request stand: every source of facts is asked once, then each resource is judged.

use std::{collections::BTreeMap, thread};

use super::{
    apt, collect,
    exec::Exec,
    resource::{
        Judged, Pending, accounts, accounts::Accounts, apt_repository, archive, command, directory,
        file, package, rabbitmq, sql, sysctl, unit,
    },
    root::Root,
};
use crate::wire::{ARCHIVE_MARKER, Observation, Resource};

/// What was learned of the host, once for all resources.
struct Survey<'a> {
    accounts: Result<Accounts, String>,
    packages: package::Packages,
    units: Result<unit::Properties, String>,
    sql: sql::Answers,
    /// Index of a resource → its place among the SQL answers.
    sql_places: BTreeMap<usize, usize>,
    brokers: BTreeMap<rabbitmq::Api<'a>, Result<rabbitmq::Broker, rabbitmq::ApiError>>,
}

impl<'a> Survey<'a> {
    /// All sources at once: the slowest one decides.
    fn take(root: &Root, exec: &Exec, resources: &'a [Resource]) -> Self {
        let wanted: Vec<package::Wanted<'_>> =
            resources.iter().filter_map(package::Wanted::of).collect();
        let units: Vec<&str> = collect::set(resources.iter().filter_map(unit_name))
            .into_iter()
            .collect();
        let objects: Vec<(usize, sql::Wanted<'_>)> = resources
            .iter()
            .enumerate()
            .filter_map(|(index, resource)| Some((index, sql::Wanted::of(resource)?)))
            .collect();
        let questions: Vec<sql::Wanted<'_>> = objects.iter().map(|(_, wanted)| *wanted).collect();
        let places = objects.iter().enumerate();
        let sql_places = collect::map(places.map(|(place, (index, _))| (*index, place)));
        let apis = collect::set(resources.iter().filter_map(rabbitmq::Api::of));
        thread::scope(|scope| {
            let packages = scope.spawn(|| apt::survey(root, exec, &wanted));
            let units = scope.spawn(|| unit::show(exec, &units));
            let sql = scope.spawn(|| sql::ask(exec, &questions));
            let brokers = collect::map(apis.into_iter().map(|api| {
                let broker = rabbitmq::read(&api);
                (api, broker)
            }));
            let lost = || "the thread that asked has ended".to_owned();
            Self {
                accounts: Accounts::read(root),
                packages: packages.join().unwrap_or_default(),
                units: units.join().unwrap_or_else(|_| Err(lost())),
                sql: sql.join().unwrap_or_else(|_| sql::Answers::Error(lost())),
                sql_places,
                brokers,
            }
        })
    }
}

fn unit_name(resource: &Resource) -> Option<&str> {
    match resource {
        Resource::Unit { name, .. } if unit::check_name(name).is_ok() => Some(name),
        _ => None,
    }
}

/// Sources before packages, packages before what they bring, servers before what is in them.
fn rank(resource: &Resource) -> u8 {
    match resource {
        Resource::AptRepository { .. } => 0,
        Resource::Package { .. } => 1,
        Resource::Group { .. } => 2,
        Resource::User { .. } => 3,
        Resource::Directory { .. } => 4,
        Resource::File { .. } | Resource::Archive { .. } | Resource::Sysctl { .. } => 5,
        Resource::Unit { .. } => 6,
        Resource::Command { .. } => 7,
        Resource::SqlDatabase { .. } | Resource::RabbitmqVhost { .. } => 8,
        Resource::SqlUser { .. } | Resource::RabbitmqUser { .. } => 9,
        Resource::SqlGrant { .. } | Resource::RabbitmqPolicy { .. } => 10,
    }
}

/// One observation a resource, in their order. What is missing now but comes with another resource of the same request is a
/// change, not an impossibility.
pub fn observe(root: &Root, exec: &Exec, resources: &[Resource]) -> Vec<Observation> {
    let survey = Survey::take(root, exec, resources);
    let order = collect::set(
        resources
            .iter()
            .enumerate()
            .map(|(index, r)| (rank(r), index)),
    );
    let mut pending = Pending::default();
    let mut judged: Vec<Option<Judged>> = resources.iter().map(|_| None).collect();
    for (_, index) in order {
        let resource = &resources[index];
        let one = judge(root, exec, &survey, index, resource, &pending);
        if one.changes() {
            note(&mut pending, resource);
        }
        judged[index] = Some(one);
    }
    resources
        .iter()
        .zip(judged)
        .map(|(resource, one)| {
            one.unwrap_or_else(|| Judged::unknown("it was not judged"))
                .observation(resource.id())
        })
        .collect()
}

/// A single resource as it stands now, with nothing else to come.
pub fn observe_one(root: &Root, exec: &Exec, resource: &Resource) -> Judged {
    let survey = Survey::take(root, exec, std::slice::from_ref(resource));
    judge(root, exec, &survey, 0, resource, &Pending::default())
}

fn note(pending: &mut Pending, resource: &Resource) {
    match resource {
        Resource::AptRepository { .. } => pending.repositories = true,
        Resource::Package { absent: false, .. } => pending.packages = true,
        Resource::Group {
            name,
            absent: false,
            ..
        } => {
            pending.groups.insert(name.clone());
        }
        Resource::User {
            name,
            absent: false,
            ..
        } => {
            pending.users.insert(name.clone());
        }
        Resource::Directory {
            path,
            absent: false,
            ..
        } => {
            pending.directories.insert(path.clone());
        }
        Resource::File { path, .. } => {
            pending.files.insert(path.clone());
        }
        Resource::Archive { path, .. } => {
            pending.directories.insert(path.clone());
            pending.files.insert(format!("{path}/{ARCHIVE_MARKER}"));
        }
        Resource::Unit {
            running: Some(true),
            ..
        } => pending.units = true,
        _ => {}
    }
}

fn judge(
    root: &Root,
    exec: &Exec,
    survey: &Survey<'_>,
    index: usize,
    resource: &Resource,
    pending: &Pending,
) -> Judged {
    let accounts = match &survey.accounts {
        Ok(accounts) => accounts,
        Err(why) => return Judged::unknown(why.clone()),
    };
    if let Some(wanted) = package::Wanted::of(resource) {
        return package::look(wanted, &survey.packages, pending);
    }
    if let Some(wanted) = sql::Wanted::of(resource) {
        let place = survey.sql_places.get(&index).copied().unwrap_or(usize::MAX);
        return sql::look(&wanted, place, &survey.sql, pending);
    }
    if let Some(api) = rabbitmq::Api::of(resource) {
        return rabbitmq::look(resource, survey.brokers.get(&api), pending);
    }
    match Local::of(resource) {
        Some(Local::Repository(wanted)) => apt_repository::look(root, accounts, &wanted, pending),
        Some(Local::File(wanted)) => file::look(root, accounts, &wanted, pending),
        Some(Local::Archive(wanted)) => archive::look(root, &wanted, pending),
        Some(Local::Directory(wanted)) => directory::look(root, accounts, &wanted, pending),
        Some(Local::Group { name, absent, .. }) => accounts::look_group(accounts, name, absent),
        Some(Local::User(wanted)) => accounts::look_user(accounts, &wanted, pending),
        Some(Local::Unit(wanted)) => unit::look(root, &wanted, &survey.units, pending),
        Some(Local::Sysctl(wanted)) => sysctl::look(root, accounts, wanted, pending),
        Some(Local::Command(wanted)) => command::look(root, exec, &wanted, pending),
        None => Judged::unknown("no part of this agent knows such a resource"),
    }
}

/// Resources that need no server but the host itself, in the words of their modules.
pub enum Local<'a> {
    Repository(apt_repository::Wanted<'a>),
    File(file::Wanted<'a>),
    Archive(archive::Wanted<'a>),
    Directory(directory::Wanted<'a>),
    Group {
        name: &'a str,
        system: bool,
        absent: bool,
    },
    User(accounts::Wanted<'a>),
    Unit(unit::Wanted<'a>),
    Sysctl(sysctl::Wanted<'a>),
    Command(command::Wanted<'a>),
}

impl<'a> Local<'a> {
    pub fn of(resource: &'a Resource) -> Option<Self> {
        Some(match resource {
            Resource::AptRepository {
                name,
                uris,
                suites,
                components,
                key,
                absent,
            } => Self::Repository(apt_repository::Wanted {
                name,
                uris,
                suites,
                components,
                key: key.as_deref(),
                absent: *absent,
            }),
            Resource::File {
                path,
                content,
                mode,
                owner,
                group,
                validate,
                sensitive,
                absent,
            } => Self::File(file::Wanted {
                path,
                content,
                mode,
                owner,
                group,
                validate: validate.as_deref(),
                sensitive: *sensitive,
                absent: *absent,
            }),
            Resource::Archive {
                path,
                url,
                sha256,
                strip,
            } => Self::Archive(archive::Wanted {
                path,
                url,
                sha256,
                strip: *strip,
            }),
            Resource::Directory {
                path,
                mode,
                owner,
                group,
                absent,
            } => Self::Directory(directory::Wanted {
                path,
                mode,
                owner,
                group,
                absent: *absent,
            }),
            Resource::Group {
                name,
                system,
                absent,
            } => Self::Group {
                name,
                system: *system,
                absent: *absent,
            },
            Resource::User {
                name,
                group,
                groups,
                home,
                shell,
                system,
                absent,
            } => Self::User(accounts::Wanted {
                name,
                group,
                groups,
                home,
                shell,
                system: *system,
                absent: *absent,
            }),
            Resource::Unit {
                name,
                enabled,
                running,
                restart_on,
                reload_on,
            } => Self::Unit(unit::Wanted {
                name,
                enabled: *enabled,
                running: *running,
                restart_on,
                reload_on,
            }),
            Resource::Sysctl { key, value, absent } => Self::Sysctl(sysctl::Wanted {
                key,
                value,
                absent: *absent,
            }),
            Resource::Command {
                argv,
                unless,
                creates,
                stdin,
                timeout_seconds,
                ..
            } => Self::Command(command::Wanted {
                argv,
                unless: unless.as_deref(),
                creates: creates.as_deref(),
                stdin: stdin.as_deref(),
                timeout_seconds: *timeout_seconds,
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::wire::State;

    fn file(path: &str, owner: &str) -> Resource {
        Resource::File {
            path: path.into(),
            content: "x".into(),
            mode: "0644".into(),
            owner: owner.into(),
            group: "root".into(),
            validate: None,
            sensitive: false,
            absent: false,
        }
    }

    #[test]
    fn what_another_resource_brings_is_a_change_whatever_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(dir.path().join("var/lib/dpkg/status"), "").unwrap();
        let exec = Exec::new(root.clone());
        let alone = observe(&root, &exec, &[file("/etc/app/conf", "app")]);
        assert!(matches!(&alone[0].state, State::Cannot { .. }), "{alone:?}");
        let together = [
            file("/etc/app/conf", "app"),
            Resource::Directory {
                path: "/etc/app".into(),
                mode: "0755".into(),
                owner: "app".into(),
                group: "root".into(),
                absent: false,
            },
            Resource::User {
                name: "app".into(),
                group: "root".into(),
                groups: vec![],
                home: "/nonexistent".into(),
                shell: "/bin/false".into(),
                system: true,
                absent: false,
            },
        ];
        let all = observe(&root, &exec, &together);
        assert_eq!(all.len(), 3);
        for (one, resource) in all.iter().zip(&together) {
            assert_eq!(one.id, resource.id());
            assert!(matches!(one.state, State::WillChange { .. }), "{one:?}");
        }
    }
}
