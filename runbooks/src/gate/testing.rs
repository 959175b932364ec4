//! A repair of one of three caches that all gates let pass.

use std::collections::{BTreeMap, BTreeSet};

use collectors::{prometheus::TargetHealth, watchdog::Watchdog};
use deploy_engine::model::{HostName, ServiceName};
use jiff::{SignedDuration, Timestamp};

use super::{
    BlastFacts, BudgetFacts, Direct, EvidenceFacts, Gate, GateInput, GateLimits, LockFacts,
    MetricPath, MonitoringFacts, PeopleFacts, Phase, PlanFacts, Scrape, evaluate,
    maintenance::required, together,
};
use crate::{
    budget::{AUTOMATION, Budget, RepairOutcome, Spent},
    decision::{Roles, testing::host},
    format::{Blast, RunbookId},
    storm::Storm,
};

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A repair that ended, so many minutes ago.
pub(crate) fn spent(
    job: &str,
    runbook: &str,
    target: &str,
    minutes_ago: i64,
    outcome: RepairOutcome,
) -> Spent {
    let at = now() - SignedDuration::from_mins(minutes_ago);
    Spent {
        job: job.into(),
        runbook: RunbookId(runbook.into()),
        targets: vec![target.into()],
        at,
        by: AUTOMATION.into(),
        outcome: Some(outcome),
        ended_at: Some(at),
        version: None,
        cleared: None,
    }
}

pub(crate) struct Site {
    pub limits: GateLimits,
    pub budget: Budget,
    pub ledger: Vec<Spent>,
    pub runbook: RunbookId,
    pub service: ServiceName,
    pub roles: Roles,
    pub bot_needs: BTreeSet<ServiceName>,
    pub racks: BTreeMap<HostName, String>,
}

impl Site {
    pub fn new() -> Self {
        Self {
            limits: GateLimits::default(),
            budget: Budget::default(),
            ledger: Vec::new(),
            runbook: RunbookId("MEM-1".into()),
            service: "memcached".parse().unwrap(),
            roles: [("down".to_owned(), vec![host("h1")])].into(),
            bot_needs: BTreeSet::new(),
            racks: [("h1", "r1"), ("h2", "r2"), ("h3", "r3"), ("h4", "r1")]
                .map(|(name, rack)| (host(name), rack.to_owned()))
                .into(),
        }
    }

    /// Before a step that changes something, with nothing recorded.
    pub fn step(decided_seconds_ago: i64, acted: bool) -> Phase {
        let decided_at = now() - SignedDuration::from_secs(decided_seconds_ago);
        Phase::Step {
            decided_at,
            acted,
            acts: true,
            snapshot_done: false,
        }
    }

    pub fn input(&self) -> GateInput<'_> {
        let direct = |name: &str| Direct {
            probe: "memcached.stats".into(),
            host: host(name),
            at: now(),
            known: true,
        };
        let metric = MetricPath {
            alert: "MemcachedDown".into(),
            query: "nightshift_memcached_up == 0".into(),
            firing: true,
            last_evaluation: now() - SignedDuration::from_secs(10),
            interval: SignedDuration::from_secs(15),
            error: None,
        };
        GateInput {
            now: now(),
            phase: Phase::Starting,
            limits: &self.limits,
            evidence: EvidenceFacts {
                metric: Ok(vec![metric]),
                scrapes: Ok([(
                    host("h1"),
                    Scrape {
                        last: now() - SignedDuration::from_secs(9),
                        interval: SignedDuration::from_secs(15),
                    },
                )]
                .into()),
                direct: vec![direct("h1"), direct("h2")],
                clock_off_seconds: Ok(0.1),
                log_lines: Vec::new(),
            },
            monitoring: MonitoringFacts {
                watchdog: Watchdog::Fresh { last_seen: now() },
                targets: Ok(TargetHealth {
                    up: 20,
                    down: 1,
                    unknown: 0,
                }),
                prometheus: Ok(()),
                alertmanager: Ok(()),
            },
            people: PeopleFacts {
                required: required(["memcached"]),
                signs: required(["memcached"])
                    .into_iter()
                    .map(|form| (form, Ok(Vec::new())))
                    .collect(),
            },
            locks: LockFacts {
                scope: "domain:memcached".into(),
                held: Ok(Vec::new()),
            },
            blast: BlastFacts {
                radius: Blast::Member,
                members: [host("h1"), host("h2"), host("h3")].into(),
                affected: [host("h1")].into(),
                away: BTreeSet::new(),
                same_elsewhere: Vec::new(),
            },
            budget: BudgetFacts {
                budget: &self.budget,
                ledger: &self.ledger,
                runbook: &self.runbook,
                targets: vec!["host:h1".into(), "domain:memcached".into()],
                own_job: None,
            },
            storm: Storm::Calm,
            plan: PlanFacts {
                service: &self.service,
                roles: &self.roles,
                hosts: [host("h1")].into(),
                site: [host("h1"), host("h2"), host("h3")].into(),
                racks: &self.racks,
                unread: BTreeSet::new(),
                recorded: [host("h1"), host("h2"), host("h3")].into(),
                kept_on: None,
                first_snapshot: Some(0),
                first_act: Some(1),
                unguarded: Vec::new(),
                proof: true,
                unproven: Vec::new(),
                bot_needs: &self.bot_needs,
            },
            overridden: None,
        }
    }
}

pub(crate) fn expect(
    gate: fn(&GateInput<'_>) -> Gate,
    change: fn(&mut GateInput<'_>),
    kind: &str,
    part: &str,
) {
    expect_with(gate, change, kind, part);
}

pub(crate) fn expect_with(
    gate: fn(&GateInput<'_>) -> Gate,
    change: impl FnOnce(&mut GateInput<'_>),
    kind: &str,
    part: &str,
) {
    let site = Site::new();
    let mut input = site.input();
    change(&mut input);
    let answer = gate(&input);
    let found = match answer {
        Gate::Pass { .. } => "pass",
        Gate::Hold { .. } => "hold",
        Gate::Refuse { .. } => "refuse",
    };
    assert_eq!(found, kind, "{answer:?}");
    assert!(
        answer.why().contains(part),
        "expected {part:?} in {:?}",
        answer.why()
    );
}

#[test]
fn all_together() {
    let site = Site::new();
    let mut input = site.input();
    let answers = evaluate(&input);
    assert_eq!(answers.len(), 13);
    assert!(together(&answers).passes(), "{answers:?}");
    assert!(!together(&[]).passes(), "no gate asked is no permission");
    input.storm = Storm::Raging { since: now() };
    let deploy = Ok(vec![super::maintenance::Sign::new("j1")]);
    input
        .people
        .signs
        .insert(super::maintenance::Form::Deploy, deploy);
    let held = together(&evaluate(&input));
    assert!(
        matches!(held, Gate::Hold { .. })
            && held.why().contains("G4: ")
            && held.why().contains("; G8: "),
        "{held:?}"
    );
    input.plan.proof = false;
    let refused = together(&evaluate(&input));
    assert_eq!(
        refused,
        Gate::refuse("G12: the repair does not end with a proof that is held for a time")
    );
}
