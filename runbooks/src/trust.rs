//! Trust is earned per runbook, site and class of targets: shadow → ask → auto. A person grants more when it was earned by this
//! version of the runbook; it is taken away at once.

use std::collections::BTreeSet;

use deploy_engine::job::JobResult;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    budget::{RepairOutcome, Spent},
    format::{Runbook, RunbookId},
};

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

/// Verified repairs in a row, of the same version, before it may act by itself.
pub const SUCCESSES: usize = 3;

/// What a person, or a failed proof, said about a runbook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// A group of hosts of the site; none: all hosts that no other grant is about.
    pub class: Option<String>,
    pub mode: Mode,
}

/// A drill that passed, on hosts of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// Of the runbook that was drilled.
    pub version: String,
    pub at: Timestamp,
    /// Who vouches for it.
    pub by: String,
    /// Where it was run, in their words.
    #[serde(default)]
    pub place: String,
}

/// Of everything that a runbook looks at and does. How often it may do it is no part of it, so that a lab may drill it again
/// and again.
pub fn version(runbook: &Runbook) -> String {
    let mut what = serde_json::to_value(runbook).unwrap_or_default();
    if let Some(fields) = what.as_object_mut() {
        fields.remove("budget");
    }
    let hash = Sha256::digest(what.to_string().as_bytes());
    hash.iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The mode for these hosts (given by their groups): the least of what each of them has. Pure.
///
/// A grant for a group that a host is in goes before the general one; of several the least counts.
pub fn effective(configured: Mode, grants: &[Grant], hosts: &[BTreeSet<String>]) -> Mode {
    let general = grants.iter().find(|grant| grant.class.is_none());
    let general = general.map_or(configured, |grant| grant.mode);
    let of_host = |groups: &BTreeSet<String>| {
        let own = grants.iter().filter(|grant| {
            grant
                .class
                .as_ref()
                .is_some_and(|class| groups.contains(class))
        });
        own.map(|grant| grant.mode).min().unwrap_or(general)
    };
    // Of no host nothing is known that would allow anything.
    hosts
        .iter()
        .map(of_host)
        .min()
        .unwrap_or(general.min(Mode::Ask))
}

/// What one version of a runbook has to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Proven repairs since the last one that was not.
    pub streak: usize,
    /// The last repair was not proven.
    pub failed: bool,
    /// When the drill of this version passed.
    pub drilled: Option<Timestamp>,
}

impl Record {
    /// `ledger`: oldest first, of any runbook and version. A drill of another version says nothing about this one.
    pub fn of(
        runbook: &RunbookId,
        version: &str,
        ledger: &[Spent],
        drilled: Option<&Drilled>,
    ) -> Self {
        let own = ledger.iter().rev().filter(|one| one.runbook == *runbook);
        let ended = own.filter(|one| {
            matches!(
                one.outcome,
                Some(RepairOutcome::Verified | RepairOutcome::Unverified)
            )
        });
        let proven = |one: &&Spent| {
            one.outcome == Some(RepairOutcome::Verified) && one.version.as_deref() == Some(version)
        };
        Self {
            streak: ended.clone().take_while(proven).count(),
            failed: ended
                .clone()
                .next()
                .is_some_and(|one| one.outcome == Some(RepairOutcome::Unverified)),
            drilled: drilled
                .filter(|drilled| drilled.version == version)
                .map(|drilled| drilled.at),
        }
    }

    /// May it act by itself?
    ///
    /// # Errors
    /// What is missing.
    pub fn earned(&self) -> Result<(), String> {
        let mut missing = Vec::new();
        if self.streak < SUCCESSES {
            missing.push(format!(
                "{} of {SUCCESSES} proven repairs in a row",
                self.streak
            ));
        }
        if self.drilled.is_none() {
            missing.push("no passed drill of this version".to_owned());
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing.join(", "))
        }
    }
}

/// The mode that is left after the last repair, and why, where that is less. Pure.
pub fn demotion(record: &Record) -> Option<(Mode, &'static str)> {
    record
        .failed
        .then_some((Mode::Ask, "the last repair was not proven"))
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
    use crate::{format::Span, gate::testing::spent, library::Library};
    use RepairOutcome::{Refused, Unverified, Verified};

    fn runbook() -> Runbook {
        let library = Library::embedded().unwrap();
        library.get(&RunbookId("MEM-1".into())).unwrap().clone()
    }

    /// Newest first.
    fn record(outcomes: &[RepairOutcome], of: &str, drilled: Option<&str>) -> Record {
        let mut ledger: Vec<Spent> = Vec::new();
        for (n, outcome) in outcomes.iter().enumerate().rev() {
            let one = spent(
                &format!("j{n}"),
                "MEM-1",
                "host:h1",
                n as i64 * 60,
                *outcome,
            );
            ledger.push(Spent {
                version: Some(of.to_owned()),
                ..one
            });
        }
        let drilled = drilled.map(|version| Drilled {
            version: version.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            by: "ann".into(),
            place: String::new(),
        });
        Record::of(&RunbookId("MEM-1".into()), "v1", &ledger, drilled.as_ref())
    }

    #[test]
    fn auto_is_earned_by_proven_repairs_and_a_drill_of_the_same_version() {
        let three = [Verified, Refused, Verified, Verified];
        assert_eq!(record(&three, "v1", Some("v1")).earned(), Ok(()));
        for (outcomes, of, drilled, missing) in [
            (&three[..3], "v1", Some("v1"), "2 of 3 proven repairs"),
            (&three[..], "v0", Some("v1"), "0 of 3 proven repairs"),
            (&three[..], "v1", None, "no passed drill of this version"),
            (
                &three[..],
                "v1",
                Some("v0"),
                "no passed drill of this version",
            ),
            (
                &[Verified, Unverified, Verified, Verified][..],
                "v1",
                Some("v1"),
                "1 of 3",
            ),
        ] {
            let earned = record(outcomes, of, drilled).earned();
            assert!(
                earned.clone().unwrap_err().contains(missing),
                "{missing}: {earned:?}"
            );
        }
    }

    #[test]
    fn one_failed_proof_takes_it_away_at_once() {
        let failed = record(
            &[Unverified, Verified, Verified, Verified],
            "v1",
            Some("v1"),
        );
        assert_eq!(demotion(&failed).map(|(to, _)| to), Some(Mode::Ask));
        assert_eq!(
            demotion(&record(&[Refused, Verified], "v1", Some("v1"))),
            None
        );
    }

    #[test]
    fn a_version_changes_with_what_is_done_and_not_with_how_often() {
        let own = runbook();
        let mut often = own.clone();
        often.budget.at_once = 9;
        assert_eq!(version(&often), version(&own));
        let mut other = own.clone();
        other.proof.as_mut().unwrap().settle = Span::seconds(1);
        assert_ne!(version(&other), version(&own));
        let mut other = own.clone();
        other.steps[1].run = Some(vec!["true".into()]);
        assert_ne!(version(&other), version(&own));
    }

    #[test]
    fn a_class_of_targets_goes_before_the_rest_and_the_least_of_all_hosts_counts() {
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let grant = |class: Option<&str>, mode| Grant {
            class: class.map(str::to_owned),
            mode,
        };
        let grants = [
            grant(None, Mode::Ask),
            grant(Some("compute"), Mode::Auto),
            grant(Some("edge"), Mode::Shadow),
        ];
        let mode = |hosts: &[&[&str]]| {
            let hosts: Vec<_> = hosts.iter().map(|names| groups(names)).collect();
            effective(Mode::Auto, &grants, &hosts)
        };
        assert_eq!(mode(&[&["compute"]]), Mode::Auto);
        assert_eq!(mode(&[&["control"]]), Mode::Ask);
        assert_eq!(mode(&[&["compute"], &["control"]]), Mode::Ask);
        assert_eq!(mode(&[&["compute", "edge"]]), Mode::Shadow);
        assert_eq!(mode(&[]), Mode::Ask, "of no host nothing is known");
        assert_eq!(effective(Mode::Auto, &[], &[]), Mode::Ask);
    }

    #[test]
    fn what_was_done_half_way_is_unverified() {
        let refused = JobResult::Refused { why: String::new() };
        assert_eq!(outcome(&refused, false), Refused);
        assert_eq!(outcome(&refused, true), Unverified);
        assert_eq!(outcome(&JobResult::Succeeded, true), Verified);
    }
}
