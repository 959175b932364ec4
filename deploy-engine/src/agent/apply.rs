//! Does the work of one step: looks again at each resource, acts, and looks whether it is so now.

use std::collections::BTreeMap;

use super::{
    apt,
    exec::{Exec, failure},
    observe::{Local, observe_one},
    resource::{
        Judged, accounts, accounts::Accounts, apt_repository, archive, command, directory, file,
        package, rabbitmq, sql, sysctl, unit,
    },
    root::Root,
};
use crate::wire::{Command, Outcome, Progress, Resource, ResourceId, State, Work};

/// Where systemd reads unit files: a change there is not seen until it reads them again.
const UNIT_DIRS: [&str; 3] = [
    "/etc/systemd/system/",
    "/lib/systemd/system/",
    "/usr/lib/systemd/system/",
];

/// Runs one work to its outcome.
pub fn work(root: &Root, exec: &Exec, work: &Work, tell: &mut dyn FnMut(Progress)) -> Outcome {
    let outcome = match work {
        Work::Fetch { packages } => match apt::fetch(root, exec, packages, tell) {
            Ok(output) => Outcome::Done {
                changed: vec![],
                output,
            },
            Err(what) => Outcome::Failed {
                at: None,
                what,
                output: None,
            },
        },
        Work::Apply {
            resources,
            expected,
        } => {
            let mut apply = Apply {
                root,
                exec,
                resources,
                expected,
                tell,
                changed: vec![],
                packages_done: false,
                lists_changed: false,
                units_changed: false,
            };
            match resources
                .iter()
                .try_for_each(|resource| apply.one(resource))
            {
                Ok(()) => Outcome::Done {
                    changed: apply.changed,
                    output: None,
                },
                Err(outcome) => outcome,
            }
        }
        Work::Run { command } => run(exec, command),
    };
    match outcome {
        Outcome::Done { .. } => outcome,
        _ if exec.cancelled() => Outcome::Cancelled,
        Outcome::Failed { at, what, output } if exec.out_of_time() => Outcome::Failed {
            at,
            what: format!("the step's time was up: {what}"),
            output,
        },
        other => other,
    }
}

fn run(exec: &Exec, command: &Command) -> Outcome {
    match exec.run(command) {
        Err(what) => Outcome::Failed {
            at: None,
            what,
            output: None,
        },
        Ok(output) if output.ok() => Outcome::Done {
            changed: vec![],
            output: Some(output),
        },
        Ok(output) => {
            let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
            Outcome::Failed {
                at: None,
                what: failure(&argv, &output),
                output: Some(output),
            }
        }
    }
}

struct Apply<'a> {
    root: &'a Root,
    exec: &'a Exec,
    resources: &'a [Resource],
    expected: &'a BTreeMap<ResourceId, String>,
    tell: &'a mut dyn FnMut(Progress),
    changed: Vec<ResourceId>,
    /// All packages go in one transaction, at the place of the first one.
    packages_done: bool,
    lists_changed: bool,
    units_changed: bool,
}

impl Apply<'_> {
    /// An error is the outcome of the whole work.
    fn one(&mut self, resource: &Resource) -> Result<(), Outcome> {
        if self.exec.cancelled() {
            return Err(Outcome::Cancelled);
        }
        let id = resource.id();
        if self.exec.out_of_time() {
            return Err(failed(
                id,
                "its turn did not come before the step's time was up".to_owned(),
            ));
        }
        if package::Wanted::of(resource).is_some() {
            return if self.packages_done {
                Ok(())
            } else {
                self.packages()
            };
        }
        let judged = observe_one(self.root, self.exec, resource);
        let Some(diff) = self.checked(&id, judged)? else {
            return Ok(());
        };
        (self.tell)(Progress::ResourceStarted { id: id.clone() });
        self.act(resource)
            .map_err(|what| failed(id.clone(), what))?;
        // A guarded command looks at its guard itself.
        if !matches!(resource, Resource::Command { .. }) {
            self.verify(resource)?;
        }
        self.done(id, diff);
        Ok(())
    }

    /// The diff to be made; `None`: nothing to do. Refuses what is neither as planned nor as wanted.
    fn checked(&mut self, id: &ResourceId, judged: Judged) -> Result<Option<Vec<String>>, Outcome> {
        let diff = match judged.state {
            State::Same => {
                (self.tell)(Progress::ResourceDone {
                    id: id.clone(),
                    changed: false,
                    diff: vec![],
                });
                return Ok(None);
            }
            State::WillChange { diff } => diff,
            State::Cannot { why } => return Err(failed(id.clone(), why)),
            State::Unknown { why } => {
                return Err(failed(
                    id.clone(),
                    format!("how it is now is unknown, so nothing was done: {why}"),
                ));
            }
        };
        match self.expected.get(id) {
            Some(expected) if *expected != judged.digest => Err(Outcome::Drifted {
                at: id.clone(),
                expected: expected.clone(),
                found: format!("{} ({})", judged.digest, diff.join("; ")),
            }),
            _ => Ok(Some(diff)),
        }
    }

    fn done(&mut self, id: ResourceId, diff: Vec<String>) {
        self.changed.push(id.clone());
        (self.tell)(Progress::ResourceDone {
            id,
            changed: true,
            diff,
        });
    }

    fn verify(&self, resource: &Resource) -> Result<(), Outcome> {
        let state = observe_one(self.root, self.exec, resource).state;
        match state {
            State::Same => Ok(()),
            State::WillChange { diff } => {
                let what = format!(
                    "it was changed, but is still not as wanted: {}",
                    diff.join("; ")
                );
                Err(failed(resource.id(), what))
            }
            State::Cannot { why } | State::Unknown { why } => Err(failed(
                resource.id(),
                format!("it was changed, but then: {why}"),
            )),
        }
    }

    fn packages(&mut self) -> Result<(), Outcome> {
        self.packages_done = true;
        let all: Vec<&Resource> = self
            .resources
            .iter()
            .filter(|r| package::Wanted::of(r).is_some())
            .collect();
        let wanted: Vec<package::Wanted<'_>> =
            all.iter().filter_map(|r| package::Wanted::of(r)).collect();
        let survey = apt::survey(self.root, self.exec, &wanted);
        // The lists are fetched where they are needed, so a package that cannot be had shows in the transaction.
        let pending = super::resource::Pending {
            repositories: true,
            ..Default::default()
        };
        let mut open = Vec::new();
        for (resource, wanted) in all.iter().zip(&wanted) {
            let judged = package::look(*wanted, &survey, &pending);
            if let Some(diff) = self.checked(&resource.id(), judged)? {
                open.push((*resource, diff));
            }
        }
        let Some((first, _)) = open.first() else {
            return Ok(());
        };
        let at = first.id();
        for (resource, _) in &open {
            (self.tell)(Progress::ResourceStarted { id: resource.id() });
        }
        apt::transaction(self.root, self.exec, &wanted, self.lists_changed, self.tell)
            .map_err(|what| failed(at, what))?;
        for (resource, diff) in open {
            self.verify(resource)?;
            self.done(resource.id(), diff);
        }
        Ok(())
    }

    fn act(&mut self, resource: &Resource) -> Result<(), String> {
        let (root, exec) = (self.root, self.exec);
        if let Some(wanted) = sql::Wanted::of(resource) {
            return sql::apply(exec, &wanted);
        }
        if rabbitmq::Api::of(resource).is_some() {
            return rabbitmq::apply(resource);
        }
        let accounts = Accounts::read(root)?;
        match Local::of(resource).ok_or("no part of this agent knows such a resource")? {
            Local::Repository(wanted) => {
                self.lists_changed = true;
                apt_repository::apply(root, exec, &accounts, &wanted)
            }
            Local::File(wanted) => {
                self.units_changed |= UNIT_DIRS.iter().any(|dir| wanted.path.starts_with(dir));
                file::apply(root, exec, &accounts, &wanted)
            }
            Local::Archive(wanted) => archive::apply(root, exec, &wanted),
            Local::Directory(wanted) => directory::apply(root, &accounts, &wanted),
            Local::Group {
                name,
                system,
                absent,
            } => accounts::apply_group(exec, name, system, absent),
            Local::User(wanted) => accounts::apply_user(exec, &accounts, &wanted),
            Local::Unit(wanted) => {
                unit::apply(root, exec, &wanted, std::mem::take(&mut self.units_changed))
            }
            Local::Sysctl(wanted) => sysctl::apply(root, exec, &accounts, wanted),
            Local::Command(wanted) => command::apply(root, exec, &wanted),
        }
    }
}

fn failed(at: ResourceId, what: String) -> Outcome {
    Outcome::Failed {
        at: Some(at),
        what,
        output: None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn file(path: &str, content: &str, owner: &str) -> Resource {
        Resource::File {
            path: path.into(),
            content: content.into(),
            mode: "0644".into(),
            owner: owner.into(),
            group: owner.into(),
            validate: None,
            sensitive: false,
            absent: false,
        }
    }

    #[test]
    fn stops_on_drift_and_takes_what_is_already_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "").unwrap();
        fs::write(dir.path().join("etc/group"), "").unwrap();
        let owner = fs::metadata(dir.path()).unwrap().uid().to_string();
        let exec = Exec::new(root.clone());
        let apply = |resources: Vec<Resource>, expected: &BTreeMap<ResourceId, String>| {
            work(
                &root,
                &exec,
                &Work::Apply {
                    resources,
                    expected: expected.clone(),
                },
                &mut |_| {},
            )
        };
        let (a, b) = (file("/etc/a", "1\n", &owner), file("/etc/b", "1\n", &owner));
        let planned: BTreeMap<ResourceId, String> = [&a, &b]
            .map(|r| (r.id(), observe_one(&root, &exec, r).digest))
            .into();
        // Somebody else makes b in the meantime, in another way.
        fs::write(dir.path().join("etc/b"), "theirs\n").unwrap();
        let outcome = apply(vec![a.clone(), b.clone()], &planned);
        assert!(
            matches!(&outcome, Outcome::Drifted { at, .. } if *at == b.id()),
            "{outcome:?}"
        );
        assert_eq!(
            fs::read_to_string(dir.path().join("etc/b")).unwrap(),
            "theirs\n"
        );
        // a was done before: it is as wanted, so its digest no longer matters.
        fs::remove_file(dir.path().join("etc/b")).unwrap();
        let outcome = apply(vec![a.clone(), b.clone()], &planned);
        assert_eq!(
            outcome,
            Outcome::Done {
                changed: vec![b.id()],
                output: None
            }
        );
        let outcome = apply(vec![a, b], &planned);
        assert_eq!(
            outcome,
            Outcome::Done {
                changed: vec![],
                output: None
            }
        );
    }
}
