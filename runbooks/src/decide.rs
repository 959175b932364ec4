//! The decision about one incident: the runbooks' verdicts, the gates, the mode. Pure.

use std::collections::BTreeMap;

use deploy_engine::job::Step;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    compile::{CompileError, Compiled},
    decision::{Act, Roles, Verdict},
    format::{Class, Runbook, RunbookId},
    gate::{Answer, Gate, together},
    incident::Domain,
    trust::Mode,
};

/// A repair that is ready to become a job. Immutable; nothing is left to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealPlan {
    pub runbook: RunbookId,
    pub title: String,
    /// Why this and why here.
    pub why: String,
    pub scope: String,
    pub roles: Roles,
    pub parameters: BTreeMap<String, String>,
    /// `host:NAME`, `domain:SERVICE`: what the budget counts.
    pub targets: Vec<String>,
    pub steps: Vec<Step>,
    /// Of what is done to whom; an approval is of exactly this.
    pub digest: String,
    /// Of the runbook as it was then: what its outcome counts for.
    #[serde(default)]
    pub version: String,
    pub decided_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    Act {
        plan: Box<HealPlan>,
        why: String,
    },
    /// A person is asked.
    Ask {
        plan: Box<HealPlan>,
        why: String,
    },
    /// It would act, but only records it.
    Shadow {
        plan: Box<HealPlan>,
        why: String,
    },
    Hold {
        until: Timestamp,
        why: String,
    },
    Refuse {
        why: String,
        evidence: Vec<String>,
    },
    TellOnly {
        why: String,
    },
}

impl Decision {
    pub fn why(&self) -> &str {
        match self {
            Self::Act { why, .. }
            | Self::Ask { why, .. }
            | Self::Shadow { why, .. }
            | Self::Hold { why, .. }
            | Self::Refuse { why, .. }
            | Self::TellOnly { why } => why,
        }
    }
}

/// One runbook's word about the incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    pub runbook: RunbookId,
    pub verdict: Verdict,
}

/// Which of several runbooks is followed. Pure.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    Act(RunbookId, Act),
    Decided(Decision),
}

/// Exactly one runbook may want to act; two that do contradict each other, and one that refuses has seen something dangerous in
/// the same service. A diagnosis is in nobody's way: it is what people are told when nothing else is done.
pub fn choose(opinions: Vec<Opinion>) -> Choice {
    let word = |one: &Opinion| format!("{}: {}", one.runbook, one.verdict.why());
    let listed = |of: &[&Opinion]| {
        of.iter()
            .map(|one| word(one))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let refused: Vec<&Opinion> = opinions
        .iter()
        .filter(|one| matches!(one.verdict, Verdict::Refuse { .. } | Verdict::More { .. }))
        .collect();
    let acting: Vec<&Opinion> = opinions
        .iter()
        .filter(|one| matches!(one.verdict, Verdict::Act(_)))
        .collect();
    let paged: Vec<&Opinion> = opinions
        .iter()
        .filter(|one| matches!(one.verdict, Verdict::Page { .. }))
        .collect();
    let held = opinions.iter().filter_map(|one| match &one.verdict {
        Verdict::Hold { until, .. } => Some((*until, one)),
        _ => None,
    });
    let held: Vec<_> = held.collect();
    if !refused.is_empty() {
        return Choice::Decided(for_people(&refused, &paged));
    }
    if let Some(until) = held.iter().map(|(until, _)| *until).min() {
        let why = listed(&held.iter().map(|(_, one)| *one).collect::<Vec<_>>());
        return Choice::Decided(Decision::Hold { until, why });
    }
    match acting[..] {
        [one] => match &one.verdict {
            Verdict::Act(act) => Choice::Act(one.runbook.clone(), act.clone()),
            _ => Choice::Decided(Decision::TellOnly { why: word(one) }),
        },
        [] if !paged.is_empty() => Choice::Decided(for_people(&paged, &[])),
        [] if opinions.is_empty() => Choice::Decided(Decision::TellOnly {
            why: "no runbook is about this".to_owned(),
        }),
        [] => {
            let why = format!(
                "no runbook's situation: {}",
                listed(&opinions.iter().collect::<Vec<_>>())
            );
            Choice::Decided(Decision::Refuse {
                why,
                evidence: Vec::new(),
            })
        }
        _ => Choice::Decided(Decision::Refuse {
            why: format!(
                "several runbooks would act, so none does: {}",
                listed(&acting)
            ),
            evidence: Vec::new(),
        }),
    }
}

/// What people are called for, and what diagnoses have found besides.
fn for_people(why: &[&Opinion], also: &[&Opinion]) -> Decision {
    let words: Vec<String> = why
        .iter()
        .map(|one| format!("{}: {}", one.runbook, one.verdict.why()))
        .collect();
    let found = also
        .iter()
        .map(|one| format!("{}: {}", one.runbook, one.verdict.why()));
    let evidence = why.iter().chain(also).flat_map(|one| match &one.verdict {
        Verdict::Refuse { evidence, .. } | Verdict::Page { evidence, .. } => evidence.clone(),
        _ => Vec::new(),
    });
    Decision::Refuse {
        why: words.join("; "),
        evidence: found.chain(evidence).collect(),
    }
}

/// The plan of a choice. Pure.
pub fn plan(
    runbook: &Runbook,
    act: &Act,
    compiled: Result<Compiled, CompileError>,
    domain: &Domain,
    now: Timestamp,
) -> Result<HealPlan, Decision> {
    let compiled = compiled.map_err(|error| Decision::Refuse {
        why: error.to_string(),
        evidence: Vec::new(),
    })?;
    let hosts = compiled.hosts.iter().map(|host| format!("host:{host}"));
    let targets: Vec<String> = hosts.chain([domain.scope()]).collect();
    let names: Vec<&str> = compiled.hosts.iter().map(|host| host.as_str()).collect();
    let mut plan = HealPlan {
        runbook: runbook.runbook.clone(),
        title: format!(
            "{}: {} ({})",
            runbook.runbook,
            runbook.title,
            names.join(", ")
        ),
        why: act.why.clone(),
        scope: domain.scope(),
        roles: act.roles.clone(),
        parameters: act.parameters.clone(),
        targets,
        steps: compiled.steps,
        digest: String::new(),
        version: String::new(),
        decided_at: now,
    };
    plan.digest = digest(&plan);
    Ok(plan)
}

/// Of everything that will be done; the time and the words about it do not count.
fn digest(plan: &HealPlan) -> String {
    let what = (
        &plan.runbook,
        &plan.scope,
        &plan.roles,
        &plan.parameters,
        &plan.steps,
    );
    let text = serde_json::to_vec(&what).unwrap_or_default();
    let hash = Sha256::digest(&text);
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// How far a runbook may go here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    pub class: Class,
    pub mode: Mode,
    /// The site opted in to this guarded runbook.
    pub opted_in: bool,
    /// Proven repairs and a passed drill of this version stand behind it.
    pub earned: bool,
}

impl Permission {
    /// The mode in effect: no trust lifts what its class forbids.
    pub fn mode(self) -> Mode {
        let most = match self.class {
            Class::Automatic | Class::Guarded if !self.earned => Mode::Ask,
            Class::Automatic => Mode::Auto,
            Class::Guarded if self.opted_in => Mode::Auto,
            Class::Guarded | Class::Human => Mode::Ask,
            // It never comes to a plan.
            Class::Diagnosis => Mode::Shadow,
        };
        self.mode.min(most)
    }
}

/// The last word. `approved`: the digest that a person approved just now. Pure.
pub fn conclude(
    plan: HealPlan,
    gates: &[Answer],
    permission: Permission,
    approved: Option<&str>,
) -> Decision {
    match together(gates) {
        Gate::Refuse { why, evidence } => return Decision::Refuse { why, evidence },
        Gate::Hold { until, why } => return Decision::Hold { until, why },
        Gate::Pass { .. } => {}
    }
    let why = plan.why.clone();
    let plan = Box::new(plan);
    match (approved, permission.mode()) {
        (Some(digest), Mode::Ask | Mode::Auto) if digest == plan.digest => {
            Decision::Act { plan, why }
        }
        (Some(_), Mode::Ask | Mode::Auto) => Decision::Ask {
            plan,
            why: format!("the situation has changed since the approval: {why}"),
        },
        (_, Mode::Shadow) => Decision::Shadow { plan, why },
        (None, Mode::Ask) => Decision::Ask { plan, why },
        (None, Mode::Auto) => Decision::Act { plan, why },
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
