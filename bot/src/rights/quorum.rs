//! Who has to agree before something is done. Pure.

use std::collections::BTreeSet;

use deploy_engine::model::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Access, Identity, Subject};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalAction {
    /// Of the whole site.
    Deploy,
    /// Of one service.
    Redeploy,
    Remove,
    /// What a runbook proposes.
    Repair,
}

/// Does the word of whoever asked count?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Requester {
    #[default]
    Excluded,
    Counts,
}

/// So many of these people have to approve. A limit that is left out is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// How many people.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub votes: u32,
    #[serde(default)]
    pub requester: Requester,
    /// Whose votes count; left out: of everybody who may use `approve` on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<Identity>>,
    /// Only for these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<ApprovalAction>>,
    /// Only for these services. A deploy of the whole site is about every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceName>>,
    /// Only for services with a host in one of these groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Only for repairs by these runbooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbooks: Option<Vec<String>>,
}

fn one() -> u32 {
    1
}

impl Default for Quorum {
    fn default() -> Self {
        Self {
            votes: one(),
            requester: Requester::default(),
            by: None,
            actions: None,
            services: None,
            groups: None,
            runbooks: None,
        }
    }
}

impl Quorum {
    /// A rule protects: it applies as soon as any of what it names is touched.
    pub(super) fn applies(&self, subject: &Subject, action: ApprovalAction) -> bool {
        if self
            .actions
            .as_ref()
            .is_some_and(|own| !own.contains(&action))
        {
            return false;
        }
        match subject {
            Subject::Site => self.runbooks.is_none(),
            Subject::Service {
                service,
                hosts,
                runbooks,
            } => {
                let services = self
                    .services
                    .as_ref()
                    .is_none_or(|own| own.contains(service));
                let groups = self
                    .groups
                    .as_ref()
                    .is_none_or(|own| hosts.iter().flatten().any(|group| own.contains(group)));
                let runbooks = self
                    .runbooks
                    .as_ref()
                    .is_none_or(|own| runbooks.iter().any(|runbook| own.contains(runbook)));
                services && groups && runbooks
            }
        }
    }
}

/// What all rules that apply ask for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub votes: u32,
    pub requester: Requester,
    /// Each set must hold whoever votes.
    by: Vec<BTreeSet<Identity>>,
}

/// Why somebody's vote does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVote {
    #[error("You asked for {id} yourself: here somebody else has to approve")]
    Requester { id: String },
    #[error("Your vote does not count for {id}: its approvers are {approvers}")]
    NotAsked { id: String, approvers: String },
}

impl Agreed {
    pub(super) fn strictest<'a>(rules: impl Iterator<Item = &'a Quorum>) -> Self {
        let mut agreed = Self {
            votes: 1,
            requester: Requester::Counts,
            by: Vec::new(),
        };
        for rule in rules {
            agreed.votes = agreed.votes.max(rule.votes);
            if rule.requester == Requester::Excluded {
                agreed.requester = Requester::Excluded;
            }
            agreed
                .by
                .extend(rule.by.as_ref().map(|by| by.iter().cloned().collect()));
        }
        agreed
    }

    /// May `who` vote on request `id` of `requested_by`?
    pub fn may_vote(
        &self,
        access: &Access,
        who: &Identity,
        id: &str,
        requested_by: &str,
    ) -> Result<(), NoVote> {
        let same = access.person(who.as_str()) == access.person(requested_by);
        if self.requester == Requester::Excluded && same {
            return Err(NoVote::Requester { id: id.to_owned() });
        }
        match self.by.iter().find(|by| !by.contains(who)) {
            None => Ok(()),
            Some(by) => {
                let names: Vec<&str> = by.iter().map(Identity::as_str).collect();
                Err(NoVote::NotAsked {
                    id: id.to_owned(),
                    approvers: names.join(", "),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        Identity::try_from(text.to_owned()).unwrap()
    }

    fn mariadb() -> Subject {
        Subject::Service {
            service: "mariadb".parse().unwrap(),
            hosts: vec![["control".to_owned()].into()],
            runbooks: ["GAL-4".to_owned()].into(),
        }
    }

    fn access(rules: Vec<Quorum>) -> Access {
        Access {
            approvals: rules,
            persons: vec![vec![identity("matrix:@ann:x.org"), identity("unix:ann")]],
            ..Access::default()
        }
    }

    #[test]
    fn without_a_rule_one_vote_is_enough_also_of_who_asked() {
        let access = access(vec![]);
        let agreed = access.agreed(&mariadb(), ApprovalAction::Repair);
        assert_eq!((agreed.votes, agreed.requester), (1, Requester::Counts));
        assert_eq!(
            agreed.may_vote(&access, &identity("unix:ann"), "a1", "unix:ann"),
            Ok(())
        );
    }

    #[test]
    fn the_strictest_of_all_rules_that_apply_counts() {
        let rule = |votes| Quorum {
            votes,
            requester: Requester::Counts,
            ..Quorum::default()
        };
        let access = access(vec![
            Quorum {
                services: Some(vec!["mariadb".parse().unwrap()]),
                ..rule(2)
            },
            Quorum {
                services: Some(vec!["rabbitmq".parse().unwrap()]),
                ..rule(4)
            },
            Quorum {
                groups: Some(vec!["control".into()]),
                requester: Requester::Excluded,
                ..rule(1)
            },
            Quorum {
                actions: Some(vec![ApprovalAction::Remove]),
                ..rule(3)
            },
            Quorum {
                runbooks: Some(vec!["GAL-4".into()]),
                ..rule(2)
            },
        ]);
        let votes = |subject: &Subject, action| {
            let agreed = access.agreed(subject, action);
            (agreed.votes, agreed.requester)
        };
        assert_eq!(
            votes(&mariadb(), ApprovalAction::Repair),
            (2, Requester::Excluded)
        );
        assert_eq!(
            votes(&mariadb(), ApprovalAction::Remove),
            (3, Requester::Excluded)
        );
        // The whole site is about every service and group, but about no runbook.
        assert_eq!(
            votes(&Subject::Site, ApprovalAction::Deploy),
            (4, Requester::Excluded)
        );
    }

    #[test]
    fn the_requester_is_excluded_under_every_name_and_strangers_to_the_rule_as_well() {
        let access = access(vec![Quorum {
            votes: 2,
            by: Some(vec![
                identity("matrix:@ann:x.org"),
                identity("unix:bob"),
                identity("unix:ann"),
            ]),
            ..Quorum::default()
        }]);
        let agreed = access.agreed(&mariadb(), ApprovalAction::Repair);
        let vote = |who: &str, requested_by: &str| {
            let vote = agreed.may_vote(&access, &identity(who), "a1", requested_by);
            vote.map_err(|why| why.to_string())
        };
        assert_eq!(vote("unix:bob", "unix:ann"), Ok(()));
        assert!(
            vote("unix:ann", "unix:ann")
                .unwrap_err()
                .contains("somebody else")
        );
        assert!(
            vote("matrix:@ann:x.org", "unix:ann")
                .unwrap_err()
                .contains("somebody else")
        );
        assert!(
            vote("unix:carl", "automation")
                .unwrap_err()
                .contains("unix:bob")
        );
        assert_eq!(vote("unix:ann", "automation"), Ok(()));
    }
}
