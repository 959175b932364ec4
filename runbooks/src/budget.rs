//! How often the same thing may be repaired before a person must look (gate G7). Whoever asked for the repair, it counts.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    format::{RunbookId, Span},
    gate::Gate,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub count: u32,
    pub window: Span,
}

/// The defaults are those of `RECOVERY` gate G7.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Attempts at one target, by whatever runbook or person. More is a person's.
    pub per_target: Vec<Window>,
    /// Repairs on the whole site, of any runbook. More wait.
    pub per_site: Vec<Window>,
    /// Repairs at the same time on the whole site. More wait.
    pub at_once: u32,
}

impl Default for Budget {
    fn default() -> Self {
        let window = |count, seconds| Window {
            count,
            window: Span::seconds(seconds),
        };
        Self {
            per_target: vec![window(1, 1_800), window(2, 86_400)],
            per_site: vec![window(3, 3_600), window(10, 86_400)],
            at_once: 2,
        }
    }
}

/// The longest window that budgets may have.
pub const WINDOW_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What of the ledger is read: budgets need a week of it, but a repair that was not proven locks its domain until somebody
/// proves or clears it. At ten repairs a day these are 3,650 entries.
pub const LEDGER_SPAN: SignedDuration = SignedDuration::from_hours(365 * 24);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairOutcome {
    /// The proof held for its settle time.
    Verified,
    Unverified,
    /// Refused before anything was done.
    Refused,
    Cancelled,
}

/// One repair in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub job: String,
    pub runbook: RunbookId,
    /// `host:NAME`, `domain:SERVICE`.
    pub targets: Vec<String>,
    pub at: Timestamp,
    /// A person, or [`AUTOMATION`].
    pub by: String,
    pub outcome: Option<RepairOutcome>,
    pub ended_at: Option<Timestamp>,
    /// Digest of the runbook that it followed.
    #[serde(default)]
    pub version: Option<String>,
    /// A person looked at an outcome that was not proven, and takes it on themselves.
    #[serde(default)]
    pub cleared: Option<Cleared>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    pub by: String,
    pub at: Timestamp,
    pub why: String,
}

/// Under this name the ledger keeps what a person redeployed: it is a restart of the same thing, whoever wanted it.
pub const REDEPLOY: &str = "redeploy";

/// Is it an attempt at the same thing: any runbook in the same failure domain, or the same runbook on the same host?
pub fn same_thing(one: &Spent, runbook: &RunbookId, targets: &[String]) -> bool {
    let both = |target: &&String| targets.contains(target);
    let mut shared = one.targets.iter().filter(both);
    shared.any(|target| target.starts_with("domain:") || one.runbook == *runbook)
}

/// The last repair of a failure domain, if it was not proven and nobody has proven or cleared it since. Time does not.
pub fn unproven<'l>(ledger: &'l [Spent], scope: &str, own_job: Option<&str>) -> Option<&'l Spent> {
    let ended = ledger.iter().rev().filter(|one| {
        own_job != Some(one.job.as_str()) && one.targets.iter().any(|target| target == scope)
    });
    let mut settled = ended.filter(|one| {
        matches!(
            one.outcome,
            Some(RepairOutcome::Verified | RepairOutcome::Unverified)
        )
    });
    settled
        .next()
        .filter(|one| one.outcome == Some(RepairOutcome::Unverified) && one.cleared.is_none())
}

/// Who asks for a repair that nobody asked for.
pub const AUTOMATION: &str = "automation";

/// Pure.
pub fn judge(
    budget: &Budget,
    ledger: &[Spent],
    runbook: &RunbookId,
    targets: &[String],
    own_job: Option<&str>,
    now: Timestamp,
) -> Gate {
    let counts = |one: &&Spent| {
        one.outcome != Some(RepairOutcome::Refused) && own_job != Some(one.job.as_str())
    };
    let all: Vec<&Spent> = ledger.iter().filter(counts).collect();
    let same: Vec<&Spent> = all
        .iter()
        .copied()
        .filter(|one| same_thing(one, runbook, targets))
        .collect();
    let mut own = same.iter().rev().filter(|one| one.runbook == *runbook);
    let settled = own.find(|one| {
        matches!(
            one.outcome,
            Some(RepairOutcome::Verified | RepairOutcome::Unverified)
        )
    });
    if let Some(failed) = settled
        .filter(|one| one.outcome == Some(RepairOutcome::Unverified) && one.cleared.is_none())
    {
        return Gate::Refuse {
            why: format!(
                "{runbook} did not prove itself here (job {}): no second attempt by itself",
                failed.job
            ),
            evidence: vec![format!("`clear {} REASON` allows one", failed.job)],
        };
    }
    for window in &budget.per_target {
        let used: Vec<&&Spent> = same.iter().filter(|one| within(one, window, now)).collect();
        if used.len() >= window.count as usize {
            return Gate::Refuse {
                why: format!(
                    "this was repaired {} times here within {}, the budget is {}",
                    used.len(),
                    window.window.0,
                    window.count
                ),
                evidence: used
                    .iter()
                    .map(|one| format!("job {} at {:.0}", one.job, one.at))
                    .collect(),
            };
        }
    }
    for window in &budget.per_site {
        let used: Vec<&&Spent> = all.iter().filter(|one| within(one, window, now)).collect();
        if let Some(oldest) = used
            .iter()
            .map(|one| one.at)
            .min()
            .filter(|_| used.len() >= window.count as usize)
        {
            let until = oldest
                .saturating_add(SignedDuration::from_secs(i64::from(window.window.0.0)))
                .unwrap_or(Timestamp::MAX);
            return Gate::Hold {
                until,
                why: format!(
                    "{} repairs on this site within {}, the budget is {}",
                    used.len(),
                    window.window.0,
                    window.count
                ),
            };
        }
    }
    let running = all.iter().filter(|one| one.outcome.is_none()).count();
    if running >= budget.at_once as usize {
        return Gate::hold_briefly(
            now,
            format!(
                "{running} repairs run on this site, at most {} at once",
                budget.at_once
            ),
        );
    }
    Gate::pass(format!("{} of this here before", same.len()))
}

fn within(one: &Spent, window: &Window, now: Timestamp) -> bool {
    now.duration_since(one.at).as_secs() < i64::from(window.window.0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn spent(minute: i64, runbook: &str, target: &str, outcome: Option<RepairOutcome>) -> Spent {
        Spent {
            job: format!("j{minute}"),
            runbook: RunbookId(runbook.into()),
            targets: vec![target.into()],
            at: at(minute),
            by: AUTOMATION.into(),
            outcome,
            ended_at: None,
            version: None,
            cleared: None,
        }
    }

    fn judged(ledger: &[Spent], minute: i64) -> Gate {
        judge(
            &Budget::default(),
            ledger,
            &RunbookId("MEM-1".into()),
            &["host:h1".into()],
            Some("own"),
            at(minute),
        )
    }

    #[test]
    fn once_in_half_an_hour_and_twice_a_day() {
        let done = Some(RepairOutcome::Verified);
        let ledger = [spent(0, "MEM-1", "host:h1", done)];
        assert!(
            judged(&ledger, 29)
                .why()
                .contains("repaired 1 times here within 30 min")
        );
        assert!(judged(&ledger, 30).passes());
        let twice = [
            spent(0, "MEM-1", "host:h1", done),
            spent(60, "MEM-1", "host:h1", done),
        ];
        assert!(judged(&twice, 120).why().contains("repaired 2 times"));
        assert!(judged(&twice, 24 * 60).passes());
    }

    #[test]
    fn others_do_not_count_and_what_was_refused_neither() {
        let done = Some(RepairOutcome::Verified);
        let mut own = spent(1, "MEM-1", "host:h1", None);
        own.job = "own".into();
        let ledger = [
            spent(0, "MEM-1", "host:h2", done),
            spent(0, "RMQ-2", "host:h1", done),
            spent(1, "MEM-1", "host:h1", Some(RepairOutcome::Refused)),
            own,
        ];
        assert!(judged(&ledger, 2).passes(), "{:?}", judged(&ledger, 2));
    }

    #[test]
    fn after_a_failed_proof_nothing_until_somebody_proved_it() {
        let ledger = [spent(
            0,
            "MEM-1",
            "host:h1",
            Some(RepairOutcome::Unverified),
        )];
        assert!(judged(&ledger, 120).why().contains("did not prove itself"));
        let months = 90 * 24 * 60;
        assert!(judged(&ledger, months).why().contains("did not prove"));
        let cleared = Spent {
            cleared: Some(Cleared {
                by: "ann".into(),
                at: at(60),
                why: "a bad disk".into(),
            }),
            ..ledger[0].clone()
        };
        assert!(judged(&[cleared], 120).passes());
        let proved = [
            ledger[0].clone(),
            spent(60, "MEM-1", "host:h1", Some(RepairOutcome::Verified)),
        ];
        assert!(!judged(&proved, 95).why().contains("did not prove itself"));
    }

    #[test]
    fn another_runbook_and_a_redeploy_of_the_same_thing_count() {
        let done = Some(RepairOutcome::Verified);
        let judged = |ledger: &[Spent]| {
            judge(
                &Budget::default(),
                ledger,
                &RunbookId("RMQ-2".into()),
                &["host:h1".into(), "domain:rabbitmq".into()],
                None,
                at(20),
            )
        };
        for other in ["RMQ-1", REDEPLOY] {
            let gate = judged(&[spent(0, other, "domain:rabbitmq", done)]);
            assert!(gate.why().contains("repaired 1 times here"), "{gate:?}");
        }
        assert!(judged(&[spent(0, "MEM-1", "domain:memcached", done)]).passes());
    }

    #[test]
    fn the_site_waits() {
        let done = Some(RepairOutcome::Verified);
        let ledger: Vec<_> = (0..3).map(|n| spent(n, "RMQ-2", "host:h9", done)).collect();
        assert_eq!(
            judged(&ledger, 10),
            Gate::Hold {
                until: at(60),
                why: "3 repairs on this site within 60 min, the budget is 3".into(),
            }
        );
        let running = [
            spent(0, "RMQ-2", "host:h8", None),
            spent(1, "RMQ-2", "host:h9", None),
        ];
        assert!(judged(&running, 2).why().contains("at most 2 at once"));
    }
}
