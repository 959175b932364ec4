//! Trust is earned per runbook and site: shadow → ask → auto. Promotion is suggested, a person grants it; demotion is at once.

use deploy_engine::job::JobResult;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::budget::RepairOutcome;

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides and records, does nothing.
    Shadow,
    /// Asks a person before acting.
    #[default]
    Ask,
    Auto,
}

/// Verified repairs in a row before more is suggested.
pub const SUCCESSES: usize = 3;

/// What is suggested (or, for a demotion, due).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "suggestion", rename_all = "snake_case")]
pub enum Suggestion {
    Keep {
        why: String,
    },
    Promote {
        to: Mode,
        why: String,
    },
    /// Not a suggestion: it is applied.
    Demote {
        to: Mode,
        why: String,
    },
}

/// Pure. `outcomes`: newest first. `drilled`: when its drill last passed here.
pub fn judge(mode: Mode, outcomes: &[RepairOutcome], drilled: Option<Timestamp>) -> Suggestion {
    let proved = |one: &&RepairOutcome| **one == RepairOutcome::Verified;
    let streak = outcomes
        .iter()
        .filter(|one| **one != RepairOutcome::Refused)
        .take_while(proved)
        .count();
    let failed = outcomes.iter().find(|one| **one != RepairOutcome::Refused)
        == Some(&RepairOutcome::Unverified);
    match mode {
        Mode::Auto if failed => Suggestion::Demote {
            to: Mode::Ask,
            why: "the last repair was not proven".to_owned(),
        },
        Mode::Shadow if drilled.is_some() => Suggestion::Promote {
            to: Mode::Ask,
            why: "its drill has passed".to_owned(),
        },
        Mode::Ask if streak >= SUCCESSES && drilled.is_some() => Suggestion::Promote {
            to: Mode::Auto,
            why: format!("{streak} repairs in a row were proven and its drill has passed"),
        },
        _ => Suggestion::Keep {
            why: format!(
                "{streak} of {SUCCESSES} proven repairs in a row, drill {}",
                if drilled.is_some() {
                    "passed"
                } else {
                    "not passed"
                }
            ),
        },
    }
}

/// How a repair job counts. Pure.
pub fn outcome(result: &JobResult, acted: bool) -> RepairOutcome {
    match result {
        JobResult::Succeeded => RepairOutcome::Verified,
        JobResult::Cancelled { .. } if !acted => RepairOutcome::Cancelled,
        JobResult::Refused { .. } | JobResult::Failed { .. } if !acted => RepairOutcome::Refused,
        JobResult::Failed { .. } | JobResult::Cancelled { .. } | JobResult::Refused { .. } => {
            RepairOutcome::Unverified
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RepairOutcome::{Refused, Unverified, Verified};

    #[test]
    fn trust_grows_slowly_and_falls_at_once() {
        let drilled = Some(Timestamp::UNIX_EPOCH);
        let promoted = |mode, outcomes: &[_], drilled| match judge(mode, outcomes, drilled) {
            Suggestion::Promote { to, .. } | Suggestion::Demote { to, .. } => Some(to),
            Suggestion::Keep { .. } => None,
        };
        assert_eq!(
            promoted(Mode::Ask, &[Verified, Refused, Verified, Verified], drilled),
            Some(Mode::Auto)
        );
        assert_eq!(
            promoted(Mode::Ask, &[Verified, Verified, Verified], None),
            None
        );
        assert_eq!(
            promoted(
                Mode::Ask,
                &[Verified, Unverified, Verified, Verified],
                drilled
            ),
            None
        );
        assert_eq!(
            promoted(
                Mode::Auto,
                &[Unverified, Verified, Verified, Verified],
                drilled
            ),
            Some(Mode::Ask)
        );
        assert_eq!(promoted(Mode::Auto, &[Refused, Verified], drilled), None);
        assert_eq!(promoted(Mode::Shadow, &[], drilled), Some(Mode::Ask));
    }

    #[test]
    fn what_was_done_half_way_is_unverified() {
        let refused = JobResult::Refused { why: String::new() };
        assert_eq!(outcome(&refused, false), Refused);
        assert_eq!(outcome(&refused, true), Unverified);
        assert_eq!(outcome(&JobResult::Succeeded, true), Verified);
    }
}
