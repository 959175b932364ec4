//! What holds of rights and votes whatever a site writes into `access`: more grants never take away, more rules never give.

use std::collections::BTreeMap;

use proptest::{option, prelude::*, sample::subsequence};

use super::*;
use crate::command::TABLE;

const PEOPLE: [&str; 4] = [
    "unix:ann",
    "matrix:@ann:x.org",
    "unix:bob",
    "matrix:@eve:x.org",
];
const SERVICES: [&str; 2] = ["mariadb", "rabbitmq"];
const GROUPS: [&str; 2] = ["control", "compute"];
const RUNBOOKS: [&str; 2] = ["GAL-4", "RMQ-1"];
const ROOMS: [&str; 2] = ["control", "!db:x.org"];
const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

fn identity(text: &str) -> Identity {
    Identity::try_from(text.to_owned()).unwrap()
}

/// Any of these, also none, also no limit at all.
fn limit<T: Clone + std::fmt::Debug>(
    all: &'static [&'static str],
    make: fn(&str) -> T,
) -> impl Strategy<Value = Option<Vec<T>>> {
    option::of(some(all, make))
}

fn some<T: Clone + std::fmt::Debug>(
    all: &'static [&'static str],
    make: fn(&str) -> T,
) -> impl Strategy<Value = Vec<T>> {
    subsequence(all, 0..=all.len()).prop_map(move |names| names.into_iter().map(make).collect())
}

fn text(name: &str) -> String {
    name.to_owned()
}

fn service(name: &str) -> deploy_engine::model::ServiceName {
    name.parse().unwrap()
}

fn grant() -> impl Strategy<Value = Grant> {
    let commands = proptest::collection::vec(0..TABLE.len(), 0..6);
    let within = (
        limit(&SERVICES, service),
        limit(&GROUPS, text),
        limit(&RUNBOOKS, text),
        limit(&ROOMS, text),
    );
    (some(&PEOPLE, identity), commands, within).prop_map(
        |(to, commands, (services, groups, runbooks, rooms))| Grant {
            to,
            commands: commands
                .into_iter()
                .map(|at| TABLE[at].name.to_owned())
                .collect(),
            services,
            groups,
            runbooks,
            rooms,
        },
    )
}

fn rule() -> impl Strategy<Value = Quorum> {
    let actions = subsequence(&ACTIONS, 0..=ACTIONS.len());
    let within = (
        limit(&SERVICES, service),
        limit(&GROUPS, text),
        limit(&RUNBOOKS, text),
    );
    (
        0..4_u32,
        any::<bool>(),
        limit(&PEOPLE, identity),
        option::of(actions),
        within,
    )
        .prop_map(
            |(votes, counts, by, actions, (services, groups, runbooks))| Quorum {
                votes,
                requester: if counts {
                    Requester::Counts
                } else {
                    Requester::Excluded
                },
                by,
                actions,
                services,
                groups,
                runbooks,
            },
        )
}

const ACTIONS: [ApprovalAction; 4] = [
    ApprovalAction::Deploy,
    ApprovalAction::Redeploy,
    ApprovalAction::Remove,
    ApprovalAction::Repair,
];

fn subject() -> impl Strategy<Value = Subject> {
    let hosts = proptest::collection::vec(some(&GROUPS, text), 0..3);
    let about =
        (0..SERVICES.len(), hosts, some(&RUNBOOKS, text)).prop_map(|(at, hosts, runbooks)| {
            Subject::Service {
                service: service(SERVICES[at]),
                hosts: hosts
                    .into_iter()
                    .map(|groups| groups.into_iter().collect())
                    .collect(),
                runbooks: runbooks.into_iter().collect(),
            }
        });
    prop_oneof![1 => Just(Subject::Site), 3 => about]
}

/// Somebody asks for something somewhere.
#[derive(Clone, Debug)]
struct Asking {
    who: usize,
    role: Option<Role>,
    ceiling: Role,
    room: &'static str,
    command: usize,
    subject: Subject,
}

fn asking() -> impl Strategy<Value = Asking> {
    let role = || (0..ROLES.len()).prop_map(|at| ROLES[at]);
    let room = (0..ROOMS.len()).prop_map(|at| ROOMS[at]);
    (
        0..PEOPLE.len(),
        option::weighted(0.9, role()),
        role(),
        room,
        0..TABLE.len(),
        subject(),
    )
        .prop_map(|(who, role, ceiling, room, command, subject)| Asking {
            who,
            role,
            ceiling,
            room,
            command,
            subject,
        })
}

impl Asking {
    fn answer(&self, grants: &[Grant]) -> Result<Permit, Refusal> {
        let who = identity(PEOPLE[self.who]);
        let roles: BTreeMap<Identity, Role> = self
            .role
            .map(|role| (who.clone(), role))
            .into_iter()
            .collect();
        let people = People::new(roles, None).with_access(Access {
            grants: grants.to_vec(),
            ..Access::default()
        });
        let spot = Spot {
            ceiling: self.ceiling,
            name: self.room,
        };
        let permit = permit(&people, &who, spot, &TABLE[self.command])?;
        permit.covers(&self.subject)?;
        Ok(permit)
    }
}

fn access(approvals: &[Quorum]) -> Access {
    Access {
        approvals: approvals.to_vec(),
        persons: vec![vec![identity("matrix:@ann:x.org"), identity("unix:ann")]],
        ..Access::default()
    }
}

proptest! {
    /// Strangers, rooms and roles come before every grant; nobody gets further than the room.
    #[test]
    fn no_grant_reaches_strangers_or_above_a_room(asking in asking(), grants in proptest::collection::vec(grant(), 0..4)) {
        let answer = asking.answer(&grants);
        let needed = TABLE[asking.command].role;
        match asking.role {
            None => prop_assert!(matches!(answer, Err(Refusal::Stranger { .. })), "{answer:?}"),
            _ if asking.ceiling < needed => prop_assert!(answer.is_err(), "{answer:?}"),
            Some(role) if role >= needed => prop_assert!(answer.is_ok_and(|permit| permit.reaches_everything())),
            Some(_) => {
                let named = |grant: &Grant| {
                    grant.to.contains(&identity(PEOPLE[asking.who])) && grant.commands.iter().any(|name| name == TABLE[asking.command].name)
                };
                prop_assert!(answer.is_err() || grants.iter().any(named), "nobody granted this");
            }
        }
        if let Ok(permit) = asking.answer(&grants) {
            prop_assert!(permit.role() <= asking.ceiling);
        }
    }

    #[test]
    fn what_was_allowed_stays_allowed_with_a_further_grant(
        asking in asking(), grants in proptest::collection::vec(grant(), 0..4), further in grant(),
    ) {
        let before = asking.answer(&grants);
        let more = [grants, vec![further]].concat();
        prop_assert!(before.is_err() || asking.answer(&more).is_ok());
    }

    /// A limit only takes away.
    #[test]
    fn what_a_limited_grant_allows_an_unlimited_one_allows(asking in asking(), grant in grant()) {
        let unlimited = Grant { services: None, groups: None, runbooks: None, rooms: None, ..grant.clone() };
        prop_assert!(asking.answer(&[grant]).is_err() || asking.answer(&[unlimited]).is_ok());
    }

    /// A further rule never makes a vote count, or fewer of them enough; the order of rules says nothing.
    #[test]
    fn a_further_rule_is_never_less_strict(
        rules in proptest::collection::vec(rule(), 0..4), further in rule(), subject in subject(),
        action in 0..ACTIONS.len(), who in 0..PEOPLE.len(), requested_by in 0..PEOPLE.len(),
    ) {
        let more = [rules.clone(), vec![further]].concat();
        let backwards: Vec<Quorum> = more.iter().rev().cloned().collect();
        let judge = |rules: &[Quorum]| {
            let access = access(rules);
            let agreed = access.agreed(&subject, ACTIONS[action]);
            let vote = agreed.may_vote(&access, &identity(PEOPLE[who]), "a1", PEOPLE[requested_by]);
            (agreed.votes, vote.is_ok())
        };
        let (few, strict) = (judge(&rules), judge(&more));
        prop_assert!(few.0 >= 1, "nothing is done without a vote");
        prop_assert!(few.0 <= strict.0);
        prop_assert!(few.1 || !strict.1, "a rule gave a vote");
        prop_assert_eq!(strict, judge(&backwards));
    }

    /// Who asked cannot vote under any name as soon as one rule that applies says so.
    #[test]
    fn the_requester_is_excluded_under_every_name(
        rules in proptest::collection::vec(rule(), 0..4), subject in subject(), action in 0..ACTIONS.len(),
    ) {
        let excluding = Quorum { requester: Requester::Excluded, ..Quorum::default() };
        let access = access(&[rules, vec![excluding]].concat());
        let agreed = access.agreed(&subject, ACTIONS[action]);
        for (who, by) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 3)] {
            prop_assert!(agreed.may_vote(&access, &identity(PEOPLE[who]), "a1", PEOPLE[by]).is_err());
        }
    }
}
