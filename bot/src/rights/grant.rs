//! Grants: single commands for single people, within services, groups, runbooks and rooms. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use deploy_engine::model::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Agreed, ApprovalAction, Identity, Quorum, Role};
use crate::command::TABLE;

/// What roles alone do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Commands for people beyond their role. What no role and no grant allows is refused.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// Who has to agree, to what. Where several rules apply, the strictest of each counts.
    #[serde(default)]
    pub approvals: Vec<Quorum>,
    /// Identities of one and the same person, who has one vote: for example
    /// `[["matrix:@ann:example.org", "unix:ann"]]`.
    #[serde(default)]
    pub persons: Vec<Vec<Identity>>,
}

/// Commands for people. A limit that is left out is none; an empty one allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Each is in `people` as well, with the role for everything else.
    #[schemars(length(min = 1))]
    pub to: Vec<Identity>,
    /// Names of commands as `help` lists them.
    #[schemars(length(min = 1))]
    pub commands: Vec<String>,
    /// Only on these services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceName>>,
    /// Only on services all of whose hosts are in one of these groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Only with these runbooks: running them, and approving what they propose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbooks: Option<Vec<String>>,
    /// Only in these rooms; `control` is the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
}

/// What a command is about, as far as rights go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The whole site, or the bot itself: only what is not limited covers it.
    Site,
    Service {
        service: ServiceName,
        /// The groups of each host that it is on.
        hosts: Vec<BTreeSet<String>>,
        /// Runbooks that act; empty: none, for example a deploy.
        runbooks: BTreeSet<String>,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("the whole site"),
            Self::Service {
                service, runbooks, ..
            } if runbooks.is_empty() => write!(f, "{service}"),
            Self::Service {
                service, runbooks, ..
            } => {
                let names: Vec<&str> = runbooks.iter().map(String::as_str).collect();
                write!(f, "{service} with {}", names.join(", "))
            }
        }
    }
}

impl Grant {
    pub(super) fn covers(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Site => {
                self.services.is_none() && self.groups.is_none() && self.runbooks.is_none()
            }
            Subject::Service {
                service,
                hosts,
                runbooks,
            } => {
                let services = self
                    .services
                    .as_ref()
                    .is_none_or(|own| own.contains(service));
                let groups = self.groups.as_ref().is_none_or(|own| {
                    let granted =
                        |groups: &BTreeSet<String>| own.iter().any(|g| groups.contains(g));
                    !hosts.is_empty() && hosts.iter().all(granted)
                });
                let runbooks = self.runbooks.as_ref().is_none_or(|own| {
                    !runbooks.is_empty() && runbooks.iter().all(|runbook| own.contains(runbook))
                });
                services && groups && runbooks
            }
        }
    }

    fn holds_in(&self, spot: &str) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| {
            let room = spot.strip_prefix("matrix:").unwrap_or(spot);
            rooms.iter().any(|own| own == room)
        })
    }
}

impl Access {
    /// What of `command` somebody was granted in a place.
    pub(super) fn grants_for(&self, who: &Identity, command: &str, spot: &str) -> Vec<Grant> {
        let fits = |grant: &&Grant| {
            grant.to.contains(who)
                && grant.commands.iter().any(|own| own == command)
                && grant.holds_in(spot)
        };
        self.grants.iter().filter(fits).cloned().collect()
    }

    /// One name for all identities of a person.
    pub fn person<'a>(&'a self, who: &'a str) -> &'a str {
        let of = |all: &&Vec<Identity>| all.iter().any(|one| one.as_str() == who);
        self.persons
            .iter()
            .find(of)
            .and_then(|all| all.first())
            .map_or(who, Identity::as_str)
    }

    /// Who has to agree to this.
    pub fn agreed(&self, subject: &Subject, action: ApprovalAction) -> Agreed {
        Agreed::strictest(
            self.approvals
                .iter()
                .filter(|rule| rule.applies(subject, action)),
        )
    }

    /// What is wrong with it, as far as names go.
    pub fn check(
        &self,
        people: &BTreeMap<Identity, Role>,
        services: &BTreeSet<ServiceName>,
        groups: &BTreeSet<String>,
        runbooks: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut names = |at: String, known: &dyn Fn(&str) -> bool, what: &str, given: Vec<&str>| {
            for name in given.into_iter().filter(|name| !known(name)) {
                wrong.push(format!("access: {at}: expected {what}, found `{name}`"));
            }
        };
        let is_service = |name: &str| services.iter().any(|one| one.as_str() == name);
        let is_group = |name: &str| groups.contains(name);
        let is_runbook = |name: &str| runbooks.contains(name);
        let is_person = |name: &str| people.keys().any(|one| one.as_str() == name);
        let is_command = |name: &str| TABLE.iter().any(|spec| spec.name == name);
        for (index, grant) in self.grants.iter().enumerate() {
            let at = || format!("grants {index}");
            let to = grant.to.iter().map(Identity::as_str).collect();
            names(at(), &is_person, "somebody of `people`", to);
            names(at(), &is_command, "a command", texts(Some(&grant.commands)));
            names(
                at(),
                &is_service,
                "a service of the site",
                service_names(grant.services.as_ref()),
            );
            names(
                at(),
                &is_group,
                "a group of hosts",
                texts(grant.groups.as_ref()),
            );
            names(
                at(),
                &is_runbook,
                "a runbook",
                texts(grant.runbooks.as_ref()),
            );
        }
        for (index, rule) in self.approvals.iter().enumerate() {
            let at = || format!("approvals {index}");
            names(
                at(),
                &is_service,
                "a service of the site",
                service_names(rule.services.as_ref()),
            );
            names(
                at(),
                &is_group,
                "a group of hosts",
                texts(rule.groups.as_ref()),
            );
            names(
                at(),
                &is_runbook,
                "a runbook",
                texts(rule.runbooks.as_ref()),
            );
            let by = rule.by.iter().flatten().map(Identity::as_str).collect();
            names(at(), &is_person, "somebody of `people`", by);
        }
        wrong.extend(self.never_enough());
        wrong
    }

    /// Rules that ask for more votes than there are people to give them.
    fn never_enough(&self) -> impl Iterator<Item = String> {
        self.approvals
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| {
                let by = rule.by.as_ref()?;
                let persons: BTreeSet<&str> =
                    by.iter().map(|one| self.person(one.as_str())).collect();
                (persons.len() < rule.votes as usize).then(|| {
                    format!(
                        "access: approvals {index}: expected at least {} people in `by`, found {}",
                        rule.votes,
                        persons.len()
                    )
                })
            })
    }
}

fn texts(names: Option<&Vec<String>>) -> Vec<&str> {
    names.into_iter().flatten().map(String::as_str).collect()
}

fn service_names(names: Option<&Vec<ServiceName>>) -> Vec<&str> {
    names
        .into_iter()
        .flatten()
        .map(ServiceName::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{People, Spot, permit},
        *,
    };
    use crate::command::spec_of;

    fn identity(text: &str) -> Identity {
        Identity::try_from(text.to_owned()).unwrap()
    }

    fn grant(commands: &[&str]) -> Grant {
        Grant {
            to: vec![identity("unix:eve")],
            commands: commands.iter().map(|&name| name.to_owned()).collect(),
            services: None,
            groups: None,
            runbooks: None,
            rooms: None,
        }
    }

    fn service(name: &str, hosts: &[&[&str]], runbooks: &[&str]) -> Subject {
        let groups = |groups: &&[&str]| groups.iter().map(|&g| g.to_owned()).collect();
        Subject::Service {
            service: name.parse().unwrap(),
            hosts: hosts.iter().map(groups).collect(),
            runbooks: runbooks.iter().map(|&r| r.to_owned()).collect(),
        }
    }

    /// What eve, a viewer with this grant, is told.
    fn said(grant: Grant, command: &str, spot: &str, ceiling: Role, subject: &Subject) -> String {
        let people = People::new([(identity("unix:eve"), Role::Viewer)].into(), None);
        let people = people.with_access(Access {
            grants: vec![grant],
            ..Access::default()
        });
        let spot = Spot {
            ceiling,
            name: spot,
        };
        let permit = permit(
            &people,
            &identity("unix:eve"),
            spot,
            spec_of(command).unwrap(),
        );
        match permit.and_then(|permit| permit.covers(subject)) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn a_grant_reaches_its_commands_and_nothing_else() {
        let all = Subject::Site;
        let say = |command| said(grant(&["deploy"]), command, "control", Role::Admin, &all);
        assert_eq!(say("deploy"), "ok");
        assert_eq!(
            say("halt"),
            "`halt` needs the role operator; yours is viewer"
        );
        assert_eq!(
            say("trust"),
            "`trust` needs the role admin; yours is viewer"
        );
    }

    #[test]
    fn a_grant_reaches_its_services_groups_and_runbooks_and_nothing_else() {
        let on = |change: fn(&mut Grant), subject: &Subject| {
            let mut own = grant(&["run"]);
            change(&mut own);
            said(own, "run", "control", Role::Admin, subject)
        };
        let rabbit = service("rabbitmq", &[&["control"], &["control", "r1"]], &["RMQ-1"]);
        let spread = service(
            "rabbitmq",
            &[&["control"], &["storage"]],
            &["RMQ-1", "RMQ-2"],
        );
        let services = |g: &mut Grant| g.services = Some(vec!["rabbitmq".parse().unwrap()]);
        let groups = |g: &mut Grant| g.groups = Some(vec!["control".into()]);
        let runbooks = |g: &mut Grant| g.runbooks = Some(vec!["RMQ-1".into()]);
        for change in [services, groups, runbooks] {
            assert_eq!(on(change, &rabbit), "ok");
            assert_eq!(
                on(change, &Subject::Site),
                "you may use `run`, but not on the whole site"
            );
        }
        let other = service("mariadb", &[&["control"]], &["GAL-1"]);
        assert_eq!(
            on(services, &other),
            "you may use `run`, but not on mariadb with GAL-1"
        );
        assert_eq!(
            on(runbooks, &other),
            "you may use `run`, but not on mariadb with GAL-1"
        );
        assert!(
            on(groups, &spread).contains("but not on"),
            "one host is in another group"
        );
        assert!(
            on(groups, &service("x", &[], &[])).contains("but not on"),
            "empty is never all"
        );
        assert!(
            on(runbooks, &spread).contains("but not on"),
            "one of two runbooks is not granted"
        );
        assert!(on(runbooks, &service("rabbitmq", &[&["control"]], &[])).contains("but not on"));
        let none = |g: &mut Grant| g.services = Some(vec![]);
        assert!(
            on(none, &rabbit).contains("but not on"),
            "an empty list allows nothing"
        );
    }

    #[test]
    fn a_grant_holds_in_its_rooms_and_never_above_their_ceiling() {
        let mut own = grant(&["deploy"]);
        own.rooms = Some(vec!["!db:x.org".into()]);
        let say = |spot, ceiling| said(own.clone(), "deploy", spot, ceiling, &Subject::Site);
        assert_eq!(say("matrix:!db:x.org", Role::Admin), "ok");
        assert!(say("matrix:!lobby:x.org", Role::Admin).contains("needs the role operator"));
        assert!(say("control", Role::Admin).contains("needs the role operator"));
        assert!(say("matrix:!db:x.org", Role::Viewer).contains("nobody has more than viewer"));
    }

    #[test]
    fn names_that_do_not_exist_are_told_all_at_once() {
        let mut own = grant(&["deploy", "destroy"]);
        own.to.push(identity("unix:ghost"));
        own.services = Some(vec!["mysql".parse().unwrap()]);
        let access = Access {
            grants: vec![own],
            approvals: vec![Quorum {
                votes: 2,
                by: Some(vec![identity("unix:eve"), identity("matrix:@eve:x.org")]),
                ..Quorum::default()
            }],
            persons: vec![vec![identity("unix:eve"), identity("matrix:@eve:x.org")]],
        };
        let people =
            [identity("unix:eve"), identity("matrix:@eve:x.org")].map(|i| (i, Role::Viewer));
        let wrong = access.check(
            &people.into(),
            &BTreeSet::new(),
            &BTreeSet::new(),
            &BTreeSet::new(),
        );
        for part in [
            "`destroy`",
            "`unix:ghost`",
            "`mysql`",
            "at least 2 people in `by`, found 1",
        ] {
            assert!(
                wrong.iter().any(|why| why.contains(part)),
                "{part}: {wrong:?}"
            );
        }
        assert_eq!(wrong.len(), 4);
    }
}
