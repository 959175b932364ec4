//! What a decision declares, and the check that nothing leaves it that must not.

use std::collections::BTreeSet;

use super::{Act, Facts, Input, Verdict};

/// A role that a decision may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: &'static str,
    /// May be absent; the recipe's steps on it are then left out. Never empty.
    pub optional: bool,
}

impl Role {
    pub const fn always(name: &'static str) -> Self {
        Self {
            name,
            optional: false,
        }
    }

    pub const fn sometimes(name: &'static str) -> Self {
        Self {
            name,
            optional: true,
        }
    }
}

pub struct Entry {
    pub name: &'static str,
    /// One sentence for people: in which situation it acts.
    pub doc: &'static str,
    pub roles: &'static [Role],
    pub parameters: &'static [&'static str],
    /// Probes that it reads in the first round, of every member of the runbook's service.
    pub evidence: &'static [&'static str],
    /// Settings of the runbook that it reads.
    pub settings: &'static [&'static str],
    /// What must stay the same for a while; compared between rounds by the caller. None: something in it is unknown.
    pub facts: fn(&Input<'_>) -> Facts,
    pub decide: fn(&Input<'_>) -> Result<Act, Verdict>,
}

impl Entry {
    /// Pure. Whatever the decision says, an action without hosts, on strangers, or with a role it did not declare is a refusal
    /// (gate G10).
    pub fn decide(&self, input: &Input<'_>) -> Verdict {
        if input.members.is_empty() {
            return refuse("expected at least one member of the service; found none");
        }
        match (self.decide)(input) {
            Err(verdict) => verdict,
            Ok(act) => match self.flaw(&act, input) {
                Some(flaw) => refuse(format!("{}: {flaw}", self.name)),
                None => Verdict::Act(act),
            },
        }
    }

    fn flaw(&self, act: &Act, input: &Input<'_>) -> Option<String> {
        for role in self.roles.iter().filter(|role| !role.optional) {
            if !act.roles.contains_key(role.name) {
                return Some(format!("expected hosts for {}; found none", role.name));
            }
        }
        for (name, hosts) in &act.roles {
            if !self.roles.iter().any(|role| role.name == name) {
                return Some(format!("the role {name} is not declared"));
            }
            if hosts.is_empty() {
                return Some(format!("expected hosts for {name}; found an empty list"));
            }
            if hosts.iter().collect::<BTreeSet<_>>().len() != hosts.len() {
                return Some(format!("a host is twice in {name}"));
            }
            if let Some(stranger) = hosts.iter().find(|host| !input.members.contains(host)) {
                return Some(format!(
                    "{stranger} in {name} is not a member of {}",
                    input.service
                ));
            }
        }
        let missing = self
            .parameters
            .iter()
            .find(|name| !act.parameters.contains_key(**name));
        missing.map(|name| format!("expected a value for {name}; found none"))
    }
}

pub(super) fn refuse(why: impl Into<String>) -> Verdict {
    Verdict::Refuse {
        why: why.into(),
        evidence: Vec::new(),
    }
}

pub(super) fn page(why: impl Into<String>, evidence: Vec<String>) -> Verdict {
    Verdict::Page {
        why: why.into(),
        evidence,
    }
}

pub(super) fn elsewhere(why: impl Into<String>) -> Verdict {
    Verdict::Elsewhere { why: why.into() }
}
