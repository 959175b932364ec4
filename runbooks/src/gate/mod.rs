//! The gates G1–G13 of `RECOVERY`: pure functions over what is known, each of which lets pass, holds or refuses.
//!
//! They are asked before a repair starts and again before every one of its steps.

mod evidence;
mod input;
mod limits;
pub mod maintenance;
mod overridden;
mod people;
mod plan;
mod seen;
pub mod sources;

#[cfg(test)]
mod each_alone_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use input::{
    BlastFacts, BudgetFacts, Direct, EvidenceFacts, GateInput, GateLimits, Halt, HeldLock,
    LockFacts, MetricPath, MonitoringFacts, PeopleFacts, Phase, PlanFacts, Scrape, WorldFacts,
};

pub use overridden::{OVERRIDABLE, Overridden};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GateId {
    /// Fresh evidence.
    G1,
    /// Two independent sources.
    G2,
    /// The monitoring can be trusted.
    G3,
    /// No person and no maintenance in the way.
    G4,
    /// One repair per failure domain.
    G5,
    /// Blast radius.
    G6,
    /// Budgets.
    G7,
    /// No storm.
    G8,
    /// The state before is recorded.
    G9,
    /// Empty and unknown are not "all".
    G10,
    /// What was checked is checked again in the moment of the act.
    G11,
    /// Verified and held, never escalated.
    G12,
    /// The bot does not need what it repairs.
    G13,
}

impl GateId {
    /// In a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::G1 => "fresh evidence",
            Self::G2 => "two independent sources",
            Self::G3 => "monitoring trustworthy",
            Self::G4 => "nobody in the way",
            Self::G5 => "one repair per failure domain",
            Self::G6 => "blast radius",
            Self::G7 => "budgets",
            Self::G8 => "no storm",
            Self::G9 => "state before recorded",
            Self::G10 => "nothing empty or unknown",
            Self::G11 => "checked in the moment of the act",
            Self::G12 => "verified and held",
            Self::G13 => "no self-dependency",
        }
    }
}

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one gate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum Gate {
    Pass {
        why: String,
    },
    /// It may pass later by itself.
    Hold {
        until: Timestamp,
        why: String,
    },
    /// A person has to look.
    Refuse {
        why: String,
        evidence: Vec<String>,
    },
}

/// When to ask again what may change any moment.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(15);

impl Gate {
    pub fn pass(why: impl Into<String>) -> Self {
        Self::Pass { why: why.into() }
    }

    pub fn refuse(why: impl Into<String>) -> Self {
        Self::Refuse {
            why: why.into(),
            evidence: Vec::new(),
        }
    }

    pub fn hold_briefly(now: Timestamp, why: impl Into<String>) -> Self {
        let until = now.saturating_add(ASK_AGAIN).unwrap_or(Timestamp::MAX);
        Self::Hold {
            until,
            why: why.into(),
        }
    }

    pub fn passes(&self) -> bool {
        matches!(self, Self::Pass { .. })
    }

    pub fn why(&self) -> &str {
        match self {
            Self::Pass { why } | Self::Hold { why, .. } | Self::Refuse { why, .. } => why,
        }
    }
}

/// One gate's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub id: GateId,
    #[serde(flatten)]
    pub gate: Gate,
    /// What it looked at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
}

/// All gates, in order.
pub fn evaluate(input: &GateInput<'_>) -> Vec<Answer> {
    type Rule = fn(&GateInput<'_>) -> Gate;
    let gates: [(GateId, Rule); 13] = [
        (GateId::G1, evidence::fresh),
        (GateId::G2, evidence::two_sources),
        (GateId::G3, evidence::monitoring),
        (GateId::G4, people::nobody_in_the_way),
        (GateId::G5, people::one_repair_per_domain),
        (GateId::G6, limits::blast_radius),
        (GateId::G7, limits::budgets),
        (GateId::G8, limits::storm),
        (GateId::G9, plan::state_before),
        (GateId::G10, plan::nothing_empty_or_unknown),
        (GateId::G11, plan::guarded),
        (GateId::G12, plan::proven_and_held),
        (GateId::G13, plan::no_self_dependency),
    ];
    gates
        .into_iter()
        .map(|(id, gate)| Answer {
            id,
            gate: overridden::apply(input.overridden.as_ref(), id, gate(input), input.now),
            seen: seen::seen(id, input),
        })
        .collect()
}

/// All answers as one: any refusal refuses, else any hold holds until the last of them is over.
pub fn together(answers: &[Answer]) -> Gate {
    let with_id = |answer: &Answer| format!("{}: {}", answer.id, answer.gate.why());
    let refused: Vec<&Answer> = answers
        .iter()
        .filter(|one| matches!(one.gate, Gate::Refuse { .. }))
        .collect();
    if !refused.is_empty() {
        let evidence = refused.iter().flat_map(|one| match &one.gate {
            Gate::Refuse { evidence, .. } => evidence.clone(),
            _ => Vec::new(),
        });
        let evidence = evidence.collect();
        return Gate::Refuse {
            why: refused
                .into_iter()
                .map(with_id)
                .collect::<Vec<_>>()
                .join("; "),
            evidence,
        };
    }
    let until = answers.iter().filter_map(|one| match &one.gate {
        Gate::Hold { until, .. } => Some(*until),
        _ => None,
    });
    match until.max() {
        None if answers.is_empty() => Gate::refuse("no gate was asked"),
        None => Gate::pass("all gates pass"),
        Some(until) => {
            let held = answers
                .iter()
                .filter(|one| matches!(one.gate, Gate::Hold { .. }));
            Gate::Hold {
                until,
                why: held.map(with_id).collect::<Vec<_>>().join("; "),
            }
        }
    }
}
