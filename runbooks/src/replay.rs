//! Today's rules, runbooks, gates and trust, run over what is on record: what would newly act, wait or stop? Pure, changes
//! nothing.
//!
//! History holds of each incident its alerts, its last decision with the readings and with what the gates looked at, and all
//! decisions in words. What it does not hold is said, never guessed.

use std::collections::{BTreeMap, BTreeSet};

use deploy_engine::model::HostName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    budget::Spent,
    compile::compile,
    decide::{Choice, Decision, HealPlan, Opinion, Permission, choose, conclude, plan},
    decision::{self, Input, Steady, Verdict},
    format::{Runbook, RunbookId},
    gate::{Answer, BlastFacts, BudgetFacts, GateInput, Phase, WorldFacts, evaluate},
    healer::{
        DecisionRecord, HealSettings,
        case::{affected, plan_facts},
    },
    incident::Incident,
    library::{Library, settings},
    matching::{Matched, match_alert},
    topology::Topology,
    trust::{self, Drilled, Grant},
};

/// One incident as it is on record.
pub struct Past {
    pub incident: Incident,
    /// The last decision, with its evidence.
    pub record: Option<DecisionRecord>,
}

/// What counts today.
pub struct Today<'a> {
    pub library: &'a Library,
    pub topology: &'a Topology,
    pub settings: &'a HealSettings,
    pub grants: &'a BTreeMap<RunbookId, Vec<Grant>>,
    pub drilled: &'a BTreeMap<RunbookId, Drilled>,
    /// All repairs, oldest first.
    pub ledger: &'a [Spent],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// It would act, alone or after asking, where nothing was done.
    Fires,
    /// It would act without asking, where a person was asked.
    ActsAlone,
    /// It would ask a person, or only tell what it would do, where it acted.
    AsksFirst,
    /// It would wait.
    Holds,
    /// It would not repair it.
    Stops,
    Same,
    /// History does not hold enough.
    CannotTell,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    pub incident: String,
    pub about: String,
    pub at: Timestamp,
    pub then: Option<Decision>,
    pub now: Result<Decision, String>,
    pub difference: Difference,
    /// Runbooks that today's rules add to or take from it.
    pub newly_matched: Vec<RunbookId>,
    pub no_longer_matched: Vec<RunbookId>,
    /// Today's gates over what was seen then; empty when it does not come to them.
    pub gates: Vec<Answer>,
}

/// Pure.
pub fn replay(past: &Past, today: &Today<'_>) -> Replayed {
    let incident = &past.incident;
    let (runbooks, told) = matched(incident, today);
    let then = past.record.as_ref().map(|record| record.decision.clone());
    let mut gates = Vec::new();
    let now = if runbooks.is_empty() {
        Ok(Decision::TellOnly { why: told })
    } else {
        match &past.record {
            None => Err("no decision is on record".to_owned()),
            Some(record) => {
                decide(incident, record, &runbooks, today).map(|(decision, answers)| {
                    gates = answers;
                    decision
                })
            }
        }
    };
    let (before, after) = (&incident.runbooks, &runbooks);
    Replayed {
        incident: incident.id.to_string(),
        about: incident.domain.to_string(),
        at: past
            .record
            .as_ref()
            .map_or(incident.opened_at, |one| one.at),
        difference: difference(then.as_ref(), now.as_ref()),
        then,
        now,
        newly_matched: missing(after, before),
        no_longer_matched: missing(before, after),
        gates,
    }
}

fn missing(of: &[RunbookId], there: &[RunbookId]) -> Vec<RunbookId> {
    of.iter()
        .filter(|id| !there.contains(id))
        .cloned()
        .collect()
}

/// The runbooks that today's rules have for its alerts; and why there is none.
fn matched(incident: &Incident, today: &Today<'_>) -> (Vec<RunbookId>, String) {
    let (mut found, mut told) = (Vec::new(), "it has no alert on record".to_owned());
    for alert in incident.alerts.values() {
        match match_alert(today.library, today.topology, alert) {
            Matched::Runbooks { runbooks, .. } => {
                for id in runbooks {
                    if !found.contains(&id) {
                        found.push(id);
                    }
                }
            }
            Matched::HostDown { host, .. } => told = format!("{host} is said to be down"),
            Matched::Gate { .. } => told = "it is about the monitoring itself".to_owned(),
            Matched::TellOnly { why, .. } => told = why,
        }
    }
    (found, told)
}

fn rank(decision: &Decision) -> u8 {
    match decision {
        Decision::Act { .. } => 3,
        Decision::Ask { .. } | Decision::Shadow { .. } => 2,
        Decision::Hold { .. } => 1,
        Decision::Refuse { .. } | Decision::TellOnly { .. } => 0,
    }
}

fn difference(then: Option<&Decision>, now: Result<&Decision, &String>) -> Difference {
    let Ok(now) = now else {
        return Difference::CannotTell;
    };
    // Nothing was decided: nothing was done.
    let (before, after) = (then.map_or(0, rank), rank(now));
    match (before, after) {
        (before, after) if before == after => Difference::Same,
        (3, 2) => Difference::AsksFirst,
        (2, 3) => Difference::ActsAlone,
        (_, 2 | 3) => Difference::Fires,
        (_, 1) => Difference::Holds,
        _ => Difference::Stops,
    }
}

/// # Errors
/// What history does not hold.
fn decide(
    incident: &Incident,
    record: &DecisionRecord,
    ids: &[RunbookId],
    today: &Today<'_>,
) -> Result<(Decision, Vec<Answer>), String> {
    let runbooks: Vec<Runbook> = ids
        .iter()
        .filter_map(|id| today.library.get(id))
        .map(|runbook| today.settings.adapted(runbook))
        .collect::<Result<_, _>>()?;
    let opinions: Result<Vec<Opinion>, String> = runbooks
        .iter()
        .map(|runbook| opinion(runbook, incident, record, today))
        .collect();
    let (id, act) = match choose(opinions?) {
        Choice::Decided(decision) => return Ok((decision, Vec::new())),
        Choice::Act(id, act) => (id, act),
    };
    let runbook = runbooks.iter().find(|runbook| runbook.runbook == id);
    let runbook = runbook.ok_or_else(|| format!("there is no runbook {id}"))?;
    let compiled = compile(runbook, &act, today.topology);
    let plan = match plan(runbook, &act, compiled, &incident.domain, record.at) {
        Ok(plan) => plan,
        Err(decision) => return Ok((decision, Vec::new())),
    };
    let world = record.world.as_deref().ok_or(
        "it would come to the gates, and what they look at was not recorded: then it did not come to them",
    )?;
    let ledger = ledger_then(today.ledger, world.at);
    let answers = evaluate(&input(runbook, &plan, world, &ledger, today));
    let permission = permission(runbook, &plan, &ledger, today);
    let decision = conclude(plan, &answers, permission, None);
    Ok((decision, answers))
}

fn opinion(
    runbook: &Runbook,
    incident: &Incident,
    record: &DecisionRecord,
    today: &Today<'_>,
) -> Result<Opinion, String> {
    let members = today.topology.members(&runbook.service).unwrap_or_default();
    let asked = |probe: &&String| record.readings.by_probe.contains_key(*probe);
    let deployed = |probe: &&String| {
        let service = deploy_engine::probe::find(probe).and_then(|probe| probe.service());
        service.is_none_or(|service| today.topology.is_deployed(service))
    };
    let unasked = runbook.evidence.iter().filter(deployed);
    if let Some(probe) = unasked.clone().find(|probe| !asked(probe)) {
        return Err(format!(
            "{} reads {probe}, which was not asked then",
            runbook.runbook
        ));
    }
    let subjects: Vec<HostName> = incident.subjects.iter().cloned().collect();
    let settings = settings(runbook, &today.settings.overrides(&runbook.runbook));
    let steady: Steady = incident
        .steady
        .get(&runbook.runbook)
        .cloned()
        .unwrap_or_default();
    let verdict = match decision::find(&runbook.decide) {
        Some(entry) => entry.decide(&Input {
            now: record.at,
            topology: today.topology,
            service: &runbook.service,
            members: &members,
            subjects: &subjects,
            settings: &settings,
            readings: &record.readings,
            steady: &steady,
        }),
        None => return Err(format!("there is no decision {}", runbook.decide)),
    };
    if let Verdict::More { why, .. } = &verdict {
        return Err(format!(
            "{} would ask more than was asked: {why}",
            runbook.runbook
        ));
    }
    Ok(Opinion {
        runbook: runbook.runbook.clone(),
        verdict,
    })
}

/// The ledger as it was: what ended later was still running.
fn ledger_then(ledger: &[Spent], at: Timestamp) -> Vec<Spent> {
    let before = ledger.iter().filter(|one| one.at < at);
    before
        .map(|one| {
            let mut one = one.clone();
            if one.ended_at.is_some_and(|ended| ended > at) {
                (one.outcome, one.ended_at) = (None, None);
            }
            one.cleared = one.cleared.filter(|cleared| cleared.at <= at);
            one
        })
        .collect()
}

fn input<'a>(
    runbook: &'a Runbook,
    plan: &'a HealPlan,
    world: &WorldFacts,
    ledger: &'a [Spent],
    today: &'a Today<'_>,
) -> GateInput<'a> {
    let members: BTreeSet<HostName> = today
        .topology
        .members(&runbook.service)
        .unwrap_or_default()
        .into_iter()
        .collect();
    GateInput {
        now: world.at,
        phase: Phase::Starting,
        limits: &today.settings.gates,
        evidence: world.evidence.clone(),
        monitoring: world.monitoring.clone(),
        people: world.people.clone(),
        locks: world.locks.clone(),
        blast: BlastFacts {
            radius: runbook.blast,
            affected: affected(runbook, &plan.roles),
            away: world.away.clone(),
            same_elsewhere: world.same_elsewhere.clone(),
            members,
        },
        budget: BudgetFacts {
            budget: &runbook.budget,
            ledger,
            runbook: &runbook.runbook,
            targets: plan.targets.clone(),
            own_job: None,
        },
        storm: world.storm,
        plan: plan_facts(
            runbook,
            &plan.roles,
            &plan.steps,
            today.topology,
            &today.settings.bot_needs,
            world.kept_on.clone(),
            world.unread.clone(),
            world.unproven.clone(),
        ),
        // An override was for one repair, once.
        overridden: None,
    }
}

fn permission(
    runbook: &Runbook,
    plan: &HealPlan,
    ledger: &[Spent],
    today: &Today<'_>,
) -> Permission {
    let id = &runbook.runbook;
    let none = Vec::new();
    let grants = today.grants.get(id).unwrap_or(&none);
    let hosts = plan
        .targets
        .iter()
        .filter_map(|target| target.strip_prefix("host:"));
    let groups: Vec<BTreeSet<String>> = hosts
        .map(|host| {
            let groups = today.topology.groups.iter();
            let own = groups.filter(|(name, _)| name.as_str() == host);
            own.flat_map(|(_, groups)| groups.clone()).collect()
        })
        .collect();
    let version = today
        .library
        .get(id)
        .map(trust::version)
        .unwrap_or_default();
    let record = trust::Record::of(id, &version, ledger, today.drilled.get(id));
    Permission {
        class: runbook.class,
        mode: trust::effective(today.settings.configured_mode(id), grants, &groups),
        opted_in: today.settings.opted_in(runbook),
        earned: today.settings.unearned || record.earned().is_ok(),
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
