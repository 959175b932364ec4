//! What `why` prints for three repairs that were refused.

use std::collections::{BTreeMap, BTreeSet};

use collectors::{prometheus::TargetHealth, watchdog::Watchdog};
use deploy_engine::{
    model::{HostName, ServiceName},
    probe::Readings,
};
use jiff::SignedDuration;
use runbooks::{
    budget::{Budget, Spent},
    decide::{Decision, Opinion},
    decision::{Act, Roles, Verdict},
    format::{Blast, RunbookId},
    gate::{
        BlastFacts, BudgetFacts, Direct, EvidenceFacts, GateInput, GateLimits, HeldLock, LockFacts,
        MetricPath, MonitoringFacts, PeopleFacts, Phase, PlanFacts, Scrape, evaluate,
        maintenance::required, together,
    },
    incident::{Domain, IncidentId, State},
    storm::Storm,
};
use serde_json::json;

use super::*;
use crate::wording::render::plain;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn ago_s(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// What `why` says of one of three caches that is down, when the world is as `change` makes it.
fn why(change: impl FnOnce(&mut GateInput<'_>)) -> String {
    let (limits, budget, ledger) = (
        GateLimits::default(),
        Budget::default(),
        Vec::<Spent>::new(),
    );
    let runbook = RunbookId("MEM-1".into());
    let service: ServiceName = "memcached".parse().unwrap();
    let roles: Roles = [("down".to_owned(), vec![host("ctl3")])].into();
    let racks: BTreeMap<HostName, String> = [(host("ctl3"), "r3".to_owned())].into();
    let members: BTreeSet<HostName> = ["ctl1", "ctl2", "ctl3"].map(host).into();
    let needs = BTreeSet::new();
    let forms = required(["memcached"]);
    let mut input = GateInput {
        now: now(),
        phase: Phase::Starting,
        limits: &limits,
        evidence: EvidenceFacts {
            metric: Ok(vec![MetricPath {
                alert: "MemcachedDown".into(),
                query: "nightshift_memcached_up == 0".into(),
                firing: true,
                last_evaluation: ago_s(4),
                interval: SignedDuration::from_secs(15),
                error: None,
            }]),
            scrapes: Ok([(
                host("ctl3"),
                Scrape {
                    last: ago_s(6),
                    interval: SignedDuration::from_secs(15),
                },
            )]
            .into()),
            direct: members
                .iter()
                .map(|host| Direct {
                    probe: "host.units".into(),
                    host: host.clone(),
                    at: ago_s(1),
                    known: true,
                })
                .collect(),
            clock_off_seconds: Ok(0.0),
            log_lines: Vec::new(),
        },
        monitoring: MonitoringFacts {
            watchdog: Watchdog::Fresh {
                last_seen: ago_s(20),
            },
            targets: Ok(TargetHealth {
                up: 20,
                down: 1,
                unknown: 0,
            }),
            prometheus: Ok(()),
            alertmanager: Ok(()),
        },
        people: PeopleFacts {
            signs: forms.iter().map(|form| (*form, Ok(Vec::new()))).collect(),
            required: forms,
        },
        locks: LockFacts {
            scope: "domain:memcached".into(),
            held: Ok(Vec::new()),
        },
        blast: BlastFacts {
            radius: Blast::Member,
            members: members.clone(),
            affected: [host("ctl3")].into(),
            away: BTreeSet::new(),
            same_elsewhere: Vec::new(),
        },
        budget: BudgetFacts {
            budget: &budget,
            ledger: &ledger,
            runbook: &runbook,
            targets: vec!["host:ctl3".into(), "domain:memcached".into()],
            own_job: None,
        },
        storm: Storm::Calm,
        plan: PlanFacts {
            service: &service,
            roles: &roles,
            hosts: [host("ctl3")].into(),
            site: members.clone(),
            racks: &racks,
            unread: BTreeSet::new(),
            recorded: members,
            kept_on: None,
            first_snapshot: Some(0),
            first_act: Some(1),
            unguarded: Vec::new(),
            proof: true,
            unproven: Vec::new(),
            bot_needs: &needs,
        },
        overridden: None,
    };
    change(&mut input);
    let gates = evaluate(&input);
    let (why, evidence) = match together(&gates) {
        Gate::Refuse { why, evidence } => (why, evidence),
        other => panic!("expected a refusal, found {other:?}"),
    };
    let act = Act {
        roles: roles.clone(),
        parameters: BTreeMap::new(),
        why: "ctl3 is down and does not come back by itself".into(),
    };
    said(&DecisionRecord {
        incident: IncidentId("i19c3".into()),
        at: ago_s(1),
        opinions: vec![Opinion {
            runbook: RunbookId("MEM-1".into()),
            verdict: Verdict::Act(act),
        }],
        gates,
        decision: Decision::Refuse { why, evidence },
        readings: readings(),
        world: None,
    })
}

fn readings() -> Readings {
    let mut readings = Readings::default();
    let unit = |active: &str| {
        json!({"memcached.service": {"load": "loaded", "active": active, "sub": "dead", "result": "signal", "restarts": 0,
            "enabled": "enabled", "active_since_monotonic_us": 5, "inactive_since_monotonic_us": 9}})
    };
    for (name, active) in [("ctl1", "active"), ("ctl3", "failed")] {
        let value = unit(active);
        readings.insert(
            "host.units",
            host(name),
            Reading::Known { value, at: now() },
        );
    }
    let why = "connection refused".to_owned();
    readings.insert(
        "memcached.stats",
        host("ctl3"),
        Reading::Unknown { why, at: now() },
    );
    readings
}

fn said(record: &DecisionRecord) -> String {
    let why = record.decision.why().to_owned();
    let incident = Incident {
        state: State::Refused {
            why,
            again: None,
            looks: 0,
        },
        since: ago_s(1),
        subjects: [host("ctl3")].into(),
        runbooks: vec![RunbookId("MEM-1".into())],
        ..Incident::opened(
            record.incident.clone(),
            Domain::Service("memcached".parse().unwrap()),
            ago_s(95),
        )
    };
    plain(&decision_message(&incident, Some(record), now()))
}

#[test]
fn three_refusals() {
    let shared = why(|input| {
        input.evidence.metric.as_mut().unwrap()[0].query = "haproxy_up == 0".into();
        for one in &mut input.evidence.direct {
            one.probe = "haproxy.info".into();
        }
    });
    insta::assert_snapshot!("two_sources_that_are_one", shared);
    let quorum = why(|input| {
        input.blast.away.insert(host("ctl1"));
        input.locks.held = Ok(vec![HeldLock {
            scope: "domain:host.ctl2".into(),
            job: "h19b2".into(),
            hosts: [host("ctl2")].into(),
        }]);
    });
    insta::assert_snapshot!("below_the_majority", quorum);
    let ill = why(|input| {
        input.monitoring.alertmanager = Err("its cluster is settling".into());
        input.plan.kept_on = Some(host("ctl3"));
    });
    insta::assert_snapshot!("monitoring_and_patient", ill);
    for text in [&shared, &quorum, &ill] {
        for gate in 1..=13 {
            assert!(text.contains(&format!("G{gate}")), "G{gate} is missing");
        }
    }
}
